"""The webhook: a real server on loopback, real signed bodies, and what they hint at."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import Busy, ConfigError
from netatmo_ingestd.logs import EVENTS
from netatmo_ingestd.web import webhook as module
from netatmo_ingestd.web.pushes import (
    APART,
    DEVICE_EVENTS_APART,
    Hints,
    Homes,
    endpoints_of,
    hints_of,
)
from netatmo_ingestd.web.server import serving
from netatmo_ingestd.web.webhook import BODY_MAX, Webhook
from tests.clocks import HandClock
from tests.stores import until

PATH, SECRET, OTHER = "a-path-that-nobody-knows", "secret-of-the-app", "secret-of-another"
HOME, SHOP, CAMERA = "65800c1a7b2f4e0012ab34c1", "65800c1a7b2f4e0012ab34c2", "70:ee:50:01:04:01"
SMOKE: dict[str, Any] = {
    "user_id": "5f0e1a2b3c4d5e6f70818293", "event_id": "68e750001c2d3e4f5061727e",
    "event_type": "smoke", "sub_type": 1, "push_type": "NSD-smoke",
    "device_id": "70:ee:50:01:04:05", "home_id": SHOP, "message": "Smoke detected",
}  # fmt: skip


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, **fields: Any) -> None:
        assert event in EVENTS
        self.lines.append((event, fields))

    info = warning = error = note


class Rig:
    """A webhook that listens, two accounts of one app and one of another, and what was hinted."""

    def __init__(self, clock: Clock) -> None:
        self.given: list[tuple[str, str, str]] = []
        self.clock = clock
        self.log = Log()
        self.looked = 0
        self.homes = {
            "ana": Homes({HOME, SHOP}, {CAMERA: SHOP, "room": HOME}),
            "ben": Homes({"bens"}, {}),
            "cem": Homes({SHOP}, {}),
        }
        self.webhook = Webhook(
            path=PATH,
            secrets={SECRET: ("ana", "ben"), OTHER: ("cem",)},
            homes=self.homes.__getitem__,
            hints=Hints(lambda *hint: self.given.append(hint), clock, least_s=0),
            clock=clock,
            log=self.log,
            on_ended=self.look,
        )
        self.url = ""

    def look(self) -> None:
        self.looked += 1

    async def push(
        self, body: Any, *, secret: str = SECRET, path: str = PATH, **headers: str
    ) -> int:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {"X-Netatmo-secret": sign(raw, secret), "Content-Type": "application/json"}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(
                f"{self.url}/webhook/{path}", content=raw, headers=signed | headers
            )
        return answer.status_code


def sign(raw: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(HandClock())
    async with serving(("127.0.0.1", 0), [rig.webhook.route()]) as port:
        rig.url = f"http://127.0.0.1:{port}"
        yield rig
    rig.webhook.hints.close()


async def test_a_good_push_is_a_hint(rig: Rig) -> None:
    """Signed, whole and new: 200, and the account that has this home asks now."""
    assert await rig.push(SMOKE) == 200

    assert rig.given == [("ana", "getevents", SHOP), ("ana", "homestatus", SHOP)]
    assert rig.webhook.counters.good == 1


async def test_the_secret_tells_the_app(rig: Rig) -> None:
    """A push is for the accounts of the app whose secret signed it, though others see the home."""
    assert await rig.push(SMOKE, secret=OTHER) == 200

    assert {account for account, _, _ in rig.given} == {"cem"}


@pytest.mark.parametrize(
    "signature",
    ["", "0" * 64, sign(b"other", SECRET), sign(json.dumps(SMOKE).encode(), "guess"), "ä" * 32],
    ids=["none", "zeros", "of another body", "of another secret", "no hex"],
)
async def test_a_wrong_signature_does_nothing(rig: Rig, signature: str) -> None:
    """403, nothing done; the first is told, and it is no replay when the good one comes."""
    sent = {"X-Netatmo-secret": signature.encode("latin-1").decode("latin-1")}
    for _ in range(2):
        async with httpx.AsyncClient(trust_env=False) as http:
            headers = {key.encode(): value.encode("latin-1") for key, value in sent.items()}
            answer = await http.post(
                f"{rig.url}/webhook/{PATH}", content=json.dumps(SMOKE).encode(), headers=headers
            )
        assert answer.status_code == 403

    assert rig.given == []
    assert [event for event, _ in rig.log.lines] == ["webhook.refused"]
    assert rig.webhook.counters.refused == 2
    assert await rig.push(SMOKE) == 200
    assert len(rig.given) == 2


async def test_an_upper_case_signature_is_one(rig: Rig) -> None:
    """Hex is hex."""
    raw = json.dumps(SMOKE).encode()

    assert await rig.push(raw, **{"X-Netatmo-secret": sign(raw, SECRET).upper()}) == 200
    assert len(rig.given) == 2


async def test_another_path_is_nobodys(rig: Rig) -> None:
    """404 whatever the signature; other verbs and addresses are not there either."""
    for path in ("a-path-that-nobody-know", "", "x", f"{PATH}/more"):
        assert await rig.push(SMOKE, path=path) in (404, 405)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{rig.url}/webhook/{PATH}")).status_code == 405
        assert (await http.get(rig.url)).status_code == 404

    assert rig.given == []


async def test_an_oversized_body_is_not_read(rig: Rig) -> None:
    """413 by its length or by what arrives, even when it is signed; the bound itself is taken."""
    largest = json.dumps(SMOKE).encode().ljust(BODY_MAX)
    larger = largest + b" "

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield larger[:8192]

    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{rig.url}/webhook/{PATH}", content=chunks())
    assert answer.status_code == 413
    assert await rig.push(larger) == 413
    assert rig.given == []
    assert rig.webhook.counters.oversized == 2
    assert await rig.push(largest) == 200
    assert len(rig.given) == 2


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"NSD-smoke"', b"\xff\xfe", b'{"a": NaN}', b"[" * 5000, b'{"a":1,"a":2}'],
)
async def test_no_json_object_is_refused(rig: Rig, raw: bytes) -> None:
    """400, nothing done, though the signature is good."""
    assert await rig.push(raw) == 400

    assert rig.given == []
    assert rig.webhook.counters.malformed == 1


async def test_a_replayed_push_does_nothing(rig: Rig) -> None:
    """The same bytes within ten minutes: 200, no hint; after that they are news again."""
    assert isinstance(rig.clock, HandClock)
    await rig.push(SMOKE)

    for wait_s in (1, 60, 500):
        rig.clock.advance(wait_s)
        assert await rig.push(SMOKE) == 200
    await asyncio.sleep(0)

    assert len(rig.given) == 2
    assert rig.webhook.counters.replayed == 3
    rig.clock.advance(600)
    assert await rig.push(SMOKE) == 200
    assert len(rig.given) == 4


async def test_what_is_remembered_of_pushes_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest digest makes room; bodies are never kept."""
    monkeypatch.setattr(module, "_MOST_DIGESTS", 3)

    for number in range(5):
        await rig.push(SMOKE | {"event_id": str(number)})

    assert len(rig.webhook._seen) == 3
    assert all(len(each) == 32 for each in rig.webhook._seen)


async def test_a_flood_leads_to_one_hint_in_ten_seconds() -> None:
    """At once for the first, once more when ten seconds are over, however many came."""
    clock = Clock(speed=50.0)
    rig = Rig(clock)
    async with serving(("127.0.0.1", 0), [rig.webhook.route()]) as port:
        rig.url = f"http://127.0.0.1:{port}"
        began = clock.monotonic()
        async with httpx.AsyncClient(trust_env=False) as http:
            for number in range(60):
                raw = json.dumps(SMOKE | {"event_id": str(number)}).encode()
                signed = {"X-Netatmo-secret": sign(raw, SECRET)}
                url = f"{rig.url}/webhook/{PATH}"
                assert (await http.post(url, content=raw, headers=signed)).status_code == 200
        took = clock.monotonic() - began
        await asyncio.sleep(11 / 50)

    most = 2 * (took // 10 + 2)
    assert rig.given[:2] == [("ana", "getevents", SHOP), ("ana", "homestatus", SHOP)]
    assert 4 <= len(rig.given) <= most
    assert rig.webhook.counters.good == 60


async def test_an_activation_is_told(rig: Rig) -> None:
    """It proves that the address is reachable, and hints at nothing; the end makes us look."""
    assert await rig.push({"push_type": "webhook_activation"}) == 200
    assert await rig.push({"push_type": "webhook_deactivation"}) == 200

    assert rig.given == []
    assert rig.webhook.counters.activated is not None
    assert rig.looked == 1
    assert rig.log.lines == [("webhook.activated", {})]


async def test_a_slow_visitor_is_let_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never ends his body is answered 408, and delays nobody."""
    monkeypatch.setattr(module, "BODY_LIMIT_S", 0.2)
    port = int(rig.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /webhook/{PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode()
    )

    assert await rig.push(SMOKE) == 200
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert line.startswith(b"HTTP/1.1 408")
    assert len(rig.given) == 2


async def test_a_taken_port_is_said_clearly(rig: Rig) -> None:
    """Busy with the address and what to do; an address of another machine is a ConfigError."""
    port = int(rig.url.rpartition(":")[2])

    with pytest.raises(Busy, match=rf"web\.listen: port {port} of 127\.0\.0\.1 is in use"):
        async with serving(("127.0.0.1", port), []):
            raise AssertionError
    with pytest.raises(ConfigError, match=r"web\.listen: 192\.0\.2\.1:0 cannot be opened"):
        async with serving(("192.0.2.1", 0), []):
            raise AssertionError


async def test_it_ends_with_visitors_inside(rig: Rig) -> None:
    """An idle connection does not keep the server from ending within two seconds."""
    async with serving(("127.0.0.1", 0), []) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        began = asyncio.get_running_loop().time()
    took = asyncio.get_running_loop().time() - began
    writer.close()

    assert took < 2
    async with serving(("127.0.0.1", port), []) as again:
        assert again == port


# --- what a push hints at -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("push", "endpoints"),
    [
        ({"push_type": "NACamera-person"}, ["getevents", "homestatus"]),
        ({"push_type": "NACamera-movement"}, ["getevents"]),
        ({"push_type": "NOC-human"}, ["getevents"]),
        ({"push_type": "NOC-light_mode", "sub_type": "auto"}, ["getevents", "homestatus"]),
        ({"push_type": "NACamera-tag_big_move"}, ["getevents"]),
        ({"push_type": "NDB-incoming_call"}, ["getevents"]),
        ({"push_type": "NPC-connection"}, ["getevents", "homestatus"]),
        ({"push_type": "connection"}, ["getevents", "homestatus"]),
        ({"push_type": "NSD-battery_status"}, ["getevents", "homestatus"]),
        ({"push_type": "display_change"}, ["homestatus"]),
        ({"push_type": "home_event_changed", "event_type": "therm_mode"}, ["homestatus"]),
        (
            {"push_type": "home_event_changed", "event_type": "schedule"},
            ["homestatus", "homesdata"],
        ),
        ({"push_type": "device_event"}, ["homestatus"]),
        ({"push_type": "topology_changed"}, ["homesdata"]),
        ({"push_type": "daily_summary"}, []),
        ({"push_type": "something_new"}, ["getevents", "homestatus", "homesdata"]),
        ({}, ["getevents", "homestatus", "homesdata"]),
        ({"push_type": 7}, ["getevents", "homestatus", "homesdata"]),
    ],
)
def test_what_a_push_type_hints_at(push: dict[str, Any], endpoints: list[str]) -> None:
    """What moves a state asks for the state, what happened for events, the unknown for all."""
    assert list(endpoints_of(push)) == endpoints


@pytest.mark.parametrize(
    ("push", "home"),
    [
        ({"home_id": HOME}, HOME),
        ({"home": {"id": HOME}}, HOME),
        ({"home_id": None, "home": {"id": SHOP}}, SHOP),
        ({"camera_id": CAMERA}, SHOP),
        ({"device_id": "gone", "camera_id": CAMERA}, SHOP),
    ],
)
def test_the_home_of_a_push(push: dict[str, Any], home: str) -> None:
    """Told as home_id, as home.id, or by the device; the topology is one call for all homes."""
    accounts = {"ana": Homes({HOME, SHOP}, {CAMERA: SHOP})}

    assert list(hints_of(push | {"push_type": "display_change"}, accounts)) == [
        ("ana", "homestatus", home)
    ]
    assert list(hints_of(push | {"push_type": "topology_changed"}, accounts)) == [
        ("ana", "homesdata", "")
    ]


def test_a_home_that_nobody_knows() -> None:
    """An app's only account looks at its topology; one of many accounts is not guessed."""
    push = {"push_type": "topology_changed", "home_id": "new"}
    one = {"ana": Homes({HOME}, {})}

    assert list(hints_of(push, one)) == [("ana", "homesdata", "")]
    assert list(hints_of(push, one | {"ben": Homes(set(), {})})) == []
    assert list(hints_of({"push_type": "NSD-smoke"}, one)) == [
        ("ana", "getevents", HOME),
        ("ana", "homestatus", HOME),
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["push_type", "home_id", "home", "device_id", "event_type"])
        | st.text(max_size=9),
        _JSON,
    )
)
def test_no_push_breaks_it(push: dict[str, Any]) -> None:
    """Whatever a signed object holds, it hints at homes that are known, or at nothing."""
    accounts = {"ana": Homes({HOME}, {}), "ben": Homes({SHOP}, {CAMERA: SHOP})}

    for account, endpoint, home in hints_of(push, accounts):
        assert endpoint in ("getevents", "homestatus", "homesdata")
        assert home in ("", *accounts[account].ids)


async def test_device_events_are_further_apart() -> None:
    """A heating system tells each tenth of a degree: at most one poll a minute comes of that."""
    clock = Clock(speed=200.0)
    given: list[tuple[float, str]] = []
    hints = Hints(lambda _a, name, _h: given.append((clock.monotonic(), name)), clock, least_s=0)
    rig = Rig(clock)
    rig.webhook.hints = hints

    for number in range(3):
        rig.webhook._take({"push_type": "device_event", "home_id": HOME, "n": number}, ("ana",))
    await until(lambda: len(given) == 2)

    assert given[1][0] - given[0][0] >= 60
    hints.close()


async def test_a_fast_clock_makes_no_flood_of_polls() -> None:
    """Between two hints lies real time too: whoever calls us does not live in a faster world."""
    clock, given = Clock(speed=5000.0), [time.monotonic()]
    hints = Hints(lambda *_: given.append(time.monotonic()), clock, least_s=0.3)

    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        hints.take("ana", "homestatus", HOME)
        await asyncio.sleep(0.005)
    hints.close()

    assert given.pop(0) <= given[0]
    assert 3 <= len(given) <= 4
    assert all(later - earlier >= 0.295 for earlier, later in pairwise(given))
    assert Hints(lambda *_: None, clock)._least_s >= 10


async def test_what_is_urgent_does_not_wait_behind_what_is_not() -> None:
    """A pending hint of a value comes at once when a push arrives that need not wait so long."""
    clock = Clock(speed=100.0)
    given: list[float] = []
    rig = Rig(clock)
    rig.webhook.hints = Hints(lambda *_: given.append(clock.monotonic()), clock, least_s=0)
    value = {"push_type": "device_event", "home_id": HOME}

    for number in range(2):
        rig.webhook._take(value | {"n": number}, ("ana",))
    await clock.sleep(15)
    came = clock.monotonic()
    rig.webhook._take({"push_type": "display_change", "home_id": HOME}, ("ana",))
    first = list(given)
    await clock.sleep(60)

    assert len(first) == 2
    assert first[1] - came < 2
    assert given == first  # the timer of the value is gone: its news were asked for
    rig.webhook.hints.close()


async def test_an_urgent_one_brings_a_waiting_one_forward() -> None:
    """When even it has to wait, it waits its own ten seconds, not the minute of the other."""
    clock = Clock(speed=100.0)
    given: list[float] = []
    hints = Hints(lambda *_: given.append(clock.monotonic()), clock, least_s=0)
    slow = DEVICE_EVENTS_APART

    for apart in (slow, slow, APART, slow):
        hints.take("ana", "homestatus", HOME, apart)
    await clock.sleep(40)
    hints.close()

    assert len(given) == 2
    assert 10 <= given[1] - given[0] < 30


async def test_nothing_is_hinted_after_the_end() -> None:
    """A hint that waits for its time is dropped when the daemon ends."""
    clock = Clock(speed=1000.0)
    given: list[tuple[str, str, str]] = []
    hints = Hints(lambda *hint: given.append(hint), clock)
    for _ in range(2):
        hints.take("ana", "homestatus", HOME)

    hints.close()
    await asyncio.sleep(0.05)

    assert given == [("ana", "homestatus", HOME)]
