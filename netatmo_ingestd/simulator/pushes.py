"""What the cloud pushes to a webhook, and when: pure, from what happens (netatmo-api 3.12).

Security events and sub-events as they begin, set-points that somebody turns, and, as they change,
the values of boilers, rooms, stations and sockets. Like the real ones, some come without `user_id`
or `home_id`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import happenings, lives
from netatmo_ingestd.simulator.curves import hashed
from netatmo_ingestd.simulator.happenings import Happening, Part, Shot
from netatmo_ingestd.simulator.household import CLIMATE, Device, Household, Room
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import World

Body = dict[str, Any]
Sign = Callable[[Shot], str]
"""A new address of a picture."""

EVENTS, DISPLAY, TOPOLOGY, DEVICES = "events", "display_change", "topology_changed", "device_event"
KINDS = (EVENTS, DISPLAY, TOPOLOGY, DEVICES)
GRID_S = 900  # on which set-points change, in every time zone
UPLOAD_S = 600
BEYOND_INT64 = 12_004_417_733_981_200_000
_CAMERAS = happenings.CAMERAS
_WEATHER = {
    "Temperature": "temperature",
    "CO2": "co2",
    "Humidity": "humidity",
    "Noise": "noise_current",
    "Pressure": "pressure_sea",
}
_SWITCHED = ("NLP", "NLPM", "NLPO", "NLPT", "NLF", "NLL", "NLM", "NLC")


class Home(NamedTuple):
    """A home, to one who gets its pushes.

    scopes  of the login: what it may not read is not pushed
    """

    household: Household
    name: str
    user_id: str
    scopes: Sequence[str]

    def may(self, device: Device) -> bool:
        return device.scope in self.scopes


@dataclass(frozen=True, slots=True)
class Push:
    """One call of a webhook.

    at     simulated epoch
    kind   of KINDS, by which it is switched on and off
    write  gives the body, once it is sent
    """

    at: float
    kind: str
    write: Callable[[Sign], Body]


def between(world: World, home: Home, begin: float, end: float) -> list[Push]:
    """All pushes of a home in [begin, end), oldest first, but those of its topology."""
    found = [*_events(home, begin, end), *_set_points(home, begin, end)]
    found += [*_boilers(home, begin, end), *_rooms(home, begin, end)]
    found += [*_sockets(home, begin, end), *_stations(world, home, begin, end)]
    return sorted(found, key=lambda push: push.at)


def _push(at: float, kind: str, body: Body) -> Push:
    """One without pictures."""
    return Push(at, kind, lambda _sign: body)


# --- security ------------------------------------------------------------------------------------


def _events(home: Home, begin: float, end: float) -> Iterator[Push]:
    """A container itself is never pushed, its sub-events are."""
    days = (end - begin + 2 * lives.HALF) / happenings.DAY
    for event in happenings.shown(home.household, end, days):
        if not home.may(event.device):
            continue
        for part in event.parts:
            if begin <= part.time < end:
                yield Push(part.time, EVENTS, partial(event_body, home, event, part))
        if not event.parts and begin <= event.time < end:
            yield Push(event.time, EVENTS, partial(event_body, home, event, None))


def event_type(event: Happening, part: Part | None = None) -> str:
    """The push_type; connections of every other device have a bare one."""
    what = part.type if part else event.type
    if what in ("connection", "disconnection") and event.device.salt % 2:
        return what
    kind = "NACamera" if event.device.type == "NACamDoorTag" else event.device.type
    return f"{kind}-{what}"


def event_body(home: Home, event: Happening, part: Part | None, sign: Sign) -> Body:
    """Of an event, or of a sub-event; pictures that lie on the card have no address here."""
    device, told = event.device, dict(event.told)
    seen = part or event
    body = _addressed(home, event.id) | {
        "event_id": event.id,
        "event_type": seen.type,
        "push_type": event_type(event, part),
        "home_name": home.name,
        "device_id": device.gateway,
        "message": seen.message,
    }
    if part:
        body["subevent_id"] = part.id
    if device.type in (*_CAMERAS, "NACamDoorTag"):
        body["camera_id"] = device.gateway
    if device.bridge:
        body["module_id"] = device.id
    if "sub_type" in told:
        body["sub_type"] = told["sub_type"]
    for shot in seen.shots:
        if not shot.filename:
            body |= _picture(shot.slot, shot, sign)
    if "person_id" in told:
        faces = [_face(shot, sign) for shot in event.shots if shot.slot == "vignette"]
        faces = [face for face in faces if face] or [{}]
        named = any(each.id == told["person_id"] and each.name for each in home.household.persons)
        body["persons"] = [{"id": told["person_id"], **faces[0], "is_known": named}]
    return body


def _picture(name: str, shot: Shot, sign: Sign) -> Body:
    key = f"{hashed(shot.art, 'key'):016x}"
    return {f"{name}_id": shot.name[:24], f"{name}_key": key, f"{name}_url": sign(shot)}


def _face(shot: Shot, sign: Sign) -> Body:
    return {} if shot.filename else _picture("face", shot, sign)


def _addressed(home: Home, salt: object) -> Body:
    """Of four pushes one has no user_id, of six one no home_id."""
    mark = hashed(0, home.household.home_id, "addressed", salt)
    user = {"user_id": home.user_id} if mark % 4 else {}
    return user | ({"home_id": home.household.home_id} if mark >> 8 & 0xFF >= 43 else {})


# --- heating -------------------------------------------------------------------------------------


def _set_points(home: Home, begin: float, end: float) -> Iterator[Push]:
    """When somebody turns the set-point; what the schedule does is not pushed."""
    zone = ZoneInfo(home.household.zone)
    for room, device in _warmed(home):
        for grid in range(int(begin) // GRID_S * GRID_S, int(end) + GRID_S, GRID_S):
            _, mode, since, _ = lives.setpoint(room, zone, grid)
            if mode == "manual" and since == grid and begin <= since < end:
                yield _push(since, DISPLAY, set_point_body(home, room, device, since))


def set_point_body(home: Home, room: Room, device: Device, at: float) -> Body:
    """`display_change`, with the set-point of a room at `at`."""
    amount, mode, since, until = lives.setpoint(room, ZoneInfo(home.household.zone), at)
    shown = {
        "id": room.id,
        "therm_setpoint_mode": mode,
        "therm_setpoint_temperature": amount,
        "therm_setpoint_start_time": since,
    }
    if until:
        shown["therm_setpoint_end_time"] = until
    return _addressed(home, since) | {
        "push_type": DISPLAY,
        "event_type": "setpoint_event",
        "type": "setpoint_event",
        "device_id": device.gateway,
        "room_id": room.id,
        "mode": mode,
        "temperature": amount,
        "correlation_id": str(hashed(room.salt, "set-point", int(at))),
        "home": {"id": home.household.home_id, "rooms": [shown]},
    }


def _warmed(home: Home) -> Iterator[tuple[Room, Device]]:
    """Each warmed room, with the first of its devices that may be seen."""
    devices = [each for each in home.household.of_type(*CLIMATE) if home.may(each)]
    for room in home.household.warmed():
        device = next((each for each in devices if each.room_id == room.id), None)
        if device:
            yield room, device


def _boilers(home: Home, begin: float, end: float) -> Iterator[Push]:
    for device in filter(home.may, home.household.of_type("NATherm1")):
        for slot in range(int(begin) // lives.SLOT, int(end) // lives.SLOT + 1):
            for at, state in zip(lives.burn(device, slot), ("on", "off"), strict=True):
                if begin <= at < end:
                    told = {"event_type": "boiler_event", "boiler_status": f"boiler_{state}"}
                    yield _energy(home, device.gateway, at, **told)


def _rooms(home: Home, begin: float, end: float) -> Iterator[Push]:
    """A room that got warmer or colder."""
    zone = ZoneInfo(home.household.zone)
    for room, device in _warmed(home):
        for at in lives.sample_times(room.salt, begin, end):
            now, before = (lives.temperature(room, each) for each in (at, at - lives.SAMPLE_S))
            if now != before and at < end:
                amount, mode, _, _ = lives.setpoint(room, zone, at)
                told = {"room_id": room.id, "temperature": now, "setpoint": amount, "mode": mode}
                told["event_type"] = "temperature_variation_event"
                yield _energy(home, device.gateway, at, **told)


def _energy(home: Home, device_id: str, at: int, **told: Any) -> Push:
    kind = next((d.type for d in home.household.devices if d.id == device_id), "NAPlug")
    return _device_event(home, device_id, at, {**told, "device_type": kind, "ts": at})


# --- wiring and weather --------------------------------------------------------------------------


def _sockets(home: Home, begin: float, end: float) -> Iterator[Push]:
    """Lights and sockets that go on or off; looked at by the minute."""
    for device in filter(home.may, home.household.of_type(*_SWITCHED)):
        for at in range(math.ceil(begin / 60) * 60, math.ceil(end), 60):
            if lives.is_on(device, at) != lives.is_on(device, at - 60):
                yield _device_event(home, device.gateway, at, switched(device, at))


def switched(device: Device, at: float) -> Body:
    """`extra_params` of a socket; the number that correlates does not fit into 64 bits."""
    mark = hashed(device.salt, "switched", int(at))
    shown = {
        "id": device.id,
        "type": device.type,
        "on": lives.is_on(device, at),
        "power": lives.power(device, at),
        "reachable": True,
    }
    return {
        "correlation_id": BEYOND_INT64 + mark % 10**9,
        "sequence_id": mark % 10_000,
        "source": "netcom",
        "modules": [shown],
    }


def _stations(world: World, home: Home, begin: float, end: float) -> Iterator[Push]:
    """The values of each upload, under the names that only pushes have."""
    if "read_station" not in home.scopes:
        return
    for station in world.stations.values():
        if station.home_id != home.household.home_id:
            continue
        phase = station.main.phase % UPLOAD_S
        first = int(begin) // UPLOAD_S * UPLOAD_S + phase
        for at in range(first if first >= begin else first + UPLOAD_S, math.ceil(end), UPLOAD_S):
            view = View(world, at)
            shown = []
            for module in station.all:
                newest = view.newest(module)
                if newest:
                    told = zip(module.fields, newest[1], strict=True)
                    values = {_WEATHER[name]: value for name, value in told if name in _WEATHER}
                    shown.append({"id": module.id, **values})
            if shown:
                yield _device_event(home, station.id, at, {"modules": shown})


def _device_event(home: Home, device_id: str, at: float, extra: Mapping[str, Any]) -> Push:
    return _push(at, DEVICES, device_body(home, device_id, extra))


def device_body(home: Home, device_id: str, extra: Mapping[str, Any]) -> Body:
    """`device_event`; it never has a user_id."""
    told = {"push_type": DEVICES, "device_id": device_id, "extra_params": dict(extra)}
    return told | {"home_id": home.household.home_id}


# --- on request ----------------------------------------------------------------------------------

_CHANGES = {
    "vanished": "module_updated",
    "renamed": "device_updated",
    "moved": "module_assigned_to_room",
    "replaced": "device_associated_to_home",
}
"""Faults that change the topology, and what a push says of them."""


def topology_body(home: Home, kind: str, module: str | None) -> Body | None:
    """`topology_changed` of a fault; None when it is no such fault, or none of this home."""
    house = home.household
    ids = {house.home_id, *(d.id for d in house.devices), *(room.id for room in house.rooms)}
    if kind not in _CHANGES or (module is not None and module not in ids):
        return None
    return {"push_type": TOPOLOGY, "home_id": house.home_id, "change": _CHANGES[kind]}


def example(home: Home, push_type: str, now: float, sign: Sign, mark: str) -> Body:
    """A push of that type, as if something had just happened.

    push_type  of an event: the newest one that is pushed under this type, with an id of its own;
               of what never happened here, and of all others, what is known of it
    mark       hex digits that make it another one than the last
    """
    number = int(mark, 16)
    if push_type == DISPLAY:
        for room, device in _warmed(home):
            return set_point_body(home, room, device, now) | {"correlation_id": str(number)}
    if push_type == DEVICES:
        for device in filter(home.may, home.household.of_type(*_SWITCHED)):
            extra = switched(device, now) | {"correlation_id": BEYOND_INT64 + number % 10**9}
            return device_body(home, device.gateway, extra)
    kind, _, what = push_type.rpartition("-")
    addressed = {"user_id": home.user_id, "home_id": home.household.home_id}
    if not kind and what not in ("connection", "disconnection"):
        told = {"user_id": home.user_id} if what.startswith("webhook_") else addressed
        return told | {"push_type": push_type}
    for event in happenings.shown(home.household, now):
        for part in event.parts or (None,):
            if event_type(event, part) == push_type and home.may(event.device):
                body = event_body(home, event, part, sign)
                return body | {"event_id": f"{int(now):08x}{mark[:16]:0>16}"}
    device_id = next((each.id for each in home.household.of_type(kind)), None)
    named = {"device_id": device_id} if device_id else {}
    fresh = {"event_id": f"{int(now):08x}{mark[:16]:0>16}", "event_type": what}
    return addressed | fresh | named | {"push_type": push_type, "home_name": home.name}
