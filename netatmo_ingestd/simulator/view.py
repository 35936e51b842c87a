"""What of the world can be seen now: uploads so far, and world faults that delay or change rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from netatmo_ingestd.simulator.curves import Value, tenths
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.world import STEP, Module, Sample, Stamped, World

_BACK = 12 * STEP


class View:
    """The world as one request finds it at `now`, with the world faults it meets."""

    def __init__(self, world: World, now: float, faults: Sequence[Fault] = ()) -> None:
        self.world = world
        self.now = now
        self.faults = faults

    def touching(self, kind: str, module: Module) -> list[Fault]:
        """Armed faults of a kind that concern this module."""
        return [f for f in self.faults if f.kind == kind and f.touches(module.id, module.station)]

    def uploaded(self, module: Module) -> int:
        """The last upload of its station that brought news of this module."""
        silences = [fault.armed for fault in self.touching("unreachable", module)]
        moment = min([self.now, *silences])
        return self.world.uploaded(self.world.station_of(module), moment)

    def walk(self, module: Module, begin: float, end: float) -> Iterator[Stamped]:
        """Visible rows in [begin, end], oldest first."""
        horizon = self.uploaded(module)
        rows = self.world.walk(module, begin, min(end, horizon))
        for fault in self.touching("late", module):
            rows = _hold_back(rows, fault, horizon)
        for fault in self.touching("revised", module):
            if fault.params["type"] in module.fields:
                rows = _revise(rows, fault, module.fields.index(fault.params["type"]))
        return rows

    def rows(
        self, module: Module, begin: float, end: float, limit: int | None = None
    ) -> list[Stamped]:
        return list(islice(self.walk(module, begin, end), limit))

    def newest(self, module: Module) -> Stamped | None:
        """The last visible row; looks further back the longer the silence."""
        end, span = self.uploaded(module), _BACK
        while not (rows := self.rows(module, end - span, end)) and end - span > module.setup:
            span *= 8
        return rows[-1] if rows else None

    def samples(self, module: Module, begin: float, end: float) -> list[Sample]:
        """Visible rows with named values."""
        fields = module.fields
        return [
            (at, dict(zip(fields, row, strict=True))) for at, row in self.walk(module, begin, end)
        ]

    def strays(self, module: Module, where: str) -> list[Stamped]:
        """Rows stamped in the future by a `future` fault of this `where`."""
        newest = self.newest(module)
        if newest is None:
            return []
        faults = self.touching("future", module)
        return [
            (int(self.now + f.params["ahead_s"]), newest[1])
            for f in faults
            if f.params["where"] in (where, "both")
        ]


def _inside(fault: Fault, at: int, begin: float) -> bool:
    first = begin if fault.params["begin"] is None else fault.params["begin"]
    last = fault.params["end"]
    return bool(at >= first and (last is None or at < last))


def _hold_back(rows: Iterator[Stamped], fault: Fault, horizon: float) -> Iterator[Stamped]:
    """Rows of the fault's window arrive `hours` after they were measured."""
    delay = fault.params["hours"] * 3600
    return (r for r in rows if not _inside(fault, r[0], fault.armed) or r[0] + delay <= horizon)


def _revise(rows: Iterator[Stamped], fault: Fault, column: int) -> Iterator[Stamped]:
    """Rows of the fault's window have a corrected value."""
    delta = fault.params["delta"]
    for at, row in rows:
        if _inside(fault, at, float("-inf")):
            yield at, (*row[:column], _sum(row[column], delta), *row[column + 1 :])
        else:
            yield at, row


def _sum(value: Value, delta: float) -> Value:
    return tenths(round((value + delta) * 10))
