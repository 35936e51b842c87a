"""Deletes what is older, or more, than the owner wants to keep.

Pictures of events by age and bytes; live rows, dead letters and raw answers by age alone. By ranges
of time, on every server: no TTL index. "Now" is the cloud's time of its last windowed answer, not
this machine's: a clock that is wrong by years deletes nothing. Events keep the hash of a picture
that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

from netatmo_ingestd.errors import ConfigError, StoreUnavailable
from netatmo_ingestd.events.walks import FIRST
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.models import Interval
from netatmo_ingestd.records import Document
from netatmo_ingestd.settings import RetentionSettings
from netatmo_ingestd.waits import is_set

PICTURES = "pictures"
DAY = timedelta(days=1)
EVERY_S = 3600.0  # real time
AHEAD = timedelta(days=3)  # no picture is newer than now by more
HOUR = timedelta(hours=1)
RECENT = timedelta(days=30)  # below the limit there is hardly ever more: then in small ranges
COUNTED_AGAIN = timedelta(days=2)  # how far back pictures come in the ordinary course


class Shelf(Protocol):
    """What `mongo.Store` offers; both raise StoreUnavailable or ConfigError."""

    async def find(
        self, collection: str, where: Document, fields: Document, /
    ) -> list[Document]: ...
    async def delete(
        self, collection: str, begin: datetime, end: datetime, where: Document | None = None, /
    ) -> int: ...


class Retention:
    """Keeps each collection within its limits."""

    def __init__(
        self, *, shelf: Shelf, ledger: Ledger, settings: RetentionSettings, log: Any
    ) -> None:
        self.failed = ""
        self._shelf = shelf
        self._ledger = ledger
        self._settings = settings
        self._log = log
        self._bytes: dict[datetime, int] = {}
        self._counted: datetime | None = None
        self._swept: datetime | None = None

    async def run(self, stop: asyncio.Event, every_s: float = EVERY_S) -> None:
        """Until `stop`; while the store is away, nothing is deleted."""
        while not stop.is_set():
            try:
                await self.step()
                self.failed = ""
            except (StoreUnavailable, ConfigError) as error:
                self.failed = str(error)  # the writer tells of a store that is away
            await is_set(stop, every_s)

    async def step(self) -> int:
        """Delete what is too old or too much; how many documents that were."""
        now = self._now()
        if now is None:
            return 0
        gone = await self._pictures(now)
        if self._swept is None or now - self._swept >= DAY:
            gone += await self._by_age(now)
            self._swept = now
        return gone

    def _now(self) -> datetime | None:
        """The cloud's time of its last windowed answer, about."""
        return max((each.asked for each in self._ledger.all() if each.asked), default=None)

    async def _by_age(self, now: datetime) -> int:
        """Live rows of each module, dead letters, and raw answers with what was set aside."""
        live = now - self._settings.live_days * DAY
        letters = now - self._settings.dead_letters_days * DAY
        rows = 0
        for module in await self._shelf.find("modules", {}, {"_id": 1}):
            where = {"module_id": module["_id"], "scale": "live"}
            rows += await self._shelf.delete("measurements", FIRST, live, where)
        self._tell("measurements", rows, live)
        for collection in ("dead_letters", "answers"):
            count = await self._shelf.delete(collection, FIRST, letters)
            self._tell(collection, count, letters)
            rows += count
        return rows

    async def _pictures(self, now: datetime) -> int:
        oldest = max(FIRST, now - self._settings.pictures_days * DAY)
        gone = 0
        for begin, end in _below(oldest):
            gone += await self._shelf.delete(PICTURES, begin, end)
        until = oldest
        await self._count(oldest, now + AHEAD)
        total = sum(self._bytes.values())
        for hour in sorted(self._bytes):
            if total <= self._settings.pictures_bytes:
                break
            gone += await self._shelf.delete(PICTURES, hour, hour + HOUR)
            total -= self._bytes.pop(hour)
            until = hour + HOUR
        self._tell(PICTURES, gone, until)
        return gone

    def _tell(self, collection: str, count: int, until: datetime) -> None:
        if count:
            self._log.info(
                "retention.deleted", collection=collection, count=count, until=until.isoformat()
            )

    async def _count(self, begin: datetime, end: datetime) -> None:
        """Bytes by hour: all of them the first time and once a day, then what is recent."""
        whole = self._counted is None or end - self._counted >= DAY
        first = begin if whole else max(begin, end - AHEAD - COUNTED_AGAIN)
        first = first.replace(minute=0, second=0)
        self._bytes = {hour: size for hour, size in self._bytes.items() if begin <= hour < first}
        for span_begin, span_end in _spans(first, end, timedelta(days=1)):
            where = {"time": {"$gte": span_begin, "$lt": span_end}}
            for picture in await self._shelf.find(PICTURES, where, {"time": 1, "size": 1}):
                hour = picture["time"].replace(minute=0, second=0)
                self._bytes[hour] = self._bytes.get(hour, 0) + int(picture.get("size", 0))
        if whole:
            self._counted = end


def _below(oldest: datetime) -> Iterator[Interval]:
    """All that lies before `oldest`, the recent part by days."""
    if oldest > FIRST:
        recent = max(FIRST, oldest - RECENT)
        yield from _spans(recent, oldest, timedelta(days=1))
        if recent > FIRST:
            yield FIRST, recent


def _spans(begin: datetime, end: datetime, width: timedelta) -> Iterator[Interval]:
    while begin < end:
        yield begin, min(begin + width, end)
        begin += width
