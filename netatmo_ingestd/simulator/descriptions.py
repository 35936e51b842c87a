"""What `homesdata` tells of a home, its rooms, devices, persons and schedules (netatmo-api 3.5)."""

from __future__ import annotations

from collections.abc import Sequence

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.household import Device, Household, Person, Room
from netatmo_ingestd.simulator.sessions import Account
from netatmo_ingestd.simulator.world import Module, Station

_SETPOINT_MINUTES = 180
_DAY_MINUTES = 1440
_APPLIANCES = {
    "NLP": "multimedia",
    "NLPM": "washing_machine",
    "NLPO": "water_heater",
    "NLPT": "light",
    "NLC": "radiator",
    "NLV": "rolling_shutter",
    "NLLF": "extractor_hood",
}
_IMAGES = "https://netatmocameraimage.blob.core.windows.net/production/"


def user(account: Account) -> Json:
    """`body.user`; its names differ from those in the answer for weather stations."""
    return {
        "id": account.user_id,
        "email": account.user,
        "language": "en",
        "locale": "en-GB",
        "feel_like_algorithm": 0,
        "unit_pressure": 0,
        "unit_system": 0,
        "unit_wind": 0,
        "all_linked": False,
        "type": "netatmo",
    }


def home(station: Station) -> dict[str, Json]:
    """The home itself, without what is in it."""
    return {
        "id": station.home_id,
        "name": station.home_name,
        "altitude": station.place.altitude,
        "coordinates": list(station.place.location),
        "country": station.place.country,
        "timezone": station.place.timezone,
    }


def room(room: Room, devices: Sequence[Device]) -> dict[str, Json]:
    """An empty room has no `module_ids`."""
    told: dict[str, Json] = {"id": room.id, "name": room.name, "type": room.type}
    inside = [each.id for each in devices if each.room_id == room.id]
    return told | ({"module_ids": inside} if inside else {})


def device(device: Device, devices: Sequence[Device]) -> dict[str, Json]:
    """devices: all that the login sees, for who is behind whom."""
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
    if device.type in _APPLIANCES:
        told["appliance_type"] = _APPLIANCES[device.type]
    return told


def weather(module: Module, station: Station) -> Json:
    bridge = {} if module.id == station.id else {"bridge": station.id}
    behind = [each.id for each in station.modules] if module.id == station.id else []
    return {
        "id": module.id,
        "type": module.type,
        "name": module.name,
        "setup_date": module.setup,
        **bridge,
        **({"modules_bridged": behind} if behind else {}),
    }


def person(person: Person) -> dict[str, Json]:
    """A face without a name has no `pseudo`; `url` is signed, and ends like a real one."""
    url = f"{_IMAGES}{person.id}?sv=2010-01-01&se=2030-01-01T00:00:00Z&sig=simulated"
    return {"id": person.id, **({"pseudo": person.name} if person.name else {}), "url": url}


# --- schedules ---------------------------------------------------------------------------------


def heating(household: Household, *, bare: bool = False) -> dict[str, Json]:
    """The heating fields of a home; bare: without any schedule."""
    told: dict[str, Json] = {
        "temperature_control_mode": "heating",
        "therm_mode": "schedule",
        "therm_setpoint_default_duration": _SETPOINT_MINUTES,
    }
    return told if bare else told | {"schedules": [_therm(household)]}


def electricity(household: Household, contract: int, at: float) -> Json:
    """The tariff in force: one price, and from `contract` on peak and off-peak hours."""
    base, peak, off_peak = lives.PRICES
    if at < contract:
        option, timetable = "basic", [{"zone_id": 0, "m_offset": 0}]
        zones = [{"id": 0, "price": base, "price_type": "basic"}]
    else:
        option = "peak_and_off_peak"
        zones = [
            {"id": 0, "price": peak, "price_type": "peak"},
            {"id": 1, "price": off_peak, "price_type": "off_peak"},
        ]
        timetable = [{"zone_id": 1, "m_offset": 0}] + [
            {"zone_id": zone, "m_offset": day * _DAY_MINUTES + minute}
            for day in range(7)
            for zone, minute in enumerate(lives.PEAK_MINUTES)
        ]
    return {
        "id": f"{household.home_id[:16]}e1ec781c",
        "name": "electricity",
        "type": "electricity",
        "default": False,
        "selected": True,
        "tariff": "edf_tarif_bleu",
        "tariff_option": option,
        "power_threshold": 9,
        "contract_power_unit": "kVA",
        "timetable": timetable,
        "zones": zones,
    }


def _therm(household: Household) -> Json:
    zones = [
        {
            "id": number,
            "name": name,
            "type": number,
            "rooms": [
                {"id": room.id, "therm_setpoint_temperature": warmth} for room in household.rooms
            ],
            "rooms_temp": [{"room_id": room.id, "temp": warmth} for room in household.rooms],
            "modules": [],
        }
        for number, (name, warmth) in enumerate((("Comfort", 20.5), ("Night", 17)))
    ]
    timetable = [
        {"zone_id": zone, "m_offset": day * _DAY_MINUTES + hour * 60}
        for day in range(7)
        for zone, hour in ((0, 6), (1, 22))
    ]
    return {
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
