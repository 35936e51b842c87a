"""`homesdata` and `homestatus`: what a home consists of, and how it is now (netatmo-api 3.5, 3.6).

Modules of a product whose scope the login lacks are left out, as the cloud does. What is told of
each stands in `descriptions` and `conditions`; what is wrong with it, in `misfits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import conditions, descriptions, misfits
from netatmo_ingestd.simulator.answers import NO_BODY, Json, invalid_argument, missing_arguments
from netatmo_ingestd.simulator.household import CLIMATE, SCOPES, Device, Household, Room
from netatmo_ingestd.simulator.weather import Call, Method
from netatmo_ingestd.simulator.world import Module, Station

READ_SCOPES = tuple(dict.fromkeys((*SCOPES.values(), "read_magellan", "read_station")))
PERSONS_SCOPE = "read_camera"


def topology(call: Call) -> Json:
    """`homesdata`: the homes of the account, or the one that is asked for."""
    wanted = dict(call.params).get("home_id")
    homes = list(_homes(call))
    if wanted and wanted not in [station.home_id for station in homes]:
        raise invalid_argument("Invalid home_id")
    return {
        "homes": [_home(call, each) for each in homes if wanted in (None, "", each.home_id)],
        "user": descriptions.user(call.account),
    }


def status(call: Call) -> Json:
    """`homestatus`: rooms, modules and persons now; no body for a home without modules."""
    home_id = dict(call.params).get("home_id")
    if not home_id:
        raise missing_arguments("home_id")
    station = next((each for each in _homes(call) if each.home_id == home_id), None)
    if station is None:
        raise invalid_argument("Invalid home_id")
    household = call.view.world.households.get(home_id)
    devices, members = visible(call, household, "device_types"), _members(call, station)
    if not devices and not members:
        return NO_BODY
    mute = [each for each in devices if misfits.touching(call.faults, "unreachable", each)]
    gone = {each.id for each in mute}
    heard = [each for each in devices if each.id not in gone and each.gateway not in gone]
    told: dict[str, Json] = {"id": home_id}
    if rooms := _climates(call, household, devices, heard):
        told["rooms"] = rooms
    modules = [_state(call, each) for each in heard]
    modules += [conditions.weather(call.view, each, station) for each in members]
    if modules:
        told["modules"] = modules
    if household and household.persons and PERSONS_SCOPE in call.scopes:
        told["persons"] = [
            misfits.spoiled(conditions.person(each, call.view.now), each.id, call.faults)
            for each in household.persons
        ]
    body: dict[str, Json] = {"home": told}
    if mute:
        body["errors"] = [
            {"code": fault.params["code"], "id": each.id}
            for each in mute
            for fault in misfits.touching(call.faults, "unreachable", each)[:1]
        ]
    return misfits.status(body, home_id, call.faults)


METHODS: Mapping[str, Method] = {
    "homesdata": Method(READ_SCOPES, topology),
    "homestatus": Method(READ_SCOPES, status),
}


def visible(call: Call, household: Household | None, argument: str) -> list[Device]:
    """The devices that the login may see, as faults have moved, renamed or removed them.

    argument  names the filter of the call: types of gateways, at commas or repeated
    """
    if household is None or misfits.touching_home(call.faults, "no_modules", household.home_id):
        return []
    types = {part for name, value in call.params if name == argument for part in value.split(",")}
    roots = {each.id: each.type for each in household.devices if each.bridge is None}
    return [
        misfits.changed(each, household, call.faults)
        for each in household.devices
        if each.scope in call.scopes
        and (not types or roots[each.gateway] in types)
        and not misfits.touching(call.faults, "vanished", each)
    ]


def _homes(call: Call) -> Iterator[Station]:
    for station_id in call.account.owns:
        yield call.view.world.stations[station_id]


def _members(call: Call, station: Station) -> list[Module]:
    """The weather modules of a home, if the login may see them."""
    filtered = any(name in ("gateway_types", "device_types") for name, _ in call.params)
    bare = misfits.touching_home(call.faults, "no_modules", station.home_id)
    if "read_station" not in call.scopes or filtered or bare:
        return []
    return [each for each in (station.main, *call.view.members(station)) if call.view.present(each)]


# --- homesdata ---------------------------------------------------------------------------------


def _home(call: Call, station: Station) -> Json:
    household = call.view.world.households.get(station.home_id)
    devices = visible(call, household, "gateway_types")
    told = descriptions.home(station)
    if household and devices:
        told["rooms"] = [
            misfits.spoiled(descriptions.room(each, devices), each.id, call.faults)
            for each in household.rooms
            if not misfits.only_in("homestatus", each, call.faults)
        ]
        bare = misfits.touching_home(call.faults, "no_schedules", station.home_id)
        if _warm(household, devices):
            told |= descriptions.heating(household, bare=bool(bare))
        if any(each.type == "NLG" for each in devices) and not bare:
            paid = descriptions.electricity(household, call.view.world.contract, call.view.now)
            told["schedules"] = [*told.get("schedules", ()), paid]
        if household.persons and PERSONS_SCOPE in call.scopes:
            told["persons"] = [
                misfits.spoiled(descriptions.person(each), each.id, call.faults)
                for each in household.persons
            ]
    modules = [
        misfits.device(descriptions.device(each, devices), each, call.faults) for each in devices
    ]
    modules += [descriptions.weather(each, station) for each in _members(call, station)]
    if modules:
        told["modules"] = modules
    return told


def _warm(household: Household, devices: Sequence[Device]) -> list[Room]:
    """Rooms that one of these devices measures."""
    inside = {each.room_id for each in devices if each.type in CLIMATE}
    return [each for each in household.rooms if each.id in inside]


# --- homestatus --------------------------------------------------------------------------------


def _climates(
    call: Call, household: Household | None, devices: Sequence[Device], heard: Sequence[Device]
) -> list[Json]:
    """The rooms; one of which nothing is heard says only that, and none if all are silent."""
    if household is None or not heard:
        return []
    zone, told = ZoneInfo(household.zone), []
    lively = {each.id for each in _warm(household, heard)}
    for room in _warm(household, devices):
        if misfits.only_in("homesdata", room, call.faults):
            continue
        types = {each.type for each in heard if each.room_id == room.id}
        if room.id in lively:
            state = conditions.room(room, types, zone, call.view.now)
        else:
            state = {"id": room.id, "reachable": False}
        told.append(misfits.spoiled(state, room.id, call.faults))
    return told


def _state(call: Call, device: Device) -> Json:
    return misfits.device(conditions.device(device, call.view.now), device, call.faults)
