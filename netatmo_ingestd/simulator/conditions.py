"""What `homestatus` tells of a room, a device, a weather module or a person (netatmo-api 3.6).

Root devices have no `reachable` but for the Legrand and Bubendorff gateways, and none is recorded
of a siren; parts of a device (`#1`) have neither that nor a firmware.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator import dashboard, lives
from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.household import Device, Household, Person, Room
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import Module, Station

_WEATHER = {
    "Temperature": "temperature",
    "CO2": "co2",
    "Humidity": "humidity",
    "Noise": "noise",
    "Pressure": "pressure",
    "WindStrength": "wind_strength",
    "WindAngle": "wind_angle",
    "GustStrength": "wind_gust",
    "GustAngle": "wind_gust_angle",
    "Rain": "rain",
}
_ANSWERING_ROOTS = ("NLG", "NBG")


def everything(household: Household, at: float) -> dict[str, list[Json]]:
    """All that is told of a home to whoever may see it, while nothing is amiss."""
    zone = ZoneInfo(household.zone)
    inside = {
        each.id: {device.type for device in household.devices if device.room_id == each.id}
        for each in household.rooms
    }
    return {
        "rooms": [room(each, inside[each.id], zone, at) for each in household.warmed()],
        "modules": [device(each, at) for each in household.devices],
        "persons": [person(each, at) for each in household.persons],
    }


def room(room: Room, types: Collection[str], zone: ZoneInfo, at: float) -> dict[str, Json]:
    """types: of the devices in it; an air conditioner has set-points of its own kind."""
    amount, mode, since, until = lives.setpoint(room, zone, at)
    warmth = lives.temperature(room, at)
    told: dict[str, Json] = {"id": room.id, "reachable": True}
    if "NAC" in types:
        return told | {
            "humidity": lives.humidity(room, at),
            "therm_measured_temperature": warmth,
            "auto_setpoint_temperature": amount,
            "auto_setpoint_mode": mode,
            "auto_setpoint_start_time": since,
            "auto_setpoint_end_time": until,
        }
    if "BNS" in types:
        told["humidity"] = lives.humidity(room, at)
    return told | {
        "anticipating": False,
        "heating_power_request": lives.power_request(room, zone, at),
        "open_window": lives.window_open(room, at),
        "therm_measured_temperature": warmth,
        "therm_setpoint_temperature": amount,
        "therm_setpoint_mode": mode,
        "therm_setpoint_start_time": since,
        "therm_setpoint_end_time": until,
    }


def person(person: Person, at: float) -> dict[str, Json]:
    seen, away = lives.last_seen(person, at), lives.is_away(person, at)
    return {"id": person.id, "last_seen": seen, "out_of_sight": away}


def weather(view: View, module: Module, station: Station) -> dict[str, Json]:
    """The newest sample in the newer spelling; without one the module is not reachable."""
    told: dict[str, Json] = {"id": module.id, "type": module.type}
    root = module.id == station.id
    told |= {"wifi_strength": 52} if root else {"bridge": station.id, "rf_strength": 68}
    newest = view.newest(module)
    fresh = newest is not None and view.now - newest[0] <= dashboard.MODULE_SILENT_S
    if not root:
        told["reachable"] = fresh
    if newest is None or not fresh:
        return told
    at, row = newest
    values = dict(zip(module.fields, row, strict=True))
    return (
        told | {"ts": at} | {ours: values[key] for key, ours in _WEATHER.items() if key in values}
    )


def device(device: Device, at: float) -> dict[str, Json]:
    told: dict[str, Json] = {"id": device.id, "type": device.type}
    if device.bridge:
        told["bridge"] = device.bridge
    if "#" in device.id:
        return told | ({"power": lives.power(device, at)} if device.type == "NLY" else {})
    told["firmware_revision"] = 100 + device.salt % 100
    if device.bridge:
        told["rf_strength"] = 60 + device.salt % 30
    else:
        told["wifi_strength"] = 45 + device.salt % 30
    if (device.bridge and device.type != "NIS") or device.type in _ANSWERING_ROOTS:
        told["reachable"] = True
    read = _STATES.get(device.type)
    return told | (read(device, at) if read else _switch(device, at))


def _battery(device: Device, at: float) -> dict[str, Json]:
    level = lives.battery_mv(device, at)
    return {"battery_level": level, "battery_state": lives.battery_state(level)}


def _switch(device: Device, at: float) -> dict[str, Json]:
    return {"on": lives.is_on(device, at), "power": lives.power(device, at)}


def _boiler(device: Device, at: float) -> dict[str, Json]:
    return {"boiler_status": lives.boiler_on(device, at), "boiler_valve_comfort_boost": False}


def _relay(device: Device, at: float) -> dict[str, Json]:
    return {
        "boiler_control": "opentherm",
        "dhw_control": "water_tank",
        "hardware_version": 2,
        "outdoor_temperature": lives.outdoors(device, at),
        "sequence_id": int(at) // 60 % 65_536,
    }


def _air(_device: Device, at: float) -> dict[str, Json]:
    return {"fan_speed": lives.fan_speed(at), "fan_mode": "manual", "fan_setpoint_from": "parent"}


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
    if device.type == "NACamera":
        told |= {"homekit_status": "enabled", "connection": "wifi"}
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
        "room": device.room_id,
        "updating": False,
    }


def _siren(device: Device, at: float) -> dict[str, Json]:
    told = {"status": "no_sound", "monitoring": "on", "alim_source": "battery"}
    return _battery(device, at) | told | {"room": device.room_id}


def _alarm(_device: Device, at: float) -> dict[str, Json]:
    return {"last_seen": int(at) // 3600 * 3600}


def _shutter(device: Device, at: float) -> dict[str, Json]:
    """Both spellings of the step are about."""
    position = lives.position(device, at)
    step = "target_position_step" if device.type == "NBO" else "target_position:step"
    return {"current_position": position, "target_position": position, step: 100}


_Reader = Callable[[Device, float], dict[str, Json]]
_STATES: Mapping[str, _Reader] = {
    "NAPlug": lambda _device, _at: {"plug_connected_boiler": 1, "rf_strength": 90},
    "NATherm1": lambda device, at: (
        _battery(device, at) | _boiler(device, at) | {"anticipating": False}
    ),
    "NRV": _battery,
    "OTH": _relay,
    "OTM": lambda device, at: _battery(device, at) | _boiler(device, at),
    "BNS": lambda device, at: _boiler(device, at) | {"cooler_status": False},
    "NAC": _air,
    **dict.fromkeys(("NACamera", "NOC", "NDB"), _camera),
    "NACamDoorTag": _tag,
    "NIS": _siren,
    **dict.fromkeys(("NSD", "NCO"), _alarm),
    "NLG": lambda _device, at: {"offload": False, "last_seen": int(at) // 60 * 60},
    **dict.fromkeys(("NLPC", "NLY"), lambda device, at: {"power": lives.power(device, at)}),
    "NLPO": lambda device, at: _switch(device, at) | {"contactor_mode": "auto", "offload": False},
    "NLF": lambda device, at: _switch(device, at) | {"brightness": lives.brightness(device, at)},
    **dict.fromkeys(("NLV", "NBR", "NBO"), _shutter),
    "NLLF": lambda _device, at: {"fan_speed": lives.fan_speed(at), "power": 12},
    "NLT": _battery,
    **dict.fromkeys(("NLE", "NBG"), lambda _device, _at: {}),
}
