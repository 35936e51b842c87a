"""What we ask of a MongoDB, on each server there is: embedded in all variants, and the one of

NETATMO_INGESTD_TEST_MONGODB. Server errors are ordered by `configureFailPoint`, for connections of
our own application name alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson.codec_options import CodecOptions
from pymongo.errors import OperationFailure

from netatmo_ingestd.errors import StoreUnavailable
from netatmo_ingestd.ledger import Ledger, merge
from netatmo_ingestd.models import (
    Answer,
    Batch,
    Change,
    DeadLetter,
    Entity,
    Event,
    Fact,
    FailureCode,
    Measurement,
    Outcome,
    Picture,
    Record,
    State,
    Summary,
)
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import INDEXES, Operation
from tests.stores import VARIANTS, RunningStore, connected, embedded_store, variant_name
from tests.test_writer import CHECKS, Log, a_writer, fact, ops, row, row_id

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="module")]
Document = dict[str, Any]
GIVEN = os.environ.get("NETATMO_INGESTD_TEST_MONGODB", "")
SERVERS = [*map(variant_name, VARIANTS), *(["given"] if GIVEN else [])]
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
ODDS = CodecOptions[Document](tz_aware=True, tzinfo=UTC)


@dataclass
class Server:
    """A running server; `admin` is a client that no failpoint of ours touches."""

    uri: str
    admin: Any
    embedded: RunningStore | None

    @contextlib.asynccontextmanager
    async def failing(
        self, *commands: str, mode: Any = "alwaysOn", **data: Any
    ) -> AsyncIterator[None]:
        """Within the block the `commands` of our stores fail by `data`."""
        scope = {"failCommands": list(commands), "appName": "netatmo-ingestd"}
        await self._set({"mode": mode, "data": {**scope, **data}})
        try:
            yield
        finally:
            await self._set({"mode": "off"})

    async def _set(self, how: Document) -> None:
        try:
            await self.admin.admin.command({"configureFailPoint": "failCommand", **how})
        except OperationFailure as error:
            if self.embedded is None:
                pytest.skip(f"the given server has no test commands: {error}")
            raise


@dataclass
class Home:
    """A database of its own on a server, our store on it, and a spool."""

    server: Server
    store: Store
    spool: Spool
    database: Any
    log: Log

    def another(self, options: str = "") -> Store:
        return Store(with_options(self.server.uri, options), self.database.name)

    def begin(self, **more: Any) -> Any:
        """A writer, as at a start of the daemon."""
        return a_writer(self.spool, self.store, self.log, **more)

    async def read(self, collection: str) -> dict[str, Document]:
        cursor = self.database.get_collection(collection, codec_options=ODDS).find({})
        return {each["_id"]: each for each in await cursor.to_list(None)}

    async def append(self, *of: Record, facts: tuple[Fact, ...] = ()) -> None:
        await self.spool.append(Batch("home", "getmeasure", of, facts), {})


def with_options(uri: str, options: str = "") -> str:
    """`uri` with more query options; a healed server is looked for twice a second."""
    head, _, query = uri.partition("?")
    slash = "" if head.count("/") > 2 else "/"
    parts = (query, "heartbeatFrequencyMS=500", options)
    return f"{head}{slash}?{'&'.join(part for part in parts if part)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    if request.param == "given":
        async with connected(GIVEN) as admin:
            yield Server(GIVEN, admin, None)
        return
    variant = VARIANTS[SERVERS.index(request.param)]
    folder = tmp_path_factory.mktemp(request.param)
    async with embedded_store(folder, **variant) as running, connected(running.uri) as admin:
        yield Server(running.uri, admin, running)


@pytest_asyncio.fixture(loop_scope="module")
async def home(server: Server, tmp_path: Path) -> AsyncIterator[Home]:
    name = f"test_{secrets.token_hex(4)}"
    store, spool = Store(with_options(server.uri), name), Spool(tmp_path, 1 << 28)
    await spool.open()
    yield Home(server, store, spool, server.admin[name], Log())
    await spool.close()
    await store.close()
    await server.admin.drop_database(name)


async def steps(writer: Any, *, most: int = 60) -> None:
    for _ in range(most):
        if await writer.step() == 0:
            return
    pytest.fail(f"not drained: {writer.counters}")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_store_does_what_the_double_does(
    home: Home, check: Callable[..., Awaitable[None]]
) -> None:
    """Each check that the fast tests trust their double by holds on this server."""
    await check(home.store, home.read)


# --- documents -----------------------------------------------------------------------------------


def one_of_each(flag: bool, number: float) -> list[Record]:
    """A record of each kind; the arguments stand where a later answer may differ."""
    given: Document = {"account": "home", "home_id": "h", "time": NOON}
    values = {"temperature": number, "co2": 400}
    latest = (NOON, values)
    facts = {"reachable": flag, "firmware": 181, "radio": 56.5, "last_seen": NOON, "gone": None}
    entity = Entity(
        "home", "module", "m", "h", "d", "NAMain", facts, {"battery": {"percent": 90}},
        {"on": flag}, latest, NOON, other=[("Odd", [flag, number, NOON])],
    )  # fmt: skip
    return [
        Measurement(
            device_id="d", module_id="m", module_type="NAMain", scale="max", values=values,
            source="getmeasure", other=[("flag", flag)], **given,
        ),
        Summary(
            device_id="d", module_id="m", module_type="NAMain", day="2026-03-14",
            until=NOON + timedelta(days=1), source="getmeasure",
            values={"temperature_min": number, "temperature_min_time": NOON}, **given,
        ),
        State(
            entity_id="m", kind="module", until=NOON + timedelta(minutes=5),
            values={"on": flag, "mode": "away", "set_point": 21.5}, **given,
        ),
        entity,
        replace(entity, kind="home", entity_id="h", latest=None),
        Change(
            entity_id="m", kind="module", what="changed", before={"name": "a", "on": flag},
            after={"since": NOON, "n": 1}, **given,
        ),
        Event(
            event_id="e", module_id="m", type="outdoor", read=NOON + timedelta(minutes=not flag),
            sub_type=1, meaning="detected", person_id="p", is_arrival=flag, video_id="v",
            detected=["person"], subevents=[{"id": "s", "time": NOON, "offset": number}],
            pictures=["f00"], pictures_lost=[{"slot": "vignette", "reason": "HTTP 404"}],
            other=[("Odd", flag)], **given,
        ),
        Picture(
            sha256="f00", content=bytes(range(256)), content_type="image/jpeg", event_id="e",
            module_id="m", **given,
        ),
        FailureCode("home", "062520", 8, [{"flag": "0x0008", "type": "BLOCK.DLD"}], NOON),
        Answer("home", "getstationsdata", "home", NOON, True, ["a: odd"], zlib.compress(b"{}")),
        DeadLetter("121: no", '{"a": 1}', NOON),
    ]  # fmt: skip


def types(value: Any) -> Any:
    """The shape of a document: types instead of values."""
    if isinstance(value, dict):
        return {name: types(inner) for name, inner in value.items()}
    return [types(inner) for inner in value] if isinstance(value, list) else type(value)


async def everything(home: Home) -> dict[str, dict[str, Document]]:
    return {name: await home.read(name) for name in INDEXES}


async def test_each_record_kind_keeps_its_types(home: Home) -> None:
    """Written, written again and revised, a date is a date, a double a double, a boolean one."""
    for bulk in by_collection(ops(*one_of_each(True, 21))):
        assert (await home.store.write(bulk)).written == len(bulk)
    first = await everything(home)
    assert {name for name, found in first.items() if found} == set(INDEXES) - {"coverage"}

    for bulk in by_collection(ops(*one_of_each(True, 21))):
        assert await home.store.write(bulk) == Outcome(len(bulk), 0)
    assert await everything(home) == first

    for bulk in by_collection(ops(*one_of_each(False, 22))):
        await home.store.write(bulk)
    revised = await everything(home)
    assert revised["measurements"] != first["measurements"]
    for name, documents in first.items():
        for key, document in documents.items():
            assert types(revised[name][key]) == types(document), name

    [row_now] = revised["measurements"].values()
    assert types(row_now["values"]) == {"temperature": float, "co2": float}
    assert (row_now["time"], row_now["values"]["temperature"]) == (NOON, 22.0)
    [day] = revised["summaries"].values()
    assert types(day["values"]) == {"temperature_min": float, "temperature_min_time": datetime}
    assert (day["_id"], day["values"]["temperature_min"]) == ("m|1day|2026-03-14", 22.0)
    [module] = revised["modules"].values()
    assert types(module) | {"latest": 0} == {
        "_id": str, "reachable": bool, "firmware": int, "radio": float, "last_seen": datetime,
        "battery": {"percent": int}, "on": bool, "account": str, "kind": str,
        "home_id": str, "device_id": str, "setup": datetime, "latest": 0,
        "other": [{"name": str, "value": [bool, int, datetime]}],
    }  # fmt: skip
    assert module["reachable"] is False
    [state] = revised["states"].values()
    assert types(state["values"]) == {"on": bool, "mode": str, "set_point": float}


def by_collection(wanted: list[Operation]) -> list[list[Operation]]:
    names = dict.fromkeys(each.collection for each in wanted)
    return [[each for each in wanted if each.collection == name] for name in names]


async def test_rows_are_those_of_the_window(home: Home) -> None:
    """`rows` has each row from the first bound up to, and without, the second; of one module."""
    await home.store.make_indexes(anew=False)
    mine = [row(n) for n in range(40)]
    others = [
        replace(row(n), module_id=name, scale=scale)
        for n in range(40)
        for name, scale in (("m", "live"), ("m2", "max"), ("l", "max"))
    ]
    for each in (mine, others):
        await home.store.write(ops(*each))

    async def times(begin: datetime, end: datetime) -> list[datetime]:
        return [each["time"] for each in await home.store.rows("m", "max", begin, end)]

    second = timedelta(seconds=1)
    for first, last in ((0, 40), (10, 11), (10, 10), (39, 40), (0, 1), (7, 23)):
        begin, end = row(first).time, row(last).time
        wanted = [each.time for each in mine[first:last]]
        assert await times(begin, end) == wanted
        assert await times(begin - second, end - second) == wanted
        assert await times(begin + second, end + second) == [
            each.time for each in mine[first + 1 : last + 1]
        ]
    assert await home.store.rows("no such", "max", NOON, row(40).time) == []
    assert (await home.store.rows("m", "max", NOON, NOON + second))[0]["values"] == {
        "temperature": 0.0
    }


async def test_older_latest_never_overwrites_in_one_bulk(home: Home) -> None:
    """Nor when both answers of a module travel together, the older behind the newer."""
    entity = next(each for each in one_of_each(True, 1) if isinstance(each, Entity))
    newer = replace(entity, latest=(NOON + timedelta(hours=1), {"temperature": 2.0}))

    for bulk in ([newer, entity], [entity, newer], [newer, entity]):
        await home.store.write(ops(*bulk))
        [found] = await home.store.find("modules", {})
        assert found["latest"]["values"] == {"temperature": 2.0}


async def test_an_event_keeps_each_picture(home: Home) -> None:
    """Two answers of an event in one bulk, whichever is first: the newer counts, no hash goes."""
    event = next(each for each in one_of_each(True, 1) if isinstance(each, Event))
    newer = replace(
        event, read=NOON + timedelta(hours=1), pictures=["f01"], pictures_lost=[],
        video_status="deleted",
    )  # fmt: skip

    for bulk in ([newer, event], [event, newer], [newer, event]):
        await home.store.write(ops(*bulk))
        [found] = (await home.read("events")).values()
        assert sorted(found["pictures"]) == ["f00", "f01"]
        assert (found["video_status"], found["pictures_lost"]) == ("deleted", [])


async def test_pictures_are_counted_and_deleted_by_time(home: Home) -> None:
    """`find` gives the fields that are asked for, `delete` takes the range and nothing else."""
    await home.store.make_indexes(anew=False)
    picture = next(each for each in one_of_each(True, 1) if isinstance(each, Picture))
    hour = timedelta(hours=1)
    shown = [replace(picture, sha256=f"f{n}", time=NOON + n * hour) for n in range(10)]
    await home.store.write(ops(*shown))

    window = {"time": {"$gte": NOON + hour, "$lt": NOON + 3 * hour}}
    found = await home.store.find("pictures", window, {"time": 1, "size": 1})
    assert sorted((each["time"], each["size"], len(each)) for each in found) == [
        (NOON + hour, 256, 3),
        (NOON + 2 * hour, 256, 3),
    ]
    assert await home.store.delete("pictures", NOON + hour, NOON + 3 * hour) == 2
    assert await home.store.delete("pictures", NOON + hour, NOON + 3 * hour) == 0
    left = await home.read("pictures")
    assert set(left) == {f"f{n}" for n in (0, *range(3, 10))}
    assert left["f0"]["bytes"] == bytes(range(256))


# --- indexes -------------------------------------------------------------------------------------


async def test_indexes_are_made_and_missed(home: Home) -> None:
    """On an empty database all are missing, then none; one that was dropped is named, and made."""
    count = sum(map(len, INDEXES.values()))
    assert len(await home.store.missing_indexes()) == count

    await home.store.make_indexes(anew=True)
    assert await home.store.missing_indexes() == []
    await home.store.write(ops(row(1)))
    await home.database.measurements.drop_index([("home_id", 1), ("time", 1)])
    assert await home.store.missing_indexes() == ["measurements(home_id, time)"]
    await home.store.make_indexes(anew=True)

    assert await home.store.missing_indexes() == []
    assert home.store.warnings == {}
    assert len(await home.store.rows("m", "max", NOON, row(2).time)) == 1


@pytest.mark.parametrize("code", [67, 238, 59])
async def test_refused_index_is_a_warning(home: Home, code: int) -> None:
    """A server that cannot make an index is used without it; the warning goes with the refusal."""
    async with home.server.failing("createIndexes", errorCode=code):
        await home.store.make_indexes(anew=False)
    assert len(home.store.warnings) == sum(map(len, INDEXES.values()))
    assert all("slow" in text for text in home.store.warnings.values())

    await home.store.make_indexes(anew=False)
    assert home.store.warnings == {}


@pytest.mark.parametrize("code", [13, 14031, 10107, 112])
async def test_index_that_failed_is_no_refusal(home: Home, code: int) -> None:
    """Rights, space or an election while indexes are made: not whole, and tried again."""
    async with home.server.failing("createIndexes", errorCode=code):
        with pytest.raises(StoreUnavailable):
            await home.store.make_indexes(anew=False)

    assert home.store.warnings == {}


# --- server errors (faults, section 3) ---------------------------------------------------------

TABLE: list[tuple[Document, str]] = [
    ({"closeConnection": True}, "down"),
    *(({"errorCode": code}, "down") for code in (10107, 189, 91, 64, 112, 262, 11600)),
    *(({"errorCode": code}, "denied") for code in (13, 18, 8000)),
    *(({"errorCode": code}, "full") for code in (1, 14031)),
    ({"errorCode": 50}, "timeout"),
    ({"errorCode": 2}, "refused"),
    ({"errorCode": 54321}, "refused"),
    ({"errorCode": 54321, "errorLabels": ["RetryableWriteError"]}, "down"),
    ({"writeConcernError": {"code": 64, "errmsg": "timed out"}}, "unconfirmed"),
    ({"writeConcernError": {"code": 100, "errmsg": "not enough nodes"}}, "unconfirmed"),
    ({"blockConnection": True, "blockTimeMS": 700}, "timeout"),
]


@pytest.mark.parametrize(("data", "reason"), TABLE, ids=str)
async def test_server_error_is_told_by_its_reason(home: Home, data: Document, reason: str) -> None:
    """A bulk that a server fails has the reason of the table; the next one is written."""
    store = home.another("socketTimeoutMS=300" if "blockTimeMS" in data else "")
    bulk = ops(*(row(n) for n in range(5)))
    try:
        async with home.server.failing("update", **data):
            with pytest.raises(StoreUnavailable) as caught:
                await store.write(bulk)
        assert caught.value.reason == reason
        assert "\n" not in str(caught.value)

        async with asyncio.timeout(8):
            assert (await store.write(bulk)).written == 5
    finally:
        await store.close()
    assert len(await home.read("measurements")) == 5


@pytest.mark.parametrize(("data", "reason"), TABLE[:1] + TABLE[2:15], ids=str)
async def test_barrier_and_ledger_fail_as_bulks_do(home: Home, data: Document, reason: str) -> None:
    """No server error of the table lets a barrier or a fact pass for stored."""
    await home.store.barrier()
    async with home.server.failing("update", **data):
        for call in (
            home.store.barrier(),
            home.store.merge("m", "max", lambda found: merge(found, fact(0, 1), NOON)),
        ):
            with pytest.raises(Exception, match=r".") as caught:
                await call
            found = getattr(caught.value, "reason", "refused")  # ConfigError has none
            assert found == reason


async def test_silent_server_is_not_a_large_bulk(home: Home) -> None:
    """A server that answers nothing at all is "down", for it is no matter of the bulk's size."""
    store = home.another("socketTimeoutMS=300&connectTimeoutMS=300&serverSelectionTimeoutMS=300")
    await store.ping()
    try:
        async with home.server.failing(
            "update", "hello", "isMaster", blockConnection=True, blockTimeMS=700
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await store.write(ops(row(1)))
    finally:
        await store.close()

    assert caught.value.reason == "down"


async def test_one_refusal_of_a_whole_bulk_is_looked_into(home: Home) -> None:
    """A command that is refused as a whole is sent in halves, and everything good is written."""
    async with home.server.failing("update", errorCode=2, mode={"times": 1}):
        outcome = await home.store.write(ops(*(row(n) for n in range(9))))

    assert (outcome.written, *outcome.rejected, *outcome.retry) == (9,)
    assert len(await home.read("measurements")) == 9


@pytest.mark.parametrize(
    "value", [2**63, "\ud800", {1: 2}, object()], ids=["2^63", "surrogate", "key", "object"]
)
async def test_what_cannot_be_encoded_costs_its_neighbours_nothing(home: Home, value: Any) -> None:
    """Should such a document ever reach a bulk, it alone is rejected."""
    bulk = ops(*(row(n) for n in range(9)))
    bulk[4].change["$set"]["values.temperature"] = value

    outcome = await home.store.write(bulk)

    assert outcome.written == 8
    assert [place for place, _ in outcome.rejected] == [4]
    assert set(await home.read("measurements")) == {row_id(n) for n in range(9) if n != 4}


async def test_wrong_password_is_held(server: Server) -> None:
    """A server that knows another password is "denied", not "down" and not a document's fault."""
    if "@" not in server.uri:
        pytest.skip("this server asks for no password")
    scheme, _, rest = server.uri.partition("://")
    user = rest.partition(":")[0]
    store = Store(f"{scheme}://{user}:wrong@{rest.rpartition('@')[2]}", "netatmo")

    with pytest.raises(StoreUnavailable) as caught:
        await store.write(ops(row(1)))
    await store.close()

    assert caught.value.reason == "denied"
    assert "wrong" not in str(caught.value)


# --- the ledger --------------------------------------------------------------------------------


async def test_concurrent_merges_lose_nothing(home: Home) -> None:
    """Six writers of one coverage document: each window is in it, and each change counted."""
    windows = list(range(0, 60, 2))  # no two of them touch

    async def writes(mine: list[int]) -> None:
        store = home.another()
        for begin in mine:
            for _ in range(50):
                with contextlib.suppress(StoreUnavailable):
                    await store.merge("m", "max", lambda found, b=begin: _one(found, b))  # type: ignore[misc]
                    break
        await store.close()

    await asyncio.gather(*(writes(windows[n::6]) for n in range(6)))

    [coverage] = await home.store.coverage()
    assert coverage.covered == tuple((row(n).time, row(n + 1).time) for n in windows)
    assert coverage.rev == len(windows)


def _one(found: Any, begin: int) -> Any:
    return merge(found, fact(begin, begin + 1), NOON)


async def test_coverage_edited_by_hand_is_begun_anew(home: Home) -> None:
    """A coverage document that cannot be read counts as missing and is written again."""
    await home.database.coverage.insert_one({"_id": "m|max", "covered": "all of it"})
    assert await home.store.coverage() == []

    written = await home.store.merge("m", "max", lambda found: _one(found, 3))

    assert await home.store.coverage() == [written]


# --- the writer on a real server -----------------------------------------------------------------


async def test_batches_arrive_and_are_settled(home: Home) -> None:
    """Rows and facts are stored, the ledger is loaded, and a second delivery modifies nothing."""
    for begin in range(0, 400, 100):
        await home.append(
            *(row(n) for n in range(begin, begin + 100)), facts=(fact(begin, begin + 100),)
        )
    writer = home.begin()
    await steps(writer)
    for begin in range(0, 400, 100):
        await home.append(*(row(n) for n in range(begin, begin + 100)))
    await steps(writer)

    assert (home.spool.batches, writer.counters.written) == (0, 800)
    assert (writer.counters.modified, home.log.events) == (0, [])
    assert len(await home.read("measurements")) == 400
    [coverage] = await home.store.coverage()
    assert coverage.covered == ((fact(0, 400).begin, fact(0, 400).end),)


async def test_poison_document_of_500_by_a_validator(home: Home) -> None:
    """A document that the server refuses becomes a dead letter; the other 499 are stored."""
    rule = {"values.temperature": {"$not": {"$eq": 77.0}}}
    await home.database.create_collection("measurements", validator=rule)
    await home.append(*(row(n) for n in range(500)))
    writer = home.begin()

    await steps(writer)

    assert len(await home.read("measurements")) == 499
    [letter] = (await home.read("dead_letters")).values()
    assert letter["reason"].startswith("121:")
    assert (writer.counters.rejected, home.spool.batches) == (1, 0)


async def test_poison_document_by_a_unique_index(home: Home) -> None:
    """A duplicate key that stays one after another try is a dead letter."""
    await home.database.measurements.create_index([("values.temperature", 1)], unique=True)
    await home.append(*(row(n) for n in range(20)), row(100, temperature=7.0))
    writer = home.begin()

    await steps(writer)

    assert set(await home.read("measurements")) == {row_id(n) for n in range(20)}
    [letter] = (await home.read("dead_letters")).values()
    assert letter["reason"].startswith("11000:")


async def test_all_refused_is_held(home: Home) -> None:
    """A rule that nothing satisfies makes no dead letter; without it, all is written."""
    await home.database.create_collection("measurements", validator={"no_such": {"$exists": True}})
    await home.append(*(row(n) for n in range(30)))
    broken: list[int] = []
    writer = home.begin(on_broken=lambda: broken.append(1))
    for _ in range(7):
        assert await writer.step() == -1
    assert await home.read("dead_letters") == {}
    assert (home.spool.batches, writer.counters.state) == (1, "down")
    assert len(broken) == 7

    await home.database.command({"collMod": "measurements", "validator": {}})
    await steps(writer)

    assert len(await home.read("measurements")) == 30
    assert await home.read("dead_letters") == {}


@pytest.mark.parametrize(
    "data",
    [
        {"errorCode": 13},
        {"errorCode": 18},
        {"errorCode": 1},
        {"errorCode": 14031},
        {"errorCode": 54321},
        {"writeConcernError": {"code": 64, "errmsg": "timed out"}},
        {"closeConnection": True},
    ],
    ids=str,
)
async def test_batch_is_held_while_the_server_fails(home: Home, data: Document) -> None:
    """Rights lost, disk full, unconfirmed: nothing is settled or buried; later all is written."""
    writer = home.begin()
    await steps(writer)
    await home.append(*(row(n) for n in range(9)), facts=(fact(0, 9),))

    async with home.server.failing("update", **data):
        for _ in range(6):
            assert await writer.step() == -1
        assert home.spool.batches == 1
    await steps(writer)

    assert home.spool.batches == 0
    assert len(await home.read("measurements")) == 9
    assert await home.read("dead_letters") == {}


@pytest.mark.parametrize("restart", [False, True], ids=["while running", "while down"])
@pytest.mark.parametrize("how", ["dropped", "older copy", "another's"])
async def test_replaced_database_is_noticed(home: Home, how: str, restart: bool) -> None:
    """It gets indexes and everything that was not settled, and the ledger is what it holds."""
    replaced: list[int] = []
    writer = home.begin(on_replaced=lambda: replaced.append(1))
    await steps(writer)
    await home.append(row(0), facts=(fact(0, 1),))
    await steps(writer)
    copy = await everything(home)
    for number in (2, 4):
        await home.append(row(number), facts=(fact(number, number + 1),))
        await steps(writer)
    if how == "another's":
        copy["coverage"]["_barrier"] |= {"store_id": "another", "rev": 1000}

    await home.server.admin.drop_database(home.database.name)
    for name, documents in copy.items() if how != "dropped" else ():
        if documents:
            await home.database[name].insert_many(documents.values())
    ledger = Ledger()
    if restart:
        writer = home.begin(on_replaced=lambda: replaced.append(1), ledger=ledger)
    await home.append(row(6), facts=(fact(6, 7),))
    await steps(writer)

    kept = [] if how == "dropped" else [0]
    assert set(await home.read("measurements")) == set(map(row_id, [*kept, 6]))
    [coverage] = await home.store.coverage()
    assert coverage.covered == tuple((row(n).time, row(n + 1).time) for n in (*kept, 6))
    assert await home.store.missing_indexes() == []
    assert replaced == [1]
    if restart:
        assert ledger.find("m", "max") == coverage


# --- stores that are killed: each test has its own -----------------------------------------------


@pytest.mark.parametrize("standalone", [True, False], ids=["standalone", "replica"])
async def test_what_a_barrier_confirmed_survives_a_kill(tmp_path: Path, standalone: bool) -> None:
    """After `barrier` returned, SIGKILL costs nothing of what was written before it."""
    async with embedded_store(tmp_path, standalone=standalone) as running:
        store = Store(running.uri, "netatmo")
        for begin in range(0, 600, 200):
            await store.write(ops(*(row(n) for n in range(begin, begin + 200))))
            identity = await store.barrier()
            await running.kill()
            await running.restart()

            found = await store.rows("m", "max", NOON, row(1000).time)
            assert [each["time"] for each in found] == [row(n).time for n in range(begin + 200)]
            assert await store.identity() == identity
        await store.close()


class KilledBefore(Store):
    """Its server is killed and started again just before the first call of `merge`."""

    running: RunningStore
    killed = False

    async def merge(self, *args: Any) -> Any:
        if not self.killed:
            self.killed = True
            await self.running.kill()
            await self.running.restart()
        return await super().merge(*args)


@pytest.mark.parametrize("standalone", [True, False], ids=["standalone", "replica"])
async def test_kill_between_bulk_and_barrier_repeats_the_round(
    tmp_path: Path, standalone: bool
) -> None:
    """Whether the driver tells of the restart or hides it, the bulks are written once more."""
    spool, log = Spool(tmp_path, 1 << 28), Log()
    await spool.open()
    async with embedded_store(tmp_path, standalone=standalone) as running:
        store = KilledBefore(running.uri, "netatmo")
        store.running = running
        writer = a_writer(spool, store, log)
        await steps(writer)
        rows = [row(n) for n in range(300)]
        await spool.append(Batch("home", "getmeasure", rows, (fact(0, 300),)), {})

        await steps(writer)

        assert store.killed
        assert writer.counters.failures == 1
        assert len(await store.rows("m", "max", NOON, row(300).time)) == 300
        await store.close()
    await spool.close()


async def test_incarnation_changes_with_each_start(tmp_path: Path) -> None:
    """Two starts of a server are told apart, and one is not mistaken for two."""
    async with embedded_store(tmp_path) as running:
        store = Store(running.uri, "netatmo")
        first = await store.incarnation()
        assert first == await store.incarnation() != ""
        await running.kill()
        await running.restart()

        assert await store.incarnation() != first
        await store.close()
