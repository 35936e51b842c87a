"""`homesdata` and `homestatus`: what a home consists of, and how it is now (netatmo-api 3.5, 3.6).

Modules of a product whose scope the login lacks are left out, as the cloud does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.answers import (
    NO_BODY,
    Json,
    invalid_argument,
    missing_arguments,
)
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.household import SCOPES, Device, Household, Person, Room
from netatmo_ingestd.simulator.weather import Call, Method
from netatmo_ingestd.simulator.world import Module, Station

READ_SCOPES = tuple(dict.fromkeys((*SCOPES.values(), "read_magellan", "read_station")))
_GARBAGE: tuple[Json, ...] = (None, -1, 2**70, "\ud800", [], {}, "x" * 70, True, [[]], {"$a": 1})
_SETPOINT_MINUTES = 180


def topology(call: Call) -> Json:
    """`homesdata`: the homes of the account, or the one that is asked for."""
    wanted = dict(call.params).get("home_id")
    homes = list(_homes(call))
    if wanted and wanted not in [station.home_id for station in homes]:
        raise invalid_argument("Invalid home_id")
    user = {
        "id": call.account.user_id,
        "email": call.account.user,
        "language": "en",
        "locale": "en-GB",
        "feel_like_algorithm": 0,
        "unit_pressure": 0,
        "unit_system": 0,
        "unit_wind": 0,
        "all_linked": False,
        "type": "netatmo",
    }
    return {
        "homes": [_home(call, each) for each in homes if wanted in (None, each.home_id)],
        "user": user,
    }


def status(call: Call) -> Json:
    """`homestatus`: rooms, modules and persons now; no body for a home without modules."""
    home_id = dict(call.params).get("home_id")
    if not home_id:
        raise missing_arguments("home_id")
    if home_id not in [station.home_id for station in _homes(call)]:
        raise invalid_argument("Invalid home_id")
    household = call.view.world.households.get(home_id)
    devices = _devices(call, household)
    if household is None or not devices:
        return NO_BODY
    zone, now = ZoneInfo(household.zone), call.view.now
    mute = [each for each in devices if _touching(call, "unreachable", each)]
    gone = {each.id for each in mute}
    heard = [each for each in devices if each.id not in gone and each.gateway not in gone]
    body: dict[str, Json] = {
        "home": {
            "id": household.home_id,
            "modules": [_spoiled(call, each, _state(each, now)) for each in heard],
        }
    }
    warm = {each.room_id for each in heard if each.type in ("NATherm1", "NRV")}
    rooms = [_climate(room, zone, now) for room in household.rooms if room.id in warm]
    if rooms:
        body["home"]["rooms"] = rooms
    if "read_camera" in call.scopes and household.persons:
        body["home"]["persons"] = [_whereabouts(each, now) for each in household.persons]
    if gone:
        body["errors"] = [{"code": 6, "id": each.id} for each in mute]
    return body


METHODS: Mapping[str, Method] = {
    "homesdata": Method(READ_SCOPES, topology),
    "homestatus": Method(READ_SCOPES, status),
}


def _homes(call: Call) -> Iterator[Station]:
    for station_id in call.account.owns:
        yield call.view.world.stations[station_id]


def _devices(call: Call, household: Household | None) -> list[Device]:
    """What the login may see and has not been removed."""
    return [
        each
        for each in (household.devices if household else ())
        if each.scope in call.scopes and not _touching(call, "vanished", each)
    ]


def _touching(call: Call, kind: str, device: Device) -> list[Fault]:
    return [f for f in call.faults if f.kind == kind and f.touches(device.id, device.gateway)]


# --- homesdata ---------------------------------------------------------------------------------


def _home(call: Call, station: Station) -> Json:
    household = call.view.world.households.get(station.home_id)
    devices = _devices(call, household)
    modules = [_spoiled(call, each, _described(call, each, devices)) for each in devices]
    if "read_station" in call.scopes:
        members = (station.main, *call.view.members(station))
        modules += [_weather(each, station) for each in members if call.view.present(each)]
    home: dict[str, Json] = {
        "id": station.home_id,
        "name": station.home_name,
        "altitude": station.place.altitude,
        "coordinates": list(station.place.location),
        "country": station.place.country,
        "timezone": station.place.timezone,
    }
    if household and devices:
        home["rooms"] = [_room(each, devices) for each in household.rooms]
        if household.of_type("NATherm1", "NRV") and "read_thermostat" in call.scopes:
            home |= _heating(household)
        if household.persons and "read_camera" in call.scopes:
            home["persons"] = [_known(each) for each in household.persons]
    if modules:
        home["modules"] = modules
    return home


def _heating(household: Household) -> dict[str, Json]:
    zones = [
        {
            "id": number,
            "name": name,
            "type": number,
            "rooms": [
                {"id": room.id, "therm_setpoint_temperature": warmth} for room in household.rooms
            ],
            "rooms_temp": [{"room_id": room.id, "temp": warmth} for room in household.rooms],
        }
        for number, (name, warmth) in enumerate((("Comfort", 20.5), ("Night", 17)))
    ]
    timetable = [
        {"zone_id": zone, "m_offset": day * 1440 + hour * 60}
        for day in range(7)
        for zone, hour in ((0, 6), (1, 22))
    ]
    schedule = {
        "id": f"{household.home_id[:16]}5c4ed01e",
        "name": "Standard",
        "type": "therm",
        "selected": True,
        "default": True,
        "away_temp": 12,
        "hg_temp": 7,
        "timetable": timetable,
        "zones": zones,
    }
    return {
        "temperature_control_mode": "heating",
        "therm_mode": "schedule",
        "therm_setpoint_default_duration": _SETPOINT_MINUTES,
        "schedules": [schedule],
    }


def _room(room: Room, devices: list[Device]) -> Json:
    inside = [each.id for each in devices if each.room_id == room.id]
    return {"id": room.id, "name": room.name, "type": room.type, "module_ids": inside}


def _described(call: Call, device: Device, devices: list[Device]) -> dict[str, Json]:
    told: dict[str, Json] = {
        "id": device.id,
        "type": device.type,
        "name": device.name,
        "setup_date": device.setup,
    }
    if device.room_id:
        told["room_id"] = device.room_id
    if device.bridge:
        told["bridge"] = device.bridge
    behind = [each.id for each in devices if each.bridge == device.id]
    if behind:
        told["modules_bridged"] = behind
    if device.type == "NACamDoorTag":
        told["category"] = "door"
    if device.type in ("NLP", "NLPM"):
        told["appliance_type"] = "multimedia"
    for fault in _touching(call, "renamed", device):
        told["name"] = fault.params["name"]
    if _touching(call, "no_name", device):
        del told["name"]
    return told


def _weather(module: Module, station: Station) -> Json:
    bridge = {} if module.id == station.id else {"bridge": station.id}
    return {
        "id": module.id,
        "type": module.type,
        "name": module.name,
        "setup_date": module.setup,
        **bridge,
    }


def _known(person: Person) -> Json:
    address = "https://netatmocameraimage.blob.core.windows.net/production/"
    return {
        "id": person.id,
        "pseudo": person.name,
        "url": f"{address}{person.id}?sv=2010-01-01&se=2030-01-01T00:00:00Z&sig=simulated",
    }


# --- homestatus --------------------------------------------------------------------------------


def _climate(room: Room, zone: ZoneInfo, at: float) -> Json:
    amount, mode, since, until = lives.setpoint(room, zone, at)
    return {
        "id": room.id,
        "reachable": True,
        "anticipating": False,
        "heating_power_request": lives.power_request(room, zone, at),
        "open_window": lives.window_open(room, at),
        "therm_measured_temperature": lives.temperature(room, at),
        "therm_setpoint_temperature": amount,
        "therm_setpoint_mode": mode,
        "therm_setpoint_start_time": since,
        "therm_setpoint_end_time": until,
    }


def _whereabouts(person: Person, at: float) -> Json:
    seen, away = lives.last_seen(person, at), lives.is_away(person, at)
    return {"id": person.id, "last_seen": seen, "out_of_sight": away}


def _state(device: Device, at: float) -> dict[str, Json]:
    told: dict[str, Json] = {"id": device.id, "type": device.type}
    if device.bridge:
        told["bridge"] = device.bridge
    if "#" in device.id:
        return told | ({"power": lives.power(device, at)} if device.type == "NLY" else {})
    told["firmware_revision"] = 100 + device.salt % 100
    if device.bridge:
        told |= {"reachable": True, "rf_strength": 60 + device.salt % 30}
    else:
        told["wifi_strength"] = 45 + device.salt % 30
    read = _STATES.get(device.type)
    return told | (read(device, at) if read else _switch(device, at))


def _battery(device: Device, at: float) -> dict[str, Json]:
    level = lives.battery_mv(device, at)
    return {"battery_level": level, "battery_state": lives.battery_state(level)}


def _switch(device: Device, at: float) -> dict[str, Json]:
    return {"on": lives.is_on(device, at), "power": lives.power(device, at)}


def _thermostat(device: Device, at: float) -> dict[str, Json]:
    return {
        **_battery(device, at),
        "boiler_status": lives.boiler_on(device, at),
        "boiler_valve_comfort_boost": False,
        "anticipating": False,
    }


def _camera(device: Device, at: float) -> dict[str, Json]:
    told = {
        "monitoring": lives.monitoring(device, at),
        "sd_status": 4,
        "alim_status": 2,
        "locked": False,
        "vpn_url": f"https://prodvpn-eu-2.netatmo.net/restricted/10.0.0.1/{device.salt:08x},,",
        "is_local": False,
        "wifi_state": "high",
    }
    if device.type == "NOC":
        told |= {"floodlight": "auto", "siren_status": "no_sound"}
    if device.type == "NDB":
        told |= {"websocket_connected": True, "max_peers_reached": False}
    return told


def _tag(device: Device, at: float) -> dict[str, Json]:
    begin, end = lives.opening(device, int(at) // lives.SLOT)
    moved = end if at >= end else begin if at >= begin else device.setup
    return {
        **_battery(device, at),
        "status": "open" if lives.door_open(device, at) else "closed",
        "last_activity": moved,
        "last_seen": int(at) // 60 * 60,
    }


def _siren(device: Device, at: float) -> dict[str, Json]:
    told = {"status": "no_sound", "monitoring": "on", "alim_source": "battery"}
    return _battery(device, at) | told


def _alarm(_device: Device, at: float) -> dict[str, Json]:
    return {"last_seen": int(at) // 3600 * 3600}


def _shutter(device: Device, at: float) -> dict[str, Json]:
    position = lives.position(device, at)
    return {
        "current_position": position,
        "target_position": position,
        "target_position:step": 100,
    }


_Reader = Callable[[Device, float], dict[str, Json]]
_STATES: Mapping[str, _Reader] = {
    "NAPlug": lambda _device, _at: {"plug_connected_boiler": 1, "rf_strength": 90},
    "NATherm1": _thermostat,
    "NRV": _battery,
    **dict.fromkeys(("NACamera", "NOC", "NDB"), _camera),
    "NACamDoorTag": _tag,
    "NIS": _siren,
    **dict.fromkeys(("NSD", "NCO"), _alarm),
    "NLG": lambda _device, at: {"offload": False, "last_seen": int(at) // 60 * 60},
    **dict.fromkeys(("NLPC", "NLY"), lambda device, at: {"power": lives.power(device, at)}),
    "NLPO": lambda device, at: _switch(device, at) | {"contactor_mode": "auto", "offload": False},
    "NLF": lambda device, at: _switch(device, at) | {"brightness": lives.brightness(device, at)},
    **dict.fromkeys(("NLV", "NBR"), _shutter),
    "NLLF": lambda _device, at: {"fan_speed": lives.fan_speed(at), "power": 12},
    "NLT": _battery,
    **dict.fromkeys(("NLE", "NBG"), lambda _device, _at: {}),
}


def _spoiled(call: Call, device: Device, told: dict[str, Json]) -> dict[str, Json]:
    """World faults that change what a device is described as."""
    for fault in _touching(call, "unknown_type", device):
        told["type"] = fault.params["type"]
    for fault in _touching(call, "unknown_field", device):
        told[fault.params["field"]] = fault.params["value"]
    if _touching(call, "garbled", device):
        kept = {"id": told["id"]}
        others = [key for key in told if key != "id"]
        told = kept | {
            key: _GARBAGE[(place + device.salt) % len(_GARBAGE)] for place, key in enumerate(others)
        }
    return told
