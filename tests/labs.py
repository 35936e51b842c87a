"""A simulated cloud over its ASGI interface, with a clock that is moved by hand."""

from __future__ import annotations

from typing import Any

import httpx

from netatmo_ingestd.simulator.server import Plan, build
from tests.clocks import START, HandClock


class Lab:
    """A cloud, its clock, and a client that may be logged in."""

    def __init__(self, plan: Plan) -> None:
        self.clock = HandClock(START)
        self.cloud = build(plan, self.clock)
        self.world = self.cloud.world
        transport = httpx.ASGITransport(app=self.cloud.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://simulator")
        self.accounts = list(self.cloud.authority.accounts.values())
        self.apps = list(self.cloud.authority.apps.values())
        self.station = next(iter(self.world.stations.values()))
        self.access = ""

    def refresh_token(self, number: int = 0) -> str:
        return self.cloud.ready_made[self.accounts[number].user]

    async def token(self, grant: str = "refresh_token", number: int = 0, **form: Any) -> Any:
        """POST /oauth2/token with the credentials of an app."""
        app = self.apps[number % len(self.apps)]
        plain = {"grant_type": grant, "client_id": app.client_id}
        plain["client_secret"] = app.client_secret
        return await self.http.post("/oauth2/token", data={**plain, **form})

    async def login(self, number: int = 0) -> str:
        """Log in as an account; data calls then use its access token."""
        answer = await self.token(number=number, refresh_token=self.refresh_token(number))
        self.access = answer.json()["access_token"]
        return self.access

    async def get(self, name: str, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.access}", "X-Ingest-Purpose": "live"}
        return await self.http.get(f"/api/{name}", params=params, headers=headers)

    async def arm(self, kind: str, **spec: Any) -> None:
        answer = await self.http.post("/simulator/faults", json={"kind": kind, **spec})
        assert answer.status_code == 200, answer.text

    async def stats(self) -> Any:
        return (await self.http.get("/simulator/stats")).json()

    async def devices(self, **params: Any) -> Any:
        return (await self.get("getstationsdata", **params)).json()["body"]["devices"]


def error(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["error"]["code"]
