"""Weather stations: `getstationsdata`, and which history each of their modules has.

Stations measure every five minutes and upload every ten: asking for the dashboard more often
returns the same answer. The rows between two uploads come with the trailing `getmeasure`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

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
from netatmo_ingestd.sources.quantities import UPSTREAM, is_calm
from netatmo_ingestd.sources.reading import (
    blocks,
    flag,
    ident,
    kind,
    moment,
    number,
    text,
    told,
    unknown,
)

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
_DASHBOARD = {"time_utc", "WindHistoric", *_TODAY, *_TREND}
_FIELDS = {
    "_id", "type", "module_name", "firmware", "date_setup", "last_setup", "last_upgrade",
    "last_status_store", "last_message", "last_seen", "wifi_status", "rf_status", "battery_vp",
    "battery_percent", "reachable", "co2_calibrating", "data_type", "main_device",
    "dashboard_data",
}  # fmt: skip
_STATION_FIELDS = {
    *_FIELDS, "cipher_id", "station_name", "home_id", "home_name", "place", "read_only", "favorite",
    "modules",
}  # fmt: skip
_PLACE = {"altitude", "city", "country", "timezone", "location"}
LEFT_OUT: Mapping[str, str] = {
    "user": "the owner's mail address and display units; values are metric whatever they say",
    "cipher_id": "the station's own id once more, encrypted; only in old answers",
    "WindHistoric": "samples of the last hour by old firmware; getmeasure has them as rows",
}
"""Fields that no record takes, on purpose, and why."""
_GHOST_MV = 65535  # a slot that was never paired
_T = TypeVar("_T")


@dataclass
class _Reader:
    """One answer being read: what stays the same for all of its modules."""

    reply: Reply
    account: str
    problems: list[Problem] = field(default_factory=list)
    entities: dict[str, Entity] = field(default_factory=dict)
    rows: list[Measurement] = field(default_factory=list)

    def told(
        self, where: str, block: Mapping[str, Json], key: str, read: Callable[[Json], _T | None]
    ) -> _T | None:
        return told(block, key, read, where, self.problems)

    def moment(self, where: str, block: Mapping[str, Json], key: str) -> datetime | None:
        """A time; 0, or false as PHP puts it, means never."""
        if block.get(key) == 0:
            return None
        return self.told(where, block, key, lambda value: moment(value, self.reply.time_server))


def parse_stations(reply: Reply, poll: Poll) -> Parsed:
    """One measurement for each module that has reported, and what describes it and its home.

    body      {"devices": [{"_id", "dashboard_data": {"time_utc", …}, "modules": [ …same… ]}]}
    Units     as Netatmo sends them: °C, %, ppm, mbar, dB, mm, km/h, degrees
    Problems  a device without `_id`; a value of a wrong type (null is no value). A module without
              `dashboard_data` is just silent, not one
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
    unknown(body, ("devices", "user"), "body", reader.problems)
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
    home = _read_home(reader, where, device)
    _read_module(reader, where, device, home, device_id)
    for path, module in blocks(device.get("modules"), f"{where}.modules", reader.problems):
        _read_module(reader, path, module, home, device_id)


@dataclass(frozen=True)
class _Home:
    """The home of a station, and where that station stands; `id` is "" when it is not told."""

    id: str
    name: str | None
    place: Mapping[str, Any]
    other: tuple[tuple[str, Any], ...]
    read_only: bool


def _read_home(reader: _Reader, where: str, device: dict[str, Json]) -> _Home:
    place, other = _read_place(reader, where, device)
    names = [reader.told(where, device, key, text) for key in ("home_name", "station_name")]
    marks = [reader.told(where, device, key, flag) for key in ("read_only", "favorite")]
    home = _Home(
        reader.told(where, device, "home_id", ident) or "",
        names[0] or names[1],
        place,
        other,
        any(marks),
    )
    known = reader.entities.get(home.id)
    # What the owner sees himself counts more than what he was invited to.
    if home.id and (known is None or (known.read_only and not home.read_only)):
        reader.entities[home.id] = Entity(
            account=reader.account,
            kind="home",
            entity_id=home.id,
            home_id=home.id,
            device_id="",
            type="home",
            description=_present(name=home.name, **place),
            read_only=home.read_only,
        )
    return home


def _read_place(
    reader: _Reader, where: str, device: dict[str, Json]
) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """(where the station stands, unknown fields)."""
    place = reader.told(where, device, "place", lambda it: it if isinstance(it, dict) else None)
    path = f"{where}.place"
    location = reader.told(path, place or {}, "location", _pair) or (None, None)
    facts = _present(
        timezone=reader.told(path, place or {}, "timezone", text),
        city=reader.told(path, place or {}, "city", text),
        country=reader.told(path, place or {}, "country", text),
        altitude=reader.told(path, place or {}, "altitude", number),
        longitude=location[0],
        latitude=location[1],
    )
    other = unknown(place or {}, _PLACE, path, reader.problems)
    return facts, tuple((f"place.{name}", value) for name, value in other)


def _pair(value: Json) -> tuple[float, float] | None:
    """Longitude and latitude, both or none."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    longitude, latitude = number(value[0]), number(value[1])
    return None if longitude is None or latitude is None else (longitude, latitude)


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
    module_type = reader.told(where, block, "type", text) or "unknown"
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
        description=_describe(reader, where, block, home, device_id, module_type),
        condition=_condition(reader, where, block) | dashboard_facts,
        state=_present(
            reachable=reader.told(where, block, "reachable", flag),
            co2_calibrating=reader.told(where, block, "co2_calibrating", flag),
        ),
        latest=latest if latest and latest[1] else None,
        setup=reader.moment(where, block, "date_setup")
        or moment(block.get("last_setup"), reader.reply.time_server),
        read_only=home.read_only,
        other=_other(reader, where, block, home, is_station=module_id == device_id),
    )
    if latest and (latest[1] or other):
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


def _other(
    reader: _Reader, where: str, block: dict[str, Json], home: _Home, *, is_station: bool
) -> tuple[tuple[str, Any], ...]:
    if is_station:
        return (*unknown(block, _STATION_FIELDS, where, reader.problems), *home.other)
    return unknown(block, _FIELDS, where, reader.problems)


def _describe(
    reader: _Reader,
    where: str,
    block: dict[str, Json],
    home: _Home,
    device_id: str,
    module_type: str,
) -> dict[str, Any]:
    """Slow facts; a station without a name has the one of its home or its old station name."""
    names = [reader.told(where, block, "module_name", text)]
    own: dict[str, Any] = {}
    if block.get("_id") == device_id:
        names += [text(block.get(key)) for key in ("home_name", "station_name")]
        own = {"station_name": text(block.get("station_name")), **home.place}
    return _present(
        **{"timezone": home.place.get("timezone"), **own},
        name=next((name for name in names if name), None),
        type=module_type,
        device_id=device_id,
        home_id=home.id or None,
        home_name=home.name,
        firmware=reader.told(where, block, "firmware", number),
        last_setup=reader.moment(where, block, "last_setup"),
        last_upgrade=reader.moment(where, block, "last_upgrade"),
        data_types=_data_types(reader, where, block),
    )


def _data_types(reader: _Reader, where: str, block: dict[str, Json]) -> list[str] | None:
    named = reader.told(where, block, "data_type", lambda it: it if isinstance(it, list) else None)
    if named is None:
        return None
    path = f"{where}.data_type"
    found = [told({"*": item}, "*", text, path, reader.problems) for item in named]
    return [name for name in found if name]


def _condition(reader: _Reader, where: str, block: dict[str, Json]) -> dict[str, Any]:
    """Fast facts. A station is last seen when the cloud last stored its status."""
    radio = [reader.told(where, block, key, number) for key in ("rf_status", "wifi_status")]
    seen = [reader.moment(where, block, key) for key in ("last_seen", "last_status_store")]
    return _present(
        radio=radio[1] if radio[0] is None else radio[0],
        last_seen=seen[0] or seen[1],
        last_message=reader.moment(where, block, "last_message"),
        main_device=reader.told(where, block, "main_device", ident),
        battery=_battery(reader, where, block, seen[0]),
    )


def _battery(
    reader: _Reader, where: str, block: dict[str, Json], seen: datetime | None
) -> dict[str, Any] | None:
    level = reader.told(where, block, "battery_vp", number)
    percent = reader.told(where, block, "battery_percent", number)
    if level == _GHOST_MV:
        return None
    battery = _present(percent=percent, level_mv=level)
    return battery | _present(time=seen) if battery else None


def _read_dashboard(
    reader: _Reader, where: str, dashboard: Json
) -> tuple[tuple[datetime, dict[str, float]] | None, dict[str, Any], tuple[tuple[str, Any], ...]]:
    """(time and values, facts about today, unknown fields) of a `dashboard_data` block."""
    if dashboard is None:
        return None, {}, ()
    if not isinstance(dashboard, dict):
        reader.problems.append(Problem(where, f"is {kind(dashboard)}, not an object"))
        return None, {}, ()
    at = moment(dashboard.get("time_utc"), reader.reply.time_server)
    if at is None:
        reader.problems.append(Problem(f"{where}.time_utc", "missing or no plausible time"))
        return None, {}, ()
    values: dict[str, float] = {}
    today: dict[str, Any] = {}
    trend: dict[str, Any] = {}
    strange = {}
    for key in dashboard:
        if key.lower() in UPSTREAM:
            amount = reader.told(where, dashboard, key, number)
            if amount is not None and not is_calm(key, amount):
                values[UPSTREAM[key.lower()]] = amount
        elif key in _TODAY:
            today[_TODAY[key]] = (
                reader.moment(where, dashboard, key)
                if key.startswith("date_")
                else reader.told(where, dashboard, key, number)
            )
        elif key in _TREND:
            trend[_TREND[key]] = reader.told(where, dashboard, key, text)
        elif key not in _DASHBOARD:
            strange[key] = dashboard[key]
    other = unknown(strange, (), where, reader.problems)
    facts = {"today": _present(**today), "trend": _present(**trend)}
    return (at, values), {name: fact for name, fact in facts.items() if fact}, other


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
