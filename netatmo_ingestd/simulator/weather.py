"""The weather product line: which methods it answers. Other lines add a table of their own.

`getmeasure` is here for all of them; which scope it takes is up to the module asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from netatmo_ingestd.simulator import dashboard, kept, measure, misfits, oddities
from netatmo_ingestd.simulator.answers import CallError, Json, invalid_argument, no_scope
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.happenings import KEPT_DAYS
from netatmo_ingestd.simulator.measure import Point, Query
from netatmo_ingestd.simulator.pictures import Studio
from netatmo_ingestd.simulator.sessions import Account
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import Module, Place, Station, World


@dataclass(slots=True)
class Call:
    """An authorized data call.

    params        arguments in the order sent, names may repeat
    scopes        of the login
    show_invited  list invited stations even without get_favorites
    stamps        of the history rows in the answer, filled in by the method
    base          scheme and host by which the cloud was reached
    studio        signs the addresses of pictures
    event_days    how long events are kept
    """

    params: Sequence[tuple[str, str]]
    account: Account
    view: View
    scopes: Sequence[str]
    faults: list[Fault] = field(default_factory=list)
    show_invited: bool = False
    stamps: Sequence[int] = ()
    base: str = ""
    studio: Studio = field(default_factory=lambda: Studio(0))
    event_days: float = KEPT_DAYS

    def flag(self, name: str) -> bool:
        return dict(self.params).get(name, "").lower() in ("true", "1")


@dataclass(frozen=True, slots=True)
class Method:
    """A data method: any one of `scopes` unlocks it."""

    scopes: tuple[str, ...]
    answer: Callable[[Call], Json]


def stations(call: Call) -> Json:
    """`getstationsdata` (netatmo-api 3.1)."""
    world, view = call.view.world, call.view
    mine = [dashboard.device(view, world.stations[i]) for i in call.account.owns]
    mine += [_invited(view, world.stations[i]) for i in _guests(call)]
    devices = oddities.applied(mine, call.faults, view.now)
    if call.flag("get_favorites"):
        devices += _favourites(call)
    return answer(call, devices)


def answer(call: Call, devices: list[oddities.Thing]) -> Json:
    """The body that lists `devices`, or of them the one that is asked for."""
    wanted = dict(call.params).get("device_id")
    if wanted:
        devices = [device for device in devices if device["_id"] == wanted]
        if not devices:
            raise invalid_argument("device id is invalid")
    return {"devices": devices, "user": dashboard.user(call.account.user, _home(call))}


def measures(call: Call) -> Json:
    """`getmeasure` (netatmo-api 3.3)."""
    query = measure.read_query(call.params)
    if device := _device(call, query):
        return _kept(call, query, *device)
    module = _target(call, query)
    if MEASURE_SCOPES.get(module.type, "read_station") not in call.scopes:
        raise no_scope()
    station = call.view.world.station_of(module)
    found = measure.points(query, module, station.zone, call.view)
    found = _spoiled(found, query, module, call.view)
    call.stamps = [at for at, _ in found]
    return measure.shape(found, query)


def room_measures(call: Call) -> Json:
    """`getroommeasure` (netatmo-api 3.4)."""
    query = measure.read_query(call.params, "home_id", "room_id")
    household = call.view.world.households.get(query.device_id)
    owned = {call.view.world.stations[each].home_id for each in call.account.owns}
    if household is None or query.device_id not in owned:
        raise invalid_argument("Invalid home_id")
    room = next((each for each in household.rooms if each.id == query.module_id), None)
    if room is None or query.scale == "max":
        raise invalid_argument("Invalid scale" if room else "Invalid room_id")
    scope = kept.room_scope(household, room)
    return _kept(call, query, scope, kept.of_room(household, room))


def _device(call: Call, query: Query) -> tuple[str, kept.Kept | None] | None:
    """(scope, what is kept) of a device that is in the account's households; None else."""
    owned = {call.view.world.stations[each].home_id for each in call.account.owns}
    for home_id in owned & call.view.world.households.keys():
        household = call.view.world.households[home_id]
        for device in household.devices:
            if device.id != query.module_id or query.device_id not in (device.gateway, device.id):
                continue
            if not misfits.touching(call.faults, "vanished", device):
                return device.scope, kept.of_device(call.view.world, household, device)
    return None


def _kept(call: Call, query: Query, scope: str, found: kept.Kept | None) -> Json:
    if scope not in call.scopes:
        raise no_scope()
    if found is None:
        return []
    rows = measure.points(query, found, found.zone, kept.KeptView(call.view.now))
    call.stamps = [at for at, _ in rows]
    return measure.shape(rows, query)


MEASURE_SCOPES: Mapping[str, str] = {"NHC": "read_homecoach"}
"""Scope of the history of a module type; all others are of weather stations."""
_HOME_SCOPES = ("read_thermostat", "read_magellan")
METHODS: Mapping[str, Method] = {
    "getstationsdata": Method(("read_station",), stations),
    "getmeasure": Method(("read_station", *MEASURE_SCOPES.values(), *_HOME_SCOPES), measures),
    "getroommeasure": Method(("read_thermostat", "read_smarther"), room_measures),
}


def _guests(call: Call) -> tuple[str, ...]:
    shown = call.show_invited or call.flag("get_favorites")
    return call.account.invited if shown else ()


def _invited(view: View, station: Station) -> Json:
    return dashboard.device(view, station) | {"read_only": True}


def _favourites(call: Call) -> list[Json]:
    """A stranger's station, while a `favourite` fault is armed."""
    if not any(fault.kind == "favourite" for fault in call.faults):
        return []
    world = World(call.view.world.seed + 1, 1, origin=call.view.world.origin, days=30)
    station = next(iter(world.stations.values()))
    return [dashboard.favourite(View(world, call.view.now), station)]


def _home(call: Call) -> Place:
    world = call.view.world
    owned = (*call.account.owns, *call.account.invited, *world.stations)
    return world.stations[owned[0]].place


def _target(call: Call, query: Query) -> Module:
    """The module asked, if the account may see it, still has it, and it is behind that device."""
    visible = (*call.account.owns, *call.account.invited, *call.account.coaches)
    module = call.view.find(query.module_id) if query.device_id in visible else None
    if module is None or module.station != query.device_id or not call.view.present(module):
        raise CallError(404, 9, "Device not found")
    return module


def _spoiled(found: list[Point], query: Query, module: Module, view: View) -> list[Point]:
    """World faults that put impossible rows or values into history."""
    if query.scale == "max" and len(found) < query.limit:
        fields = [name.lower() for name in module.fields]
        for at, row in view.strays(module, "measure"):
            values = dict(zip(fields, row, strict=True))
            found = [*found, (at, [values.get(name) for name in query.types])]
    for fault in view.touching("wrong_type", module):
        name = fault.params["field"].lower()
        if fault.params["where"] in ("measure", "both") and name in query.types:
            index = query.types.index(name)
            wrong = fault.params["value"]
            found = [(at, [*v[:index], wrong, *v[index + 1 :]]) for at, v in found]
    return found
