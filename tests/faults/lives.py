"""A household in the store against what the simulator served, moment by moment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.household import Device, Household, Person, Room
from tests.faults.house import House

Values = dict[str, Any]
POLL_S = 300


def stamps(document: Values) -> tuple[float, float]:
    """From when to when a state was so."""
    return document["time"].timestamp(), document["until"].timestamp()


def states_of(house: House, entity_id: str) -> list[Values]:
    with house.database() as database:
        return list(database["states"].find({"entity_id": entity_id}).sort("time", 1))


def live_rows(house: House, entity_id: str) -> dict[int, Values]:
    with house.database() as database:
        rows = list(database["measurements"].find({"module_id": entity_id, "scale": "live"}))
    return {int(row["time"].timestamp()): row["values"] for row in rows}


def room_state(household: Household, room: Room) -> Callable[[float], Values]:
    zone = ZoneInfo(household.zone)

    def at(moment: float) -> Values:
        amount, mode, since, until = lives.setpoint(room, zone, moment)
        told = {
            "setpoint_temperature": float(amount),
            "setpoint_mode": mode,
            "setpoint_start": since,
            "open_window": lives.window_open(room, moment),
        }
        return told | ({"setpoint_end": until} if until else {})

    return at


def device_state(device: Device) -> Callable[[float], Values]:
    read: dict[str, Callable[[float], Values]] = {
        "NATherm1": lambda at: {"boiler": lives.boiler_on(device, at)},
        "NACamDoorTag": lambda at: {"status": "open" if lives.door_open(device, at) else "closed"},
        "NBR": lambda at: {"position": float(lives.position(device, at))},
        "NLV": lambda at: {"position": float(lives.position(device, at))},
        "NLLF": lambda at: {"fan_speed": float(lives.fan_speed(at))},
        **dict.fromkeys(
            ("NACamera", "NOC", "NDB"),
            lambda at: {"monitoring": lives.monitoring(device, at)},
        ),
        **dict.fromkeys(
            ("NLP", "NLPM", "NLPO", "NLPT", "NLL", "NLM", "NLC", "NLF"),
            lambda at: {"on": lives.is_on(device, at)},
        ),
    }
    return read.get(device.type, lambda _: {})


def person_state(person: Person) -> Callable[[float], Values]:
    return lambda at: {"home": not lives.is_away(person, at)}


def every_state(household: Household) -> Iterator[tuple[str, Callable[[float], Values]]]:
    """(entity id, its state at a moment) of all that has one."""
    warm = {each.room_id for each in household.of_type("NATherm1", "NRV")}
    for room in household.rooms:
        if room.id in warm:
            yield room.id, room_state(household, room)
    for device in household.devices:
        yield device.id, device_state(device)
    for person in household.persons:
        yield person.id, person_state(person)


def wrong_states(house: House, household: Household, polls: list[int]) -> list[str]:
    """Polls at which the stored state of an entity is not what was served, or there is not one.

    polls  times of answers of homestatus
    """
    wrong = []
    for entity_id, served in every_state(household):
        documents = [(*stamps(each), each["values"]) for each in states_of(house, entity_id)]
        place = 0
        for poll in polls:
            while place < len(documents) and documents[place][1] < poll:
                place += 1
            found = documents[place] if place < len(documents) else None
            if found is None or not found[0] <= poll <= found[1]:
                wrong.append(f"{entity_id} at {poll}: no state")
            # An answer's time is cut to whole seconds.
            elif not any(_agrees(found[2], served(poll + part)) for part in (0.0, 0.999)):
                wrong.append(f"{entity_id} at {poll}: {found[2]} is not {served(poll)}")
    return wrong


def wrong_live(house: House, household: Household, polls: list[int]) -> list[str]:
    """Polls of which a live row is missing or is not what was served."""
    zone, wrong = ZoneInfo(household.zone), []
    for room in household.rooms:
        rows = live_rows(house, room.id)
        if not any(each.room_id == room.id for each in household.of_type("NATherm1", "NRV")):
            continue
        for poll in polls:
            served = [
                {
                    "temperature": float(lives.temperature(room, poll + part)),
                    "heating_power_request": float(lives.power_request(room, zone, poll + part)),
                }
                for part in (0.0, 0.999)
            ]
            if rows.get(poll) not in served:
                wrong.append(f"{room.id} at {poll}: {rows.get(poll)} is not {served[0]}")
    for device in household.of_type("NLPC", "NLY"):
        rows = live_rows(house, device.id)
        for poll in polls:
            powers = {float(lives.power(device, poll + part)) for part in (0.0, 0.999)}
            if rows.get(poll, {}).get("power") not in powers:
                wrong.append(f"{device.id} at {poll}: {rows.get(poll)} is not {powers}")
    return wrong


def _agrees(stored: Values, served: Values) -> bool:
    plain = {
        name: value.timestamp() if isinstance(value, datetime) else value
        for name, value in stored.items()
    }
    if "setpoint_end" in plain and "setpoint_end" not in served:
        return False
    return all(plain.get(name) == value for name, value in served.items())


def wrong_events(house: House, household: Household, begin: float, end: float) -> list[str]:
    """Events in [begin, end] that are missing or not as the cloud shows them, and their pictures.

    A picture that had an address has to be there, its bytes under their hash.
    """
    told = house.cloud.ask("GET", f"expected?events={household.home_id}")["events"]
    expected = {each["id"]: each for each in told if begin <= each["time"] <= end}
    with house.database() as database:
        stored = {each["_id"]: each for each in database["events"].find()}
        pictures = {each["_id"]: each["bytes"] for each in database["pictures"].find()}
    wrong = [
        f"picture {name} has other bytes"
        for name, image in pictures.items()
        if hashlib.sha256(image).hexdigest() != name
    ]
    for event_id, each in expected.items():
        if event_id not in stored:
            wrong.append(f"{event_id} is missing")
            continue
        found = stored[event_id]
        same = (
            found["type"] == each["type"]
            and found["time"].timestamp() == each["time"]
            and found["module_id"] == each["module_id"]
            and found.get("video_status") == each.get("video_status")
            and [one["id"] for one in found.get("subevents") or ()]
            == [one["id"] for one in each.get("subevents") or ()]
        )
        if not same:
            wrong.append(f"{event_id} is {found}, not {each}")
        wrong += [
            f"{event_id} lacks {sha256}: {found.get('pictures_lost')}"
            for sha256 in _pictures_of(each)
            if sha256 not in found["pictures"] or sha256 not in pictures
        ]
    return wrong


def _pictures_of(event: Values) -> Iterator[str]:
    for part in (event, *(event.get("subevents") or ())):
        for slot in ("snapshot", "vignette"):
            shot = part.get(slot)
            if shot and shot["address"]:
                yield shot["sha256"]
