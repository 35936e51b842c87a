"""Homes of the simulator: the recorded fields, and pyatmo reads heating, security and wiring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import aiohttp
import pyatmo
import pytest

from netatmo_ingestd.simulator import conditions, lives
from netatmo_ingestd.simulator.household import Household
from netatmo_ingestd.simulator.server import Plan, Running, running
from tests.contract.test_simulator import Client, PyatmoLogin, client, kind_of, recorded

pytestmark = pytest.mark.contract
__all__ = ["client"]  # a fixture

EVERYTHING = """
[[homes]]
heating = ["thermostat", "modulating", "smarther", "air"]
valves = 2
cameras = 3
meters = 9
lines = 9
strangers = 1
"""
HOMES = ("pyatmo/homesdata.json", "gladys/netatmo.homesdata.mock.test.json")
STATES = (
    "pyatmo/home_status_simple.json",
    "pyatmo/home_status_error_and_data.json",
    "gladys/netatmo.homestatus.mock.test.json",
    "gladys/getHomeStatus.json",
)
# What the simulator tells by the reference (3.6, 7.5, 7.6), and none of these few recordings.
BY_REFERENCE = {
    "room": {f"auto_setpoint_{each}" for each in ("temperature", "mode", "start_time", "end_time")}
    | {"humidity"},
    "NACamera": {"connection", "homekit_status"},
    "NACamDoorTag": {"reachable"},
    "NAModule3": {"ts"},
}
Json = Any


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Running]:
    file = tmp_path / "homes.toml"
    file.write_text(EVERYTHING)
    async with running(Plan(seed=7, days=30, scenario=file)) as cloud:
        limits = cloud.cloud.quotas.limits
        limits.account_10s = limits.account_hour = 10_000
        yield cloud


@pytest.fixture
async def account(cloud: Running, client: Client) -> AsyncIterator[pyatmo.AsyncAccount]:
    token = client.http.headers["Authorization"].removeprefix("Bearer ")
    async with aiohttp.ClientSession() as session:
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, token))
        await account.async_update_topology()
        yield account


def household(cloud: Running) -> Household:
    (found,) = cloud.cloud.world.households.values()
    return found


async def test_pyatmo_reads_the_topology(cloud: Running, account: pyatmo.AsyncAccount) -> None:
    """Every room, device, face and weather module, by id, type, name and place."""
    home = account.homes[household(cloud).home_id]

    devices = {each.id: each for each in household(cloud).devices}
    assert set(home.modules) == set(devices) | set(cloud.cloud.world.by_id)
    for device_id, device in devices.items():
        seen = home.modules[device_id]
        assert (seen.device_type.value, seen.name) == (device.type, device.name)
        assert (seen.bridge, seen.room_id) == (device.bridge, device.room_id)
    assert {each.id: each.name for each in household(cloud).rooms} == {
        room_id: room.name for room_id, room in home.rooms.items()
    }
    assert {each.id: each.name or None for each in household(cloud).persons} == {
        person_id: person.pseudo for person_id, person in home.persons.items()
    }
    kinds = sorted(str(each.type) for each in home.schedules.values())
    assert kinds == ["electricity", "therm"]


async def test_pyatmo_reads_the_state(cloud: Running, account: pyatmo.AsyncAccount) -> None:
    """What pyatmo knows of rooms, thermostats, meters and shutters is what the home does."""
    clock, mine = cloud.cloud.clock, household(cloud)
    before = clock.time()
    await account.async_update_status(mine.home_id)
    after = clock.time()
    home = account.homes[mine.home_id]

    told = [conditions.everything(mine, at) for at in (before, after)]
    for part in zip(*(each["rooms"] for each in told), strict=True):
        room = cast("Any", home.rooms[part[0]["id"]])
        assert room.reachable is True
        assert room.therm_measured_temperature in [p["therm_measured_temperature"] for p in part]
        if "therm_setpoint_temperature" in part[0]:
            mode = [each["therm_setpoint_mode"] for each in part]
            assert room.therm_setpoint_mode in mode
    read = 0
    for part in zip(*(each["modules"] for each in told), strict=True):
        module = cast("Any", home.modules[part[0]["id"]])
        for key in ("boiler_status", "power", "on", "current_position", "monitoring", "brightness"):
            if key in part[0] and hasattr(module, key):
                seen = {True: "on", False: "off"} if key == "monitoring" else {}
                value = getattr(module, key)
                assert seen.get(value, value) in [each[key] for each in part], (module, key)
                read += 1
    assert read > 20


async def test_pyatmo_takes_an_unreachable_relay_for_what_it_is(
    cloud: Running, client: Client, account: pyatmo.AsyncAccount
) -> None:
    """All that is behind it is unreachable; what is not stays as it was."""
    mine = household(cloud)
    (relay,) = mine.of_type("NAPlug")
    await account.async_update_status(mine.home_id)
    await client.arm("unreachable", module=relay.id)

    await account.async_update_status(mine.home_id)

    home = account.homes[mine.home_id]
    silent = [each for each in mine.devices if each.gateway == relay.id]
    assert len(silent) == 4
    assert not any(cast("Any", home.modules[each.id]).reachable for each in silent)
    (gateway,) = mine.of_type("NLG")
    assert cast("Any", home.modules[gateway.id]).reachable


@pytest.mark.parametrize("kind", ["NLPC", "NLP", "NLY"])
async def test_pyatmo_sums_a_meter_as_the_simulator_does(
    cloud: Running, account: pyatmo.AsyncAccount, kind: str
) -> None:
    """The energy of a day by its own bookkeeping: peak and off-peak, and their sum."""
    mine, world = household(cloud), cloud.cloud.world
    meter = mine.of_type(kind)[0]
    begin = (int(cloud.cloud.clock.time()) - 2 * 86_400) // 86_400 * 86_400
    await account.async_update_measures(
        mine.home_id, meter.id, start_time=begin, end_time=begin + 86_400 - 1
    )

    halves = range(begin // lives.HALF, begin // lives.HALF + 48)
    rows = [lives.energy(meter, ZoneInfo(mine.zone), half, world.contract) for half in halves]
    module = cast("Any", account.homes[mine.home_id].modules[meter.id])
    assert module.sum_energy_elec_peak == sum(row[1] or 0 for row in rows)
    assert module.sum_energy_elec_off_peak == sum(row[2] or 0 for row in rows)
    assert module.sum_energy_elec == sum(sum(filter(None, row)) for row in rows)


async def test_pyatmo_reads_the_history_of_every_meter(
    cloud: Running, account: pyatmo.AsyncAccount
) -> None:
    """Whatever has energy and a gateway: no call fails. Of an Ecometer the lines; pyatmo names no
    device when it asks for the base, which measures nothing.
    """
    mine = household(cloud)
    asked = 0
    for device in mine.devices:
        module = account.homes[mine.home_id].modules[device.id]
        if device.bridge and module.has_feature("historical_data"):
            await account.async_update_measures(mine.home_id, device.id)
            asked += 1
    assert asked >= 12


async def test_room_history_answers_at_every_scale(cloud: Running, client: Client) -> None:
    """getroommeasure as pyatmo's users ask it: both shapes, all scales of the reference."""
    mine = household(cloud)
    for room in mine.warmed():
        for scale in ("30min", "1hour", "3hours", "1day", "1week", "1month"):
            params = {"home_id": mine.home_id, "room_id": room.id, "scale": scale}
            types = "temperature,sp_temperature,min_temp,max_temp"
            body = await client.body("getroommeasure", **params, type=types)
            assert body[0]["value"][0][0] is not None
            plain = await client.body("getroommeasure", **params, type=types, optimize="false")
            assert all(len(row) == 4 for row in plain.values())


# --- field by field ------------------------------------------------------------------------------


def shapes(value: Json) -> Iterator[tuple[str, Json]]:
    """(kind, object) of each room, module, person and schedule; a module's kind is its type."""
    home = value.get("home") or {}
    for each in value.get("homes", [home]):
        for room in each.get("rooms", ()):
            yield "room", room
        for person in each.get("persons", ()):
            yield "person", person
        for module in each.get("modules", ()):
            part = "#" if "#" in module["id"] else ""
            yield f"{module['type']}{part}", module
        for schedule in each.get("schedules", ()):
            yield f"schedule {schedule.get('type')}", schedule


def kinds(value: Json) -> dict[str, dict[str, set[str]]]:
    """kind -> field -> JSON types that were seen."""
    found: dict[str, dict[str, set[str]]] = {}
    for kind, fields in shapes(value):
        for key, each in fields.items():
            found.setdefault(kind, {}).setdefault(key, set()).add(kind_of(each))
    return found


@pytest.mark.parametrize("method", ["homesdata", "homestatus"])
async def test_fields_have_the_recorded_types(cloud: Running, client: Client, method: str) -> None:
    """Where a recording has a field of a kind that the simulator tells, its type is the same."""
    home = {"home_id": household(cloud).home_id}
    ours = kinds(await client.body(method, **home))
    theirs: dict[tuple[str, str], set[str]] = {}
    for path in HOMES if method == "homesdata" else STATES:
        body = recorded(path)
        for kind, fields in kinds(body.get("body", body)).items():
            for key, seen in fields.items():
                theirs.setdefault((kind, key), set()).update(seen)

    both = [each for each in theirs if each[1] in ours.get(each[0], {})]
    wrong = [each for each in both if not ours[each[0]][each[1]] <= theirs[each]]
    assert wrong == []
    assert len(both) > 40, len(both)


async def test_fields_are_those_of_recordings_or_of_the_reference(
    cloud: Running, client: Client
) -> None:
    """Of a kind that was recorded, the simulator tells no field that no recording has."""
    home = {"home_id": household(cloud).home_id}
    ours = kinds(await client.body("homestatus", **home))
    theirs: dict[str, set[str]] = {}
    for path in STATES:
        body = recorded(path)
        for kind, fields in kinds(body.get("body", body)).items():
            theirs.setdefault(kind, set()).update(fields)

    new = {
        kind: unknown
        for kind in ours.keys() & theirs.keys()
        if (unknown := set(ours[kind]) - theirs[kind] - BY_REFERENCE.get(kind, set()))
    }
    assert new == {}
