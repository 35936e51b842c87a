"""The pictures of events: which of a page are fetched, and what is remembered of them.

A picture goes to the spool as a batch of its own, together with a row of the table `last` that says
so: when its page is asked again, it is not fetched again. One that cannot be had is lost, with the
reason; one that may be had later is tried again when its event is read again, with the fresh
address that comes with it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.account import Room
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import SpoolError
from netatmo_ingestd.events.pictures import Image, Pictures
from netatmo_ingestd.models import Batch, Event, Interval, Picture
from netatmo_ingestd.polls import PictureWant
from netatmo_ingestd.sources.events import GETEVENTS
from netatmo_ingestd.spool import LastKey, Spool

SHOWN = "pictures"
"""The pseudo endpoint in `last` of an event's pictures."""
DAY = timedelta(days=1)
REMEMBERED = 2 * DAY  # how long it is known of an event which of its pictures were fetched
TRIED_FOR = DAY  # a picture that cannot be fetched for so long is lost
FRESH_S = 60.0  # of the daemon's clock; an older address may be refused for its age alone
GIVE_UP_AFTER = 8  # pictures of a page that cannot be fetched: their host is away
AWAY_AFTER = 4  # of them, and not one that could be: nothing is tried for a while
AWAY_S = 120.0  # of the daemon's clock; a host that hangs would hold up the polls behind
ON_CAMERA = "only on the camera"
SWAPPED = timedelta(hours=1)
"""How far apart two events may be that the cloud shows in the wrong order: the newer one then comes
on the page below, although its time is covered by the page above."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of an event's pictures, by slot.

    told     when this changed last
    stored   sha256 of each that is on the spool, or further
    lost     why it could not be had
    failing  since when it cannot be fetched, which is tried again
    """

    home_id: str
    told: datetime
    stored: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    failing: Mapping[str, datetime] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """As pairs: a slot has the name of a sub-event, which may be any."""
        slots = {name: list(getattr(self, name).items()) for name in ("stored", "lost", "failing")}
        return {"home_id": self.home_id, "told": self.told, **slots}


def from_row(row: Mapping[str, Any]) -> Shown:
    slots = {name: dict(row[name]) for name in ("stored", "lost", "failing")}
    return Shown(row["home_id"], row["told"], **slots)


@dataclass
class Counters:
    """Pictures since the start; read by status."""

    stored: int = 0
    lost: int = 0
    failing: str = ""


@dataclass(frozen=True)
class Hung:
    """What `hang` made of a page.

    shown  by event; an event whose pictures are not looked at is not among them
    last   rows of the table `last` that go with the page
    whole  each picture is on the spool or lost
    """

    shown: Mapping[str, Shown]
    last: Mapping[LastKey, Mapping[str, Any] | None]
    whole: bool


class Gallery:
    """Fetches the pictures of events; `kept`: of older events none is fetched."""

    def __init__(
        self,
        *,
        pictures: Pictures,
        spool: Spool,
        room: Room,
        kept: timedelta,
        clock: Clock,
        log: Any,
    ) -> None:
        self.counters = Counters()
        self._pictures = pictures
        self._spool = spool
        self._room = room
        self._kept = kept
        self._clock = clock
        self._log = log
        self._shown: dict[str, Shown] = {}
        self._away_until = 0.0

    def load(self, rows: Mapping[LastKey, Mapping[str, Any]]) -> None:
        """Take what is in the table `last`."""
        self._shown = {}
        for (endpoint, event_id), row in rows.items():
            if endpoint == SHOWN:
                try:
                    self._shown[event_id] = from_row(row)
                except (KeyError, TypeError, ValueError):
                    continue  # written by another version: it is learned again

    def forget(self) -> None:
        """The store was replaced: what was fetched may not be in it."""
        self._shown = {}

    def noted(self, last: Mapping[LastKey, Mapping[str, Any] | None]) -> None:
        """The rows of a page are on disk."""
        for (endpoint, event_id), row in last.items():
            if endpoint == SHOWN and row is None:
                self._shown.pop(event_id, None)
            elif endpoint == SHOWN and row is not None:
                self._shown[event_id] = from_row(row)

    async def hang(
        self,
        events: Sequence[Event],
        wants: Iterable[PictureWant],
        covered: Sequence[Interval],
        asked: datetime,
    ) -> Hung:
        """Fetch what is not there yet of the events of a page that was answered at `asked`.

        Those of an event that was `covered` a day ago were dealt with then.
        Raises  SpoolError when the spool is damaged
        """
        mine = {
            each.event_id: each
            for each in events
            if asked - each.time < self._kept
            and (asked - each.time <= DAY or not _is_inside(each.time, covered))
        }
        shown = {
            event_id: self._shown.get(event_id) or Shown(each.home_id, asked)
            for event_id, each in mine.items()
        }
        before, page = dict(shown), _Page(asked, self._clock.monotonic(), shown)
        todo = {
            (want.event_id, want.slot): want
            for want in wants
            if want.url and want.event_id in mine and page.is_open(want)
        }
        for event_id, known in before.items():
            for slot in known.failing:
                if (event_id, slot) not in todo:
                    page.lose(PictureWant(event_id, slot, ""), "no address any more")
        results = await asyncio.gather(
            *(self._fetch(mine[want.event_id], want, page) for want in todo.values()),
            return_exceptions=True,
        )
        for error in results:
            if isinstance(error, BaseException):
                raise error
        self._tell(page)
        self.counters.lost += sum(
            len(each.lost.keys() - before[event_id].lost.keys()) for event_id, each in shown.items()
        )
        whole = not page.paused and not any(each.failing for each in shown.values())
        return Hung(shown, self._rows(events, shown, asked, whole=whole), whole)

    async def _fetch(self, event: Event, want: PictureWant, page: _Page) -> None:
        """One picture: on the spool, lost, or put off."""
        if not self._room.takes_pictures:
            page.paused = True
            return
        if page.failures >= GIVE_UP_AFTER or self._clock.monotonic() < self._away_until:
            page.put_off(want, page.reason or self.counters.failing)
            return
        got = await self._pictures.fetch(want.url)
        if isinstance(got, Image) and len(got.content) > self._spool.max_bytes // 2:
            page.lose(want, "too large for the spool")
        elif isinstance(got, Image):
            await self._keep(event, want, got, page)
        elif got.final and not (got.expired and self._clock.monotonic() - page.began > FRESH_S):
            page.lose(want, got.reason)
        else:
            page.failures += 1
            page.put_off(want, got.reason)

    async def _keep(self, event: Event, want: PictureWant, image: Image, page: _Page) -> None:
        sha256 = hashlib.sha256(image.content).hexdigest()
        async with page.one_by_one:
            known = page.store(want, sha256)
            picture = Picture(
                account=event.account,
                sha256=sha256,
                content=image.content,
                content_type=image.content_type,
                time=event.time,
                event_id=event.event_id,
                module_id=event.module_id,
                home_id=event.home_id,
            )
            again = sha256 in page.kept
            batch = Batch(event.account, GETEVENTS.name, () if again else (picture,))
            try:
                await self._spool.append(batch, {(SHOWN, event.event_id): known.as_row()})
            except SpoolError as error:
                if not error.full:
                    raise
                page.paused = True
                return
            page.kept.add(sha256)
            page.shown[event.event_id] = self._shown[event.event_id] = known
            self.counters.stored += not again

    def _tell(self, page: _Page) -> None:
        if page.failures and not self.counters.failing:
            self._log.warning("picture.failing", reason=page.reason)
        if page.kept and not page.failures and self.counters.failing:
            self._log.info("picture.recovered")
        if page.failures or page.kept:
            self.counters.failing = page.reason if page.failures else ""
        if page.failures >= AWAY_AFTER and not page.kept:
            self._away_until = self._clock.monotonic() + AWAY_S

    def _rows(
        self, events: Sequence[Event], shown: Mapping[str, Shown], asked: datetime, *, whole: bool
    ) -> dict[LastKey, Mapping[str, Any] | None]:
        """What to remember; an old page that is whole is not read again for its pictures."""
        rows: dict[LastKey, Mapping[str, Any] | None] = {
            (SHOWN, event_id): each.as_row()
            for event_id, each in shown.items()
            if each != self._shown.get(event_id) and (each.stored or each.lost or each.failing)
        }
        homes = {each.home_id for each in events}
        old = [
            event_id
            for event_id, each in self._shown.items()
            if each.home_id in homes and asked - each.told > REMEMBERED and event_id not in shown
        ]
        if whole:
            # Not those of the oldest second: the fact ends above it, so it is not covered yet.
            oldest = events[-1].time if events else asked
            done = (each.event_id for each in events if oldest < each.time < asked - REMEMBERED)
            old += [each for each in done if each in self._shown or (SHOWN, each) in rows]
        return rows | dict.fromkeys((SHOWN, event_id) for event_id in old)


@dataclass
class _Page:
    """The pictures of one page while they are fetched."""

    asked: datetime
    began: float
    shown: dict[str, Shown]
    failures: int = 0
    reason: str = ""
    paused: bool = False
    kept: set[str] = field(default_factory=set)
    one_by_one: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_open(self, want: PictureWant) -> bool:
        known = self.shown[want.event_id]
        return want.slot not in known.stored and want.slot not in known.lost

    def store(self, want: PictureWant, sha256: str) -> Shown:
        known = self.shown[want.event_id]
        return replace(
            known,
            told=self.asked,
            stored={**known.stored, want.slot: sha256},
            failing=_without(known.failing, want.slot),
        )

    def lose(self, want: PictureWant, reason: str) -> None:
        known = self.shown[want.event_id]
        self.shown[want.event_id] = replace(
            known,
            told=self.asked,
            lost={**known.lost, want.slot: reason},
            failing=_without(known.failing, want.slot),
        )

    def put_off(self, want: PictureWant, reason: str) -> None:
        self.reason = reason
        known = self.shown[want.event_id]
        since = known.failing.get(want.slot, self.asked)
        if self.asked - since >= TRIED_FOR:
            self.lose(want, f"for a day: {reason}")
        else:
            failing = {**known.failing, want.slot: since}
            self.shown[want.event_id] = replace(known, told=self.asked, failing=failing)


def _without(slots: Mapping[str, datetime], slot: str) -> dict[str, datetime]:
    return {name: since for name, since in slots.items() if name != slot}


def _is_inside(moment: datetime, covered: Sequence[Interval]) -> bool:
    """True when a covered interval has it, and has whatever may be swapped with it."""
    return any(begin + SWAPPED <= moment < end for begin, end in covered)
