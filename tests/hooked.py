"""A simulated cloud whose webhook calls go to a receiver in the same process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from netatmo_ingestd.simulator.household import Household
from netatmo_ingestd.simulator.server import Plan
from tests.clocks import START
from tests.labs import Lab

URL = "http://127.0.0.1:9443/webhook/a-path"
REST = "/webhooks/v1"
ACTIVATION = "webhook_activation"


class Receiver:
    """What stands at the address: `status` is its answer, None that it gives none."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status: int | None = 200

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.status is None:
            raise httpx.ConnectError("nobody there")
        return httpx.Response(self.status)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(each.content) for each in self.requests]

    @property
    def types(self) -> list[str]:
        return [each["push_type"] for each in self.bodies]


class Hooked(Lab):
    """A lab whose calls go to a receiver."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.receiver = Receiver()
        self.hooks = self.cloud.webhooks
        self.hooks.transport = httpx.MockTransport(self.receiver)

    async def rest(self, verb: str, **sent: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.access}"}
        return await self.http.request(verb, REST, headers=headers, **sent)

    async def register(self) -> None:
        answer = await self.rest("POST", json={"url": URL})
        assert answer.status_code == 200, answer.text
        await self.settle()

    async def settle(self) -> None:
        """All that is due is sent, and all that is sent has arrived."""
        for _ in range(50):
            await asyncio.sleep(0)
        await self.hooks.idle()

    async def advance(self, seconds: int, step: int = 300) -> None:
        for _ in range(seconds // step):
            self.clock.advance(step)
            await self.settle()

    async def push(self, push_type: str, **wanted: Any) -> list[Any]:
        sent = {"push_type": push_type, **wanted}
        answer = await self.http.post("/simulator/push", json=sent)
        assert answer.status_code == 200, answer.text
        await self.settle()
        return list(answer.json()["sent"])

    async def switch(self, **settings: Any) -> httpx.Response:
        return await self.http.post("/simulator/settings", json=settings)


@asynccontextmanager
async def hooked() -> AsyncIterator[Hooked]:
    """Two accounts with a home of everything each; the first is logged in."""
    products = ("energy", "security", "control")
    lab = Hooked(Plan(seed=7, stations=2, accounts=2, days=30, origin=START, products=products))
    lab.cloud.quotas.limits.account_10s = lab.cloud.quotas.limits.account_hour = 10_000
    async with lab.http:
        await lab.login()
        yield lab
        await lab.hooks.close()


def house(lab: Hooked) -> Household:
    """The home of the first account."""
    return lab.world.households[lab.station.home_id]
