"""The names and units of every measured quantity, in one place; printed in the README.

Netatmo sends metric values whatever the user's display units are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

UNITS: Mapping[str, str] = {
    "temperature": "°C",
    "humidity": "%",
    "co2": "ppm",
    "noise": "dB",
    "pressure": "mbar, at sea level",
    "absolute_pressure": "mbar, at the station",
    "health_index": "0 healthy … 4 unhealthy",
    "rain": "mm since the previous sample",
    "wind_strength": "km/h",
    "wind_angle": "degrees; absent when calm",
    "gust_strength": "km/h",
    "gust_angle": "degrees; absent when calm",
}

# Upstream measure type to our name; upstream spelling varies in case, so keys are lower case.
UPSTREAM: Mapping[str, str] = {
    "temperature": "temperature",
    "humidity": "humidity",
    "co2": "co2",
    "noise": "noise",
    "pressure": "pressure",
    "absolutepressure": "absolute_pressure",
    "health_idx": "health_index",
    "rain": "rain",
    "windstrength": "wind_strength",
    "windangle": "wind_angle",
    "guststrength": "gust_strength",
    "gustangle": "gust_angle",
}

# Upstream types of a day row to our name and whether the value is a moment; what is asked for each
# type of the finest rows. A plain name is the day's mean.
DAY_TYPES: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    **{
        plain: {
            plain: (name, False),
            f"min_{short}": (f"{name}_min", False),
            f"max_{short}": (f"{name}_max", False),
            f"date_min_{short}": (f"{name}_min_time", True),
            f"date_max_{short}": (f"{name}_max_time", True),
        }
        for plain, short, name in (
            ("Temperature", "temp", "temperature"),
            ("Humidity", "hum", "humidity"),
            ("CO2", "co2", "co2"),
            ("Pressure", "pressure", "pressure"),
            ("Noise", "noise", "noise"),
        )
    },
    "Rain": {"sum_rain": ("rain_sum", False)},
    "WindStrength": {"WindStrength": ("wind_strength", False)},
    "GustStrength": {
        "GustStrength": ("gust_strength", False),
        "date_max_gust": ("gust_strength_max_time", True),
    },
}


def day_types(types: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """What to ask the day rows of a module for whose finest rows have `types`, in order."""
    return {asked: named for each in types for asked, named in DAY_TYPES.get(each, {}).items()}


def is_calm(name: str, amount: float) -> bool:
    """True for an upstream angle of −1: no wind, so no direction."""
    return name.lower() in ("windangle", "gustangle") and amount < 0
