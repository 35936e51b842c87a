"""What stands behind one user of Legrand's portal: a site with emergency lighting, and a plant.

Pure: everything follows from the seed, the user and the time. Invented, as no document tells it:
which bit means which failure, and that measures come every quarter of an hour and are told for a
day. Source: netatmo-api 8.3, 8.4.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from netatmo_ingestd.simulator.curves import hashed

HOUR, DAY = 3_600, 86_400
SLOT = 12 * HOUR  # each controller fails at most once in it
SPELL = 3 * HOUR  # a thermostat keeps its mode so long, but for a boost
MEASURED = 900  # seconds between two measures
TOLD_S = DAY  # how long measures are told
REFERENCES = ("062520", "062520", "062521", "062526")
FLAGS = (0x0008, 0x0040, 0x0048, 0x0100, 0x10000, 0x40001)
_BLOCK = (
    "FAULTY_COMMUNICATION", "OTHER_FAULTY", "ALARM_STATE", "DLD", "FAULTY_POWER_SUPPLY",
    "FAULTY_BATTERY", "DISCONNECTED_BATTERY", "FAULTY_EMERGENCY_LIGHT", "FAULTY_ELECTRONICAL",
)  # fmt: skip
_REMOTE = (
    "SECTOR_ON_BUS", "BUS_SHORT_CIRCUIT", "NO_BLOCK_RESPONSE", "CAPACITY_OVERFLOW",
    "NFC_COMM_FAULT", "QUARTZ_FAULT", "BATTERY_FAULT", "BLOCK_ENROLLMENT_FAULT",
    "ELECTRONIC_FAULT", "OUT_SUPERVISION",
)  # fmt: skip
MEANINGS = {
    **{1 << place: f"BLOCK.{word}" for place, word in enumerate(_BLOCK)},
    **{1 << 16 + place: f"REMOTE.STATUS.{word}" for place, word in enumerate(_REMOTE)},
}
_MODES = ("AUTOMATIC", "AUTOMATIC", "AUTOMATIC", "MANUAL", "BOOST", "OFF", "PROTECTION")


@dataclass(frozen=True, slots=True)
class Failure:
    """A flag of a controller in [begin, end), epoch seconds."""

    controller: str
    reference: str
    flag: int
    begin: int
    end: int


def decoded(reference: str, flag: int) -> list[dict[str, str]]:
    """The set bits of a flag spelled out."""
    if flag == 0:
        kind = "REMOTE.STATUS" if reference == REFERENCES[-1] else "BLOCK"
        return [{"flag": "0x0000", "failureType": f"{kind}.OK"}]
    return [
        {"flag": f"0x{bit:04x}", "failureType": word}
        for bit, word in MEANINGS.items()
        if flag & bit
    ]


def naive(moment: float) -> str:
    return f"{datetime.fromtimestamp(int(moment), UTC):%Y-%m-%dT%H:%M:%S}"


class Building:
    """The world of one user."""

    def __init__(self, seed: int, user: str) -> None:
        self._seed = seed
        self._user = user
        self.site = self._uuid("site")
        self.plant = self._uuid("plant")
        self.controllers = [self._uuid("controller", number) for number in range(len(REFERENCES))]
        self.thermostats = [self._uuid("thermostat", number) for number in range(2)]

    def _hashed(self, *parts: object) -> int:
        return hashed(self._seed, self._user, *parts)

    def _uuid(self, *parts: object) -> str:
        return str(uuid.UUID(int=self._hashed(*parts) << 64 | self._hashed(*parts, "low")))

    # --- emergency lighting ---

    def failures(self, begin: float, end: float) -> list[Failure]:
        """All that are there at some time of [begin, end), the oldest first."""
        found = [
            failure
            for number in range(len(self.controllers))
            for slot in range(int(begin) // SLOT, int(end) // SLOT + 1)
            if (failure := self._failure(number, slot))
            and failure.begin < end
            and failure.end > begin
        ]
        return sorted(found, key=lambda each: each.begin)

    def _failure(self, number: int, slot: int) -> Failure | None:
        dice = self._hashed("failure", number, slot)
        if dice % 3 == 0:
            return None
        begin = slot * SLOT + (dice >> 8) % (3 * HOUR)
        return Failure(
            self.controllers[number],
            REFERENCES[number],
            FLAGS[(dice >> 40) % len(FLAGS)],
            begin,
            begin + 2 * HOUR + (dice >> 24) % (6 * HOUR),
        )

    def site_controllers(self, now: float) -> list[dict[str, Any]]:
        """The answer of getSiteControllers."""
        there = self.failures(now, now + 1)
        return [
            self._controller(number, now, [each.flag for each in there if each.controller == one])
            for number, one in enumerate(self.controllers)
        ]

    def _controller(self, number: int, now: float, flags: list[int]) -> dict[str, Any]:
        slots = (int(now) // SLOT - 1, int(now) // SLOT)
        past = [failure for slot in slots if (failure := self._failure(number, slot))]
        moved = [at for each in past for at in (each.begin, each.end) if at <= now]
        return {
            "id": self.controllers[number],
            "name": f"{REFERENCES[number]} @27.00.{number + 1:02d}",
            "reference": REFERENCES[number],
            "serialNumber": f"ELC_{self._hashed('serial', number) % 10**8:08d}",
            "lastStatusUpdate": f"{naive(now - now % 60)}Z",
            "status": sum(flags),
            "failures": flags,
            "alert": bool(flags),
            "lastAlertUpdate": f"{naive(max(moved, default=slots[0] * SLOT))}Z",
            "alertLevel": len(flags),
        }

    # --- thermostats ---

    def state(self, number: int, now: float) -> dict[str, Any]:
        """What holds at `now`; degrees Celsius."""
        spell = int(now) // SPELL
        mode = _MODES[self._hashed("mode", number, spell) % len(_MODES)]
        ends = spell * SPELL + (1 + spell % 3) * 1800
        if mode == "BOOST" and now >= ends:
            mode = "AUTOMATIC"
        at = datetime.fromtimestamp(int(now), UTC).hour
        wanted = {"MANUAL": 21.0, "BOOST": 30.0, "OFF": 5.0, "PROTECTION": 7.0}.get(
            mode, 20.0 if 6 <= at < 22 else 17.0
        )
        return {
            "function": "HEATING",
            "mode": mode,
            "set_point": wanted,
            "program": 1 + spell // 56 % 2,
            "load": self.measure(number, now - now % MEASURED)[0] < wanted,
            "boost_ends": ends if mode == "BOOST" else None,
            "online": self._hashed("online", number, spell) % 17 != 0 or now % SPELL > HOUR,
        }

    def measure(self, number: int, at: float) -> tuple[float, float]:
        """(°C, %) at a time of the grid."""
        dice = self._hashed("measure", number, int(at) // MEASURED)
        hour = at % DAY / HOUR
        warmth = 18.5 + number + (2 - abs(hour - 15) / 6)
        return round(warmth + dice % 7 / 10, 1), round(45 + (dice >> 16) % 200 / 10, 1)

    def measures(self, number: int, begin: float, end: float) -> Iterator[tuple[int, float, float]]:
        """(epoch, °C, %) of each measure in (begin, end]."""
        first = int(begin) // MEASURED * MEASURED + MEASURED
        for at in range(first, int(end) + 1, MEASURED):
            yield at, *self.measure(number, at)

    def chronothermostat(self, number: int, now: float) -> dict[str, Any]:
        """The answer for one thermostat; the second one speaks Fahrenheit."""
        state, unit = self.state(number, now), "CF"[number]
        newest = int(now) // MEASURED * MEASURED
        told = {
            "function": state["function"],
            "mode": state["mode"],
            "setPoint": {"value": shown(state["set_point"], unit), "unit": unit},
            "programs": [{"number": state["program"]}],
            "temperatureFormat": unit,
            "loadState": "ACTIVE" if state["load"] else "INACTIVE",
            "time": naive(now),
            **self.lists(number, newest - 1, newest),
            "online": state["online"],
            "sender": {
                "addressType": "addressLocation",
                "system": "thermoregulation",
                "plant": {"id": self.plant, "module": {"id": self.thermostats[number]}},
            },
        }
        if state["boost_ends"]:
            told["activationTime"] = naive(state["boost_ends"])
        return told

    def lists(self, number: int, begin: float, end: float) -> dict[str, Any]:
        """The two lists of measures in (begin, end]."""
        unit, rows = "CF"[number], list(self.measures(number, begin, end))
        return {
            name: {
                "measures": [
                    {"timeStamp": naive(row[0]), "value": shown(row[place], u), "unit": u}
                    for row in rows
                ]
            }
            for name, place, u in (("thermometer", 1, unit), ("hygrometer", 2, "%"))
        }


def shown(value: float, unit: str) -> str:
    """As the portal shows numbers: as texts; °F with two decimals."""
    return f"{value * 1.8 + 32:.2f}" if unit == "F" else f"{value:.1f}"
