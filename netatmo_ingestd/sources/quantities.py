"""The names and units of every measured quantity, in one place; printed in the README.

Netatmo sends metric values whatever the user's display units are.
"""

from __future__ import annotations

from collections.abc import Mapping

UNITS: Mapping[str, str] = {
    "temperature": "°C",
    "humidity": "%",
    "co2": "ppm",
    "noise": "dB",
    "pressure": "mbar, at sea level",
    "absolute_pressure": "mbar, at the station",
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
    "rain": "rain",
    "windstrength": "wind_strength",
    "windangle": "wind_angle",
    "guststrength": "gust_strength",
    "gustangle": "gust_angle",
}


def is_calm(name: str, amount: float) -> bool:
    """True for an upstream angle of −1: no wind, so no direction."""
    return name.lower() in ("windangle", "gustangle") and amount < 0
