"""The embedded store as a driver sees it, in every topology, with and without password and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo import InsertOne, UpdateOne
from pymongo.errors import AutoReconnect, OperationFailure

from netatmo_ingestd.embedded import (
    EmbeddedStore,
    disk_bytes,
    history_bytes,
    opened,
    running_uri,
)
from netatmo_ingestd.errors import Busy
from tests.stores import VARIANTS, connected, embedded_store, port_of, variant_name

pytestmark = pytest.mark.contract
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
async def test_what_is_written_is_there_after_restart(
    tmp_path: Path, variant: dict[str, bool]
) -> None:
    """In every variant a driver logs in, writes, and finds it again at the same URI."""
    async with embedded_store(tmp_path, **variant) as store, connected(store.uri) as client:
        rows = client.netatmo.measurements
        first_uri = store.uri
        row = {"_id": "a|max|1", "time": NOON, "values": {"temperature": 21.0}, "n": 2**40}
        await rows.insert_one(row)

        assert await store.restart() == first_uri

        async with connected(store.uri, tz_aware=True) as again:
            assert await again.netatmo.measurements.find_one({}) == row


@pytest.mark.parametrize("standalone", [True, False])
async def test_errors_can_be_ordered(tmp_path: Path, standalone: bool) -> None:
    """With test commands a store answers with the error, or the closed connection, we ask for."""
    async with (
        embedded_store(tmp_path, standalone=standalone) as store,
        connected(store.uri, retryWrites=False, heartbeatFrequencyMS=500) as client,
    ):
        for data, expected in (
            ({"errorCode": 10107}, AutoReconnect),
            ({"errorCode": 13}, OperationFailure),
            ({"closeConnection": True}, AutoReconnect),
        ):
            await client.admin.command(
                "configureFailPoint",
                "failCommand",
                mode={"times": 1},
                data={"failCommands": ["insert"], **data},
            )
            with pytest.raises(expected):
                await client.netatmo.events.insert_one({})
            # After "not primary" the driver looks again at its next heartbeat: ten seconds, if not
            # told otherwise.
            await client.netatmo.events.insert_one({})


async def test_daemon_has_no_test_commands_and_few_rights(tmp_path: Path) -> None:
    """The store of a daemon knows no fail points, and its user may only read, write and measure."""
    async with (
        embedded_store(tmp_path, test_commands=False) as store,
        connected(store.uri) as client,
    ):
        await client.netatmo.events.create_index("type")
        assert (await client.netatmo.command("collStats", "events"))["ok"] == 1
        assert (await client.admin.command("serverStatus"))["ok"] == 1
        for command, code in (
            ({"configureFailPoint": "failCommand", "mode": "off"}, 59),
            ({"createUser": "x", "pwd": "y", "roles": []}, 13),
            ({"secantusAdmin.backupArchive": 1, "outputPath": str(tmp_path / "out")}, 13),
            ({"setParameter": 1, "logLevel": 1}, 13),
        ):
            with pytest.raises(OperationFailure) as caught:
                await client.admin.command(command)
            assert caught.value.code == code, command
        assert not (tmp_path / "out").exists()


async def test_second_opener_is_told_the_uri(tmp_path: Path) -> None:
    """Beside a running store `running_uri` and `opened` give its URI; a second start is Busy."""
    folder = tmp_path / "store"
    assert running_uri(folder) is None
    async with embedded_store(tmp_path) as store:
        assert running_uri(folder) == store.uri
        async with opened(folder) as uri:
            assert uri == store.uri
        with pytest.raises(Busy, match="runs the embedded store"):
            await EmbeddedStore(folder).start()
        assert store.store.alive
    assert running_uri(folder) is None


async def test_opened_runs_one_for_the_block(tmp_path: Path) -> None:
    """Without a daemon `opened` starts the store, and ends it after the block."""
    folder = tmp_path / "store"

    async with opened(folder) as uri:
        assert uri == running_uri(folder)
        async with connected(uri) as client:
            await client.netatmo.homes.insert_one({})

    assert running_uri(folder) is None
    assert disk_bytes(folder) > history_bytes(folder) > 0


async def test_uri_stays_unless_the_port_is_taken(tmp_path: Path) -> None:
    """A port somebody else took is given up for another one, aloud, and that one stays."""
    events: list[str] = []
    async with embedded_store(tmp_path, on_event=lambda name, _: events.append(name)) as store:
        before = store.uri
        await store.stop()
        squatter = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", port_of(before))
        async with squatter:
            moved = await store.store.start()
        assert moved != before
        assert events == ["store.moved"]
        assert await store.restart() == moved


async def test_lost_password_is_replaced_aloud(tmp_path: Path) -> None:
    """Whoever loses the password file keeps the data: there is a new password, and an event."""
    events: list[str] = []
    async with embedded_store(tmp_path, on_event=lambda name, _: events.append(name)) as store:
        async with connected(store.uri) as client:
            await client.netatmo.homes.insert_one({"_id": "home"})
        before = store.uri
        await store.stop()
        (tmp_path / "store" / "password").unlink()

        await store.store.start()

        assert "store.password" in events
        assert store.uri != before
        async with connected(store.uri) as client:
            assert await client.netatmo.homes.find_one({}) == {"_id": "home"}
        async with connected(before) as client:
            with pytest.raises(OperationFailure):
                await client.netatmo.homes.find_one({})


async def test_tls_store_speaks_nothing_else(tmp_path: Path) -> None:
    """A store with a certificate gives no answer to a driver that comes without TLS."""
    async with embedded_store(tmp_path, tls=True) as store:
        assert await plain_ping(port_of(store.uri)) == b""
    (tmp_path / "other").mkdir()
    async with embedded_store(tmp_path / "other") as store:
        assert bson.decode((await plain_ping(port_of(store.uri)))[21:])["ok"] == 1


async def plain_ping(port: int) -> bytes:
    """What is answered to one OP_MSG without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ping = bson.encode({"ping": 1, "$db": "admin"})
    writer.write(struct.pack("<iiiiiB", 21 + len(ping), 1, 0, 2013, 0, 0) + ping)
    try:
        return await asyncio.wait_for(reader.read(1000), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_our_query_shapes_are_right(tmp_path: Path) -> None:
    """Each shape of query that we use finds what the same condition finds in a list."""
    dice = random.Random(7)
    names = [f"{n:02x}:00" for n in range(6)]
    rows: list[dict[str, Any]] = []
    for name in names:
        for scale in ("max", "30min", "live"):
            for step in sorted(dice.sample(range(400), 60)):
                time = NOON + timedelta(minutes=5 * step)
                key = f"{name}|{scale}|{int(time.timestamp())}"
                rows.append({"_id": key, "module_id": name, "scale": scale, "time": time})
    dice.shuffle(rows)
    async with embedded_store(tmp_path) as store, connected(store.uri, tz_aware=True) as client:
        stored = client.netatmo.measurements
        await stored.create_index([("module_id", 1), ("scale", 1), ("time", 1)])
        await stored.bulk_write([InsertOne(row) for row in rows], ordered=False)
        await stored.bulk_write(
            [UpdateOne({"_id": row["_id"]}, {"$set": {"seen": True}}) for row in rows[::3]],
            ordered=False,
        )
        for row in rows[::3]:
            row["seen"] = True

        async def found(query: dict[str, Any], *sort: tuple[str, int], limit: int = 0) -> list[Any]:
            cursor = stored.find(query, limit=limit)
            return [row async for row in (cursor.sort(list(sort)) if sort else cursor)]

        def expected(**equal: Any) -> list[dict[str, Any]]:
            some = (r for r in rows if all(r.get(k) == v for k, v in equal.items()))
            return sorted(some, key=lambda r: r["_id"])

        for _ in range(60):
            name, scale = dice.choice(names), dice.choice(["max", "30min", "live"])
            begin = NOON + timedelta(minutes=5 * dice.randrange(400))
            end = begin + timedelta(minutes=5 * dice.randrange(400))
            series = expected(module_id=name, scale=scale)
            within = [r for r in series if begin <= r["time"] < end]
            equal = {"module_id": name, "scale": scale}

            ranged = {**equal, "time": {"$gte": begin, "$lt": end}}
            assert await found(ranged, ("time", 1)) == within
            assert await stored.find_one({"_id": series[0]["_id"]}) == series[0]
            assert (
                await found({**equal, "time": {"$gte": begin}}, ("time", 1), limit=9)
                == [r for r in series if begin <= r["time"]][:9]
            )
            keys = [r["_id"] for r in dice.sample(rows, 150)]
            by_key = await found({"_id": {"$in": keys}})
            assert sorted(r["_id"] for r in by_key) == sorted(keys)
            newest = await found(equal, ("time", -1), limit=1)
            assert newest == series[-1:]

        gone = {"module_id": names[0], "scale": "max", "time": {"$gte": NOON, "$lt": end}}
        count = sum(r["time"] < end for r in expected(module_id=names[0], scale="max"))
        assert (await stored.delete_many(gone)).deleted_count == count
        assert await found(gone) == []


async def test_no_secret_reaches_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store inherits no variable of ours, and no password stands among its arguments."""
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_CLIENT_SECRET", "canary")
    monkeypatch.setenv("SECANTUS_TEST_FAST_STORAGE", "1")
    async with embedded_store(tmp_path) as store:
        process = Path(f"/proc/{store.pid}")
        environment = (process / "environ").read_text()
        arguments = (process / "cmdline").read_text()

        assert "canary" not in environment
        assert "SECANTUS" not in environment
        assert store.uri.partition("@")[0].rpartition(":")[2] not in arguments


async def test_store_never_waits_for_a_log_reader(tmp_path: Path) -> None:
    """What it prints goes to a file, the one of the run before is kept, and its folder is ours."""
    folder = tmp_path / "store"
    async with embedded_store(tmp_path) as store:
        (folder / "secantusd.toml").write_text("[server]\nport = 1\n[nonsense]\n")
        await store.restart()
        assert {"store.log", "store.log.1"} <= {f.name for f in folder.iterdir()}
        process = Path(f"/proc/{store.pid}")
        assert (process / "cwd").readlink() == folder
        for number in ("1", "2"):
            assert (process / "fd" / number).readlink() == folder / "store.log"
        wide = [f for f in (folder, *folder.rglob("*")) if f.stat().st_mode & 0o077]
        assert wide == [folder / "secantusd.toml"]
