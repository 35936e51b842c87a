"""Interval algebra on half-open [begin, end): ascending, disjoint, never adjacent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from netatmo_ingestd.models import Interval

_NONE = timedelta(0)


def join(intervals: Iterable[Interval], slack: timedelta = _NONE) -> tuple[Interval, ...]:
    """The union of intervals in any order; those at most `slack` apart become one."""
    joined: list[Interval] = []
    for begin, end in sorted(intervals):
        if end <= begin:
            continue
        if joined and begin - joined[-1][1] <= slack:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


def add(intervals: Sequence[Interval], begin: datetime, end: datetime) -> tuple[Interval, ...]:
    """`intervals` with [begin, end) added."""
    return join((*intervals, (begin, end)))


def intersect(one: Sequence[Interval], other: Sequence[Interval]) -> tuple[Interval, ...]:
    """What lies in both."""
    found: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        begin, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if begin < end:
            found.append((begin, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def subtract(one: Sequence[Interval], other: Sequence[Interval]) -> tuple[Interval, ...]:
    """What lies in `one` and not in `other`."""
    if not one:
        return ()
    edges = [one[0][0], *(edge for each in other for edge in each), one[-1][1]]
    # Between the intervals of `other`, and before and behind them.
    between = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)]
    return intersect(one, [each for each in between if each[0] < each[1]])


def covers(intervals: Sequence[Interval], begin: datetime, end: datetime) -> bool:
    """True when one interval holds all of [begin, end)."""
    return any(each[0] <= begin and end <= each[1] for each in intervals)


def longer(intervals: Iterable[Interval], least: timedelta) -> tuple[Interval, ...]:
    """Those of more than `least`."""
    return tuple((begin, end) for begin, end in intervals if end - begin > least)


def total(intervals: Iterable[Interval]) -> timedelta:
    """How long all of them are together."""
    return sum((end - begin for begin, end in intervals), _NONE)
