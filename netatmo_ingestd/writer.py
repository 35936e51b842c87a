"""Drains the spool into the store: pace, bulks, backoff, recovery.

Order, for some batches at a time: bulks, dead letters, merge of the facts into the ledger,
barrier, settle. Any failure repeats the whole; each step is idempotent. Retries never end and
never drop a record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from netatmo_ingestd.bulks import BulkSize, unpacked
from netatmo_ingestd.errors import ConfigError, SpoolError, StoreUnavailable
from netatmo_ingestd.ledger import Ledger, merge
from netatmo_ingestd.limits import Backoff
from netatmo_ingestd.models import Coverage, Fact, Outcome
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.settings import WriterSettings
from netatmo_ingestd.spool import Spool, Spooled
from netatmo_ingestd.upserts import Operation, dead_letter
from netatmo_ingestd.waits import first

TAKE_BATCHES = 64
# Some thousand records: a round ends within seconds, so a failure repeats little.
TAKE_BYTES = 1 << 20
TRIES_OF_ONE = 5
INDEX_VERSION = "3"
SHARE_BARRIER_S = 0.2
# By server code: how often an operation is sent before it is a dead letter; None: without end.
_TRIES: dict[str, int | None] = {"112": None, "262": None, "11000": 2}


class Refused(Exception):
    """Every operation of a bulk was refused, a known-good one too: the server is at fault."""


class Again(Exception):
    """Nothing is wrong with the store, yet this round does not count and is repeated."""


@dataclass
class Counters:
    """What the writer did since it started; read by status.

    revised  rows that a late re-read changed, since the spool was made
    """

    written: int = 0
    modified: int = 0
    revised: int = 0
    rejected: int = 0
    bulks: int = 0
    failures: int = 0
    state: str = "starting"
    reason: str = ""
    last_settled: float = 0.0


@dataclass
class _Pace:
    """At most so many bulks a second, in real time."""

    per_second: float
    next_at: float = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        if self.next_at > now:
            await asyncio.sleep(self.next_at - now)
        self.next_at = max(now, self.next_at) + 1 / self.per_second


@dataclass
class _Round:
    """What became of the operations of one round; counted when it is settled."""

    written: int = 0
    modified: int = 0
    buried: list[str] = field(default_factory=list)
    again: str = ""


class Writer:
    """One for each database; `run` ends only when told to.

    on_broken  called when the store answers but fails every command (a full disk makes the
               embedded store do so until it is restarted)
    """

    def __init__(
        self,
        *,
        spool: Spool,
        store: Store,
        ledger: Ledger,
        settings: WriterSettings,
        backoff: Backoff,
        log: Any,
        anew: bool,
        on_broken: Callable[[], None] | None = None,
        on_replaced: Callable[[], None] | None = None,
    ) -> None:
        self.counters = Counters()
        self._spool = spool
        self._store = store
        self._ledger = ledger
        self._pace = _Pace(settings.max_bulks_per_second)
        self._size = BulkSize(settings.bulk_size)
        self._backoff = backoff
        self._log = log
        self._anew = anew
        self._on_broken = on_broken
        self._on_replaced = on_replaced
        self._meta: dict[str, str] = {}
        self._prepared = False
        self._take = TAKE_BATCHES
        self._backlog: int | None = None
        self._tries: dict[str, int] = {}
        self._stop = asyncio.Event()

    @property
    def bulk_size(self) -> int:
        return self._size.now

    async def run(self, stop: asyncio.Event) -> None:
        """Write what arrives until `stop`; every failure waits and repeats."""
        self._stop = stop
        while not stop.is_set():
            self._spool.arrived.clear()
            done = await self.step()
            if done == 0:
                await first(self._spool.arrived.wait(), stop.wait(), limit=None)
            elif done > 0 and self._spool.batches == 0:
                # Batches that arrive close together share one barrier.
                await first(stop.wait(), limit=SHARE_BARRIER_S)

    async def drain(self, deadline: float) -> bool:
        """Write until the spool is empty; False when `deadline` (monotonic) came first."""
        self._stop = asyncio.Event()
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    if await self.step() == 0 and self._spool.batches == 0:
                        return True
            except TimeoutError:
                break
        return self._spool.batches == 0

    async def step(self) -> int:
        """Write and settle some batches; how many, −1 after a failure (counted, waited for)."""
        try:
            await self._prepare()
            # The fewer operations a bulk may hold, the longer a round takes.
            most = max(1, self._take * self._size.now // self._size.most)
            taken = await self._spool.oldest_batches(most, TAKE_BYTES)
            if taken:
                await self._write(taken)
            if not self._ledger.loaded and (not taken or not self._backlog):
                # The old spool is drained: what the ledger says is what the database holds.
                self._ledger.load(await self._store.coverage())
        except (StoreUnavailable, SpoolError, ConfigError, Refused, Again) as error:
            self._take = 1
            await self._failed(error)
            return -1
        self._take = min(TAKE_BATCHES, self._take * 2)
        self._went_well()
        return len(taken)

    # --- one round ----------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Once: indexes, made on empty collections, a barrier, and a note that they are whole."""
        if self._prepared:
            return
        self._meta = self._meta or await self._spool.meta()
        self.counters.revised = int(self._meta.get("revised", 0))
        if self._backlog is None:
            self._backlog = self._spool.batches
        noted = self._meta.get("indexes") == INDEX_VERSION
        if not noted or await self._store.missing_indexes():
            if noted:
                self._meta["indexes"] = ""
                await self._spool.note(self._meta)
            incarnation = await self._store.incarnation()
            await self._store.make_indexes(anew=self._anew)
            await self._confirm(incarnation)
            self._meta["indexes"] = INDEX_VERSION
            await self._spool.note(self._meta)
            for what, reason in self._store.warnings.items():
                self._log.warning("store.degraded", what=what, reason=reason)
        self._prepared = True

    async def _write(self, taken: Sequence[Spooled]) -> None:
        for batch in taken:
            if batch.damaged:
                self._log.error("spool.row_damaged", row=batch.id)
        incarnation = await self._store.incarnation()
        # Beside the loop: some thousand records take a while.
        bodies = [(batch.body, batch.damaged) for batch in taken]
        wanted, facts = await asyncio.to_thread(unpacked, bodies)
        done = _Round()
        for bulk in self._size.cut(wanted):
            await self._write_bulk(bulk, done)
        if done.again:
            raise Again(done.again)
        merged = [
            await self._store.merge(entity_id, scale, _folded(group))
            for (entity_id, scale), group in _by_entity(facts).items()
        ]
        await self._confirm(incarnation)
        self._ledger.absorb(merged)
        self._meta["revised"] = str(self.counters.revised)
        await self._spool.settle([batch.id for batch in taken], self._meta)
        self._settled(len(taken), wanted, done)
        if any(batch.damaged for batch in taken):
            # What its facts had covered is asked for again.
            self._ledger.forget()
            self._backlog = self._spool.batches

    def _settled(self, batches: int, wanted: Sequence[Operation], done: _Round) -> None:
        self._backlog = max(0, (self._backlog or 0) - batches)
        for each in wanted if self._tries else ():
            self._tries.pop(_name(each), None)
        self.counters.written += done.written
        self.counters.modified += done.modified
        self.counters.rejected += len(done.buried)
        self.counters.last_settled = time.time()
        if done.buried:
            self._log.error(
                "store.rejected", count=len(done.buried), reason=done.buried[0], seen="dead_letters"
            )

    async def _write_bulk(self, bulk: Sequence[Operation], done: _Round) -> None:
        """After it each operation is written, a dead letter, or named in `done.again`."""
        outcome = await self._send(bulk)
        if outcome.written == 0 and not await self._store.accepts(bulk[0].collection):
            first = [*outcome.rejected, *outcome.retry][0][1]
            raise Refused(f"the server refuses every write to {bulk[0].collection}: {first}")
        done.written += outcome.written
        done.modified += outcome.modified
        if bulk[0].reread and bulk[0].collection == "measurements":
            # At once: sent again after a failure, the same rows change nothing.
            self.counters.revised += outcome.modified
        if bulk[0].collection == "dead_letters":
            done.buried += [each.record["reason"] for each in bulk]
        dead = [(bulk[place], reason) for place, reason in outcome.rejected]
        for place, reason in outcome.retry:
            if self._gives_up(bulk[place], reason):
                dead.append((bulk[place], reason))
            else:
                done.again = f"{bulk[place].collection}: {reason}"
        if dead:
            await self._bury(dead, done)

    async def _send(self, bulk: Sequence[Operation]) -> Outcome:
        await self._pace.wait()
        try:
            outcome = await self._store.write(bulk)
        except StoreUnavailable as error:
            if error.reason == "timeout" and self._size.timed_out(len(bulk)):
                self._resized(str(error))
            raise
        self.counters.bulks += 1
        if self._size.went_well(len(bulk)):
            self._resized("tried again after an hour")
        return outcome

    def _resized(self, reason: str) -> None:
        self._log.warning("store.degraded", bulk_size=self._size.now, reason=reason)
        if self._size.now == self._size.most:
            self._store.warnings.pop("bulk size", None)
        else:
            self._store.warnings["bulk size"] = (
                f"bulks above {self._size.now} operations are not answered; sent in smaller ones"
            )

    def _gives_up(self, operation: Operation, reason: str) -> bool:
        tries = self._tries[_name(operation)] = self._tries.get(_name(operation), 0) + 1
        most = _TRIES.get(reason.partition(":")[0], TRIES_OF_ONE)
        return most is not None and tries >= most

    async def _bury(self, dead: Sequence[tuple[Operation, str]], done: _Round) -> None:
        letters = [letter for each, reason in dead for letter in dead_letter(reason, each.record)]
        for bulk in self._size.cut(letters):
            outcome = await self._send(bulk)
            if outcome.written < len(bulk):
                first = [*outcome.rejected, *outcome.retry][0][1]
                raise Refused(f"the server refuses even the dead letter of a record: {first}")
        done.buried += [reason for _, reason in dead]

    async def _confirm(self, incarnation: str) -> None:
        """Everything so far is on the server's disk, and the database is still ours; else Again."""
        # Compared before it rises: in an older copy some barriers would reach the one we know.
        if found := await self._store.identity():
            await self._compare(*found, risen=0)
        store_id, rev = await self._store.barrier()
        await self._compare(store_id, rev, risen=1)
        self._meta |= {"store_id": store_id, "rev": str(rev)}
        if await self._store.incarnation() != incarnation:
            raise Again("the server was restarted since the round began")

    async def _compare(self, store_id: str, rev: int, *, risen: int) -> None:
        known = self._meta.get("store_id", store_id)
        older = known == store_id and rev < int(self._meta.get("rev", 0)) + risen
        if older:
            # Other daemons that write here may have seen no higher revision than this one.
            self._meta["rev"] = str(max(int(self._meta["rev"]), rev + 1))  # should it fail
            store_id = await self._store.rename(store_id)
        if older or known != store_id:
            await self._replaced(store_id, rev, known)

    async def _replaced(self, store_id: str, rev: int, known: str) -> None:
        self._log.error("store.replaced", store_id=store_id, rev=rev, known_as=known)
        self._meta |= {"store_id": store_id, "rev": str(rev), "indexes": ""}
        self._prepared = False
        self._ledger.forget()
        self._backlog = self._spool.batches
        await self._spool.forget_last(self._meta)
        if self._on_replaced:
            self._on_replaced()
        raise Again("the database was replaced")

    # --- how it goes --------------------------------------------------------------------------

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            reason = error.reason
        else:
            reason = {SpoolError: "spool", Again: "again"}.get(type(error), "refused")
        if reason in ("full", "refused") and self._on_broken:
            self._on_broken()
        self.counters.failures += 1
        if reason != "again" or self._backoff.failures >= TRIES_OF_ONE:
            if self.counters.state != "down" or self._backoff.failures % 50 == 0:
                self._log.error(
                    "store.down",
                    reason=reason,
                    error=str(error),
                    records_waiting=self._spool.records,
                    failures=self.counters.failures,
                )
            self.counters.state, self.counters.reason = "down", f"{reason}: {error}"
        await first(self._stop.wait(), limit=self._backoff.next())

    def _went_well(self) -> None:
        if self.counters.state == "down":
            self._log.info("store.up", failures=self._backoff.failures)
        self._backoff.reset()
        self.counters.state, self.counters.reason = "writing", ""


def _name(operation: Operation) -> str:
    return f"{operation.collection} {operation.where}"


def _by_entity(facts: Sequence[Fact]) -> dict[tuple[str, str], list[Fact]]:
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.entity_id, fact.scale), []).append(fact)
    return groups


def _folded(facts: Sequence[Fact]) -> Callable[[Coverage | None], Coverage]:
    """All of one entity's `facts` as one change of its coverage."""

    def apply(coverage: Coverage | None) -> Coverage:
        for fact in facts:
            coverage = merge(coverage, fact, fact.asked)
        if coverage is None:
            raise AssertionError("a group of facts is never empty")
        return coverage

    return apply
