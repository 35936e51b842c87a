"""What the cloud keeps of devices and rooms: rows as `measure` folds them (netatmo-api 3.3, 3.4).

Thermostats and rooms have a sample each ten minutes, meters a sum each half hour by tariff.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.household import CLIMATE, Device, Household, Room
from netatmo_ingestd.simulator.world import DAY, Stamped, World

ROOM_FIELDS = ("Temperature", "sp_temperature")
THERMOSTAT_FIELDS = (*ROOM_FIELDS, "boileron", "boileroff")
_METER = ("sum_energy_buy_from_grid", "sum_energy_buy_from_grid_price")
_ECOMETER = ("sum_energy_elec", "sum_energy_price")
_NO_METERS = {"NLG", "NLV", "NLT"}
_FLUIDS = ("#6", "#7", "#8")  # lines of gas and water: no type is known to answer


@dataclass(frozen=True, slots=True)
class Kept:
    """A device or room of which rows are kept.

    rows  every one in [begin, end], by stamp; a meter's is the begin of its half hour
    late  seconds after a stamp at which its row can be seen
    """

    id: str
    fields: tuple[str, ...]
    setup: int
    zone: ZoneInfo
    rows: Callable[[float, float], Iterator[Stamped]]
    late: int = 0


class KeptView:
    """What of it can be seen at `now`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def walk(self, kept: Kept, begin: float, end: float) -> Iterator[Stamped]:
        return kept.rows(max(begin, kept.setup), min(end, self.now - kept.late))

    def rows(self, kept: Kept, begin: float, end: float, limit: int | None = None) -> list[Stamped]:
        return list(islice(self.walk(kept, begin, end), limit))

    def newest(self, kept: Kept) -> Stamped | None:
        last = deque(self.walk(kept, self.now - DAY, self.now), maxlen=1)
        return last[0] if last else None


def find(world: World, name: str) -> Kept | None:
    """What is kept of the device or room of that id, whichever home it is in."""
    for household in world.households.values():
        for room in household.rooms:
            if room.id == name:
                return of_room(household, room)
        for device in household.devices:
            if device.id == name:
                return of_device(world, household, device)
    return None


def room_scope(household: Household, room: Room) -> str:
    """What its history takes: the scope of a device that measures it."""
    inside = (each for each in household.of_type(*CLIMATE) if each.room_id == room.id)
    return next((each.scope for each in inside), "read_thermostat")


def of_room(household: Household, room: Room) -> Kept | None:
    """The history of a room; None without anything in it that measures."""
    if room not in household.warmed():
        return None
    zone = ZoneInfo(household.zone)
    setup = household.devices[0].setup

    def rows(begin: float, end: float) -> Iterator[Stamped]:
        for at in lives.sample_times(room.salt, begin, end):
            yield at, (lives.temperature(room, at), lives.setpoint(room, zone, at)[0])

    return Kept(room.id, ROOM_FIELDS, setup, zone, rows)


def of_device(world: World, household: Household, device: Device) -> Kept | None:
    """The history of a thermostat or meter; None of anything else."""
    zone = ZoneInfo(household.zone)
    if device.type in ("NATherm1", "OTM"):
        return _of_thermostat(household, device, zone)
    if device.type == "NLE":
        lines = "#" in device.id and not device.id.endswith(_FLUIDS)
        return _of_meter(world, device, zone, _ECOMETER) if lines else None
    if device.scope != "read_magellan" or device.type in _NO_METERS:
        return None
    return _of_meter(world, device, zone, _METER)


def _of_thermostat(household: Household, device: Device, zone: ZoneInfo) -> Kept:
    room = next(each for each in household.rooms if each.id == device.room_id)

    def samples(begin: float, end: float) -> Iterator[Stamped]:
        for at in lives.sample_times(device.salt, begin, end):
            on = round(lives.boiler_on_seconds(device, at - lives.SAMPLE_S, at))
            warmth = lives.temperature(room, at), lives.setpoint(room, zone, at)[0]
            yield at, (*warmth, on, lives.SAMPLE_S - on)

    return Kept(device.id, THERMOSTAT_FIELDS, device.setup, zone, samples)


def _of_meter(world: World, device: Device, zone: ZoneInfo, names: tuple[str, str]) -> Kept:
    fields = tuple(f"{name}${number}" for name in names for number in range(3))

    def halves(begin: float, end: float) -> Iterator[Stamped]:
        first, last = -(-int(begin) // lives.HALF), int(end) // lives.HALF
        for half in range(first, last + 1):
            told = lives.energy(device, zone, half, world.contract)
            row: Any = (*told, *lives.price(told))
            yield half * lives.HALF, row

    setup = -(-device.setup // lives.HALF) * lives.HALF
    return Kept(device.id, fields, setup, zone, halves, late=lives.HALF + lives.METER_LATE_S)
