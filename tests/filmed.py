"""A simulated cloud with two homes of cameras, and ways to read their events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from netatmo_ingestd.simulator.household import Device, Household
from netatmo_ingestd.simulator.oauth import DEFAULT_SCOPE
from netatmo_ingestd.simulator.server import Plan
from tests.clocks import START
from tests.labs import Lab


@asynccontextmanager
async def filmed() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=2, days=120, origin=START, products=("security",)))
    lab.cloud.quotas.limits.account_10s = lab.cloud.quotas.limits.account_hour = 10_000
    async with lab.http:
        await lab.login()
        yield lab


def home(lab: Lab, number: int = 0) -> Household:
    return list(lab.world.households.values())[number]


def only(lab: Lab, kind: str) -> Device:
    (device,) = home(lab).of_type(kind)
    return device


async def page(lab: Lab, number: int = 0, **params: Any) -> list[Any]:
    answer = await lab.get("getevents", home_id=home(lab, number).home_id, **params)
    assert answer.status_code == 200, answer.text
    assert answer.json()["body"]["home"]["id"] == home(lab, number).home_id
    return list(answer.json()["body"]["home"]["events"])


async def everything(lab: Lab, number: int = 0, size: int = 500) -> list[Any]:
    """Backwards until a page brings nothing new."""
    found: dict[str, Any] = {}
    events = await page(lab, number, size=size)
    while any(each["id"] not in found for each in events):
        found |= {each["id"]: each for each in events}
        events = await page(lab, number, size=size, event_id=events[-1]["id"])
    return list(found.values())


async def expected(lab: Lab, number: int = 0) -> list[Any]:
    query = {"events": home(lab, number).home_id}
    answer = await lab.http.get("/simulator/expected", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == len(answer.json()["events"])
    return list(answer.json()["events"])


def pictures(event: Any) -> dict[tuple[str, str], Any]:
    """(id of event or sub-event, slot): what stands there."""
    return {
        (each["id"], slot): each[slot]
        for each in (event, *event.get("subevents", ()))
        for slot in ("snapshot", "vignette")
        if slot in each
    }


def bare(event: Any) -> Any:
    """Without its pictures."""
    kept = {key: value for key, value in event.items() if key not in ("snapshot", "vignette")}
    if "subevents" in kept:
        kept["subevents"] = [bare(each) for each in kept["subevents"]]
    return kept


async def addresses(lab: Lab, size: int = 30) -> list[str]:
    shown = [each for event in await page(lab, size=size) for each in pictures(event).values()]
    return [each["url"] for each in shown if "url" in each]


async def login_with(lab: Lab, *scopes: str) -> None:
    """A new login of the first account, with these scopes beside the usual one."""
    app, account = lab.apps[0], lab.accounts[0]
    session = lab.cloud.authority.sessions.open(app, account, (DEFAULT_SCOPE, *scopes))
    session.refresh[token := "|".join(("narrow", *scopes))] = None
    answer = await lab.token(refresh_token=token)
    lab.access = answer.json()["access_token"]
