"""The type names of `getmeasure`, and how each is filled from the rows of a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netatmo_ingestd.simulator.curves import Value, tenths

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

Series = Sequence[Value]
Fold = Callable[[Sequence[int], Series], Value]
"""Makes one value of the stamps of a bucket and of what one field measured then."""


@dataclass(frozen=True, slots=True)
class Column:
    """`fold` makes one value of the `index`-th values of all rows of a bucket."""

    index: int
    fold: Fold

    def of(self, stamps: Sequence[int], series: Sequence[Series]) -> Value:
        """stamps, series: the rows of the bucket, turned into columns."""
        return self.fold(stamps, series[self.index])


def known(name: str) -> bool:
    """Whether a lower-case type name is in any list of the reference, of any product."""
    return name in _TYPES or _ELSEWHERE.fullmatch(name) is not None


def column(name: str, scale: str, fields: Sequence[str]) -> Column | None:
    """None when a known type does not apply to the module or to this scale."""
    field, shortest, fold = _TYPES.get(name, ("", 0, _whole))
    if field not in fields or STEPS[scale] < shortest:
        return None
    return Column(fields.index(field), fold)


def names(scale: str, fields: Sequence[str]) -> tuple[str, ...]:
    """All type names that apply to a module with these fields at this scale, field by field."""
    return tuple(
        name
        for field in fields
        for name, (of, shortest, _) in _TYPES.items()
        if of == field and shortest <= STEPS[scale]
    )


def _mean(values: Series) -> float:
    return sum(values) / len(values)


def _whole(_stamps: Sequence[int], values: Series) -> Value:
    return round(_mean(values))


def _tenth(_stamps: Sequence[int], values: Series) -> Value:
    return tenths(round(_mean(values) * 10))


def _drops(_stamps: Sequence[int], values: Series) -> Value:
    return round(_mean(values), 3) or 0


def _angle(_stamps: Sequence[int], values: Series) -> Value:
    """The plain mean of the moments with wind; -1 when it was calm throughout."""
    angles = [value for value in values if value >= 0]
    return round(_mean(angles)) if angles else -1


def _least(_stamps: Sequence[int], values: Series) -> Value:
    return min(values)


def _most(_stamps: Sequence[int], values: Series) -> Value:
    return max(values)


def _sum(_stamps: Sequence[int], values: Series) -> Value:
    return round(sum(values), 3) or 0


def _told(_stamps: Sequence[int], values: Series) -> Value:
    """The sum of what was told; None when nothing was, as of a tariff that did not apply."""
    told = [value for value in values if value is not None]
    return sum(told) if told else None  # type: ignore[return-value]


def _paid(_stamps: Sequence[int], values: Series) -> Value:
    """The same in money, without the noise of adding fractions."""
    told = [value for value in values if value is not None]
    return round(sum(told), 6) if told else None  # type: ignore[return-value]


def _when_least(stamps: Sequence[int], values: Series) -> Value:
    return stamps[values.index(min(values))]


def _when_most(stamps: Sequence[int], values: Series) -> Value:
    return stamps[values.index(max(values))]


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
    "sp_temperature": _tenth,
    "boileron": _sum,
    "boileroff": _sum,
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
    "sum_boiler_on": ("boileron", _HALF_HOUR, _sum),
    "sum_boiler_off": ("boileroff", _HALF_HOUR, _sum),
    **{
        f"{family}${tariff}": (f"{family}${tariff}", _HALF_HOUR, _told)
        for family in ("sum_energy_buy_from_grid", "sum_energy_elec")
        for tariff in range(3)
    },
    **{
        f"{family}${tariff}": (f"{family}${tariff}", _HALF_HOUR, _paid)
        for family in ("sum_energy_buy_from_grid_price", "sum_energy_price")
        for tariff in range(3)
    },
    "date_max_gust": ("GustStrength", _HALF_HOUR, _when_most),
}
_ELSEWHERE = re.compile(
    r"health_idx|sp_temperature|boiler(on|off)|sum_boiler_(on|off)|sum_(energy|fluid)_\w+(\$\d+)?"
)
