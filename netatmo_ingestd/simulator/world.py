"""The simulated homes: which stations and coaches there are, and every sample they ever took.

Every value is a function of (seed, module id, time): whoever knows the seed can recompute what
must be in a store. The k-th sample of a module is stamped k*300 + phase + jitter; a station uploads
a few seconds after every second sample of its own, and samples are visible from the next upload on.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator.curves import FIELDS, PER_DAY, Row, Value, day_rows, hashed
from netatmo_ingestd.simulator.household import Wanted, build

STEP = 300
HALF_HOUR = 1_800
DAY = 86_400
JITTER = 10
_REACH = STEP + 2 * JITTER + 100  # how far a stamp may lie from k*300

Sample = tuple[int, dict[str, Value]]
Stamped = tuple[int, Row]

_KINDS = ("NAModule1", "NAModule2", "NAModule3", "NAModule4", "NAModule4", "NAModule4")
_PREFIX = {
    "NAMain": "70:ee:50",
    "NAModule1": "02:00:00",
    "NAModule2": "06:00:00",
    "NAModule3": "05:00:00",
    "NAModule4": "03:00:00",
    "NHC": "70:ee:50",
}
_COACH_SLOT = 15  # of the 16 ids of an index; stations and their modules take the first seven
_NAMES = ("Living room", "Garden", "Roof wind", "Rain", "Bedroom", "Kitchen", "Cellar")
_COACH_NAMES = ("Nursery", "Study", "Guest room", "Attic")
_HOUSES = ("Harbour House", "Mill Cottage", "Hill Farm", "Old School", "Lake View", "Orchard")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a station stands: `location` is (longitude, latitude), `altitude` in metres."""

    city: str
    country: str
    timezone: str
    location: tuple[float, float]
    altitude: int


_PLACES = (
    Place("Nantes", "FR", "Europe/Paris", (-1.5536, 47.2184), 31),
    Place("Frankfurt", "DE", "Europe/Berlin", (8.6821, 50.1109), 112),
    Place("Lisboa", "PT", "Europe/Lisbon", (-9.1393, 38.7223), 48),
    Place("Tampere", "FI", "Europe/Helsinki", (23.761, 61.4978), 119),
    Place("Boston", "US", "America/New_York", (-71.0589, 42.3601), 14),
    Place("Kathmandu", "NP", "Asia/Kathmandu", (85.324, 27.7172), 1400),
)


@dataclass(frozen=True, slots=True)
class Module:
    """One device.

    station  id of the device it reports through (its own for a NAMain or NHC)
    setup    epoch before which it has no samples
    phase    seconds after each multiple of 300 at which it samples, jitter aside
    """

    id: str
    type: str
    station: str
    name: str
    setup: int
    phase: int
    salt: int

    @property
    def fields(self) -> tuple[str, ...]:
        return FIELDS[self.type]


@dataclass(frozen=True, slots=True)
class Station:
    """What uploads by itself: a NAMain and the modules behind it, or an NHC, which has none.

    parity  0 or 1: which of two samples is followed by the upload
    sky     id of the station in whose weather it stands: its own, or that of its home
    """

    main: Module
    modules: tuple[Module, ...]
    home_id: str
    home_name: str
    place: Place
    parity: int
    sky: str

    @property
    def id(self) -> str:
        return self.main.id

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.place.timezone)

    @property
    def all(self) -> tuple[Module, ...]:
        return (self.main, *self.modules)


class World:
    """All stations of a seed, and its coaches (air quality monitors), as stations of their own.

    origin     epoch at which simulated time begins
    days       how much history exists before `origin`
    coaches    how many; coach k stands in the home of station k, in turn
    households what else is in the home of each station, in turn
    contract   epoch of the change from one tariff to two, cut to a half hour; None: 20 days before
    timezones  IANA names: station k lives by the k-th of them in turn; none: by those of its place
    """

    def __init__(
        self,
        seed: int,
        stations: int = 1,
        *,
        origin: float = 0,
        days: int = 365,
        timezones: Sequence[str] = (),
        coaches: int = 0,
        households: Sequence[Wanted] = (),
        contract: float | None = None,
    ) -> None:
        self.seed = seed
        self.timezones = tuple(timezones)
        self.origin = int(origin)
        self.setup = self.origin - days * DAY
        self.stations = {s.id: s for s in (self._station(i) for i in range(stations))}
        homes = list(self.stations.values())
        self.coaches = {
            c.id: c for c in (self._coach(i, homes[i % stations]) for i in range(coaches))
        }
        usual = (self.origin - 20 * DAY) // DAY * DAY
        self.contract = usual if contract is None else int(contract) // HALF_HOUR * HALF_HOUR
        self.households = {
            home.home_id: build(seed, home.home_id, home.place.timezone, self.setup, wanted)
            for home, wanted in zip(homes, households, strict=False)
        }
        everyone = (*homes, *self.coaches.values())
        self.by_id = {m.id: m for s in everyone for m in s.all}
        self._chunk = lru_cache(maxsize=512)(self._make_chunk)

    # --- who there is --------------------------------------------------------------------------

    def modules(self) -> tuple[Module, ...]:
        """All devices, stations included, coaches last."""
        return tuple(self.by_id.values())

    def station_of(self, module: Module) -> Station:
        return self.stations.get(module.station) or self.coaches[module.station]

    def successor(self, module: Module, at: float) -> Module:
        """The module that takes the place of `module` at `at`: same type and name, another id."""
        setup = int(at)
        mark = hashed(self.seed, module.id, "successor", setup)
        # Never the fourth byte of the modules that were there from the beginning.
        tail = ((hashed(self.seed, "mac") + 1 + mark % 255) & 0xFF, mark >> 8 & 0xFF, mark >> 16)
        name = f"{_PREFIX[module.type]}:{tail[0]:02x}:{tail[1]:02x}:{tail[2] & 0xFF:02x}"
        phase = self.stations[module.station].main.phase
        new = self._module(module.station, name, module.type, 1, phase)
        return replace(new, name=module.name, setup=setup)

    def _station(self, index: int) -> Station:
        kinds = ("NAMain", *_KINDS)
        ids = [self._id(kind, index, slot) for slot, kind in enumerate(kinds)]
        phase = 80 + hashed(self.seed, ids[0], "phase") % 200
        every = [
            self._module(ids[0], ids[slot], kind, slot, phase) for slot, kind in enumerate(kinds)
        ]
        house = _HOUSES[index % len(_HOUSES)]
        return Station(
            main=every[0],
            modules=tuple(every[1:]),
            home_id=f"{hashed(self.seed, ids[0], 'home'):016x}{index:08x}",
            home_name=house if index < len(_HOUSES) else f"{house} {index // len(_HOUSES) + 1}",
            place=self._place(index),
            parity=hashed(self.seed, ids[0], "parity") % 2,
            sky=ids[0],
        )

    def _coach(self, index: int, home: Station) -> Station:
        name = self._id("NHC", index, _COACH_SLOT)
        phase = 80 + hashed(self.seed, name, "phase") % 200
        room = _COACH_NAMES[index % len(_COACH_NAMES)]
        salt = hashed(self.seed, name, "jitter") & 0xFFFFFFFF
        setup = self.setup + 100 * _COACH_SLOT
        main = Module(name, "NHC", name, room, setup, phase, salt)
        parity = hashed(self.seed, name, "parity") % 2
        return replace(home, main=main, modules=(), parity=parity)

    def _place(self, index: int) -> Place:
        """Another time zone moves the local midnights; the weather stays."""
        place = _PLACES[index % len(_PLACES)]
        if not self.timezones:
            return place
        return replace(place, timezone=self.timezones[index % len(self.timezones)])

    def _module(self, station: str, name: str, kind: str, slot: int, phase: int) -> Module:
        ahead = 0 if slot == 0 else 8 + hashed(self.seed, name, "ahead") % 50
        setup = self.setup + 100 * slot
        salt = hashed(self.seed, name, "jitter") & 0xFFFFFFFF
        return Module(name, kind, station, _NAMES[slot], setup, phase - ahead, salt)

    def _id(self, kind: str, index: int, slot: int) -> str:
        tail = (hashed(self.seed, "mac") & 0xFF, index * 16 + slot)
        return f"{_PREFIX[kind]}:{tail[0]:02x}:{tail[1] >> 8:02x}:{tail[1] & 0xFF:02x}"

    # --- when ----------------------------------------------------------------------------------

    def stamp(self, module: Module, k: int) -> int:
        """Epoch of the k-th sample since 1970; ascends strictly with k."""
        jitter = zlib.crc32(k.to_bytes(8, "little", signed=True), module.salt) % (2 * JITTER + 1)
        return k * STEP + module.phase + jitter - JITTER

    def upload(self, station: Station, n: int) -> int:
        """Epoch of the n-th upload: some seconds after every second sample of the station."""
        return self.stamp(station.main, 2 * n + station.parity) + 3 + n % 9

    def uploaded(self, station: Station, now: float) -> int:
        """The last upload at or before `now`; samples up to then are visible."""
        n = int(now - station.main.phase) // (2 * STEP) + 1
        while (moment := self.upload(station, n)) > now:
            n -= 1
        return moment

    def next_upload(self, station: Station, at: float) -> int:
        """The first upload at or after `at`: the one that carries a sample of that moment."""
        n = int(at - station.main.phase) // (2 * STEP) - 1
        while (moment := self.upload(station, n)) < at:
            n += 1
        return moment

    # --- what ----------------------------------------------------------------------------------

    def samples(
        self, which: str | Module, begin: float, end: float, visible_at: float | None = None
    ) -> list[Sample]:
        """What a module measured in [begin, end], oldest first, both ends included.

        which       its id, or the module itself: a `successor` has no other name here
        visible_at  only what had been uploaded by then; None for everything
        """
        module = self.by_id[which] if isinstance(which, str) else which
        if visible_at is not None:
            end = min(end, self.uploaded(self.station_of(module), visible_at))
        fields = module.fields
        return [
            (at, dict(zip(fields, row, strict=True))) for at, row in self.walk(module, begin, end)
        ]

    def rows(
        self, module: Module, begin: float, end: float, limit: int | None = None
    ) -> list[Stamped]:
        """The same as (stamp, values in the order of `module.fields`), at most `limit`."""
        return list(islice(self.walk(module, begin, end), limit))

    def walk(self, module: Module, begin: float, end: float) -> Iterator[Stamped]:
        """Rows one after the other, a day computed at a time."""
        begin = max(begin, module.setup)
        if begin > end:
            return
        for day in range(int(begin - _REACH) // DAY, int(end + _REACH) // DAY + 1):
            stamps, rows = self._chunk(module, day)
            low, high = bisect_left(stamps, begin), bisect_right(stamps, end)
            yield from zip(stamps[low:high], rows[low:high], strict=True)

    def newest(self, module: Module, end: float) -> Stamped | None:
        """The last row at or before `end`."""
        rows = self.rows(module, end - 3 * STEP, end)
        return rows[-1] if rows else None

    def _make_chunk(self, module: Module, day: int) -> tuple[list[int], list[Row]]:
        first = day * PER_DAY
        stamps = [self.stamp(module, k) for k in range(first, first + PER_DAY)]
        home = self.station_of(module)
        shift = round(home.place.location[0] * PER_DAY / 360)
        return stamps, day_rows(module.type, self.seed, home.sky, module.id, shift, day)
