"""Heating and cooling: thermostats, valves, relays, Smarther, air conditioning.

What a room measures (temperature, set-point) has a history of its own, `getroommeasure`; a
thermostat's own history adds how long the boiler ran.
"""

from __future__ import annotations

from netatmo_ingestd.polls import ModuleType, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.topology import HOMESDATA

# Of a room half hours, of a thermostat each sample of about ten minutes (netatmo-api 3.3, 3.4).
THERMOSTAT = ("temperature", "sp_temperature", "boileron", "boileroff")
MODULE_TYPES = {
    "NAPlug": ModuleType("energy", scope="read_thermostat"),
    "NATherm1": ModuleType("energy", THERMOSTAT, scope="read_thermostat", room=True),
    "NRV": ModuleType("energy", scope="read_thermostat", room=True),
    "OTH": ModuleType("energy", scope="read_thermostat"),
    "OTM": ModuleType("energy", THERMOSTAT, scope="read_thermostat", room=True),
    # No document names its scope; rooms in general come with that of thermostats.
    "NAC": ModuleType("energy", scope="read_thermostat", room=True),
    "BNS": ModuleType("energy", scope="read_smarther", room=True),
    # Shown to the maker's own apps alone.
    "NAVaillant": ModuleType("energy"),
    "NAThermVaillant": ModuleType("energy"),
}

ENERGY = Source(
    name="energy",
    scopes=NETATMO.scopes["energy"],
    endpoints=(HOMESDATA, HOMESTATUS),
    module_types=MODULE_TYPES,
)
