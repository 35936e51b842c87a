"""Keeping the webhook registered: both forms of the cloud, its limit, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from netatmo_ingestd.client import Client, open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ApiError, ApiRefused, LoginRequired
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Token
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.settings import WebhookSettings
from netatmo_ingestd.web import register as module
from netatmo_ingestd.web.register import (
    Registered,
    Registrar,
    full_url,
    register,
    registered,
    remove,
    secret_path,
)
from tests.clocks import HandClock
from tests.stores import until
from tests.test_webhook import Log

OURS, THEIRS = "https://home.example/webhook/a-secret-path-of-ours", "https://other.example/x"


class Tokens:
    def __init__(self) -> None:
        self.lost = False

    async def current(self) -> Token:
        if self.lost:
            raise LoginRequired("account ben: there is no login", account="ben")
        return Token("access", "refresh", 2e9, 10_800, ("read_station",), 1)

    async def renew(self, refused: int, /) -> Token:
        raise AssertionError(refused)


class Cloud:
    """The webhook of one login, behind respx.

    rest     whether the newer form is served
    stuck    the newer form says "limit reached" whatever was deleted
    broken   it answers with HTTP 500
    refusal  given to every registration
    """

    def __init__(self, router: respx.Router, *, rest: bool = True) -> None:
        self.rest = rest
        self.stuck = self.broken = False
        self.refusal: httpx.Response | None = None
        self.url = ""
        self.calls: list[str] = []
        router.route(host="api.netatmo.com").mock(side_effect=self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer access"
        name = request.url.path.rpartition("/")[2]
        self.calls.append(request.method if name == "v1" else name)
        if self.broken:
            return httpx.Response(500)
        if request.url.path == "/webhooks/v1":
            return self._rest(request) if self.rest else refusal(404, 404, "nothing here")
        if name == "addwebhook":
            self.url = request.url.params["url"]
            return self.refusal or httpx.Response(200, json={"status": "ok"})
        assert request.url.path == "/api/dropwebhook"
        if not self.url:
            return refusal(406, 7, "Nothing to drop")
        self.url = ""
        return httpx.Response(200, json={"status": "ok"})

    def _rest(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            body = [{"url": self.url}] if self.url else []
            return httpx.Response(200, json={"status": "ok", "body": body})
        if request.method == "DELETE":
            self.url = ""
            return httpx.Response(204)
        if self.refusal:
            return self.refusal
        if self.url or self.stuck:
            return refusal(409, "WH009", "webhook limit reached")
        self.url = json.loads(request.content)["url"]
        return httpx.Response(201)


def refusal(status: int, code: int | str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": message}})


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_http() as http:
        yield a_client(http, tmp_path, HandClock(auto=True))


def a_client(http: httpx.AsyncClient, folder: Path, clock: Clock, name: str = "ana") -> Client:
    budget = Budget(folder, name, per_hour=400, per_10s=50, app_per_hour=2000, clock=clock)
    return Client(
        account=name,
        provider=NETATMO,
        http=http,
        tokens=Tokens(),
        budget=budget,
        clock=clock,
        rng=random.Random(7),
    )


# --- the calls ------------------------------------------------------------------------------------


async def test_the_newer_form(client: Client, respx_mock: respx.Router) -> None:
    """POST, GET and DELETE of /webhooks/v1; answers without a body are fine."""
    cloud = Cloud(respx_mock)

    assert await registered(client) == ()
    await register(client, OURS)
    assert await registered(client) == (OURS,)
    await remove(client)

    assert cloud.url == ""
    assert cloud.calls == ["GET", "POST", "GET", "DELETE"]


async def test_the_limit_is_one(client: Client, respx_mock: respx.Router) -> None:
    """409 WH009: what is there is deleted, and ours posted once more; again is an error."""
    cloud = Cloud(respx_mock)
    cloud.url = THEIRS

    await register(client, OURS)
    assert cloud.url == OURS
    assert cloud.calls == ["POST", "DELETE", "POST"]
    cloud.stuck = True
    with pytest.raises(ApiRefused, match="WH009") as caught:
        await register(client, OURS)

    assert (caught.value.status, caught.value.code) == (409, "WH009")
    assert cloud.calls[3:] == ["POST", "DELETE", "POST"]


async def test_the_older_form(client: Client, respx_mock: respx.Router) -> None:
    """Where the newer one is not served, addwebhook and dropwebhook do; nothing to drop is fine."""
    cloud = Cloud(respx_mock, rest=False)

    assert await registered(client) is None
    await register(client, OURS)
    assert cloud.url == OURS
    await remove(client)
    await remove(client)

    assert cloud.url == ""
    assert [name for name in cloud.calls if name.endswith("webhook")] == [
        "addwebhook",
        "dropwebhook",
        "dropwebhook",
    ]


async def test_a_refusal_is_an_error(client: Client, respx_mock: respx.Router) -> None:
    """What is no sign of the other form is raised, and nothing else is tried."""
    cloud = Cloud(respx_mock)
    cloud.refusal = refusal(400, 21, "Invalid url parameter")

    with pytest.raises(ApiRefused, match="Invalid url parameter"):
        await register(client, OURS)
    cloud.broken = True
    for call in (registered(client), remove(client), register(client, OURS)):
        with pytest.raises(ApiError) as caught:
            await call
        assert caught.value.status == 500

    assert cloud.calls[:1] == ["POST"]
    assert set(cloud.calls) == {"POST", "GET", "DELETE"}


@pytest.mark.parametrize("body", [None, {}, "x", [1, {}, {"url": 5}, {"url": OURS}]])
async def test_an_odd_list_is_read(client: Client, respx_mock: respx.Router, body: Any) -> None:
    """What is no address in the answer is none."""
    respx_mock.route().mock(return_value=httpx.Response(200, json={"status": "ok", "body": body}))

    assert await registered(client) == ((OURS,) if isinstance(body, list) else ())


# --- what is kept ---------------------------------------------------------------------------------


def test_the_secret_path_is_made_once(tmp_path: Path) -> None:
    """Kept in the state folder for its owner alone; one of the settings goes before it."""
    settings = WebhookSettings(url="https://home.example/netatmo/")

    first = secret_path(tmp_path, settings)

    assert len(first) >= 16
    assert secret_path(tmp_path, settings) == first
    assert stat.S_IMODE((tmp_path / "webhook.path").stat().st_mode) == 0o600
    assert full_url(settings, first) == f"https://home.example/netatmo/webhook/{first}"
    named = WebhookSettings.model_validate({"url": "https://x.example", "path": "0123456789abcdef"})
    assert secret_path(tmp_path, named) == "0123456789abcdef"


# --- keeping it so --------------------------------------------------------------------------------


class Keeper:
    """A registrar that runs some thousand times as fast."""

    def __init__(self, folder: Path, http: httpx.AsyncClient, names: tuple[str, ...]) -> None:
        self.clock = Clock(time.time(), 20_000.0)
        self.log = Log()
        self.folders = {name: folder / name for name in names}
        self.clients = {name: a_client(http, folder, self.clock, name) for name in names}

    @asynccontextmanager
    async def runs(self, url: str = OURS) -> AsyncIterator[Registrar]:
        registrar = Registrar(
            url=url,
            clients=self.clients,
            folders=self.folders,
            clock=self.clock,
            log=self.log,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(registrar.run(stop))
        try:
            yield registrar
        finally:
            stop.set()
            await asyncio.wait_for(task, 5)

    def events(self) -> list[str]:
        return [event for event, _ in self.log.lines]


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    async with open_http() as http:
        yield Keeper(tmp_path, http, ("ana",))


async def test_it_is_registered_and_again_when_gone(
    keeper: Keeper, respx_mock: respx.Router
) -> None:
    """At start, and at a later look at which it is not there any more."""
    cloud = Cloud(respx_mock)

    async with keeper.runs() as registrar:
        await until(lambda: registrar.standing["ana"].registered)
        assert cloud.url == OURS
        await until(lambda: cloud.calls.count("GET") >= 3)
        assert cloud.calls.count("POST") == 1
        cloud.url = ""
        await until(lambda: cloud.url == OURS)
        await until(lambda: keeper.events().count("webhook.registered") == 2)

    assert [fields["again"] for _, fields in keeper.log.lines] == [False, True]
    assert Registered(keeper.folders["ana"]).url() == OURS


async def test_a_start_registers_anew(keeper: Keeper, respx_mock: respx.Router) -> None:
    """An address that did not answer while the daemon was down may be suspended."""
    cloud = Cloud(respx_mock)
    cloud.url = OURS

    async with keeper.runs() as registrar:
        await until(lambda: registrar.standing["ana"].registered)

    assert cloud.calls[:3] == ["GET", "DELETE", "POST"]
    assert keeper.events() == ["webhook.registered"]


async def test_another_address_is_replaced_and_told(
    keeper: Keeper, respx_mock: respx.Router
) -> None:
    """The other one's host is told, not its path; an older one of ours is replaced in silence."""
    cloud = Cloud(respx_mock)
    cloud.url = THEIRS

    async with keeper.runs() as registrar:
        await until(lambda: registrar.standing["ana"].registered)
    async with keeper.runs("https://new.example/webhook/another-secret-path") as registrar:
        await until(lambda: registrar.standing["ana"].registered)

    assert cloud.url.startswith("https://new.example/")
    replaced = [fields for event, fields in keeper.log.lines if event == "webhook.replaced"]
    assert replaced == [{"account": "ana", "hosts": ["other.example"]}]


async def test_without_the_setting_it_goes(keeper: Keeper, respx_mock: respx.Router) -> None:
    """What an earlier run registered is removed once; nothing is asked when there was nothing."""
    cloud = Cloud(respx_mock)
    async with keeper.runs() as registrar:
        await until(lambda: registrar.standing["ana"].registered)

    async with keeper.runs(""):
        await until(lambda: cloud.url == "")
    asked = len(cloud.calls)
    async with keeper.runs(""):
        await asyncio.sleep(0.05)

    assert keeper.events()[-1] == "webhook.removed"
    assert len(cloud.calls) == asked
    assert Registered(keeper.folders["ana"]).url() == ""


async def test_trouble_is_told_once_and_tried_again(
    keeper: Keeper, respx_mock: respx.Router
) -> None:
    """A refusal says what to look at; when it is over, it is registered."""
    cloud = Cloud(respx_mock)
    cloud.refusal = refusal(400, 21, "Invalid url parameter")

    async with keeper.runs() as registrar:
        await until(lambda: cloud.calls.count("POST") >= 3)
        assert "must be able to reach [webhook] url" in registrar.standing["ana"].error
        assert not registrar.standing["ana"].registered
        cloud.refusal = None
        await until(lambda: registrar.standing["ana"].registered)
        assert registrar.standing["ana"].error == ""

    assert keeper.events() == ["webhook.failed", "webhook.registered"]


async def test_the_cloud_ends_it_and_we_look_at_once(
    keeper: Keeper, respx_mock: respx.Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that says so does not wait for the next look."""
    monkeypatch.setattr(module, "CHECK_EVERY", module.CHECK_EVERY * 1000)
    cloud = Cloud(respx_mock)

    async with keeper.runs() as registrar:
        await until(lambda: registrar.standing["ana"].registered)
        cloud.url = ""
        registrar.look()
        await until(lambda: cloud.url == OURS)

    assert cloud.calls == ["GET", "POST", "GET", "POST"]


async def test_a_dead_login_is_no_others(tmp_path: Path, respx_mock: respx.Router) -> None:
    """An account without a login waits for one; the other is registered meanwhile."""
    cloud = Cloud(respx_mock)
    async with open_http() as http:
        keeper = Keeper(tmp_path, http, ("ana", "ben"))
        dead = keeper.clients["ben"].tokens
        assert isinstance(dead, Tokens)
        dead.lost = True

        async with keeper.runs() as registrar:
            await until(lambda: registrar.standing["ana"].registered)
            await until(lambda: registrar.standing["ben"].error != "")
            assert cloud.url == OURS
            dead.lost = False
            await until(lambda: registrar.standing["ben"].registered)

    assert ("webhook.failed", "ben") in [(e, f.get("account")) for e, f in keeper.log.lines]
