"""Walks through a home's events: nothing is covered that was not stored, whatever interrupts them.

The cloud of these tests is a list; a walk asks it page by page, as the daemon does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.events.walks import (
    EVOLVES,
    FIRST,
    Known,
    Page,
    Reach,
    Seen,
    Walk,
    has_holes,
)
from netatmo_ingestd.intervals import add
from netatmo_ingestd.models import Interval

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@dataclass
class Cloud:
    """Shows events newest first, `size` at a time.

    repeats  the end of history shows the last event again, else nothing
    forgets  an unknown event id gets the newest page, else nothing
    """

    size: int = 4
    repeats: bool = False
    forgets: bool = False
    now: datetime = NOW
    events: dict[str, Seen] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=itertools.count)

    def happens(self, ago: timedelta, *, recording: bool = False) -> str:
        name = f"e{next(self._number)}"
        self.events[name] = Seen(name, self.now - ago, recording)
        return name

    def page(self, cursor: str) -> Page:
        self.asked.append(cursor)
        # Of one second the later one first: a cloud has some order of its own.
        line = sorted(self.events.values(), key=lambda e: (e.time, int(e.event_id[1:])))[::-1]
        names = [each.event_id for each in line]
        if cursor and cursor not in names:
            return Page(tuple(line[: self.size] if self.forgets else ()), self.now)
        begin = names.index(cursor) + 1 if cursor else 0
        shown = line[begin : begin + self.size]
        if not shown and line and self.repeats:
            shown = line[-1:]
        return Page(tuple(shown), self.now)


@dataclass
class Store:
    """What is kept across walks: events, the ledger's intervals, and what walks remember.

    whole  events of pages that were complete, their pictures included
    """

    covered: tuple[Interval, ...] = ()
    known: Known = field(default_factory=Known)
    events: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)

    def walk(
        self,
        cloud: Cloud,
        reach: Reach = Reach.WHOLE,
        *,
        most: int | None = None,
        without_fact: frozenset[int] = frozenset(),
        floor: datetime = FIRST,
    ) -> list[str]:
        """Walk, at most so many pages; some of them without their fact. What was asked."""
        cloud.asked = []
        walk = Walk(self.covered, self.known, reach, floor)
        while walk.place is not None and len(cloud.asked) != most:
            assert len(cloud.asked) < 3 * len(cloud.events) + 10, "it goes on for ever"
            page = cloud.page(walk.place.cursor)
            whole = len(cloud.asked) - 1 not in without_fact
            self.events |= {each.event_id for each in page.events}
            if whole:
                self.whole |= {each.event_id for each in page.events}
            window = walk.took(page, whole=whole)
            if window:
                self.covered = add(self.covered, *window)
        return cloud.asked


def a_day(count: int = 24, *, repeats: bool = False, forgets: bool = False) -> Cloud:
    """An event each hour, the newest half an hour ago."""
    cloud = Cloud(repeats=repeats, forgets=forgets)
    for place in reversed(range(count)):
        cloud.happens(place * HOUR + 30 * MINUTE)
    return cloud


def covers(store: Store, cloud: Cloud) -> set[str]:
    return {
        each.event_id
        for each in cloud.events.values()
        if any(begin <= each.time < end for begin, end in store.covered)
    }


def test_a_first_walk_reads_everything() -> None:
    """From the newest page to the beginning; the last hour stays open."""
    cloud, store = a_day(10), Store()

    asked = store.walk(cloud)

    assert asked == ["", "e6", "e2", "e0"]
    assert store.events == set(cloud.events)
    assert store.covered == ((FIRST, NOW - EVOLVES),)


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("reach", [Reach.EDGE, Reach.WHOLE])
def test_what_is_covered_is_not_read_again(reach: Reach, repeats: bool) -> None:
    """A second walk reads one page, and so covers what has become old."""
    cloud, store = a_day(10, repeats=repeats), Store()
    store.walk(cloud)
    cloud.now += HOUR

    assert store.walk(cloud, reach) == [""]
    assert store.covered == ((FIRST, NOW),)


def test_the_last_hour_is_read_again() -> None:
    """An event that shows up late, within the hour, is found by the next walk."""
    cloud, store = a_day(10), Store()
    store.walk(cloud)
    late = cloud.happens(50 * MINUTE)
    for minute in range(4):
        cloud.happens(timedelta(minutes=minute))

    asked = store.walk(cloud)

    assert late in store.events
    assert len(asked) == 2


def test_a_home_without_events_costs_one_call() -> None:
    """Silence is answered, and asked about again; the first event is then found."""
    cloud, store = Cloud(), Store()

    assert store.walk(cloud) == [""]
    assert not has_holes(store.covered, FIRST)
    cloud.happens(2 * HOUR)
    store.covered = ()  # as the ledger has it: silence at the edge is provisional
    assert store.walk(cloud) == ["", "e0"]
    assert store.events == {"e0"}


def test_an_empty_first_page_is_no_beginning() -> None:
    """Where events were before, an answer without any establishes nothing."""
    cloud, store = a_day(10), Store()
    store.walk(cloud, most=1)
    before, cloud.events = store.covered, {}

    assert store.walk(cloud) == [""]
    assert store.covered == before


def test_a_page_that_cannot_be_read_is_no_beginning() -> None:
    """A page of garbage below good ones ends the walk, and what lies below stays missing."""
    walk = Walk(())
    walk.took(Page((Seen("a", NOW - 3 * HOUR),), NOW), whole=True)
    assert walk.place is not None

    assert walk.took(Page((), NOW, garbled=True), whole=True) is None

    assert walk.place is None
    assert has_holes(walk.covered, FIRST)


def test_an_interrupted_walk_goes_on_below() -> None:
    """The page that was read last is asked again, the ones above it are not."""
    cloud, store = a_day(40), Store()
    store.walk(cloud, most=5)
    cloud.happens(MINUTE)

    asked = store.walk(cloud)

    assert asked[:3] == ["", "e24", "e20"]
    assert store.covered == ((FIRST, NOW - EVOLVES),)
    assert store.events == set(cloud.events)


def test_without_what_was_remembered_it_pages_through() -> None:
    """A lost spool costs calls, and no event."""
    cloud, store = a_day(40), Store()
    store.walk(cloud, most=5)
    store.known = Known()

    asked = store.walk(cloud)

    assert len(asked) == 11
    assert store.events == set(cloud.events)


@pytest.mark.parametrize("forgets", [True, False])
def test_an_event_that_the_cloud_forgot_is_no_beginning(forgets: bool) -> None:
    """What is remembered of an event that is gone is dropped, and the walk pages through."""
    cloud, store = a_day(40, forgets=forgets), Store()
    store.walk(cloud, most=5)
    for _, cursor in store.known.cursors:
        del cloud.events[cursor]

    asked = store.walk(cloud)

    assert len(asked) == 12
    assert store.events >= set(cloud.events)
    assert store.covered == ((FIRST, NOW - EVOLVES),)


def test_edge_leaves_older_holes_to_others() -> None:
    """The walk of a poll ends at the newest interval that is covered."""
    cloud, store = a_day(40), Store()
    store.walk(cloud, most=5)

    assert store.walk(cloud, Reach.EDGE) == [""]
    assert has_holes(store.covered, FIRST)


def test_fresh_reads_what_may_change() -> None:
    """While the ledger is not read, a walk ends below the last hour."""
    cloud = a_day(40)
    for minute in range(10):
        cloud.happens(minute * MINUTE)

    assert len(Store().walk(cloud, Reach.FRESH)) == 3


def test_a_recording_is_read_again() -> None:
    """While a video is being recorded, walks go as far back as its event; not for ever."""
    cloud, store = Cloud(), Store()
    for place in range(20):
        cloud.happens((20 - place) * HOUR, recording=place == 10)
    store.walk(cloud)
    assert store.known.recording == {"e10": NOW - 10 * HOUR}

    assert len(store.walk(cloud)) == 3
    cloud.events["e10"] = Seen("e10", NOW - 10 * HOUR)
    assert len(store.walk(cloud)) == 3
    assert len(store.walk(cloud)) == 1
    store.known.recording["gone"] = NOW - 23 * HOUR
    cloud.now += 2 * HOUR
    assert len(store.walk(cloud)) == 1


def test_no_older_events_than_wanted() -> None:
    """A walk ends at the floor, and there nothing is missing."""
    cloud, store, floor = a_day(40), Store(), NOW - 10 * HOUR

    asked = store.walk(cloud, floor=floor)

    assert asked == ["", "e36", "e32"]
    assert not has_holes(store.covered, floor)
    assert store.walk(cloud, floor=floor) == [""]


def test_many_events_of_one_second() -> None:
    """A second that is longer than a page is read whole."""
    cloud, store = Cloud(size=3), Store()
    for _ in range(10):
        cloud.happens(5 * HOUR)
    cloud.happens(6 * HOUR)

    store.walk(cloud)

    assert store.events == set(cloud.events)
    assert store.covered == ((FIRST, NOW - EVOLVES),)


def test_a_second_over_several_pages_is_whole_or_not() -> None:
    """While the first of its pages has no fact, no later one covers that second."""
    cloud = Cloud(size=1)
    for _ in range(3):
        cloud.happens(5 * HOUR)

    for page in range(3):
        store = Store()
        store.walk(cloud, without_fact=frozenset([page]))

        assert covers(store, cloud) == set()
        store.walk(cloud)
        assert store.covered == ((FIRST, NOW - EVOLVES),)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["walk", "poll", "fresh", "lost", "gone"]),
        st.integers(0, 6),  # pages until it is interrupted
        st.frozensets(st.integers(0, 6), max_size=2),  # pages whose pictures are not there yet
        st.lists(st.integers(0, 59), max_size=8),  # events that happen, minutes late
        st.integers(1, 3000),  # minutes until the next one
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(
    steps=_STEPS,
    size=st.integers(1, 5),
    past=st.lists(st.integers(0, 20_000), max_size=25),
    repeats=st.booleans(),
    forgets=st.booleans(),
)
def test_whatever_interrupts_it_no_event_is_missing(
    steps: list[tuple[str, int, frozenset[int], list[int], int]],
    size: int,
    past: list[int],
    repeats: bool,
    forgets: bool,
) -> None:
    """What is covered is stored, at any time; a walk to the end has all; no page twice in a row."""
    cloud, store = Cloud(size, repeats, forgets), Store()
    for ago in past:
        cloud.happens(ago * MINUTE)
    for kind, pages, without_fact, happened, minutes in steps:
        cloud.now += minutes * MINUTE
        for late in happened:
            cloud.happens(late * MINUTE)
        if kind == "lost":
            store.known = Known()
        elif kind == "gone" and store.known.cursors:
            gone = store.known.cursors[0][1]
            cloud.events.pop(gone, None)
        else:
            reach = {"poll": Reach.EDGE, "fresh": Reach.FRESH}.get(kind, Reach.WHOLE)
            asked = store.walk(cloud, reach, most=pages, without_fact=without_fact)
            assert all(one != other for one, other in itertools.pairwise(asked))
        assert covers(store, cloud) <= store.whole

    store.walk(cloud)

    settled = {e.event_id for e in cloud.events.values() if cloud.now - e.time > EVOLVES}
    assert store.events >= set(cloud.events)
    assert store.whole >= settled
    if cloud.events:
        assert store.covered == ((FIRST, cloud.now - EVOLVES),)
        assert len(store.walk(cloud, Reach.EDGE)) <= 1 + sum(
            cloud.now - each.time <= EVOLVES for each in cloud.events.values()
        )
