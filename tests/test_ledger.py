"""Facts become coverage, whatever their order; what is missing, empty and doubtful; ownership.

Facts are answers of a simulated cloud (tests/truth.py), so what the ledger says can be held against
the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.intervals import intersect, join, subtract
from netatmo_ingestd.ledger import (
    OWNERSHIP,
    Ledger,
    combine,
    empty,
    merge,
    missing,
)
from netatmo_ingestd.models import Coverage, Interval
from tests.truth import (
    BEGIN,
    HOUR,
    NOW,
    SECOND,
    TYPES,
    Truth,
    answers,
    at,
    coverage,
    folded,
    questions,
    span,
    truths,
)

# --- order and repetition ------------------------------------------------------------------------


@settings(deadline=None)
@given(truths, questions, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(
    truth: Truth, asked: list[tuple[int, int]], random: Random
) -> None:
    """The same facts in another order, some of them twice, cover, fill and know the same."""
    facts = answers(truth, asked)
    if not facts:
        return
    shuffled = [*facts, *random.sample(facts, len(facts) // 2)]
    random.shuffle(shuffled)

    one, other = folded(facts), folded(shuffled)

    for name in ("covered", "filled", "newest", "asked", "owner", "owned"):
        assert getattr(one, name) == getattr(other, name), name
    assert empty(one) == empty(other)


@settings(deadline=None)
@given(truths, questions, st.randoms(use_true_random=False))
def test_quiet_is_what_answers_from_behind_the_newest_row_say(
    truth: Truth, asked: list[tuple[int, int]], random: Random
) -> None:
    """In any order: all that answers from behind the newest row told, nothing that others did."""
    facts = answers(truth, asked)
    if not facts:
        return
    shuffled = [*facts, *random.sample(facts, len(facts) // 2)]
    random.shuffle(shuffled)
    windows = [(each.filled[-1][1] if each.filled else each.begin, each.end) for each in facts]
    newest = max((each.newest for each in facts if each.newest), default=None)

    quiet = folded(shuffled).quiet

    def behind(some: Iterable[Interval]) -> tuple[Interval, ...]:
        return join([each for each in some if newest is None or each[0] > newest])

    # Windows that touch count as one from then on, so a row that appears in one ends both.
    most, least = behind(windows), behind(join(windows))
    assert not subtract(quiet, most)
    assert not subtract(least, quiet)


@settings(deadline=None)
@given(truths, questions, st.integers(0, 10), st.integers(0, 10))
def test_a_copy_that_ran_ahead_knows_what_merging_all_facts_tells(
    truth: Truth, asked: list[tuple[int, int]], loaded: int, written: int
) -> None:
    """Taking in what was written to the store meanwhile changes nothing but the revision."""
    facts = answers(truth, asked)
    if not facts:
        return
    stored = folded(facts[: 1 + loaded])  # when the ledger was read
    ahead = folded(facts[1 + loaded :], stored)  # with all that is on the spool
    now_stored = replace(folded(facts[1 + loaded :][:written], stored), rev=7)

    both = combine(ahead, now_stored)

    assert replace(both, rev=0) == replace(ahead, owned=now_stored.owned)


# --- walks ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(truths, questions)
def test_a_walk_ends_and_leaves_nothing_missing(truth: Truth, asked: list[tuple[int, int]]) -> None:
    """Asking from where the last hole begins, again and again, comes to an end.

    Each answer brings a page or closes a hole, which bounds how many are needed.
    """
    known = folded(answers(truth, [*asked, (NOW - 5, NOW)]))
    bound = len(truth.rows) // (truth.page - 1) + len(missing(known, at(BEGIN))) + 3
    calls = 0

    while holes := missing(known, at(BEGIN)):
        calls += 1
        assert calls <= bound
        known = folded([truth.answer(holes[-1][0], NOW + calls)], known)

    # Of a full page the time behind it is not asked yet.
    assert known.asked is not None
    assert known.asked >= at(NOW) or truth.page <= len(truth.seen(NOW - 5, NOW))
    assert not subtract(((at(BEGIN), known.asked),), join((*known.covered, *known.quiet)))


@settings(deadline=None, max_examples=200)
@given(truths, questions)
def test_a_walk_finds_every_row_that_was_there_in_time(
    truth: Truth, asked: list[tuple[int, int]]
) -> None:
    """After a walk the stretches with rows are those of the cloud, and the newest row is its."""
    truth = Truth.of(truth.rows, truth.page)
    known = folded(answers(truth, [*asked, (NOW - 5, NOW)]))

    while holes := missing(known, at(BEGIN)):
        known = folded([truth.answer(holes[-1][0], NOW)], known)

    assert known.filled == truth.stretches(NOW)
    assert known.newest == max(map(at, truth.rows), default=None)


@settings(deadline=None)
@given(truths, questions)
def test_what_is_filled_is_true(truth: Truth, asked: list[tuple[int, int]]) -> None:
    """No stretch is called filled where the cloud has no rows, none covered beyond a newest row."""
    known = folded(answers(truth, [*asked, (NOW - 5, NOW)]))

    shown = truth.stretches(NOW + 1000)
    assert not subtract(known.filled, shown)
    assert known.newest is None or all(end <= known.newest + SECOND for _, end in known.covered)
    assert not intersect(known.covered, known.quiet)


def test_a_silent_edge_is_missing_once_a_newer_row_appears() -> None:
    """Silence behind the newest row is answered; a row behind it makes that silence doubtful."""
    truth = Truth.of([1, 2, 3])
    known = folded([truth.answer(0, 20)])
    assert known.quiet == ((at(3) + SECOND, at(20)),)
    assert missing(known, at(0)) == ()

    truth.rows |= {30.0: 30.0}
    known = folded([truth.answer(25, 31)], known)

    assert missing(known, at(0)) == ((at(3) + SECOND, at(25)),)
    assert known.quiet == ((at(30) + SECOND, at(31)),)


def test_nothing_is_missing_of_what_was_never_asked() -> None:
    """The time before `begin` and after the last question is none of the ledger's business."""
    known = folded([Truth.of([1]).answer(0, 2), Truth.of([9]).answer(8, 10)])

    assert missing(known, at(0)) == ((at(1) + SECOND, at(8)),)
    assert missing(known, at(5)) == (span(5, 8),)
    assert missing(known, at(10)) == ()
    assert missing(replace(known, asked=None), at(0)) == ()


# --- one coverage after the other -----------------------------------------------------------------


def test_a_first_fact_is_a_coverage() -> None:
    """The first fact about an entity makes its document, owned by the account that asked."""
    assert merge(None, Truth.of([1]).answer(0, 2), at(3)) == Coverage(
        entity_id="m",
        scale="max",
        types=TYPES,
        covered=((at(0), at(1) + SECOND),),
        newest=at(1),
        owner="me",
        owned=at(3),
        rev=0,
        quiet=((at(1) + SECOND, at(2)),),
        filled=((at(1), at(1) + SECOND),),
        asked=at(2),
        reread=(at(2), at(2)),
    )


@pytest.mark.parametrize("types", [("Temperature",), ("CO2", "Temperature"), ()])
def test_other_types_start_anew(types: tuple[str, ...]) -> None:
    """A window asked for other types covers only itself: all older ones are missing again."""
    known = replace(coverage([(0, 9)], newest=8, filled=[(0, 9)]), rev=7)
    fact = Truth.of([9.5]).answer(9, 10, types=types)

    anew = merge(known, fact, at(10))

    assert anew == replace(merge(None, fact, at(10)), rev=7)
    assert anew.covered == ((at(9), at(9.5) + SECOND),)


def test_merge_keeps_the_revision() -> None:
    """The revision is the store's to count."""
    assert merge(replace(coverage(), rev=4), Truth().answer(1, 2), at(2)).rev == 4


# --- ownership ------------------------------------------------------------------------------------


def owned(since: datetime) -> Coverage:
    return replace(coverage(), owned=since)


def test_reading_renews_ownership() -> None:
    """Each answer of the owner renews it, an older one does not take time back."""
    known = merge(owned(at(0)), Truth().answer(1, 2), at(100))

    assert (known.owner, known.owned) == ("me", at(100))
    assert merge(known, Truth().answer(2, 3), at(50)).owned == at(100)


@pytest.mark.parametrize(
    ("later", "owner"),
    [(timedelta(0), "me"), (OWNERSHIP - HOUR, "me"), (OWNERSHIP, "you")],
)
def test_another_account_takes_over_after_a_week(later: timedelta, owner: str) -> None:
    """A second account's rows count at once, but it owns the history only after 7 days."""
    fact = Truth.of([1.5]).answer(1, 2, account="you")

    known = merge(owned(at(0)), fact, at(0) + later)

    assert known.covered == ((at(0), at(1.5) + SECOND),)
    assert known.owner == owner
    assert known.owned == (at(0) if owner == "me" else at(0) + later)


def test_who_may_read() -> None:
    """`owned_by_other` is true for others within 7 days, and never for the owner or nobody."""
    ledger = Ledger()
    ledger.load([owned(at(0))])

    assert ledger.owned_by_other("m", "max", "you", at(0) + OWNERSHIP - HOUR)
    assert not ledger.owned_by_other("m", "max", "you", at(0) + OWNERSHIP)
    assert not ledger.owned_by_other("m", "max", "me", at(1))
    assert not ledger.owned_by_other("m", "1day", "you", at(1))
    assert not ledger.owned_by_other("n", "max", "you", at(1))


# --- in memory ------------------------------------------------------------------------------------


def test_load_keeps_what_lies_on_the_spool() -> None:
    """A loaded ledger holds the documents of the store, and the facts that run ahead of them."""
    ledger = Ledger()
    ledger.note([Truth.of([9]).answer(8, 10)])
    assert not ledger.loaded

    ledger.load([coverage(), replace(coverage(), entity_id="n")])

    assert ledger.loaded
    assert ledger.find("n", "max") == replace(coverage(), entity_id="n")
    found = ledger.find("m", "max")
    assert found is not None
    assert found.covered == (span(0, 1), (at(8), at(9) + SECOND))
    assert len(ledger) == len(ledger.all()) == 2


def test_a_document_of_other_types_does_not_take_back_what_is_on_the_spool() -> None:
    """Asked with other types since: the store will say so once it has the fact."""
    ledger = Ledger()
    fact = Truth().answer(8, 10, types=("Rain",))
    ledger.note([fact])

    ledger.absorb([coverage()])

    assert ledger.find("m", "max") == merge(None, fact, fact.asked)


def test_absorb_touches_one_document() -> None:
    """A document that was just written brings its revision, and changes no other."""
    ledger = Ledger()
    day = coverage(scale="1day", reread=(0,))
    ledger.load([coverage(), day])

    ledger.absorb([replace(coverage(), rev=3)])

    assert ledger.find("m", "max") == replace(coverage(), rev=3)
    assert ledger.find("m", "1day") == day


def test_forget_knows_nothing() -> None:
    """After the store was replaced nothing is known until it is loaded again."""
    ledger = Ledger()
    ledger.load([coverage()])

    ledger.forget()

    assert (ledger.loaded, len(ledger), ledger.find("m", "max")) == (False, 0, None)
