"""Security events of the simulator: the documented fields, and pyatmo reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import httpx
import pyatmo
import pytest

from netatmo_ingestd.simulator import happenings
from netatmo_ingestd.simulator.server import Plan, Running, running
from tests.contract.test_simulator import Client, PyatmoLogin, client, kind_of

pytestmark = pytest.mark.contract
__all__ = ["client"]  # a fixture

ADDRESS = "https://netatmocameraimage.blob.core.windows.net/production/cccc3333?sig=SYNTHETIC"
SNAPSHOT = {"url": ADDRESS, "expires_at": 1760000600}
VIDEO = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
ON_CARD = {"filename": "vod/0b1c2d3e/events/a1b2c3d4-0002/snapshot_a1b2c3d4-0002.jpg"}
OWN_EVENTS: list[Any] = [
    {
        "id": "68e76a0f1c2d3e4f50617281",
        "type": "person",
        "time": 1759998991,
        "module_id": "70:ee:50:01:04:01",
        "person_id": "8f7c2b1a-0d3e-4f5a-9b8c-7d6e5f4a3b2c",
        "is_arrival": True,
        "out_of_sight": False,
        "video_id": VIDEO,
        "video_status": "available",
        "snapshot": SNAPSHOT,
        "message": "<b>Ana</b> seen",
    },
    {
        "id": "68e769001c2d3e4f50617280",
        "type": "movement",
        "category": "human",
        "time": 1759998720,
        "module_id": "70:ee:50:01:04:01",
        "message": "Motion detected",
    },
    {
        "id": "68e767aa1c2d3e4f5061727f",
        "type": "outdoor",
        "time": 1759998378,
        "module_id": "70:ee:50:01:04:03",
        "video_id": VIDEO,
        "video_status": "recording",
        "subevents": [
            {
                "id": "a1b2c3d4-0001-4aaa-8bbb-0123456789ab",
                "type": "human",
                "time": 1759998378,
                "verified": True,
                "offset": 0,
                "snapshot": SNAPSHOT,
                "vignette": SNAPSHOT,
                "message": "Person detected",
            },
            {
                "id": "a1b2c3d4-0002-4aaa-8bbb-0123456789ab",
                "type": "vehicle",
                "time": 1759998391,
                "verified": True,
                "offset": 13,
                "snapshot": ON_CARD,
                "vignette": ON_CARD,
                "message": "Car detected",
            },
        ],
    },
    {
        "id": "68e750001c2d3e4f5061727e",
        "type": "smoke",
        "sub_type": 1,
        "time": 1759992000,
        "module_id": "70:ee:50:01:04:05",
        "message": "Smoke detected",
    },
]


@pytest.fixture
async def cloud() -> AsyncIterator[Running]:
    async with running(Plan(seed=7, stations=1, days=30, products=("security",))) as cloud:
        yield cloud


async def test_pyatmo_reads_the_events_of_every_camera(cloud: Running, client: Client) -> None:
    """A client that others wrote sees the newest events by id, type, time and device."""
    (household,) = cloud.cloud.world.households.values()
    token = client.http.headers["Authorization"].removeprefix("Bearer ")
    async with aiohttp.ClientSession() as session:
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, token))
        await account.async_update_topology()
        await account.async_update_events(household.home_id)

    now = cloud.cloud.clock.time()
    page = {each.id: each for each in list(happenings.shown(household, now))[:31]}
    home = account.homes[household.home_id]
    assert len(home.events) == 30
    for event_id, seen in home.events.items():
        event = page[event_id]
        assert (seen.entity_id, str(seen.event_type)) == (event.id, event.type)
        assert (seen.event_time, seen.module_id) == (event.time, event.device.id)
        assert len(seen.subevents or ()) <= len(event.parts)
        if event.type == "person":
            assert seen.person_id == event.told["person_id"]
    for camera in household.of_type("NACamera", "NOC"):
        module = cast("Any", home.modules[camera.id])
        seen_there = {each.entity_id for each in module.events}
        assert seen_there == {e for e in home.events if page[e].device.id == camera.id}


async def test_a_picture_is_fetched_from_the_clouds_own_host(
    cloud: Running, client: Client
) -> None:
    """At the address by which the cloud was asked, without a token."""
    body = await client.body("getevents", home_id=next(iter(cloud.cloud.world.households)))
    shown = [each["snapshot"] for each in body["home"]["events"] if "snapshot" in each]
    url = next(each["url"] for each in shown if "url" in each)

    async with httpx.AsyncClient() as http:
        answer = await http.get(url)

    assert url.startswith(f"{cloud.url}/pictures/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


async def test_events_have_the_fields_of_our_own_case(cloud: Running, client: Client) -> None:
    """All fields of the documented examples are there, with their types, and hardly any other."""
    home_id = next(iter(cloud.cloud.world.households))
    ours = shapes((await client.body("getevents", home_id=home_id, size=2_000))["home"]["events"])
    theirs = shapes(OWN_EVENTS)

    assert {name: ours.get(name) for name in theirs} == theirs
    assert set(ours) - set(theirs) == {
        "camera_id",
        "vignette url",
        "vignette expires_at",
        "vignette filename",
        "snapshot filename",
    }


def shapes(events: list[Any]) -> dict[str, set[str]]:
    """Types of each field, those of sub-events and pictures under two words."""
    found: dict[str, set[str]] = {}

    def note(prefix: str, things: dict[str, Any]) -> None:
        for name, value in things.items():
            if name in ("snapshot", "vignette"):
                note(f"{prefix}{name} ", value)
            elif name == "subevents":
                for part in value:
                    note("part ", part)
            else:
                found.setdefault(f"{prefix}{name}", set()).add(kind_of(value))

    for event in events:
        note("", event)
    return found
