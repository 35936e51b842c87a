"""Interval algebra against a naive model, merging of facts, ownership."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.ledger import OWNERSHIP, Interval, Ledger, add, covers, merge
from netatmo_ingestd.models import Coverage, Fact

START = datetime(2025, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TYPES = ("Temperature", "CO2")


def at(hour: float) -> datetime:
    return START + hour * HOUR


def span(begin: float, end: float) -> Interval:
    return at(begin), at(end)


def fact(
    begin: float,
    end: float,
    *,
    newest: float | None = None,
    types: tuple[str, ...] = TYPES,
    account: str = "me",
) -> Fact:
    told = None if newest is None else at(newest)
    return Fact("m", "max", types, at(begin), at(end), 1, told, account)


windows = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


def hours(intervals: tuple[Interval, ...]) -> set[int]:
    """The whole hours that are covered: the naive model."""
    return {hour for hour in range(-1, 42) if any(b <= at(hour) < e for b, e in intervals)}


@settings(deadline=None)
@given(windows)
def test_add_is_set_union(added: list[tuple[int, int]]) -> None:
    """Windows in any order cover exactly their union, ascending, disjoint and never adjacent."""
    intervals: tuple[Interval, ...] = ()
    model: set[int] = set()

    for begin, end in added:
        intervals = add(intervals, at(begin), at(end))
        model |= set(range(begin, end))

    assert hours(intervals) == model
    assert all(begin < end for begin, end in intervals)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(intervals))


@settings(deadline=None)
@given(windows, st.integers(0, 40), st.integers(1, 40))
def test_covers_is_subset(added: list[tuple[int, int]], begin: int, length: int) -> None:
    """A window is covered exactly when each of its hours is."""
    intervals: tuple[Interval, ...] = ()
    for first, last in added:
        intervals = add(intervals, at(first), at(last))

    expected = set(range(begin, begin + length)) <= {
        hour for first, last in added for hour in range(first, last)
    }
    assert covers(intervals, at(begin), at(begin + length)) is expected


@settings(deadline=None)
@given(windows)
def test_order_does_not_matter(added: list[tuple[int, int]]) -> None:
    """The same facts in another order, some of them twice, give the same coverage."""
    facts = [fact(begin, end, newest=end) for begin, end in added if begin < end]
    one = two = None

    for each in facts:
        one = merge(one, each, at(50))
    for each in [*reversed(facts), *facts]:
        two = merge(two, each, at(50))

    assert one == two


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


def test_a_first_fact_is_a_coverage() -> None:
    """The first fact about an entity makes its document, owned by the account that asked."""
    assert merge(None, fact(0, 2, newest=1), at(3)) == Coverage(
        entity_id="m",
        scale="max",
        types=TYPES,
        covered=(span(0, 2),),
        newest=at(1),
        owner="me",
        owned=at(3),
        rev=0,
    )


def test_newest_is_the_newest() -> None:
    """An empty or older window never moves the newest row back."""
    coverage = merge(None, fact(0, 2, newest=1.5), at(3))

    assert merge(coverage, fact(2, 4), at(5)).newest == at(1.5)
    assert merge(coverage, fact(-5, 0, newest=-1), at(5)).newest == at(1.5)
    assert merge(coverage, fact(2, 4, newest=3), at(5)).newest == at(3)
    assert merge(merge(None, fact(0, 2), at(3)), fact(2, 4), at(5)).newest is None


@pytest.mark.parametrize("types", [("Temperature",), ("CO2", "Temperature"), ()])
def test_other_types_start_anew(types: tuple[str, ...]) -> None:
    """A window asked for other types covers only itself: all older ones are missing again."""
    coverage = replace(merge(None, fact(0, 9, newest=8), at(9)), rev=7)

    anew = merge(coverage, fact(9, 10, newest=None, types=types), at(10))

    assert (anew.types, anew.covered, anew.newest, anew.rev) == (types, (span(9, 10),), None, 7)


def test_merge_keeps_the_revision() -> None:
    """The revision is the store's to count."""
    coverage = replace(merge(None, fact(0, 1), at(1)), rev=4)

    assert merge(coverage, fact(1, 2), at(2)).rev == 4


# --- ownership ------------------------------------------------------------------------------------


def owned(since: datetime) -> Coverage:
    return merge(None, fact(0, 1), since)


def test_reading_renews_ownership() -> None:
    """Each answer of the owner renews it, an older one does not take time back."""
    coverage = merge(owned(at(0)), fact(1, 2), at(100))

    assert (coverage.owner, coverage.owned) == ("me", at(100))
    assert merge(coverage, fact(2, 3), at(50)).owned == at(100)


@pytest.mark.parametrize(
    ("later", "owner"),
    [(timedelta(0), "me"), (OWNERSHIP - HOUR, "me"), (OWNERSHIP, "you")],
)
def test_another_account_takes_over_after_a_week(later: timedelta, owner: str) -> None:
    """A second account's rows count at once, but it owns the history only after 7 days."""
    coverage = merge(owned(at(0)), fact(1, 2, account="you"), at(0) + later)

    assert coverage.covered == (span(0, 2),)
    assert coverage.owner == owner
    assert coverage.owned == (at(0) if owner == "me" else at(0) + later)


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


def test_load_takes_what_the_store_says_and_nothing_else() -> None:
    """A loaded ledger holds exactly the documents of the store."""
    ledger = Ledger()
    ledger.absorb([merge(None, fact(0, 1), at(1))])
    assert not ledger.loaded

    other = replace(owned(at(0)), entity_id="n")
    ledger.load([other])

    assert ledger.loaded
    assert (ledger.find("n", "max"), ledger.find("m", "max"), len(ledger)) == (other, None, 1)


def test_absorb_replaces_one_document() -> None:
    """A document that was just written replaces its predecessor and no other."""
    ledger = Ledger()
    ledger.load([owned(at(0)), replace(owned(at(0)), scale="1day")])
    newer = replace(owned(at(5)), rev=3)

    ledger.absorb([newer])

    assert ledger.find("m", "max") == newer
    assert ledger.find("m", "1day") == replace(owned(at(0)), scale="1day")
    assert len(ledger) == 2


def test_forget_knows_nothing() -> None:
    """After the store was replaced nothing is known until it is loaded again."""
    ledger = Ledger()
    ledger.load([owned(at(0))])

    ledger.forget()

    assert (ledger.loaded, len(ledger), ledger.find("m", "max")) == (False, 0, None)
