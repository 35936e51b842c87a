"""What an answer says against the previous one of the same endpoint. Pure.

Gives the interval documents of `states`, the entries of `changes` (added, changed, vanished,
returned), and the descriptions to store. Descriptions are compared on fields that both answers
have: endpoints and firmwares leave things out. What is remembered lives in the spool's table
`last`, so all this works while MongoDB is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.ledger import OWNERSHIP
from netatmo_ingestd.models import Change, Entity, Record, State

VANISHED_AFTER = timedelta(hours=24)
VANISHED_ANSWERS = 3


@dataclass(frozen=True, slots=True)
class Known:
    """The last answer about one entity.

    since    when its discrete state became what it is
    seen     server time of the last answer that had it
    absent   good answers of its account since then that lacked it
    """

    entity: Entity
    since: datetime
    seen: datetime
    absent: int = 0
    vanished: bool = False


def compare(
    known: Mapping[str, Known],
    entities: Iterable[Entity],
    account: str,
    moment: datetime,
    every: timedelta,
    *,
    lists: bool = True,
    elsewhere: Callable[[str], Sequence[Known]] = lambda _: (),
) -> tuple[list[Record], dict[str, Known]]:
    """Records that `account`'s answer at `moment` gives rise to, and what to remember.

    known      by entity id, of this endpoint, of all accounts
    every      cadence of the endpoint: more than two missed polls begin a new state interval
    lists      False when what the answer leaves out, or has for the first time, is no news
    elsewhere  what other endpoints that list say of an entity: one change is told once
    """
    records: list[Record] = []
    update: dict[str, Known] = {}
    seen = set()
    for entity in entities:
        seen.add(entity.entity_id)
        before = known.get(entity.entity_id)
        if before is not None and not _may_speak(before, entity, moment):
            continue
        now = _remember(before, entity, moment, every)
        update[entity.entity_id] = now
        records += _records(now)
        others = elsewhere(entity.entity_id)
        records += _changes(before, now, moment, others if lists else None)
    if seen and lists:
        for entity_id, before in known.items():
            if before.entity.account == account and entity_id not in seen:
                gone = _absent(before, moment)
                update[entity_id] = gone
                there = any(not each.vanished for each in elsewhere(entity_id))
                if gone.vanished and not before.vanished and not there:
                    records.append(_change(gone.entity, moment, "vanished", {}, {}))
    return records, update


def described(
    known: Mapping[str, Mapping[str, Known]], apart_from: str, rank: Callable[[str], int]
) -> dict[str, Entity]:
    """What all endpoints but one describe, by id; of several the one of the highest rank."""
    return {
        entity_id: each.entity
        for endpoint in sorted(known, key=rank)
        if endpoint != apart_from
        for entity_id, each in known[endpoint].items()
    }


def _may_speak(before: Known, entity: Entity, moment: datetime) -> bool:
    """One account describes an entity: its owner, until it is silent for a week."""
    if before.entity.account == entity.account:
        return True
    if before.entity.read_only and not entity.read_only:
        return True
    return moment - before.seen > OWNERSHIP


def _remember(before: Known | None, entity: Entity, moment: datetime, every: timedelta) -> Known:
    if before is None:
        return Known(entity, moment, moment)
    # Of what cannot be reached nothing is known any more: a boiler does not burn on for days.
    reachable = entity.state.get("reachable") is not False
    merged = {**(before.entity.state if reachable else {}), **entity.state}
    # Two missed polls make a gap of three intervals, and polls come a little late.
    continues = moment - before.seen < 3.5 * every and merged == dict(before.entity.state)
    return Known(
        replace(
            entity,
            home_id=entity.home_id or before.entity.home_id,
            description={**before.entity.description, **entity.description},
            state=merged,
        ),
        before.since if continues else moment,
        max(moment, before.seen),
    )


def _records(now: Known) -> list[Record]:
    entity = now.entity
    values = {name: value for name, value in entity.state.items() if value is not None}
    if not values:
        return [entity]
    state = State(
        account=entity.account,
        entity_id=entity.entity_id,
        kind=entity.kind,
        home_id=entity.home_id,
        time=now.since,
        until=now.seen,
        values=values,
    )
    return [entity, state]


def _changes(
    before: Known | None, now: Known, moment: datetime, others: Sequence[Known] | None
) -> list[Record]:
    """What of a description is news, and not told by another endpoint; None: no one lists it."""
    entity = now.entity
    if before is None:
        news = others is not None and not others
        return [_change(entity, moment, "added", {}, entity.description)] if news else []
    records: list[Record] = []
    if before.vanished and not any(not each.vanished for each in others or ()):
        records.append(_change(entity, moment, "returned", {}, {}))
    old, new = before.entity.description, entity.description
    changed = [
        key
        for key in new
        if key in old
        and old[key] != new[key]
        and not any(each.entity.description.get(key) == new[key] for each in others or ())
    ]
    if changed:
        was, is_ = ({key: each[key] for key in changed} for each in (old, new))
        records.append(_change(entity, moment, "changed", was, is_))
    return records


def _absent(before: Known, moment: datetime) -> Known:
    absent = before.absent + 1
    gone = absent >= VANISHED_ANSWERS and moment - before.seen >= VANISHED_AFTER
    return replace(before, absent=absent, vanished=before.vanished or gone)


def _change(
    entity: Entity,
    moment: datetime,
    what: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Change:
    return Change(
        account=entity.account,
        entity_id=entity.entity_id,
        kind=entity.kind,
        home_id=entity.home_id,
        time=moment,
        what=what,
        before=before,
        after=after,
    )


# --- as rows of the table `last` ------------------------------------------------------------------


def to_row(known: Known) -> dict[str, Any]:
    entity = known.entity
    return {
        "account": entity.account,
        "kind": entity.kind,
        "home_id": entity.home_id,
        "device_id": entity.device_id,
        "type": entity.type,
        "description": entity.description,
        "state": entity.state,
        "setup": entity.setup,
        "read_only": entity.read_only,
        "since": known.since,
        "seen": known.seen,
        "absent": known.absent,
        "vanished": known.vanished,
    }


def from_row(entity_id: str, row: Mapping[str, Any]) -> Known:
    entity = Entity(
        account=row["account"],
        kind=row["kind"],
        entity_id=entity_id,
        home_id=row["home_id"],
        device_id=row["device_id"],
        type=row["type"],
        description=row["description"],
        state=row["state"],
        setup=row["setup"],
        read_only=row["read_only"],
    )
    return Known(entity, row["since"], row["seen"], row["absent"], row["vanished"])
