"""Drains the spool into the store: pace, bulks, backoff, recovery.

Order, for some batches at a time: bulks, dead letters, merge of the facts into the ledger,
barrier, settle. Any failure repeats the whole; each step is idempotent. Retries never end and
never drop a record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from netatmo_ingestd import records
from netatmo_ingestd.errors import ConfigError, SpoolError, StoreUnavailable
from netatmo_ingestd.ledger import Ledger, merge
from netatmo_ingestd.limits import Backoff
from netatmo_ingestd.models import Coverage, Fact
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.records import Document
from netatmo_ingestd.settings import WriterSettings
from netatmo_ingestd.spool import Spool, Spooled
from netatmo_ingestd.upserts import Operation, operations

BULK_BYTES = 1 << 20
TAKE_BATCHES = 64
TAKE_BYTES = 4 << 20
TRIES_OF_ONE = 5
REGROW_S = 3600.0
INDEX_VERSION = "1"
SHARE_BARRIER_S = 0.2


class Refused(Exception):
    """Every operation of a bulk was refused, a known-good one too: the server is at fault."""


@dataclass
class Counters:
    """What the writer did since it started; read by status."""

    written: int = 0
    modified: int = 0
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
class _BulkSize:
    """How many operations a bulk holds: halved after two timeouts, doubled once an hour."""

    most: int
    now: int = 0
    timeouts: int = 0
    changed: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.now = self.most

    def timed_out(self) -> bool:
        """True when the size was halved."""
        self.timeouts += 1
        if self.timeouts < 2 or self.now == 1:
            return False
        self.now = max(1, self.now // 2)
        self.timeouts = 0
        self.changed = time.monotonic()
        return True

    def went_well(self) -> None:
        self.timeouts = 0
        if self.now < self.most and time.monotonic() - self.changed >= REGROW_S:
            self.now = min(self.most, self.now * 2)
            self.changed = time.monotonic()


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
        self._size = _BulkSize(settings.bulk_size)
        self._backoff = backoff
        self._log = log
        self._anew = anew
        self._on_broken = on_broken
        self._on_replaced = on_replaced
        self._meta: dict[str, str] = {}
        self._prepared = False
        self._tries: dict[str, int] = {}
        self._stop = asyncio.Event()

    @property
    def bulk_size(self) -> int:
        return self._size.now

    async def run(self, stop: asyncio.Event) -> None:
        """Write what arrives until `stop`; every failure waits and repeats."""
        self._stop = stop
        self._meta = await self._spool.meta()
        while not stop.is_set():
            self._spool.arrived.clear()
            if await self.step() == 0:
                await _first(self._spool.arrived.wait(), stop.wait(), limit=None)
            elif self.counters.state == "writing":
                # Batches that arrive close together share one barrier.
                await _first(stop.wait(), limit=SHARE_BARRIER_S)

    async def drain(self, deadline: float) -> bool:
        """Write until the spool is empty; False when `deadline` (monotonic) came first."""
        self._stop = asyncio.Event()
        if not self._meta:
            self._meta = await self._spool.meta()
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
            taken = await self._spool.oldest_batches(TAKE_BATCHES, TAKE_BYTES)
            if taken:
                await self._write(taken)
            elif not self._ledger.loaded:
                # The old spool is drained: what the ledger says is what the database holds.
                self._ledger.load(await self._store.coverage())
        except (StoreUnavailable, SpoolError, ConfigError, Refused) as error:
            await self._failed(error)
            return -1
        self._went_well()
        return len(taken)

    # --- one round ----------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Once: indexes on empty collections, a barrier, and a note that they are whole."""
        if self._prepared:
            return
        if self._meta.get("indexes") != INDEX_VERSION:
            await self._store.make_indexes(anew=self._anew)
            await self._raise_barrier({"indexes": INDEX_VERSION})
            await self._spool.note(self._meta)
        self._prepared = True

    async def _write(self, taken: Sequence[Spooled]) -> None:
        wanted: list[Operation] = []
        facts: list[Fact] = []
        for batch in taken:
            documents, established = self._unpack(batch)
            facts += established
            wanted += [each for document in documents for each in operations(document)]
        for bulk in self._bulks(wanted):
            await self._write_bulk(bulk)
        merged = [
            await self._store.merge(entity_id, scale, _folded(group))
            for (entity_id, scale), group in _by_entity(facts).items()
        ]
        if await self._raise_barrier({}):
            self._ledger.absorb(merged)
            await self._spool.settle([batch.id for batch in taken], self._meta)
            self.counters.last_settled = time.time()

    def _unpack(self, batch: Spooled) -> tuple[list[Document], list[Fact]]:
        if batch.damaged:
            self._log.error("spool.row_damaged", row=batch.id)
            moment = datetime.now(UTC).replace(microsecond=0)
            text = batch.body.hex()
            return [records.dead_letter("damaged on the spool (checksum)", text, moment)], []
        return records.unpack(batch.body)

    def _bulks(self, wanted: Sequence[Operation]) -> Iterator[list[Operation]]:
        by_collection: dict[str, list[Operation]] = {}
        for each in wanted:
            by_collection.setdefault(each.collection, []).append(each)
        for group in by_collection.values():
            bulk: list[Operation] = []
            size = 0
            for each in group:
                if bulk and (len(bulk) >= self._size.now or size + each.size > BULK_BYTES):
                    yield bulk
                    bulk, size = [], 0
                bulk.append(each)
                size += each.size
            yield bulk

    async def _write_bulk(self, bulk: list[Operation]) -> None:
        """Until each operation is written or among the dead letters; raises to repeat all later."""
        dead: list[tuple[Operation, str]] = []
        while bulk:
            await self._pace.wait()
            outcome = await self._store.write(bulk)
            self._size.went_well()
            self.counters.bulks += 1
            self.counters.written += outcome.written
            self.counters.modified += outcome.modified
            if outcome.written == 0 and not await self._store.accepts(bulk[0].collection):
                first = [*outcome.rejected, *outcome.retry][0][1]
                raise Refused(f"the server refuses every write to {bulk[0].collection}: {first}")
            dead += [(bulk[place], reason) for place, reason in outcome.rejected]
            bulk = self._again(bulk, outcome.retry, dead)
        if dead:
            await self._bury(dead)

    def _again(
        self,
        bulk: Sequence[Operation],
        retry: Sequence[tuple[int, str]],
        dead: list[tuple[Operation, str]],
    ) -> list[Operation]:
        """What of `retry` is sent once more; after five tries an operation is given up."""
        again = []
        for place, reason in retry:
            key = str(bulk[place].where)
            self._tries[key] = self._tries.get(key, 0) + 1
            code = reason.split(":", 1)[0]
            if code not in ("112", "262") and self._tries[key] >= TRIES_OF_ONE:
                dead.append((bulk[place], reason))
                del self._tries[key]
            else:
                again.append(bulk[place])
        if not retry:
            self._tries.clear()
        return again

    async def _bury(self, dead: Sequence[tuple[Operation, str]]) -> None:
        moment = datetime.now(UTC).replace(microsecond=0)
        for operation, reason in dead:
            letter = records.dead_letter(reason, operation.record, moment)
            outcome = await self._store.write(operations(letter))
            if outcome.written == 0:
                raise Refused(f"the server refuses even the dead letter of a record: {reason}")
            self.counters.rejected += 1
            self._log.error(
                "store.rejected",
                collection=operation.collection,
                reason=reason,
                seen="dead_letters",
            )

    async def _raise_barrier(self, more: dict[str, str]) -> bool:
        """True when everything so far is on the server's disk and the database is still ours."""
        store_id, rev = await self._store.barrier()
        known = self._meta.get("store_id")
        replaced = known is not None and (known != store_id or rev <= int(self._meta["rev"]))
        self._meta |= {"store_id": store_id, "rev": str(rev), **more}
        if not replaced:
            return True
        self._log.error("store.replaced", store_id=store_id, rev=rev, known_as=known)
        self._meta.pop("indexes", None)
        self._prepared = False
        self._ledger.forget()
        await self._spool.forget_last({**self._meta, "indexes": ""})
        if self._on_replaced:
            self._on_replaced()
        return False

    # --- how it goes --------------------------------------------------------------------------

    async def _failed(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, StoreUnavailable) else "refused"
        if reason == "timeout" and self._size.timed_out():
            self._log.warning("store.degraded", bulk_size=self._size.now, reason=str(error))
            self._store.warnings["bulk size"] = (
                f"bulks above {self._size.now} operations are not answered; sent in smaller ones"
            )
        if reason in ("full", "refused") and self._on_broken:
            self._on_broken()
        self.counters.failures += 1
        if self.counters.state != "down" or self._backoff.failures % 50 == 0:
            self._log.error(
                "store.down",
                reason=reason,
                error=str(error),
                records_waiting=self._spool.records,
                failures=self.counters.failures,
            )
        self.counters.state, self.counters.reason = "down", f"{reason}: {error}"
        await _first(self._stop.wait(), limit=self._backoff.next())

    def _went_well(self) -> None:
        if self.counters.state == "down":
            self._log.info("store.up", failures=self._backoff.failures)
        self._backoff.reset()
        self.counters.state, self.counters.reason = "writing", ""


def _by_entity(facts: Sequence[Fact]) -> dict[tuple[str, str], list[Fact]]:
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.entity_id, fact.scale), []).append(fact)
    return groups


def _folded(facts: Sequence[Fact]) -> Callable[[Coverage | None], Coverage]:
    """All of one entity's `facts` as one change of its coverage."""

    def apply(coverage: Coverage | None) -> Coverage:
        for fact in facts:
            coverage = merge(coverage, fact, fact.end)
        if coverage is None:
            raise AssertionError("a group of facts is never empty")
        return coverage

    return apply


async def _first(*waits: Any, limit: float | None) -> None:
    """Return when one of `waits` is done, or after `limit` real seconds."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
