"""Interval algebra against a naive model: a set of hours."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.intervals import add, covers, intersect, join, longer, subtract, total
from netatmo_ingestd.models import Interval

START = datetime(2025, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LAST = 40

Windows = list[tuple[int, int]]
windows = st.lists(st.tuples(st.integers(0, LAST), st.integers(0, LAST)), max_size=12)


def at(hour: float) -> datetime:
    return START + hour * HOUR


def span(begin: float, end: float) -> Interval:
    return at(begin), at(end)


def spans(pairs: Windows) -> list[Interval]:
    """Any windows, also empty and backward ones."""
    return [span(*pair) for pair in pairs]


def model(pairs: Windows) -> set[int]:
    """The whole hours that lie in some window."""
    return {hour for begin, end in pairs for hour in range(begin, end)}


def hours(intervals: tuple[Interval, ...]) -> set[int]:
    """The whole hours of a result; it has to be in order first."""
    assert all(begin < end for begin, end in intervals)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(intervals))
    return {hour for hour in range(-5, LAST + 5) if any(b <= at(hour) < e for b, e in intervals)}


@settings(deadline=None)
@given(windows)
def test_join_is_the_union(some: Windows) -> None:
    """Windows in any order become exactly their union, ascending, disjoint and never adjacent."""
    assert hours(join(spans(some))) == model(some)


@settings(deadline=None)
@given(windows, st.integers(0, 10))
def test_join_bridges_what_is_no_wider_than_the_slack(some: Windows, slack: int) -> None:
    """With slack exactly the gaps up to it are filled, and none at the edges."""
    exact = join(spans(some))
    narrow = [
        (one[1], two[0])
        for one, two in itertools.pairwise(exact)
        if two[0] - one[1] <= slack * HOUR
    ]

    found = join(spans(some), slack * HOUR)

    assert found == join((*exact, *narrow))
    assert all(two[0] - one[1] > slack * HOUR for one, two in itertools.pairwise(found))


@settings(deadline=None)
@given(windows)
def test_add_one_by_one_is_join(some: Windows) -> None:
    """Adding windows one after the other gives what joining them at once does."""
    found: tuple[Interval, ...] = ()
    for each in spans(some):
        found = add(found, *each)

    assert found == join(spans(some))


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (3, 4, [(0, 1), (2, 5), (8, 9)]),
        (1, 2, [(0, 5), (8, 9)]),
        (0, 9, [(0, 9)]),
        (6, 7, [(0, 1), (2, 5), (6, 7), (8, 9)]),
        (5, 8, [(0, 1), (2, 9)]),
        (9, 10, [(0, 1), (2, 5), (8, 10)]),
        (-2, -1, [(-2, -1), (0, 1), (2, 5), (8, 9)]),
        (7, 7, [(0, 1), (2, 5), (8, 9)]),
        (7, 6, [(0, 1), (2, 5), (8, 9)]),
    ],
)
def test_add(begin: float, end: float, expected: list[tuple[float, float]]) -> None:
    """One window more: inside, touching, bridging, apart, empty, backwards."""
    intervals = (span(0, 1), span(2, 5), span(8, 9))

    assert add(intervals, at(begin), at(end)) == tuple(span(*each) for each in expected)


@settings(deadline=None)
@given(windows, windows)
def test_intersect_is_what_lies_in_both(one: Windows, other: Windows) -> None:
    """An hour is in the intersection exactly when it is in both; the order does not matter."""
    first, second = join(spans(one)), join(spans(other))

    assert hours(intersect(first, second)) == model(one) & model(other)
    assert intersect(first, second) == intersect(second, first)


@settings(deadline=None)
@given(windows, windows)
def test_subtract_is_the_difference(one: Windows, other: Windows) -> None:
    """What is left of the first is exactly what the second does not have."""
    found = subtract(join(spans(one)), join(spans(other)))

    assert hours(found) == model(one) - model(other)


@settings(deadline=None)
@given(windows, windows)
def test_parts_make_the_whole(one: Windows, other: Windows) -> None:
    """Intersection and difference together are the first again, in length as well."""
    first, second = join(spans(one)), join(spans(other))

    inside, outside = intersect(first, second), subtract(first, second)

    assert join((*inside, *outside)) == first
    assert total(inside) + total(outside) == total(first)


@settings(deadline=None)
@given(windows)
def test_total_counts_the_hours(some: Windows) -> None:
    """The total is an hour for each hour of the set; of nothing it is zero."""
    assert total(join(spans(some))) == len(model(some)) * HOUR


@settings(deadline=None)
@given(windows, st.integers(0, 12))
def test_longer_keeps_whole_intervals(some: Windows, least: int) -> None:
    """Those of more than the least stay as they are, those of exactly so much go."""
    whole = join(spans(some))

    found = longer(whole, least * HOUR)

    assert set(found) <= set(whole)
    assert {each: each[1] - each[0] > least * HOUR for each in whole} == {
        each: each in found for each in whole
    }


@settings(deadline=None)
@given(windows, st.integers(0, LAST), st.integers(1, LAST))
def test_covers_is_subset(some: Windows, begin: int, length: int) -> None:
    """A window is covered exactly when each of its hours is."""
    expected = set(range(begin, begin + length)) <= model(some)

    assert covers(join(spans(some)), at(begin), at(begin + length)) is expected
