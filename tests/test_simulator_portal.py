"""Legrand's portal, simulated: shapes, keys, quota, every status, and a world that repeats."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from netatmo_ingestd.simulator.building import MEANINGS, Building, decoded
from netatmo_ingestd.simulator.portal import PER_DAY
from netatmo_ingestd.simulator.server import Plan
from netatmo_ingestd.sources.emergency import FAILURE_TYPES
from tests.clocks import START
from tests.labs import Lab

DAY = 86_400
STATUSES = (400, 401, 404, 408, 429, 430, 469, 470, 486, 500)


class Office:
    """One user of the portal, logged in."""

    def __init__(self) -> None:
        self.lab = Lab(Plan(seed=7, days=1, origin=START, portal=2))
        portal = self.lab.cloud.portal
        assert portal is not None
        self.portal = portal
        told = portal.greeting("http://cloud")
        self.me: dict[str, Any] = told["accounts"][0]
        self.building = portal.buildings[self.me["user"]]
        self.token: dict[str, Any] = {}

    async def log_in(self, **changes: str) -> httpx.Response:
        names = ("client_id", "client_secret", "refresh_token")
        form = {"grant_type": "refresh_token", **{name: self.me[name] for name in names}, **changes}
        answer = await self.lab.http.post("/token", data=form)
        if answer.status_code == 200:
            self.token = answer.json()
        return answer

    async def get(self, path: str, verb: str = "GET", **headers: str) -> httpx.Response:
        given = {
            "Ocp-Apim-Subscription-Key": self.me["subscription_key"],
            "Authorization": f"Bearer {self.token.get('access_token')}",
            **headers,
        }
        return await self.lab.http.request(verb, path, headers=given)

    async def thermostat(self, what: str = "", number: int = 0) -> Any:
        place = (
            "/smarther/v2.0/chronothermostat/thermoregulation/addressLocation/plants/"
            f"{self.building.plant}/modules/parameter/id/value/{self.building.thermostats[number]}"
        )
        answer = await self.get(f"{place}{what}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    async with office.lab.http:
        await office.log_in()
        yield office


async def test_a_login(office: Office) -> None:
    """The access token is a JSON Web Token; the pair rotates; no scope is told."""
    first = office.token
    head, body, _ = first["access_token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))

    assert json.loads(base64.urlsafe_b64decode(head + "=="))["typ"] == "JWT"
    assert claims["exp"] - claims["iat"] == int(first["expires_in"])
    assert len(first["access_token"]) > 1000
    assert "scope" not in first
    assert (await office.log_in()).json() == {"error": "invalid_grant"}
    again = await office.log_in(refresh_token=first["refresh_token"])
    assert again.status_code == 200
    assert again.json()["refresh_token"] != first["refresh_token"]


async def test_a_visit_of_the_consent_page(office: Office) -> None:
    """No scope need be named; the code of the callback is good for a login."""
    office.lab.cloud.switches.auto_consent = True
    asked = {"client_id": office.me["client_id"], "response_type": "code", "state": "s",
             "redirect_uri": "http://localhost:8735/callback"}  # fmt: skip
    answer = await office.lab.http.get("/authorize", params=asked)
    code = httpx.URL(answer.headers["location"]).params["code"]

    login = await office.log_in(
        grant_type="authorization_code", code=code, redirect_uri=asked["redirect_uri"]
    )
    assert login.status_code == 200
    assert (await office.get("/smarther/v2.0/plants")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Ocp-Apim-Subscription-Key": ""}, "missing subscription key"),
        ({"Ocp-Apim-Subscription-Key": "x"}, "invalid subscription key"),
        ({"Authorization": ""}, "Access token is missing"),
        ({"Authorization": "Bearer x.y.z"}, "Invalid access token"),
    ],
)
async def test_who_may_not_call(office: Office, headers: dict[str, str], told: str) -> None:
    """Key and token are both asked for; each refusal is of APIM's shape."""
    answer = await office.get("/smarther/v2.0/plants", **headers)

    assert answer.status_code == 401
    assert answer.json()["statusCode"] == 401
    assert told in answer.json()["message"]


async def test_the_quota_of_a_day(office: Office) -> None:
    """500 calls of a user, refused ones too; a new day begins at 00:00 UTC; others have theirs."""
    answers = [await office.get("/smarther/v2.0/plants") for _ in range(PER_DAY + 1)]

    assert [each.status_code for each in answers] == [200] * PER_DAY + [403]
    assert "Quota will be replenished in" in answers[-1].json()["message"]
    assert office.portal.over_quota == 1
    left = DAY - int(START) % DAY
    office.lab.clock.advance(left)
    await office.log_in(refresh_token=office.token["refresh_token"])
    assert (await office.get("/smarther/v2.0/plants")).status_code == 200


@pytest.mark.parametrize("status", STATUSES)
async def test_every_status(office: Office, status: int) -> None:
    """Each status of section 8.4 can be had, for one endpoint, and no call of Netatmo meets it."""
    fault = {"kind": "portal", "status": status, "message": "x", "endpoint": "plants", "count": 1,
             "retry_after": 7}  # fmt: skip
    office.lab.cloud.faults.arm(fault, START)

    assert (await office.get(f"/smarther/v2.0/plants/{office.building.plant}/topology")).is_success
    answer = await office.get("/smarther/v2.0/plants")

    assert (answer.status_code, answer.json()) == (status, {"statusCode": status, "message": "x"})
    assert answer.headers["Retry-After"] == "7"
    assert (await office.get("/smarther/v2.0/plants")).is_success


async def test_emergency_lighting(office: Office) -> None:
    """Controllers with the failures of the moment, whose flags are decoded bit by bit."""
    site = office.building.site
    by_query = await office.get(f"/emergency-lighting/v1.0/siteControllers?siteId={site}")
    by_path = await office.get(f"/emergency-lighting/v1.0/sites/{site}/siteControllers")
    flags = [flag for each in by_query.json() for flag in each["failures"]]

    assert by_query.json() == by_path.json()
    assert {each["id"] for each in by_query.json()} == set(office.building.controllers)
    assert flags == [each.flag for each in office.building.failures(START, START + 1)]
    assert by_query.headers["Date"] == "Thu, 09 Oct 2025 08:53:20 GMT"
    place = "/emergency-lighting/v1.0/decodeFailureFlag?reference=062520&failureFlag="
    assert (await office.get(f"{place}72")).json() == (await office.get(f"{place}0x48")).json()
    assert (await office.get(f"{place}x")).status_code == 400
    assert office.portal.decoded == {"062520|72": 2}


async def test_thermostats(office: Office) -> None:
    """Texts for numbers; the second one in °F; measures of the day before; programs."""
    (celsius,) = (await office.thermostat())["chronothermostats"]
    (fahrenheit,) = (await office.thermostat(number=1))["chronothermostats"]
    measures = await office.thermostat("/measures")
    newest = measures["thermometer"]["measures"][-1]

    assert celsius["thermometer"]["measures"] == [newest]
    assert isinstance(newest["value"], str)
    assert [each["unit"] for each in fahrenheit["thermometer"]["measures"]] == ["F"]
    assert len(measures["hygrometer"]["measures"]) == 96
    assert (await office.thermostat("/programlist"))["chronothermostats"][0]["programs"]


async def test_subscriptions(office: Office) -> None:
    """One for each address and plant; none is 204; what is there already is 409."""
    plant, url = office.building.plant, "https://home.example/legrand/x"
    assert (await office.get("/smarther/v2.0/subscription")).status_code == 204
    made = [
        await office.lab.http.post(
            f"/smarther/v2.0/plants/{plant}/subscription",
            json={"EndPointUrl": url},
            headers={"Ocp-Apim-Subscription-Key": office.me["subscription_key"],
                     "Authorization": f"Bearer {office.token['access_token']}"},
        )
        for _ in range(2)
    ]  # fmt: skip
    (listed,) = (await office.get("/smarther/v2.0/subscription")).json()
    gone = await office.get(
        f"/smarther/v2.0/plants/{plant}/subscription/{listed['subscriptionId']}", "DELETE"
    )

    assert [each.status_code for each in made] == [201, 409]
    assert listed["EndPointUrl"] == url
    assert gone.status_code == 200
    assert office.portal.subscriptions == {}


def test_a_week_has_failures_enough() -> None:
    """Of every kind a week's test wants: many, some twice, some of two bits; the same each time."""
    building, same = Building(7, "a"), Building(7, "a")
    week = building.failures(START, START + 7 * DAY)

    assert week == same.failures(START, START + 7 * DAY)
    assert week != Building(8, "a").failures(START, START + 7 * DAY)
    assert len(week) >= 20
    assert all(each.end - each.begin >= 7200 for each in week)
    codes = [(each.reference, each.flag) for each in week]
    assert len(set(codes)) < len(codes)
    assert {len(decoded(*code)) for code in codes} == {1, 2}
    modes = {building.state(0, START + at)["mode"] for at in range(0, 7 * DAY, 600)}
    assert modes == {"AUTOMATIC", "MANUAL", "BOOST", "OFF", "PROTECTION"}


def test_every_meaning_is_there() -> None:
    """The table that is invented uses each word that the reference has."""
    words = {*MEANINGS.values(), *(decoded(ref, 0)[0]["failureType"] for ref in ("a", "062526"))}

    assert words == FAILURE_TYPES
