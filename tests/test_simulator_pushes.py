"""Pushes of the simulator: what is sent when, and on request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from netatmo_ingestd.simulator import happenings, lives, pushes
from netatmo_ingestd.simulator.pushes import DEVICES, DISPLAY, EVENTS, TOPOLOGY, Home
from tests.clocks import START
from tests.hooked import Hooked, hooked, house

DAY = 86_400


@pytest.fixture
async def lab() -> AsyncIterator[Hooked]:
    async with hooked() as found:
        yield found


def seen(lab: Hooked) -> Home:
    """The home as its owner's login sees it."""
    scopes = (*house(lab).scopes, "read_station")
    return Home(house(lab), lab.station.home_name, lab.accounts[0].user_id, scopes)


# --- one push on request -------------------------------------------------------------------------


async def test_a_push_on_request_is_the_newest_of_its_type(lab: Hooked) -> None:
    """With its pictures at addresses that open now, and an id of its own each time."""
    await lab.register()
    (body,) = await lab.push("NACamera-person")
    (again,) = await lab.push("NACamera-person")

    newest = next(e for e in happenings.shown(house(lab), START) if e.type == "person")
    assert body["persons"][0]["id"] == newest.told["person_id"]
    assert body["message"] == newest.message
    assert body["camera_id"] == body["device_id"] == newest.device.id
    assert body["event_id"] != again["event_id"]
    with_picture = next(
        e
        for e in happenings.shown(house(lab), START)
        if e.type == "person" and not e.shots[0].filename
    )
    home, sign = seen(lab), lab.hooks.signer(next(iter(lab.hooks.lines.values())))
    address = pushes.event_body(home, with_picture, None, sign)["snapshot_url"]
    assert (await lab.http.get(address)).headers["content-type"] == "image/png"
    assert lab.receiver.bodies[1:] == [body, again]


@pytest.mark.parametrize(
    ("push_type", "fields"),
    [
        ("NOC-human", {"subevent_id", "event_id", "camera_id"}),
        ("NACamera-tag_open", {"module_id", "camera_id"}),
        ("NSD-smoke", {"sub_type", "event_id", "device_id"}),
        ("NDB-incoming_call", {"event_id", "event_type"}),  # there is no doorbell
        (DISPLAY, {"room_id", "mode", "temperature", "home", "event_type"}),
        (DEVICES, {"extra_params", "home_id", "device_id"}),
        (TOPOLOGY, {"home_id"}),
        ("home_event_changed", {"home_id"}),
        ("daily_summary", {"user_id"}),
    ],
)
async def test_each_type_on_request(lab: Hooked, push_type: str, fields: set[str]) -> None:
    """What happened or not, there is a body for it."""
    await lab.register()
    (body,) = await lab.push(push_type)

    assert body["push_type"] == push_type
    assert fields <= set(body)


async def test_fields_on_request(lab: Hooked) -> None:
    """They are added or changed, null takes one away; another home is not pushed."""
    await lab.register()
    wanted = {"sub_type": "auto", "user_id": None, "home_id": "other"}
    (body,) = await lab.push("NOC-light_mode", fields=wanted)

    assert (body["sub_type"], body["home_id"], "user_id" in body) == ("auto", "other", False)
    assert await lab.push("alert", home="nowhere") == []
    assert (await lab.http.post("/simulator/push", json={})).status_code == 400


async def test_a_push_on_request_tells_what_became_of_it(lab: Hooked) -> None:
    """The status of each call, 0 for silence, none for what was lost; by `home_id` for one home."""
    await lab.register()
    here = house(lab).home_id

    async def asked(home_id: str, status: int | None = 200) -> Any:
        lab.receiver.status = status
        sent = {"push_type": "NSD-smoke", "home_id": home_id}
        return (await lab.http.post("/simulator/push", json=sent)).json()

    assert (await asked(here))["statuses"] == [200]
    assert (await asked(here, 403))["statuses"] == [403]
    assert (await asked(here, None))["statuses"] == [0]
    assert await asked("nowhere") == {"sent": [], "statuses": []}
    await lab.arm("push_twice")
    assert (await asked(here))["statuses"] == [200, 200]


async def test_a_changed_topology_is_pushed(lab: Hooked) -> None:
    """As its fault begins and ends, for the home that it is about."""
    device = house(lab).devices[0]
    await lab.register()
    await lab.arm("renamed", module=device.id)
    await lab.arm("late", module=device.id)
    await lab.arm("renamed", module="70:ee:50:00:00:00")
    await lab.http.request("DELETE", "/simulator/faults")
    await lab.settle()

    told = [each for each in lab.receiver.bodies if each["push_type"] == TOPOLOGY]
    wanted = {"push_type": TOPOLOGY, "home_id": house(lab).home_id, "change": "device_updated"}
    assert told == [wanted, wanted]


# --- what is foreseen ----------------------------------------------------------------------------


def unsigned(_shot: object) -> str:
    return ""


def written(lab: Hooked, begin: float, end: float, kind: str) -> list[tuple[float, Any]]:
    due = pushes.between(lab.world, seen(lab), begin, end)
    return [(push.at, push.write(unsigned)) for push in due if push.kind == kind]


async def test_pieces_make_up_the_whole(lab: Hooked) -> None:
    """However two days are cut, even within an event, each push is in one piece; and in order."""
    begin, end = START - 3 * DAY, START - DAY
    whole = pushes.between(lab.world, seen(lab), begin, end)
    events = happenings.shown(house(lab), end, 2)
    within = [part.time for event in events for part in event.parts if part.offset]
    cuts = sorted([begin, begin + 1.5, begin + 5_000, begin + DAY, *within, end - 0.25, end])
    pieces = [
        push
        for one, other in pairwise(cuts)
        for push in pushes.between(lab.world, seen(lab), one, other)
    ]

    def told(found: list[pushes.Push]) -> list[str]:
        return sorted(json.dumps([each.at, each.write(unsigned)]) for each in found)

    assert told(pieces) == told(whole)
    assert [each.at for each in whole] == sorted(each.at for each in whole)
    assert {each.kind for each in whole} == {EVENTS, DISPLAY, DEVICES}


async def test_set_points_are_those_of_the_home(lab: Hooked) -> None:
    """Each manual one of eight days, in all rooms: since then it has been in force."""
    begin = START - 9 * DAY
    rooms = {room.id: room for room in house(lab).warmed()}
    told = written(lab, begin, begin + 8 * DAY, DISPLAY)

    assert {body["room_id"] for _, body in told} == set(rooms)
    assert len(told) == 2 * len(rooms)
    for at, body in told:
        (shown,) = body["home"]["rooms"]
        assert shown["therm_setpoint_temperature"] == body["temperature"]
        assert shown["therm_setpoint_start_time"] == at < shown["therm_setpoint_end_time"]
        assert (body["mode"], body["type"]) == ("manual", "setpoint_event")


async def test_values_are_those_of_the_home(lab: Hooked) -> None:
    """Boilers, rooms, sockets and stations; what is pushed is what the cloud shows then."""
    told = written(lab, START - 2 * DAY, START - DAY, DEVICES)
    extras = [(at, body["extra_params"]) for at, body in told]
    (thermostat,) = house(lab).of_type("NATherm1")
    boiler = [(at, e) for at, e in extras if e.get("event_type") == "boiler_event"]
    rooms = {room.id: room for room in house(lab).warmed()}
    lists = [e for _, e in extras if "modules" in e]
    wired = [e for e in lists if e.get("source") == "netcom"]

    assert len(boiler) in range(22, 27)
    for at, extra in boiler:
        assert lives.boiler_on(thermostat, at) == (extra["boiler_status"] == "boiler_on")
    for at, extra in extras:
        if extra.get("event_type") == "temperature_variation_event":
            assert extra["temperature"] == lives.temperature(rooms[extra["room_id"]], at)
    assert wired
    assert all(e["correlation_id"] > 2**63 for e in wired)
    names = {name for e in lists if e not in wired for m in e["modules"] for name in m}
    assert names == {"id", "temperature", "co2", "humidity", "noise_current", "pressure_sea"}
    assert not any("user_id" in body for _, body in told)


async def test_some_pushes_do_not_tell_whose_they_are(lab: Hooked) -> None:
    """Now and then user_id or home_id is missing, and a connection names no type of device."""
    told = [body for _, body in written(lab, START - 20 * DAY, START, EVENTS)]

    assert len({"user_id" in body for body in told}) == 2
    assert len({"home_id" in body for body in told}) == 2
    assert any("user_id" in body and "home_id" in body for body in told)
    assert {"connection", "disconnection"} & {body["push_type"] for body in told}
