"""homesdata and homestatus of the simulator: what is told, to whom, and what faults do to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.simulator import conditions, lives
from tests.clocks import START
from tests.households import at, by_id, home, household, ids, lab_of, login_with, only, read, status
from tests.labs import Lab, error

NOW = int(START)
DAY = 86_400


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = lab_of(tmp_path)
    async with lab.http:
        await lab.login()
        yield lab


# --- what is told ---------------------------------------------------------------------------------


async def test_homesdata_tells_all_that_is_in_a_home(lab: Lab) -> None:
    """The station's home: rooms with their modules, gateways with theirs, faces, the weather."""
    told, mine = await home(lab), household(lab)

    modules = by_id(told["modules"])
    assert told["id"] == lab.station.home_id == mine.home_id
    assert set(modules) == {d.id for d in mine.devices} | {m.id for m in lab.station.all}
    for room in told["rooms"]:
        assert room["module_ids"] == [d.id for d in mine.devices if d.room_id == room["id"]]
    relay = modules[only(lab, "NAPlug").id]
    assert relay["modules_bridged"] == [d.id for d in mine.of_type("NATherm1", "NRV")]
    assert "bridge" not in relay
    assert {"pseudo" in each for each in told["persons"]} == {True, False}
    assert modules[lab.station.modules[0].id]["bridge"] == lab.station.id


async def test_one_home_or_all_are_asked(lab: Lab) -> None:
    """Without home_id both homes of the account, with it that one; an unknown one is refused."""
    everyone = (await lab.get("homesdata")).json()["body"]
    refused = await lab.get("homesdata", home_id="f" * 24)

    assert [each["id"] for each in everyone["homes"]] == [
        each.home_id for each in lab.world.stations.values()
    ]
    assert everyone["user"]["email"] == lab.accounts[0].user
    assert error(refused) == (400, 21)
    assert refused.json()["error"]["message"] == "Invalid home_id"


async def test_homestatus_asks_for_a_home_that_is_known(lab: Lab) -> None:
    assert error(await lab.get("homestatus")) == (400, 10)
    assert error(await lab.get("homestatus", home_id="f" * 24)) == (400, 21)


async def test_a_home_without_modules_has_no_body(lab: Lab) -> None:
    """One that has only a station, to a login that may not see it."""
    await login_with(lab, "read_magellan")
    empty = list(lab.world.stations.values())[1].home_id

    answer = (await lab.get("homestatus", home_id=empty)).json()

    assert answer["status"] == "ok"
    assert "body" not in answer
    assert "modules" not in (await home(lab, home_id=empty))


async def test_homestatus_is_what_the_home_does(lab: Lab) -> None:
    """Over a day: each room, device and face is told as the curves have it at that moment."""
    everything = " ".join(("read_station", *household(lab).scopes))
    for _ in range(24):
        lab.clock.advance(3_600)
        await login_with(lab, everything)
        told, served = await status(lab), conditions.everything(household(lab), at(lab))

        assert told["rooms"] == served["rooms"]
        assert told["persons"] == served["persons"]
        weather = len(lab.station.all)
        assert told["modules"][:-weather] == served["modules"]


async def test_the_control_route_tells_the_same(lab: Lab) -> None:
    """/simulator/home: at any moment, whatever fault is armed."""
    await lab.arm("vanished", module=only(lab, "NLG").id)
    mine, moment = household(lab), NOW - 5_000.0

    answer = await lab.http.get("/simulator/home", params={"id": mine.home_id, "at": moment})
    unknown = await lab.http.get("/simulator/home", params={"id": "x"})

    assert answer.json() == {"at": moment, **conditions.everything(mine, moment)}
    assert unknown.status_code == 400
    assert unknown.json() == {"error": "id: 'x' is no home with anything but weather"}


async def test_the_world_tells_its_households(lab: Lab) -> None:
    told = (await lab.http.get("/simulator/world")).json()

    (found,) = told["households"]
    assert [each["id"] for each in found["devices"]] == [d.id for d in household(lab).devices]
    assert {each["scope"] for each in found["devices"]} == set(household(lab).scopes)
    assert told["contract"] == lab.world.contract


async def test_only_some_have_reachable(lab: Lab) -> None:
    """As recorded: not relays, cameras, alarms, sirens, air conditioning, or parts of a device."""
    told = await status(lab)

    silent = {each["type"] for each in told["modules"] if "reachable" not in each}
    assert silent == {
        *("NAPlug", "OTH", "BNS", "NAC", "NACamera", "NOC", "NDB", "NIS", "NSD", "NCO"),
        *("NLE", "NLY", "NAMain"),
    }
    parts = [each for each in told["modules"] if "#" in each["id"]]
    assert {frozenset(each) - {"power"} for each in parts} == {frozenset({"id", "type", "bridge"})}
    alarm = by_id(told["modules"])[only(lab, "NSD").id]
    assert set(alarm) == {"id", "type", "firmware_revision", "last_seen", "wifi_strength"}


async def test_a_three_phase_meter_is_the_sum_of_its_phases(lab: Lab) -> None:
    base, *phases = (
        each["power"] for each in (await status(lab))["modules"] if each["type"] == "NLY"
    )

    assert len(phases) == 3
    assert base == sum(phases)


async def test_an_air_conditioner_has_set_points_of_its_own(lab: Lab) -> None:
    """Its room has auto_… and humidity; that of a Smarther humidity beside therm_…"""
    rooms = by_id((await status(lab))["rooms"])
    air, smarther = rooms[only(lab, "NAC").room_id or ""], rooms[only(lab, "BNS").room_id or ""]

    assert {"auto_setpoint_temperature", "humidity"} <= set(air)
    assert not [key for key in air if key.startswith("therm_setpoint")]
    assert {"therm_setpoint_temperature", "humidity"} <= set(smarther)


async def test_both_spellings_of_a_step_are_about(lab: Lab) -> None:
    told = by_id((await status(lab))["modules"])

    assert "target_position:step" in told[only(lab, "NBR").id]
    assert "target_position_step" in told[only(lab, "NBO").id]


async def test_the_tariff_follows_the_contract(lab: Lab) -> None:
    """Before the change one price, after it peak and off-peak hours of every day."""
    after = {each["type"]: each for each in (await home(lab))["schedules"]}["electricity"]
    lab.world.contract = NOW + DAY
    before = {each["type"]: each for each in (await home(lab))["schedules"]}["electricity"]

    assert [zone["price_type"] for zone in after["zones"]] == ["peak", "off_peak"]
    assert [zone["price_type"] for zone in before["zones"]] == ["basic"]
    starts = {each["m_offset"] % 1_440 for each in after["timetable"]}
    assert starts == {0, *lives.PEAK_MINUTES}


async def test_the_daemon_knows_all_of_it(lab: Lab) -> None:
    """Neither answer has a field, type or word that is news to the sources."""
    topology, state = await read(lab)

    assert [str(each) for each in (*topology.problems, *state.problems)] == []
    devices = {each.id for each in household(lab).devices}
    assert devices <= ids(topology)
    assert devices <= ids(state)


# --- who sees what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("read_thermostat", {"NAPlug", "NATherm1", "NRV", "OTH", "OTM", "NAC"}),
        ("read_smarther", {"BNS"}),
        ("read_camera", {"NACamera", "NACamDoorTag", "NIS"}),
        ("read_presence read_doorbell", {"NOC", "NDB"}),
        ("read_smokedetector", {"NSD"}),
        ("read_carbonmonoxidedetector", {"NCO"}),
        ("read_bubendorff", {"NBG", "NBR", "NBO"}),
        ("read_station", {"NAMain", "NAModule1", "NAModule2", "NAModule3", "NAModule4"}),
    ],
)
async def test_what_a_login_may_not_see_is_left_out(lab: Lab, scope: str, seen: set[str]) -> None:
    """The same modules in both answers; faces only with the cameras, rooms only with heating."""
    await login_with(lab, scope)

    told, now = await home(lab), await status(lab)

    assert {each["type"] for each in told["modules"]} == seen
    assert {each["type"] for each in now["modules"]} == seen
    assert ("persons" in told, "persons" in now) == (scope == "read_camera",) * 2
    assert ("rooms" in now) == (scope in ("read_thermostat", "read_smarther"))


async def test_a_ready_made_login_sees_everything(lab: Lab) -> None:
    """Its scopes are those of what the account has, station and devices."""
    session = lab.cloud.authority.sessions.by_refresh(lab.refresh_token())

    assert session is not None
    assert set(session.scopes) == {"read_station", *household(lab).scopes}


async def test_gateways_of_some_types_can_be_asked(lab: Lab) -> None:
    """gateway_types, at commas: they and what is behind them."""
    told = await home(lab, gateway_types="NAPlug,NBG")

    kinds = {each["type"] for each in told["modules"]}
    assert kinds == {"NAPlug", "NATherm1", "NRV", "NBG", "NBR", "NBO"}


async def test_homesdata_takes_a_json_body(lab: Lab) -> None:
    """Lists as lists; what is no JSON object is refused, and history takes a form alone."""
    bearer = {"Authorization": f"Bearer {lab.access}"}
    wanted = {"home_id": household(lab).home_id, "gateway_types": ["NAPlug", "NLG"]}

    good = await lab.http.post("/api/homesdata", json=wanted, headers=bearer)
    bad = await lab.http.post("/api/homesdata", json=["NAPlug"], headers=bearer)
    history = await lab.http.post("/api/getmeasure", json={"scale": "max"}, headers=bearer)

    (told,) = good.json()["body"]["homes"]
    roots = {each["type"] for each in told["modules"] if "bridge" not in each}
    assert roots == {"NAPlug", "NLG"}
    assert error(bad) == (400, 40)
    assert error(history) == (400, 10)


# --- how often something changes -----------------------------------------------------------------


def changes(lab: Lab, begin: int, end: int) -> dict[str, int]:
    """How often the discrete state of each entity differs from five minutes before."""
    numbers = {
        *("power", "therm_measured_temperature", "heating_power_request", "humidity"),
        *("last_seen", "last_activity", "battery_level", "outdoor_temperature", "sequence_id"),
    }
    found: dict[str, int] = {}
    last: dict[str, Any] = {}
    for moment in range(begin, end, 300):
        told = conditions.everything(household(lab), moment)
        for each in (*told["rooms"], *told["modules"], *told["persons"]):
            state = {key: value for key, value in each.items() if key not in numbers}
            if last.get(each["id"], state) != state:
                found[each["id"]] = found.get(each["id"], 0) + 1
            last[each["id"]] = state
    return found


async def test_a_big_home_changes_at_most_300_times_a_day(lab: Lab) -> None:
    """5 valves and more, 3 cameras, 20 meters, faces, a door: as one would count documents."""
    days = 10
    found = changes(lab, NOW, NOW + days * DAY)

    assert 100 < sum(found.values()) / days <= 300
    moving = {*("NATherm1", "NACamDoorTag", "NACamera", "NLP", "NLV", "NBR", "NLLF", "NLF")}
    for kind in moving:
        assert found.get(only(lab, kind).id, 0) >= 2, kind
    rooms, persons = household(lab).warmed(), household(lab).persons
    for name in [*(each.id for each in rooms), *(each.id for each in persons)]:
        assert found[name] >= 2 * days


async def test_the_boiler_runs_as_long_as_can_be_computed(lab: Lab) -> None:
    """Second by second the same as boiler_on_seconds of the span."""
    for kind in ("NATherm1", "OTM", "BNS"):
        device = only(lab, kind)
        counted = sum(lives.boiler_on(device, each) for each in range(NOW, NOW + 20_000))
        assert counted == lives.boiler_on_seconds(device, NOW, NOW + 20_000)
        assert 0 < counted < 20_000


async def test_set_points_keep_local_time(lab: Lab) -> None:
    """A schedule begins at 06:00 and 22:00 by the clock of the home, whatever the season."""
    zone = ZoneInfo("Europe/Paris")
    room = household(lab).rooms[0]
    for day in range(0, 365, 7):
        _, mode, since, _ = lives.setpoint(room, zone, NOW + day * DAY)
        begun = datetime.fromtimestamp(since, zone)
        assert (begun.hour, begun.minute) in ((6, 0), (22, 0), (18, 0), (20, 0)), begun
        assert mode == "manual" if begun.hour == 18 else "schedule"


async def test_answers_do_not_depend_on_what_was_asked_before(lab: Lab, tmp_path: Path) -> None:
    """A second cloud of the same seed tells the same."""
    other = lab_of(tmp_path)
    await home(lab)
    async with other.http:
        await other.login()
        assert json.dumps(await status(other)) == json.dumps(await status(lab))
