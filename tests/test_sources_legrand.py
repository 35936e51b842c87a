"""Legrand's portal: answers in the shapes of netatmo-api 8.3 and 8.4, and garbage."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, FailureCode, Measurement
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Reply
from netatmo_ingestd.sources.emergency import (
    FAILURE_FLAG,
    FAILURE_TYPES,
    SITE_CONTROLLERS,
    failure_poll,
    failures_of,
)
from netatmo_ingestd.sources.legrand import poll_of, site
from netatmo_ingestd.sources.smarther import MEASURES, PLANT_TOPOLOGY, PLANTS, PROGRAMS, STATUS

NOW = datetime(2025, 10, 9, 11, 0, tzinfo=UTC)
PLANT = Entity("a", "home", "plant-1", "plant-1", "", "plant", {"name": "Home"})
MODULE = Entity("a", "module", "mod-1", "plant-1", "mod-1", "chronothermostat", {"name": "Hall"})
CONTROLLER = {
    "id": "c-1", "name": "062520 @27.00.03", "reference": "062520", "serialNumber": "ELC_1",
    "lastStatusUpdate": "2025-10-09T10:58:00Z", "status": 8, "failures": [8, 64], "alert": True,
    "lastAlertUpdate": "2025-10-09T09:00:00Z", "alertLevel": 2,
}  # fmt: skip
STATE: dict[str, Any] = {
    "function": "HEATING", "mode": "AUTOMATIC", "setPoint": {"value": "19.5", "unit": "C"},
    "programs": [{"number": 1}], "temperatureFormat": "C", "loadState": "INACTIVE",
    "time": "2025-10-09T10:53:20",
    "thermometer": {
        "measures": [{"timeStamp": "2025-10-09T10:53:20", "value": "20.1", "unit": "C"}]
    },
    "hygrometer": {
        "measures": [{"timeStamp": "2025-10-09T10:53:20", "value": "51.3", "unit": "%"}]
    },
    "online": True,
    "sender": {"plant": {"id": "plant-1", "module": {"id": "mod-1"}}},
}  # fmt: skip


def read(endpoint: Endpoint, body: Any, entity: Entity | None = None) -> Parsed:
    reply = Reply(body, NOW, NOW, b"")
    poll = poll_of(endpoint, "a", entity) if entity else Poll(endpoint, "a")
    return endpoint.parse(reply, poll)


def state_of(**changes: Any) -> tuple[dict[str, Any], list[str]]:
    """State of a thermostat as told, and what is wrong with it."""
    body = {"chronothermostats": [{**STATE, **changes}]}
    parsed = read(STATUS, body, MODULE)
    entity = parsed.records[0]
    assert isinstance(entity, Entity)
    return dict(entity.state), [str(each) for each in parsed.problems]


def test_a_thermostat() -> None:
    """State in our words, the newest values, and a row that merges with that of the measures."""
    parsed = read(STATUS, {"chronothermostats": [STATE]}, MODULE)
    entity, row = parsed.records

    assert isinstance(entity, Entity)
    assert isinstance(row, Measurement)
    assert entity.state == {
        "function": "heating", "mode": "automatic", "setpoint_temperature": 19.5, "program": 1.0,
        "boiler": False, "cooler": None, "setpoint_end": None, "reachable": True,
    }  # fmt: skip
    at = datetime(2025, 10, 9, 10, 53, 20, tzinfo=UTC)
    assert entity.latest == (at, {"temperature": 20.1, "humidity": 51.3})
    assert (row.module_id, row.home_id, row.scale, row.time) == ("mod-1", "plant-1", "max", at)
    assert parsed.problems == []


def test_modes_of_a_thermostat() -> None:
    """Boost ends some time; the load of a cooling one is no boiler; Fahrenheit is converted."""
    boost, _ = state_of(mode="BOOST", activationTime="2025-10-09T12:00:00", loadState="ACTIVE")
    cooling, _ = state_of(function="COOLING", loadState="ACTIVE")
    warm, _ = state_of(setPoint={"value": "68", "unit": "F"}, temperatureFormat="F")
    odd, problems = state_of(mode="PARTY", setPoint={"value": "warm"}, loadState="MAYBE")

    assert boost["mode"] == "boost"
    assert boost["setpoint_end"] == datetime(2025, 10, 9, 12, tzinfo=UTC)
    assert boost["boiler"] is True
    assert (cooling["boiler"], cooling["cooler"]) == (None, True)
    assert warm["setpoint_temperature"] == 20.0
    assert odd["mode"] == "party"
    assert "setpoint_temperature" not in odd
    assert len(problems) == 3


def test_what_is_not_online_has_no_newest_values() -> None:
    """Its last measure is a row of its own time, and nothing that holds now."""
    parsed = read(STATUS, {"chronothermostats": [{**STATE, "online": False}]}, MODULE)

    assert isinstance(parsed.records[0], Entity)
    assert parsed.records[0].latest is None
    assert len(parsed.records) == 2


def test_measures_are_merged_by_time() -> None:
    """Both lists give one row a time; numbers come as texts, also with a comma."""
    body = {
        "thermometer": {"measures": [
            {"timeStamp": "2025-10-09T10:00:00", "value": "68.0", "unit": "F"},
            {"timeStamp": "2025-10-09T12:15:00+02:00", "value": "20,5", "unit": "C"},
            {"timeStamp": "2025-10-09T15:00:00Z", "value": "20.5", "unit": "C"},
            {"timeStamp": "2025-10-09T10:30:00", "value": "n/a", "unit": "C"},
        ]},
        "hygrometer": {"measures": [{"timeStamp": "2025-10-09T10:00:00", "value": 50}]},
    }  # fmt: skip
    parsed = read(MEASURES, body, MODULE)
    rows = {each.time: each.values for each in parsed.records if isinstance(each, Measurement)}

    assert rows == {
        datetime(2025, 10, 9, 10, tzinfo=UTC): {"temperature": 20.0, "humidity": 50.0},
        datetime(2025, 10, 9, 10, 15, tzinfo=UTC): {"temperature": 20.5},
    }
    assert [each.path for each in parsed.problems] == [
        "body.thermometer.measures[2].timeStamp",
        "body.thermometer.measures[3].value",
    ]


def test_times_of_another_zone_are_set_aside() -> None:
    """Where one without a zone lies ahead, none of the answer is UTC: no row at a wrong time."""
    listed = [{"timeStamp": f"2025-10-09T{hour:02d}:00:00", "value": "20", "unit": "C"}
              for hour in range(4, 13)]  # fmt: skip
    parsed = read(MEASURES, {"thermometer": {"measures": listed}}, MODULE)

    assert parsed.records == ()
    assert [each.path for each in parsed.problems] == ["body.measures"]


def test_plants_and_their_modules() -> None:
    """A plant is a home; status 204 is none; another device is kept, and drift."""
    none, plants = read(PLANTS, None), read(PLANTS, {"plants": [{"id": "plant-1", "name": "Home"}]})
    body = {"plant": {"id": "plant-1", "name": "Home", "modules": [
        {"device": "chronothermostat", "id": "mod-1", "name": "Hall"},
        {"device": "light", "id": "mod-2", "name": "Lamp"}, {"device": "light"},
    ]}}  # fmt: skip
    modules = read(PLANT_TOPOLOGY, body, PLANT)

    assert none.records == ()
    assert [(each.kind, each.type, each.entity_id) for each in entities(plants)] == [
        ("home", "plant", "plant-1")
    ]
    assert [(each.type, each.entity_id, each.home_id) for each in entities(modules)] == [
        ("chronothermostat", "mod-1", "plant-1"),
        ("light", "mod-2", "plant-1"),
    ]
    assert [each.drift for each in modules.problems] == [True, False]


def test_programs_are_described() -> None:
    """Their numbers and names, whichever of two shapes they come in."""
    programs = [{"number": 1, "name": "Week"}, {"number": 2}]
    for body in ({"programs": programs}, {"chronothermostats": [{"programs": programs}]}):
        (entity,) = entities(read(PROGRAMS, body, MODULE))
        assert entity.description["programs"] == [
            {"number": 1.0, "name": "Week"}, {"number": 2.0}
        ]  # fmt: skip


def entities(parsed: Parsed) -> list[Entity]:
    return [each for each in parsed.records if isinstance(each, Entity)]


def test_site_controllers() -> None:
    """The site, each controller with its state, and its failures as flags."""
    parsed = read(SITE_CONTROLLERS, [CONTROLLER, {"name": "no id"}], site("a", "site-1"))
    home, controller = entities(parsed)

    assert (home.kind, home.entity_id, home.type) == ("home", "site-1", "site")
    assert controller.state == {
        "status": 8.0, "alert": True, "alert_level": 2.0, "failures": [8, 64]
    }  # fmt: skip
    assert controller.description == {
        "type": "emergency_controller", "name": "062520 @27.00.03", "reference": "062520",
        "serial": "ELC_1",
    }  # fmt: skip
    assert controller.condition["last_alert"] == datetime(2025, 10, 9, 9, tzinfo=UTC)
    assert [str(each) for each in parsed.problems] == [
        "body[1].id: missing or unusable; the controller is left out"
    ]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (8, [("062520", 8)]),
        ("8", [("062520", 8)]),
        ("0x0008", [("062520", 8)]),
        ({"failureFlag": 8, "reference": "062521"}, [("062521", 8)]),
        ({"flag": "0X10"}, [("062520", 16)]),
        (0, []),
        ("0x0", []),
        ({"flag": "0"}, []),
        (-1, []),
        ("broken", []),
        (None, []),
        (True, []),
        (1 << 40, []),
    ],
)
def test_shapes_of_a_failure(told: Any, found: list[tuple[str, int]]) -> None:
    """No document says what a failure looks like: whatever holds a flag is taken."""
    assert list(failures_of({**CONTROLLER, "failures": [told]})) == found
    parsed = read(SITE_CONTROLLERS, [{**CONTROLLER, "failures": [told]}], site("a", "site-1"))
    assert bool(parsed.problems) is (not found and told not in (0, "0x0", {"flag": "0"}))


def test_what_a_flag_means() -> None:
    """Each set bit as told; a word that nobody knows is kept, and drift."""
    body = [
        {"flag": "0x0008", "failureType": "BLOCK.FAULTY_BATTERY"},
        {"flag": 64, "failureType": "BLOCK.NEW"}, {"flag": "0x1"},
    ]  # fmt: skip
    parsed = FAILURE_FLAG.parse(Reply(body, NOW, NOW, b""), failure_poll("a", "062520", 73))
    (code,) = parsed.records

    assert isinstance(code, FailureCode)
    assert (code.reference, code.flag) == ("062520", 73)
    assert code.failures == [
        {"flag": "0x0008", "type": "BLOCK.FAULTY_BATTERY"}, {"flag": "0x0040", "type": "BLOCK.NEW"}
    ]  # fmt: skip
    assert [each.drift for each in parsed.problems] == [True, False]
    assert len(FAILURE_TYPES) == 21


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
GARBLED = st.fixed_dictionaries({}, optional=dict.fromkeys(STATE, JSON))
BROKEN = st.fixed_dictionaries({}, optional=dict.fromkeys(CONTROLLER, JSON))


@given(GARBLED, BROKEN, JSON)
def test_garbage_costs_no_neighbour(
    thermostat: dict[str, Any], controller: dict[str, Any], body: Any
) -> None:
    """Whatever stands in a field, what is beside it is read; another body is refused whole."""
    good = read(SITE_CONTROLLERS, [{**CONTROLLER, **controller}, {**CONTROLLER, "id": "c-2"}],
                site("a", "site-1"))  # fmt: skip
    assert "c-2" in [each.entity_id for each in entities(good)]
    state_of(**thermostat)
    for endpoint, entity in ((SITE_CONTROLLERS, site("a", "s")), (MEASURES, MODULE),
                             (PLANTS, None), (PLANT_TOPOLOGY, PLANT), (STATUS, MODULE),
                             (PROGRAMS, MODULE)):  # fmt: skip
        with contextlib.suppress(PayloadError):
            read(endpoint, body, entity)
    with contextlib.suppress(PayloadError):
        FAILURE_FLAG.parse(Reply(body, NOW, NOW, b""), failure_poll("a", "062520", 8))
