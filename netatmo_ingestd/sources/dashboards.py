"""Devices with a dashboard: what weather stations and air quality monitors have in common.

An answer lists devices, each with its newest reading, its home and perhaps modules behind it. What
tells the product lines apart is a `Line`; each of them has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Measurement
from netatmo_ingestd.polls import ModuleType, Parsed, Poll, Reply
from netatmo_ingestd.sources.quantities import UPSTREAM, is_calm
from netatmo_ingestd.sources.reading import (
    Block,
    flag,
    ident,
    moment,
    number,
    pair,
    present,
    text,
    told,
)

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
    *_FIELDS, "cipher_id", "subtype", "station_name", "home_id", "home_name", "place", "read_only",
    "favorite", "modules",
}  # fmt: skip
_PLACE = {"altitude", "city", "country", "timezone", "location"}
_GHOST_MV = 65535  # a slot that was never paired


@dataclass(frozen=True, slots=True)
class Line:
    """What tells the answer of one product line from that of another.

    endpoint    its method
    kinds       module types it shows; another one is news
    names       where a device has its name: the first of these that is told
    home_names  likewise the name of its home
    kept        which of the device's names is kept beside that
    """

    endpoint: str
    kinds: Mapping[str, ModuleType]
    names: tuple[str, ...]
    home_names: tuple[str, ...]
    kept: str


@dataclass
class _Reader:
    """One answer being read: what stays the same for all of its modules."""

    account: str
    line: Line
    entities: dict[str, Entity] = field(default_factory=dict)
    rows: list[Measurement] = field(default_factory=list)


def parse_devices(reply: Reply, poll: Poll, line: Line) -> Parsed:
    """One measurement for each device and module that has reported, and what describes them.

    Raises  PayloadError if `devices` is absent
    """
    body = reply.body
    if not isinstance(body, dict) or not isinstance(body.get("devices"), list):
        raise PayloadError(
            f"{line.endpoint}: body.devices is missing or no list",
            endpoint=line.endpoint,
            path="body.devices",
        )
    reader = _Reader(poll.account, line)
    whole = Block(body, "body", reply.time_server, [])
    whole.unknown(("devices", "user"))
    for device in whole.blocks("devices"):
        _read_device(reader, device)
    return Parsed((*reader.entities.values(), *reader.rows), whole.problems)


def _read_device(reader: _Reader, device: Block) -> None:
    device_id = ident(device.fields.get("_id"))
    if device_id is None:
        device.problem("_id", "missing or unusable; the device is left out")
        return
    home = _read_home(reader, device)
    _read_module(reader, device, home, device_id)
    for module in device.blocks("modules"):
        _read_module(reader, module, home, device_id)


@dataclass(frozen=True)
class _Home:
    """The home of a device, and where that device stands; `id` is "" when it is not told."""

    id: str
    name: str | None
    place: Mapping[str, Any]
    other: tuple[tuple[str, Any], ...]
    read_only: bool


def _read_home(reader: _Reader, device: Block) -> _Home:
    place, other = _read_place(device)
    told_names = {key: device.told(key, text) for key in ("home_name", "station_name")}
    names = [told_names[key] for key in reader.line.home_names]
    marks = [device.told(key, flag) for key in ("read_only", "favorite")]
    home_id = device.told("home_id", ident) or ""
    name = next(filter(None, names), names[-1])
    home = _Home(home_id, name, place, other, any(marks))
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
            description=present(name=home.name, **place),
            read_only=home.read_only,
        )
    return home


def _read_place(device: Block) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """(where the device stands, unknown fields)."""
    place = device.inner("place")
    location = place.told("location", pair) or (None, None)
    facts = present(
        timezone=place.told("timezone", text),
        city=place.told("city", text),
        country=place.told("country", text),
        altitude=place.told("altitude", number),
        longitude=location[0],
        latitude=location[1],
    )
    return facts, tuple((f"place.{name}", value) for name, value in place.unknown(_PLACE))


def _read_module(reader: _Reader, block: Block, home: _Home, device_id: str) -> None:
    module_id = ident(block.fields.get("_id"))
    if module_id is None:
        block.problem("_id", "missing or unusable; the module is left out")
        return
    dashboard = block.fields.get("dashboard_data")
    known = reader.entities.get(module_id)
    if known is not None and (known.latest or not isinstance(dashboard, dict)):
        return  # one module under two stations: the entry that has data counts
    module_type = block.told("type", text) or "unknown"
    if module_type not in reader.line.kinds:
        block.problem("type", f"unknown type {module_type}", drift=True)
    latest, dashboard_facts, strange = _read_dashboard(block)
    is_device = module_id == device_id
    other = block.unknown(_STATION_FIELDS if is_device else _FIELDS)
    setup = moment(block.fields.get("last_setup"), block.server)
    reader.entities[module_id] = Entity(
        account=reader.account,
        kind="module",
        entity_id=module_id,
        home_id=home.id,
        device_id=device_id,
        type=module_type,
        description=_describe(block, home, reader.line if is_device else None)
        | {"type": module_type, "device_id": device_id},
        condition=_condition(block) | dashboard_facts,
        state=present(
            reachable=block.told("reachable", flag),
            co2_calibrating=block.told("co2_calibrating", flag),
        ),
        latest=latest if latest and latest[1] else None,
        setup=block.moment("date_setup") or setup,
        read_only=home.read_only,
        other=(*other, *home.other) if is_device else other,
    )
    if latest and (latest[1] or strange):
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
                source=reader.line.endpoint,
                other=strange,
            )
        )


def _describe(block: Block, home: _Home, line: Line | None) -> dict[str, Any]:
    """Slow facts; `line` for a device, which may have its name elsewhere and stands somewhere."""
    name = block.told("module_name", text)
    own: dict[str, Any] = {"timezone": home.place.get("timezone")}
    if line is not None:
        # What is no text among them was told with the home.
        names = {key: text(block.fields.get(key)) for key in {*line.names, line.kept}}
        name = next((names[key] for key in line.names if names[key]), None)
        own = {**home.place, line.kept: names[line.kept], "subtype": block.told("subtype", text)}
    return present(
        **own,
        name=name or None,
        home_id=home.id or None,
        home_name=home.name,
        firmware=block.told("firmware", number),
        last_setup=block.moment("last_setup"),
        last_upgrade=block.moment("last_upgrade"),
        data_types=_data_types(block),
    )


def _data_types(block: Block) -> list[str] | None:
    named = block.told("data_type", lambda it: it if isinstance(it, list) else None)
    if named is None:
        return None
    path = f"{block.where}.data_type"
    found = [told({"*": item}, "*", text, path, block.problems) for item in named]
    return [name for name in found if name]


def _condition(block: Block) -> dict[str, Any]:
    """Fast facts. A station is last seen when the cloud last stored its status."""
    radio = [block.told(key, number) for key in ("rf_status", "wifi_status")]
    seen = [block.moment(key) for key in ("last_seen", "last_status_store")]
    return present(
        radio=radio[1] if radio[0] is None else radio[0],
        last_seen=seen[0] or seen[1],
        last_message=block.moment("last_message"),
        main_device=block.told("main_device", ident),
        battery=_battery(block, seen[0]),
    )


def _battery(block: Block, seen: datetime | None) -> dict[str, Any] | None:
    level, percent = block.told("battery_vp", number), block.told("battery_percent", number)
    if level == _GHOST_MV:
        return None
    battery = present(percent=percent, level_mv=level)
    return battery | present(time=seen) if battery else None


def _read_dashboard(
    module: Block,
) -> tuple[tuple[datetime, dict[str, float]] | None, dict[str, Any], tuple[tuple[str, Any], ...]]:
    """(time and values, facts about today, unknown fields) of `dashboard_data`, if there is one."""
    block = module.inner("dashboard_data")
    if not isinstance(module.fields.get("dashboard_data"), dict):
        return None, {}, ()
    at = moment(block.fields.get("time_utc"), block.server)
    if at is None:
        block.problem("time_utc", "missing or no plausible time")
        return None, {}, ()
    values: dict[str, float] = {}
    today: dict[str, Any] = {}
    trend: dict[str, Any] = {}
    for key in block.fields:
        if key.lower() in UPSTREAM:
            amount = block.told(key, number)
            if amount is not None and not is_calm(key, amount):
                values[UPSTREAM[key.lower()]] = amount
        elif key in _TODAY:
            is_time = key.startswith("date_")
            today[_TODAY[key]] = block.moment(key) if is_time else block.told(key, number)
        elif key in _TREND:
            trend[_TREND[key]] = block.told(key, text)
    facts = present(today=present(**today) or None, trend=present(**trend) or None)
    return (
        (at, values),
        facts,
        block.unknown({*_DASHBOARD, *(key for key in block.fields if key.lower() in UPSTREAM)}),
    )
