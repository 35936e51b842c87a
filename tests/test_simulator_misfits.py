"""World faults of a home: what is wrong in the answers, and that it goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd.simulator.faults import HOUSEHOLD
from tests.households import body, by_id, home, household, ids, lab_of, only, read, status
from tests.labs import Lab, error


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = lab_of(tmp_path)
    async with lab.http:
        await lab.login()
        yield lab


async def both(lab: Lab) -> list[Any]:
    """The bodies of all that is told of a home; None where there is none."""
    names, home_id = ("homesdata", "homestatus"), household(lab).home_id
    answers = [await lab.get(name, home_id=home_id) for name in names]
    assert {each.status_code for each in answers} == {200}
    return [each.json().get("body") for each in answers]


@pytest.mark.parametrize("kind", sorted(HOUSEHOLD))
async def test_each_fault_changes_an_answer_and_goes_away(lab: Lab, kind: str) -> None:
    """Armed, an answer about the home is another; disarmed, both are as before."""
    before = await both(lab)

    await lab.arm(kind)
    during = await both(lab)
    await lab.http.delete("/simulator/faults", params={"kind": kind})
    after = await both(lab)

    assert during != before
    assert after == before


async def test_an_unreachable_gateway_takes_all_behind_it(lab: Lab) -> None:
    """Its modules are in the errors, not in the answer; its rooms say only that."""
    relay = only(lab, "NAPlug")
    silent = [each.id for each in household(lab).devices if each.gateway == relay.id]

    await lab.arm("unreachable", module=relay.id, code=19)
    told = await body(lab, "homestatus")

    assert told["errors"] == [{"code": 19, "id": each} for each in silent]
    assert not set(silent) & set(by_id(told["home"]["modules"]))
    rooms = by_id(told["home"]["rooms"])
    room = only(lab, "NRV").room_id or ""
    assert rooms[room] == {"id": room, "reachable": False}
    assert rooms[only(lab, "BNS").room_id or ""]["reachable"] is True


async def test_a_home_of_which_nothing_is_heard_has_only_its_id(lab: Lab) -> None:
    """Beside the errors; faces and weather are told by others."""
    await lab.arm("unreachable")
    told = await body(lab, "homestatus")

    assert len(told["errors"]) == len(household(lab).devices)
    assert "rooms" not in told["home"]
    assert {each["type"][:3] for each in told["home"]["modules"]} <= {"NAM"}


async def test_a_home_can_lose_its_modules(lab: Lab) -> None:
    """No modules in homesdata, no body in homestatus; other homes keep theirs."""
    await lab.arm("no_modules", module=household(lab).home_id)
    told = (await lab.get("homesdata")).json()["body"]["homes"]
    answer = (await lab.get("homestatus", home_id=household(lab).home_id)).json()

    assert ["modules" in each for each in told] == [False, True]
    assert "body" not in answer


@pytest.mark.parametrize(
    ("variant", "left"),
    [
        ("empty", {}),
        ("no_id", {"rooms", "modules", "persons"}),
        ("bare", {"id"}),
        ("rooms", {"id", "modules", "persons"}),
        ("modules", {"id", "rooms", "persons"}),
        ("persons", {"id", "rooms", "modules"}),
    ],
)
async def test_parts_of_homestatus_can_be_absent(lab: Lab, variant: str, left: Any) -> None:
    await lab.arm("odd_status", variant=variant)
    told = await body(lab, "homestatus")

    assert set(told.get("home", {})) == set(left)
    assert ("home" in told) == (variant != "empty")


async def test_a_module_moves_with_all_that_says_where_it_is(lab: Lab) -> None:
    """Its own room_id, and the lists of the room it left and of the one it came to."""
    valve = only(lab, "NRV")
    other = household(lab).rooms[-1].id

    await lab.arm("moved", module=valve.id, room=other)
    told = await home(lab)

    rooms = by_id(told["rooms"])
    assert by_id(told["modules"])[valve.id]["room_id"] == other
    assert valve.id in rooms[other]["module_ids"]
    assert valve.id not in rooms[valve.room_id or ""].get("module_ids", [])
    assert valve.room_id not in by_id((await status(lab))["rooms"])


@pytest.mark.parametrize("where", ["homesdata", "homestatus"])
async def test_a_room_can_be_in_one_answer_alone(lab: Lab, where: str) -> None:
    room = only(lab, "NATherm1").room_id or ""

    await lab.arm("lone_room", module=room, where=where)
    told = by_id((await home(lab))["rooms"]), by_id((await status(lab))["rooms"])

    assert (room in told[0], room in told[1]) == (where == "homesdata", where == "homestatus")
    assert all(set(each) - {room} for each in told)


async def test_names_schedules_and_fields_can_be_missing(lab: Lab) -> None:
    thermostat = only(lab, "NATherm1").id
    await lab.arm("no_name", module=thermostat)
    await lab.arm("no_schedules")
    await lab.arm("missing", module=thermostat, keys=["reachable", "boiler_status"])

    told, now = await home(lab), by_id((await status(lab))["modules"])

    assert "name" not in by_id(told["modules"])[thermostat]
    assert "schedules" not in told
    assert told["therm_mode"] == "schedule"
    assert not {"reachable", "boiler_status"} & set(now[thermostat])
    assert "battery_level" in now[thermostat]


async def test_unknown_types_fields_and_values(lab: Lab) -> None:
    """Each on the device that is named, in both answers where it has that field."""
    valve, tag, meter = (only(lab, kind).id for kind in ("NRV", "NACamDoorTag", "NLPC"))
    await lab.arm("unknown_type", module=valve, type="NRV9")
    await lab.arm("unknown_field", module=meter, field="cos_phi", value=0.97)
    await lab.arm("unknown_value", module=tag, field="status", value="ajar")

    now = by_id((await status(lab))["modules"])
    topology, state = await read(lab)

    assert (now[valve]["type"], now[tag]["status"], now[meter]["cos_phi"]) == ("NRV9", "ajar", 0.97)
    assert "status" not in by_id((await home(lab))["modules"])[tag]
    # The daemon calls it news, and loses no device over it.
    assert all(each.drift for each in (*topology.problems, *state.problems))
    assert state.problems
    assert {each.id for each in household(lab).devices} <= ids(topology) & ids(state)


@pytest.mark.parametrize("kind", ["NRV", "NACamera", "NLPC", "NBR", "NLY"])
async def test_garbage_costs_no_neighbour(lab: Lab, kind: str) -> None:
    """Every field but the id is of another kind, by turns, on it and what is behind it; all others
    are told as before.
    """
    device = only(lab, kind)
    spoiled = {d.id for d in household(lab).devices if device.id in (d.id, d.gateway)}
    before = by_id((await status(lab))["modules"])
    seen = set()
    for shift in range(10):
        await lab.arm("garbled", module=device.id, shift=shift)
        now = by_id((await status(lab))["modules"])
        _, state = await read(lab)
        await lab.http.delete("/simulator/faults")

        assert {k: v for k, v in now.items() if k not in spoiled} == {
            k: v for k, v in before.items() if k not in spoiled
        }
        assert set(now[device.id]) == set(before[device.id])
        seen.add(repr(now[device.id]))
        assert {each.id for each in household(lab).devices} <= ids(state)
    assert len(seen) == 10


@pytest.mark.parametrize("which", ["room", "person"])
async def test_rooms_and_persons_are_spoiled_by_name(lab: Lab, which: str) -> None:
    """A fault that names one changes it; its neighbours are as before."""
    home_of = household(lab)
    victim = only(lab, "NRV").room_id if which == "room" else home_of.persons[0].id
    before = (await status(lab))[f"{which}s"]

    await lab.arm("garbled", module=victim)
    after = (await status(lab))[f"{which}s"]

    changed = [new["id"] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [victim]


async def test_a_vanished_device_has_no_history_either(lab: Lab) -> None:
    """Neither answer lists it, and its meter is not found."""
    meter = only(lab, "NLPC")
    asked = {"device_id": meter.gateway, "module_id": meter.id, "scale": "1hour"}
    there = await lab.get("getmeasure", **asked, type="sum_energy_buy_from_grid$1")

    await lab.arm("vanished", module=meter.id)
    gone = await lab.get("getmeasure", **asked, type="sum_energy_buy_from_grid$1")

    assert there.status_code == 200
    assert error(gone) == (404, 9)
    assert meter.id not in by_id((await home(lab))["modules"])
    assert meter.id not in by_id((await status(lab))["modules"])
