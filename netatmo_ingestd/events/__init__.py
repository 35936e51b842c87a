"""Reads the events of each home, walking page by page from the newest back.

Two walk there. `poll`, at a fixed cadence, reads from the newest event down to what is covered;
`run` what is missing further back, with the requests that polling leaves over.

A page goes to the spool when each of its pictures is there or known to be lost, and its fact goes
with it; the next page is asked after that. So whatever ends the daemon, the same page is asked
again, and comes with fresh addresses. Which page is next is worked out in `walks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.events.gallery import ON_CAMERA, Gallery, Hung
from netatmo_ingestd.events.walks import (
    EVOLVES,
    FIRST,
    Known,
    Page,
    Place,
    Reach,
    Seen,
    Walk,
    has_holes,
)
from netatmo_ingestd.intervals import join
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.models import Entity, Event, Fact, Interval, Priority, whole_seconds
from netatmo_ingestd.polls import Endpoint, Parsed, PictureWant, Poll, Reply
from netatmo_ingestd.settings import HistorySettings
from netatmo_ingestd.sources.events import GETEVENTS, PAGE_EVENTS
from netatmo_ingestd.spool import LastKey
from netatmo_ingestd.waits import beside, first

SCALE = "events"
"""Of a home's document in the ledger, and the pseudo endpoint of its row in `last`."""
OLDER = replace(GETEVENTS, priority=Priority.HISTORY)
PAGES = 10  # of one poll: other polls wait for it
LOOK_S = 60.0  # of the daemon's clock; how often one who has nothing to do looks again
LEAST_LOOK_S = 0.25  # real
RESTS = timedelta(minutes=10)  # between two walks far back, should one end before the beginning
DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_NOTHING = Hung({}, {}, whole=True)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A page that is on the spool; `whole`: none of its pictures is still to be fetched."""

    page: Page
    whole: bool
    last: Mapping[LastKey, Mapping[str, Any] | None]


class EventWalker:
    """Reads the events of the homes of all accounts; `gallery` None: without pictures."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, AccountPolls],
        ledger: Ledger,
        gallery: Gallery | None,
        settings: HistorySettings,
        clock: Clock,
    ) -> None:
        self.gallery = gallery
        self._accounts = dict(accounts)
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._rested: dict[str, datetime] = {}

    def load(self, rows: Mapping[LastKey, Mapping[str, Any]]) -> None:
        """Take what is in the table `last`."""
        self.forget()
        if self.gallery:
            self.gallery.load(rows)
        for (endpoint, home_id), row in rows.items():
            if endpoint == SCALE:
                try:
                    cursors = tuple((upper, cursor) for upper, cursor in row["cursors"])
                    self._known[home_id] = Known(cursors, dict(row["recording"]))
                except (KeyError, TypeError, ValueError):
                    continue  # written by another version: it is learned again

    def forget(self) -> None:
        """The store was replaced: what was read may not be in it."""
        self._known.clear()
        self._rested.clear()
        if self.gallery:
            self.gallery.forget()

    async def poll(self, account: AccountPolls, home: Entity, every: timedelta) -> None:
        """Read from the newest event down to what is covered, some pages at most.

        every   how often a home is asked
        Raises  SpoolError when the spool is damaged
        """
        reach = Reach.EDGE if self._ledger.loaded else Reach.FRESH
        await self._walk(account, home, self._new_walk(home, reach), GETEVENTS, every, PAGES)

    async def run(
        self, stop: asyncio.Event, grace_s: float = 10.0, hurry: asyncio.Event | None = None
    ) -> None:
        """Until `stop`; a call in flight has `grace_s` real seconds to end, none when hurried."""
        walks = (self._fill(account, stop) for account in self._accounts.values())
        await beside(walks, stop, grace_s, hurry)

    async def _fill(self, account: AccountPolls, stop: asyncio.Event) -> None:
        while not stop.is_set():
            home = self._to_fill(account)
            if home is None:
                seconds = max(LEAST_LOOK_S, self._clock.real_seconds(LOOK_S))
                await first(stop.wait(), limit=seconds)
                continue
            # Whatever comes of it, others have their turn before it is this one's again.
            self._rested[home.entity_id] = self._clock.now() + RESTS
            await self._walk(account, home, self._new_walk(home, Reach.WHOLE), OLDER, DAY, None)

    def _to_fill(self, account: AccountPolls) -> Entity | None:
        """A home that was polled and of whose events something older is missing."""
        if not self._ledger.loaded:
            return None
        now = self._clock.now()
        for home_id, home in account.intake.homes(account.name, GETEVENTS).items():
            covered = self._covered(home)
            if (
                covered
                and has_holes(covered, self._floor(covered, now))
                and self._rested.get(home_id, now) <= now
                and not self._ledger.owned_by_other(home_id, SCALE, account.name, now)
            ):
                return home
        return None

    def _new_walk(self, home: Entity, reach: Reach) -> Walk:
        covered = self._covered(home)
        known = self._known.setdefault(home.entity_id, Known())
        return Walk(covered, known, reach, self._floor(covered, self._clock.now()))

    def _covered(self, home: Entity) -> tuple[Interval, ...]:
        """What need not be read: it is in the store, or the owner deleted it."""
        coverage = self._ledger.find(home.entity_id, SCALE)
        return join((*coverage.covered, *coverage.forgotten)) if coverage else ()

    async def _walk(
        self,
        account: AccountPolls,
        home: Entity,
        walk: Walk,
        endpoint: Endpoint,
        every: timedelta,
        most: int | None,
    ) -> None:
        """Page by page, until it is over, or something keeps a page from the spool."""
        now, count = self._clock.now(), 0
        if self._ledger.owned_by_other(home.entity_id, SCALE, account.name, now):
            return
        while walk.place is not None and count != most:
            if self.gallery and not account.room.takes_pictures:
                return  # nothing is lost: the next walk asks for the same page
            count += 1
            answered = await self._ask(account, home, walk, endpoint, every)
            if answered is None:
                return
            events, asked = answered.page.events, answered.page.asked
            if not answered.whole and (not events or asked - events[0].time > DAY):
                return  # what is old waits for its pictures; what is fresh is read on

    def _floor(self, covered: Sequence[Interval], now: datetime) -> datetime:
        """From when on events are wanted, as [history] since says."""
        since = self._settings.since
        if since == "never":
            return covered[0][0] if covered else whole_seconds(now)
        if isinstance(since, date):
            return max(FIRST, datetime.combine(since, time(), UTC))
        return FIRST

    async def _ask(
        self,
        account: AccountPolls,
        home: Entity,
        walk: Walk,
        endpoint: Endpoint,
        every: timedelta,
    ) -> _Answered | None:
        """One page, on the spool; None when nothing came of it."""
        if walk.place is None:
            raise AssertionError("the walk is over")
        found: list[_Answered] = []

        async def through(reply: Reply, parsed: Parsed) -> Parsed:
            answered, completed = await self._complete(account, home, walk, reply, parsed)
            found.append(answered)
            return completed

        poll = page_poll(account.name, home, walk.place, endpoint)
        if await account.ask(poll, every, through) is None:
            return None
        (answered,) = found
        if self.gallery:
            self.gallery.noted(answered.last)
        return answered

    async def _complete(
        self, account: AccountPolls, home: Entity, walk: Walk, reply: Reply, parsed: Parsed
    ) -> tuple[_Answered, Parsed]:
        """The answer with its pictures dealt with, its fact, and what is to be remembered."""
        events = [each for each in parsed.records if isinstance(each, Event)]
        asked = whole_seconds(reply.time_server)
        page = Page(
            tuple(Seen(e.event_id, e.time, e.video_status == "recording") for e in events),
            asked,
            garbled=not events and any(not each.drift for each in parsed.problems),
        )
        forgotten = self._ledger.forgotten(home.entity_id, SCALE)
        events = [
            each
            for each in events
            if account.intake.wants_event(account.name, each)
            and not any(begin <= each.time < end for begin, end in forgotten)
        ]
        hung = _NOTHING
        if self.gallery:
            hung = await self.gallery.hang(events, parsed.pictures, self._covered(home), asked)
        walk.covered = self._covered(home)  # the other walk may have come on meanwhile
        before = _as_row(walk.known)
        window = walk.took(page, whole=hung.whole)
        last, row = dict(hung.last), _as_row(walk.known)
        if row != before:
            last[SCALE, home.entity_id] = row
        known = account.intake.entities(account.name)
        completed = replace(
            parsed,
            records=[_completed(each, hung, parsed.pictures, known) for each in events],
            facts=[page_fact(account.name, home.entity_id, page, window)] if window else (),
            last=last,
        )
        return _Answered(page, hung.whole, last), completed


def page_poll(account: str, home: Entity, place: Place, endpoint: Endpoint = GETEVENTS) -> Poll:
    params = {"home_id": home.entity_id, "size": str(PAGE_EVENTS)}
    if place.cursor:
        params["event_id"] = place.cursor
    return Poll(endpoint, account, params, home)


def page_fact(account: str, home_id: str, page: Page, window: Interval) -> Fact:
    """What a page establishes: its window is covered for good, silence in it included."""
    begin, end = window
    filled: tuple[Interval, ...] = (window,)
    if begin == FIRST:
        # The time before a home's first event is empty; where none was ever seen, all is silence.
        first = page.events[-1].time if page.events else end - _SECOND
        seen = page.events or end < page.asked - EVOLVES
        filled = ((min(first, end - _SECOND), end),) if seen else ()
    return Fact(
        entity_id=home_id,
        scale=SCALE,
        types=(),
        begin=begin,
        end=end,
        rows=len(page.events),
        newest=page.events[0].time if page.events else None,
        account=account,
        asked=page.asked,
        filled=filled,
    )


def _completed(
    event: Event, hung: Hung, wants: Sequence[PictureWant], known: Mapping[str, Entity]
) -> Event:
    """The event with its person's name, and what became of its pictures if they are wanted."""
    person = known.get(event.person_id or "")
    name = person.description.get("name") if person else None
    shown = hung.shown.get(event.event_id)
    if shown is None:
        return replace(event, person_name=name)
    lost = dict(shown.lost)
    for want in wants:
        if want.event_id == event.event_id and not want.url and want.slot not in shown.stored:
            lost[want.slot] = ON_CAMERA
    return replace(
        event,
        person_name=name,
        pictures=sorted(set(shown.stored.values())),
        pictures_lost=[{"slot": slot, "reason": reason} for slot, reason in sorted(lost.items())],
    )


def _as_row(known: Known) -> dict[str, Any]:
    """As pairs: an event may have any id."""
    return {
        "cursors": [list(each) for each in known.cursors],
        "recording": [list(each) for each in known.recording.items()],
    }
