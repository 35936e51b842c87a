"""World faults of households: what is wrong with a device, a room or a whole answer.

Faults that move, rename or remove a device change it for both methods; the others spoil what is
told. A fault whose `module` is the id of a room, person or home is about that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.household import Device, Household, Room

Told = dict[str, Json]
_GARBAGE: tuple[Json, ...] = (None, -1, 2**70, "\ud800", [], {}, "x" * 70, True, [[]], {"$a": 1})


def touching(faults: Sequence[Fault], kind: str, device: Device) -> list[Fault]:
    """Of a kind, about this device or the gateway behind which it is."""
    return [f for f in faults if f.kind == kind and f.touches(device.id, device.gateway)]


def touching_home(faults: Sequence[Fault], kind: str, home_id: str) -> list[Fault]:
    return [f for f in faults if f.kind == kind and f.touches(home_id, home_id)]


def only_in(method: str, room: Room, faults: Sequence[Fault]) -> bool:
    """Whether a room is told by that method alone."""
    found = [f for f in faults if f.kind == "lone_room" and f.touches(room.id, room.home_id)]
    return any(fault.params["where"] == method for fault in found)


def changed(device: Device, household: Household, faults: Sequence[Fault]) -> Device:
    """The device under another name, or in another room: the one named, or the next."""
    for fault in touching(faults, "renamed", device):
        device = replace(device, name=fault.params["name"])
    for fault in touching(faults, "moved", device):
        rooms = [each.id for each in household.rooms]
        if device.room_id in rooms:
            following = rooms[(rooms.index(device.room_id) + 1) % len(rooms)]
            device = replace(device, room_id=fault.params["room"] or following)
    return device


def device(told: Told, device: Device, faults: Sequence[Fault]) -> Told:
    """What is told of a device, spoiled."""
    mine = [each for each in faults if each.touches(device.id, device.gateway)]
    return _spoiled(told, mine, device.salt)


def spoiled(told: Told, entity_id: str, faults: Sequence[Fault]) -> Told:
    """The same of a room or person, by faults that name it."""
    return _spoiled(told, [each for each in faults if each.params["module"] == entity_id], 0)


def status(body: Told, home_id: str, faults: Sequence[Fault]) -> Json:
    """The body of `homestatus` with parts missing.

    variant  empty: nothing in it; no_id: the home is not named; bare: the home is only named; else
             `rooms`, `modules`, `persons` or `errors` is absent
    """
    for fault in touching_home(faults, "odd_status", home_id):
        variant = fault.params["variant"]
        if variant == "empty":
            return {}
        if variant == "no_id":
            body["home"].pop("id", None)
        elif variant == "bare":
            body["home"] = {"id": home_id}
        else:
            body.pop(variant, None)
            body["home"].pop(variant, None)
    return body


def _spoiled(told: Told, faults: Sequence[Fault], salt: int) -> Told:
    for fault in faults:
        params = fault.params
        match fault.kind:
            case "no_name":
                told.pop("name", None)
            case "missing":
                told = {key: value for key, value in told.items() if key not in params["keys"]}
            case "unknown_type":
                told["type"] = params["type"]
            case "unknown_field":
                told[params["field"]] = params["value"]
            case "unknown_value" if params["field"] in told:
                told[params["field"]] = params["value"]
            case "garbled":
                told = _garbled(told, salt + params["shift"])
    return told


def _garbled(told: Told, shift: int) -> Told:
    """Every field but the id is of some other kind."""
    others = [key for key in told if key != "id"]
    garbage = {key: _GARBAGE[(place + shift) % len(_GARBAGE)] for place, key in enumerate(others)}
    return {"id": told["id"], **garbage}
