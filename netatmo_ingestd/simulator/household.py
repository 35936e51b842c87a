"""What else stands in a simulated home: heating, security and wiring devices, rooms, persons.

Who there is follows from the seed and from how many of each kind are wanted; what they do is in
`lives`. The devices are those of netatmo-api 4.2 to 4.5.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator.curves import hashed

PRODUCTS = ("energy", "security", "control")
SCOPES: Mapping[str, str] = {
    **dict.fromkeys(("NAPlug", "NATherm1", "NRV", "OTH", "OTM", "NAC"), "read_thermostat"),
    "BNS": "read_smarther",
    **dict.fromkeys(("NACamera", "NACamDoorTag", "NIS"), "read_camera"),
    "NOC": "read_presence",
    "NDB": "read_doorbell",
    "NSD": "read_smokedetector",
    "NCO": "read_carbonmonoxidedetector",
    **dict.fromkeys(("NBG", "NBR"), "read_bubendorff"),
}
"""Scope that shows a type; of all others `read_magellan`."""
_ROOMS = (
    ("Living room", "livingroom"),
    ("Kitchen", "kitchen"),
    ("Bedroom", "bedroom"),
    ("Bathroom", "bathroom"),
    ("Office", "home_office"),
    ("Guest room", "bedroom"),
    ("Hall", "lobby"),
)
_PERSONS = ("Ana", "Bruno", "Clara", "David")
_METERS = ("NLPC", "NLP", "NLPM", "NLPO", "NLPT", "NLF", "NLL", "NLM", "NLC")
_METER_NAMES = {
    "NLPC": "Circuit",
    "NLP": "Socket",
    "NLPM": "Mobile socket",
    "NLPO": "Water heater",
    "NLPT": "Corridor light",
    "NLF": "Dimmer",
    "NLL": "Light",
    "NLM": "Lamp",
    "NLC": "Radiator",
}
_PREFIX = {
    "NATherm1": "04:00:00",
    "NRV": "09:00:00",
    "NLG": "00:04:74",
    "NBG": "00:04:74",
    "NLE": "00:04:74",
}
_ROOTS = ("NAPlug", "OTH", "BNS", "NAC", "NACamera", "NOC", "NDB", "NSD", "NCO")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a home has.

    products  of PRODUCTS
    valves    radiator valves, each in a room of its own, beside one thermostat
    cameras   an indoor camera with a door tag and a siren, then outdoor ones, then doorbells
    meters    sockets, lights and circuits that measure energy, beside one three-phase meter
    persons   known faces
    """

    products: tuple[str, ...] = PRODUCTS
    valves: int = 2
    cameras: int = 2
    meters: int = 4
    persons: int = 2


@dataclass(frozen=True, slots=True)
class Device:
    """One device; `bridge` is None for what talks to the cloud itself."""

    id: str
    type: str
    name: str
    home_id: str
    room_id: str | None
    bridge: str | None
    setup: int
    salt: int

    @property
    def scope(self) -> str:
        return SCOPES.get(self.type, "read_magellan")

    @property
    def gateway(self) -> str:
        """Whom history is asked of."""
        return self.bridge or self.id


@dataclass(frozen=True, slots=True)
class Room:
    """A room of the home; its id is digits."""

    id: str
    name: str
    type: str
    home_id: str
    salt: int


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    name: str
    home_id: str
    salt: int


@dataclass(frozen=True, slots=True)
class Household:
    """All of a home that is no weather station; `zone` is its IANA time zone."""

    home_id: str
    zone: str
    rooms: tuple[Room, ...]
    devices: tuple[Device, ...]
    persons: tuple[Person, ...]

    def of_type(self, *types: str) -> tuple[Device, ...]:
        return tuple(each for each in self.devices if each.type in types)

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.scope for each in self.devices))


def read_scenario(path: Path) -> tuple[Wanted, ...]:
    """The homes of a scenario file, in the order of the stations: `[[homes]] products = […]`.

    Raises  ConfigError when it cannot be read, or names what there is not
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; write [[homes]] sections in TOML") from error
    homes = told.pop("homes", None)
    if told or not isinstance(homes, list) or not all(isinstance(each, dict) for each in homes):
        raise ConfigError(f"{path}: expected [[homes]] sections and nothing else")
    return tuple(_wanted(path, each) for each in homes)


def products(names: str) -> tuple[str, ...]:
    """`energy,security` as product names; raises ConfigError for one that is none of them."""
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        if name not in PRODUCTS:
            raise ConfigError(f"products: {name!r} is none of {', '.join(PRODUCTS)}")
    return found


def _wanted(path: Path, told: Mapping[str, Any]) -> Wanted:
    known = {each.name for each in fields(Wanted)}
    for name, value in told.items():
        if name not in known:
            raise ConfigError(f"{path}: {name!r} is none of {', '.join(sorted(known))}")
        if name != "products" and not (type(value) is int and 0 <= value <= 200):
            raise ConfigError(f"{path}: {name} = {value!r} is no number from 0 to 200")
    named = told.get("products", list(PRODUCTS))
    if not isinstance(named, list):
        raise ConfigError(f"{path}: products = {named!r} is no list of names")
    return replace(Wanted(), **{**told, "products": products(",".join(map(str, named)))})


def build(seed: int, home_id: str, zone: str, setup: int, wanted: Wanted) -> Household:
    """The household of a home.

    setup  epoch at which its devices were installed
    """
    maker = _Maker(seed, home_id, setup)
    count = max(wanted.valves + 1, 3)
    rooms = tuple(maker.room(place) for place in range(count))
    devices: list[Device] = []
    if "energy" in wanted.products:
        devices += _heating(maker, rooms, wanted)
    if "security" in wanted.products:
        devices += _security(maker, rooms, wanted)
    if "control" in wanted.products:
        devices += _wiring(maker, rooms, wanted)
    count = wanted.persons if "security" in wanted.products and wanted.cameras else 0
    persons = tuple(maker.person(place) for place in range(count))
    return Household(home_id, zone, rooms, tuple(devices), persons)


def _heating(maker: _Maker, rooms: Sequence[Room], wanted: Wanted) -> Iterator[Device]:
    plug = maker.device("NAPlug", "Relay")
    yield plug
    yield maker.device("NATherm1", "Thermostat", rooms[0], plug)
    for place in range(wanted.valves):
        room = rooms[place + 1]
        yield maker.device("NRV", f"Valve {room.name}", room, plug)


def _security(maker: _Maker, rooms: Sequence[Room], wanted: Wanted) -> Iterator[Device]:
    for place in range(wanted.cameras):
        kind = ("NACamera", "NOC", "NDB")[min(place, 2)]
        name = {"NACamera": "Indoor camera", "NOC": "Garden camera", "NDB": "Doorbell"}[kind]
        camera = maker.device(kind, name if place < 3 else f"{name} {place - 1}", rooms[0])
        yield camera
        if place == 0:
            yield maker.device("NACamDoorTag", "Front door", rooms[0], camera)
            yield maker.device("NIS", "Siren", rooms[0], camera)
    yield maker.device("NSD", "Smoke alarm", rooms[1])
    yield maker.device("NCO", "CO alarm", rooms[1])


def _wiring(maker: _Maker, rooms: Sequence[Room], wanted: Wanted) -> Iterator[Device]:
    gateway = maker.device("NLG", "Gateway")
    yield gateway
    for place in range(wanted.meters):
        kind = _METERS[place % len(_METERS)]
        room = rooms[place % len(rooms)]
        yield maker.device(kind, f"{_METER_NAMES[kind]} {place + 1}", room, gateway)
    three = maker.device("NLY", "Mains", None, gateway)
    yield three
    for phase in (1, 2, 3):
        yield replace(three, id=f"{three.id}#{phase}", name=f"Phase {phase}", bridge=gateway.id)
    yield maker.device("NLV", "Shutter", rooms[0], gateway)
    yield maker.device("NLLF", "Ventilation", rooms[1], gateway)
    yield maker.device("NLT", "Remote", rooms[0], gateway)
    eco = maker.device("NLE", "Ecometer")
    yield eco
    for line in (0, 1):
        yield replace(eco, id=f"{eco.id}#{line}", name=f"Line {line}", bridge=eco.id)
    diamant = maker.device("NBG", "iDiamant")
    yield diamant
    yield maker.device("NBR", "Roller shutter", rooms[1], diamant)


class _Maker:
    """Gives ids: each is a function of the seed, the home and the place in it."""

    def __init__(self, seed: int, home_id: str, setup: int) -> None:
        self._seed = seed
        self._home = home_id
        self._setup = setup
        self._count = 0

    def device(
        self, kind: str, name: str, room: Room | None = None, bridge: Device | None = None
    ) -> Device:
        self._count += 1
        mark = hashed(self._seed, self._home, "device", self._count)
        tail = f"{mark & 0xFF:02x}:{mark >> 8 & 0xFF:02x}:{self._count & 0xFF:02x}"
        prefix = _PREFIX.get(kind) or ("70:ee:50" if kind in _ROOTS else "aa:bb:cc:dd:ee")
        return Device(
            id=f"{prefix}:{tail}",
            type=kind,
            name=name,
            home_id=self._home,
            room_id=room.id if room else None,
            bridge=bridge.id if bridge else None,
            setup=self._setup + 600 * self._count,
            salt=mark >> 16 & 0xFFFFFFFF,
        )

    def room(self, place: int) -> Room:
        name, kind = _ROOMS[place % len(_ROOMS)]
        mark = hashed(self._seed, self._home, "room", place)
        number = place // len(_ROOMS)
        return Room(
            id=f"{1_000_000_000 + mark % 3_000_000_000}",
            name=f"{name} {number + 1}" if number else name,
            type=kind,
            home_id=self._home,
            salt=mark >> 8 & 0xFFFFFFFF,
        )

    def person(self, place: int) -> Person:
        mark = [hashed(self._seed, self._home, "person", place, part) for part in (0, 1)]
        digits = f"{mark[0]:016x}{mark[1]:016x}"
        name = _PERSONS[place % len(_PERSONS)]
        number = place // len(_PERSONS)
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return Person(
            id="-".join(parts),
            name=f"{name} {number + 1}" if number else name,
            home_id=self._home,
            salt=mark[0] & 0xFFFFFFFF,
        )
