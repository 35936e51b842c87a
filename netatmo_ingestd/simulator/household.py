"""What else stands in a simulated home: heating, security and wiring devices, rooms, persons.

Who there is follows from the seed and from how many of each kind are wanted (read by `scenario`);
what they do is in `lives`. The devices are those of netatmo-api 4.2 to 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netatmo_ingestd.simulator.curves import hashed

PRODUCTS = ("energy", "security", "control")
HEATING = ("thermostat", "modulating", "smarther", "air")
"""A relay with thermostat and valves; an OpenTherm relay with its thermostat; a Smarther; an AC."""
LINES = 9  # of an Ecometer, the last three of gas, hot and cold water
SCOPES: Mapping[str, str] = {
    **dict.fromkeys(("NAPlug", "NATherm1", "NRV", "OTH", "OTM", "NAC"), "read_thermostat"),
    "BNS": "read_smarther",
    **dict.fromkeys(("NACamera", "NACamDoorTag", "NIS"), "read_camera"),
    "NOC": "read_presence",
    "NDB": "read_doorbell",
    "NSD": "read_smokedetector",
    "NCO": "read_carbonmonoxidedetector",
    **dict.fromkeys(("NBG", "NBR", "NBO"), "read_bubendorff"),
}
"""Scope that shows a type; of all others `read_magellan`."""
CLIMATE = ("NATherm1", "NRV", "OTM", "BNS", "NAC")
"""Types whose room is measured and has a set-point."""
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
    "NBG": "00:04:74",
    "NLG": "00:04:74",
    "NLE": "00:04:74",
}
_ROOTS = ("NAPlug", "OTH", "BNS", "NAC", "NACamera", "NOC", "NDB", "NSD", "NCO")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a home has.

    products  of PRODUCTS
    heating   of HEATING: the thermostat has the valves, each further one a room of its own
    valves    radiator valves, each in a room of its own, beside one thermostat
    cameras   an indoor camera with a door tag and a siren, then outdoor ones, then doorbells
    meters    sockets, lights and circuits that measure energy, beside one three-phase meter
    lines     of the Ecometer, at most LINES
    persons   known faces
    strangers faces without a name
    """

    products: tuple[str, ...] = PRODUCTS
    heating: tuple[str, ...] = ("thermostat",)
    valves: int = 2
    cameras: int = 2
    meters: int = 4
    lines: int = 2
    persons: int = 2
    strangers: int = 0


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
    """A face; `name` is empty for one that nobody has named."""

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

    def warmed(self) -> tuple[Room, ...]:
        """Rooms with something that measures and has a set-point."""
        inside = {each.room_id for each in self.of_type(*CLIMATE)}
        return tuple(each for each in self.rooms if each.id in inside)

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.scope for each in self.devices))


def build(seed: int, home_id: str, zone: str, setup: int, wanted: Wanted) -> Household:
    """The household of a home.

    setup  epoch at which its devices were installed
    """
    maker = _Maker(seed, home_id, setup)
    count = max(wanted.valves + 1, 3)
    more = [kind for kind in HEATING[1:] if kind in wanted.heating]
    if "energy" not in wanted.products:
        more = []
    rooms = tuple(maker.room(place) for place in range(count + len(more)))
    devices: list[Device] = []
    if "energy" in wanted.products and "thermostat" in wanted.heating:
        devices += _heating(maker, rooms, wanted)
    for kind, room in zip(more, rooms[count:], strict=True):
        devices += _MORE[kind](maker, room)
    if "security" in wanted.products:
        devices += _security(maker, rooms, wanted)
    if "control" in wanted.products:
        devices += _wiring(maker, rooms, wanted)
    faces = wanted.persons + wanted.strangers
    count = faces if "security" in wanted.products and wanted.cameras else 0
    persons = tuple(maker.person(place, known=place < wanted.persons) for place in range(count))
    return Household(home_id, zone, rooms, tuple(devices), persons)


def _heating(maker: _Maker, rooms: Sequence[Room], wanted: Wanted) -> Iterator[Device]:
    plug = maker.device("NAPlug", "Relay")
    yield plug
    yield maker.device("NATherm1", "Thermostat", rooms[0], plug)
    for place in range(wanted.valves):
        room = rooms[place + 1]
        yield maker.device("NRV", f"Valve {room.name}", room, plug)


def _modulating(maker: _Maker, room: Room) -> Iterator[Device]:
    relay = maker.device("OTH", "OpenTherm relay")
    yield relay
    yield maker.device("OTM", "Modulating thermostat", room, relay)


def _smarther(maker: _Maker, room: Room) -> Iterator[Device]:
    yield maker.device("BNS", "Smarther", room)


def _air(maker: _Maker, room: Room) -> Iterator[Device]:
    yield maker.device("NAC", "Air conditioning", room)


_MORE = {"modulating": _modulating, "smarther": _smarther, "air": _air}


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
    for line in range(min(wanted.lines, LINES)):
        yield replace(eco, id=f"{eco.id}#{line}", name=f"Line {line}", bridge=eco.id)
    diamant = maker.device("NBG", "iDiamant")
    yield diamant
    yield maker.device("NBR", "Roller shutter", rooms[1], diamant)
    yield maker.device("NBO", "Orientable shutter", rooms[2], diamant)


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

    def person(self, place: int, *, known: bool) -> Person:
        mark = [hashed(self._seed, self._home, "person", place, part) for part in (0, 1)]
        digits = f"{mark[0]:016x}{mark[1]:016x}"
        name = _PERSONS[place % len(_PERSONS)]
        number = place // len(_PERSONS)
        name = f"{name} {number + 1}" if number else name
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return Person(
            id="-".join(parts),
            name=name if known else "",
            home_id=self._home,
            salt=mark[0] & 0xFFFFFFFF,
        )
