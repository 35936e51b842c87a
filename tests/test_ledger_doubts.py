"""What the ledger doubts: empty stretches until they are final, late re-reads until they are due.

Facts are answers of a simulated cloud (tests/truth.py).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from netatmo_ingestd.intervals import intersect, join, subtract
from netatmo_ingestd.ledger import Ledger, combine, doubtful, empty, merge, missing
from netatmo_ingestd.models import Coverage
from tests.truth import HOUR, SECOND, Truth, answers, at, coverage, folded, questions, truths

DAY = 24


# --- empty stretches ------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "found"), [(5, False), (6, False), (7, True)])
def test_a_stretch_is_empty_from_six_hours_on(gap: int, found: bool) -> None:
    """Rows at most 6 h apart fill the time between them."""
    known = folded([Truth.of([1, 1 + gap]).answer(0, 20)])

    stretch = (at(1) + SECOND, at(1 + gap))
    # From one row to the next; the row itself takes a second.
    assert (stretch in empty(known)) is (found and stretch[1] - stretch[0] > 6 * HOUR)


@pytest.mark.parametrize(("second", "final"), [(40, False), (53.9, False), (54, True), (99, True)])
def test_two_equal_answers_a_day_apart_make_an_empty_stretch_final(
    second: float, final: bool
) -> None:
    """One answer, or two within 24 h, leave it doubtful; a second a day later settles it."""
    truth, stretch = Truth.of([1, 20, 21]), (at(1) + SECOND, at(20))
    known = folded([truth.answer(1, 30)])
    assert known.once == ((*stretch, at(30)),)

    known = folded([truth.answer(1, second)], known)

    assert known.confirmed == ((stretch,) if final else ())
    assert doubtful(known, at(30) + 24 * HOUR) == (() if final else (stretch,))


def test_an_empty_stretch_is_asked_about_again_after_a_day() -> None:
    """It is doubtful at once when no answer was about it, else 24 h after the first."""
    known = folded([Truth.of([1, 20]).answer(1, 30)])

    assert doubtful(known, at(30) + 24 * HOUR - SECOND) == ()
    assert doubtful(known, at(30) + 24 * HOUR) == ((at(1) + SECOND, at(20)),)
    assert doubtful(replace(known, once=()), at(30)) == ((at(1) + SECOND, at(20)),)


def test_an_answer_that_shows_no_newer_row_confirms_nothing() -> None:
    """Silence at the edge of an answer is no evidence: late rows come in order of time."""
    truth = Truth.of([1])
    known = folded([truth.answer(0, 20), truth.answer(0, 60)])

    assert (known.once, known.confirmed, empty(known)) == ((), (), ())


@pytest.mark.parametrize("answered_twice", [False, True])
def test_rows_that_appear_take_an_empty_stretch_back(answered_twice: bool) -> None:
    """Also a final one: what has rows now is no longer empty, the rest of it stays as it was."""
    truth = Truth.of([1, 40], page=9)
    facts = [truth.answer(1, 50), *([truth.answer(1, 80)] if answered_twice else [])]
    known = folded(facts)
    was = known.confirmed if answered_twice else tuple(each[:2] for each in known.once)
    assert was == ((at(1) + SECOND, at(40)),)

    truth.rows |= {20.0: 55.0, 21.0: 55.0}
    known = folded([truth.answer(1, 60)], known)

    left = ((at(1) + SECOND, at(20)), (at(21) + SECOND, at(40)))
    assert empty(known) == left
    kept = known.confirmed if answered_twice else tuple(each[:2] for each in known.once)
    assert kept == left


@settings(deadline=None)
@given(truths, questions)
def test_states_of_empty_stretches_stay_within_them(
    truth: Truth, asked: list[tuple[int, int]]
) -> None:
    """What is once or twice confirmed is empty, and never both; final needs a day between."""
    facts = answers(truth, [(begin, 3 * when) for begin, when in asked])
    if not facts:
        return
    known = folded(facts)

    once = join([each[:2] for each in known.once])
    assert not subtract(once, empty(known))
    assert not subtract(known.confirmed, empty(known))
    assert not intersect(once, known.confirmed)
    for begin, end in known.confirmed:
        telling = [
            each.asked
            for each in facts
            if each.filled and each.begin < end and each.filled[-1][1] >= end
        ]
        assert max(telling) - min(telling) >= 24 * HOUR, (begin, end)


# --- late re-reads --------------------------------------------------------------------------------


def long_known() -> Coverage:
    """100 days in full; both depths have come to its end."""
    end = 100 * DAY
    return coverage([(0, end)], newest=end - 1, filled=[(0, end)], reread=(end, end))


@pytest.mark.parametrize(
    ("days_back", "daily", "weekly"),
    [
        (0.1, False, False),
        (1.9, False, False),
        (2, True, False),
        (13, True, False),
        (14, True, True),
    ],
)
def test_a_depth_advances_by_walks_from_far_enough_back(
    days_back: float, daily: bool, weekly: bool
) -> None:
    """Two days before the previous re-read for the daily one, fourteen for the weekly one."""
    end, later = 100 * DAY, 101 * DAY
    fact = Truth.of([end + 1]).answer(end - days_back * DAY, later)

    found = merge(long_known(), fact, at(later)).reread

    assert found == (at(later if daily else end), at(later if weekly else end))


def test_a_full_page_ends_no_reread() -> None:
    """Only the page that reaches the cloud's now does, and then the whole walk counts."""
    end, later = 100 * DAY, 101 * DAY
    truth = Truth.of([end - 5, end - 4, end + 1], page=2)
    first = truth.answer(end - 14 * DAY, later)
    known = merge(long_known(), first, at(later))
    assert known.reread == (at(end), at(end))

    last = truth.answer(first.end, later, walked=end - 14 * DAY)
    known = merge(known, last, at(later))

    assert known.reread == (at(later), at(later))


def test_a_slow_walk_has_come_as_far_as_its_first_page() -> None:
    """What that page showed may have been corrected while the others were asked for."""
    end, first, last = 100 * DAY, 101 * DAY, 101 * DAY + 5
    fact = Truth.of([end + 1]).answer(end, last, walked=end - 14 * DAY)

    known = merge(long_known(), replace(fact, since=at(first)), at(last))

    assert known.reread == (at(first), at(first))


def test_a_young_history_is_reread_from_its_begin() -> None:
    """A walk from the first covered moment on is far enough back for every depth."""
    known = coverage([(0, 30)], newest=29, filled=[(0, 30)], reread=(30, 30))

    assert merge(known, Truth.of([31]).answer(0, 40), at(40)).reread == (at(40), at(40))
    assert merge(known, Truth.of([31]).answer(1, 40), at(40)).reread == (at(30), at(30))


def test_a_start_postpones_no_reread() -> None:
    """Reads from before the ledger was loaded do not pass for walks of the depths."""
    end, later = 100 * DAY, 110 * DAY
    ledger = Ledger()
    ledger.note([Truth.of([later - 1]).answer(later - 3.5 * DAY, later)])

    ledger.load([long_known()])

    found = ledger.find("m", "max")
    assert found is not None
    assert found.reread == (at(end), at(end))
    assert found.asked == at(later)


# --- what the owner deleted ------------------------------------------------------------------


def test_what_was_deleted_is_neither_missing_nor_doubtful() -> None:
    """A forgotten stretch is never asked for again, whether it was answered or not."""
    truth = Truth.of([1, 20, 21])
    known = folded([truth.answer(1, 30)])
    gone = replace(known, covered=((at(20), at(22)),), forgotten=((at(1), at(20)),))
    emptied = replace(known, forgotten=((at(0), at(22)),))

    assert missing(gone, at(1)) == ()
    assert doubtful(emptied, at(99)) == ()


@pytest.mark.parametrize("types", [("Temperature", "CO2"), ("CO2",)])
def test_what_was_deleted_stays_deleted(types: tuple[str, ...]) -> None:
    """Neither later answers, nor other types, nor a copy without the mark bring it back."""
    truth = Truth.of([1, 20, 21])
    gone = ((at(1), at(20)),)
    known = replace(folded([truth.answer(1, 30)]), forgotten=gone)

    later = merge(known, truth.answer(1, 60, types=types), at(60))
    both = combine(folded([truth.answer(1, 60)]), known)

    assert later.forgotten == gone
    assert both.forgotten == gone
