"""Webhooks of the simulator: both forms, signed calls, their end, their faults."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from netatmo_ingestd.simulator import happenings, pushes, webhooks
from netatmo_ingestd.simulator.oauth import DEFAULT_SCOPE
from netatmo_ingestd.simulator.pushes import DEVICES, EVENTS
from tests.clocks import START
from tests.hooked import ACTIVATION, URL, Hooked, hooked, house
from tests.labs import error

HOUR, DAY = 3_600, 86_400


@pytest.fixture
async def lab() -> AsyncIterator[Hooked]:
    async with hooked() as found:
        yield found


# --- registration --------------------------------------------------------------------------------


async def test_the_newer_form(lab: Hooked) -> None:
    """One address a login; a second one is refused with a text as code until the first is gone."""
    assert (await lab.rest("GET")).json()["body"] == []

    await lab.register()
    second = await lab.rest("POST", json={"url": URL + "2"})
    listed = (await lab.rest("GET")).json()
    gone = await lab.rest("DELETE")
    third = await lab.rest("POST", json={"url": URL + "2"})

    limit = {"error": {"code": "WH009", "message": "webhook limit reached"}}
    assert (second.status_code, second.json()) == (409, limit)
    assert (listed["status"], listed["body"]) == ("ok", [{"url": URL}])
    assert (gone.status_code, third.status_code) == (200, 200)
    assert (await lab.rest("GET")).json()["body"] == [{"url": URL + "2"}]


async def test_the_older_form(lab: Hooked) -> None:
    """addwebhook takes the place of what was there, dropwebhook says when nothing was."""
    nothing = await lab.get("dropwebhook")
    await lab.get("addwebhook", url=URL, app_types="app_security")
    await lab.get("addwebhook", url=URL + "2")
    listed = (await lab.rest("GET")).json()["body"]
    dropped = await lab.get("dropwebhook", app_types="app_security")

    assert (error(nothing), nothing.json()["error"]["message"]) == ((406, 7), "Nothing to drop")
    assert listed == [{"url": URL + "2"}]
    assert dropped.json()["status"] == "ok"
    assert error(await lab.get("dropwebhook")) == (406, 7)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", (400, 10)),
        ("nonsense", (400, 21)),
        ("ftp://127.0.0.1/x", (400, 21)),
        ("http://127.0.0.1:99999/x", (400, 21)),
        ("https://home.example/webhook", (400, 21)),
        ("http://192.0.2.1/webhook", (400, 21)),
    ],
)
async def test_an_address_that_cannot_be_called(
    lab: Hooked, url: str, told: tuple[int, int]
) -> None:
    """Refused in both forms; among them whatever is not on this machine."""
    assert error(await lab.get("addwebhook", url=url)) == told
    assert error(await lab.rest("POST", json={"url": url})) == told
    assert lab.hooks.lines == {}


async def test_ports_are_those_of_the_real_cloud_on_request(lab: Hooked) -> None:
    """Any port, until the switch says otherwise."""
    loose = await lab.get("addwebhook", url="http://127.0.0.1:8765/x")
    await lab.switch(any_port=False)
    strict = await lab.get("addwebhook", url="http://127.0.0.1:8765/x")
    allowed = await lab.get("addwebhook", url="https://localhost/x")

    assert loose.status_code == 200
    assert error(strict) == (400, 21)
    assert strict.json()["error"]["message"].startswith("Allowed ports for webhooks are 80, 88")
    assert allowed.status_code == 200


async def test_it_takes_a_token_of_any_scope(lab: Hooked) -> None:
    """Without one it is refused like every call; quotas and journal count it."""
    lab.access = ""
    assert error(await lab.rest("GET")) == (403, 1)
    await lab.login(1)
    before = (await lab.stats())["by_endpoint"].get("webhooks/v1", 0)

    await lab.register()

    assert (await lab.stats())["by_endpoint"]["webhooks/v1"] == before + 1
    assert lab.cloud.journal.since(0)[-1]["endpoint"] == "webhooks/v1"
    assert [user for _, user in lab.hooks.lines] == [lab.accounts[1].user]
    assert error(await lab.get("webhooks")) == (404, 31)


async def test_the_newer_form_may_be_missing(lab: Hooked) -> None:
    """A fault by name stands for a cloud that has only the older form."""
    await lab.arm("http", status=404, endpoint="webhooks/v1")

    assert (await lab.rest("POST", json={"url": URL})).status_code == 404
    assert (await lab.get("addwebhook", url=URL)).status_code == 200


# --- calls ---------------------------------------------------------------------------------------


async def test_it_begins_with_an_activation(lab: Hooked) -> None:
    """A POST of JSON, signed over the raw bytes with the secret of the app."""
    await lab.register()

    (request,) = lab.receiver.requests
    expected = hmac.new(lab.apps[0].client_secret.encode(), request.content, hashlib.sha256)
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["X-Netatmo-secret"] == expected.hexdigest()
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == {
        "user_id": lab.accounts[0].user_id,
        "push_type": ACTIVATION,
    }


async def test_an_answer_does_not_wait_for_its_call(lab: Hooked) -> None:
    """The registration is answered while the receiver still thinks."""
    go = asyncio.Event()

    async def slow(_request: httpx.Request) -> httpx.Response:
        await go.wait()
        return httpx.Response(200)

    lab.hooks.transport = httpx.MockTransport(slow)
    answer = await asyncio.wait_for(lab.rest("POST", json={"url": URL}), 2)
    assert (answer.status_code, list(lab.hooks.calls)) == (200, [])

    go.set()
    await lab.settle()
    assert [(call.push_type, call.status) for call in lab.hooks.calls] == [(ACTIVATION, 200)]


async def test_a_day_of_pushes(lab: Hooked) -> None:
    """Every event and sub-event of the home once, as it begins; nothing from before or after."""
    await lab.switch(pushes=[EVENTS])
    await lab.register()
    await lab.advance(DAY)

    events = [e for e in happenings.shown(house(lab), START + DAY, 1) if e.time > START]
    wanted = {(e.id, part.id if part else None) for e in events for part in e.parts or (None,)}
    got = [(each["event_id"], each.get("subevent_id")) for each in lab.receiver.bodies[1:]]
    late = {c.body["event_id"]: c.at for c in lab.hooks.calls if "event_id" in c.body}
    parts = {p.id for e in events for p in e.parts if p.time >= START + DAY}
    assert len(got) == len(set(got)) > 20
    assert set(got) == {each for each in wanted if each[1] not in parts}
    assert all(0 <= late[e.id] - e.time <= 300 for e in events if not e.parts)


async def test_what_a_login_may_not_read_is_not_pushed(lab: Hooked) -> None:
    """A login for weather alone gets no event of a camera."""
    lab.cloud.authority.password_grant = True
    person = lab.accounts[0]
    answer = await lab.token(
        "password", username=person.user, password=person.password, scope=DEFAULT_SCOPE
    )
    lab.access = answer.json()["access_token"]
    await lab.switch(pushes=list(pushes.KINDS))
    await lab.register()
    await lab.advance(2 * HOUR)

    told = lab.receiver.bodies[1:]
    assert {each["push_type"] for each in told} == {DEVICES}
    assert {each["device_id"] for each in told} == {lab.station.id}


async def test_of_kinds_that_are_off_nothing_comes(lab: Hooked) -> None:
    """Values are off until they are asked for; an unknown kind is refused."""
    assert DEVICES not in lab.cloud.switches.pushes
    assert (await lab.switch(pushes=["nonsense"])).status_code == 400
    await lab.switch(pushes=[])
    await lab.register()
    await lab.advance(6 * HOUR, HOUR)

    assert lab.receiver.types == [ACTIVATION]


async def test_after_its_removal_nothing_comes(lab: Hooked) -> None:
    """Not even what had been foreseen."""
    await lab.register()
    await lab.rest("DELETE")
    await lab.advance(6 * HOUR, HOUR)

    assert lab.receiver.types == [ACTIVATION]
    assert await lab.push("NSD-smoke") == []


async def test_five_failures_within_an_hour_suspend_it_for_a_day(lab: Hooked) -> None:
    """Refusals and silence count; the address stays listed; a new registration ends it."""
    await lab.switch(pushes=[])
    await lab.register()
    for number in range(5):
        lab.receiver.status = (500, None)[number % 2]
        assert len(lab.receiver.requests) == 1 + number
        await lab.push("alert")
    lab.receiver.status = 200

    await lab.push("alert")
    assert len(lab.receiver.requests) == 6
    assert (await lab.rest("GET")).json()["body"] == [{"url": URL}]
    lab.clock.advance(DAY - 1)
    await lab.push("alert")
    assert len(lab.receiver.requests) == 6
    lab.clock.advance(1)
    await lab.push("alert")
    assert len(lab.receiver.requests) == 7
    counts = (await lab.http.get("/simulator/webhooks")).json()["counts"]
    assert counts == {"delivered": 2, "failed": 5, "suppressed": 2, "suspensions": 1}


async def test_a_new_registration_ends_a_suspension(lab: Hooked) -> None:
    """Or a daemon that was down would stay without pushes for a day."""
    await lab.switch(pushes=[])
    lab.receiver.status = None
    await lab.register()
    for _ in range(4):
        await lab.push("alert")
    lab.receiver.status = 200
    await lab.push("alert")
    assert len(lab.receiver.requests) == 5

    await lab.rest("DELETE")
    await lab.register()
    await lab.push("alert")

    assert lab.receiver.types[5:] == [ACTIVATION, "alert"]


async def test_failures_further_apart_do_not_suspend(lab: Hooked) -> None:
    """Four within each hour are none too many."""
    await lab.switch(pushes=[])
    await lab.register()
    lab.receiver.status = 404
    for _ in range(12):
        await lab.push("alert")
        lab.clock.advance(HOUR / 4)

    assert len(lab.receiver.requests) == 13
    assert lab.hooks.counts["suspensions"] == 0


# --- faults --------------------------------------------------------------------------------------


async def spoiled(lab: Hooked, kind: str) -> list[httpx.Request]:
    await lab.switch(pushes=[])
    await lab.register()
    await lab.arm(kind, count=1)
    await lab.push("NSD-smoke")
    await lab.push("alert")
    assert lab.receiver.requests[-1].content.endswith(b'"alert"}')
    return lab.receiver.requests[1:-1]


def is_signed(lab: Hooked, request: httpx.Request) -> bool:
    good = webhooks.signature(lab.apps[0].client_secret, request.content)
    return request.headers["X-Netatmo-secret"] == good


async def test_push_lost(lab: Hooked) -> None:
    assert await spoiled(lab, "push_lost") == []


async def test_push_twice(lab: Hooked) -> None:
    one, other = await spoiled(lab, "push_twice")

    assert (one.content, is_signed(lab, one)) == (other.content, True)


async def test_push_forged(lab: Hooked) -> None:
    """A whole signature, but of another secret; that it is refused is no failure."""
    lab.receiver.status = 403
    (request,) = await spoiled(lab, "push_forged")

    assert len(request.headers["X-Netatmo-secret"]) == 64
    assert not is_signed(lab, request)
    assert [len(line.failures) for line in lab.hooks.lines.values()] == [2]


async def test_push_huge(lab: Hooked) -> None:
    (request,) = await spoiled(lab, "push_huge")

    assert len(request.content) > 65_536
    assert is_signed(lab, request)


async def test_push_not_json(lab: Hooked) -> None:
    (request,) = await spoiled(lab, "push_not_json")

    assert is_signed(lab, request)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
        json.loads(request.content)


async def test_push_bare(lab: Hooked) -> None:
    (request,) = await spoiled(lab, "push_bare")

    assert not {"user_id", "home_id"} & set(json.loads(request.content))
    assert is_signed(lab, request)


async def test_faults_of_answers_meet_no_push(lab: Hooked) -> None:
    """Nor do those of pushes meet an answer."""
    await lab.register()
    await lab.arm("error", endpoint="*")
    await lab.arm("push_lost")
    await lab.push("alert")
    assert lab.receiver.types == [ACTIVATION]

    await lab.http.request("DELETE", "/simulator/faults", params={"kind": "push_lost"})
    await lab.push("alert")
    assert lab.receiver.types == [ACTIVATION, "alert"]
