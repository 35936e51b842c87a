"""Which intervals of an entity's rows are in the store: interval algebra, pure.

The ledger lives in MongoDB beside the data it describes, one `coverage` document for each entity
and scale; `Ledger` is its copy in memory. A fact enters only after its records are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from netatmo_ingestd.models import Coverage, Fact

Interval = tuple[datetime, datetime]
OWNERSHIP = timedelta(days=7)
"""How long an account that stopped reading a module stays the owner of its history."""


def add(intervals: Sequence[Interval], begin: datetime, end: datetime) -> tuple[Interval, ...]:
    """`intervals` (ascending, disjoint, half-open) with [begin, end) added."""
    if end <= begin:
        return tuple(intervals)
    before = [each for each in intervals if each[1] < begin]
    after = [each for each in intervals if each[0] > end]
    touched = intervals[len(before) : len(intervals) - len(after)]
    first = min([begin, *(each[0] for each in touched)])
    last = max([end, *(each[1] for each in touched)])
    return (*before, (first, last), *after)


def covers(intervals: Sequence[Interval], begin: datetime, end: datetime) -> bool:
    """True when one interval holds all of [begin, end)."""
    return any(each[0] <= begin and end <= each[1] for each in intervals)


def merge(coverage: Coverage | None, fact: Fact, moment: datetime) -> Coverage:
    """The coverage after `fact`; another list of types starts it anew.

    moment  when the answer was stored; renews the account's ownership
    """
    if coverage is None or coverage.types != fact.types:
        rev = coverage.rev if coverage else 0
        return Coverage(
            entity_id=fact.entity_id,
            scale=fact.scale,
            types=fact.types,
            covered=add((), fact.begin, fact.end),
            newest=fact.newest,
            owner=fact.account,
            owned=moment,
            rev=rev,
        )
    newest = max((each for each in (coverage.newest, fact.newest) if each), default=None)
    keeps_owner = coverage.owner != fact.account and moment - coverage.owned < OWNERSHIP
    return replace(
        coverage,
        covered=add(coverage.covered, fact.begin, fact.end),
        newest=newest,
        owner=coverage.owner if keeps_owner else fact.account,
        owned=coverage.owned if keeps_owner else max(coverage.owned, moment),
    )


class Ledger:
    """The coverage of everything, in memory; `loaded` once it was read from the store."""

    def __init__(self) -> None:
        self.loaded = False
        self._coverage: dict[tuple[str, str], Coverage] = {}

    def load(self, documents: Iterable[Coverage]) -> None:
        """Take what the store says, and nothing else."""
        self._coverage = {(each.entity_id, each.scale): each for each in documents}
        self.loaded = True

    def forget(self) -> None:
        """The store was replaced: nothing is known until it is read again."""
        self._coverage = {}
        self.loaded = False

    def absorb(self, documents: Iterable[Coverage]) -> None:
        """Take documents that were just written."""
        for each in documents:
            self._coverage[each.entity_id, each.scale] = each

    def find(self, entity_id: str, scale: str) -> Coverage | None:
        return self._coverage.get((entity_id, scale))

    def __len__(self) -> int:
        return len(self._coverage)

    def owned_by_other(self, entity_id: str, scale: str, account: str, now: datetime) -> bool:
        """True when another account reads this history and did so within 7 days."""
        coverage = self.find(entity_id, scale)
        return (
            coverage is not None and coverage.owner != account and now - coverage.owned < OWNERSHIP
        )
