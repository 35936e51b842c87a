"""A walk through a home's events: which page comes next, and what each page establishes. Pure.

The cloud shows events newest first, some at a time, and older ones than an event that is named. So
a walk begins at the top and goes down until it stands in an interval that is covered already; it
then goes on below that interval, should anything be missing there, and ends at the beginning: a
page without anything new. Each page is a fact by itself, so a walk that is interrupted leaves a
hole between what it reached and what was covered before, and the next one goes through to it.

    upper    moment below which a page lies: the second of the event it was asked with, included
    cursor   (upper, event id) of a page that was asked and stored. It is kept across walks and
             restarts, and saves paging through what is covered: the lowest of an interval is asked
             again. That shows whether the cloud still knows the event; if it does not, the walk
             pages through from where it stood.
    settled  events of the last hour may still come late or change: no fact reaches there, so each
             walk reads them again, also after an interruption
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from netatmo_ingestd.intervals import add
from netatmo_ingestd.models import Interval

FIRST = datetime(2000, 1, 1, tzinfo=UTC)
"""Before the first event that is taken for one (sources/reading.py)."""
EVOLVES = timedelta(hours=1)
RECORDS = timedelta(days=1)
"""For how long an event whose video is being recorded is read again."""
_SECOND = timedelta(seconds=1)

Cursor = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as the walk sees it."""

    event_id: str
    time: datetime
    recording: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer showed: events newest first, and when (time of the cloud).

    garbled  it had entries, and not one of them could be read
    """

    events: tuple[Seen, ...]
    asked: datetime
    garbled: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A page to ask for.

    upper   None: the first page
    cursor  event to name, "" for the first page
    back    where to go on should the cloud not know the event any more; None: it was shown just now
    shared  the page above stands for the second of the event as well; not if it has no fact
    """

    upper: datetime | None = None
    cursor: str = ""
    back: Place | None = None
    shared: bool = True

    def top(self, asked: datetime) -> datetime:
        """Up to where its page may establish something."""
        settled = asked - EVOLVES
        if self.upper is None:
            return settled
        return min(self.upper if self.shared else self.upper - _SECOND, settled)


class Reach(Enum):
    """How far a walk goes."""

    FRESH = "what may still change, while nothing is known of what is covered"
    EDGE = "to the newest interval that is covered"
    WHOLE = "to the beginning, into each hole"


@dataclass
class Known:
    """What walks of a home remember of each other.

    cursors    at most one of each covered interval
    recording  when the events began, by id, whose video was still being recorded
    """

    cursors: tuple[Cursor, ...] = ()
    recording: dict[str, datetime] = field(default_factory=dict)


@dataclass
class Walk:
    """One walk, from the top; over when `place` is None.

    covered  the ledger's intervals; set it anew should another walk be under way
    floor    no older events are wanted
    """

    covered: tuple[Interval, ...]
    known: Known = field(default_factory=Known)
    reach: Reach = Reach.WHOLE
    floor: datetime = FIRST
    place: Place | None = field(default_factory=Place)
    _ids: set[str] = field(default_factory=set)

    def took(self, page: Page, *, whole: bool) -> Interval | None:
        """Go on to the next place; what `page`, the answer for this one, establishes.

        whole  False when it is to be read again, for a picture that may still be had: nothing
        """
        place, leads_on, cursors = self._place(), self._leads_on(page), self.known.cursors
        window = self._window(page, leads_on=leads_on) if whole else None
        self._ids |= {each.event_id for each in page.events}
        self._note_recording(page)
        if window:
            self.covered = add(self.covered, *window)
        if leads_on:
            if place.upper:
                cursors = (*cursors, (place.upper, place.cursor))
            self.known.cursors = _lowest(cursors, self.covered)
            # A second that goes on over several pages has its fact when all of them have theirs.
            same = place.upper == page.events[-1].time + _SECOND
            shared = whole and (place.shared or not same)
            self.place = self._below(page.events[-1], page.asked, shared=shared)
        else:
            if place.back:
                cursors = tuple(each for each in cursors if each[1] != place.cursor)
            self.known.cursors = _lowest(cursors, self.covered)
            self.place = place.back
        return window

    def _window(self, page: Page, *, leads_on: bool) -> Interval | None:
        top = self._place().top(page.asked)
        if leads_on:
            low = page.events[-1].time + _SECOND
        elif self._is_beginning(page):
            low = FIRST
        else:
            return None
        return (low, top) if low < top else None

    def _place(self) -> Place:
        if self.place is None:
            raise AssertionError("the walk is over")
        return self.place

    def _leads_on(self, page: Page) -> bool:
        """True when it has something new, and something older than what it was asked with."""
        upper = self._place().upper
        new = any(each.event_id not in self._ids for each in page.events)
        return new and (upper is None or page.events[-1].time < upper)

    def _is_beginning(self, page: Page) -> bool:
        """True when there is nothing older: nothing new below an event that was shown just now."""
        place = self._place()
        if page.garbled or place.back or any(e.event_id not in self._ids for e in page.events):
            return False
        # An empty first page where events were before is no beginning.
        return place.upper is not None or not self.covered

    def _note_recording(self, page: Page) -> None:
        recording = self.known.recording
        for each in page.events:
            recording.pop(each.event_id, None)
            if each.recording:
                recording[each.event_id] = each.time
        for event_id, time in list(recording.items()):
            if page.asked - time >= RECORDS:
                del recording[event_id]

    def _below(self, oldest: Seen, asked: datetime, *, shared: bool) -> Place | None:
        """The place below `oldest`; below the interval that it stands in, if that is known."""
        low = oldest.time + _SECOND
        below = Place(low, oldest.event_id, shared=shared)
        if low <= self.floor:
            return None
        if self.reach is Reach.FRESH:
            return below if low > asked - EVOLVES else None
        begin = next((begin for begin, end in self.covered if begin < low <= end), None)
        if begin is None or low > min(self.known.recording.values(), default=low):
            return below
        if begin <= self.floor or self.reach is Reach.EDGE:
            return None
        cursors = [each for each in self.known.cursors if begin < each[0] < low]
        return Place(*min(cursors), back=below) if cursors else below


def has_holes(covered: Sequence[Interval], floor: datetime) -> bool:
    """True when something is missing between `floor` and the newest that is covered."""
    return len(covered) != 1 or covered[0][0] > floor


def _lowest(cursors: Sequence[Cursor], covered: Sequence[Interval]) -> tuple[Cursor, ...]:
    """Of the cursors inside each interval the lowest one: the others save no call."""
    inside = ([each for each in cursors if begin < each[0] <= end] for begin, end in covered)
    return tuple(min(each) for each in inside if each)
