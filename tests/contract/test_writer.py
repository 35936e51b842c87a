"""Spool, writer and store, all real, against servers that misbehave (`tests.wire`).

Whatever the server does, everything is stored in the end, unattended, and `warnings` tell what was
done another way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from netatmo_ingestd.models import Batch
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import INDEXES
from netatmo_ingestd.writer import Writer
from tests.stores import until
from tests.test_writer import CHECKS, Log, a_writer, fact, row, row_id
from tests.wire import CLOSE, MUTE, Document, Rule, WireServer

pytestmark = pytest.mark.contract
QUICK = "socketTimeoutMS=300&connectTimeoutMS=300&serverSelectionTimeoutMS=300"


class Home:
    """A daemon's lower half on a scripted server."""

    def __init__(self, server: WireServer, store: Store, spool: Spool) -> None:
        self.server, self.store, self.spool = server, store, spool
        self.log = Log()
        self.writer: Writer = a_writer(spool, store, self.log)

    async def append(self, begin: int, end: int) -> None:
        rows = [row(n) for n in range(begin, end)]
        await self.spool.append(Batch("home", "getmeasure", rows, (fact(begin, end),)), {})

    @property
    def stored(self) -> set[str]:
        return set(self.server.documents.get("measurements", {}))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The writer runs within the block, and ends with it."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.writer.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 5)

    async def settled(self, rows: int) -> None:
        await until(lambda: self.spool.batches == 0, within=15, what="the spool is empty")
        assert self.stored == {row_id(n) for n in range(rows)}
        [coverage] = await self.store.coverage()
        assert coverage.covered == ((fact(0, rows).begin, fact(0, rows).end),)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with WireServer() as server:
        store, spool = Store(server.uri(QUICK), "netatmo"), Spool(tmp_path, 1 << 28)
        await spool.open()
        yield Home(server, store, spool)
        await spool.close()
        await store.close()


def rows_above(most: int) -> Rule:
    """Never answers a bulk of more than `most` rows."""

    def rule(name: str, command: Document) -> Any:
        return MUTE if name == "update" and len(command["updates"]) > most else None

    return rule


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_scripted_server_is_like_a_real_one(home: Home, check: Callable[..., Any]) -> None:
    """Through the driver, the scripted server passes the checks of the contract suite."""

    async def read(collection: str) -> dict[str, Document]:
        return dict(home.server.documents.get(collection, {}))

    await check(home.store, read)


@pytest.mark.parametrize("most", [50, 1])
async def test_server_that_answers_small_bulks_only(home: Home, most: int) -> None:
    """Bulks are halved by two timeouts each until they are answered; all is stored, and told."""
    home.server.rule = rows_above(most)
    count = 200 if most > 1 else 8
    await home.append(0, count)

    async with home.running():
        await home.settled(count)

    assert most // 2 < home.writer.bulk_size <= most
    assert f"above {home.writer.bulk_size} operations" in home.store.warnings["bulk size"]
    assert home.server.documents.get("dead_letters", {}) == {}
    sizes = [len(command["updates"]) for command in home.server.asked("update")]
    assert all(sizes.count(size) == 2 for size in {size for size in sizes if size > most})


async def test_server_that_makes_no_index(home: Home) -> None:
    """Everything is stored without indexes, each of them is a warning, and again after a start."""

    def rule(name: str, command: Document) -> Any:
        refusal = {"ok": 0.0, "code": 238, "errmsg": "not implemented"}
        return refusal if name == "createIndexes" else None

    home.server.rule = rule
    await home.append(0, 30)
    async with home.running():
        await home.settled(30)
    assert len(home.store.warnings) == sum(map(len, INDEXES.values()))
    assert len(home.log.named("store.degraded")) == len(home.store.warnings)

    home.store.warnings.clear()
    home.server.rule = None
    home.writer = a_writer(home.spool, home.store, home.log)
    async with home.running():
        await until(lambda: home.server.indexes)
        await home.append(0, 30)
        await home.settled(30)
    assert await home.store.missing_indexes() == []
    assert home.store.warnings == {}


@pytest.mark.parametrize("at_start", [True, False], ids=["from the start", "later"])
async def test_mute_server_that_heals(home: Home, at_start: bool) -> None:
    """While it accepts and never answers all is kept; healed, it works at once, in full bulks."""
    if not at_start:
        await home.append(0, 10)
        async with home.running():
            await home.settled(10)
    home.server.rule = lambda name, command: MUTE
    await home.append(0, 300)

    async with home.running():
        await until(lambda: home.writer.counters.failures >= 6, within=15)
        assert home.writer.counters.state == "down"
        assert home.spool.batches == 1
        home.server.rule = None
        began = time.monotonic()
        await home.settled(300)

    assert time.monotonic() - began < 5
    assert home.writer.bulk_size == 500
    assert home.store.warnings == {}
    assert len(home.log.named("store.down")) == 1
    assert len(home.log.named("store.up")) == 1


@pytest.mark.parametrize("rule", ["closes all", "closes half", "slow"])
async def test_server_that_closes_connections_or_is_slow(home: Home, rule: str) -> None:
    """Cut off at each bulk for a while, at every other command, or kept waiting: all is stored."""
    seen = [0]

    def odd(name: str, command: Document) -> Any:
        seen[0] += 1
        if rule == "slow":
            return 0.05
        if name.lower() in {"hello", "ismaster"}:
            return None
        return CLOSE if seen[0] % 2 or (rule == "closes all" and seen[0] < 20) else None

    home.server.rule = odd
    for begin in range(0, 60, 20):
        await home.append(begin, begin + 20)

    async with home.running():
        await until(lambda: seen[0] > 60 or home.spool.batches == 0, within=10)
        if rule != "slow":
            home.server.rule = None
        await home.settled(60)

    assert home.writer.bulk_size == 500
    assert home.server.documents.get("dead_letters", {}) == {}


async def test_server_that_restarts_unseen(home: Home) -> None:
    """A server that forgets what it just wrote, and answers as if nothing were, gets it again."""
    await home.writer.step()
    forgot: list[bool] = []

    def rule(name: str, command: Document) -> None:
        if name == "find" and command["filter"].get("_id") == "m|max" and not forgot:
            forgot.append(True)
            home.server.documents["measurements"].clear()
            home.server.incarnation = type(home.server.incarnation)()

    home.server.rule = rule
    await home.append(0, 20)
    async with home.running():
        await home.settled(20)

    assert forgot


async def test_close_does_not_wait_for_a_mute_server(home: Home) -> None:
    """`close` comes back within its limit while a bulk hangs, and no call outlives its own."""
    store = Store(home.server.uri("socketTimeoutMS=3000"), "netatmo")
    await store.ping()
    home.server.rule = lambda name, command: MUTE
    hanging = asyncio.create_task(store.identity())
    await asyncio.sleep(0)

    began = time.monotonic()
    await store.close()

    assert time.monotonic() - began < 6
    await asyncio.wait({hanging}, timeout=10)
    assert hanging.done()
    assert hanging.exception() is not None


async def test_new_address_is_used_at_once(home: Home) -> None:
    """`connect` to another server does not wait for the old one, mute as it is."""
    await home.append(0, 10)
    async with home.running(), WireServer() as other:
        await home.settled(10)
        home.server.rule = lambda name, command: MUTE
        began = time.monotonic()
        home.store.connect(other.uri(QUICK))
        assert time.monotonic() - began < 0.2
        home.server = other
        await home.append(0, 40)
        await home.settled(40)


@pytest.mark.parametrize("mute", ["update", "find", "hello"])
async def test_drain_keeps_its_deadline(home: Home, mute: str) -> None:
    """With a limit of minutes at the socket, draining still ends when it should, and says no."""
    store = Store(home.server.uri("socketTimeoutMS=4000"), "netatmo")
    writer = a_writer(home.spool, store, home.log)
    await writer.step()
    home.server.rule = lambda name, command: MUTE if name == mute else None
    await home.append(0, 10)
    began = time.monotonic()

    drained = await writer.drain(began + 0.5)

    assert not drained
    assert 0.5 <= time.monotonic() - began < 1.5
    assert home.spool.batches == 1
    home.server.rule = None
    home.server.cut()
    await store.close()


async def test_refused_documents_among_many(home: Home) -> None:
    """Each that the server refuses is a dead letter, whatever its bulk; the rest is stored."""
    poison = {row_id(n) for n in (3, 700, 1199)}

    def rule(name: str, command: Document) -> Any:
        if name != "update":
            return None
        errors = [
            {"index": place, "code": 121, "errmsg": "Document failed validation"}
            for place, each in enumerate(command["updates"])
            if each["q"].get("_id") in poison
        ]
        if not errors:
            return None
        bad = {error["index"] for error in errors}
        good = [each for place, each in enumerate(command["updates"]) if place not in bad]
        done = home.server._update({**command, "updates": good})
        done.pop("upserted", None)
        return {"ok": 1.0, **done, "writeErrors": errors}

    home.server.rule = rule
    for begin in range(0, 1200, 300):
        await home.append(begin, begin + 300)

    async with home.running():
        await until(lambda: home.spool.batches == 0, within=15)

    letters = home.server.documents["dead_letters"].values()
    assert len(home.stored) == 1197
    assert len(letters) == 3
    assert {cast("str", each["reason"]) for each in letters} == {"121: Document failed validation"}
    assert home.writer.counters.rejected == 3
