"""What of the world can be seen now: uploads so far, and faults that keep, delay or change rows.

Rows that cannot be seen lie in holes: never measured (`gap`), lost or still waiting in a station
without connection (`offline`), or under way (`late`). `revised` changes values; `replaced` puts a
new module in the place of an old one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from netatmo_ingestd.simulator.curves import Value, tenths
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.world import STEP, Module, Sample, Stamped, Station, World

_BACK = 3 * STEP  # wherever a module measures, so long a stretch holds a row

Window = tuple[float, float]
"""[begin, end) in epoch seconds, infinite where it is open."""


class View:
    """The world as one request finds it at `now`, with the world faults it meets."""

    def __init__(self, world: World, now: float, faults: Sequence[Fault] = ()) -> None:
        self.world = world
        self.now = now
        self.faults = faults

    def touching(self, kind: str, module: Module) -> list[Fault]:
        """Armed faults of a kind that concern this module."""
        return [f for f in self.faults if f.kind == kind and f.touches(module.id, module.station)]

    # --- who there is --------------------------------------------------------------------------

    def members(self, station: Station) -> tuple[Module, ...]:
        """The modules behind a station now, new ones in the places of those they replaced."""
        return tuple(self._line(module)[-1] for module in station.modules)

    def find(self, module_id: str) -> Module | None:
        """A module of this world, or one that has taken a place in it."""
        module = self.world.by_id.get(module_id)
        if module is not None or not any(fault.kind == "replaced" for fault in self.faults):
            return module
        everyone = chain.from_iterable(map(self._line, self.world.modules()))
        return next((module for module in everyone if module.id == module_id), None)

    def present(self, module: Module) -> bool:
        """Whether the account still has it."""
        return self._replaced(module) is None and not self.touching("vanished", module)

    def _line(self, module: Module) -> list[Module]:
        """A module and those that took its place, one after the other."""
        line = [module]
        while (at := self._replaced(line[-1])) is not None:
            line.append(self.world.successor(line[-1], at))
        return line

    def _replaced(self, module: Module) -> int | None:
        """When another module took the place of this one; a station stays."""
        if module.id == module.station:
            return None
        moments = [int(_or(f.params["at"], f.armed)) for f in self.touching("replaced", module)]
        return min((at for at in moments if module.setup < at <= self.now), default=None)

    # --- when ----------------------------------------------------------------------------------

    def uploaded(self, module: Module) -> int:
        """The last upload of its station that brought news of this module; 0 when none did."""
        horizon = self._horizon(module)
        if not self.touching("gap", module):
            return horizon
        newest = self.newest(module)
        if newest is None:
            return 0
        return min(horizon, self.world.next_upload(self.world.station_of(module), newest[0]))

    def _horizon(self, module: Module) -> int:
        """The last upload that carried whatever the module had measured."""
        silences: list[float] = [fault.armed for fault in self.touching("unreachable", module)]
        replaced = self._replaced(module)
        if replaced is not None:
            silences.append(replaced)
        return self._upload(module, min([self.now, *silences]))

    def _upload(self, module: Module, moment: float) -> int:
        """The last upload at or before `moment` that fell into no `offline` time."""
        station = self.world.station_of(module)
        outages = [_window(fault, fault.armed) for fault in self.touching("offline", module)]
        last = self.world.uploaded(station, moment)
        while around := [begin for begin, end in outages if begin <= last < end]:
            last = self.world.uploaded(station, math.ceil(min(around)) - 1)
        return last

    # --- what ----------------------------------------------------------------------------------

    def walk(self, module: Module, begin: float, end: float) -> Iterator[Stamped]:
        """Visible rows in [begin, end], oldest first."""
        pieces = self._pieces(module, begin, end)
        rows = chain.from_iterable(self.world.walk(module, low, high) for low, high in pieces)
        return self._revised(module, rows)

    def rows(
        self, module: Module, begin: float, end: float, limit: int | None = None
    ) -> list[Stamped]:
        return list(islice(self.walk(module, begin, end), limit))

    def newest(self, module: Module) -> Stamped | None:
        """The last visible row."""
        for low, high in reversed(self._pieces(module, module.setup, self.now)):
            rows = self.world.walk(module, max(low, high - _BACK), high)
            last = deque(self._revised(module, rows), maxlen=1)
            if last:
                return last[0]
        return None

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

    def _pieces(self, module: Module, begin: float, end: float) -> list[Window]:
        """The parts of [begin, end] that lie before the horizon and in no hole; ends included."""
        horizon = self._horizon(module)
        end = min(end, horizon)
        pieces: list[Window] = []
        for low, high in sorted(self._holes(module, horizon)):
            if low > end:
                break
            if low > begin:
                pieces.append((begin, math.ceil(low) - 1))
            begin = max(begin, high)
        return [*pieces, (begin, end)] if begin <= end else pieces

    def _holes(self, module: Module, horizon: int) -> list[Window]:
        """Where rows are absent, for ever or until a later upload."""
        holes = [_window(fault, -math.inf) for fault in self.touching("gap", module)]
        for fault in self.touching("offline", module):
            begin, end = _window(fault, fault.armed)
            over = begin < end <= horizon
            if over and not fault.params["buffered"]:
                holes.append((begin, end))
            elif over and horizon < end + fault.params["newest_first_s"]:
                holes.append((self._upload(module, math.ceil(begin) - 1) + 1, end))
        for fault in self.touching("late", module):
            begin, end = _window(fault, fault.armed)
            arrived = math.floor(horizon - fault.params["hours"] * 3600)
            holes.append((max(begin, arrived + 1), end))
        return [(low, high) for low, high in holes if low < high]

    def _revised(self, module: Module, rows: Iterator[Stamped]) -> Iterator[Stamped]:
        for fault in self.touching("revised", module):
            if fault.params["type"] in module.fields:
                column = module.fields.index(fault.params["type"])
                rows = _revise(rows, fault, column, self.now)
        return rows


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _window(fault: Fault, begin: float) -> Window:
    """The window of a fault; `begin` holds where it names none."""
    return _or(fault.params["begin"], begin), _or(fault.params["end"], math.inf)


def _revise(rows: Iterator[Stamped], fault: Fault, column: int, now: float) -> Iterator[Stamped]:
    """Rows of the fault's window have a corrected value once they are `after_s` old."""
    delta, known = fault.params["delta"], now - fault.params["after_s"]
    begin, end = _window(fault, -math.inf)
    for at, row in rows:
        if begin <= at < end and at <= known:
            yield at, (*row[:column], _sum(row[column], delta), *row[column + 1 :])
        else:
            yield at, row


def _sum(value: Value, delta: float) -> Value:
    return tenths(round((value + delta) * 10))
