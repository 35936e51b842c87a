"""What is older, or more, than wanted is deleted; nothing else is, whatever the clock says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netatmo_ingestd.errors import ConfigError, StoreUnavailable
from netatmo_ingestd.events import SCALE
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.logs import EVENTS
from netatmo_ingestd.models import Coverage
from netatmo_ingestd.retention import Retention
from netatmo_ingestd.settings import RetentionSettings
from tests.stores import until

NOW = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MIB = 1 << 20


@dataclass
class Shelf:
    """A store of pictures: time and size of each; of other documents the time."""

    pictures: list[tuple[datetime, int]] = field(default_factory=list)
    others: dict[str, list[datetime]] = field(default_factory=dict)
    down: Exception | None = None
    read: list[tuple[datetime, datetime]] = field(default_factory=list)
    deleted: list[tuple[datetime, datetime]] = field(default_factory=list)

    async def find(self, collection: str, where: Any, fields: Any, /) -> list[dict[str, Any]]:
        if self.down:
            raise self.down
        if collection == "modules":
            return [{"_id": "meter"}, {"_id": "room"}]
        assert (collection, fields) == ("pictures", {"time": 1, "size": 1})
        begin, end = where["time"]["$gte"], where["time"]["$lt"]
        self.read.append((begin, end))
        return [{"time": at, "size": size} for at, size in self.pictures if begin <= at < end]

    async def delete(
        self, collection: str, begin: datetime, end: datetime, where: Any = None, /
    ) -> int:
        if self.down:
            raise self.down
        if collection != "pictures":
            key = f"{collection} {where['module_id']}" if where else collection
            assert where is None or where == {"module_id": where["module_id"], "scale": "live"}
            there = self.others.get(key, [])
            self.others[key] = [each for each in there if not begin <= each < end]
            return len(there) - len(self.others[key])
        self.deleted.append((begin, end))
        before = len(self.pictures)
        self.pictures = [each for each in self.pictures if not begin <= each[0] < end]
        return before - len(self.pictures)

    @property
    def left(self) -> list[int]:
        """Age in hours of what is there, the oldest first."""
        return sorted(((NOW - at) // HOUR for at, _ in self.pictures), reverse=True)


@dataclass
class Log:
    events: list[dict[str, Any]] = field(default_factory=list)

    def info(self, event: str, **fields: Any) -> None:
        assert event in EVENTS
        self.events.append(fields)


class Keeper:
    def __init__(self, *ages: timedelta, size: int = MIB, asked: datetime | None = NOW) -> None:
        self.shelf = Shelf([(NOW - age, size) for age in ages])
        self.log = Log()
        self.ledger = Ledger()
        self.ask(asked)
        self.retention = Retention(
            shelf=self.shelf,
            ledger=self.ledger,
            settings=RetentionSettings(pictures_days=90, pictures_bytes=10 * MIB),
            log=self.log,
        )

    def ask(self, asked: datetime | None) -> None:
        if asked:
            home = Coverage("home", SCALE, (), (), None, "home", asked, asked=asked)
            self.ledger.absorb([home])


async def test_what_is_old_goes() -> None:
    """Pictures of more than 90 days go, however old; those of fewer stay."""
    keeper = Keeper(2000 * DAY, 121 * DAY, 91 * DAY, 90 * DAY + HOUR, 89 * DAY, HOUR)

    assert await keeper.retention.step() == 4

    assert keeper.shelf.left == [89 * 24, 1]
    assert keeper.log.events == [
        {"collection": "pictures", "count": 4, "until": (NOW - 90 * DAY).isoformat()}
    ]
    assert await keeper.retention.step() == 0
    assert len(keeper.log.events) == 1


async def test_live_rows_dead_letters_and_raw_answers_go_by_age() -> None:
    """Each by its own limit, of every module, looked at once a day."""
    keeper = Keeper()
    ages = [NOW - days * DAY for days in (401, 399, 91, 89)]
    keys = ("measurements meter", "measurements room", "dead_letters", "answers")
    keeper.shelf.others = {key: list(ages) for key in keys}

    assert await keeper.retention.step() == 2 + 3 + 3

    assert [len(keeper.shelf.others[key]) for key in keys] == [3, 3, 1, 1]
    assert [(each["collection"], each["count"]) for each in keeper.log.events] == [
        ("measurements", 2), ("dead_letters", 3), ("answers", 3)
    ]  # fmt: skip
    keeper.ask(NOW + 12 * HOUR)
    assert await keeper.retention.step() == 0
    keeper.ask(NOW + 2 * DAY)
    assert await keeper.retention.step() == 4


async def test_what_is_too_much_goes_from_the_oldest() -> None:
    """By hours, until the rest fits."""
    keeper = Keeper(*(hours * HOUR for hours in range(14)))

    assert await keeper.retention.step() == 4

    assert keeper.shelf.left == list(range(9, -1, -1))
    assert await keeper.retention.step() == 0


async def test_new_pictures_count_at_once() -> None:
    """What was stored since, of the last days, is counted each time; the rest once a day."""
    keeper = Keeper(*(hours * HOUR for hours in range(10)))
    await keeper.retention.step()
    keeper.shelf.read.clear()
    keeper.shelf.pictures += [(NOW + HOUR, MIB), (NOW + 2 * HOUR, MIB)]
    keeper.ask(NOW + 2 * HOUR)

    assert await keeper.retention.step() == 2

    assert keeper.shelf.left == [*range(7, -1, -1), -1, -2]
    assert len(keeper.shelf.read) <= 7
    keeper.shelf.pictures.append((NOW - 60 * DAY, 2 * MIB))
    assert await keeper.retention.step() == 0
    keeper.ask(NOW + 27 * HOUR)
    assert await keeper.retention.step() >= 1
    assert 60 * 24 not in keeper.shelf.left


async def test_nothing_is_known_nothing_is_deleted() -> None:
    """Without an answer about events there is no "now"."""
    keeper = Keeper(500 * DAY, asked=None)

    assert await keeper.retention.step() == 0

    assert (keeper.shelf.deleted, keeper.shelf.read) == ([], [])


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away", reason="down"), ConfigError("no right to delete")]
)
async def test_a_store_that_is_away_ends_nothing(error: Exception) -> None:
    """It is tried again; what failed can be read."""
    keeper, stop = Keeper(91 * DAY), asyncio.Event()
    keeper.shelf.down = error
    task = asyncio.create_task(keeper.retention.run(stop, 0.01))

    await until(lambda: keeper.retention.failed == str(error))
    keeper.shelf.down = None
    await until(lambda: keeper.shelf.pictures == [])
    stop.set()
    await task

    assert keeper.retention.failed == ""
