"""What rooms, devices and persons of a household do: functions of their salt and the time.

Whoever knows the seed can recompute every state and every row. Discrete state changes a few times a
day: the heating follows its schedule, doors open, people leave, lights go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator.curves import Value, hashed, tenths
from netatmo_ingestd.simulator.household import Device, Person, Room

DAY = 86_400
SLOT = 7_200
HALF = 1_800
_DAY_SET, _NIGHT_SET, _MANUAL_SET = 205, 170, 220  # tenths of °C
METER_LATE_S = 1_200
PRICES = (0.2516, 0.27, 0.2068)  # base, peak, off-peak: per kWh
PHASES = (1, 2, 3)
PEAK_MINUTES = (405, 1_330)  # of the local day: 06:45 to 22:10
SAMPLE_S = 600


# --- heating -----------------------------------------------------------------------------------


def setpoint(room: Room, zone: ZoneInfo, at: float) -> tuple[Value, str, int, int]:
    """(set-point, mode, since, until); `until` is 0 by the schedule, which has no end."""
    plan = _plan(room.salt, zone, int(at) // 900 * 900)
    since, mode, amount = next(each for each in reversed(plan) if each[0] <= at)
    ends = [each[0] for each in plan if each[0] > at]
    return tenths(amount), mode, since, ends[0] if mode == "manual" else 0


@lru_cache(maxsize=4096)
def _plan(salt: int, zone: ZoneInfo, at: int) -> tuple[tuple[int, str, int], ...]:
    """(since, mode, tenths of °C) around `at`, ascending."""
    today = datetime.fromtimestamp(at, zone).date()
    found = []
    for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
        steps = [(6, "schedule", _DAY_SET - salt % 3 * 5), (22, "schedule", _NIGHT_SET)]
        if (day.toordinal() + salt) % 4 == 0:
            steps += [(18, "manual", _MANUAL_SET), (20, "schedule", _DAY_SET - salt % 3 * 5)]
        for hour, mode, amount in sorted(steps):
            moment = datetime(day.year, day.month, day.day, hour, tzinfo=zone)
            found.append((int(moment.timestamp()), mode, amount))
    return tuple(found)


def temperature(room: Room, at: float) -> Value:
    wave = 12 * math.sin(2 * math.pi * (at / DAY - 0.4))
    return tenths(round(190 + wave) + hashed(room.salt, "noise", int(at) // SAMPLE_S) % 4)


def humidity(room: Room, at: float) -> int:
    return 45 + hashed(room.salt, "humidity", int(at) // SAMPLE_S) % 15


def outdoors(device: Device, at: float) -> Value:
    """What a relay is told of the outside."""
    wave = 45 * math.sin(2 * math.pi * (at / DAY - 0.4))
    return tenths(round(70 + wave) + hashed(device.salt, "outside", int(at) // SAMPLE_S) % 4)


def power_request(room: Room, zone: ZoneInfo, at: float) -> int:
    """Per cent of its radiators."""
    missing = float(setpoint(room, zone, at)[0]) - float(temperature(room, at))
    return max(0, min(100, round(missing * 40)))


def window_open(room: Room, at: float) -> bool:
    return (int(at) // DAY + room.salt) % 3 == 0 and 36_000 <= at % DAY < 36_900


def boiler_on(device: Device, at: float) -> bool:
    begin, end = burn(device, int(at) // SLOT)
    return begin <= at < end


def boiler_on_seconds(device: Device, begin: float, end: float) -> float:
    """How long the boiler ran in [begin, end)."""
    slots = range(int(begin) // SLOT, int(end) // SLOT + 1)
    burns = (burn(device, slot) for slot in slots)
    return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in burns)


def burn(device: Device, slot: int) -> tuple[int, int]:
    """When the boiler runs within two hours: once, for 20 to 60 minutes."""
    mark = hashed(device.salt, "boiler", slot)
    begin = slot * SLOT + mark % 2_400
    return begin, begin + 1_200 + (mark >> 16) % 2_400


# --- security ----------------------------------------------------------------------------------


def monitoring(device: Device, at: float) -> str:
    off = (int(at) // DAY + device.salt) % 5 == 0 and 36_000 <= at % DAY < 39_600
    return "off" if off else "on"


def door_open(device: Device, at: float) -> bool:
    begin, end = opening(device, int(at) // SLOT)
    return begin <= at < end


def opening(device: Device, slot: int) -> tuple[int, int]:
    """When a door stands open within two hours: once, for 5 to 20 minutes."""
    mark = hashed(device.salt, "door", slot)
    begin = slot * SLOT + mark % 6_000
    return begin, begin + 300 + (mark >> 16) % 900


def is_away(person: Person, at: float) -> bool:
    left, back = absence(person, int(at) // DAY)
    return left <= at < back


def last_seen(person: Person, at: float) -> int:
    left, _ = absence(person, int(at) // DAY)
    return left if is_away(person, at) else int(at) // 60 * 60


def absence(person: Person, day: int) -> tuple[int, int]:
    """When a person is out on a UTC day, in the eyes of the camera."""
    mark = hashed(person.salt, "out", day)
    return day * DAY + 27_000 + mark % 3_600, day * DAY + 61_200 + (mark >> 16) % 3_600


# --- wiring ------------------------------------------------------------------------------------


def is_on(device: Device, at: float) -> bool:
    """A light or socket: some hours in the evening."""
    begin = 64_800 + device.salt % 3_600
    return begin <= at % DAY < begin + 9_000


def power(device: Device, at: float) -> int:
    """W; nothing while it is off. A three-phase meter shows the sum of its phases."""
    if device.type == "NLY" and "#" not in device.id:
        return sum(_load(device, phase, at) for phase in PHASES)
    if device.type == "NLY":
        return _load(device, int(device.id[-1]), at)
    if device.type != "NLPC" and not is_on(device, at):
        return 0
    return _load(device, 0, at)


def _load(device: Device, phase: int, at: float) -> int:
    return 5 + hashed(device.salt, "load", phase, int(at) // 300) % 400


def brightness(device: Device, at: float) -> int:
    return 40 + hashed(device.salt, "brightness", int(at) // DAY) % 60


def position(device: Device, at: float) -> int:
    """Of a shutter: open by day."""
    shift = device.salt % 1_800
    return 100 if 25_200 + shift <= at % DAY < 72_000 + shift else 0


def fan_speed(at: float) -> int:
    return 2 if 43_200 <= at % DAY < 46_800 else 1


def battery_mv(device: Device, at: float) -> int:
    """Two millivolts a day, from 4,100 down to 2,700."""
    return 4_100 - (device.salt + 2 * int((at - device.setup) // DAY)) % 1_400


def battery_state(millivolt: int) -> str:
    names = ((3_700, "full"), (3_300, "high"), (3_000, "medium"), (2_800, "low"))
    return next((name for least, name in names if millivolt >= least), "very_low")


def energy(device: Device, zone: ZoneInfo, half: int, contract: int) -> tuple[int | None, ...]:
    """Wh of the half hour `half` since 1970 by tariff: (base, peak, off-peak).

    A three-phase meter has the sum of its phases.
    contract  epoch from which on there are two tariffs instead of one; whole half hours
    """
    name, _, part = device.id.partition("#")
    if device.type == "NLY" and not part:
        return _added(
            [energy(replace(device, id=f"{name}#{n}"), zone, half, contract) for n in PHASES]
        )
    amount = 10 + hashed(device.salt, f"energy{part}", half) % 300
    if half * HALF < contract:
        return amount, None, None
    share = _peak_minutes(zone, half)
    peak = round(amount * share / 30)
    return None, peak if share else None, amount - peak if share < 30 else None


def price(amounts: tuple[int | None, ...]) -> tuple[float | None, ...]:
    """What energy by tariff costs, in the money of the contract."""
    return tuple(
        None if amount is None else round(amount * each / 1000, 6)
        for amount, each in zip(amounts, PRICES, strict=True)
    )


def _added(parts: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
    """Sums by tariff; the parts have the same tariffs."""
    return tuple(
        None if any(each is None for each in column) else sum(filter(None, column))
        for column in zip(*parts, strict=True)
    )


@lru_cache(maxsize=65_536)
def _peak_minutes(zone: ZoneInfo, half: int) -> int:
    """How many minutes of a half hour lie in the peak tariff."""
    local = datetime.fromtimestamp(half * HALF, zone)
    begin = local.hour * 60 + local.minute
    return max(0, min(begin + 30, PEAK_MINUTES[1]) - max(begin, PEAK_MINUTES[0]))


# --- what the cloud keeps ----------------------------------------------------------------------


def sample_times(salt: int, begin: float, end: float) -> Iterator[int]:
    """Stamps in [begin, end] at which a thermostat or a room is measured."""
    phase = salt % SAMPLE_S
    first = -(-(math.ceil(begin) - phase) // SAMPLE_S)
    return iter(range(first * SAMPLE_S + phase, int(end) + 1, SAMPLE_S))
