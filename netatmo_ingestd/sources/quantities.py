"""The names and units of every measured quantity, in one place; printed in the README.

Netatmo sends metric values whatever the user's display units are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
_FURTHER = range(3, 12)
_TARIFFS: Mapping[str, str] = {
    "$0": "energy_base_wh",
    "$1": "energy_peak_wh",
    "$2": "energy_off_peak_wh",
    **{f"${number}": f"energy_tariff_{number}_wh" for number in _FURTHER},
}
ENERGY = "energy_wh"

UNITS: Mapping[str, str] = {
    "temperature": "°C",
    "humidity": "%",
    "co2": "ppm",
    "noise": "dB",
    "pressure": "mbar, at sea level",
    "absolute_pressure": "mbar, at the station",
    "health_index": "0 healthy … 4 unhealthy",
    "rain": "mm since the previous sample",
    "rain_live": "rain just now as told, of public stations; not `rain`, which has another span",
    "rain_last_hour": "mm within the hour before; of public stations",
    "rain_last_day": "mm within the day before, as told; of public stations",
    "wind_strength": "km/h",
    "wind_angle": "degrees; absent when calm",
    "gust_strength": "km/h",
    "gust_angle": "degrees; absent when calm",
    "setpoint_temperature": "°C",
    "boiler_on_s": "s, within the sample or the day",
    "boiler_off_s": "s, within the sample or the day",
    "heating_power_request": "%",
    "outdoor_temperature": "°C, as the boiler's relay knows it",
    "illuminance": "lux",
    "air_quality": "as told",
    "power": "W",
    ENERGY: "Wh of all tariffs, within the half hour or the day",
    "energy_base_wh": "Wh of the base tariff",
    "energy_peak_wh": "Wh of the peak tariff",
    "energy_off_peak_wh": "Wh of the off-peak tariff",
    **{f"energy_tariff_{number}_wh": f"Wh of tariff {number}" for number in _FURTHER},
    "battery_percent": "%",
    "battery_level": "mV",
    "radio": "strength of the radio link as told: 60 full … 90 low",
    "wifi": "strength of the Wi-Fi as told: 56 good … 86 bad",
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
    "sp_temperature": "setpoint_temperature",
    "boileron": "boiler_on_s",
    "boileroff": "boiler_off_s",
    **{
        family + tariff: name
        for family in ("sum_energy_buy_from_grid", "sum_energy_elec")
        for tariff, name in {"": ENERGY, **_TARIFFS}.items()
    },
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
    # Rooms and thermostats spell it so.
    "temperature": {
        "temperature": ("temperature", False),
        "min_temp": ("temperature_min", False),
        "max_temp": ("temperature_max", False),
        "date_min_temp": ("temperature_min_time", True),
        "date_max_temp": ("temperature_max_time", True),
    },
    "sp_temperature": {"sp_temperature": ("setpoint_temperature", False)},
    "boileron": {"sum_boiler_on": ("boiler_on_s", False)},
    "boileroff": {"sum_boiler_off": ("boiler_off_s", False)},
    **{
        name: {name: (ours, False)}
        for name, ours in UPSTREAM.items()
        if name.startswith("sum_energy_")
    },
    "Rain": {"sum_rain": ("rain_sum", False)},
    "WindStrength": {"WindStrength": ("wind_strength", False)},
    "GustStrength": {
        "GustStrength": ("gust_strength", False),
        "date_max_gust": ("gust_strength_max_time", True),
    },
}


def day_types(types: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """What to ask the day rows of a module for whose finest rows have `types`, in order.

    A thermostat has no set-point by the day; its room has (netatmo-api 3.3, 3.4).
    """
    days = [each for each in types if each != "sp_temperature" or "boileron" not in types]
    return {asked: named for each in days for asked, named in DAY_TYPES.get(each, {}).items()}


def is_energy(types: Sequence[str]) -> bool:
    """True for the columns of a meter."""
    return any(UPSTREAM.get(name.lower()) == ENERGY for name in types)


def with_energy(values: Mapping[str, T], *, sound: bool = True) -> dict[str, T | float]:
    """`values`, and in `energy_wh` the sum of the tariffs that have one, else the total told.

    Never both together: the total is that sum once more.

    sound  False when a column of the row could not be read: then the sum is not known
    """
    parts = [amount for name in _TARIFFS.values() if isinstance(amount := values.get(name), float)]
    others: dict[str, T | float] = {
        name: amount for name, amount in values.items() if name != ENERGY
    }
    if not sound:
        return others
    return {**others, ENERGY: math.fsum(parts)} if parts else dict(values)


def is_calm(name: str, amount: float) -> bool:
    """True for an upstream angle of −1: no wind, so no direction."""
    return name.lower() in ("windangle", "gustangle") and amount < 0
