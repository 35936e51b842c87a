"""Smarther v2.0 of Legrand: plants, their chronothermostats, state, measures and programs.

The X8000 thermostats from before Netatmo, by a portal that answers numbers as texts. Source:
netatmo-api 8.4.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from netatmo_ingestd.models import Entity, Json, Measurement, Priority
from netatmo_ingestd.polls import Endpoint, ModuleType, Parsed, Poll, Reply, Source
from netatmo_ingestd.providers import LEGRAND
from netatmo_ingestd.sources.legrand import (
    MODULE,
    PLANT,
    celsius,
    converted,
    decimal,
    id_of,
    is_local,
    moment,
    whole,
)
from netatmo_ingestd.sources.reading import Block, flag, present, text

THERMOSTAT = "chronothermostat"
FUNCTIONS = frozenset({"heating", "cooling"})
MODES = frozenset({"automatic", "manual", "boost", "off", "protection"})
LOADS = {"ACTIVE": True, "INACTIVE": False}
_ENDS = {"setpoint_end", "boiler", "cooler"}  # state that ends when it is told no more
_SCOPE = "comfort.read"


def parse_plants(reply: Reply, poll: Poll) -> Parsed:
    """Each plant as a home.

    body    {"plants": [{"id", "name"}]}; none at all when there is no plant (status 204)
    Raises  PayloadError if the body is neither
    """
    if reply.body is None:
        return Parsed()
    answer = whole(reply, "plants")
    answer.unknown(("plants",))
    found = {}
    for block in answer.blocks("plants"):
        if plant_id := id_of(block, "the plant is left out"):
            other = block.unknown(("id", "name"))
            description = present(name=block.told("name", text))
            found[plant_id] = Entity(
                poll.account, "home", plant_id, plant_id, "", PLANT, description, other=other
            )
    return Parsed(tuple(found.values()), answer.problems)


def parse_topology(reply: Reply, poll: Poll) -> Parsed:
    """Each module of a plant.

    body    {"plant": {"id", "name", "modules": [{"device", "id", "name"}]}}
    Raises  PayloadError if the body is no object
    """
    if reply.body is None:  # status 204
        return Parsed()
    answer = whole(reply, "plant_topology")
    answer.unknown(("plant",))
    plant = answer.inner("plant")
    plant.unknown(("id", "name", "modules"))
    named = plant.told("name", text)
    found = {}
    for block in plant.blocks("modules"):
        if module_id := id_of(block, "the module is left out"):
            device = block.told("device", text) or "unknown"
            if device != THERMOSTAT:
                block.problem("device", f"unknown type {device[:40]}", drift=True)
            found[module_id] = Entity(
                account=poll.account,
                kind="module",
                entity_id=module_id,
                home_id=poll.entity_id,
                device_id=module_id,
                type=device[:64],
                description=present(
                    name=block.told("name", text), type=device[:64], home_name=named
                ),
                other=block.unknown(("device", "id", "name")),
            )
    return Parsed(tuple(found.values()), answer.problems)


def parse_thermostat(reply: Reply, poll: Poll) -> Parsed:
    """State and newest values of one thermostat.

    body      {"chronothermostats": [{"function", "mode", "setPoint", "programs", "loadState",
              "activationTime", "time", "thermometer", "hygrometer", "online", "sender"}]}
    Units     °C (what is told in °F is converted), %
    Problems  a value of a wrong type; a word that is not known is kept, and drift
    Raises    PayloadError if the body is no object
    """
    if reply.body is None:  # status 204
        return Parsed()
    answer = whole(reply, "thermostat")
    answer.unknown(("chronothermostats",))
    for block in answer.blocks("chronothermostats"):
        entity = _thermostat(block, poll)
        rows = _rows(block, poll)
        newest = max(rows, key=lambda row: row.time, default=None)
        if newest is not None and entity.state.get("reachable") is not False:
            entity = replace(entity, latest=(newest.time, newest.values))
        return Parsed((entity, *rows), answer.problems)  # of one module there is one
    answer.problem("chronothermostats", "is empty")
    return Parsed((), answer.problems)


def _thermostat(block: Block, poll: Poll) -> Entity:
    function, mode = _word(block, "function", FUNCTIONS), _word(block, "mode", MODES)
    load = converted(block, "loadState", _load)
    programs = [decimal(each, "number") for each in block.blocks("programs")]
    set_point = block.inner("setPoint")
    set_point.unknown(("value", "unit"))
    unit = block.told("temperatureFormat", text)
    state = {
        "function": function,
        "mode": mode,
        "setpoint_temperature": celsius(set_point, "value", unit),
        "setpoint_end": (
            None if is_local(block) else moment(block, "activationTime", timedelta(days=3660))
        ),
        "program": programs[0] if programs else None,
        "boiler": load if function != "cooling" else None,
        "cooler": load if function == "cooling" else None,
        "reachable": block.told("online", flag),
    }
    known = {"function", "mode", "setPoint", "programs", "temperatureFormat", "loadState", "time",
             "activationTime", "thermometer", "hygrometer", "online", "sender"}  # fmt: skip
    return Entity(
        account=poll.account,
        kind="module",
        entity_id=poll.entity_id,
        home_id=poll.target.home_id if poll.target else "",
        device_id=poll.entity_id,
        type=THERMOSTAT,
        description=present(temperature_unit=unit),
        condition=present(last_seen=moment(block, "time")),
        state={name: value for name, value in state.items() if value is not None or name in _ENDS},
        other=block.unknown(known),
    )


def parse_measures(reply: Reply, poll: Poll) -> Parsed:
    """A row for each time at which a thermostat measured.

    body    {"thermometer": {"measures": [{"timeStamp", "value", "unit"}]}, "hygrometer": …}
    Raises  PayloadError if the body is no object
    """
    if reply.body is None:
        return Parsed()
    answer = whole(reply, "thermostat_measures")
    answer.unknown(("thermometer", "hygrometer"))
    return Parsed(_rows(answer, poll), answer.problems)


def _rows(block: Block, poll: Poll) -> tuple[Measurement, ...]:
    values: dict[datetime, dict[str, float]] = {}
    if is_local(block):
        block.problem("measures", "times without a zone that are no UTC; all are set aside")
        return ()
    for name, quantity in (("thermometer", "temperature"), ("hygrometer", "humidity")):
        for measure in block.inner(name).blocks("measures"):
            time = moment(measure, "timeStamp")
            amount = (celsius if quantity == "temperature" else decimal)(measure, "value")
            measure.unknown(("timeStamp", "value", "unit"))
            if time is not None and amount is not None:
                values.setdefault(time, {})[quantity] = amount
    return tuple(
        Measurement(
            account=poll.account,
            home_id=poll.target.home_id if poll.target else "",
            device_id=poll.entity_id,
            module_id=poll.entity_id,
            module_type=THERMOSTAT,
            scale="max",
            time=time,
            values=values[time],
            source=poll.endpoint.name,
        )
        for time in sorted(values)
    )


def parse_programs(reply: Reply, poll: Poll) -> Parsed:
    """The programs of a thermostat, as part of its description.

    body    {"chronothermostats": [{"programs": [{"number", "name"}], …}]}, or {"programs": […]};
            what a program does is not read
    Raises  PayloadError if the body is no object
    """
    if reply.body is None:
        return Parsed()
    answer = whole(reply, "thermostat_programs")
    outer = [*answer.blocks("chronothermostats"), answer]
    programs = [
        present(number=decimal(each, "number"), name=each.told("name", text))
        for block in outer
        for each in block.blocks("programs")
    ]
    entity = Entity(
        account=poll.account,
        kind="module",
        entity_id=poll.entity_id,
        home_id=poll.target.home_id if poll.target else "",
        device_id=poll.entity_id,
        type=THERMOSTAT,
        description={"programs": programs} if programs else {},
    )
    return Parsed((entity,), answer.problems)


def _load(value: Json) -> bool | None:
    return LOADS.get(value) if isinstance(value, str) else None


def _word(block: Block, key: str, known: frozenset[str]) -> str | None:
    word = block.told(key, text)
    if word is not None and word.lower() not in known:
        block.problem(key, f"unknown value {word[:40]}", drift=True)
    return word.lower() if word is not None else None


PLANTS = Endpoint(
    name="plants",
    scope=_SCOPE,
    cadence="plants",
    per="account",
    priority=Priority.LIVE,
    parse=parse_plants,
)
PLANT_TOPOLOGY = Endpoint(
    name="plant_topology",
    scope=_SCOPE,
    cadence="plants",
    per=PLANT,
    priority=Priority.LIVE,
    parse=parse_topology,
)
STATUS = Endpoint(
    name="thermostat",
    scope=_SCOPE,
    cadence="smarther",
    per=MODULE,
    priority=Priority.LIVE,
    parse=parse_thermostat,
    lists=False,
)
MEASURES = Endpoint(
    name="thermostat_measures",
    scope=_SCOPE,
    cadence="measures",
    per=MODULE,
    priority=Priority.TRAILING,
    parse=parse_measures,
    lists=False,
)
PROGRAMS = Endpoint(
    name="thermostat_programs",
    scope=_SCOPE,
    cadence="plants",
    per=MODULE,
    priority=Priority.TRAILING,
    parse=parse_programs,
    lists=False,
)
SMARTHER = Source(
    name="smarther",
    scopes=LEGRAND.scopes["smarther"],
    endpoints=(PLANTS, PLANT_TOPOLOGY, STATUS, MEASURES, PROGRAMS),
    module_types={THERMOSTAT: ModuleType("smarther", scope=_SCOPE)},
)
