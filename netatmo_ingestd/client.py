"""One call gives one body or one typed error. The only place that talks to the data methods.

Foreign exceptions stop here. Bodies are streamed with a cap on what they unpack to (httpx unpacks
gzip without a limit: 113 KiB became 120 MB), and an outer limit of real time (its timeouts are per
read: a byte a second never ends). Requests go to the provider's hosts alone; no redirects, no
proxies from the environment. The token stands in no message.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import httpx

from netatmo_ingestd import __version__
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ApiError, ApiRefused, ApiThrottled, ApiUnavailable, LoginRequired
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Json, Priority, Reply, Token
from netatmo_ingestd.providers import Provider, Reaction, names_application, read_refusal

BODY_BYTES = 8 << 20
DIGITS = 400  # of one number; a longer one takes quadratic time to read
CALL_LIMIT_S = 60.0
TRIES = 4
CROWDED_S = (1.0, 8.0)
RETRY_S = (2.0, 10.0)
RETRY_AFTER_MOST_S = 60.0
PURPOSE_HEADER = "X-Ingest-Purpose"  # the simulator counts by it; the real cloud never gets it

# Every httpx error by what it means to us; a test fails when httpx grows one that is not here.
UNAVAILABLE: Mapping[type[Exception], str] = {
    httpx.TimeoutException: "no answer in time",
    httpx.NetworkError: "the connection failed",
    httpx.ProtocolError: "the connection broke the protocol",
    httpx.ProxyError: "the proxy failed",
    httpx.UnsupportedProtocol: "the address has no scheme we speak",
    httpx.DecodingError: "the body does not unpack",
    httpx.TooManyRedirects: "redirected without end",
    httpx.InvalidURL: "the address is no address",
    httpx.StreamError: "the body broke off",
    httpx.CookieConflict: "cookies conflict",
    httpx.HTTPStatusError: "an error status",
}


class Tokens(Protocol):
    """What this file needs of oauth.TokenManager."""

    async def current(self) -> Token: ...
    async def renew(self, refused: int) -> Token: ...


def open_http() -> httpx.AsyncClient:
    """The HTTP client that every call of this program uses."""
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(10.0, connect=10.0, read=20.0),
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=10),
        headers={"User-Agent": f"netatmo-ingestd/{__version__}", "Accept": "application/json"},
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back on the wire."""

    status: int
    retry_after: float | None
    json: bool
    body: bytes


class Client:
    """The data methods with one account's login.

    call_limit_s  real time for one attempt
    """

    def __init__(
        self,
        *,
        account: str,
        provider: Provider,
        http: httpx.AsyncClient,
        tokens: Tokens,
        budget: Budget,
        clock: Clock,
        call_limit_s: float = CALL_LIMIT_S,
        rng: random.Random | None = None,
    ) -> None:
        self._account = account
        self._provider = provider
        self._http = http
        self._tokens = tokens
        self._budget = budget
        self._clock = clock
        self._call_limit_s = call_limit_s
        self._rng = rng or random.Random()  # noqa: S311  # jitter

    async def call(
        self, endpoint: str, params: Mapping[str, str], *, priority: Priority, purpose: str
    ) -> Reply:
        """GET /api/<endpoint>, repeated as the decision table says (netatmo-api 5.2).

        purpose  "live", "trailing", "reread" or "history"
        Raises   ApiUnavailable, ApiThrottled, ApiRefused, LoginRequired
        """
        renewed = False
        tries = 0
        token = await self._tokens.current()
        while True:
            tries += 1
            await self._budget.reserve(self._account, priority)
            try:
                return await self._attempt(endpoint, params, token, purpose)
            except _Refusal as refusal:
                if refusal.reaction is Reaction.RENEW and not renewed:
                    renewed, tries = True, tries - 1
                    token = await self._tokens.renew(token.generation)
                    continue
                wait = self._wait(refusal, tries)
                if wait is None:
                    self._give_up(endpoint, refusal)
            await self._clock.sleep(wait)

    async def _attempt(
        self, endpoint: str, params: Mapping[str, str], token: Token, purpose: str
    ) -> Reply:
        answer = await self._send(endpoint, params, token, purpose)
        if answer.status != 200:
            raise _refusal(endpoint, answer)
        envelope = _decode(endpoint, answer)
        self._budget.accepted(self._account)
        received = self._clock.now()
        return Reply(
            body=envelope.get("body"),
            time_server=_server_time(envelope.get("time_server"), received),
            received=received,
            raw=answer.body,
        )

    async def _send(
        self, endpoint: str, params: Mapping[str, str], token: Token, purpose: str
    ) -> _Answer:
        url = f"{self._provider.api_url}/api/{endpoint}"
        if urlsplit(url).hostname not in self._provider.hosts:
            raise ApiRefused(
                f"{endpoint}: {url} is not one of the cloud's hosts",
                endpoint=endpoint,
                status=0,
                code=None,
                reaction="bug",
            )
        headers = {"Authorization": f"Bearer {token.access}"}
        if self._provider.loopback:
            headers[PURPOSE_HEADER] = purpose
        try:
            async with asyncio.timeout(self._call_limit_s):
                request = self._http.build_request("GET", url, params=params, headers=headers)
                response = await self._http.send(request, stream=True)
                try:
                    return await _read(endpoint, response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            raise _Refusal(
                Reaction.RETRY,
                ApiUnavailable(f"{endpoint}: {_what(error)}", endpoint=endpoint),
            ) from error

    def _wait(self, refusal: _Refusal, tries: int) -> float | None:
        """Seconds until the call is repeated; None to give up."""
        if tries >= TRIES:
            return None
        if refusal.reaction is Reaction.CROWDED:
            if refusal.retry_after is not None:
                return min(RETRY_AFTER_MOST_S, refusal.retry_after)
            return self._rng.uniform(*CROWDED_S)
        if refusal.reaction is Reaction.RETRY:
            return self._rng.uniform(*RETRY_S) * 2.0 ** (tries - 1)
        return None

    def _give_up(self, endpoint: str, refusal: _Refusal) -> NoReturn:
        error, reaction = refusal.error, refusal.reaction
        if reaction is Reaction.PAUSE:
            pause = self._budget.refused(
                self._account,
                application=names_application(str(error)),
                retry_after=refusal.retry_after,
            )
            raise ApiThrottled(
                f"{error}; paused for {pause:.0f} s",
                endpoint=endpoint,
                status=error.status,
                code=error.code,
                retry_after=pause,
            ) from error
        if reaction in (Reaction.RENEW, Reaction.RELOGIN):
            raise LoginRequired(
                f"{error}; the login of {self._account} is refused. "
                f"Run: netatmo-ingestd login --account {self._account}",
                account=self._account,
            ) from error
        if reaction in (Reaction.SCOPE, Reaction.TARGET, Reaction.BUG):
            raise ApiRefused(
                str(error),
                endpoint=endpoint,
                status=error.status,
                code=error.code,
                reaction=reaction.value,
            ) from error
        raise error


class _Refusal(Exception):
    """A failed attempt, between reading it and deciding what to do."""

    def __init__(
        self, reaction: Reaction, error: ApiError, retry_after: float | None = None
    ) -> None:
        super().__init__(str(error))
        self.reaction = reaction
        self.error = error
        self.retry_after = retry_after


# --- reading ------------------------------------------------------------------------------------


async def _read(endpoint: str, response: httpx.Response) -> _Answer:
    body = bytearray()
    async for chunk in response.aiter_bytes(64 << 10):
        body += chunk
        if len(body) > BODY_BYTES:
            raise _bad(endpoint, response.status_code, f"a body of over {BODY_BYTES} bytes")
    seconds = response.headers.get("Retry-After", "")
    return _Answer(
        status=response.status_code,
        retry_after=float(seconds) if seconds.isascii() and seconds.isdigit() else None,
        json="json" in response.headers.get("Content-Type", ""),
        body=bytes(body),
    )


def _decode(endpoint: str, answer: _Answer) -> dict[str, Json]:
    """The envelope of a good answer; what is no proper JSON object is worth another try."""
    try:
        envelope = _strict_json(answer.body)
    except (ValueError, RecursionError) as error:
        raise _bad(endpoint, answer.status, f"no proper JSON ({str(error)[:80]})") from error
    if not isinstance(envelope, dict):
        raise _bad(endpoint, answer.status, "JSON that is no object")
    if "error" in envelope and "body" not in envelope:
        raise _refusal(endpoint, answer)
    return envelope


def _strict_json(body: bytes) -> Json:
    """UTF-8 JSON without NaN, endless numbers, overflowing ones or repeated keys."""

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    def integer(digits: str) -> int:
        if len(digits) > DIGITS:
            raise ValueError(f"an integer of {len(digits)} digits")
        return int(digits)

    def decimal(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{digits[:20]} is beyond every number")
        return value

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return found

    return json.loads(
        body.decode("utf-8"),
        parse_constant=constant,
        parse_int=integer,
        parse_float=decimal,
        object_pairs_hook=unique,
    )


def _refusal(endpoint: str, answer: _Answer) -> _Refusal:
    code, message = _error_of(answer)
    reaction = read_refusal(answer.status, code, message)
    shown = message or ("redirected" if 300 <= answer.status < 400 else "no readable reason")
    text = f"{endpoint}: refused ({answer.status}, code {code}): {shown}"
    error = ApiUnavailable(text, endpoint=endpoint, status=answer.status, code=code)
    return _Refusal(reaction, error, answer.retry_after)


def _error_of(answer: _Answer) -> tuple[int | str | None, str]:
    """(code, message) of an error body: the envelope, or OAuth's {"error": "…"}."""
    if not answer.json:
        return None, ""
    try:
        found: Any = _strict_json(answer.body)
    except (ValueError, RecursionError):
        return None, ""
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        readable = isinstance(code, (int, str)) and not isinstance(code, bool)
        return code if readable else None, message[:200] if isinstance(message, str) else ""
    return None, error[:200] if isinstance(error, str) else ""


def _bad(endpoint: str, status: int, what: str) -> _Refusal:
    error = ApiUnavailable(f"{endpoint}: answered {what}", endpoint=endpoint, status=status)
    return _Refusal(Reaction.RETRY, error)


def _server_time(value: Json, received: datetime) -> datetime:
    """The cloud's clock when it told a sane time, else ours."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 9e8 < value < 4.2e9:
        return datetime.fromtimestamp(int(value), UTC)
    return received


def _what(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = next((text for kind, text in UNAVAILABLE.items() if isinstance(error, kind)), "failed")
    return f"{text} ({type(error).__name__})"
