"""A module's rows as the cloud has them, and its answers: what the ledger is judged against.

Hours count from START, so that examples stay short; a row is an instant and takes its second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce

from hypothesis import strategies as st

from netatmo_ingestd.intervals import join
from netatmo_ingestd.ledger import SILENCE, merge
from netatmo_ingestd.models import Coverage, Entity, Fact, Interval, Priority
from netatmo_ingestd.sources import MODULE_TYPES
from netatmo_ingestd.sources.measure import answered, rows_poll
from netatmo_ingestd.sources.quantities import day_types

START = datetime(2025, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
BEGIN, NOW = 0, 60  # hours of the generated histories
TYPES = ("Temperature", "CO2")
MAIN_TYPES = MODULE_TYPES["NAMain"].history
DAY_TYPES_OF_MAIN = tuple(day_types(MAIN_TYPES))
MODULE = Entity("me", "module", "m", "h", "d", "NAMain", {})


def at(hour: float) -> datetime:
    return START + hour * HOUR


def span(begin: float, end: float) -> Interval:
    return at(begin), at(end)


@dataclass
class Truth:
    """Rows by hour, each with the hour from which on the cloud shows it.

    page  how many rows an answer holds at most
    """

    rows: dict[float, float] = field(default_factory=dict)
    page: int = 4

    @classmethod
    def of(cls, hours: Iterable[float], page: int = 4) -> Truth:
        return cls({hour: hour for hour in hours}, page)

    def seen(self, begin: float, asked: float) -> list[float]:
        """Hours of the rows from `begin` on that are visible at `asked`."""
        return sorted(
            hour for hour, shown in self.rows.items() if begin <= hour < asked and shown <= asked
        )

    def answer(
        self,
        begin: float | datetime,
        asked: float,
        *,
        walked: float | None = None,
        types: tuple[str, ...] = TYPES,
        account: str = "me",
    ) -> Fact:
        """The fact of one answer: the oldest rows from `begin` on, whole when they are few."""
        first = begin if isinstance(begin, datetime) else at(begin)
        all_rows = [each for each in self.seen(-1e9, asked) if at(each) >= first]
        rows = all_rows[: self.page]
        start = None if walked is None else at(walked)
        poll = rows_poll(account, MODULE, types, first, priority=Priority.HISTORY, walked=start)
        spans = [(at(hour), at(hour) + SECOND) for hour in rows]
        fact = answered(poll, spans, at(asked), at(asked), full=len(rows) >= self.page)
        assert fact is not None
        return fact

    def stretches(self, asked: float) -> tuple[Interval, ...]:
        """Where rows lie at most 6 h apart, by what is visible at `asked`."""
        spans = [(at(hour), at(hour) + SECOND) for hour in self.seen(-1e9, asked)]
        return join(spans, SILENCE)


def coverage(
    covered: Iterable[tuple[float, float]] = ((0, 1),),
    *,
    newest: float | None = None,
    asked: float | None = None,
    filled: Iterable[tuple[float, float]] = (),
    reread: tuple[float, ...] = (0, 0),
    scale: str = "max",
    types: tuple[str, ...] = TYPES,
    owner: str = "me",
    owned: float = 0,
) -> Coverage:
    """A coverage in hours."""
    windows = tuple(span(*each) for each in covered)
    end = windows[-1][1] if windows else None
    return Coverage(
        entity_id="m",
        scale=scale,
        types=types,
        covered=windows,
        newest=None if newest is None else at(newest),
        owner=owner,
        owned=at(owned),
        filled=tuple(span(*each) for each in filled),
        asked=end if asked is None else at(asked),
        reread=tuple(at(each) for each in reread),
    )


rows = st.dictionaries(
    st.integers(BEGIN, NOW - 1),
    st.just(0) | st.integers(10, NOW + 10),  # some are visible only later
    max_size=25,
).map(lambda told: {float(hour): float(max(hour, shown)) for hour, shown in told.items()})
truths = st.builds(Truth, rows, st.integers(2, 6))
questions = st.lists(
    st.tuples(st.integers(BEGIN, NOW - 1), st.integers(1, NOW)), min_size=1, max_size=10
)


def folded(facts: Iterable[Fact], first: Coverage | None = None) -> Coverage:
    found = reduce(lambda known, fact: merge(known, fact, fact.asked), facts, first)
    assert found is not None
    return found


def answers(truth: Truth, asked: Sequence[tuple[int, int]]) -> list[Fact]:
    """Answers to questions (from where on, asked when), in the order of asking."""
    ordered = sorted(asked, key=lambda each: each[1])
    return [truth.answer(begin, when) for begin, when in ordered if begin < when]
