"""The store goes away, comes back, comes back empty, or was never there: everything arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pymongo
import pytest

from tests.faults.house import FIRST_REACH_S, House, invariant, opened, tell, until
from tests.stores import RunningStore, embedded_store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

DAY = 86_400.0
FEW = {"include": ["Garden", "Roof wind", "Rain"]}


def drop_database(store: RunningStore, name: str = "netatmo") -> None:
    """As somebody with a shell would."""
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(
        store.uri, serverSelectionTimeoutMS=5000
    )
    client.drop_database(name)
    client.close()


async def test_down_for_a_day(tmp_path: Path) -> None:
    """While the store is down for a day polling goes on; all of it arrives when it is back."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(tmp_path, speed=3000, uri=store.uri, account=FEW) as house:
            house.start()
            house.mark()
            await store.stop()
            _store_is_down(house)
            began, calls, waiting = house.now, house.cloud.calls(), []

            while house.now < began + DAY:
                await asyncio.sleep(2.0)
                waiting.append(house.status()["spool"]["records"])
            polled = house.cloud.calls() - calls
            days = (house.now - began) / DAY
            await store.restart()

            compared = invariant(house, within=120)
            counts = house.counted()
            assert house.stop() == 0
            left = house.status()["spool"]["batches"]
    tell(f"{polled} calls in {days:.2f} days; spool {waiting}; {compared.expected} rows; {counts}")
    assert polled >= 0.8 * days * 24 * (6 + 3 * 2)
    assert waiting == sorted(waiting)
    assert waiting[-1] > waiting[0]
    assert counts["store.down"] >= 1
    assert counts["store.up"] == 1
    assert left == 0


async def test_absent_at_start(tmp_path: Path) -> None:
    """Without a store the daemon starts, polls and spools; it drains once there is one."""
    async with embedded_store(tmp_path / "mongod") as store:
        await store.stop()
        with opened(tmp_path, speed=1000, days=2, uri=store.uri) as house:
            house.start()
            until(
                lambda: house.status().get("spool", {}).get("records", 0) > 1000,
                within=30,
                what="the rows of the first reads wait on the spool",
                house=house,
            )
            first_reads = house.now
            _store_is_down(house)
            assert not house.coverage()
            await store.restart()

            until(
                lambda: house.events("store.up"), within=30, what="the store is used", house=house
            )
            house.settle()
            house.since = first_reads - FIRST_REACH_S
            invariant(house)


async def test_database_dropped_while_the_daemon_runs(tmp_path: Path) -> None:
    """A dropped database is noticed, and what the trailing reads still reach is there again."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(tmp_path, speed=1000, days=4, uri=store.uri, account=FEW) as house:
            house.start()
            house.mark()
            for round_ in range(1, 4):
                _let_writer_rest(house)
                drop_database(store)
                house.cloud.disarm()
                until(
                    lambda: len(house.events("store.replaced")) >= round_,  # noqa: B023
                    within=30,
                    what=f"the dropped database is noticed for the time no. {round_}",
                    house=house,
                )
                house.mark()
                compared = invariant(house)
                assert compared.stored > 2500

            with house.database() as database:
                indexes = set(database["measurements"].index_information())
                assert database["modules"].count_documents({}) == 3
            assert len(indexes) == 3, indexes
            # The daemon that comes next knows it for the database it left.
            assert house.stop() == 0
            house.start()
            invariant(house)
            assert len(house.events("store.replaced")) == 3


async def test_database_dropped_while_the_daemon_is_down(tmp_path: Path) -> None:
    """A database that was emptied between two runs is noticed at the start and filled again."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(tmp_path, speed=1000, days=4, uri=store.uri, account=FEW) as house:
            house.start()
            house.mark()
            assert house.stop() == 0
            drop_database(store)

            house.start()

            until(lambda: house.events("store.replaced"), within=30, what="noticed", house=house)
            house.mark()
            assert invariant(house).stored > 2500


async def test_restarted_under_load(tmp_path: Path) -> None:
    """Six restarts, three of them by SIGKILL, in the middle of writing lose and double nothing."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(tmp_path, speed=2000, uri=store.uri) as house:
            house.start()
            house.mark()
            for number in range(6):
                await asyncio.sleep(0.5)
                if number % 2:
                    await store.kill()
                await store.restart()
            compared = invariant(house)
            tell(f"{compared.expected} rows; {house.counted()}")
            assert "store.replaced" not in house.counted()


async def test_small_spool_fills_up(tmp_path: Path) -> None:
    """A full spool stops the calls and drops nothing; they go on by themselves with the store."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(
            tmp_path, speed=2000, days=1, uri=store.uri, spool={"max_bytes": 1 << 20}
        ) as house:
            house.start()
            house.mark()
            await store.stop()

            until(lambda: house.events("spool.full"), within=60, what="it is full", house=house)
            calls, moment = house.cloud.calls(), house.now
            await asyncio.sleep(6.0)
            polled, hours = house.cloud.calls() - calls, (house.now - moment) / 3600
            until(
                lambda: house.status()["spool"]["polling_paused"],
                within=15,
                what="the status says that polling pauses",
                house=house,
            )
            report = house.status()
            tell(f"{polled} calls in {hours:.1f} hours of a full spool; {report['spool']}")
            assert report["spool"]["fill"] > 0.9
            assert not report["healthy"]
            assert polled <= 1
            await store.restart()

            until(lambda: house.events("spool.room"), within=60, what="room again", house=house)
            compared = invariant(house)
            tell(f"{compared.expected} rows; {house.counted()}")
            # While it drains, a read as long as the pause may fill it once more, not each poll.
            assert len(house.events("spool.full")) <= 6
            _paused_no_more(house)


def _let_writer_rest(house: House) -> None:
    """Nothing is written any more. The embedded store keeps a row that is written while its
    database is dropped, and later has that `_id` twice: its own defect, none of the daemon's.
    """
    house.cloud.arm("http", status=503)
    revisions: list[int] = []

    def rests() -> bool:
        with house.database() as database:
            revisions.append(database["coverage"].find_one({"_id": "_barrier"})["rev"])
        return len(revisions) > 8 and len(set(revisions[-8:])) == 1

    until(rests, within=30, what="the writer rests", house=house, every=0.15)


def _store_is_down(house: House) -> None:
    until(
        lambda: house.status()["store"]["state"] == "down",
        within=30,
        what="the status says that the store is down",
        house=house,
    )


def _paused_no_more(house: House) -> None:
    until(
        lambda: house.status()["spool"]["polling_paused"] in (False, ""),
        within=10,
        what="the status says that polling goes on",
        house=house,
    )
