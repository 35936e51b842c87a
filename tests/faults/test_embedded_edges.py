"""The edges of the embedded store, and our way round each: real processes, killed and starved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import InsertOne, UpdateOne, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

from netatmo_ingestd.embedded import EmbeddedStore, history_bytes, running_uri
from netatmo_ingestd.errors import ConfigError, IngestError, StoreUnavailable
from tests.stores import alive, connected, embedded_store, port_of, require_extra, until

pytestmark = pytest.mark.faults
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
INDEX = [("module_id", 1), ("time", 1)]


class Told:
    """Collects events of a store."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.news = asyncio.Event()

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.news.set()
        self.events.append((name, fields))

    def count(self, name: str) -> int:
        return sum(name == each for each, _ in self.events)


async def barrier(client: Any) -> int:
    """The barrier of the writer: one write that changes something, flushed; its revision."""
    journaled = client.netatmo.get_collection("coverage", write_concern=WriteConcern(w=1, j=True))
    await journaled.update_one({"_id": "_barrier"}, {"$inc": {"rev": 1}}, upsert=True)
    found = await journaled.find_one({"_id": "_barrier"})
    assert found is not None
    return int(found["rev"])


def upsert(key: str, **fields: Any) -> UpdateOne:
    return UpdateOne({"_id": key}, {"$set": fields}, upsert=True)


# --- kills -----------------------------------------------------------------------------------


async def test_nothing_before_the_barrier_is_lost(tmp_path: Path) -> None:
    """Whatever a changing `j: true` write followed is there after SIGKILL at a random moment."""
    dice = random.Random(3)
    safe: set[str] = set()

    async def write(client: Any, number: int) -> None:
        for bulk in range(10_000):
            keys = [f"{number}|{bulk}|{row}" for row in range(200)]
            operations = [upsert(key, value=1.0) for key in keys]
            await client.netatmo.measurements.bulk_write(operations, ordered=False)
            await barrier(client)
            safe.update(keys)

    async with embedded_store(tmp_path) as store:
        for number in range(6):
            async with connected(store.uri) as client:
                writing = asyncio.create_task(write(client, number))
                await until(lambda: any(key.startswith(f"{number}|3|") for key in safe))  # noqa: B023
                await asyncio.sleep(dice.uniform(0.0, 0.5))
                await store.kill()
                with pytest.raises(PyMongoError):
                    await writing
            await store.store.start()

            async with connected(store.uri) as client:
                found = {
                    row["_id"] async for row in client.netatmo.measurements.find({}, {"_id": 1})
                }
            assert safe <= found, f"{len(safe - found)} of {len(safe)} lost"


async def test_index_made_on_an_empty_collection_is_whole_after_a_kill(tmp_path: Path) -> None:
    """An index made while the collection was empty, and a barrier, miss no row after SIGKILL."""
    async with embedded_store(tmp_path) as store:
        async with connected(store.uri) as client:
            await client.netatmo.measurements.create_index(INDEX)
            await barrier(client)
        await store.kill()
        await store.store.start()
        async with connected(store.uri) as client:
            rows = [
                InsertOne({"_id": n, "module_id": f"m{n % 9}", "time": NOON + timedelta(minutes=n)})
                for n in range(4000)
            ]
            await client.netatmo.measurements.bulk_write(rows, ordered=False)
            await barrier(client)
            await store.kill()
        await store.store.start()

        async with connected(store.uri) as client:
            stored = client.netatmo.measurements
            through = [
                row["_id"] for m in range(9) async for row in stored.find({"module_id": f"m{m}"})
            ]
            plan = await stored.find({"module_id": "m1"}).explain()
        assert sorted(through) == list(range(4000))
        assert "IXSCAN" in str(plan)


async def test_broken_index_is_cured_by_drop_and_make_again(tmp_path: Path) -> None:
    """An index that a kill left incomplete finds every row once it was dropped and made again."""
    async with embedded_store(tmp_path) as store:
        async with connected(store.uri) as client:
            stored = client.netatmo.measurements
            for part in range(40):
                keys = ((f"{part}|{n}", f"m{n % 9}") for n in range(500))
                rows = [InsertOne({"_id": key, "module_id": m, "time": NOON}) for key, m in keys]
                await stored.bulk_write(rows, ordered=False)
            await barrier(client)
            await stored.create_index(INDEX)
            await store.kill()
        await store.store.start()

        async with connected(store.uri) as client:
            stored = client.netatmo.measurements
            for name in await stored.index_information():
                if name != "_id_":
                    await stored.drop_index(name)
            await stored.create_index(INDEX)

            sizes = [len(await stored.find({"module_id": f"m{m}"}).to_list(None)) for m in range(9)]
        assert sum(sizes) == 20_000


async def test_ranges_deleted_before_a_kill_can_be_deleted_again(tmp_path: Path) -> None:
    """Expiry by `delete_many` in ranges, killed anywhere and repeated, leaves exactly the rest."""
    async with embedded_store(tmp_path) as store:
        async with connected(store.uri) as client:
            await client.netatmo.measurements.create_index(INDEX)
            rows = [
                {"_id": n, "module_id": "m", "time": NOON + timedelta(minutes=n)}
                for n in range(20_000)
            ]
            await client.netatmo.measurements.insert_many(rows, ordered=False)
            await barrier(client)

        async def expire(client: Any) -> None:
            for hour in range(0, 250, 5):
                begin = NOON + timedelta(hours=hour)
                span = {"$gte": begin, "$lt": begin + timedelta(hours=5)}
                await client.netatmo.measurements.delete_many({"module_id": "m", "time": span})

        async with connected(store.uri) as client:
            expiring = asyncio.create_task(expire(client))
            await asyncio.sleep(0.3)
            await store.kill()
            with contextlib.suppress(PyMongoError):
                await expiring
        await store.store.start()
        async with connected(store.uri) as client:
            await expire(client)
            left = [row["_id"] async for row in client.netatmo.measurements.find({}, {"_id": 1})]
        assert sorted(left) == list(range(15_000, 20_000))


async def test_first_start_killed_anywhere_is_followed_by_a_good_one(tmp_path: Path) -> None:
    """A store whose very first start is killed after any step on disk starts the next time."""
    require_extra()
    for steps in range(1, 50, 3):
        store = EmbeddedStore(tmp_path / str(steps), on_event=Told())
        starting = asyncio.create_task(store.start())
        await changed(store.folder / "data", steps, starting)
        if store.pid:  # at once: a cancelled task would only get to it later
            os.kill(store.pid, signal.SIGKILL)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
            await starting
        await store.stop(signal.SIGKILL)

        uri = await store.start()

        async with connected(uri) as client:
            await client.netatmo.homes.insert_one({})
            assert await client.netatmo.homes.count_documents({}) == 1
        await store.stop()


async def changed(folder: Path, times: int, task: asyncio.Task[str]) -> None:
    """Wait until names or sizes in `folder` have changed so often, or `task` has ended."""
    seen: dict[str, int] = {}
    while times and not task.done():
        await asyncio.sleep(0)
        if (now := sizes(folder)) != seen:
            seen, times = now, times - 1


def sizes(folder: Path) -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError):
        return {file.name: file.stat().st_size for file in folder.iterdir()}
    return {}


PARENT = """
import asyncio, sys
from pathlib import Path
from netatmo_ingestd.embedded import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    print(store.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def run_parent(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that runs a store in `folder`, and the store's pid."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    with parent.stdout:
        return parent, int(parent.stdout.readline())


async def test_store_ends_with_its_parent(tmp_path: Path) -> None:
    """A store whose parent gets SIGKILL closes cleanly within seconds, and frees its folder."""
    require_extra()
    folder = tmp_path / "store"
    parent, child = await asyncio.to_thread(run_parent, folder)
    uri = running_uri(folder)
    assert uri is not None
    assert alive(child)
    async with connected(uri) as client:
        await client.netatmo.homes.insert_one({"_id": "without barrier"})

    parent.kill()
    await asyncio.to_thread(parent.wait)

    await until(lambda: not alive(child), within=10, what="the store ends")
    assert running_uri(folder) is None
    async with embedded_store(tmp_path) as store, connected(store.uri) as client:
        assert await client.netatmo.homes.find_one({}) == {"_id": "without barrier"}


async def test_next_parent_waits_for_an_orphan(tmp_path: Path) -> None:
    """Who starts a store in the moment its last parent died waits for the old one to close."""
    require_extra()
    folder = tmp_path / "store"
    parent, child = await asyncio.to_thread(run_parent, folder)
    os.kill(child, signal.SIGSTOP)
    parent.kill()
    await asyncio.to_thread(parent.wait)

    async def thaw() -> None:
        await asyncio.sleep(1.5)
        os.kill(child, signal.SIGCONT)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(thaw())
        async with embedded_store(tmp_path) as store:
            assert not alive(child)
            assert store.store.alive


async def test_terminal_and_operator_signals(tmp_path: Path) -> None:
    """SIGHUP does not end the store, SIGTERM does cleanly, and a frozen one is ended by force."""
    async with embedded_store(tmp_path) as store:
        os.kill(store.pid, signal.SIGHUP)
        async with connected(store.uri) as client:
            await client.netatmo.homes.insert_one({"_id": 1})
        assert os.getsid(store.pid) == store.pid
        os.kill(store.pid, signal.SIGTERM)
        await until(lambda: not store.store.alive)
        assert "Traceback" not in (tmp_path / "store" / "store.log").read_text()

        await store.store.start()
        store.freeze()
        uri = await store.store.restart(signal.SIGKILL)

        async with connected(uri) as client:
            assert await client.netatmo.homes.find_one({}) == {"_id": 1}


# --- supervision ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def supervised(store: EmbeddedStore, **delays: float) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(store.supervise(stop, **delays))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def test_supervisor_starts_a_killed_store_again(tmp_path: Path) -> None:
    """A supervised store that is killed three times answers again each time at its URI."""
    told = Told()
    async with embedded_store(tmp_path, on_event=told) as store, connected(store.uri) as client:
        uri = store.uri
        async with supervised(store.store, first_delay=0.05):
            for number in range(3):
                await client.netatmo.homes.insert_one({"_id": number})
                await barrier(client)

                os.kill(store.pid, signal.SIGKILL)
                while told.count("store.restarted") <= number:
                    await asyncio.wait_for(told.news.wait(), 20)
                    told.news.clear()

                assert store.uri == uri
                assert await client.netatmo.homes.find_one({"_id": number})
        assert told.count("store.ended") == 3
        assert store.store.alive


async def test_deaf_store_is_started_again(tmp_path: Path) -> None:
    """A store that ran out of descriptors, and so accepts nobody, ends and is started again."""
    told = Told()
    async with embedded_store(tmp_path, on_event=told) as store:
        deaf = store.pid
        used = len(os.listdir(f"/proc/{deaf}/fd"))  # noqa: PTH208  a Path here is taken for I/O
        resource.prlimit(deaf, resource.RLIMIT_NOFILE, (used, used))
        async with supervised(store.store, first_delay=0.05):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(store.uri))
            await until(lambda: told.count("store.restarted") == 1)
            writer.close()

            async with connected(store.uri) as client:
                await client.netatmo.homes.insert_one({})
        assert not alive(deaf)
        assert "accepts" in told.events[0][1]["error"]


async def test_supervisor_waits_longer_each_time(tmp_path: Path) -> None:
    """A store that cannot start is tried at growing intervals, each told with its reason."""
    told = Told()
    require_extra()
    store = EmbeddedStore(tmp_path / "store", on_event=told)
    await store.start()
    await store.stop()
    turtle = store.folder / "data" / "WiredTiger.turtle"
    turtle.rename(store.folder / "kept")

    async with supervised(store, first_delay=0.01, longest_delay=0.05):
        await until(lambda: told.count("store.ended") == 5)
        (store.folder / "kept").rename(turtle)
        await until(lambda: store.alive)

    delays = [fields["retry_in_s"] for name, fields in told.events if name == "store.ended"]
    assert delays[:3] == sorted(delays[:3])
    assert max(delays) == 0.05
    assert all("turtle" in f["error"] for n, f in told.events[1:4] if n == "store.ended")
    await store.stop()


# --- the folder -------------------------------------------------------------------------------


async def test_lost_turtle_is_not_an_empty_database(tmp_path: Path) -> None:
    """Without WiredTiger.turtle the store refuses to start, and names the folder and the cure."""
    async with embedded_store(tmp_path) as store:
        async with connected(store.uri) as client:
            await client.netatmo.homes.insert_one({"_id": 1})
        await store.stop()
        turtle = tmp_path / "store" / "data" / "WiredTiger.turtle"
        turtle.rename(tmp_path / "kept")

        with pytest.raises(ConfigError, match=r"data: WiredTiger.turtle is missing .* Restore"):
            await store.store.start()

        (tmp_path / "kept").rename(turtle)
        async with connected(await store.store.start()) as client:
            assert await client.netatmo.homes.find_one({}) == {"_id": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB; skips where mounting is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_full_disk_and_room_again(small_disk: Path) -> None:
    """On a full disk writes fail; with room again the store comes back whole, by itself."""
    told, safe = Told(), -1

    async def write(client: Any, number: int) -> None:
        nonlocal safe
        body = os.urandom(50_000)
        await client.netatmo.answers.update_one(
            {"_id": number}, {"$setOnInsert": {"body": body}}, upsert=True
        )
        await barrier(client)
        safe = number

    async with (
        embedded_store(small_disk, on_event=told) as store,
        connected(store.uri) as client,
        supervised(store.store, first_delay=0.1, longest_delay=0.5),
    ):
        await write(client, 0)
        ballast = fill(small_disk)
        with contextlib.suppress(PyMongoError):
            while True:
                await write(client, safe + 1)

        store.store.report_broken()
        # Some start even now: a checkpoint frees a journal. The others are tried again.
        await until(lambda: told.count("store.ended") >= 1)
        ballast.unlink()
        limit = time.monotonic() + 60
        number = safe + 1
        while safe != number:
            try:
                await write(client, number)
            except PyMongoError:
                assert time.monotonic() < limit
                store.store.report_broken()  # as the writer does while everything is refused
                await asyncio.sleep(1)

        found = [row["_id"] async for row in client.netatmo.answers.find({}, {"_id": 1})]
    assert set(range(safe + 1)) <= set(found)


def fill(disk: Path) -> Path:
    """A file that leaves no room beside it."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(1 << 16))
    return ballast


async def test_first_start_on_a_full_disk(small_disk: Path) -> None:
    """A first start without room fails with one line, and succeeds when there is room."""
    require_extra()
    ballast = fill(small_disk)
    store = EmbeddedStore(small_disk / "store", on_event=Told())

    with pytest.raises(IngestError) as caught:
        await store.start()

    assert "\n" not in str(caught.value)
    ballast.unlink()
    async with connected(await store.start()) as client:
        await client.netatmo.homes.insert_one({})
    await store.stop()


# --- years ------------------------------------------------------------------------------------


async def test_updates_after_a_clean_restart_leave_no_history(tmp_path: Path) -> None:
    """100,000 updates after a clean stop and start add next to nothing to the history file."""
    folder = tmp_path / "store"
    async with embedded_store(tmp_path) as store:
        async with connected(store.uri) as client:
            rows = [upsert(str(n), value=-1.0) for n in range(500)]
            await client.netatmo.measurements.bulk_write(rows, ordered=False)
        await store.restart()
        before, memory = history_bytes(folder), store.memory_bytes

        async with connected(store.uri) as client:
            for turn in range(200):
                rows = [upsert(str(n), value=float(turn), pad="x" * 500) for n in range(500)]
                await client.netatmo.measurements.bulk_write(rows, ordered=False)

        assert history_bytes(folder) - before < 500_000  # without the release: 20 MB and more
        assert store.memory_bytes - memory < 60_000_000


# --- the password ------------------------------------------------------------------------------

COMMANDS = """
from secantus import commands
print(*sorted(set(commands._HANDLERS) - commands._PRE_AUTH_COMMANDS))
"""


async def test_no_command_is_answered_without_the_password(tmp_path: Path) -> None:
    """Of all commands the store knows, beyond the handshake, none is answered to a stranger."""
    known = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", COMMANDS], check=True, capture_output=True, text=True
    )
    commands = known.stdout.split()
    assert {"find", "insert", "createUser", "secantusAdmin.backupArchive"} <= set(commands)
    async with embedded_store(tmp_path) as store:
        stranger = store.uri.partition("@")[2].partition("?")[0]
        wrong = store.uri.replace(store.uri[30:40], "0123456789")
        async with connected(f"mongodb://{stranger}?directConnection=true") as client:
            answered = []
            for command in commands:
                try:
                    await client.admin.command(command, "x")
                except OperationFailure as error:
                    if error.code == 13:
                        continue
                answered.append(command)
            assert answered == []
        async with connected(wrong) as client:
            with pytest.raises(OperationFailure) as caught:
                await client.netatmo.homes.find_one({})
            assert caught.value.code == 18


async def test_deep_documents_leave_their_neighbours_alone(tmp_path: Path) -> None:
    """A bulk with a document nested a hundred levels deep, the deepest we send, is stored whole."""
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    async with embedded_store(tmp_path) as store, connected(store.uri) as client:
        rows = [upsert("1", value=1.0), upsert("2", deep=deep), upsert("3", value=3.0)]

        await client.netatmo.dead_letters.bulk_write(rows, ordered=False)

        found = await client.netatmo.dead_letters.find({}).to_list(None)
    assert sorted(row["_id"] for row in found) == ["1", "2", "3"]
    assert next(row for row in found if row["_id"] == "2")["deep"] == deep


@pytest.mark.parametrize("standalone", [True, False])
async def test_writes_go_on_after_a_restart(tmp_path: Path, standalone: bool) -> None:
    """A client that repeats its write gets through within 15 s of a restart, in each topology."""
    async with (
        embedded_store(tmp_path, standalone=standalone) as store,
        connected(store.uri) as client,
    ):
        await client.netatmo.homes.insert_one({"_id": "before"})
        await store.restart()

        limit = time.monotonic() + 15
        while True:
            try:
                await client.netatmo.homes.update_one(
                    {"_id": "after"}, {"$set": {"value": 1.0}}, upsert=True
                )
                break
            except PyMongoError:
                assert time.monotonic() < limit
                await asyncio.sleep(0.1)

        assert len(await client.netatmo.homes.find({}).to_list(None)) == 2
