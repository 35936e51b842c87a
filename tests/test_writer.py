"""The writer against a store in memory: order, what settles, what is held, what is given up.

`MemoryStore` implements what the writer uses of `Store`; `CHECKS` holds it to what the contract
suite demands of real servers.
"""

from __future__ import annotations

import asyncio
import copy
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from netatmo_ingestd import mongo, records
from netatmo_ingestd.bulks import BulkSize
from netatmo_ingestd.coverages import from_coverage, to_coverage
from netatmo_ingestd.errors import ConfigError, SpoolError, StoreUnavailable
from netatmo_ingestd.ledger import Ledger, merge
from netatmo_ingestd.limits import Backoff
from netatmo_ingestd.models import Batch, Coverage, Entity, Fact, Measurement, Outcome, State
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.settings import WriterSettings
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import SAMPLES, Operation, operations
from netatmo_ingestd.writer import INDEX_VERSION, Writer
from tests.stores import until
from tests.wire import Document, Documents

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
Read = Callable[[str], Awaitable[dict[str, Document]]]


class MemoryStore:
    """A store without a server.

    fault   called with the name of each method; raises what the server would
    refuse  the server's code for an operation, 0 to take it
    calls   the methods called, in order; a bulk as "collection×operations"
    """

    def __init__(self) -> None:
        self.documents = Documents()
        self.warnings: dict[str, str] = {}
        self.started = "first"
        self.calls: list[str] = []
        self.durable = Documents()
        self.missing: list[str] = []
        self.fault: Callable[[str], None] = lambda name: None
        self.refuse: Callable[[Operation], int] = lambda operation: 0

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        self.fault(name)

    async def incarnation(self) -> str:
        await asyncio.sleep(0)
        return self.started

    async def missing_indexes(self) -> list[str]:
        return self.missing

    async def make_indexes(self, *, anew: bool) -> None:
        await self._called("make_indexes anew" if anew else "make_indexes")
        self.missing = []

    async def write(self, bulk: list[Operation]) -> Outcome:
        await self._called(f"{bulk[0].collection}×{len(bulk)}")
        errors: list[Document] = []
        modified = 0
        for place, each in enumerate(bulk):
            if code := self.refuse(each):
                errors.append({"index": place, "code": code, "errmsg": "refused"})
            else:
                modified += self.documents.update(
                    each.collection, each.where, each.change, upsert=each.upsert
                )[1]
        if errors:
            return mongo._sort_out({"writeErrors": errors, "nModified": modified}, len(bulk))
        return Outcome(len(bulk), modified)

    async def accepts(self, collection: str) -> bool:
        return not any(self.refuse(each) for each in operations(SAMPLES[collection]))

    async def barrier(self) -> tuple[str, int]:
        await self._called("barrier")
        self.documents.update(
            "coverage",
            {"_id": "_barrier"},
            {"$inc": {"rev": 1}, "$setOnInsert": {"store_id": secrets.token_hex(12)}},
            upsert=True,
        )
        self.durable = copy.deepcopy(self.documents)
        found = self.documents["coverage"]["_barrier"]
        return found["store_id"], found["rev"]

    async def identity(self) -> tuple[str, int] | None:
        await asyncio.sleep(0)
        found = self.documents.get("coverage", {}).get("_barrier")
        return (found["store_id"], found["rev"]) if found else None

    async def rename(self, store_id: str) -> str:
        await self._called("rename")
        found = self.documents["coverage"]["_barrier"]
        if found["store_id"] == store_id:
            found["store_id"] = secrets.token_hex(12)
        return str(found["store_id"])

    async def coverage(self) -> list[Coverage]:
        await self._called("coverage")
        found = (to_coverage(each) for each in self.documents.get("coverage", {}).values())
        return [each for each in found if each]

    async def merge(
        self, entity_id: str, scale: str, merge: Callable[[Coverage | None], Coverage]
    ) -> Coverage:
        await self._called("merge")
        key = f"{entity_id}|{scale}"
        found = self.documents.setdefault("coverage", {}).get(key)
        before = to_coverage(found) if found else None
        merged = merge(before)
        if merged == before:
            return merged
        document = from_coverage(merged, merged.rev + 1)
        self.documents["coverage"][key] = {"_id": key, **document}
        return replace(merged, rev=merged.rev + 1)

    def crash(self) -> None:
        """It is gone and back: what no barrier confirmed is lost, and no error tells."""
        self.documents = copy.deepcopy(self.durable)
        self.started = secrets.token_hex(4)


# --- what any store does (also run by contract/test_store.py) -------------------------------------


def row(number: int, module: str = "m", **values: float) -> Measurement:
    time = NOON + timedelta(minutes=5 * number)
    values = values or {"temperature": float(number)}
    return Measurement("home", "h", "d", module, "NAMain", "max", time, values, "getmeasure")


def row_id(number: int) -> str:
    return f"m|max|{int(row(number).time.timestamp())}"


def ops(*wanted: Any) -> list[Operation]:
    return [each for record in wanted for each in operations(records.as_document(record))]


def entity(hour: int, **description: Any) -> Entity:
    described = {"name": "Indoor", **description}
    latest = (NOON + timedelta(hours=hour), {"temperature": float(hour)})
    return Entity("home", "module", "m", "h", "d", "NAMain", described, latest=latest)


def fact(begin: int, end: int, module: str = "m") -> Fact:
    first, last = NOON + timedelta(minutes=5 * begin), NOON + timedelta(minutes=5 * end)
    types, filled = ("Temperature",), ((first, last),)
    return Fact(module, "max", types, first, last, end - begin, last, "home", last, filled)


async def check_same_bulk_twice_changes_nothing(store: Store, read: Read) -> None:
    """A repeated bulk is written, modifies nothing, and leaves the documents as they were."""
    bulk = ops(*(row(n) for n in range(20)))

    assert await store.write(bulk) == Outcome(20, 0)
    before = await read("measurements")
    assert await store.write(bulk) == Outcome(20, 0)
    assert await read("measurements") == before
    assert len(before) == 20


async def check_rows_of_one_instant_merge(store: Store, read: Read) -> None:
    """A dashboard's row and history's row are one document with the quantities of both."""
    await store.write(ops(replace(row(0, temperature=1.0, co2=400.0), source="getstationsdata")))
    outcome = await store.write(ops(row(0, temperature=2.0, noise=40.0)))

    [found] = (await read("measurements")).values()
    assert found["values"] == {"temperature": 2.0, "co2": 400.0, "noise": 40.0}
    assert found["source"] == "getstationsdata"
    assert outcome == Outcome(1, 1)


async def check_newest_latest_stays(store: Store, read: Read) -> None:
    """An older answer describes the module and leaves its newer `latest` alone."""
    await store.write(ops(entity(2, name="Before")))
    await store.write(ops(entity(1, name="After")))

    [found] = (await read("modules")).values()
    assert found["latest"] == {
        "time": NOON + timedelta(hours=2),
        "values": {"temperature": 2.0},
    }
    assert found["name"] == "After"


async def check_state_grows(store: Store, read: Read) -> None:
    """Repeated sightings of a state move `until` forward, in any order, and nothing else."""
    for seen in (1, 3, 2):
        until = NOON + timedelta(minutes=seen)
        await store.write(ops(State("home", "m", "module", "h", NOON, until, {"on": True})))

    [found] = (await read("states")).values()
    assert (found["time"], found["until"]) == (NOON, NOON + timedelta(minutes=3))


async def check_barrier_rises_by_one(store: Store, read: Read) -> None:
    """Each barrier is one higher; renamed, the database has another id and counts on."""
    store_id, rev = await store.barrier()
    assert await store.barrier() == (store_id, rev + 1)

    renamed = await store.rename(store_id)
    assert renamed != store_id
    assert await store.barrier() == (renamed, rev + 2)
    assert await store.rename("an id of long ago") == renamed


async def check_coverage_is_read_back(store: Store, read: Read) -> None:
    """A merged fact is in the ledger with its revision; merged again it changes nothing."""
    await store.barrier()
    first = await store.merge("m", "max", lambda found: merge(found, fact(0, 5), NOON))
    second = await store.merge("m", "max", lambda found: merge(found, fact(5, 9), NOON))
    again = await store.merge("m", "max", lambda found: merge(found, fact(5, 9), NOON))

    assert (first.rev, second.rev, again) == (1, 2, second)
    assert second.covered == ((fact(0, 9).begin, fact(0, 9).end),)
    assert await store.coverage() == [second]


async def check_probe_leaves_nothing(store: Store, read: Read) -> None:
    """A good document of each collection is taken, and gone afterwards."""
    for collection in SAMPLES:
        assert await store.accepts(collection)
        assert await read(collection) == {}


CHECKS = [
    check_same_bulk_twice_changes_nothing,
    check_rows_of_one_instant_merge,
    check_newest_latest_stays,
    check_state_grows,
    check_barrier_rises_by_one,
    check_coverage_is_read_back,
    check_probe_leaves_nothing,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_memory_store_is_like_a_real_one(check: Callable[..., Awaitable[None]]) -> None:
    """The double passes the checks that the contract suite runs on servers."""
    store = MemoryStore()

    async def read(collection: str) -> dict[str, Document]:
        return copy.deepcopy(store.documents.get(collection, {}))

    await check(cast("Store", store), read)


# --- the writer ----------------------------------------------------------------------------------


@dataclass
class Log:
    events: list[tuple[str, str, Document]] = field(default_factory=list)

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.events.append((level, event, fields))

    def named(self, event: str) -> list[Document]:
        return [fields for _, name, fields in self.events if name == event]


def a_writer(
    spool: Spool,
    store: Store | MemoryStore,
    log: Log,
    *,
    settings: Document | None = None,
    **more: Any,
) -> Writer:
    """A writer that hurries: short backoff, a thousand bulks a second."""
    given: Document = {"ledger": Ledger(), "anew": False, **more}
    return Writer(
        spool=spool,
        store=cast("Store", store),
        settings=WriterSettings(**{"max_bulks_per_second": 1000.0, **(settings or {})}),
        backoff=Backoff(0.001, 0.004, rng=random.Random(1)),
        log=log,
        **given,
    )


class Bench:
    """A writer with everything around it."""

    def __init__(self, spool: Spool, **settings: Any) -> None:
        self.spool = spool
        self.store = MemoryStore()
        self.broken = 0
        self.replaced = 0
        self.begin(**settings)

    def begin(self, *, anew: bool = False, **settings: Any) -> None:
        """As at a start of the daemon: the spool alone remembers."""
        self.ledger = Ledger()
        self.log = Log()
        self.writer = a_writer(
            self.spool,
            self.store,
            self.log,
            ledger=self.ledger,
            settings=settings,
            anew=anew,
            on_broken=self._break,
            on_replaced=self._replace,
        )

    def _break(self) -> None:
        self.broken += 1

    def _replace(self) -> None:
        self.replaced += 1

    async def append(self, *of: Any, facts: tuple[Fact, ...] = ()) -> None:
        await self.spool.append(Batch("home", "getmeasure", of, facts), {})

    async def steps(self, *, most: int = 60) -> int:
        """Step until nothing is left to do; how many steps it took."""
        for count in range(1, most):
            if await self.writer.step() == 0:
                return count
        pytest.fail(f"not drained in {most} steps: {self.writer.counters}")

    @property
    def stored(self) -> dict[str, Document]:
        return self.store.documents.get("measurements", {})

    @property
    def letters(self) -> dict[str, Document]:
        return self.store.documents.get("dead_letters", {})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    spool = Spool(tmp_path, 1 << 28)
    await spool.open()
    yield Bench(spool)
    await spool.close()


def once(*errors: Exception, on: str) -> Callable[[str], None]:
    """A fault that raises each of `errors` one time at calls whose name begins with `on`."""
    left = list(errors)

    def fault(name: str) -> None:
        if left and name.startswith(on):
            raise left.pop(0)

    return fault


def down(reason: str = "down") -> StoreUnavailable:
    return StoreUnavailable("as asked", reason=reason)


async def test_order_of_a_round(bench: Bench) -> None:
    """Indexes and a barrier first; then bulks, dead letters, the ledger, the barrier, settle."""
    bench.store.refuse = lambda each: 121 if each.where["_id"] == row_id(1) else 0
    await bench.append(entity(1), *(row(n) for n in range(3)), facts=(fact(0, 3),))
    at_settle: list[int] = []
    bench.store.fault = lambda name: at_settle.append(bench.spool.batches)

    await bench.steps()

    assert bench.store.calls == [
        "make_indexes", "barrier",
        "modules×2", "measurements×3", "dead_letters×1", "merge", "barrier",
        "coverage",
    ]  # fmt: skip
    assert at_settle == [1, 1, 1, 1, 1, 1, 1, 0]
    assert bench.spool.batches == 0


@pytest.mark.parametrize("reason", ["down", "timeout", "denied", "full", "unconfirmed", "refused"])
@pytest.mark.parametrize("on", ["make_indexes", "measurements", "merge", "barrier", "coverage"])
async def test_nothing_is_settled_after_a_failure(bench: Bench, on: str, reason: str) -> None:
    """Wherever a round fails and why, its batch stays, is repeated whole, and is stored once."""
    await bench.append(*(row(n) for n in range(3)), facts=(fact(0, 3),))
    bench.store.fault = once(down(reason), down(reason), on=on)

    before = []
    while bench.writer.counters.failures < 2:
        await bench.writer.step()
        before.append(bench.spool.batches)
    await bench.steps()

    if on != "coverage":  # the ledger is read when the batch is settled
        assert set(before) == {1}
    assert bench.spool.batches == 0
    assert len(bench.stored) == 3
    assert bench.letters == {}
    assert bench.writer.counters.written == 3
    assert bench.ledger.find("m", "max") is not None
    assert bench.broken == (2 if reason in {"full", "refused"} else 0)


async def test_failure_after_the_barrier_repeats_without_change(bench: Bench) -> None:
    """When only settling fails, the batch is written again and modifies nothing."""
    await bench.append(row(1), facts=(fact(1, 2),))
    settle = bench.spool.settle
    failed: list[bool] = []

    async def full(ids: Any, meta: Any) -> None:
        if ids and not failed:
            failed.append(True)
            raise SpoolError("no room", full=True)
        await settle(ids, meta)

    bench.spool.settle = full  # type: ignore[method-assign]  # the disk is not ours to fill
    await bench.steps()

    assert bench.writer.counters.modified == 0
    assert len(bench.stored) == 1
    assert bench.log.named("store.down")[0]["reason"] == "spool"
    assert bench.broken == 0  # the store is not restarted for a full state disk


async def test_restart_before_the_barrier_repeats_the_round(bench: Bench) -> None:
    """A server that crashed between bulk and barrier has lost rows and says nothing: all again."""
    await bench.append(*(row(n) for n in range(3)), facts=(fact(0, 3),))
    await bench.writer._prepare()
    crashed: list[bool] = []

    def fault(name: str) -> None:
        if name == "merge" and not crashed:
            crashed.append(True)
            bench.store.crash()

    bench.store.fault = fault
    await bench.steps()

    assert len(bench.stored) == 3
    assert bench.store.calls.count("measurements×3") == 2
    assert bench.log.named("store.down") == []


async def test_restart_while_indexes_are_made_makes_them_again(bench: Bench) -> None:
    """Indexes are noted as whole only if the server that made them is the one of the barrier."""
    bench.begin(anew=True)

    def fault(name: str) -> None:
        if name.startswith("make") and bench.store.calls.count(name) == 1:
            bench.store.started = "second"

    bench.store.fault = fault
    await bench.steps()

    assert bench.store.calls.count("make_indexes anew") == 2
    assert (await bench.spool.meta())["indexes"] == INDEX_VERSION
    bench.begin(anew=True)
    await bench.steps()
    assert bench.store.calls.count("make_indexes anew") == 2


async def test_index_that_is_gone_is_made_again(bench: Bench) -> None:
    """At a start an index that should be there and is not is made, note or no note."""
    await bench.steps()
    bench.store.missing = ["measurements(home_id, time)"]
    bench.begin()

    await bench.steps()

    assert bench.store.calls.count("make_indexes") == 2


# --- a replaced database -------------------------------------------------------------------------


async def replaced(bench: Bench, documents: Documents, *, restart: bool) -> None:
    bench.store.documents = copy.deepcopy(documents)
    if restart:
        bench.begin()
    bench.store.calls.clear()
    await bench.append(*(row(n) for n in range(5, 8)), facts=(fact(5, 8),))
    await bench.steps()


@pytest.mark.parametrize("restart", [False, True], ids=["while running", "while down"])
@pytest.mark.parametrize("how", ["emptied", "older copy", "another's"])
async def test_replaced_database_is_noticed(bench: Bench, how: str, restart: bool) -> None:
    """Nothing is settled in it before indexes are made, memory is dropped, and all is written."""
    await bench.steps()
    copies = {"emptied": Documents(), "older copy": copy.deepcopy(bench.store.documents)}
    copies["another's"] = copy.deepcopy(bench.store.documents)
    copies["another's"]["coverage"]["_barrier"] |= {"store_id": "another", "rev": 900}
    await bench.append(*(row(n) for n in range(3)), facts=(fact(0, 3),))
    await bench.steps()
    await bench.append(row(4))
    await bench.steps()
    await bench.spool.append(
        Batch("home", "getstationsdata", ()), {("getstationsdata", "m"): {"name": "Indoor"}}
    )
    await bench.steps()
    old_id = (await bench.spool.meta())["store_id"]

    await replaced(bench, copies[how], restart=restart)

    calls = bench.store.calls
    first = calls.index("measurements×3")
    assert calls[first:].index("make_indexes") < calls[first:].index("measurements×3", 1)
    assert ("rename" in calls) == (how == "older copy")
    assert bench.replaced == 1
    assert len(bench.log.named("store.replaced")) == 1
    assert await bench.spool.last() == {}
    assert set(bench.stored) == set(map(row_id, range(5, 8)))
    coverage = bench.ledger.find("m", "max")
    assert coverage is not None
    assert coverage.covered == ((fact(5, 8).begin, fact(5, 8).end),)
    assert (await bench.spool.meta())["store_id"] != old_id


async def test_a_second_daemon_notices_an_older_copy(bench: Bench, tmp_path: Path) -> None:
    """A daemon that saw fewer barriers than the copy reaches learns of it by the new store id."""
    (tmp_path / "other").mkdir()
    spool = Spool(tmp_path / "other", 1 << 28)
    await spool.open()
    other = Bench(spool)
    other.store = bench.store
    other.begin()
    await other.steps()
    older = copy.deepcopy(bench.store.documents)
    for number in range(4):
        await bench.append(row(number))
        await bench.steps()
    bench.store.documents = older

    for daemon in (bench, bench, bench, other):
        await daemon.append(row(9))
        await daemon.steps()
    await spool.close()

    assert (bench.replaced, other.replaced) == (1, 1)


async def test_older_copy_stays_one_however_often_it_fails(bench: Bench) -> None:
    """Failures right after the discovery do not let the copy rise to the revision we know."""
    await bench.steps()
    older = copy.deepcopy(bench.store.documents)
    for number in range(3):
        await bench.append(row(number))
        await bench.steps()
    bench.store.documents = older
    await bench.append(row(9))
    bench.store.fault = once(*[down()] * 9, on="rename")

    await bench.steps()

    assert bench.replaced == 1
    assert bench.store.calls.count("rename") == 10


async def test_ordinary_rounds_and_starts_are_no_replacement(bench: Bench) -> None:
    """A barrier counted twice, another daemon's barriers, and a new start raise no alarm."""
    for number in range(4):
        await bench.store.barrier()
        await bench.append(row(number))
        bench.store.fault = once(down(), on="barrier")
        await bench.steps()
        bench.begin()
    await bench.steps()

    assert bench.replaced == 0


# --- at fault: a document, or the server --------------------------------------------------------


async def test_one_poison_of_500(bench: Bench) -> None:
    """One refused document becomes a dead letter with its reason; the other 499 are written."""
    poison = row_id(77)
    bench.store.refuse = lambda each: 121 if each.where["_id"] == poison else 0
    await bench.append(*(row(n) for n in range(500)))

    await bench.steps()

    assert len(bench.stored) == 499
    [letter] = bench.letters.values()
    assert letter["reason"] == "121: refused"
    assert records.from_json(letter["text"])["time"] == row(77).time
    assert (bench.writer.counters.rejected, bench.writer.counters.written) == (1, 499)
    assert [each["count"] for each in bench.log.named("store.rejected")] == [1]


async def test_poison_alone_is_a_dead_letter_too(bench: Bench) -> None:
    """A bulk of one refused document proves nothing against the server if a good one is taken."""
    bench.store.refuse = lambda each: 121 if each.collection == "measurements" else 0
    bench.store.accepts = lambda collection: asyncio.sleep(0, True)  # type: ignore[method-assign]
    await bench.append(row(1))

    await bench.steps()

    assert (len(bench.stored), len(bench.letters)) == (0, 1)


@pytest.mark.parametrize("code", [1, 2, 121, 112, 54321])
async def test_all_refused_is_held(bench: Bench, code: int) -> None:
    """A server that refuses everything, a good document too, makes no dead letters."""
    await bench.steps()
    bench.store.refuse = lambda each: code
    await bench.append(*(row(n) for n in range(30)))

    for _ in range(12):
        assert await bench.writer.step() == -1
    assert bench.letters == {}
    assert bench.spool.batches == 1
    assert bench.writer.counters.state == "down"
    assert bench.broken == 12

    bench.store.refuse = lambda each: 0
    await bench.steps()
    assert (len(bench.stored), bench.letters) == (30, {})
    assert bench.writer.counters.state == "writing"


@pytest.mark.parametrize(("code", "tries"), [(121, 1), (11000, 2), (54321, 5), (1, 5)])
async def test_tries_of_one_operation(bench: Bench, code: int, tries: int) -> None:
    """A document at fault has one try, a duplicate key two, an unknown refusal five."""
    sent = []

    def refuse(each: Operation) -> int:
        if each.collection == "measurements" and each.where["_id"] == row_id(3):
            sent.append(each)
            return code
        return 0

    bench.store.refuse = refuse
    await bench.append(*(row(n) for n in range(9)))
    await bench.steps()

    assert len(sent) == tries
    assert (len(bench.stored), len(bench.letters)) == (8, 1)
    assert bench.writer.counters.written == 8


@pytest.mark.parametrize("code", [112, 262, 13, 10107])
async def test_some_codes_never_make_a_dead_letter(bench: Bench, code: int) -> None:
    """A write conflict, lost rights, an election: however often, the record is kept and stored."""
    left = [12]

    def refuse(each: Operation) -> int:
        if each.collection == "measurements" and each.where["_id"] == row_id(3):
            left[0] -= 1
            return code if left[0] >= 0 else 0
        return 0

    bench.store.refuse = refuse
    await bench.append(*(row(n) for n in range(9)))
    await bench.steps()

    assert (len(bench.stored), bench.letters) == (9, {})
    assert bench.log.named("store.down")  # it lasted, so it is told
    assert bench.broken == 0


async def test_one_conflict_is_not_told(bench: Bench) -> None:
    """A single write conflict is repeated without an alarm."""
    codes = [112]
    bench.store.refuse = lambda each: codes.pop() if codes and each.where["_id"] != "m" else 0
    await bench.append(*(row(n) for n in range(9)))
    await bench.steps()

    assert len(bench.stored) == 9
    assert bench.log.events == []


async def test_poison_in_one_of_many_batches_costs_them_nothing(bench: Bench) -> None:
    """Batches before and behind one with a stubborn document are all settled."""
    poison = row_id(10)
    bench.store.refuse = lambda each: 54321 if each.where["_id"] == poison else 0
    for number in range(20):
        await bench.append(row(number))

    await bench.steps()

    assert (len(bench.stored), len(bench.letters)) == (19, 1)


async def test_refused_dead_letter_holds_its_batch(bench: Bench) -> None:
    """A record leaves the spool only if its dead letter is stored."""
    poison = row_id(1)
    closed = [True]

    def refuse(each: Operation) -> int:
        letter = each.collection == "dead_letters" and closed[0]
        return 121 if letter or each.where["_id"] == poison else 0

    bench.store.refuse = refuse
    await bench.append(row(0), row(1))
    for _ in range(8):
        assert await bench.writer.step() == -1
    assert bench.spool.batches == 1

    closed[0] = False
    await bench.steps()
    assert (len(bench.stored), len(bench.letters)) == (1, 1)


async def test_what_cannot_be_read_is_a_dead_letter(bench: Bench) -> None:
    """A record the spool itself set aside is stored as such, and counted and told once."""
    await bench.append(row(0), row(1, temperature=cast("float", 2**70)), row(2))

    await bench.steps()

    assert (len(bench.stored), len(bench.letters)) == (2, 1)
    [told] = bench.log.named("store.rejected")
    assert "OverflowError" in told["reason"]


# --- bulks: how many, how large ------------------------------------------------------------------


def slow_above(most: int) -> Callable[[str], None]:
    """A server that never answers a bulk of more than `most` rows."""

    def fault(name: str) -> None:
        collection, _, size = name.partition("×")
        if collection == "measurements" and int(size) > most:
            raise down("timeout")

    return fault


@pytest.mark.parametrize("most", [200, 50, 1])
async def test_bulks_are_halved_until_they_are_answered(bench: Bench, most: int) -> None:
    """Two timeouts halve the bulks, though smaller ones were answered meanwhile; all is stored."""
    bench.store.fault = slow_above(most)
    await bench.append(entity(1), *(row(n) for n in range(500)))

    await bench.steps()

    assert len(bench.stored) == 500
    assert most // 2 < bench.writer.bulk_size <= most
    sent = [int(call.split("×")[1]) for call in bench.store.calls if call.startswith("measurem")]
    assert all(sent.count(size) == 2 for size in set(sent) if size > most)
    assert str(bench.writer.bulk_size) in bench.store.warnings["bulk size"]
    assert bench.log.named("store.degraded")


async def test_small_bulk_that_times_out_halves_itself(bench: Bench) -> None:
    """The halving begins at the bulk that was not answered, not at the most a bulk may hold."""
    bench.store.fault = slow_above(15)
    await bench.append(*(row(n) for n in range(30)))

    await bench.steps()

    assert bench.writer.counters.failures == 2
    assert bench.writer.bulk_size == 15


@pytest.mark.parametrize("reason", ["down", "unconfirmed"])
async def test_only_timeouts_of_bulks_halve_them(bench: Bench, reason: str) -> None:
    """A server that is away, mute, or slow at the barrier leaves bulks as they are."""
    await bench.append(row(0), facts=(fact(0, 1),))
    bench.store.fault = once(*[down(reason)] * 6, on="measurements")
    await bench.steps()
    await bench.append(row(1), facts=(fact(1, 2),))
    bench.store.fault = once(*[down("timeout")] * 6, on="barrier")
    await bench.steps()

    assert bench.writer.bulk_size == 500
    assert bench.store.warnings == {}


def test_size_grows_back_once_an_hour() -> None:
    """Each doubling needs an hour since the last change, and ends at the size that was set."""
    size = BulkSize(500)
    assert not size.timed_out(500)
    assert size.timed_out(500)
    assert (size.now, size.went_well(250)) == (250, False)

    size.changed -= 3601
    assert (size.went_well(10), size.now) == (True, 500)
    assert (size.went_well(10), size.now) == (False, 500)


def test_answered_smaller_bulk_is_no_excuse() -> None:
    """Timeouts are counted until a bulk of at least that size is answered."""
    size = BulkSize(500)
    size.timed_out(400)
    size.went_well(399)
    assert size.timed_out(400)
    size.timed_out(200)
    size.went_well(200)
    assert not size.timed_out(200)


def test_single_operations_are_not_halved() -> None:
    """An operation alone that is not answered is repeated as it is."""
    size = BulkSize(1)

    assert not any(size.timed_out(1) for _ in range(5))
    assert size.now == 1


async def test_pace_is_kept(bench: Bench) -> None:
    """So many bulks a second and no more."""
    bench.begin(bulk_size=1, max_bulks_per_second=50.0)
    await bench.append(*(row(n) for n in range(10)))

    began = time.monotonic()
    await bench.steps()

    assert time.monotonic() - began >= 9 / 50


async def test_loop_goes_on_while_much_is_unpacked(bench: Bench) -> None:
    """Others have their turn all the time while thousands of records become operations."""
    await bench.steps()
    await bench.append(*(row(n, co2=1.0, noise=2.0) for n in range(4000)))
    turns = [0]

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0.0005)

    def fault(name: str) -> None:
        raise down()

    bench.store.fault = fault  # at the first bulk: the unpacking is over
    waiting = asyncio.create_task(others())
    await bench.writer.step()
    waiting.cancel()

    assert turns[0] > 10


# --- the ledger, the end -------------------------------------------------------------------------


async def test_ledger_waits_for_the_old_spool_alone(bench: Bench) -> None:
    """It is read when what lay there at the start is settled, though new batches keep coming."""
    await bench.append(row(0), facts=(fact(0, 1),))
    await bench.append(row(1), facts=(fact(1, 2),))
    bench.writer._take = 1
    seen = []

    for number in range(2, 8):
        seen.append(bench.ledger.loaded)
        await bench.writer.step()
        await bench.append(row(number), facts=(fact(number, number + 1),))
        await bench.append(row(number + 100))

    assert seen[0] is False
    assert seen[-1] is True
    assert bench.spool.batches > 0


async def test_stop_is_obeyed_while_the_store_is_down(bench: Bench) -> None:
    """`run` ends at once although its backoff would wait for minutes."""
    bench.writer._backoff = Backoff(100.0, 100.0, rng=random.Random(1))
    bench.store.fault = once(*[down()] * 9, on="make")
    stop = asyncio.Event()
    running = asyncio.create_task(bench.writer.run(stop))
    await until(lambda: bench.writer.counters.failures)

    stop.set()
    await asyncio.wait_for(running, 1.0)


@pytest.mark.parametrize("on", ["measurements", "barrier"])
async def test_drain_keeps_its_deadline(bench: Bench, on: str) -> None:
    """However long the store takes, draining ends in time and says that something is left."""

    async def forever(_: Any = None) -> Any:
        await asyncio.sleep(3600)

    await bench.writer._prepare()
    await bench.append(row(0))
    if on == "barrier":
        bench.store.barrier = forever  # type: ignore[method-assign]  # the double is ours
    else:
        bench.store.write = forever  # type: ignore[method-assign,assignment]
    began = time.monotonic()

    assert not await bench.writer.drain(began + 0.3)

    assert 0.3 <= time.monotonic() - began < 1.0
    assert bench.spool.batches == 1


async def test_drain_is_true_only_for_an_empty_spool(bench: Bench) -> None:
    """Drained means each batch is settled; a deadline in the past writes nothing."""
    await bench.append(row(0))

    assert not await bench.writer.drain(time.monotonic() - 1)
    assert await bench.writer.drain(time.monotonic() + 10)
    assert (bench.spool.batches, len(bench.stored)) == (0, 1)


async def test_trouble_is_told_once_and_its_end_too(bench: Bench) -> None:
    """Thirty failures are one line, and the recovery another that counts them."""
    await bench.append(row(0))
    bench.store.fault = once(*[down("denied")] * 30, on="measurements")

    await bench.steps()

    [line] = bench.log.named("store.down")
    assert (line["reason"], line["records_waiting"]) == ("denied", 1)
    assert bench.log.named("store.up") == [{"failures": 30}]
    assert (bench.writer.counters.state, bench.letters) == ("writing", {})


async def test_refused_command_is_held(bench: Bench) -> None:
    """A server that refuses the ledger for good keeps the batch on the spool, with an alarm."""
    await bench.append(row(0), facts=(fact(0, 1),))
    bench.store.fault = once(ConfigError("no such command"), on="merge")

    assert await bench.writer.step() == -1
    assert bench.writer.counters.reason == "refused: no such command"
    await bench.steps()
    assert bench.spool.batches == 0


class Trouble:
    """Failures at random, until `over`: of methods, of operations, of the whole server."""

    def __init__(self, store: MemoryStore, dice: random.Random, poison: set[str]) -> None:
        self.over = False
        self._store, self._dice, self._poison = store, dice, poison
        store.fault, store.refuse = self._fault, self._refuse

    def _fault(self, name: str) -> None:
        if not self.over and self._dice.random() < 0.15:
            reasons = ["down", "timeout", "denied", "unconfirmed", "full"]
            raise down(self._dice.choice(reasons))
        if not self.over and self._dice.random() < 0.05:
            self._store.crash()

    def _refuse(self, operation: Operation) -> int:
        if operation.where["_id"] in self._poison:
            return 121
        return 112 if not self.over and self._dice.random() < 0.02 else 0


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_fails_each_covered_row_is_stored_once(bench: Bench, seed: int) -> None:
    """Failures, crashes, restored copies, new starts: what the ledger covers is stored or a letter.

    And what came after the last restored copy is there, and the spool is empty.
    """
    dice = random.Random(seed)
    copies: list[Documents] = []
    since: set[str] = set()
    poison = {row_id(n) for n in dice.sample(range(100), 4)}
    trouble = Trouble(bench.store, dice, poison)
    at = 0
    for _ in range(25):
        numbers = range(at, at := at + dice.randrange(1, 8))
        await bench.append(*map(row, numbers), facts=(fact(numbers[0], at),))
        since |= set(map(row_id, numbers))
        for _ in range(dice.randrange(4)):
            await bench.writer.step()
        if dice.random() < 0.3:
            copies.append(copy.deepcopy(bench.store.durable))
        if copies and bench.spool.batches == 0 and dice.random() < 0.3:
            bench.store.documents = copy.deepcopy(dice.choice(copies))
            bench.store.durable = copy.deepcopy(bench.store.documents)
            since = set()
        if dice.random() < 0.2:
            bench.begin()
    trouble.over = True
    await bench.steps(most=400)

    coverage = bench.ledger.find("m", "max")
    assert coverage is not None
    buried = {records.from_json(each["text"])["time"] for each in bench.letters.values()}
    known = {each["time"] for each in bench.stored.values()} | buried
    times = [row(number).time for number in range(at)]
    covered = {t for t in times if any(b <= t < e for b, e in coverage.covered)}
    assert covered <= known
    assert since - poison <= set(bench.stored)
    assert bench.spool.batches == 0
