"""Which intervals of an entity's rows are in the store, and what is still to be asked. Pure.

The ledger lives in MongoDB beside the data it describes, one `coverage` document for each entity
and scale; `Ledger` is its copy in memory. In the store a fact enters only after its records.

    covered      answered, up to the newest row of the answer, and stored; however many rows
    empty        a covered stretch of over 6 h without rows; final (`confirmed`) after two equal
                 answers at least 24 h apart, both of which showed a newer row
    provisional  whatever is younger than 14 days: it is read again (`DEPTHS`); and silence behind
                 the newest row (`quiet`), which is missing once a row appears behind it
    missing      never answered, or answered only before a later row appeared
    forgotten    deleted by the owner: neither missing nor empty, whatever else is known

Facts may come in any order and more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from netatmo_ingestd.intervals import add, intersect, join, longer, subtract
from netatmo_ingestd.models import Coverage, Fact, Interval

OWNERSHIP = timedelta(days=7)
"""How long an account that stopped reading a module stays the owner of its history."""
SILENCE = timedelta(hours=6)
CONFIRM_AFTER = timedelta(hours=24)
_NEXT = timedelta(seconds=1)
DEPTHS: tuple[tuple[timedelta, timedelta], ...] = (
    (timedelta(days=1), timedelta(days=2)),
    (timedelta(days=7), timedelta(days=14)),
)
"""Late re-reads: (how often, how far before the previous one of that depth)."""
DAY_DEPTHS = ((timedelta(days=1), timedelta(days=14)),)
"""The same for day rows: one call holds them all."""


def depths(scale: str) -> tuple[tuple[timedelta, timedelta], ...]:
    return DAY_DEPTHS if scale == "1day" else DEPTHS


# --- what a coverage says -----------------------------------------------------------------------


def missing(coverage: Coverage, begin: datetime) -> tuple[Interval, ...]:
    """What of the time from `begin` up to the last question was never answered for good."""
    if coverage.asked is None or coverage.asked <= begin:
        return ()
    settled = join((*coverage.covered, *coverage.quiet, *coverage.forgotten))
    return subtract(((begin, coverage.asked),), settled)


def empty(coverage: Coverage) -> tuple[Interval, ...]:
    """Covered stretches of over 6 h without a row."""
    return longer(subtract(coverage.covered, coverage.filled), SILENCE)


def doubtful(coverage: Coverage, now: datetime) -> tuple[Interval, ...]:
    """Empty stretches that are not final and may be asked about again by now."""
    fresh = [(begin, end) for begin, end, when in coverage.once if now - when < CONFIRM_AFTER]
    settled = join((*coverage.confirmed, *coverage.forgotten, *fresh))
    return subtract(empty(coverage), settled)


# --- facts become coverage ----------------------------------------------------------------------


def merge(coverage: Coverage | None, fact: Fact, moment: datetime) -> Coverage:
    """The coverage after `fact`; another list of types starts it anew.

    moment  when the answer was given; renews the account's ownership
    """
    alone = _alone(fact, moment)
    if coverage is None or coverage.types != fact.types:
        if coverage is None:
            return alone
        return replace(alone, rev=coverage.rev, forgotten=coverage.forgotten)
    both = combine(alone, coverage)
    keeps_owner = coverage.owner != fact.account and moment - coverage.owned < OWNERSHIP
    return _confirm(
        replace(
            both,
            reread=_reread(coverage, fact),
            owner=coverage.owner if keeps_owner else fact.account,
            owned=coverage.owned if keeps_owner else max(coverage.owned, moment),
        ),
        fact,
    )


def combine(one: Coverage, other: Coverage) -> Coverage:
    """What both together know of one entity; owner and revision are those of `other`."""
    newest = max((each.newest for each in (one, other) if each.newest), default=None)
    quiet = [each for each in (*one.quiet, *other.quiet) if newest is None or each[0] > newest]
    both = replace(
        other,
        covered=join((*one.covered, *other.covered)),
        quiet=join(quiet),
        filled=join((*one.filled, *other.filled), SILENCE),
        newest=newest,
        asked=max((each.asked for each in (one, other) if each.asked), default=None),
        reread=tuple(map(max, zip(one.reread, other.reread, strict=False))),
        confirmed=join((*one.confirmed, *other.confirmed)),
        forgotten=join((*one.forgotten, *other.forgotten)),
    )
    return _still_empty(both, (*one.once, *other.once))


def _alone(fact: Fact, moment: datetime) -> Coverage:
    """A coverage that knows this fact only."""
    known = fact.filled[-1][1] if fact.filled else fact.begin
    return _confirm(
        Coverage(
            entity_id=fact.entity_id,
            scale=fact.scale,
            types=fact.types,
            covered=add((), fact.begin, known),
            quiet=add((), known, fact.end),
            filled=fact.filled,
            newest=fact.newest,
            # Behind a full page may be more: what follows it is missing until somebody looks.
            asked=fact.end if fact.whole else fact.end + _NEXT,
            reread=(fact.asked,) * len(depths(fact.scale)),
            owner=fact.account,
            owned=moment,
        ),
        fact,
    )


def _reread(coverage: Coverage, fact: Fact) -> tuple[datetime, ...]:
    """How far each depth has come: a walk up to the cloud's now, from far enough back, ends it.

    What its first page showed is as old as that page, so that is how far it has come.
    """
    if not fact.whole:
        return coverage.reread
    walked = fact.walked or fact.begin
    first = coverage.covered[0][0] if coverage.covered else fact.begin
    return tuple(
        max(done, fact.since or fact.asked) if walked <= max(done - depth, first) else done
        for done, (_, depth) in zip(coverage.reread, depths(fact.scale), strict=False)
    )


def _confirm(coverage: Coverage, fact: Fact) -> Coverage:
    """The answer of `fact` found its part of each empty stretch empty, and showed a newer row."""
    if not fact.filled:
        return coverage
    window = (fact.begin, fact.filled[-1][1])
    found = subtract(intersect(empty(coverage), (window,)), coverage.confirmed)
    if not found:
        return coverage
    twice = [
        (begin, end) for begin, end, when in coverage.once if fact.asked - when >= CONFIRM_AFTER
    ]
    final = intersect(found, join(twice))
    known = join([(begin, end) for begin, end, _ in coverage.once])
    fresh = [(*each, fact.asked) for each in subtract(found, known)]
    settled = replace(coverage, confirmed=join((*coverage.confirmed, *final)))
    return _still_empty(settled, (*coverage.once, *fresh))


def _still_empty(
    coverage: Coverage, once: Iterable[tuple[datetime, datetime, datetime]]
) -> Coverage:
    """Drop from both lists what has rows by now; of two answers about a stretch keep the first."""
    stretches = empty(coverage)
    confirmed = intersect(coverage.confirmed, stretches)
    kept: list[tuple[datetime, datetime, datetime]] = []
    left = subtract(stretches, confirmed)
    for begin, end, when in sorted(once, key=lambda each: (each[2], each[0])):
        pieces = intersect(left, ((begin, end),))
        kept += [(*piece, when) for piece in pieces]
        left = subtract(left, pieces)
    return replace(coverage, confirmed=confirmed, once=tuple(sorted(kept)))


class Ledger:
    """The coverage of everything, in memory; `loaded` once it was read from the store.

    It runs ahead of the store by the facts on the spool, so that nothing is asked twice.
    """

    def __init__(self) -> None:
        self.loaded = False
        self._coverage: dict[tuple[str, str], Coverage] = {}

    def load(self, documents: Iterable[Coverage]) -> None:
        """Take what the store says, and keep what lies on the spool."""
        for each in documents:
            self.absorb((each,))
            ahead = self._coverage[each.entity_id, each.scale]
            if ahead.types == each.types:
                # A first read after the start is no late re-read: it knew not how far those were.
                self._coverage[each.entity_id, each.scale] = replace(ahead, reread=each.reread)
        self.loaded = True

    def forget(self) -> None:
        """The store was replaced: nothing is known until it is read again."""
        self._coverage = {}
        self.loaded = False

    def note(self, facts: Sequence[Fact]) -> None:
        """Take facts that are on the spool now."""
        for fact in facts:
            key = fact.entity_id, fact.scale
            self._coverage[key] = merge(self._coverage.get(key), fact, fact.asked)

    def absorb(self, documents: Iterable[Coverage]) -> None:
        """Take documents that were just read or written."""
        for each in documents:
            ahead = self.find(each.entity_id, each.scale)
            if ahead and ahead.types != each.types:
                continue  # asked with other types since; the fact that says so is on the spool
            self._coverage[each.entity_id, each.scale] = combine(ahead, each) if ahead else each

    def find(self, entity_id: str, scale: str) -> Coverage | None:
        return self._coverage.get((entity_id, scale))

    def forgotten(self, entity_id: str, scale: str) -> tuple[Interval, ...]:
        """What the owner deleted of an entity."""
        coverage = self.find(entity_id, scale)
        return coverage.forgotten if coverage else ()

    def all(self) -> list[Coverage]:
        return list(self._coverage.values())

    def __len__(self) -> int:
        return len(self._coverage)

    def owned_by_other(self, entity_id: str, scale: str, account: str, now: datetime) -> bool:
        """True when another account reads this history and did so within 7 days."""
        coverage = self.find(entity_id, scale)
        return (
            coverage is not None and coverage.owner != account and now - coverage.owned < OWNERSHIP
        )
