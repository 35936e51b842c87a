"""The type names of `getmeasure`, and how each is filled from the rows of a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netatmo_ingestd.simulator.curves import Value, tenths
from netatmo_ingestd.simulator.world import Stamped

STEPS: Mapping[str, int] = {
    "max": 0,
    "30min": 1_800,
    "1hour": 3_600,
    "3hours": 10_800,
    "1day": 86_400,
    "1week": 604_800,
    "1month": 2_678_400,
}
DAY = 86_400

Fold = Callable[[Sequence[Stamped], int], Value]


@dataclass(frozen=True, slots=True)
class Column:
    """`fold` makes one value of the `index`-th values of all rows of a bucket."""

    index: int
    fold: Fold

    def of(self, rows: Sequence[Stamped]) -> Value:
        return self.fold(rows, self.index)


def known(name: str) -> bool:
    """Whether a lower-case type name is in any list of the reference, of any product."""
    return name in _TYPES or _ELSEWHERE.fullmatch(name) is not None


def column(name: str, scale: str, fields: Sequence[str]) -> Column | None:
    """None when a known type does not apply to the module or to this scale."""
    field, shortest, fold = _TYPES.get(name, ("", 0, _whole))
    if field not in fields or STEPS[scale] < shortest:
        return None
    return Column(fields.index(field), fold)


def _mean(rows: Sequence[Stamped], index: int) -> float:
    return sum(row[index] for _, row in rows) / len(rows)


def _whole(rows: Sequence[Stamped], index: int) -> Value:
    return round(_mean(rows, index))


def _tenth(rows: Sequence[Stamped], index: int) -> Value:
    return tenths(round(_mean(rows, index) * 10))


def _drops(rows: Sequence[Stamped], index: int) -> Value:
    return round(_mean(rows, index), 3) or 0


def _angle(rows: Sequence[Stamped], index: int) -> Value:
    """The plain mean of the moments with wind; -1 when it was calm throughout."""
    angles = [row[index] for _, row in rows if row[index] >= 0]
    return round(sum(angles) / len(angles)) if angles else -1


def _least(rows: Sequence[Stamped], index: int) -> Value:
    return min(row[index] for _, row in rows)


def _most(rows: Sequence[Stamped], index: int) -> Value:
    return max(row[index] for _, row in rows)


def _sum(rows: Sequence[Stamped], index: int) -> Value:
    return round(sum(row[index] for _, row in rows), 3) or 0


def _when_least(rows: Sequence[Stamped], index: int) -> Value:
    return min(rows, key=lambda row: row[1][index])[0]


def _when_most(rows: Sequence[Stamped], index: int) -> Value:
    return max(rows, key=lambda row: row[1][index])[0]


_PLAIN: Mapping[str, Fold] = {
    "Temperature": _tenth,
    "CO2": _whole,
    "Humidity": _whole,
    "Pressure": _tenth,
    "Noise": _whole,
    "Rain": _drops,
    "WindStrength": _whole,
    "WindAngle": _angle,
    "GustStrength": _whole,
    "GustAngle": _whole,
}
_SHORT = {"temp": "Temperature", "hum": "Humidity", "co2": "CO2"} | {
    name.lower(): name for name in ("Pressure", "Noise")
}
_HALF_HOUR = STEPS["30min"]

# name -> field, shortest scale at which it exists, how to fold a bucket
_TYPES: Mapping[str, tuple[str, int, Fold]] = {
    **{field.lower(): (field, 0, fold) for field, fold in _PLAIN.items()},
    **{f"min_{short}": (field, _HALF_HOUR, _least) for short, field in _SHORT.items()},
    **{f"max_{short}": (field, _HALF_HOUR, _most) for short, field in _SHORT.items()},
    **{f"date_min_{short}": (field, DAY, _when_least) for short, field in _SHORT.items()},
    **{f"date_max_{short}": (field, DAY, _when_most) for short, field in _SHORT.items()},
    "sum_rain": ("Rain", _HALF_HOUR, _sum),
    "date_max_gust": ("GustStrength", _HALF_HOUR, _when_most),
}
_ELSEWHERE = re.compile(
    r"health_idx|sp_temperature|boiler(on|off)|sum_boiler_(on|off)|sum_(energy|fluid)_\w+(\$\d+)?"
)
