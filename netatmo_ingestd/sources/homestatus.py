"""The live state of a home: `homestatus`, one call for everything in it.

Numbers that move become rows of scale `live` and the newest values; words, switches and set-points
become intervals of state. What a field is, is told by its name, whatever module it comes on.
Shared by energy, security and control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Json, Measurement, Priority, whole_seconds
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Reply
from netatmo_ingestd.sources import aircare, weather
from netatmo_ingestd.sources.fields import (
    MODULE_DESCRIBED,
    MODULE_NUMBERS,
    MODULE_SEEN,
    MODULE_STATE,
    MODULE_TIMES,
    MODULE_TOLD,
    ROOM_NUMBERS,
    ROOM_STATE,
    ROOM_TIMES,
    TENTHS,
    VELUX_NUMBERS,
    VELUX_STATE,
    WORDS,
)
from netatmo_ingestd.sources.reading import Block, flag, ident, number, present, scalar, text

LEFT_OUT: Mapping[str, str] = {
    "home.id": "the home that was asked for",
    "home.modules.*.vpn_url": "an address of the camera with its key in it",
    "home.modules.*.is_local": "whether the caller is in the camera's network",
    "home.modules.*.room": "its room, or a copy of the set-point there; told elsewhere too",
    "home.modules.*.sequence_id": "a counter of messages",
    "errors.*.message": "words for the code",
    "errors.*.command": "what the module was told to do; we tell it nothing",
}
"""Paths of what no record takes, on purpose, and why; `*` is each element of a list."""
DASHBOARDS = frozenset({*weather.MODULE_TYPES, *aircare.MODULE_TYPES})
"""Types of modules that are left out: their dashboards tell the same, with its time."""

_FTP = "last_ftp_event"
_SKIPPED = {path.rpartition(".")[2] for path in LEFT_OUT if path.startswith("home.modules.")}
_FAMILIES = {"auto_close_ts": "algo_"}  # of a window by VELUX, not of a set-point in auto mode
# A set-point may be planned to end after a long journey.
_PLANNED = timedelta(days=3660)
_CODES = 1_000_000  # far above any that was seen


def parse_status(reply: Reply, poll: Poll) -> Parsed:
    """State, newest values and a live row of each room and module, and where persons are.

    body      {"home": {"id", "rooms": […], "modules": […], "persons": […]}, "errors": […]}; each
              part may be missing, and the body of a home without modules is
    Units     °C, %, W, mV; position and brightness %; see sources/quantities.py. Numbers of what is
              unreachable are of an unknown time, and left out
    Problems  an entry without `id`; a value of a wrong type. A word that is not known is kept
    Raises    PayloadError if the body is neither absent nor an object
    Source    netatmo-api 3.6; tests/data/energy/, security/, control/
    """
    body = {} if reply.body is None else reply.body
    if not isinstance(body, dict):
        raise PayloadError("homestatus: body is no object", endpoint="homestatus", path="body")
    whole = Block(body, "body", reply.time_server, [])
    whole.unknown(("home", "errors"))
    home = whole.inner("home")
    home.unknown(("id", "rooms", "modules", "persons"))
    home_id = poll.entity_id or ident(home.fields.get("id")) or ""
    reader = _Reader(poll.account, home_id, whole_seconds(reply.time_server))
    modules = _modules(reader, home, _errors(whole))
    rooms = [reader.room(block) for block in home.blocks("rooms")]
    persons = [reader.person(block) for block in home.blocks("persons")]
    records: dict[str, Entity] = {}
    for entity in (*rooms, *modules, *persons):
        if entity is not None:
            records.setdefault(entity.entity_id, entity)
    rows = [row for each in records.values() if (row := reader.row(each))]
    return Parsed((*records.values(), *rows), whole.problems)


def by_id(known: Mapping[str, Entity], *, strict: bool) -> Callable[[str], bool]:
    """Of which ids live state is stored: errors tell no type, and nothing here tells a name.

    known   what is described elsewhere; what has a dashboard is told there
    strict  when a name is left out: of nothing that is not known
    """

    def is_told(entity_id: str) -> bool:
        own = known.get(entity_id)
        return own.type not in DASHBOARDS if own else not strict

    return is_told


def _errors(whole: Block) -> dict[str, int]:
    """Module id to the code with which the cloud could not tell its state."""
    found = {}
    for block in whole.blocks("errors"):
        module_id, code = ident(block.fields.get("id")), block.told("code", _code)
        block.unknown(("id", "code", "message", "command"))
        if module_id is None:
            block.problem("id", "missing or unusable")
        else:
            found[module_id] = code or 0
    return found


def _code(value: Json) -> int | None:
    code = number(value)
    return int(code) if code is not None and abs(code) < _CODES else None


def _modules(reader: _Reader, home: Block, errors: Mapping[str, int]) -> Iterator[Entity]:
    """Modules that were told, and those of which the cloud says only that it cannot."""
    told: dict[str, Entity] = {}
    elsewhere: set[str | None] = set()
    for block in home.blocks("modules"):
        kind = block.told("type", text) or "unknown"
        if kind in DASHBOARDS:
            elsewhere.add(ident(block.fields.get("id")))
        elif each := reader.module(block, kind):
            # One id in two places: the first one counts, as everywhere.
            told.setdefault(each.entity_id, each)
    for each in told.values():
        reachable = _is_reachable(each, told, errors)
        state = {**each.state, "error": errors.get(each.entity_id), **present(reachable=reachable)}
        yield replace(each, state=state, latest=None if reachable is False else each.latest)
    for module_id, code in errors.items():
        if module_id not in told and module_id not in elsewhere:
            yield reader.silent(module_id, code)


def _is_reachable(
    module: Entity, told: Mapping[str, Entity], errors: Mapping[str, int]
) -> bool | None:
    """By what is told, and else by the rules of netatmo-api 3.6; None when neither says it."""
    root = module.entity_id.partition("#")[0]
    if errors.keys() & {module.entity_id, module.device_id, root}:
        return False
    own: bool | None = module.state.get("reachable")
    if own is not None:
        return own
    # A part is as its whole is, and a root module that is in the answer is reachable.
    if root != module.entity_id and root in told:
        return _is_reachable(told[root], told, errors)
    return True if module.device_id == module.entity_id else None


class _Reader:
    """One answer being read: what stays the same for all that is in the home."""

    def __init__(self, account: str, home_id: str, time: datetime) -> None:
        self._account = account
        self._home_id = home_id
        self._time = time

    def room(self, block: Block) -> Entity | None:
        room_id = ident(block.fields.get("id"))
        if room_id is None:
            block.problem("id", "missing or unusable; the room is left out")
            return None
        velux = {"algo_status", "lux", "air_quality", "max_comfort_co2"} & set(block.fields)
        numbers = ROOM_NUMBERS | (VELUX_NUMBERS if velux else {})
        states = ROOM_STATE | (VELUX_STATE if velux else {})
        state = _state(block, states, ROOM_TIMES)
        values = {
            ours: amount / 10 if key in TENTHS else amount
            for key, ours in numbers.items()
            if (amount := block.told(key, number)) is not None
        }
        for key in TENTHS & state.keys():
            state[key] = state[key] / 10 if isinstance(state[key], float) else state[key]
        return self._entity(
            "room",
            room_id,
            "",
            "room",
            {},
            state=state,
            values=values if state.get("reachable", True) else {},
            other=block.unknown({"id", *numbers, *states, *ROOM_TIMES}),
        )

    def module(self, block: Block, kind: str) -> Entity | None:
        module_id = ident(block.fields.get("id"))
        if module_id is None:
            block.problem("id", "missing or unusable; the module is left out")
            return None
        bridge = block.told("bridge", ident)
        values = {
            ours: amount
            for key, ours in MODULE_NUMBERS.items()
            if (amount := block.told(key, number)) is not None
        }
        state = _state(block, MODULE_STATE, MODULE_TIMES)
        described, condition = block.read(MODULE_DESCRIBED), block.read(MODULE_TOLD)
        condition |= {ours: block.moment(key) for key, ours in MODULE_SEEN.items()}
        percent, level = values.get("battery_percent"), values.get("battery_level")
        battery = present(percent=percent, level_mv=level, state=state.get("battery_state"))
        ftp, strange = _ftp(block)
        known = {
            "id", "type", "bridge", _FTP, *MODULE_NUMBERS, *MODULE_STATE, *MODULE_TIMES,
            *MODULE_TOLD, *MODULE_SEEN, *MODULE_DESCRIBED, *_SKIPPED,
        }  # fmt: skip
        return self._entity(
            "module",
            module_id,
            bridge or module_id,
            kind,
            present(**described, battery_state=state.get("battery_state")),
            condition=present(**condition, battery=battery or None, last_ftp=ftp or None),
            state=state,
            values=values,
            other=(*block.unknown(known), *strange),
        )

    def person(self, block: Block) -> Entity | None:
        person_id = ident(block.fields.get("id"))
        if person_id is None:
            block.problem("id", "missing or unusable; the person is left out")
            return None
        away = block.told("out_of_sight", flag)
        return self._entity(
            "person",
            person_id,
            "",
            "person",
            {},
            condition=present(last_seen=block.moment("last_seen")),
            state={} if away is None else {"home": not away},
            other=block.unknown({"id", "last_seen", "out_of_sight"}),
        )

    def silent(self, module_id: str, code: int) -> Entity:
        """A module of which the cloud says only why it cannot tell its state."""
        state = {"reachable": False, "error": code}
        return self._entity("module", module_id, "", "unknown", {}, state=state)

    def row(self, entity: Entity) -> Measurement | None:
        if entity.latest is None:
            return None
        return Measurement(
            account=entity.account,
            home_id=entity.home_id,
            device_id=entity.device_id,
            module_id=entity.entity_id,
            module_type=entity.type,
            scale="live",
            time=self._time,
            values=entity.latest[1],
            source="homestatus",
        )

    def _entity(
        self,
        kind: str,
        entity_id: str,
        device_id: str,
        type_: str,
        description: Mapping[str, Any],
        *,
        condition: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        values: Mapping[str, float] | None = None,
        other: tuple[tuple[str, Any], ...] = (),
    ) -> Entity:
        return Entity(
            account=self._account,
            kind=kind,
            entity_id=entity_id,
            home_id=self._home_id,
            device_id=device_id,
            type=type_,
            description=description,
            condition=condition or {},
            state=state or {},
            latest=(self._time, values) if values else None,
            other=other,
        )


def _state(block: Block, names: Mapping[str, str], times: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, ours in names.items():
        value = block.told(key, flag if ours == "reachable" else scalar)
        if value is None:
            continue
        found[ours] = value
        if ours in WORDS and isinstance(value, str) and value not in WORDS[ours]:
            block.problem(key, f"unknown value {value[:40]}", drift=True)
    for key, ours in times.items():
        # Of a set-point that is told, 0, null and a missing time are an open end.
        family = _FAMILIES.get(key, f"{key.split('_')[0]}_")
        if any(name.startswith(family) and name not in _FAMILIES for name in block.fields):
            found[ours] = block.moment(key, _PLANNED)
    return found


def _ftp(block: Block) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The last upload of a doorbell to its owner's server, and what is unknown of it."""
    inner = block.inner(_FTP)
    strange = [(f"{_FTP}.{name}", value) for name, value in inner.unknown(("type", "time", "id"))]
    told = present(
        type=inner.told("type", number), time=inner.moment("time"), id=inner.told("id", number)
    )
    return told, strange


HOMESTATUS = Endpoint(
    name="homestatus",
    scope="",
    cadence="status",
    per="home",
    priority=Priority.LIVE,
    parse=parse_status,
    secrets=("home.modules.*.vpn_url",),
    lists=False,
)
