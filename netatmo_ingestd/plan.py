"""What a module's history still needs, in which order, and how much that is. Pure.

coarse   its day rows first: a few calls tell its whole life
fine     then its finest rows: about a year at a time, the newest year first, and within it full
         pages from old to new, since the cloud shows the oldest rows of a window
holes    are the same thing: whatever the ledger misses between two rows
rereads  late data: see ledger.DEPTHS; and empty stretches that one answer alone found empty

Beside it, from where on a trailing read asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from netatmo_ingestd import ledger
from netatmo_ingestd.intervals import intersect, longer, subtract, total
from netatmo_ingestd.models import Coverage, Entity, Interval, Priority
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.sources.days import LATE, days_poll, midnights, zone_of
from netatmo_ingestd.sources.measure import PAGE_ROWS, WIDTHS, on_grid, rows_poll
from netatmo_ingestd.sources.quantities import day_types

YEAR = timedelta(days=365)
FIRST_DAY = datetime(2012, 1, 1, tzinfo=UTC)
"""Before the first station was sold; day rows are asked from here on, which costs nothing."""
CHOICE = 10
"""How many holes of a module are offered at once: one that cannot be filled stops no other."""
STEP = timedelta(minutes=5)
BOILER_STEP = timedelta(minutes=10)  # of a thermostat
FIRST_REACH = timedelta(days=3.5)  # one page of five-minute rows
REACH = timedelta(hours=3)
BUCKETS_REACH = timedelta(hours=24)  # of meters and rooms, whose rows come late and are few
ROW_BYTES = 600
"""What a row takes on the disk of the store, indexes included (measured, embedded store)."""


@dataclass(frozen=True, slots=True)
class History:
    """One module's history as it stands.

    fine   coverage of its finest rows, `days` of its day rows; None before their first answer
    since  "all", "never" or a date
    types  upstream types of the finest rows
    """

    account: str
    entity: Entity
    types: tuple[str, ...]
    scale: str
    fine: Coverage | None
    days: Coverage | None
    since: str | date

    @property
    def step(self) -> timedelta:
        """From one of its finest rows to the next, about."""
        if self.scale != "max":
            return WIDTHS[self.scale]
        return BOILER_STEP if "boileron" in self.types else STEP

    @property
    def days_begin(self) -> datetime | None:
        """From when on its day rows are wanted; None while nothing tells, or it has none."""
        if not day_types(self.types):
            return None
        zone = zone_of(self.entity)
        if self.since == "all":
            return FIRST_DAY
        if isinstance(self.since, date):
            return midnights(zone, max(self.since, FIRST_DAY.date()))[0]
        begin = self.begin
        return midnights(zone, begin.astimezone(zone).date())[0] if begin else None

    @property
    def begin(self) -> datetime | None:
        """From when on its finest rows are wanted; None while nothing tells."""
        first = self.days.filled[0][0] if self.days and self.days.filled else None
        told = [each for each in (self.entity.setup, first) if each]
        covered = self.fine.covered[0][0] if self.fine and self.fine.covered else None
        if self.since == "never":
            return covered
        if not told:
            return covered
        begin = min(told)
        if isinstance(self.since, date):
            first_day = max(self.since, FIRST_DAY.date())
            begin = max(begin, midnights(zone_of(self.entity), first_day)[0])
        return begin

    def missing(self) -> tuple[Interval, ...]:
        """What is missing of its finest rows."""
        if self.fine is None or self.begin is None:
            return ()
        return ledger.missing(self.fine, self.begin)

    def share(self) -> float:
        """How much of its life is covered, 0 to 1; silence at the edge counts as covered."""
        if self.fine is None or self.begin is None or self.fine.asked is None:
            return 0.0
        life = self.fine.asked - self.begin
        return 1.0 - total(self.missing()) / life if life > timedelta(0) else 1.0

    def requests(self) -> int:
        """How many calls are still needed, as far as one can tell."""
        coarse = 0 if self.days or self.days_begin is None else 1
        return coarse + sum(-(-rows // PAGE_ROWS) or 1 for rows in self._rows())

    def rows(self) -> int:
        """About how many rows the missing stretches have."""
        return sum(self._rows())

    def _rows(self) -> Iterator[int]:
        """About how many rows each missing stretch has: none where no day has any."""
        holes = self.missing()
        pieces = deque(subtract(holes, ledger.empty(self.days) if self.days else ()))
        for _, end in holes:
            inside = []
            while pieces and pieces[0][0] < end:
                inside.append(pieces.popleft())
            yield int(total(inside) / self.step)


@dataclass(frozen=True, slots=True)
class Step:
    """One call that is due; `rank` orders calls of one priority, the lowest first."""

    rank: int
    poll: Poll

    @property
    def name(self) -> tuple[str, str, datetime | None]:
        """Two steps of one name ask the same."""
        return self.poll.entity_id, self.poll.scale, self.poll.begin


def steps(history: History, now: datetime) -> Iterator[Step]:
    """The calls of each kind that are due for a module, the most urgent first."""
    for coverage in (history.fine, history.days):
        if coverage is not None:
            for begin in _again(history, coverage, now):
                yield Step(0, _poll(history, coverage.scale, Priority.REREAD, begin))
    if history.fine is None:
        return  # its first trailing read comes first
    if first := history.days_begin:
        days = history.days
        unknown = ledger.missing(days, first) if days else ((first, now),)
        if unknown:
            # First: they tell where the finest rows begin, and where none are.
            yield Step(-1, _poll(history, "1day", Priority.HISTORY, unknown[-1][0]))
    silent = ledger.empty(history.days) if history.days else ()
    for hole in history.missing()[: -CHOICE - 1 : -1]:
        begin = stretch_begin(hole, silent)
        years = (now - hole[1]) // YEAR
        yield Step(years, _poll(history, history.scale, Priority.HISTORY, begin))


def stretch_begin(hole: Interval, silent: Sequence[Interval]) -> datetime:
    """Where the newest stretch of `hole` begins: about a year before its end.

    silent  stretches without a single day row; one call jumps over all of one
    """
    begin, end = hole
    if end - begin <= 1.5 * YEAR:
        return begin
    first = end - YEAR
    for quiet_begin, quiet_end in silent:
        if quiet_begin <= first < quiet_end:
            return max(begin, quiet_begin)
    return first


def _again(history: History, coverage: Coverage, now: datetime) -> Iterator[datetime]:
    """From where rows have to be asked for again by now."""
    due = [begin for when, begin in _rereads(history, coverage) if when <= now]
    if due:
        yield min(due)
    # One page confirms several of them: the oldest first.
    yield from (begin for begin, _ in ledger.doubtful(coverage, now)[:CHOICE])


def _rereads(history: History, coverage: Coverage) -> Iterator[tuple[datetime, datetime]]:
    """(when it is due, from where on) of each depth, while there are rows in that depth."""
    newest = [each.newest for each in (history.fine, coverage) if each and each.newest]
    # A module that is new has no day row yet, only silence that was answered.
    known = (*coverage.covered, *coverage.quiet)
    if not known or not newest:
        return
    for done, (every, depth) in zip(coverage.reread, ledger.depths(coverage.scale), strict=False):
        if max(newest) > done - depth:
            due, begin = done + every, done - depth
            if coverage.scale == "1day":
                zone = zone_of(history.entity)
                due = midnights(zone, (done - LATE).astimezone(zone).date())[1] + LATE
                begin = midnights(zone, begin.astimezone(zone).date())[0]
            yield due, max(begin, known[0][0]) if coverage.covered else known[0][0]


def _poll(history: History, scale: str, priority: Priority, begin: datetime) -> Poll:
    account, entity, types = history.account, history.entity, history.types
    if scale == "1day":
        return days_poll(account, entity, types, begin, priority=priority, walked=begin)
    return rows_poll(account, entity, types, begin, scale=scale, priority=priority, walked=begin)


# --- trailing reads -----------------------------------------------------------------------------


def trailing_begin(
    now: datetime, newest: datetime | None, *, first: bool, scale: str = "max"
) -> datetime:
    """Where a trailing read begins: at the newest row we have or 3 h back, whichever is earlier.

    Of buckets it is 24 h, and the begin of one. The first read after a start, and any without a
    known row, reaches 3.5 days back; no one reaches further, since that is one page of five-minute
    rows: what lies behind is a hole, for history to fill.
    """
    furthest = now - FIRST_REACH
    near = now - reach(scale)
    begin = furthest if first or newest is None else max(furthest, min(newest, near))
    return on_grid(begin.replace(microsecond=0), scale)


def reach(scale: str) -> timedelta:
    """How far back each trailing read reaches at least."""
    return REACH if scale == "max" else BUCKETS_REACH


# --- the coverage report -----------------------------------------------------------------------


def coverage_report(
    coverage: Sequence[Coverage], entities: Mapping[str, Entity]
) -> list[dict[str, Any]]:
    """Of each module and scale: percent covered by year, holes, and empty stretches.

    Its life begins with its set-up, or its first covered moment when that is earlier.
    """
    report = []
    for each in sorted(coverage, key=lambda one: (one.entity_id, one.scale)):
        entity = entities.get(each.entity_id)
        # Day rows and events are asked for from long before the first one.
        early = each.scale in ("1day", "events")
        begins = [each.covered[0][0]] if each.covered and not early else []
        if entity and entity.setup:
            begins.append(entity.setup)
        elif each.filled:
            begins.append(each.filled[0][0])
        begin = min(begins, default=each.asked)
        if begin is None or each.asked is None:
            continue
        holes, life = ledger.missing(each, begin), ((begin, each.asked),)
        report.append(
            {
                "module": each.entity_id,
                "name": entity.description["name"] if entity else "",
                "scale": each.scale,
                "percent": {
                    str(year): _percent(span, holes) for year, span in _years(begin, each.asked)
                },
                "holes": _listed(holes),
                "empty": _listed(intersect(ledger.empty(each), life)),
                "empty_final": _listed(intersect(longer(each.confirmed, ledger.SILENCE), life)),
                "forgotten": _listed(each.forgotten),
            }
        )
    return report


def _listed(intervals: Sequence[Interval]) -> list[list[datetime]]:
    return [list(each) for each in intervals]


def _years(begin: datetime, end: datetime) -> Iterator[tuple[int, Interval]]:
    for year in range(begin.year, end.year + 1):
        first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        yield year, (max(begin, first), min(end, last))


def _percent(span: Interval, holes: Sequence[Interval]) -> float:
    whole = total((span,))
    covered = total(subtract((span,), intersect((span,), holes)))
    # Rounded down: 100 is whole.
    return int(1e4 * (covered / whole if whole else 1.0)) / 100
