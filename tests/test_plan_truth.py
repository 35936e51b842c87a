"""Weeks of a module's life by the plan alone: in the end every row the cloud has is found.

Trailing reads, history and late re-reads as they would be made, against a truth with outages, late
rows and a daemon that is off now and then. No clock, no network: a loop over half days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import ledger
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.models import Coverage, Fact
from netatmo_ingestd.plan import History, Step, steps, trailing_begin
from tests.truth import HOUR, MAIN_TYPES, MODULE, Truth, at, coverage

LIFE = 50 * 24  # hours with late rows and outages
END = LIFE + 16 * 24  # then everything is calm
EVERY = 4  # hours between two rows
TICK = 12
LATE = 14 * 24

stretches = st.lists(st.tuples(st.integers(0, LIFE), st.integers(1, 20 * 24)), max_size=4)
late_rows = st.lists(
    st.tuples(st.integers(0, LIFE), st.integers(1, 120), st.integers(1, LATE)), max_size=4
)


@dataclass
class Life:
    """What one module's reads have found so far.

    memory  the ledger, which runs ahead of `stored` by the facts on the `spool`
    """

    truth: Truth
    memory: Ledger = field(default_factory=Ledger)
    stored: Coverage | None = None
    spool: list[Fact] = field(default_factory=list)
    newest: datetime | None = None
    found: set[float] = field(default_factory=set)
    calls: int = 0

    def ask(self, begin: datetime, now: float, walked: datetime | None = None) -> Fact:
        self.calls += 1
        start = None if walked is None else (walked - at(0)) / HOUR
        fact = self.truth.answer(begin, now, walked=start, types=MAIN_TYPES)
        self.memory.note([fact])
        self.spool.append(fact)
        self.found |= set(self.truth.seen((begin - at(0)) / HOUR, now)[: self.truth.page])
        self.newest = max((each for each in (self.newest, fact.newest) if each), default=None)
        return fact

    def walk(self, begin: datetime, now: float) -> None:
        """All pages from there on."""
        fact = self.ask(begin, now, begin)
        while not fact.whole:
            fact = self.ask(fact.end, now, begin)

    def write(self) -> None:
        """The spool is drained, and the ledger in memory told so."""
        for fact in self.spool:
            self.stored = ledger.merge(self.stored, fact, fact.asked)
        self.spool.clear()
        self.memory.absorb([self.stored] if self.stored else [])

    def restart(self, now: float) -> None:
        """The first read takes place before the ledger was read from the store."""
        self.memory = Ledger()
        self.walk(trailing_begin(at(now), self.newest, first=True), now)
        self.write()
        self.memory.load([self.stored] if self.stored else [])

    @property
    def fine(self) -> Coverage | None:
        return self.memory.find("m", "max")

    def due(self, now: float) -> list[Step]:
        days = coverage([(0, now)], newest=now, filled=[(0, now)], scale="1day", reread=())
        of = History("me", MODULE, MAIN_TYPES, "max", self.fine, days, "all")
        return [each for each in steps(of, at(now)) if each.poll.scale == "max"]


def a_truth(outages: list[tuple[int, int]], late: list[tuple[int, int, int]]) -> Truth:
    """Rows each four hours but in outages; some hours of them are shown only later."""
    rows = {}
    for hour in range(0, END, EVERY):
        if any(begin <= hour < begin + length for begin, length in outages if hour < LIFE):
            continue
        waits = [by for begin, length, by in late if begin <= hour < begin + length]
        rows[float(hour)] = float(hour + max(waits, default=0))
    return Truth(rows, page=30)


@settings(deadline=None, max_examples=30)
@given(stretches, late_rows, stretches, st.booleans(), st.integers(1, 9))
def test_in_the_end_every_row_is_found(
    outages: list[tuple[int, int]],
    late: list[tuple[int, int, int]],
    off: list[tuple[int, int]],
    restarts: bool,
    lag: int,
) -> None:
    """Rows up to 14 days late, of any outage, whatever the daemon missed; and then it rests."""
    life = Life(a_truth(outages, late))
    starts = True
    for now in range(TICK, END, TICK):
        if any(begin <= now < begin + length for begin, length in off if now < LIFE):
            starts = starts or restarts
            continue
        if starts or (restarts and now % 7 == 0):
            life.restart(now)
        life.walk(trailing_begin(at(now), life.newest, first=False), now)
        starts = False
        if now // TICK % lag == 0:
            life.write()
        for _ in range(20):
            due = life.due(now)
            if not due:
                break
            step = min(due, key=lambda each: (each.poll.endpoint.priority, each.rank))
            assert step.poll.begin is not None
            if step.poll.endpoint.priority == 4:
                life.walk(step.poll.begin, now)
            else:
                life.ask(step.poll.begin, now, step.poll.begin)
        else:
            raise AssertionError(f"it finds no rest at {now}: {due}")

    life.write()
    assert life.fine is not None
    assert life.fine == life.stored
    # What the cloud shows last is found by the next weekly re-read.
    wanted = set(life.truth.seen(0, END - 7 * 24 - 2 * TICK)) - set(range(TICK))
    assert not wanted - life.found
    assert ledger.missing(life.fine, life.fine.covered[0][0]) == ()
    assert not ledger.doubtful(life.fine, at(END))
    # One trailing read each half day, two re-reads a day at most, and what was missed.
    assert life.calls <= 8 * END / 24 + 30
