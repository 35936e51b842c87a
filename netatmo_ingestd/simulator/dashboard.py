"""The dashboard of each station and coach, field by field.

`getstationsdata` as netatmo-api 3.1 and 7.2, `gethomecoachsdata` as 3.2 and 7.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.curves import Value, hashed, tenths
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import DAY, STEP, Module, Place, Stamped, Station

STATION_SILENT_S = 4 * 3600
MODULE_SILENT_S = 3600 + 900
_TREND_S = 3 * 3600
_NEVER, _NEVER_MV = 255, 65535  # firmware, radio and battery of a module that was never heard

DATA_TYPES: Mapping[str, tuple[str, ...]] = {
    "NAMain": ("Temperature", "CO2", "Humidity", "Noise", "Pressure"),
    "NAModule1": ("Temperature", "Humidity"),
    "NAModule2": ("Wind",),
    "NAModule3": ("Rain",),
    "NAModule4": ("Temperature", "CO2", "Humidity"),
    "NHC": ("Temperature", "CO2", "Humidity", "Noise", "Pressure", "health_idx"),
}
_FIRMWARE = {
    "NAMain": 204,
    "NAModule1": 53,
    "NAModule2": 28,
    "NAModule3": 14,
    "NAModule4": 53,
    "NHC": 59,
}
_UPLOADING = ("NAMain", "NHC")
_BATTERY = {  # full and empty, mV (section 9)
    "NAModule1": (6000, 3600),
    "NAModule2": (6000, 3950),
    "NAModule3": (6000, 3600),
    "NAModule4": (6000, 4200),
}


def device(view: View, station: Station) -> Json:
    """One element of `body.devices`."""
    main, uploaded = station.main, view.uploaded(station.main)
    board = dashboard(view, station, main)
    return {
        "_id": station.id,
        "station_name": f"{station.home_name} ({main.name})",
        "date_setup": main.setup,
        "last_setup": main.setup,
        "type": "NAMain",
        "last_status_store": uploaded,
        "module_name": main.name,
        "firmware": _FIRMWARE["NAMain"],
        "last_upgrade": main.setup + 42,
        "wifi_status": 45 + _slow(view, main, 30),
        "reachable": board is not None,
        "co2_calibrating": False,
        "data_type": list(DATA_TYPES["NAMain"]),
        "place": place(station.place),
        "home_id": station.home_id,
        "home_name": station.home_name,
        **({} if board is None else {"dashboard_data": board}),
        "modules": [_module(view, station, module) for module in view.members(station)],
    }


def coach(view: View, coach: Station) -> Json:
    """One element of `body.devices` of `gethomecoachsdata`; recordings tell no home."""
    main, uploaded = coach.main, view.uploaded(coach.main)
    board = dashboard(view, coach, main)
    return {
        "_id": coach.id,
        "station_name": main.name,
        "date_setup": main.setup,
        "last_setup": main.setup,
        "type": "NHC",
        "last_status_store": uploaded,
        "module_name": "Indoor",
        "firmware": _FIRMWARE["NHC"],
        "wifi_status": 45 + _slow(view, main, 30),
        "reachable": board is not None,
        "co2_calibrating": False,
        "data_type": list(DATA_TYPES["NHC"]),
        "place": place(coach.place),
        **({} if board is None else {"dashboard_data": board}),
    }


def favourite(view: View, station: Station) -> Json:
    """A station of somebody else: only outside data of others is told, here the pressure."""
    board = dashboard(view, station, station.main) or {}
    kept = ("time_utc", "Pressure", "AbsolutePressure", "pressure_trend")
    return {
        "_id": station.id,
        "station_name": "Beach club",
        "type": "NAMain",
        "last_status_store": view.uploaded(station.main),
        "reachable": True,
        "favorite": True,
        "read_only": True,
        "data_type": ["Pressure"],
        "place": place(station.place),
        "dashboard_data": {key: board[key] for key in kept if key in board},
    }


def user(mail: str, place: Place) -> Json:
    """`body.user`; units are display only, values stay metric."""
    language = {"US": "en", "NP": "en"}.get(place.country, place.country.lower())
    return {
        "mail": mail,
        "administrative": {
            "lang": language,
            "reg_locale": f"{language}-{place.country}",
            "country": place.country,
            "unit": 0,
            "windunit": 0,
            "pressureunit": 0,
            "feel_like_algo": 0,
        },
    }


def place(where: Place) -> Json:
    return {
        "altitude": where.altitude,
        "city": where.city,
        "country": where.country,
        "timezone": where.timezone,
        "location": list(where.location),
    }


def dashboard(view: View, station: Station, module: Module) -> dict[str, Json] | None:
    """`dashboard_data` of the newest uploaded sample; None when the module is silent."""
    newest = view.newest(module)
    patience = STATION_SILENT_S if module.type in _UPLOADING else MODULE_SILENT_S
    if newest is None or newest[0] < view.now - patience or view.touching("unreachable", module):
        return None
    rows = view.rows(
        module, min(_midnight(station.zone, newest[0]), newest[0] - _TREND_S), newest[0]
    )
    today = [row for row in rows if row[0] >= _midnight(station.zone, newest[0])]
    board: dict[str, Json] = {"time_utc": newest[0]}
    board |= dict(zip(module.fields, newest[1], strict=True))
    if module.type == "NAModule2":
        return board | _strongest(today)
    if module.type == "NAModule3":
        return board | _rain_sums(rows, today)
    if module.type in _UPLOADING:
        board["AbsolutePressure"] = _at_station(newest[1][4], station.place.altitude)
    board |= _extremes(today)
    if module.type == "NHC":
        return board
    board["temp_trend"] = _trend(rows, 0, 0.4)
    if module.type == "NAMain":
        board["pressure_trend"] = _trend(rows, 4, 0.6)
    return board


def battery_percent(kind: str, millivolt: int) -> int:
    """The formula that fits the recordings (section 9)."""
    full, empty = _BATTERY.get(kind, (6000, 3600))
    return max(0, min(100, round(100 * (millivolt - empty) / (full - empty))))


def _module(view: View, station: Station, module: Module) -> Json:
    board = dashboard(view, station, module)
    newest = view.newest(module)
    seen = newest[0] if newest else 0
    millivolt = _battery(view, module) if newest else _NEVER_MV
    return {
        "_id": module.id,
        "type": module.type,
        "module_name": module.name,
        "last_setup": module.setup,
        "data_type": list(DATA_TYPES[module.type]),
        "battery_percent": battery_percent(module.type, millivolt),
        "reachable": board is not None,
        "firmware": _FIRMWARE[module.type] if newest else _NEVER,
        "last_message": max(seen, view.uploaded(module) - 4) if newest else 0,
        "last_seen": seen,
        "rf_status": 58 + _slow(view, module, 30) if newest else _NEVER,
        "battery_vp": millivolt,
        **({} if board is None else {"dashboard_data": board}),
    }


def _battery(view: View, module: Module) -> int:
    """Two millivolts a day; new batteries when the old ones are nearly empty."""
    full, empty = _BATTERY[module.type]
    days = int(view.now - module.setup) // DAY
    return full - 40 - (module.salt + 2 * days) % (full - empty - 200)


def _slow(view: View, module: Module, width: int) -> int:
    """A radio level that changes every three hours."""
    return _level(view.world.seed, module.id, int(view.now) // 10_800) % width


@lru_cache(maxsize=8192)
def _level(seed: int, module: str, period: int) -> int:
    return hashed(seed, module, "radio", period)


@lru_cache(maxsize=1024)
def _hour_midnight(zone: ZoneInfo, quarter: int) -> int:
    local = datetime.fromtimestamp(quarter * 900, zone)
    return int(local.replace(hour=0, minute=0, second=0, fold=0).timestamp())


def _midnight(zone: ZoneInfo, at: int) -> int:
    """The last local midnight; zones and their changes lie on quarters of an hour."""
    return _hour_midnight(zone, at // 900)


def _extremes(today: Sequence[Stamped]) -> dict[str, Json]:
    """Since local midnight, each with the first moment it was reached."""
    values = [row[0] for _, row in today]
    low, high = min(values), max(values)
    return {
        "min_temp": low,
        "max_temp": high,
        "date_max_temp": today[values.index(high)][0],
        "date_min_temp": today[values.index(low)][0],
    }


def _strongest(today: Sequence[Stamped]) -> dict[str, Json]:
    at, row = max(today, key=lambda item: item[1][0])
    return {"max_wind_str": row[0], "max_wind_angle": row[1], "date_max_wind_str": at}


def _rain_sums(rows: Sequence[Stamped], today: Sequence[Stamped]) -> dict[str, Json]:
    """`sum_rain_24` counts from local midnight, its name notwithstanding."""
    hour = rows[-1][0] - 3600
    return {
        "sum_rain_1": round(sum(row[0] for at, row in rows if at > hour), 3),
        "sum_rain_24": round(sum(row[0] for _, row in today), 1),
    }


def _trend(rows: Sequence[Stamped], index: int, step: float) -> str:
    """The newest value against the one some three hours before."""
    change = rows[-1][1][index] - rows[max(0, len(rows) - 1 - _TREND_S // STEP)][1][index]
    return "up" if change > step else "down" if change < -step else "stable"


def _at_station(pressure: Value, altitude: int) -> Value:
    return tenths(round(pressure * 10 - altitude * 1.2))
