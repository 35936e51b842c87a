"""From a good answer to the spool: parse, compare with the last answer, append. One for an account.

Everything that an answer becomes, and what is remembered of it, is one transaction of the spool.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd import changes
from netatmo_ingestd.answers import raw_answer
from netatmo_ingestd.changes import Known
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.memory import ROWS, Memory, merged, rank
from netatmo_ingestd.models import (
    Batch,
    Change,
    Entity,
    Event,
    Measurement,
    Priority,
    Record,
    Summary,
    whole_seconds,
)
from netatmo_ingestd.plan import reach
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Problem, Reply
from netatmo_ingestd.settings import AccountSettings
from netatmo_ingestd.sources import for_products, product_of, serves
from netatmo_ingestd.sources.homestatus import HOMESTATUS, by_id
from netatmo_ingestd.sources.public import PUBLIC_DATA, as_known
from netatmo_ingestd.sources.reading import text
from netatmo_ingestd.sources.selection import select, wanted
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.spool import LastKey, Spool

Through = Callable[[Reply, Parsed], Awaitable[Parsed]]
_INDEX = re.compile(r"\[\d+\]|(?<=^body)\.\d+")
_KINDS = 500  # distinct problems that are counted by name; the rest share one count


class Intake:
    """Takes the answers of one account."""

    def __init__(
        self,
        *,
        settings: AccountSettings,
        spool: Spool,
        memory: Memory,
        ledger: Ledger,
        log: Any,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._memory = memory
        self._ledger = ledger
        self._log = log
        self._products = settings.products
        self._polled = {
            endpoint.name: endpoint
            for source in for_products(settings.products)
            for endpoint in source.endpoints
        }
        self._merged = ("", -1)  # for whom and of which revision the two below are
        self._entities: dict[str, Entity] = {}
        self._modules: dict[str, Entity] = {}

    def entities(self, account: str) -> dict[str, Entity]:
        """Whatever `account` describes and wants and that is still there, by id; without its state.

        Several endpoints describe one module: the product's own counts most, live state least.
        """
        self._merge(account)
        return self._entities

    def _merge(self, account: str) -> None:
        key = (account, self._memory.revision)
        if self._merged == key:
            return
        found: dict[str, Entity] = {}
        gone: dict[str, bool] = {}
        for name in sorted(self._polled, key=rank):
            for entity_id, known in self._memory.known.get(name, {}).items():
                if known.entity.account != account:
                    continue
                found[entity_id] = merged(found.get(entity_id), known.entity)
                if self._polled[name].lists:
                    gone[entity_id] = gone.get(entity_id, True) and known.vanished
        self._merged = key
        self._entities = {
            entity_id: each
            for entity_id, each in found.items()
            if not gone.get(entity_id) and self.wants(each)
        }
        self._modules = {
            entity_id: each
            for entity_id, each in self._entities.items()
            if each.kind == "room"
            or (each.kind == "module" and product_of(each) in (*self._products, ""))
        }

    def modules(self, account: str) -> dict[str, Entity]:
        """What may have a history among them, by id: modules of its products, and rooms."""
        self._merge(account)
        return self._modules

    def homes(self, account: str, endpoint: Endpoint) -> dict[str, Entity]:
        """The homes that `endpoint` is asked for: those with a module it can tell something of."""
        entities = self.entities(account)
        ids = {
            each.home_id: None
            for each in self.modules(account).values()
            if each.kind == "module" and each.home_id and serves(endpoint, each)
        }
        return {
            home_id: entities.get(home_id)
            or Entity(account, "home", home_id, home_id, "", "home", {})
            for home_id in ids
        }

    def wants_event(self, account: str, event: Event) -> bool:
        """False for an event of a module or person that the owner leaves out.

        What is left out is not remembered; so where anything is, only what is known counts.
        """
        if not (self._settings.include or self._settings.exclude):
            return True
        known = {*self.entities(account), event.home_id, "", None}
        return event.module_id in known and event.person_id in known

    def newest(self, module_id: str) -> datetime | None:
        """The newest row of a module that was put on the spool."""
        return self._memory.newest.get(module_id)

    def heard(self, module_id: str) -> tuple[Any, datetime] | None:
        """The last sign of life of a module, and when it was told."""
        return self._memory.heard.get(module_id)

    def forget(self) -> None:
        self._memory.forget()

    async def take(
        self, reply: Reply, poll: Poll, every: timedelta, through: Through | None = None
    ) -> Sequence[Poll]:
        """Put everything that `reply` says on the spool; the calls that should follow.

        through  what completes the parsed answer before
        Raises   SpoolError; then nothing is remembered and the same is asked again later
        """
        parsed = self._parse(reply, poll)
        if through is not None:
            parsed = await through(reply, parsed)
        async with self._memory.lock:
            return await self._take(parsed, reply, poll, every)

    async def _take(
        self, parsed: Parsed, reply: Reply, poll: Poll, every: timedelta
    ) -> Sequence[Poll]:
        about_own = self.entities(poll.account)
        if poll.endpoint is PUBLIC_DATA:
            parsed = as_known(parsed, changes.described(self._memory.known, PUBLIC_DATA.name, rank))
        strict = bool(self._settings.exclude)
        only = by_id(about_own, strict=strict) if poll.endpoint is HOMESTATUS else None
        parsed = select(
            parsed, lambda each: self.wants(merged(about_own.get(each.entity_id), each)), only
        )
        moment = whole_seconds(reply.time_server)
        name = poll.endpoint.name
        known = {
            entity_id: each
            for entity_id, each in self._memory.known.get(name, {}).items()
            # What the owner excluded since is not gone; live state by id alone lists nothing.
            if each.entity.account != poll.account
            or not poll.endpoint.lists
            or (self.wants(each.entity) and _is_listed(each.entity, poll))
        }
        entities = [
            each
            for each in parsed.records
            if isinstance(each, Entity) and not self._told_better(each, name)
        ]
        about, update = changes.compare(
            known,
            entities,
            poll.account,
            moment,
            every,
            lists=poll.endpoint.lists,
            elsewhere=lambda entity_id: self._elsewhere(entity_id, name),
        )
        others = [each for each in parsed.records if not isinstance(each, Entity)]
        foreign = {each.entity_id for each in entities} - update.keys()
        rows = [
            each
            for each in others
            if not self._is_forgotten(each)
            and not self._is_spooled(each, poll)
            # Two accounts that see one home would tell each moment twice.
            and not (
                isinstance(each, Measurement) and each.scale == "live" and each.module_id in foreign
            )
        ]
        newest = {
            fact.entity_id: max(fact.newest, self._memory.newest.get(fact.entity_id, fact.newest))
            for fact in parsed.facts
            if fact.newest and fact.scale not in ("1day", "events")
        }
        if poll.endpoint.per == "module" and not parsed.facts:  # rows without a ledger
            newest |= {
                each.module_id: max(each.time, self._memory.newest.get(each.module_id, each.time))
                for each in rows
                if isinstance(each, Measurement)
            }
        kinds = [(self._counter(each), _kind(each, poll)) for each in parsed.problems]
        # A drifting field is stored in its record, so its answer is kept once; a value that was
        # set aside is only in the raw answer.
        keep = any(not each.drift for each in parsed.problems) or any(
            kind not in counter for counter, kind in kinds
        )
        records: list[Record] = [*about, *rows]
        if keep or poll.endpoint.priority < Priority.REREAD:
            records.append(raw_answer(reply, poll, parsed.problems, keep=keep))
        last: dict[LastKey, Mapping[str, Any] | None] = {
            (name, entity_id): changes.to_row(each) for entity_id, each in update.items()
        }
        last |= parsed.last
        last |= {(ROWS, entity_id): {"newest": each} for entity_id, each in newest.items()}
        reread = poll.endpoint.priority == Priority.REREAD
        batch = Batch(poll.account, name, records, parsed.facts, reread)
        await self._spool.append(batch, last)
        self._ledger.note(parsed.facts)
        if update:
            self._memory.learn(name, {key: _lean(each) for key, each in update.items()})
        self._memory.newest |= newest
        if poll.endpoint.priority == Priority.TRAILING and poll.target:
            self._memory.recent[poll.entity_id] = _recent(rows, self._memory, poll, moment)
        if poll.endpoint.name != HOMESDATA.name:  # which tells nothing of when one was heard
            self._memory.heard |= {
                each.entity_id: (_sign(each), reply.received) for each in entities
            }
        self._note(kinds, poll)
        for record in about:
            if isinstance(record, Change):
                self._log.info(
                    f"module.{record.what}",
                    account=record.account,
                    kind=record.kind,
                    id=record.entity_id,
                    # Who lives here is in the store, not in the logs.
                    name="" if record.kind == "person" else record.after.get("name", ""),
                    changed=sorted(record.before),
                )
        return parsed.wants

    def _parse(self, reply: Reply, poll: Poll) -> Parsed:
        """The one broad `except`: a surprise in an answer costs that answer, kept whole."""
        try:
            return poll.endpoint.parse(reply, poll)
        except PayloadError as error:
            problem = Problem(error.path, str(error))
        except Exception as error:  # noqa: BLE001
            problem = Problem("body", text(f"{type(error).__name__}: {error}") or "")
        if _kind(problem, poll) not in self._memory.problems:
            self._log.error(
                "parse.failed",
                account=poll.account,
                endpoint=poll.endpoint.name,
                error=str(problem),
            )
        return Parsed(problems=(problem,))

    def _is_forgotten(self, record: Record) -> bool:
        """True for a row of a time that the owner has deleted."""
        if not isinstance(record, (Measurement, Summary)):
            return False
        scale = record.scale if isinstance(record, Measurement) else "1day"
        spans = self._ledger.forgotten(record.module_id, scale)
        return any(begin <= record.time < end for begin, end in spans)

    def _told_better(self, entity: Entity, endpoint: str) -> bool:
        """True for a home as a dashboard sees it, where the topology describes that home."""
        topology = self._memory.known.get(HOMESDATA.name, {})
        told = topology.get(entity.entity_id) if HOMESDATA.name in self._polled else None
        return endpoint != HOMESDATA.name and entity.kind == "home" and told is not None

    def _elsewhere(self, entity_id: str, endpoint: str) -> list[Known]:
        """What other endpoints that list say of an entity."""
        return [
            of_endpoint[entity_id]
            for name, of_endpoint in self._memory.known.items()
            if name != endpoint and entity_id in of_endpoint
            if of_endpoint[entity_id].entity.kind != "station"
            if name not in self._polled or self._polled[name].lists
        ]

    def _is_spooled(self, record: Record, poll: Poll) -> bool:
        """True for a row that an earlier trailing read had, and that is the same: five of six."""
        if poll.endpoint.priority != Priority.TRAILING or not isinstance(record, Measurement):
            return False
        recent = self._memory.recent.get(record.module_id, {})
        return recent.get(record.time) == _digest(record)

    def wants(self, entity: Entity) -> bool:
        """False for what the owner leaves out."""
        return wanted(entity, self._settings.include, self._settings.exclude)

    def _counter(self, problem: Problem) -> Counter[str]:
        return self._memory.drift if problem.drift else self._memory.problems

    def _note(self, kinds: Sequence[tuple[Counter[str], str]], poll: Poll) -> None:
        """Count each kind of problem, and log it once."""
        for counter, name in kinds:
            if name not in counter and len(counter) >= _KINDS:
                counter["more kinds"] += 1
                continue
            if name not in counter:
                event = "parse.drift" if counter is self._memory.drift else "parse.problem"
                self._log.warning(event, account=poll.account, what=name)
            counter[name] += 1


def _is_listed(entity: Entity, poll: Poll) -> bool:
    """True for what the answer to `poll` would leave out only if it were gone."""
    return poll.entity_id in ("", entity.home_id)


def _recent(
    rows: Sequence[Record], memory: Memory, poll: Poll, moment: datetime
) -> dict[datetime, int]:
    """Which rows the next trailing read will show again."""
    found = dict(memory.recent.get(poll.entity_id, {}))
    found |= {each.time: _digest(each) for each in rows if isinstance(each, Measurement)}
    since = moment - reach(poll.scale) - timedelta(hours=1)
    return {time: digest for time, digest in found.items() if time > since}


def _digest(row: Measurement) -> int:
    return hash(frozenset(row.values.items()))


def _sign(entity: Entity) -> Any:
    """What moves when a module was heard; none of it is told of one that never was."""
    newest = entity.latest[0] if entity.latest else None
    return entity.condition.get("last_seen"), newest, entity.state.get("reachable") is False


def _kind(problem: Problem, poll: Poll) -> str:
    path = _INDEX.sub("[]", problem.path)
    return text(f"{poll.endpoint.name}: {path}: {problem.text}"[:300]) or ""


def _lean(known: Known) -> Known:
    """Without what the table `last` does not keep either."""
    return replace(known, entity=replace(known.entity, condition={}, latest=None, other=()))
