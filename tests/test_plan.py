"""What a module's history needs next, and when it needs nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.models import Coverage, Entity, Priority
from netatmo_ingestd.plan import FIRST_DAY, YEAR, History, Step, steps, stretch_begin
from netatmo_ingestd.sources.measure import PAGE_ROWS
from tests.truth import DAY_TYPES_OF_MAIN, MAIN_TYPES

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
SETUP = NOW.replace(hour=0) - 5 * YEAR
Span = tuple[datetime, datetime]


def known(
    *covered: Span, scale: str = "max", filled: tuple[Span, ...] | None = None, **more: Any
) -> Coverage:
    """Answered in full, up to a newest row at its end."""
    end = covered[-1][1] if covered else NOW
    told: dict[str, Any] = {
        "newest": end - SECOND,
        "asked": end,
        "reread": (end, end) if scale == "max" else (end,),
        "filled": covered if filled is None else filled,
        **more,
    }
    types = MAIN_TYPES if scale == "max" else DAY_TYPES_OF_MAIN
    return Coverage("m", scale, types, covered, owner="me", owned=NOW, **told)


def history(
    fine: Coverage | None = None,
    days: Coverage | None = None,
    *,
    since: str | date = "all",
    setup: datetime | None = SETUP,
    zone: str = "UTC",
) -> History:
    entity = Entity("me", "module", "m", "h", "d", "NAMain", {"timezone": zone}, setup=setup)
    return History("me", entity, MAIN_TYPES, "max", fine, days, since)


def all_days(begin: datetime = SETUP, end: datetime = NOW) -> Coverage:
    """Its day rows from `begin` on, asked for today; that there were none before is final."""
    today = end.replace(hour=0)
    told: dict[str, Any] = {"reread": (end,), "asked": today, "confirmed": ((FIRST_DAY, begin),)}
    return known((FIRST_DAY, today), scale="1day", filled=((begin, today),), **told)


def due(of: History, now: datetime = NOW) -> list[tuple[str, str, datetime]]:
    """(purpose, scale, begin) of each step."""
    found = []
    for step in steps(of, now):
        assert step.poll.begin is not None
        found.append((step.poll.endpoint.priority.purpose, step.poll.scale, step.poll.begin))
    return found


def the_step(of: History, priority: Priority, now: datetime = NOW) -> Step:
    """The most urgent one."""
    return next(each for each in steps(of, now) if each.poll.endpoint.priority == priority)


# --- history: coarse first, newest first ----------------------------------------------------------


def test_nothing_is_due_before_the_first_trailing_read() -> None:
    """That one comes first: it tells what the module has now."""
    assert due(history()) == []


def test_day_rows_come_before_the_finest() -> None:
    """One call for all days since the first station was sold; its rank is before any year's."""
    of = history(known((NOW - 3 * DAY, NOW)))

    coarse, fine = steps(of, NOW)

    assert (coarse.poll.scale, coarse.poll.begin, coarse.poll.walked) == (
        "1day", FIRST_DAY, FIRST_DAY
    )  # fmt: skip
    assert coarse.poll.types == DAY_TYPES_OF_MAIN
    assert coarse.rank < fine.rank
    assert fine.poll.scale == "max"


def test_day_rows_go_on_behind_a_full_page() -> None:
    """A page holds 1024 days: until an answer reaches today, its end is where to ask on."""
    end = FIRST_DAY + 1024 * DAY
    page = known((FIRST_DAY, end), scale="1day", reread=(NOW,), asked=end + SECOND)

    assert ("history", "1day", end) in due(history(known((NOW - DAY, NOW)), page))


def test_the_newest_year_comes_first_and_goes_from_old_to_new() -> None:
    """A long hole is asked a year before its end; then page by page up to there; then further."""
    edge = NOW - 3 * DAY
    of = history(known((edge, NOW)), all_days())
    first = the_step(of, Priority.HISTORY)
    assert first.poll.begin == edge - YEAR

    page = (edge - YEAR, edge - YEAR + 4 * DAY)
    second = the_step(replace(of, fine=known(page, (edge, NOW))), Priority.HISTORY)
    assert second.poll.begin == page[1]

    whole = the_step(replace(of, fine=known((edge - YEAR, NOW))), Priority.HISTORY)
    assert whole.poll.begin == edge - 2 * YEAR
    assert first.rank == second.rank == 0
    assert whole.rank == 1


def test_newer_holes_of_any_module_come_first() -> None:
    """The rank of a step is how many years ago its hole ends."""
    ranks = []
    for years in range(4):
        end = NOW - years * YEAR - DAY
        of = history(known((SETUP, end - DAY), (end, NOW)), all_days())
        ranks.append(the_step(of, Priority.HISTORY).rank)

    assert ranks == [0, 1, 2, 3]


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(0, 2000), st.integers(0, 1500))
def test_a_stretch_begins_within_its_hole(length: int, silent_at: int, silent: int) -> None:
    """At most a year and a half before its end, but for a silence, which one call jumps over."""
    hole = (NOW - length * DAY, NOW)
    quiet = (NOW - (silent_at + silent) * DAY, NOW - silent_at * DAY)

    begin = stretch_begin(hole, [quiet])

    assert hole[0] <= begin < hole[1]
    if NOW - begin > 1.5 * YEAR:
        assert begin == max(hole[0], quiet[0])
        assert quiet[1] > NOW - YEAR


def test_one_call_jumps_over_a_silence_that_the_day_rows_show() -> None:
    """Where a year's stretch would begin inside two silent years, it begins before them."""
    edge = NOW - 3 * DAY
    silent = (NOW - 3 * YEAR, NOW - YEAR)
    days = all_days()
    days = replace(days, filled=((SETUP, silent[0]), (silent[1], days.filled[0][1])))

    of = history(known((edge, NOW)), days)

    assert the_step(of, Priority.HISTORY).poll.begin == silent[0]
    assert of.requests() == -(-of.rows() // PAGE_ROWS)
    assert of.rows() == (edge - SETUP - (silent[1] - silent[0])) / timedelta(minutes=5)


def test_a_hole_inside_is_missing_too() -> None:
    """A hole of an hour in the middle is asked for from its begin."""
    hole = (NOW - 40 * DAY, NOW - 40 * DAY + HOUR)
    of = history(known((SETUP, hole[0]), (hole[1], NOW)), all_days())

    assert due(of) == [("history", "max", hole[0])]
    assert of.requests() == 1
    assert of.rows() == 12


# --- how far back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "setup", "begin"),
    [
        ("all", SETUP, SETUP),
        ("all", None, SETUP - YEAR),
        (date(2026, 1, 1), SETUP, datetime(2025, 12, 31, 23, tzinfo=UTC)),
        (date(2010, 1, 1), SETUP, SETUP),
        ("never", SETUP, NOW - DAY),
    ],
)
def test_how_far_back(since: str | date, setup: datetime | None, begin: datetime) -> None:
    """From the set-up or an earlier day row; from a local date; never: from what is there."""
    days = all_days(SETUP - YEAR if setup is None else SETUP + YEAR)
    of = history(known((NOW - DAY, NOW)), days, since=since, setup=setup, zone="Europe/Paris")

    assert of.begin == (days.filled[0][0] if setup is None else begin)


@pytest.mark.parametrize(
    ("since", "begin"),
    [
        ("all", FIRST_DAY),
        (date(2026, 1, 1), datetime(2025, 12, 31, 23, tzinfo=UTC)),
        (date(2010, 1, 1), FIRST_DAY - HOUR),  # its local midnight
        ("never", datetime(2026, 3, 12, 23, tzinfo=UTC)),
    ],
)
def test_from_when_on_day_rows_are_wanted(since: str | date, begin: datetime) -> None:
    """From before the first station, or the local midnight of a date or of the oldest row."""
    of = history(known((NOW - DAY, NOW)), since=since, zone="Europe/Paris")

    assert of.days_begin == begin
    assert ("history", "1day", begin) in due(of)


def test_never_fills_holes_between_rows_only() -> None:
    """Without history, what the daemon missed itself is still asked for, and nothing before."""
    hole = (NOW - 5 * DAY, NOW - 4 * DAY)
    of = history(known((NOW - 9 * DAY, hole[0]), (hole[1], NOW)), all_days(), since="never")

    assert due(of) == [("history", "max", hole[0])]


# --- how much -------------------------------------------------------------------------------------


def test_the_share_of_a_life() -> None:
    """Covered time over all time up to the last question; silence at the edge counts as covered."""
    quarter = (NOW - SETUP) / 4
    half = known((SETUP, SETUP + quarter), (NOW - quarter, NOW))
    edge = known((SETUP, NOW - quarter), quiet=((NOW - quarter, NOW),), asked=NOW)

    assert history(half, all_days()).share() == pytest.approx(0.5)
    assert history(edge, all_days()).share() == 1.0
    assert history(None, all_days()).share() == 0.0
    assert history(replace(half, asked=None)).share() == 0.0
    assert history(known((NOW, NOW + DAY)), setup=NOW + 2 * DAY, since="never").share() == 1.0


def test_requests_count_pages_and_the_day_rows() -> None:
    """A page for each 1024 rows of five minutes, one at least for each hole; day rows are one."""
    page = PAGE_ROWS * timedelta(minutes=5)
    fine = known((SETUP, NOW - 9 * page), (NOW - 6 * page, NOW - HOUR), (NOW - HOUR / 2, NOW))

    assert history(fine, all_days()).requests() == 4
    assert history(fine).requests() == 5
    assert history(known((SETUP, NOW)), all_days()).requests() == 0


# --- late re-reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("daily_s", "weekly_s", "depth"),
    [(-1, -1, None), (0, -1, 2), (-1, 0, 14), (0, 0, 14)],
)
def test_rereads_are_due_daily_and_weekly(daily_s: int, weekly_s: int, depth: int | None) -> None:
    """A day, or a week, after the previous one, from as far before that as the depth says.

    Of two that are due the deeper one is asked: it holds the other.
    """
    done = (NOW - DAY - daily_s * SECOND, NOW - 7 * DAY - weekly_s * SECOND)
    fine = known((SETUP, NOW), reread=done)

    found = [each for each in due(history(fine, all_days())) if each[1] == "max"]

    begin = {2: done[0] - 2 * DAY, 14: done[1] - 14 * DAY}.get(depth or 0)
    assert found == ([("reread", "max", begin)] if begin else [])


def test_a_reread_never_begins_before_what_is_covered() -> None:
    """What lies before the first covered moment is history's."""
    fine = known((NOW - 3 * DAY, NOW), reread=(NOW, NOW - 8 * DAY))

    assert ("reread", "max", NOW - 3 * DAY) in due(history(fine, all_days()))


def test_an_empty_stretch_is_asked_about_again() -> None:
    """The newest doubtful one, until it is final; its rows of a day before are known by then."""
    empty = (NOW - 30 * DAY, NOW - 29 * DAY)
    fine = known((SETUP, NOW), filled=((SETUP, empty[0]), (empty[1], NOW)))
    of = history(fine, all_days())

    assert due(of) == [("reread", "max", empty[0])]
    fresh = replace(of, fine=replace(fine, once=((*empty, NOW - DAY + SECOND),)))
    assert due(fresh) == []
    assert due(fresh, NOW + SECOND) == [("reread", "max", empty[0])]
    assert due(replace(of, fine=replace(fine, confirmed=(empty,)))) == []


def test_a_silent_module_needs_nothing_for_ever() -> None:
    """When its rows are older than each depth, no step is due, in a day or in ten years."""
    silent = NOW - 20 * DAY
    fine = known(
        (SETUP, silent), quiet=((silent, NOW),), asked=NOW, reread=(NOW, NOW), newest=silent
    )
    days = replace(all_days(end=silent), reread=(NOW,), asked=NOW.replace(hour=0),
                   quiet=((silent.replace(hour=0), NOW.replace(hour=0)),))  # fmt: skip
    of = history(fine, days)

    for later in (0 * DAY, DAY, 8 * DAY, 10 * YEAR):
        assert due(of, NOW + later) == []


def test_a_module_that_speaks_again_is_reread_again() -> None:
    """Day rows follow as soon as its finest rows show life, from before its silence."""
    silent, done = NOW - 60 * DAY, NOW - 40 * DAY
    fine = known((SETUP, silent), (NOW - HOUR, NOW), reread=(NOW, NOW))
    days = replace(all_days(end=silent), reread=(done,))

    found = due(history(fine, days))

    assert ("reread", "1day", (done - 14 * DAY).replace(hour=0)) in found
    assert ("history", "max", silent) in found


def test_a_new_module_gets_its_first_day_row() -> None:
    """Its first answer had no whole day; the next is asked an hour after midnight, from there."""
    midnight = NOW.replace(hour=0)
    fine = known((NOW - HOUR, NOW + 20 * HOUR), reread=(NOW, NOW))
    days = known(scale="1day", quiet=((FIRST_DAY, midnight),), newest=None, filled=(),
                 asked=midnight, reread=(NOW,))  # fmt: skip
    of = history(fine, days, setup=NOW - HOUR)

    assert ("reread", "1day", FIRST_DAY) in due(of, midnight + DAY + HOUR)
    assert due(of, midnight + DAY + HOUR - SECOND) == []


@pytest.mark.parametrize("zone", ["Europe/Paris", "Australia/Lord_Howe", "America/Havana"])
@pytest.mark.parametrize("local", ["00:00", "00:59", "01:00", "12:00", "23:59"])
def test_day_rows_are_due_an_hour_after_local_midnight(zone: str, local: str) -> None:
    """On each day of a year, changes of the clock included, from the 14th midnight before on."""
    there = ZoneInfo(zone)
    hour, minute = map(int, local.split(":"))
    for number in range(366):
        day = date(2026, 1, 1) + timedelta(days=number)
        done = datetime(day.year, day.month, day.day, hour, minute, tzinfo=there).astimezone(UTC)
        midnights = [_midnight(there, day), _midnight(there, day + timedelta(days=1))]
        due_at = min(each + HOUR for each in midnights if each + HOUR > done)
        days = replace(all_days(), reread=(done,))
        of = history(known((SETUP, NOW + 999 * DAY), reread=()), days, zone=zone)

        begin = (done - 14 * DAY).astimezone(there).date()
        assert ("reread", "1day", _midnight(there, begin)) in due(of, due_at)
        assert due(of, due_at - SECOND) == []


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    """The first moment of a local day, found by looking at one half hour after the other."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(zone).date() < day:
        moment += timedelta(minutes=30)
    return moment


def test_steps_are_named_by_what_they_ask() -> None:
    """Two steps of one name ask the same; another begin or scale is another step."""
    of = history(known((NOW - DAY, NOW)))
    names = [step.name for step in steps(of, NOW)]

    assert len(set(names)) == 2
    assert {*names} < {step.name for step in steps(of, NOW + DAY)}
