"""What the sensors of one module measure in one UTC day: seasons, days, fronts and a little noise.

A day has 288 samples. All noise of a day comes from one hash of (seed, module, day), so a value
never depends on what was asked before. Integer arithmetic on tenths; about 2 µs per sample.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

PER_DAY = 288

Value = int | float
Row = tuple[Value, ...]

FIELDS: Mapping[str, tuple[str, ...]] = {
    "NAMain": ("Temperature", "CO2", "Humidity", "Noise", "Pressure"),
    "NAModule1": ("Temperature", "Humidity"),
    "NAModule2": ("WindStrength", "WindAngle", "GustStrength", "GustAngle"),
    "NAModule3": ("Rain",),
    "NAModule4": ("Temperature", "CO2", "Humidity"),
    "NHC": ("Temperature", "CO2", "Humidity", "Noise", "Pressure", "health_idx"),
}

_LOWEST = -1000
# Netatmo sends 21 and 20.9, never 21.0.
_TENTHS: tuple[Value, ...] = tuple(
    n // 10 if n % 10 == 0 else n / 10 for n in range(_LOWEST, 12000)
)
_DAYLIGHT = tuple(
    round(1000 * math.sin(2 * math.pi * (i / PER_DAY - 9 / 24))) for i in range(PER_DAY)
)
_PEOPLE_BY_HOUR = (
    (700,) * 6 + (600, 500, 200) + (100,) * 7 + (300, 500, 700, 900, 1000, 1000, 900, 800)
)
_PEOPLE = tuple(_PEOPLE_BY_HOUR[i // 12] for i in range(PER_DAY))


def tenths(count: int) -> Value:
    """`count` tenths as JSON shows them: an integer when whole."""
    return _TENTHS[count - _LOWEST]


@lru_cache(maxsize=16)
def _ease(width: int) -> tuple[int, ...]:
    """A smooth step from 0 to 1024 in `width` steps."""
    return tuple(round(1024 * (x * x * (3 - 2 * x))) for x in (i / width for i in range(width)))


def hashed(seed: int, *parts: object) -> int:
    """64 bits that depend on all arguments."""
    text = "|".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hexed(seed: int, digits: int, *parts: object) -> str:
    """Up to 32 hex digits that depend on all arguments but `digits`."""
    return "".join(f"{hashed(seed, *parts, half):016x}" for half in range(2))[:digits]


def _front(seed: int, key: str, what: str, day: int, per_day: int) -> list[int]:
    """A slow curve through `per_day` random points a day, each in -1000…1000."""
    first = day * per_day
    points = [hashed(seed, key, what, first + j) % 2001 - 1000 for j in range(per_day + 1)]
    ease = _ease(PER_DAY // per_day)
    return [a + (b - a) * e // 1024 for a, b in pairwise(points) for e in ease]


def _noise(seed: int, key: str, day: int) -> tuple[int, ...]:
    """One 32-bit word per sample."""
    digest = hashlib.shake_128(f"{seed}|{key}|{day}".encode()).digest(4 * PER_DAY)
    return struct.unpack(f"<{PER_DAY}I", digest)


def _turned(table: Sequence[int], shift: int) -> list[int]:
    """A daily table in local time, read at UTC; `shift` in samples east."""
    cut = shift % PER_DAY
    return [*table[cut:], *table[:cut]]


@lru_cache(maxsize=64)
def _season(day: int) -> int:
    """-1000 in mid-January to 1000 in mid-July."""
    return round(1000 * math.cos(2 * math.pi * (day - 196) / 365.2425))


@lru_cache(maxsize=64)
def _outdoor_tenths(seed: int, place: str, shift: int, day: int) -> tuple[int, ...]:
    """Outdoor temperature of a station's garden, shared by all of its modules."""
    base = 115 + _season(day) * 85 // 1000
    daylight = _turned(_DAYLIGHT, shift)
    front = _front(seed, place, "warmth", day, 2)
    return tuple(
        base + d * 45 // 1000 + f * 55 // 1000 for d, f in zip(daylight, front, strict=True)
    )


def day_rows(kind: str, seed: int, place: str, module: str, shift: int, day: int) -> list[Row]:
    """The 288 rows of a module, values in the order of FIELDS[kind].

    place   id of a station: modules of one place live in the same weather
    shift   local solar time minus UTC, in samples of 5 minutes
    day     days since 1970-01-01 UTC
    """
    return _KINDS[kind](seed, place, module, shift, day)


def _indoor(seed: int, module: str, shift: int, day: int) -> list[tuple[int, int, int]]:
    """Temperature in tenths, CO2 and humidity of a room."""
    habit = hashed(seed, module, "habit")
    base = 195 + habit % 25 + _season(day) * 15 // 1000
    crowd = 250 + (habit >> 8) % 600
    daylight, people = _turned(_DAYLIGHT, shift), _turned(_PEOPLE, shift)
    warm = _front(seed, module, "room", day, 8)
    air = _front(seed, module, "air", day, 12)
    words = _noise(seed, module, day)
    return [
        (
            base + d * 7 // 1000 + w * 9 // 1000 + (n & 3) - 1,
            440 + p * crowd // 1000 + a * crowd // 4000 + crowd // 4 + (n >> 2 & 31),
            52 - w // 180 + a // 120 + d // 500 + (n >> 7 & 1),
        )
        for d, p, w, a, n in zip(daylight, people, warm, air, words, strict=True)
    ]


def _main(seed: int, place: str, module: str, shift: int, day: int) -> list[Row]:
    room = _indoor(seed, module, shift, day)
    people = _turned(_PEOPLE, shift)
    sky = pressure_tenths(seed, place, day)
    words = _noise(seed, module + "#noise", day)
    return [
        (
            _TENTHS[t - _LOWEST],
            c,
            h,
            33 + p // 90 + (n & 7) + (n >> 3 & 15) // 13 * 12,
            _TENTHS[s - _LOWEST],
        )
        for (t, c, h), p, s, n in zip(room, people, sky, words, strict=True)
    ]


def _coach(seed: int, place: str, module: str, shift: int, day: int) -> list[Row]:
    rows = _main(seed, place, module, shift, day)
    return [(*row, health_index(row[1], row[2], row[3])) for row in rows]


def health_index(co2: Value, humidity: Value, noise: Value) -> int:
    """0 healthy, 1 fine, 2 fair, 3 poor, 4 unhealthy: the worst of the three.

    CO2 gets worse at 900, 1150, 1400 and 1600 ppm; noise at 50, 60, 65 and 70 dB; humidity with
    each 10 % outside of 40 to 60 %. A rule of our own: the real one is not published.
    """
    dry = max(40 - humidity, humidity - 60, 0)
    return max(
        sum(co2 >= step for step in (900, 1150, 1400, 1600)),
        sum(noise >= step for step in (50, 60, 65, 70)),
        sum(dry > step for step in (0, 10, 20, 30)),
    )


@lru_cache(maxsize=64)
def pressure_tenths(seed: int, place: str, day: int) -> tuple[int, ...]:
    """Sea-level pressure in tenths of a millibar."""
    return tuple(10150 + f * 180 // 1000 for f in _front(seed, place, "pressure", day, 2))


def _extra(seed: int, _place: str, module: str, shift: int, day: int) -> list[Row]:
    return [(_TENTHS[t - _LOWEST], c, h) for t, c, h in _indoor(seed, module, shift, day)]


def _outdoor(seed: int, place: str, module: str, shift: int, day: int) -> list[Row]:
    warmth = _outdoor_tenths(seed, place, shift, day)
    daylight = _turned(_DAYLIGHT, shift)
    damp = _front(seed, place, "damp", day, 4)
    words = _noise(seed, module, day)
    return [
        (
            _TENTHS[t + (n & 3) - 1 - _LOWEST],
            min(100, 72 - d * 14 // 1000 + f * 24 // 1000 + (n >> 2 & 1)),
        )
        for t, d, f, n in zip(warmth, daylight, damp, words, strict=True)
    ]


def _wind(seed: int, place: str, module: str, _shift: int, day: int) -> list[Row]:
    """Calm about a third of the time: strength 0 has angle -1."""
    blow = _front(seed, place, "blow", day, 6)
    whence = _front(seed, place, "whence", day, 2)
    words = _noise(seed, module, day)
    rows: list[Row] = []
    for b, w, n in zip(blow, whence, words, strict=True):
        strength = max(0, (b + 250) // 50 + (n & 7) - 3)
        angle = (180 + w * 170 // 1000 + (n >> 3 & 31) - 16) % 360
        gust = strength + strength // 3 + (n >> 8 & 7)
        rows.append((strength, angle if strength else -1, gust, (angle + (n >> 11 & 15)) % 360))
    return rows


def _rain(seed: int, place: str, module: str, _shift: int, day: int) -> list[Row]:
    """Tips of 0.101 mm while a front passes, else 0."""
    wet = _front(seed, place, "damp", day, 4)
    words = _noise(seed, module, day)
    tips = [(f - 520) * (n & 15) // 1300 if f > 520 else 0 for f, n in zip(wet, words, strict=True)]
    return [(count * 0.101 if count else 0,) for count in tips]


_Rows = Callable[[int, str, str, int, int], list[Row]]
_KINDS: Mapping[str, _Rows] = {
    "NAMain": _main,
    "NAModule1": _outdoor,
    "NAModule2": _wind,
    "NAModule3": _rain,
    "NAModule4": _extra,
    "NHC": _coach,
}
