"""Webhooks of the simulator: pyatmo registers one, and gets what it can read over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from pyatmo.exceptions import ApiError

from netatmo_ingestd.simulator import webhooks
from netatmo_ingestd.simulator.server import Plan, Running, running
from tests.contract.test_simulator import Client, PyatmoLogin, client
from tests.stores import until

pytestmark = pytest.mark.contract
__all__ = ["client"]  # a fixture


class Inbox:
    """A receiver on loopback: what came, as (signature, raw body)."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers["X-Netatmo-secret"], await request.read()))
        return web.Response()

    @property
    def types(self) -> list[str]:
        return [json.loads(raw)["push_type"] for _, raw in self.got]


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox, app = Inbox(), web.Application()
    app.router.add_post("/hook", inbox.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    inbox.url = f"http://{host}:{port}/hook"
    yield inbox
    await runner.cleanup()


@pytest.fixture
async def cloud() -> AsyncIterator[Running]:
    async with running(Plan(seed=7, stations=1, days=10, products=("security",))) as cloud:
        cloud.cloud.switches.pushes = ()
        yield cloud


async def test_pyatmo_registers_lists_and_drops(
    cloud: Running, client: Client, inbox: Inbox
) -> None:
    """In the newer form, over a limit of one, and without one it says so."""
    token = client.http.headers["Authorization"].removeprefix("Bearer ")
    async with aiohttp.ClientSession() as session:
        login: Any = PyatmoLogin(session, cloud.url, token)
        await login.async_addwebhook(inbox.url + "?old")
        await login.async_addwebhook(inbox.url)
        listed = await login.async_list_webhooks()
        await until(lambda: len(inbox.got) == 2)
        with pytest.raises(ApiError):
            await login.async_addwebhook("https://elsewhere.example/hook")
        await login.async_dropwebhook()
        left = await login.async_list_webhooks()

    assert listed == [inbox.url]
    assert left == []
    assert inbox.types == ["webhook_activation"] * 2


async def test_pushes_arrive_signed(cloud: Running, client: Client, inbox: Inbox) -> None:
    """What happens and what is asked for, with the secret of the app, over the bytes that came."""
    answer = await client.http.post("/webhooks/v1", json={"url": inbox.url})
    assert answer.json()["status"] == "ok"
    for push_type in ("NACamera-person", "NSD-smoke"):
        await client.http.post("/simulator/push", json={"push_type": push_type})
    await until(lambda: len(inbox.got) == 3)

    assert sorted(inbox.types) == ["NACamera-person", "NSD-smoke", "webhook_activation"]
    secret = str(cloud.greeting["client_secret"])
    assert all(told == webhooks.signature(secret, raw) for told, raw in inbox.got)


async def test_what_happens_is_pushed_by_itself(inbox: Inbox) -> None:
    """At 4,000 times real time: a home of everything has dozens of pushes within seconds."""
    products = ("energy", "security", "control")
    async with running(Plan(seed=7, speed=4_000, days=10, products=products)) as cloud:
        cloud.cloud.switches.pushes = ("device_event", "events")
        async with httpx.AsyncClient(base_url=cloud.url, timeout=10) as http:
            client = Client(cloud, http)
            await client.login()
            await http.post("/webhooks/v1", json={"url": inbox.url})
            await until(lambda: len(inbox.got) > 40, within=20)
            told = (await http.get("/simulator/webhooks")).json()

    assert "device_event" in inbox.types
    assert set(told["counts"]) == {"delivered"}
    assert [each["url"] for each in told["registered"]] == [inbox.url]
