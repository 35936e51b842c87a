"""Weather stations: `getstationsdata`, and which history each of their modules has.

Stations measure every five minutes and upload every ten: asking for the dashboard more often
returns the same answer. The rows between two uploads come with the trailing `getmeasure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import (
    Endpoint,
    Entity,
    Json,
    Measurement,
    ModuleType,
    Parsed,
    Poll,
    Priority,
    Problem,
    Reply,
    Source,
)
from netatmo_ingestd.sources.quantities import UPSTREAM
from netatmo_ingestd.sources.reading import blocks, flag, ident, kind, moment, number, text, unknown

_CLIMATE = ("Temperature", "Humidity")
_WIND = ("WindStrength", "WindAngle", "GustStrength", "GustAngle")
_INDOOR = ("Temperature", "CO2", "Humidity")
_MAIN = ("Temperature", "CO2", "Humidity", "Pressure", "Noise")

MODULE_TYPES = {
    "NAMain": ModuleType("weather", _MAIN),
    "NAModule1": ModuleType("weather", _CLIMATE),
    "NAModule2": ModuleType("weather", _WIND),
    "NAModule3": ModuleType("weather", ("Rain",)),
    "NAModule4": ModuleType("weather", _INDOOR),
}

# Running extremes and sums restart at local midnight: facts about today, never rows.
_TODAY = {
    "min_temp": "temperature_min",
    "max_temp": "temperature_max",
    "date_min_temp": "temperature_min_time",
    "date_max_temp": "temperature_max_time",
    "sum_rain_1": "rain_last_hour",
    "sum_rain_24": "rain_today",
    "max_wind_str": "wind_strength_max",
    "max_wind_angle": "wind_angle_max",
    "date_max_wind_str": "wind_strength_max_time",
}
_TREND = {"temp_trend": "temperature", "pressure_trend": "pressure"}
# `WindHistoric` (old firmware) repeats samples that getmeasure has.
_DASHBOARD = {"time_utc", "WindHistoric", *_TODAY, *_TREND}
_FIELDS = {
    "_id", "type", "module_name", "station_name", "home_id", "home_name", "place", "firmware",
    "date_setup", "last_setup", "last_upgrade", "last_status_store", "last_message", "last_seen",
    "wifi_status", "rf_status", "battery_vp", "battery_percent", "reachable", "co2_calibrating",
    "data_type", "read_only", "favorite", "main_device", "cipher_id", "dashboard_data", "modules",
}  # fmt: skip
_GHOST_MV = 65535  # a slot that was never paired


@dataclass
class _Reader:
    """One answer being read: what stays the same for all of its modules."""

    reply: Reply
    account: str
    problems: list[Problem] = field(default_factory=list)
    entities: dict[str, Entity] = field(default_factory=dict)
    rows: list[Measurement] = field(default_factory=list)

    def moment(self, block: Mapping[str, Json], key: str) -> datetime | None:
        return moment(block.get(key), self.reply.time_server)


def parse_stations(reply: Reply, poll: Poll) -> Parsed:
    """One measurement for each module that has reported, and what describes it and its home.

    body      {"devices": [{"_id", "dashboard_data": {"time_utc", …}, "modules": [ …same… ]}]}
    Units     as Netatmo sends them: °C, %, ppm, mbar, dB, mm, km/h, degrees
    Problems  a device without `_id`; a value of a wrong type. A module without `dashboard_data` is
              just silent, not one
    Raises    PayloadError if `devices` is absent
    Source    netatmo-api 3.1; tests/data/weather/
    """
    body = reply.body
    if not isinstance(body, dict) or not isinstance(body.get("devices"), list):
        raise PayloadError(
            "getstationsdata: body.devices is missing or no list",
            endpoint="getstationsdata",
            path="body.devices",
        )
    reader = _Reader(reply, poll.account)
    for where, device in blocks(body["devices"], "body.devices", reader.problems):
        _read_device(reader, where, device)
    return Parsed((*reader.entities.values(), *reader.rows), reader.problems)


def _read_device(reader: _Reader, where: str, device: dict[str, Json]) -> None:
    device_id = ident(device.get("_id"))
    if device_id is None:
        reader.problems.append(
            Problem(f"{where}._id", "missing or unusable; the device is left out")
        )
        return
    home = _read_home(reader, device)
    _read_module(reader, where, device, home, device_id)
    for path, module in blocks(device.get("modules"), f"{where}.modules", reader.problems):
        _read_module(reader, path, module, home, device_id)


@dataclass(frozen=True)
class _Home:
    id: str
    facts: Mapping[str, Any]
    read_only: bool


def _read_home(reader: _Reader, device: dict[str, Json]) -> _Home:
    place = device.get("place")
    place = place if isinstance(place, dict) else {}
    location = place.get("location")
    if not isinstance(location, list) or len(location) != 2:
        location = [None, None]
    facts = _present(
        name=text(device.get("home_name")) or text(device.get("station_name")),
        timezone=text(place.get("timezone")),
        city=text(place.get("city")),
        country=text(place.get("country")),
        altitude=number(place.get("altitude")),
        longitude=number(location[0]),
        latitude=number(location[1]),
    )
    home = _Home(
        ident(device.get("home_id")) or "",
        facts,
        device.get("read_only") is True or device.get("favorite") is True,
    )
    if home.id and home.id not in reader.entities:
        reader.entities[home.id] = Entity(
            account=reader.account,
            kind="home",
            entity_id=home.id,
            home_id=home.id,
            device_id="",
            type="home",
            description=facts,
            read_only=home.read_only,
        )
    return home


def _read_module(
    reader: _Reader, where: str, block: dict[str, Json], home: _Home, device_id: str
) -> None:
    module_id = ident(block.get("_id"))
    if module_id is None:
        reader.problems.append(
            Problem(f"{where}._id", "missing or unusable; the module is left out")
        )
        return
    dashboard = block.get("dashboard_data")
    known = reader.entities.get(module_id)
    if known is not None and (known.latest or not isinstance(dashboard, dict)):
        return  # one module under two stations: the entry that has data counts
    module_type = text(block.get("type")) or "unknown"
    if module_type not in MODULE_TYPES:
        reader.problems.append(Problem(f"{where}.type", f"unknown type {module_type}", drift=True))
    latest, dashboard_facts, other = _read_dashboard(reader, f"{where}.dashboard_data", dashboard)
    reader.entities[module_id] = Entity(
        account=reader.account,
        kind="module",
        entity_id=module_id,
        home_id=home.id,
        device_id=device_id,
        type=module_type,
        description=_describe(block, home, device_id, module_type),
        condition=_present(
            radio=number(block.get("rf_status", block.get("wifi_status"))),
            last_seen=reader.moment(block, "last_seen")
            or reader.moment(block, "last_status_store"),
            battery=_battery(reader, block),
            **dashboard_facts,
        ),
        state=_present(
            reachable=flag(block.get("reachable")),
            co2_calibrating=flag(block.get("co2_calibrating")),
        ),
        latest=latest,
        setup=reader.moment(block, "date_setup") or reader.moment(block, "last_setup"),
        read_only=home.read_only,
        other=unknown(block, _FIELDS, where, reader.problems),
    )
    if latest and latest[1]:
        reader.rows.append(
            Measurement(
                account=reader.account,
                home_id=home.id,
                device_id=device_id,
                module_id=module_id,
                module_type=module_type,
                scale="max",
                time=latest[0],
                values=latest[1],
                source="getstationsdata",
                other=other,
            )
        )


def _describe(
    block: dict[str, Json], home: _Home, device_id: str, module_type: str
) -> dict[str, Any]:
    """Slow facts; a missing name falls back from module to home to station."""
    told = block.get("data_type")
    names = [text(block.get(key)) for key in ("module_name", "home_name", "station_name")]
    return _present(
        name=next((name for name in names if name), None),
        type=module_type,
        device_id=device_id,
        home_id=home.id,
        home_name=home.facts.get("name"),
        timezone=home.facts.get("timezone"),
        firmware=number(block.get("firmware")),
        data_types=[text(item) for item in told if text(item)] if isinstance(told, list) else None,
    )


def _battery(reader: _Reader, block: dict[str, Json]) -> dict[str, Any] | None:
    level = number(block.get("battery_vp"))
    if level == _GHOST_MV:
        return None
    battery = _present(percent=number(block.get("battery_percent")), level_mv=level)
    return {**battery, "time": reader.moment(block, "last_seen")} if battery else None


def _read_dashboard(
    reader: _Reader, where: str, dashboard: Json
) -> tuple[tuple[datetime, dict[str, float]] | None, dict[str, Any], tuple[tuple[str, Any], ...]]:
    """(time and values, facts about today, unknown fields) of a `dashboard_data` block."""
    if dashboard is None:
        return None, {}, ()
    if not isinstance(dashboard, dict):
        reader.problems.append(Problem(where, f"is {kind(dashboard)}, not an object"))
        return None, {}, ()
    at = reader.moment(dashboard, "time_utc")
    if at is None:
        reader.problems.append(Problem(f"{where}.time_utc", "missing or no plausible time"))
        return None, {}, ()
    values: dict[str, float] = {}
    facts: dict[str, dict[str, Any]] = {"today": {}, "trend": {}}
    strange = {}
    for key, value in dashboard.items():
        if key.lower() in UPSTREAM:
            _take(reader, where, key, value, values)
        elif key in _TODAY:
            read = reader.moment(dashboard, key) if key.startswith("date_") else number(value)
            facts["today"][_TODAY[key]] = read
        elif key in _TREND:
            facts["trend"][_TREND[key]] = text(value)
        elif key not in _DASHBOARD:
            strange[key] = value
    other = unknown(strange, (), where, reader.problems)
    return (at, values), {name: fact for name, fact in facts.items() if fact}, other


def _take(reader: _Reader, where: str, key: str, value: Json, values: dict[str, float]) -> None:
    amount = number(value)
    if amount is None:
        reader.problems.append(Problem(f"{where}.{key}", f"is {kind(value)}, not a number"))
    elif not (key == "WindAngle" and amount < 0):  # −1: calm
        values[UPSTREAM[key.lower()]] = amount


def _present(**facts: Any) -> dict[str, Any]:
    """The facts that were told."""
    return {name: value for name, value in facts.items() if value is not None}


WEATHER = Source(
    name="weather",
    scopes=("read_station",),
    endpoints=(
        Endpoint(
            name="getstationsdata",
            scope="read_station",
            cadence="weather",
            per="account",
            priority=Priority.LIVE,
            parse=parse_stations,
            secrets=("user.mail",),
        ),
    ),
    module_types=MODULE_TYPES,
)
