"""What a home consists of: `homesdata`. Shared by energy, security and control.

Homes with their schedules, rooms, modules and known persons; what moves is in `homestatus`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Json, Priority
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Reply
from netatmo_ingestd.sources.reading import (
    Block,
    Reader,
    flag,
    ident,
    kind,
    number,
    pair,
    present,
    shaped,
    text,
)

LEFT_OUT: Mapping[str, str] = {
    "user": "the owner's mail address and display units; values are metric whatever they say",
    "homes.*.persons.*.url": "a signed address of a face, good for minutes",
    **{
        f"homes.*.modules.*.{name}": "live state, which homestatus tells"
        for name in ("reachable", "on", "brightness", "power", "last_seen", "firmware_revision")
    },
    **{
        f"homes.*.modules.*.{name}": "the same as `bridge` of each of those modules"
        for name in ("modules_bridged", "module_bridged")
    },
}
"""Paths of what no record takes, on purpose, and why; `*` is each element of a list."""

_HOME: Mapping[str, tuple[str, Reader]] = {
    "altitude": ("altitude", number),
    "country": ("country", text),
    "timezone": ("timezone", text),
    "therm_setpoint_default_duration": ("setpoint_default_minutes", number),
}
_MODES = ("temperature_control_mode", "therm_mode", "cooling_mode", "auto_mode")
_SCHEDULE_LISTS = ("schedules", "therm_schedules")
_SCHEDULE_KINDS = (
    "therm", "cooling", "auto", "event", "electricity", "electricity_production", "algo",
)  # fmt: skip
_ROOM: Mapping[str, tuple[str, Reader]] = {
    "type": ("room_type", text),
    "therm_relay": ("relay", ident),
    "true_temperature_available": ("true_temperature_available", flag),
}
_MODULE: Mapping[str, tuple[str, Reader]] = {
    "room_id": ("room_id", ident),
    "appliance_type": ("appliance_type", text),
    "category": ("category", text),
    "hardware_version": ("hardware_version", number),
    "hk_device_id": ("homekit_id", text),
    "customer_id": ("customer_id", text),
    "network_lock": ("network_lock", flag),
    "quick_display_zone": ("quick_display_zone", number),
    "use_pincode": ("use_pincode", flag),
    "max_modules_nb": ("modules_max", number),
    "public_ext_data": ("public_data", flag),
    "public_ext_counter": ("public_counter", number),
}
_SKIPPED = {path.rpartition(".")[2] for path in LEFT_OUT if path.startswith("homes.*.modules.")}
_NESTED = {"capabilities", "alarm_config", "module_offset"}
# Names inside what is kept as a whole: schedules, capabilities, alarm thresholds.
_NAMES: Mapping[str, str] = {
    name: name
    for name in (
        "id", "name", "type", "default", "zone_id", "m_offset", "rooms", "modules", "zones",
        "timetable", "timetable_sunrise", "timetable_sunset", "day", "twilight_offset", "scenarios",
        "away_temp", "hg_temp", "cooling_away_temp", "auto_away_temp", "away_temperature_mode",
        "power_threshold", "contract_power_unit", "price", "price_type", "tariff", "tariff_option",
        "version", "rooms_temp", "room_id", "temp", "bridge", "on", "brightness", "available",
        "therm_setpoint_temperature", "therm_setpoint_mode", "therm_setpoint_fp",
        "cooling_setpoint_temperature", "cooling_setpoint_mode", "auto_setpoint_temperature",
        "auto_setpoint_mode", "target_position", "fan_speed", "fan_mode", "default_alarm",
        "db_alarm_number", "data_type", "threshold", "direction", "a",
    )
} | {"personnalized": "personal", "target_position:step": "target_position_step"}  # fmt: skip


def parse_homes(reply: Reply, poll: Poll) -> Parsed:
    """What describes each home, and each room, module and person in it.

    body      {"homes": [{"id", "rooms": […], "modules": […], "persons": […], "schedules": […]}]}
    Units     altitude m; minutes of a timetable since Monday 00:00 local; set-points °C
    Problems  an entry without `id`; a value of a wrong type. A module of an unknown type is kept
    Raises    PayloadError if the body is no object; one without homes is of a login that has none
    Source    netatmo-api 3.5; tests/data/energy/, security/, control/
    """
    if not isinstance(reply.body, dict):
        raise PayloadError("homesdata: body is no object", endpoint="homesdata", path="body")
    whole = Block(reply.body, "body", reply.time_server, [])
    whole.unknown(("homes", "user"))
    entities: dict[str, Entity] = {}
    for block in whole.blocks("homes"):
        for entity in _read_home(poll.account, block):
            # One id in two places: the first one counts, as everywhere.
            entities.setdefault(entity.entity_id, entity)
    return Parsed(tuple(entities.values()), whole.problems)


def _read_home(account: str, block: Block) -> Iterator[Entity]:
    home_id = _named(block, "home")
    if home_id is None:
        return
    place = block.told("coordinates", pair) or (None, None)
    rooms, modules = _by_id(block, "rooms", "room"), _by_id(block, "modules", "module")
    name = block.told("name", text)
    about = present(
        name=name,
        longitude=place[0],
        latitude=place[1],
        **block.read(_HOME),
    )
    schedules, selected, strange = _read_schedules(block)
    known = {"id", "name", "coordinates", "rooms", "modules", "persons", *_HOME, *_MODES}
    yield Entity(
        account=account,
        kind="home",
        entity_id=home_id,
        home_id=home_id,
        device_id="",
        type="home",
        description=about
        | present(
            rooms=[present(id=key, name=_name(each)) for key, each in rooms.items()] or None,
            schedules=schedules or None,
        ),
        state=present(**{key: block.told(key, text) for key in _MODES}) | selected,
        other=(*block.unknown(known | set(_SCHEDULE_LISTS)), *strange),
    )
    shared = present(home_name=name, timezone=about.get("timezone"))
    types = {key: text(each.fields.get("type")) or "unknown" for key, each in modules.items()}
    for key, each in rooms.items():
        yield _read_room(account, home_id, key, each, shared, _types_in(key, each, modules, types))
    for key, each in modules.items():
        room = rooms.get(str(each.fields.get("room_id")))
        named = present(room_name=_name(room)) if room else {}
        yield _read_module(account, home_id, key, each, shared | named)
    for each in block.blocks("persons"):
        if person_id := _named(each, "person"):
            yield _read_person(account, home_id, person_id, each, shared)


def _types_in(
    room_id: str, room: Block, modules: Mapping[str, Block], types: Mapping[str, str]
) -> dict[str, str]:
    """Module id to type of what stands in a room; either side may be the only one that says so."""
    found = []
    for key in ("module_ids", "modules"):
        for each in room.told(key, partial(_of, list)) or ():
            if ident(each):
                found.append(each)
            else:
                room.problem(key, f"has {kind(each)} that is no id")
    found += [key for key, each in modules.items() if each.fields.get("room_id") == room_id]
    return {each: types.get(each, "unknown") for each in dict.fromkeys(found)}


def _read_room(
    account: str,
    home_id: str,
    room_id: str,
    block: Block,
    shared: dict[str, Any],
    modules: Mapping[str, str],
) -> Entity:
    return Entity(
        account=account,
        kind="room",
        entity_id=room_id,
        home_id=home_id,
        device_id="",
        type="room",
        description=present(
            name=block.told("name", text),
            home_id=home_id,
            modules=list(modules),
            module_types=sorted(set(modules.values())),
            **block.read(_ROOM),
        )
        | shared,
        other=block.unknown({"id", "name", "module_ids", "modules", *_ROOM}),
    )


def _read_module(
    account: str, home_id: str, module_id: str, block: Block, shared: dict[str, Any]
) -> Entity:
    type_ = block.told("type", text) or "unknown"
    if not _is_known(type_):
        block.problem("type", f"unknown type {type_[:40]}", drift=True)
    bridge = block.told("bridge", ident)
    strange: list[tuple[str, Any]] = []
    nested = {
        key: shaped(value, _NAMES, f"{block.where}.{key}", block.problems, strange)
        for key, shape in (("capabilities", list), ("alarm_config", dict))
        if (value := block.told(key, partial(_of, shape))) is not None
    }
    return Entity(
        account=account,
        kind="module",
        entity_id=module_id,
        home_id=home_id,
        device_id=bridge or module_id,
        type=type_,
        description=present(
            name=block.told("name", text),
            type=type_,
            home_id=home_id,
            device_id=bridge or module_id,
            **block.read(_MODULE),
            offsets=_offsets(block.inner("module_offset"), strange) or None,
            **nested,
        )
        | shared,
        setup=block.moment("setup_date"),
        other=(
            *block.unknown(
                {"id", "type", "name", "setup_date", "bridge", *_MODULE, *_SKIPPED} | _NESTED
            ),
            *strange,
        ),
    )


def _offsets(block: Block, strange: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """What is added to the temperature of which module."""
    found = []
    for key in block.fields:
        if ident(key) is None:
            block.problem(text(key) or "", "no id that can be used")
            continue
        inner = block.inner(key)
        strange += [(f"module_offset.{name}", value) for name, value in inner.unknown(("a",))]
        if (amount := inner.told("a", number)) is not None:
            found.append({"id": key, "temperature": amount})
    return found


def _read_person(
    account: str, home_id: str, person_id: str, block: Block, shared: dict[str, Any]
) -> Entity:
    seen = block.moment("last_seen")
    away = block.told("out_of_sight", flag)
    return Entity(
        account=account,
        kind="person",
        entity_id=person_id,
        home_id=home_id,
        device_id="",
        type="person",
        description=present(name=block.told("pseudo", text), home_id=home_id) | shared,
        condition=present(last_seen=seen, out_of_sight=away),
        other=block.unknown({"id", "pseudo", "url", "last_seen", "out_of_sight"}),
    )


def _read_schedules(
    block: Block,
) -> tuple[list[Any], dict[str, Any], list[tuple[str, Any]]]:
    """(schedules, which of each kind is selected, unknown fields)."""
    found: list[Any] = []
    selected: dict[str, Any] = {}
    strange: list[tuple[str, Any]] = []
    for key in _SCHEDULE_LISTS:
        for each in block.blocks(key):
            told, chosen = each.told("type", text), each.told("selected", flag)
            # Older answers have no type; there were only heating schedules then.
            name = told if told in _SCHEDULE_KINDS else "other" if told else "therm"
            # None of the kind may be in force.
            selected.setdefault(f"{name}_schedule", None)
            if chosen and (schedule_id := each.told("id", ident)):
                selected[f"{name}_schedule"] = schedule_id
            rest = {field: value for field, value in each.fields.items() if field != "selected"}
            found.append(shaped(rest, _NAMES, each.where, each.problems, strange))
    return found, selected, strange


def _by_id(block: Block, key: str, what: str) -> dict[str, Block]:
    found: dict[str, Block] = {}
    for each in block.blocks(key):
        if entity_id := _named(each, what):
            found.setdefault(entity_id, each)
    return found


def _named(block: Block, what: str) -> str | None:
    """Its id; without one it cannot be kept."""
    found = ident(block.fields.get("id"))
    if found is None:
        block.problem("id", f"missing or unusable; the {what} is left out")
    return found


def _name(block: Block) -> str | None:
    return text(block.fields.get("name"))


def _is_known(type_: str) -> bool:
    # The tables of types name the endpoint below, so they cannot be imported above.
    from netatmo_ingestd.sources import MODULE_TYPES  # noqa: PLC0415

    return type_ in MODULE_TYPES


def _of(shape: type, value: Json) -> Any:
    return value if isinstance(value, shape) else None


HOMESDATA = Endpoint(
    name="homesdata",
    scope="",
    cadence="topology",
    per="account",
    priority=Priority.LIVE,
    parse=parse_homes,
    secrets=("user.email", "homes.*.persons.*.url"),
)
