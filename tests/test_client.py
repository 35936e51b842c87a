"""One call gives one body or one typed error, whatever comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import logging
import random
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
import structlog

from netatmo_ingestd.bodies import BODY_MAX
from netatmo_ingestd.client import FOREIGN, Client, open_http
from netatmo_ingestd.errors import (
    ApiError,
    ApiRefused,
    ApiThrottled,
    ApiUnavailable,
    IngestError,
    LoginRequired,
)
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Priority, Token
from netatmo_ingestd.polls import Reply
from netatmo_ingestd.providers import LEGRAND, NETATMO, Provider
from tests.clocks import HandClock

CANARY = "Canary-5F2c81|e0"
URL = "https://api.netatmo.com/api/getstationsdata"
GOOD: dict[str, Any] = {"body": {"devices": []}, "status": "ok", "time_server": 1_760_000_000}
Answer = httpx.Response | Exception


def leaks(*texts: str) -> bool:
    """True when a part of the token stands in one of the texts, in whatever case."""
    return any(CANARY[:9].lower() in text.lower() for text in texts)


class Tokens:
    """A login whose access token names its generation."""

    def __init__(self) -> None:
        self.generation = 1
        self.renewed: list[int] = []
        self.lost = False

    async def current(self) -> Token:
        if self.lost:
            raise LoginRequired("no login", account="home")
        access, refresh = f"{CANARY}-{self.generation}", f"{CANARY}-refresh"
        return Token(access, refresh, 2e9, 10_800, ("read_station",), self.generation)

    async def renew(self, refused: int, /) -> Token:
        self.renewed.append(refused)
        self.generation += 1
        return await self.current()


@dataclasses.dataclass
class Rig:
    """A client on a clock that moves by itself; `sent` tells when each request left."""

    client: Client
    tokens: Tokens
    clock: HandClock
    budget: Budget
    sent: list[float] = dataclasses.field(default_factory=list)
    requests: list[httpx.Request] = dataclasses.field(default_factory=list)

    async def call(self, endpoint: str = "getstationsdata") -> Reply:
        return await self.client.call(
            endpoint, {"get_favorites": "false"}, priority=Priority.LIVE, purpose="live"
        )

    async def fails(self, endpoint: str = "getstationsdata") -> IngestError:
        with pytest.raises(IngestError) as caught:
            await self.call(endpoint)
        assert not leaks("".join(traceback.format_exception(caught.value)))
        assert len(str(caught.value).splitlines()) == 1
        return caught.value

    def answers(self, router: respx.Router, *answers: Answer) -> None:
        """Answer in this order, the last one for ever; $TOKEN becomes what the request carried."""
        left = list(answers)

        def next_answer(request: httpx.Request) -> httpx.Response:
            self.sent.append(self.clock.monotonic())
            self.requests.append(request)
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            token = request.headers["Authorization"].removeprefix("Bearer ")
            headers = {k: v.replace("$TOKEN", token) for k, v in answer.headers.items()}
            content = answer.content.replace(b"$TOKEN", token.encode())
            return httpx.Response(
                answer.status_code,
                headers={**headers, "Content-Length": str(len(content))},
                content=content,
            )

        router.route().mock(side_effect=next_answer)

    @property
    def gaps(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.sent, self.sent[1:], strict=False)]


@pytest.fixture(scope="module")
def shared_http() -> Iterator[httpx.AsyncClient]:
    """One for all tests without sockets: loading the certificates costs 20 ms."""
    http = open_http()
    yield http
    asyncio.run(http.aclose())


def a_rig(
    folder: Path, http: httpx.AsyncClient, provider: Provider = NETATMO, limit_s: float = 5
) -> Rig:
    clock, tokens = HandClock(auto=True), Tokens()
    budget = Budget(folder, "id", per_hour=400, per_10s=50, app_per_hour=2000, clock=clock)
    client = Client(
        account="home",
        provider=provider,
        http=http,
        tokens=tokens,
        budget=budget,
        clock=clock,
        call_limit_s=limit_s,
        rng=random.Random(7),
    )
    return Rig(client, tokens, clock, budget)


@pytest.fixture
def rig(tmp_path: Path, shared_http: httpx.AsyncClient) -> Rig:
    return a_rig(tmp_path, shared_http)


def refusal(status: int, code: int | str | None, message: str = "", **headers: str) -> Answer:
    error = {"code": code, "message": message}
    return httpx.Response(status, json={"error": error}, headers=headers)


def html(status: int) -> Answer:
    return httpx.Response(status, html="<h1>Bad gateway</h1>")


# --- the decision table (netatmo-api 5.2) --------------------------------------------------------

TABLE: tuple[tuple[Answer, type[IngestError], str, int], ...] = (
    (refusal(401, 1, "Access token is missing"), LoginRequired, "", 2),
    (refusal(403, 2, "Invalid access token"), LoginRequired, "", 2),
    (refusal(403, 3, "Access token expired"), LoginRequired, "", 2),
    (html(401), LoginRequired, "", 2),
    (httpx.Response(401, json={"error": "invalid_token"}), LoginRequired, "", 2),
    (refusal(403, 30, "Invalid refresh token"), LoginRequired, "", 1),
    (refusal(403, 13, "Operation is forbidden"), ApiRefused, "scope", 1),
    (refusal(429, 11, "Failed to enter concurrency limited section"), ApiUnavailable, "", 4),
    (refusal(403, 26, "User usage reached"), ApiThrottled, "", 1),
    (refusal(403, "26", "User usage reached"), ApiThrottled, "", 1),
    (refusal(429, 26, "Maximum api usage reached"), ApiThrottled, "", 1),
    (refusal(429, 28), ApiThrottled, "", 1),
    (refusal(429, 29), ApiThrottled, "", 1),
    (html(429), ApiThrottled, "", 1),
    (refusal(404, 9, "Device not found"), ApiRefused, "target", 1),
    (refusal(400, 21, "Invalid home_id"), ApiRefused, "target", 1),
    (refusal(400, 21, "unknown measure type"), ApiRefused, "bug", 1),
    (refusal(400, 10, "Missing home_id"), ApiRefused, "bug", 1),
    (refusal(409, "WH009", "webhook limit"), ApiRefused, "bug", 1),
    (httpx.Response(400, json={"error": "invalid_request"}), ApiRefused, "bug", 1),
    (refusal(500, 11, "Internal error"), ApiUnavailable, "", 4),
    *((html(status), ApiUnavailable, "", 4) for status in (400, 403, 404, 500, 502, 503, 504)),
    (httpx.Response(302, headers={"Location": "https://evil.example/"}), ApiUnavailable, "", 4),
    (httpx.Response(204), ApiUnavailable, "", 4),
    (httpx.ConnectError("refused"), ApiUnavailable, "", 4),
    (httpx.ReadTimeout("slow"), ApiUnavailable, "", 4),
)


@pytest.mark.parametrize(("answer", "kind", "reaction", "calls"), TABLE)
async def test_decision_table(
    rig: Rig,
    respx_mock: respx.Router,
    answer: Answer,
    kind: type[IngestError],
    reaction: str,
    calls: int,
) -> None:
    """Each row of the decision table leads to its error after its number of calls, all counted."""
    rig.answers(respx_mock, answer)

    error = await rig.fails()

    assert type(error) is kind
    assert getattr(error, "reaction", "") == reaction
    assert len(rig.sent) == calls == rig.budget.usage("home").hour
    assert len(rig.tokens.renewed) == (1 if kind is LoginRequired and calls == 2 else 0)
    if isinstance(error, ApiError):
        assert error.endpoint == "getstationsdata"
        assert isinstance(answer, Exception) or error.status == answer.status_code
    assert {request.url.host for request in rig.requests} == {"api.netatmo.com"}


async def test_refused_token_is_renewed_once(rig: Rig, respx_mock: respx.Router) -> None:
    """After a refused token the call goes once more with the new one, and that is no retry."""
    unwell = httpx.Response(500)
    rig.answers(respx_mock, refusal(403, 3), unwell, unwell, unwell, httpx.Response(200, json=GOOD))

    reply = await rig.call()

    assert reply.body == {"devices": []}
    assert rig.tokens.renewed == [1]
    sent = [request.headers["Authorization"] for request in rig.requests]
    assert sent == [f"Bearer {CANARY}-1", *[f"Bearer {CANARY}-2"] * 4]


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [(None, 1.0, 8.1), ("0", 1.0, 8.1), ("30", 30, 30.1), ("60", 60, 60.1), ("5000", 60, 60.1)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retries_are_spaced(
    rig: Rig, respx_mock: respx.Router, status: int, told: str | None, least: float, most: float
) -> None:
    """Four attempts, 1 to 8 s apart, or as long as `Retry-After` says, up to a minute."""
    headers = {"Retry-After": told} if told else {}
    rig.answers(respx_mock, refusal(status, 11, "crowded", **headers))

    await rig.fails()

    assert len(rig.gaps) == 3
    assert all(least <= gap <= most for gap in rig.gaps)
    assert rig.budget.usage("home").paused_for == 0
    assert rig.budget.usage("home").target == 400


@pytest.mark.parametrize(
    ("message", "others_wait"),
    [
        ("User usage reached", False),
        ("Application usage reached", True),
        ("Maximum api usage reached", False),
    ],
)
async def test_quota_pauses_whom_the_message_names(
    rig: Rig, respx_mock: respx.Router, message: str, others_wait: bool
) -> None:
    """A used-up quota stops the account, or all of them if the message names the application."""
    rig.answers(respx_mock, refusal(403, 26, message))

    error = await rig.fails()

    assert isinstance(error, ApiThrottled)
    assert (error.retry_after, error.code) == (60, 26)
    assert rig.budget.usage("home").paused_for == 60
    assert (rig.budget.usage("other").paused_for > 0) is others_wait


@pytest.mark.parametrize(
    ("message", "all_stop"), [("User usage reached", False), ("Maximum api usage reached", True)]
)
async def test_second_refused_account(
    rig: Rig, respx_mock: respx.Router, message: str, all_stop: bool
) -> None:
    """When another account is paused too, a message that names nobody means the application."""
    rig.budget.refused("other", application=False, retry_after=None)
    rig.answers(respx_mock, refusal(429, 26, message))

    await rig.fails()

    assert (rig.budget.usage("third").paused_for > 0) is all_stop


@pytest.mark.parametrize(
    "told", ["120", "Thu, 09 Oct 2025 08:55:21 GMT", "Thu, 09 Oct 2025 08:55:21 -0000"]
)
async def test_nothing_is_sent_until_the_pause_ends(
    rig: Rig, respx_mock: respx.Router, told: str
) -> None:
    """`Retry-After` of a quota, seconds or a date, holds the next call back that long."""
    rig.clock.step(1_760_000_001 - rig.clock.time())
    rig.answers(
        respx_mock, refusal(429, 26, **{"Retry-After": told}), httpx.Response(200, json=GOOD)
    )

    error = await rig.fails()
    await rig.call()

    assert isinstance(error, ApiThrottled)
    assert error.retry_after == pytest.approx(120, abs=0.01)
    assert rig.gaps == pytest.approx([120], abs=0.1)


async def test_success_starts_the_pauses_again(rig: Rig, respx_mock: respx.Router) -> None:
    """Two quota refusals pause 60 s and 120 s; after a good answer it is 60 s again."""
    full = refusal(429, 26)
    rig.answers(respx_mock, full, full, httpx.Response(200, json=GOOD), full)

    pauses = [getattr(await rig.fails(), "retry_after", 0) for _ in range(2)]
    await rig.call()
    pauses.append(getattr(await rig.fails(), "retry_after", 0))

    assert pauses == [60, 120, 60]


async def test_lost_login_spends_nothing(rig: Rig, respx_mock: respx.Router) -> None:
    """Without a login no call leaves and none is counted."""
    rig.tokens.lost = True

    assert isinstance(await rig.fails(), LoginRequired)
    assert rig.budget.usage("home").hour == 0


async def test_token_is_as_new_as_the_call(rig: Rig, respx_mock: respx.Router) -> None:
    """A token that is renewed while the call waits for the budget is not sent in its old form."""
    rig.answers(respx_mock, httpx.Response(200, json=GOOD))
    rig.clock.auto = False
    await rig.call()
    waiting = asyncio.create_task(rig.call())
    for _ in range(50):
        await asyncio.sleep(0)
    assert rig.clock.sleepers == 1

    await rig.tokens.renew(1)
    rig.clock.advance(2)
    await waiting

    assert rig.requests[-1].headers["Authorization"] == f"Bearer {CANARY}-2"


# --- the same for Legrand's portal (netatmo-api 8.2 to 8.4) ---------------------------------------

PORTAL = dataclasses.replace(
    LEGRAND, paths={"thermostat": "/smarther/v2.0/{plant_id}/value/{module_id}?kept=1"}
)
KEY = "Canary-5F2c81-key"


def portal(status: int, message: str = "something", **headers: str) -> httpx.Response:
    told = {"statusCode": status, "message": message}
    return httpx.Response(status, json=told, headers=headers)


PORTAL_TABLE: tuple[tuple[httpx.Response, type[IngestError], str, int], ...] = (
    (portal(400, "Bad request"), ApiRefused, "bug", 1),
    (portal(400, "Token has expired"), LoginRequired, "", 2),
    # Even with a fresh token: what lacks a scope is told so too.
    (portal(401, "Unauthorized. Access token is missing or invalid."), ApiRefused, "scope", 2),
    (portal(401, "Access denied due to missing subscription key."), ApiRefused, "key", 1),
    (portal(401, "Access denied due to invalid subscription key."), ApiRefused, "key", 1),
    (portal(403, "Out of call volume quota. Quota will be replenished in 02:03:04."), ApiThrottled,
     "", 1),
    (portal(403, "Forbidden"), ApiRefused, "scope", 1),
    (portal(404, "Resource not found"), ApiRefused, "target", 1),
    (portal(408, "Device timeout"), ApiUnavailable, "", 1),
    (portal(429, "Rate limit is exceeded. Try again in 31 seconds."), ApiThrottled, "", 1),
    (portal(430, "Wrong parameters"), ApiRefused, "bug", 1),
    (portal(469, "Official application password expired"), LoginRequired, "", 1),
    (portal(470, "Official application terms and conditions expired"), LoginRequired, "", 1),
    (portal(486, "Busy"), ApiUnavailable, "", 1),
    (portal(500, "Server error"), ApiUnavailable, "", 1),
    (httpx.Response(404, html="<h1>gateway</h1>"), ApiUnavailable, "", 1),
    (httpx.Response(200, text="no JSON"), ApiUnavailable, "", 1),
)  # fmt: skip


@pytest.fixture
def portal_rig(tmp_path: Path, shared_http: httpx.AsyncClient) -> Rig:
    rig = a_rig(tmp_path, shared_http, PORTAL)
    rig.client.key = KEY
    return rig


async def ask_portal(rig: Rig) -> Reply:
    params = {"plant_id": "p/1", "module_id": "m 2"}
    return await rig.client.call("thermostat", params, priority=Priority.LIVE, purpose="live")


@pytest.mark.parametrize(("answer", "kind", "reaction", "calls"), PORTAL_TABLE)
async def test_decision_table_of_the_portal(
    portal_rig: Rig,
    respx_mock: respx.Router,
    answer: httpx.Response,
    kind: type[IngestError],
    reaction: str,
    calls: int,
) -> None:
    """Each status leads to its error; a passing one is left to the next poll: calls are few."""
    portal_rig.answers(respx_mock, answer)

    with pytest.raises(IngestError) as caught:
        await ask_portal(portal_rig)

    assert type(caught.value) is kind
    assert getattr(caught.value, "reaction", "") == reaction
    assert len(portal_rig.sent) == calls == portal_rig.budget.usage("home").hour
    assert not leaks(str(caught.value))


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (portal(429, "Try again in 31 seconds."), 31),
        (portal(429, "Try again in 31 seconds.", **{"Retry-After": "40"}), 40),
        (portal(403, "Out of call volume quota. Quota will be replenished in 02:03:04."), 7384),
        (portal(429, "Slow down"), 60),
    ],
)
async def test_how_long_a_quota_is_used_up(
    portal_rig: Rig, respx_mock: respx.Router, answer: httpx.Response, wait: float
) -> None:
    """As the header says, else the words; the pause is of this account alone."""
    portal_rig.answers(respx_mock, answer)

    with pytest.raises(ApiThrottled) as caught:
        await ask_portal(portal_rig)

    assert caught.value.retry_after == pytest.approx(wait, abs=1)
    assert portal_rig.budget.usage("other").paused_for == 0


async def test_call_of_the_portal(portal_rig: Rig, respx_mock: respx.Router) -> None:
    """Bare body, the time of its header, the key beside the token, ids quoted in the path."""
    answer = httpx.Response(200, json=[1], headers={"Date": "Sat, 14 Mar 2026 12:00:00 GMT"})
    portal_rig.answers(respx_mock, answer, httpx.Response(204))

    reply, none = await ask_portal(portal_rig), await ask_portal(portal_rig)

    assert (reply.body, reply.time_server) == ([1], datetime(2026, 3, 14, 12, tzinfo=UTC))
    assert none.body is None
    request = portal_rig.requests[0]
    assert str(request.url) == (
        "https://api.developer.legrand.com/smarther/v2.0/p%2F1/value/m%202?kept=1"
    )
    assert request.headers["Ocp-Apim-Subscription-Key"] == KEY
    assert request.headers["Authorization"].startswith("Bearer ")


# --- bodies --------------------------------------------------------------------------------------

BODIES: dict[str, bytes] = {
    "NaN": b'{"body": NaN}',
    "Infinity": b'{"body": -Infinity}',
    "overflow": b'{"body": 1e999}',
    "depth": b'{"body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth, open": b'{"a":' * 100_000,
    "digits": b'{"body": ' + b"7" * 5000 + b"}",
    "digits of a float": b'{"body": ' + b"7" * 5000 + b".5}",
    "twice": b'{"body": 1, "body": 2}',
    "latin-1": '{"body": "Küche"}'.encode("latin-1"),
    "utf-16": '{"body": 1}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"body": 1}',
    "surrogate": b'{"body": "\xed\xa0\x80"}',
    "cut": b'{"body": {"devices": [',
    "tail": b'{"body": 1} x',
    "empty": b"",
    "NUL": b"\x00" * 10,
    "list": b"[1, 2]",
    "null": b"null",
    "text": b'"ok"',
    "number": b"12",
    "status": b'{"body": {}, "status": "failed"}',
}


@pytest.mark.parametrize("name", BODIES)
async def test_bad_body_is_worth_another_try(rig: Rig, respx_mock: respx.Router, name: str) -> None:
    """A 200 without a proper envelope is ApiUnavailable after four attempts, never a crash."""
    content = httpx.Response(
        200, content=BODIES[name], headers={"Content-Type": "application/json"}
    )
    rig.answers(respx_mock, content)

    error = await rig.fails()

    assert type(error) is ApiUnavailable
    assert len(rig.sent) == 4
    assert len(str(error)) < 300


@pytest.mark.parametrize("name", BODIES)
async def test_bad_body_of_a_refusal_leaves_the_status(
    rig: Rig, respx_mock: respx.Router, name: str
) -> None:
    """A 429 whose body cannot be read is a used-up quota all the same."""
    headers = {"Content-Type": "application/json"}
    rig.answers(respx_mock, httpx.Response(429, content=BODIES[name], headers=headers))

    assert type(await rig.fails()) is ApiThrottled


async def test_html_with_200_is_no_answer(rig: Rig, respx_mock: respx.Router) -> None:
    """A login page of some portal in between is not taken for data, even if it were JSON."""
    rig.answers(respx_mock, httpx.Response(200, html=json.dumps(GOOD)))

    error = await rig.fails()

    assert type(error) is ApiUnavailable
    assert "text/html" in str(error)


@pytest.mark.parametrize("body", [{"devices": []}, [], {}, None, 0, "text"])
async def test_any_json_may_be_the_body(rig: Rig, respx_mock: respx.Router, body: Any) -> None:
    """The body is passed on as it is; `raw` holds the answer word by word."""
    answer = httpx.Response(200, json={**GOOD, "body": body})
    rig.answers(respx_mock, answer)

    reply = await rig.call()

    assert reply.body == body
    assert reply.raw == answer.content
    assert reply.time_server == datetime.fromtimestamp(1_760_000_000, UTC)


async def test_missing_body_is_no_error(rig: Rig, respx_mock: respx.Router) -> None:
    """An envelope without `body`, as of a home without modules, gives None."""
    rig.answers(respx_mock, httpx.Response(200, json={"status": "ok"}))

    assert (await rig.call()).body is None


@pytest.mark.parametrize(
    "value", ["", ',"time_server":null', *(f',"time_server":{v}' for v in (
        0, -1, "true", '"1760000000"', "[]", "1e300", 10**300, 1_760_000_000_000))]
)  # fmt: skip
async def test_insane_server_time_is_ours(rig: Rig, respx_mock: respx.Router, value: str) -> None:
    """Without a time of this century in the envelope the answer counts as made when it came."""
    content = f'{{"body":{{}}{value}}}'.encode()
    rig.answers(respx_mock, httpx.Response(200, content=content))

    reply = await rig.call()

    assert reply.time_server == reply.received == rig.clock.now()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, None),
        ({"code": 26, "message": "User usage reached"}, ApiThrottled),
        ({"code": 3, "message": "Access token expired"}, LoginRequired),
        ({"code": 77, "message": "odd"}, ApiUnavailable),
        ("odd", ApiUnavailable),
        ([1], ApiUnavailable),
        ({"code": True, "message": 5}, ApiUnavailable),
    ],
)
async def test_error_beside_a_body(
    rig: Rig, respx_mock: respx.Router, error: Any, kind: type[IngestError] | None
) -> None:
    """An error counts even with status 200 and beside a body; an empty one is none."""
    rig.answers(respx_mock, httpx.Response(200, json={**GOOD, "error": error}))

    if kind is None:
        assert (await rig.call()).body == {"devices": []}
    else:
        assert type(await rig.fails()) is kind


# --- what stays inside ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
async def test_token_stands_in_no_message(
    rig: Rig, respx_mock: respx.Router, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A cloud that echoes the token gets it into no error, traceback or log line."""
    caplog.set_level(logging.DEBUG)
    echo = "bad $TOKEN \x1b[31m\n\u2028\ud800 " + "long " * 100
    answers = [
        httpx.Response(status, content=json.dumps({"error": error}), headers={"Content-Type": kind})
        for kind, error in (
            ("application/json", {"code": "$TOKEN", "message": echo}),
            ("application/json", {"code": 21, "message": "$TOKEN " + echo}),
            ("$TOKEN", "$TOKEN"),
        )
    ]
    rig.answers(respx_mock, *answers)

    with structlog.testing.capture_logs() as lines:
        found = [await rig.fails() for _ in range(3)]

    for error in found:
        assert not leaks(repr(error), str(vars(error)), repr(error.__cause__))
        assert str(error).isprintable()
        str(error).encode()
    assert not leaks(caplog.text, str(lines), repr(await rig.tokens.current()))


@pytest.mark.parametrize(
    "endpoint", ["", "../oauth2/token", "x?y=1", "a/b", "a@evil.example", "a#b", "A", "ü"]
)
async def test_odd_endpoint_is_not_sent(rig: Rig, respx_mock: respx.Router, endpoint: str) -> None:
    """Only a plain method name becomes part of an address."""
    rig.answers(respx_mock, httpx.Response(200, json=GOOD))

    error = await rig.fails(endpoint)

    assert isinstance(error, ApiRefused)
    assert error.reaction == "bug"
    assert rig.sent == []


class Fixed(Provider):
    @property
    def hosts(self) -> frozenset[str]:
        return frozenset({"api.netatmo.com"})


@pytest.mark.parametrize(
    "api_url",
    [
        "https://evil.example",
        "https://api.netatmo.com.evil.example",
        "https://api.netatmo.com@evil.example",
        "http://api.netatmo.com",
    ],
)
async def test_other_hosts_get_no_token(
    tmp_path: Path, shared_http: httpx.AsyncClient, respx_mock: respx.Router, api_url: str
) -> None:
    """Neither a host outside the provider's nor plain http is ever sent a request."""
    fields = {each.name: getattr(NETATMO, each.name) for each in dataclasses.fields(NETATMO)}
    rig = a_rig(tmp_path, shared_http, Fixed(**{**fields, "api_url": api_url}))
    rig.answers(respx_mock, httpx.Response(200, json=GOOD))

    error = await rig.fails()

    assert isinstance(error, ApiRefused)
    assert rig.sent == []


async def test_real_cloud_gets_no_purpose_and_no_cookie(rig: Rig, respx_mock: respx.Router) -> None:
    """The real cloud gets neither the purpose of a call nor the cookies it sets."""
    rig.answers(respx_mock, httpx.Response(200, json=GOOD, headers={"Set-Cookie": "a=b"}))

    await rig.call()
    await rig.call()

    for request in rig.requests:
        assert "X-Ingest-Purpose" not in request.headers
        assert "Cookie" not in request.headers
        assert not leaks(str(request.url))
        assert request.url == f"{URL}?get_favorites=false"


KINDS = [
    kind
    for name in httpx.__all__
    if isinstance(kind := getattr(httpx, name), type) and issubclass(kind, Exception)
]
PLAIN = {"HTTPError", "RequestError", "TransportError", "ProtocolError", "HTTPStatusError"}
PLAIN |= {"ProxyError", "DecodingError", "TooManyRedirects"}


def test_every_httpx_exception_is_known() -> None:
    """Each exception that httpx has is in the table by its family, or known to have no other."""
    nearest = {
        kind.__name__: next((each for each in kind.mro() if each in FOREIGN), None)
        for kind in KINDS
    }

    assert [name for name, family in nearest.items() if family is None] == []
    assert {name for name, family in nearest.items() if family is httpx.HTTPError} == PLAIN


@pytest.mark.parametrize("kind", [*KINDS, OSError, ConnectionResetError, TimeoutError])
async def test_every_httpx_exception_becomes_ours(
    rig: Rig, respx_mock: respx.Router, kind: type[Exception]
) -> None:
    """Whatever httpx raises, the caller sees an ApiError with the cause kept."""
    raised = kind.__new__(kind)
    Exception.__init__(raised, "reason")
    rig.answers(respx_mock, raised)

    error = await rig.fails()

    assert isinstance(error, ApiError)
    assert error.__cause__ is raised


# --- a real socket -------------------------------------------------------------------------------

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_server(
    handler: Handler, folder: Path, limit_s: float = 5
) -> AsyncIterator[tuple[Rig, list[bytes]]]:
    """A rig whose cloud is `handler`, called after each request's head, and those heads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.append(task)
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # also when the test ends first
        finally:
            writer.close()

    heads: list[bytes] = []
    tasks: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider = dataclasses.replace(NETATMO, api_url=url, auth_url=url)
    try:
        async with open_http() as http:
            yield a_rig(folder, http, provider, limit_s), heads
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def head(length: int | None, status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def close(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def no_http(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, b"220 mail.example ESMTP\r\n\r\n")


async def huge_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000)


async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(1000), b'{"body": {')


async def cut_gzip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    packed = gzip.compress(json.dumps(GOOD).encode())[:-4]
    await send(writer, head(len(packed), "200 OK", "Content-Encoding: gzip"), packed)


async def no_gzip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(5, "200 OK", "Content-Encoding: gzip"), b"plain")


async def brotli(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(5, "200 OK", "Content-Encoding: br"), b"plain")


async def twice_gzip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(5, "200 OK", "Content-Encoding: gzip, gzip"), b"plain")


async def too_large(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(BODY_MAX + 1), b'{"body": 1}', b" " * (BODY_MAX - 10))


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await send(writer, head(None))
    while True:
        await send(writer, b" " * (1 << 20))


@pytest.mark.parametrize(
    "handler",
    [
        reset,
        close,
        no_http,
        huge_head,
        cut,
        cut_gzip,
        no_gzip,
        brotli,
        twice_gzip,
        too_large,
        endless,
    ],
)
async def test_broken_answer_is_worth_another_try(tmp_path: Path, handler: Handler) -> None:
    """What a broken server does to the connection is ApiUnavailable after four attempts."""
    async with a_server(handler, tmp_path) as (rig, heads):
        error = await rig.fails()

        assert type(error) is ApiUnavailable
        assert len(heads) == 4


@pytest.mark.parametrize("before", [b"", head(100), head(100) + b'{"body"'])
async def test_silent_server_costs_the_limit(tmp_path: Path, before: bytes) -> None:
    """A server that stops before, in or after the head ends with the limit of each attempt."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, before)
        await reader.read()

    async with a_server(silent, tmp_path, limit_s=0.05) as (rig, _):
        error = await rig.fails()

        assert type(error) is ApiUnavailable
        assert "0.05 s" in str(error)
        assert rig.budget.usage("home").hour == 4


async def test_byte_by_byte_costs_the_limit(tmp_path: Path) -> None:
    """A server that sends a byte now and then, so that no read is slow, ends with the limit too."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, head(10_000))
        while not reader.at_eof():
            await send(writer, b" ")
            await asyncio.sleep(0.005)

    async with a_server(drip, tmp_path, limit_s=0.1) as (rig, _):
        started = asyncio.get_running_loop().time()
        error = await rig.fails()

        assert type(error) is ApiUnavailable
        assert asyncio.get_running_loop().time() - started < 10
        assert rig.budget.usage("home").hour == 4


@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests"])
async def test_gzip_bomb_takes_no_memory(tmp_path: Path, status: str) -> None:
    """64 MiB packed into 64 KiB take no more than twice the cap; a refusal keeps its meaning."""
    bomb = gzip.compress(b" " * (64 << 20))

    async def explode(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, head(len(bomb), status, "Content-Encoding: gzip"), bomb)

    async with a_server(explode, tmp_path) as (rig, _):
        tracemalloc.start()
        error = await rig.fails()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert type(error) is (ApiUnavailable if status[0] == "2" else ApiThrottled)
    assert peak < 2.5 * BODY_MAX


@pytest.mark.parametrize("packed", [True, False])
async def test_largest_body_is_read(tmp_path: Path, packed: bool) -> None:
    """A body of exactly the cap is read, packed or not, in however many pieces it comes."""
    whole = b'{"body": 1}' + b" " * (BODY_MAX - 11)
    sent = gzip.compress(whole, 1) if packed else whole
    more = ["Content-Encoding: gzip"] if packed else []

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces = [sent[at : at + 100_001] for at in range(0, len(sent), 100_001)]
        await send(writer, head(len(sent), "200 OK", *more), *pieces)

    async with a_server(answer, tmp_path) as (rig, _):
        reply = await rig.call()

    assert reply.body == 1
    assert len(reply.raw) == BODY_MAX


async def test_simulator_is_told_the_purpose_past_any_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud on this machine is told the purpose; proxies of the environment are ignored."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    content = json.dumps(GOOD).encode()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, head(len(content)), content)

    async with a_server(answer, tmp_path) as (rig, heads):
        await rig.call()

    assert heads[0].startswith(b"GET /api/getstationsdata?get_favorites=false HTTP/1.1\r\n")
    assert b"x-ingest-purpose: live\r\n" in heads[0].lower()


async def test_redirect_is_not_followed(tmp_path: Path) -> None:
    """A redirect, even to the same host, brings the token nowhere."""

    async def away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, head(0, "307 Temporary Redirect", "Location: /elsewhere"))

    async with a_server(away, tmp_path) as (rig, heads):
        error = await rig.fails()

    assert isinstance(error, ApiUnavailable)
    assert error.status == 307
    assert [each.split()[1].partition(b"?")[0] for each in heads] == [b"/api/getstationsdata"] * 4


async def test_cancelled_call_ends_at_once(tmp_path: Path) -> None:
    """Cancelling a call that hangs ends it, without another attempt."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with a_server(silent, tmp_path) as (rig, heads):
        call = asyncio.create_task(rig.call())
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert len(heads) == 1
