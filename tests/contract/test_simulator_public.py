"""The simulated weather map beside a client that others wrote, and our own reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pyatmo
import pytest

from netatmo_ingestd.models import Entity, Measurement
from netatmo_ingestd.polls import Poll, Reply
from netatmo_ingestd.simulator.server import Plan, Running, running
from netatmo_ingestd.sources.public import PUBLIC, parse_public
from tests.contract.test_simulator import PyatmoLogin, pyatmo_token

pytestmark = pytest.mark.contract

CORNERS: Any = {"lat_ne": "47.3", "lon_ne": "-1.4", "lat_sw": "47.1", "lon_sw": "-1.65"}


@pytest.fixture
async def cloud() -> AsyncIterator[Running]:
    async with running(Plan(seed=7, stations=1, days=30)) as cloud:
        yield cloud


async def body_of(session: aiohttp.ClientSession, cloud: Running, token: str) -> Any:
    url, headers = f"{cloud.url}/api/getpublicdata", {"Authorization": f"Bearer {token}"}
    async with session.get(url, params=CORNERS, headers=headers) as answer:
        return await answer.json()


async def test_pyatmo_reads_the_map(cloud: Running) -> None:
    """A client that others wrote finds every quantity of every station, as it was sent."""
    async with aiohttp.ClientSession() as session:
        token = await pyatmo_token(session, cloud)
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, token))
        area_id = account.register_public_weather_area(**CORNERS)
        await account.async_update_public_weather(area_id)
        sent = (await body_of(session, cloud, token))["body"]

    area = account.public_weather_areas[area_id]
    ids = {each["_id"] for each in sent}
    assert area.stations_in_area() == len(ids) > 4
    assert set(area.get_latest_pressures()) == ids
    assert set(area.get_latest_temperatures()) == set(area.get_latest_humidities()) == ids
    raining = {each["_id"] for each in sent if "NAModule3" in each["module_types"].values()}
    blowing = {each["_id"] for each in sent if "NAModule2" in each["module_types"].values()}
    assert raining
    assert blowing
    for rain in (area.get_latest_rain(), area.get_60_min_rain(), area.get_24_h_rain()):
        assert set(rain) == raining
    for wind in (area.get_latest_wind_strengths(), area.get_latest_gust_angles()):
        assert set(wind) == blowing


async def test_we_read_what_pyatmo_reads(cloud: Running) -> None:
    """Each module of the answer becomes one row, each station one description."""
    async with aiohttp.ClientSession() as session:
        answer = await body_of(session, cloud, await pyatmo_token(session, cloud))

    server = datetime.fromtimestamp(answer["time_server"], UTC)
    parsed = parse_public(
        Reply(answer["body"], server, server, b""), Poll(PUBLIC.endpoints[0], "home")
    )

    assert list(parsed.problems) == []
    stations = [each.entity_id for each in parsed.records if isinstance(each, Entity)]
    rows = [each.module_id for each in parsed.records if isinstance(each, Measurement)]
    assert sorted(stations) == sorted(each["_id"] for each in answer["body"])
    assert sorted(rows) == sorted(name for each in answer["body"] for name in each["measures"])
