"""A simulated home with every kind of device, for tests of what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netatmo_ingestd.models import Entity
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.simulator.household import Device, Household
from netatmo_ingestd.simulator.server import Plan
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.topology import HOMESDATA
from tests.clocks import START
from tests.labs import Lab

GRID = "sum_energy_buy_from_grid"
SCENARIO = """
[[homes]]
heating = ["thermostat", "modulating", "smarther", "air"]
valves = 5
cameras = 3
meters = 20
lines = 9
strangers = 1
"""


def lab_of(folder: Path, **more: Any) -> Lab:
    """Two stations; the home of the first has everything. Quotas are out of the way."""
    file = folder / "homes.toml"
    file.write_text(SCENARIO)
    plain = Plan(seed=7, stations=2, days=30, origin=START, password_grant=True, scenario=file)
    lab = Lab(replace(plain, **more))
    limits = lab.cloud.quotas.limits
    limits.account_10s = limits.account_hour = 100_000
    return lab


def household(lab: Lab) -> Household:
    (found,) = lab.world.households.values()
    return found


def only(lab: Lab, kind: str) -> Device:
    return household(lab).of_type(kind)[0]


def at(lab: Lab) -> float:
    return lab.clock.time()


async def body(lab: Lab, method: str, **params: Any) -> Any:
    answer = await lab.get(method, **{"home_id": household(lab).home_id, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()["body"]


async def home(lab: Lab, **params: Any) -> Any:
    """What homesdata tells of the home."""
    (found,) = (await body(lab, "homesdata", **params))["homes"]
    return found


async def status(lab: Lab, **params: Any) -> Any:
    return (await body(lab, "homestatus", **params))["home"]


def by_id(told: list[Any]) -> dict[str, Any]:
    return {each["id"]: each for each in told if "id" in each}


async def login_with(lab: Lab, scope: str) -> None:
    user = lab.accounts[0]
    form: dict[str, Any] = {"username": user.user, "password": user.password, "scope": scope}
    lab.access = (await lab.token("password", **form)).json()["access_token"]


async def read(lab: Lab) -> tuple[Parsed, Parsed]:
    """What the daemon makes of both answers."""
    moment = datetime.fromtimestamp(at(lab), UTC)
    found = []
    for endpoint, params in ((HOMESDATA, {}), (HOMESTATUS, {"home_id": household(lab).home_id})):
        answer = await lab.get(endpoint.name, **params)
        reply = Reply(answer.json().get("body"), moment, moment, answer.content)
        found.append(endpoint.parse(reply, Poll(endpoint, "ana", params)))
    return found[0], found[1]


def ids(parsed: Parsed) -> set[str]:
    return {each.entity_id for each in parsed.records if isinstance(each, Entity)}


def of(family: str) -> str:
    """The total and three tariffs of a family of energy."""
    return ",".join(f"{family}{tariff}" for tariff in ("", "$0", "$1", "$2"))


def asked(device: Device, **params: Any) -> dict[str, Any]:
    """Arguments of getmeasure for a device: by default half hours of energy, stamped by begin."""
    plain = {"device_id": device.gateway, "module_id": device.id, "scale": "30min"}
    return plain | {"type": of(GRID), "optimize": "false", "real_time": "true"} | params


async def rows(lab: Lab, method: str = "getmeasure", **params: Any) -> dict[int, list[Any]]:
    """A history by stamp; an empty one is told as a list."""
    answer = await lab.get(method, **params)
    assert answer.status_code == 200, answer.text
    return {int(at): row for at, row in dict(answer.json()["body"] or {}).items()}
