"""Failures of emergency lighting: from flags that come and go to events that say what is broken.

A flag says nothing by itself: each (reference, flag) is decoded by one call, once, and what it
means is kept in `failure_codes` and in the table `last`. What is wrong just now stands in `last`
too, so that a restart tells nothing twice. One event says when a failure was first seen, another
when it was seen no more, both within one poll.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.models import Entity, Event, FailureCode, Record, whole_seconds
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.sources.emergency import EMERGENCY, FAILURE_FLAG, failure_poll, failures_of
from netatmo_ingestd.spool import LastKey

CODES, FAILING = "failure_codes", "failures"
"""Pseudo endpoints in `last`: what a flag means, and what is wrong with a controller."""
APPEARED, CLEARED = "failure_appeared", "failure_cleared"
DAY = timedelta(days=1)
UNDECODED = timedelta(days=7)  # then a failure is told without its meaning
UNKNOWN = "UNKNOWN"
Rows = Mapping[LastKey, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A flag of one controller; `until` None while it is there, `told` once its event was."""

    account: str
    home_id: str
    controller: str
    reference: str
    flag: int
    since: datetime
    until: datetime | None = None
    told: bool = False

    @property
    def code(self) -> str:
        return f"{self.reference}|{self.flag}"


class Failures:
    """What is wrong with the controllers of all accounts, and what flags mean."""

    def __init__(self) -> None:
        self._codes: dict[str, FailureCode] = {}
        self._failing: dict[str, tuple[Failure, ...]] = {}
        self._stored: set[str] = set()  # codes that the store has, as far as we know
        self._saved: set[str] = set()  # controllers whose row in `last` is as remembered
        # Codes to when a call for them was wanted last, and how often in vain.
        self._wanted: dict[str, tuple[datetime, int]] = {}

    def load(self, rows: Mapping[LastKey, Mapping[str, Any]]) -> None:
        """Take what is in the table `last`."""
        self._note(rows)
        self._stored = set(self._codes)
        self._saved = set(self._failing)

    def forget(self) -> None:
        """The store was replaced, and `last` emptied: the new one is told all, without a call."""
        self._stored.clear()
        self._saved.clear()
        self._failing = {
            controller: tuple(replace(each, told=False) for each in failing)
            for controller, failing in self._failing.items()
        }

    async def ask(
        self, account: AccountPolls, poll: Poll, every: timedelta
    ) -> Sequence[Poll] | None:
        """Ask for the controllers of a site, or what a flag means; as `AccountPolls.ask`."""
        rows: dict[LastKey, Mapping[str, Any] | None] = {}
        told: dict[str, FailureCode] = {}

        async def complete(reply: Reply, parsed: Parsed) -> Parsed:
            moment = whole_seconds(reply.time_server)
            for each in parsed.records:
                if isinstance(each, FailureCode):
                    told[f"{each.reference}|{each.flag}"] = each
            known = self._codes | told
            told.update({key: known[key] for key in known.keys() - self._stored})
            if poll.endpoint is FAILURE_FLAG:
                failing = self._of(account.name)
            else:
                failing = self._seen(account, poll, reply, parsed)
            events, left = _tell(failing, known, moment)
            rows.update({(CODES, key): asdict(each) for key, each in told.items()})
            rows.update(
                ((FAILING, key), {"open": [asdict(each) for each in now]} if now else None)
                for key, now in left.items()
                if now != self._failing.get(key, ()) or (now and key not in self._saved)
            )
            wants = (
                []
                if poll.endpoint is FAILURE_FLAG
                else self._wants(account, left, known, moment, every)
            )
            again = [each for each in told.values() if each not in parsed.records]
            return replace(
                parsed,
                records=(*parsed.records, *again, *events),
                wants=(*parsed.wants, *wants),
                last={**parsed.last, **rows},
            )

        wants = await account.ask(poll, every, complete)
        if wants is None:
            return None
        self._note(rows)
        self._stored |= told.keys()
        self._saved |= {key for endpoint, key in rows if endpoint == FAILING}
        if poll.endpoint is not FAILURE_FLAG:
            self._forget_old(account)
        elif poll.entity_id not in self._codes:
            account.set_aside(poll, "the answer does not say what this flag means")
        return wants

    def _forget_old(self, account: AccountPolls) -> None:
        """A flag that could not be decoded is no trouble any more once it is gone."""
        begin = f"{FAILURE_FLAG.name}|"
        there = {f"{begin}{each.code}" for now in self._failing.values() for each in now}
        for key in [each for each in account.troubled() if each.startswith(begin)]:
            if key not in there:
                account.forget(key)
        if not there - {f"{begin}{code}" for code in self._codes}:
            account.forget(f"{FAILURE_FLAG.name} {EMERGENCY.name}")  # all that its scope unlocks

    def _of(self, account: str) -> dict[str, tuple[Failure, ...]]:
        """What is wrong with the controllers that `account` looks after."""
        return {
            controller: failing
            for controller, failing in self._failing.items()
            if any(each.account == account for each in failing)
        }

    def _wants(
        self,
        account: AccountPolls,
        failing: Mapping[str, Sequence[Failure]],
        codes: Mapping[str, FailureCode],
        moment: datetime,
        every: timedelta,
    ) -> list[Poll]:
        """The calls for flags that nobody has decoded: at once, then ever less often, then daily.

        By whichever account sees them; one that is refused this leaves it to others.
        """
        found: dict[str, Poll] = {}
        for each in (each for now in failing.values() for each in now):
            asked, tries = self._wanted.get(each.code, (moment, 0))
            wait = min(every * 2 ** min(tries, 20), DAY) if tries else timedelta(0)
            want = failure_poll(account.name, each.reference, each.flag)
            if (
                each.code not in {*codes, *found}
                and moment - asked >= wait
                and not account.is_refused(want, account.clock.now())
            ):
                self._wanted[each.code] = moment, tries + 1
                found[each.code] = want
        return list(found.values())

    def _seen(
        self, account: AccountPolls, poll: Poll, reply: Reply, parsed: Parsed
    ) -> dict[str, tuple[Failure, ...]]:
        """What is wrong with each controller of an answer, beside what is yet to be told.

        Of one that is not there any more nothing is wrong; until that is sure, nothing changes.
        """
        moment = whole_seconds(reply.time_server)
        wanted = {
            each.entity_id: each
            for each in parsed.records
            if isinstance(each, Entity) and each.kind == "module" and account.intake.wants(each)
        }
        found: dict[str, tuple[Failure, ...]] = {}
        listed = set()
        for controller in reply.body if isinstance(reply.body, list) else ():
            told = controller.get("id") if isinstance(controller, dict) else None
            if not isinstance(told, str):
                continue
            listed.add(told)
            if (entity := wanted.get(told)) is not None:
                flags = set(failures_of(controller))
                before = self._failing.get(entity.entity_id, ())
                found[entity.entity_id] = tuple(_compared(before, flags, entity, moment))
        there = account.intake.entities(account.name)
        if poll.entity_id not in there:
            return found
        for controller, before in self._failing.items():
            mine = before and before[0].account == account.name
            # What the owner excluded since is listed still, and not gone.
            if (
                mine
                and before[0].home_id == poll.entity_id
                and controller not in listed
                and controller not in there
            ):
                found[controller] = tuple(_ended(each, moment) for each in before)
        return found

    def _note(self, rows: Rows) -> None:
        for (endpoint, key), row in rows.items():
            try:
                if endpoint == CODES and row is not None:
                    self._codes[key] = FailureCode(**row)
                elif endpoint == FAILING and row is not None:
                    self._failing[key] = tuple(Failure(**each) for each in row["open"])
                elif endpoint == FAILING:
                    self._failing.pop(key, None)
            except (KeyError, TypeError):
                continue  # written by another version: it is learned again


def _compared(
    before: Sequence[Failure], flags: set[tuple[str, int]], entity: Entity, moment: datetime
) -> Iterator[Failure]:
    """Those that are still there, those that have just gone or come, and those not told yet."""
    there = set()
    for each in before:
        is_there = (each.reference, each.flag) in flags
        if each.until is None and is_there:
            there.add((each.reference, each.flag))
        yield each if is_there else _ended(each, moment)
    for reference, flag in sorted(flags - there):
        yield Failure(
            entity.account, entity.home_id, entity.entity_id, reference, flag, since=moment
        )


def _ended(failure: Failure, moment: datetime) -> Failure:
    return failure if failure.until is not None else replace(failure, until=moment)


def _tell(
    failing: Mapping[str, Sequence[Failure]], codes: Mapping[str, FailureCode], read: datetime
) -> tuple[list[Record], dict[str, tuple[Failure, ...]]]:
    """Events of what is decoded, and what is to be remembered after them."""
    records: list[Record] = []
    left: dict[str, tuple[Failure, ...]] = {}
    for controller, each_of in failing.items():
        kept = []
        for each in each_of:
            code = codes.get(each.code)
            if code is None and read - each.since < UNDECODED:
                kept.append(each)
                continue
            if not each.told:
                records += _events(each, code, APPEARED, each.since, read)
            if each.until is not None:
                records += _events(each, code, CLEARED, each.until, read)
            else:
                kept.append(replace(each, told=True))
        left[controller] = tuple(kept)
    return records, left


def _events(
    failure: Failure, code: FailureCode | None, type_: str, time: datetime, read: datetime
) -> Iterator[Event]:
    """One for each thing that is broken; "OK" is no failure."""
    name = f"{failure.controller}|{failure.code}|{int(failure.since.timestamp())}"
    for place, each in enumerate(code.failures if code else [{"type": UNKNOWN}]):
        category, _, word = each["type"].rpartition(".")
        if word != "OK":
            yield Event(
                account=failure.account,
                event_id=f"{name}|{place}|{type_.rpartition('_')[2]}",
                home_id=failure.home_id,
                module_id=failure.controller,
                type=type_,
                time=time,
                read=read,
                meaning=each["type"],
                category=category,
                other=(("reference", failure.reference), ("flag", failure.flag)),
            )
