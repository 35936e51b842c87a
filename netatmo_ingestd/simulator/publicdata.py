"""Public stations: `getpublicdata`, the weather map (netatmo-api 3.11).

It shows the outdoor weather of whatever stands in an area: the stations of this world, whosever
they are, and strangers. These are functions of (seed, place): a fixed number in each cell of the
globe, some with a rain gauge or an anemometer, with curves like those of any other station. Larger
areas are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from netatmo_ingestd.simulator import dashboard
from netatmo_ingestd.simulator.answers import Json, invalid_argument, missing_arguments
from netatmo_ingestd.simulator.curves import hashed
from netatmo_ingestd.simulator.oauth import SCOPES
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.weather import Call, Method
from netatmo_ingestd.simulator.world import DAY, Module, Place, Station, World

CELL = 0.1  # degrees a side; a cell holds STRANGERS stations
STRANGERS = 2
WHOLE = 0.3  # degrees a side up to which an area is shown whole
_ONE_OF = 3  # stations, of a larger area
_CORNERS = ("lat_ne", "lon_ne", "lat_sw", "lon_sw")
_SHOWN = {"NAModule1": ("temperature", "humidity"), "NAModule2": ("wind",), "NAModule3": ("rain",)}
_REQUIRED = {"temperature", "humidity", "pressure", "rain", "wind"}
_PREFIX = {"NAMain": "70:ee:50", "NAModule1": "02:00:00", "NAModule2": "06:00:00"}
_PREFIX["NAModule3"] = "05:00:00"
_STREETS = ("Rue du Port", "Mill Lane", "Am Hang", "Kirkkotie")

Area = tuple[float, float, float, float]
"""North, east, south, west in degrees."""


def public(call: Call) -> Json:
    """`getpublicdata`: a list of stations, without those that lack any of `required_data`.

    With `filter`, stations that measure nonsense are left out.
    """
    area, required = read_area(call.params), _required(call.params)
    found = []
    for view, station in around(call.view, area):
        excess = _excess(call, station)
        shown = None if excess and call.flag("filter") else _station(view, station, excess)
        if shown and required <= _kinds(view, station):
            found.append(shown)
    return found


METHODS: Mapping[str, Method] = {"getpublicdata": Method(tuple(sorted(SCOPES)), public)}


# --- what is asked ------------------------------------------------------------------------------


def read_area(params: Sequence[tuple[str, str]]) -> Area:
    """The corners that are asked for; CallError where the cloud refuses them."""
    given = dict(params)
    if absent := [name for name in _CORNERS if not given.get(name)]:
        raise missing_arguments(absent[0])
    try:
        north, east, south, west = (float(given[name]) for name in _CORNERS)
    except ValueError:
        raise invalid_argument("Invalid coordinates") from None
    if not (-85 <= south < north <= 85 and -180 <= west < east <= 180):
        raise invalid_argument("Invalid coordinates")
    return north, east, south, west


def _required(params: Sequence[tuple[str, str]]) -> set[str]:
    told = dict(params).get("required_data", "")
    required = {name.strip() for name in told.split(",") if name.strip()}
    if required - _REQUIRED:
        raise invalid_argument("Invalid required_data")
    return required


# --- who is there -------------------------------------------------------------------------------


def around(view: View, area: Area) -> Iterator[tuple[View, Station]]:
    """The stations in an area, each with the view of the world that it is in."""
    north, east, south, west = area
    sampled = north - south > WHOLE + 1e-9 or east - west > WHOLE + 1e-9
    for seen, station in _everyone(view, area):
        longitude, latitude = station.place.location
        inside = south <= latitude <= north and west <= longitude <= east
        if inside and not (sampled and hashed(view.world.seed, station.id, "shown") % _ONE_OF):
            yield seen, station


def _everyone(view: View, area: Area) -> Iterator[tuple[View, Station]]:
    for station in view.world.stations.values():
        yield view, station
    north, east, south, west = area
    world = view.world
    for row in range(math.floor(south / CELL), math.floor(north / CELL) + 1):
        for column in range(math.floor(west / CELL), math.floor(east / CELL) + 1):
            near = strangers(world.seed, world.origin, row, column)
            seen = View(near, view.now, view.faults)
            for station in near.stations.values():
                yield seen, station


@lru_cache(maxsize=1024)
def strangers(seed: int, origin: int, row: int, column: int) -> World:
    """A world with the stations of the cell whose south-western corner is (row, column) · CELL."""
    world = World(seed, 0, origin=origin, days=60)
    for number in range(STRANGERS):
        station = _stranger(world, row, column, number)
        world.stations[station.id] = station
        world.by_id |= {module.id: module for module in station.all}
    return world


def _stranger(world: World, row: int, column: int, number: int) -> Station:
    mark = hashed(world.seed, "public", row, column, number)
    # Never the fourth byte of the modules of this world itself.
    fourth = (hashed(world.seed, "mac") + 1 + mark % 255) & 0xFF
    tail = f"{fourth:02x}:{mark >> 8 & 0xFF:02x}:{mark >> 16 & 0xFF:02x}"
    kinds = ["NAMain", "NAModule1"]
    kinds += ["NAModule3"] * (mark >> 24 & 1) + ["NAModule2"] * (mark >> 25 & 1)
    phase = 80 + mark % 200
    station_id = f"{_PREFIX['NAMain']}:{tail}"
    modules = [
        Module(
            id=f"{_PREFIX[kind]}:{tail}",
            type=kind,
            station=station_id,
            name="",
            setup=world.setup,
            phase=phase - 8 * slot,
            salt=hashed(world.seed, kind, tail) & 0xFFFFFFFF,
        )
        for slot, kind in enumerate(kinds)
    ]
    inside = [(mark >> shift & 0xFF) / 256 * CELL for shift in (32, 40)]
    place = Place(
        city=f"Cell {row} {column}",
        country="FR",
        timezone="Europe/Paris",
        location=(round(column * CELL + inside[0], 6), round(row * CELL + inside[1], 6)),
        altitude=mark >> 48 & 0xFF,
    )
    return Station(
        main=modules[0],
        modules=tuple(modules[1:]),
        home_id="",
        home_name="",
        place=place,
        parity=mark & 1,
        sky=f"cell {row} {column}",
    )


# --- what is shown ------------------------------------------------------------------------------


def _excess(call: Call, station: Station) -> float:
    """By how many degrees its thermometer is wrong."""
    ids = [each.id for each in station.all]
    faults = [fault for fault in call.faults if fault.kind == "public_outlier"]
    about = [fault for fault in faults if any(fault.touches(each, station.id) for each in ids)]
    return float(sum(fault.params["delta"] for fault in about))


def _station(view: View, station: Station, excess: float) -> Json | None:
    """One element of the body; None while nothing is heard of the station."""
    told = {each.id: _measured(view, each) for each in (station.main, *_outdoor(view, station))}
    measures: dict[str, Json] = {name: each for name, each in told.items() if each}
    if station.id not in measures:
        return None
    place = dashboard.place(station.place)
    if hashed(view.world.seed, station.id, "street") % 2:
        place["street"] = _STREETS[hashed(view.world.seed, station.id) % len(_STREETS)]
    outdoor = [each for each in _outdoor(view, station) if each.id in measures]
    for each in outdoor:
        if excess and each.type == "NAModule1":
            for values in measures[each.id]["res"].values():
                values[0] = round(values[0] + excess, 1)
    return {
        "_id": station.id,
        "place": place,
        "mark": 1 + hashed(view.world.seed, station.id, "mark", int(view.now) // DAY) % 14,
        "measures": measures,
        # The station itself is a key of `measures`, but is in neither of these.
        "modules": [each.id for each in outdoor],
        "module_types": {each.id: each.type for each in outdoor},
    }


def _outdoor(view: View, station: Station) -> list[Module]:
    return [each for each in view.members(station) if each.type in _SHOWN and view.present(each)]


def _kinds(view: View, station: Station) -> set[str]:
    return {"pressure", *(kind for each in _outdoor(view, station) for kind in _SHOWN[each.type])}


def _measured(view: View, module: Module) -> Json | None:
    """One value of `measures`: the newest row that was uploaded, in the shape of its type."""
    newest = view.newest(module)
    if newest is None or newest[0] < view.now - dashboard.STATION_SILENT_S:
        return None
    at, row = newest
    told = dict(zip(module.fields, row, strict=True))
    if module.type == "NAModule1":
        values = [told["Temperature"], told["Humidity"]]
        return {"res": {str(at): values}, "type": ["temperature", "humidity"]}
    if module.type == "NAModule2":
        names = {"wind": "Wind", "gust": "Gust"}
        wind = {
            f"{ours}_{part}": told[f"{theirs}{part.title()}"]
            for ours, theirs in names.items()
            for part in ("strength", "angle")
        }
        return wind | {"wind_timeutc": at}
    if module.type == "NAModule3":
        return _rain(view, module, at, float(told["Rain"]))
    return {"res": {str(at): [told["Pressure"]]}, "type": ["pressure"]}


def _rain(view: View, module: Module, at: int, amount: float) -> Json:
    day = [(stamp, float(row[0])) for stamp, row in view.rows(module, at - DAY + 1, at)]
    return {
        "rain_60min": round(sum(each for stamp, each in day if stamp > at - 3600), 3),
        "rain_24h": round(sum(each for _, each in day), 3),
        # As a rate: what fell in five minutes, for an hour.
        "rain_live": round(amount * 12, 3),
        "rain_timeutc": at,
    }
