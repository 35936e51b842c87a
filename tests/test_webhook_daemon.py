"""The webhook in a whole daemon: a simulated cloud, a store, a signed push, and its poll."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from netatmo_ingestd import spool, status
from netatmo_ingestd.errors import Busy
from netatmo_ingestd.process import Stop
from netatmo_ingestd.settings import (
    AccountSettings,
    HistorySettings,
    Settings,
    WebhookSettings,
    WebSettings,
)
from netatmo_ingestd.simulator.server import Plan, Running, running
from tests.stores import until
from tests.test_daemon import daemon_running, log_in, settings_for
from tests.wire import WireServer

pytestmark = pytest.mark.contract
PATH = "a-path-that-nobody-knows"


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that each spool holds back is small here: writing it would take most of the time."""
    monkeypatch.setattr(spool, "BALLAST_BYTES", 1 << 20)


@dataclass
class House:
    """A daemon that has polled all once, in real time, and the cloud that it polls."""

    cloud: Running
    settings: Settings
    mongo: WireServer

    def count(self, endpoint: str) -> int:
        entries = self.cloud.cloud.journal.since(0)
        return sum(each["endpoint"] == endpoint for each in entries)

    @property
    def calls(self) -> int:
        return len(self.cloud.cloud.journal.since(0))

    @property
    def home(self) -> str:
        return next(iter(self.cloud.cloud.world.households))

    async def push(self, body: dict[str, Any]) -> int:
        raw = json.dumps(body).encode()
        secret = str(self.cloud.greeting["client_secret"]).encode()
        signed = {"X-Netatmo-secret": hmac.new(secret, raw, hashlib.sha256).hexdigest()}
        url = f"http://{self.settings.web.listen}/webhook/{PATH}"
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.post(url, content=raw, headers=signed)).status_code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hooked(folder: Path, cloud: Running, uri: str) -> Settings:
    said, port = cloud.greeting, free_port()
    account = AccountSettings(
        client_id=said["client_id"],
        client_secret=SecretStr(said["client_secret"]),
        products=("energy", "security"),
    )
    return settings_for(
        folder,
        cloud,
        uri,
        accounts=(account,),
        history=HistorySettings(since="never"),
        web=WebSettings(listen=f"127.0.0.1:{port}"),
        webhook=WebhookSettings(url=f"http://127.0.0.1:{port}", path=SecretStr(PATH)),
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    plan = Plan(speed=1.0, days=1, products=("energy", "security"))
    async with WireServer() as mongo, running(plan) as cloud:
        cloud.cloud.switches.pushes = ()  # only what a test sends
        settings = hooked(tmp_path, cloud, mongo.uri())
        await log_in(settings, cloud)
        async with daemon_running(settings, Stop(drain_s=5)):
            found = House(cloud, settings, mongo)
            await until(lambda: found.count("homestatus") and found.count("getevents"))
            asked = -1
            while asked != found.calls:  # the first round is over
                asked = found.calls
                await asyncio.sleep(2.5)
            yield found


async def test_a_push_leads_to_a_poll(house: House) -> None:
    """Within two seconds for a good one; none for what is not signed, or came before."""
    before = {name: house.count(name) for name in ("homestatus", "getevents", "homesdata")}
    push = {"push_type": "NSD-smoke", "home_id": house.home, "event_id": "1"}

    assert await house.push(push) == 200
    await until(lambda: house.count("homestatus") == before["homestatus"] + 1, within=2)
    await until(lambda: house.count("getevents") >= before["getevents"] + 1, within=2)
    asked = {name: house.count(name) for name in before}
    for number in range(30):
        assert await house.push(push | {"event_id": str(number % 3)}) == 200
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://{house.settings.web.listen}/webhook/{PATH}"
        assert (await http.post(url, content=b"{}")).status_code == 403
    await asyncio.sleep(3)

    assert house.count("homestatus") == asked["homestatus"]
    assert house.count("homesdata") == before["homesdata"]
    # Those that came too early lead to one more, when ten seconds are over.
    await until(lambda: house.count("homestatus") == asked["homestatus"] + 1, within=12)


async def test_the_cloud_itself_calls(house: House) -> None:
    """Registered at the start in the newer form, activated; its own push leads to a poll."""
    hooks = house.cloud.cloud.webhooks
    (line,) = hooks.lines.values()
    before = house.count("homestatus")

    assert line.url == f"http://{house.settings.web.listen}/webhook/{PATH}"
    assert house.count("webhooks/v1") == 2  # asked, registered
    assert hooks.push("NSD-smoke", house.home, {})
    await until(lambda: house.count("homestatus") == before + 1, within=2)
    await hooks.idle()

    assert [(c.push_type, c.status) for c in hooks.calls] == [
        ("webhook_activation", 200),
        ("NSD-smoke", 200),
    ]


async def test_status_tells_of_it_and_nothing_is_stored(house: House) -> None:
    """Counters only; the secret path stands neither in the report nor in the store."""
    push = {"push_type": "display_change", "home_id": house.home, "message": "canary-message"}
    await house.push(push)

    def report() -> dict[str, Any]:
        found = status.read(house.settings.state_dir)
        return found["webhook"] if found else {"counters": {"good": 0}}

    await until(lambda: report()["counters"]["good"] >= 1)
    told = json.dumps(status.read(house.settings.state_dir)) + repr(house.mongo.documents)

    assert set(report()["accounts"]) == {"home"}
    assert "canary-message" not in told
    assert PATH not in told


async def test_a_taken_port_ends_before_anything_is_polled(tmp_path: Path) -> None:
    """Busy, with the address; the daemon does not run half."""
    async with WireServer() as mongo, running(Plan(speed=1.0, days=1)) as cloud:
        settings = hooked(tmp_path, cloud, mongo.uri())
        await log_in(settings, cloud)
        host, port = settings.web.address
        server = await asyncio.start_server(lambda *_: None, host, port)
        try:
            with pytest.raises(Busy, match=rf"web\.listen: port {port} of 127\.0\.0\.1 is in use"):
                async with daemon_running(settings, Stop()) as task:
                    await task
        finally:
            server.close()
            await server.wait_closed()

        assert cloud.cloud.journal.since(0) == []
