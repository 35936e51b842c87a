"""One call of the cloud gives one body or one typed error.

What comes from outside ends here: httpx exceptions, odd encodings, bodies that are no JSON or too
large, error envelopes. The token stands in one header and nowhere else. Renewing it is the work of
`oauth`, counting calls that of `limits`, what a refusal asks for is read in `providers`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol

import httpx

from netatmo_ingestd import __version__, errors
from netatmo_ingestd.bodies import one_line, read_body, read_date, read_error, read_json, read_time
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.limits import Backoff, Budget
from netatmo_ingestd.logs import Redactor
from netatmo_ingestd.models import Json, Priority, Token
from netatmo_ingestd.polls import Reply
from netatmo_ingestd.providers import Provider, Reaction, names_application, told_wait

PASSING = (Reaction.RETRY, Reaction.CROWDED)
RETRY_AFTER_MOST_S = 60.0  # within one call; a longer wait is for the next poll
WEBHOOKS = "webhooks"
_ENDPOINT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOKEN = re.compile(r"[\x21-\x7e]+")

# The families of httpx exceptions, the nearest one counts; a test fails when httpx grows another.
FOREIGN: Mapping[type[Exception], tuple[Reaction, str]] = {
    httpx.ConnectTimeout: (Reaction.RETRY, "no connection in time"),
    httpx.ReadTimeout: (Reaction.RETRY, "the answer stopped"),
    httpx.PoolTimeout: (Reaction.RETRY, "all connections stayed busy"),
    httpx.TimeoutException: (Reaction.RETRY, "no answer in time"),
    httpx.ConnectError: (Reaction.RETRY, "no connection"),
    httpx.NetworkError: (Reaction.RETRY, "the connection broke"),
    httpx.RemoteProtocolError: (Reaction.RETRY, "the answer was cut or is no HTTP"),
    httpx.LocalProtocolError: (Reaction.BUG, "the request is no HTTP"),
    httpx.UnsupportedProtocol: (Reaction.BUG, "the address is neither http nor https"),
    httpx.HTTPError: (Reaction.RETRY, "the request failed"),
    httpx.InvalidURL: (Reaction.BUG, "the address is invalid"),
    httpx.CookieConflict: (Reaction.BUG, "cookies, which are not kept"),
    httpx.StreamError: (Reaction.BUG, "the answer was read wrongly"),
    OSError: (Reaction.RETRY, "the connection broke"),
}
_FAILED = tuple(FOREIGN)


def open_http() -> httpx.AsyncClient:
    """The HTTP client of the program: bounded waits, no redirects, no proxies, no cookies."""
    return httpx.AsyncClient(
        headers={"User-Agent": f"netatmo-ingestd/{__version__}"},
        timeout=httpx.Timeout(connect=10.0, read=20.0, write=10.0, pool=10.0),
        limits=httpx.Limits(max_connections=10, max_keepalive_connections=4, keepalive_expiry=30),
        # One client serves all accounts: a session cookie of one must not reach another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
    )


class Tokens(Protocol):
    """What `oauth.TokenManager` offers; both raise LoginRequired or ApiUnavailable."""

    async def current(self) -> Token: ...
    async def renew(self, refused: int, /) -> Token: ...


@dataclass(eq=False)
class _Trouble(Exception):
    """One attempt failed; what was seen, and what it asks for."""

    reaction: Reaction
    seen: str
    status: int = 0
    code: int | str | None = None
    message: str = ""
    retry_after: float | None = None


@dataclass(kw_only=True)
class Client:
    """Calls of one account.

    call_limit_s  real seconds that one attempt may take from connecting to the last byte
    key           subscription key, for a provider that wants one
    """

    account: str
    provider: Provider
    http: httpx.AsyncClient
    tokens: Tokens
    budget: Budget
    clock: Clock
    call_limit_s: float = 60.0
    key: str = field(default="", repr=False)
    rng: random.Random = field(default_factory=random.Random)

    async def call(
        self,
        endpoint: str,
        params: Mapping[str, str],
        *,
        priority: Priority,
        purpose: str,
        verb: str = "GET",
    ) -> Reply:
        """GET what the provider has at `endpoint`; each attempt waits for the budget first.

        purpose  "live", "trailing", "reread" or "history"; told to a simulated cloud only
        verb     POST sends `params` as JSON; its success, and that of DELETE, may have no body
        Raises   LoginRequired; ApiUnavailable after the provider's retries; ApiThrottled at once;
                 ApiRefused with its `reaction`
        Source   netatmo-api.md 5.2, 8.4
        """
        backoff, renewed = Backoff(2.0, 8.0, rng=self.rng), False
        while True:
            await self.tokens.current()  # a lost login must not spend the budget
            await self.budget.reserve(self.account, priority)
            token = await self.tokens.current()
            try:
                reply = await self._attempt(endpoint, params, token, purpose, verb)
            except _Trouble as trouble:
                if trouble.reaction is Reaction.RENEW and not renewed:
                    renewed = True
                    await self.tokens.renew(token.generation)
                elif trouble.reaction in PASSING and backoff.failures < self.provider.retries:
                    told = min(trouble.retry_after or 0.0, RETRY_AFTER_MOST_S)
                    await self.clock.sleep(max(backoff.next(), told))
                else:
                    raise self._error(endpoint, trouble) from trouble.__cause__
            else:
                self.budget.accepted(self.account)
                return reply

    async def _attempt(
        self, endpoint: str, params: Mapping[str, str], token: Token, purpose: str, verb: str
    ) -> Reply:
        secrets = Redactor()
        secrets.protect("token", [token.access, token.refresh, *([self.key] if self.key else [])])
        try:
            async with asyncio.timeout(self.call_limit_s):
                request = self._request(endpoint, params, token, purpose, verb)
                response = await self.http.send(
                    request, stream=True, auth=None, follow_redirects=False
                )
                async with aclosing(response):
                    raw = await self._body(response)
        except TimeoutError as error:
            seen = f"no whole answer within {self.call_limit_s:g} s"
            raise _Trouble(Reaction.RETRY, seen) from error
        except _FAILED as error:
            reaction, seen = next(FOREIGN[kind] for kind in type(error).mro() if kind in FOREIGN)
            raise _Trouble(reaction, f"{seen} ({type(error).__name__})") from error
        if verb != "GET" and response.is_success and not raw.strip():
            raw = b"{}"
            response.headers.pop("Content-Type", None)
        return self._read(response, raw, secrets)

    def _request(
        self, endpoint: str, params: Mapping[str, str], token: Token, purpose: str, verb: str
    ) -> httpx.Request:
        if not _TOKEN.fullmatch(token.access):
            raise _Trouble(Reaction.RELOGIN, "the saved token has characters no token has")
        headers = {
            "Authorization": f"Bearer {token.access}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",  # decompressed here, with a bound
        }
        if self.provider.key_header:
            headers[self.provider.key_header] = self.key
        if self.provider.loopback:
            headers["X-Ingest-Purpose"] = purpose
        url, rest = self.provider.address(endpoint, params)
        # Without any, httpx would take away those that stand in the address.
        sent: dict[str, Any] = {"json" if verb == "POST" else "params": rest} if rest else {}
        request = self.http.build_request(verb, url, headers=headers, **sent)
        safe = request.url.scheme == "https" or self.provider.loopback
        known = request.url.host in self.provider.hosts and _ENDPOINT.fullmatch(endpoint)
        if not (known and safe):
            raise _Trouble(Reaction.BUG, f"{url} is not an address of {self.provider.name}")
        return request

    async def _body(self, response: httpx.Response) -> bytes:
        """The decoded body; empty when it cannot be read and the status says enough."""
        try:
            return await read_body(response)
        except _FAILED:
            if response.status_code < 400:
                raise
        except ValueError as error:
            if response.status_code < 400:
                seen = f"HTTP {response.status_code}, bad answer: {error}"
                raise _Trouble(Reaction.RETRY, seen, response.status_code) from error
        return b""

    def _read(self, response: httpx.Response, raw: bytes, secrets: Redactor) -> Reply:
        status = response.status_code
        kind = secrets.clean(response.headers.get("Content-Type", "application/json")).lower()
        envelope: Json = None
        problem = f"its type is {one_line(kind)}"
        if "json" in kind:
            try:
                envelope = read_json(raw)
                problem = "it is no envelope"
            except ValueError as error:
                problem = one_line(secrets.clean(str(error)))
        if 200 <= status < 300:
            received = self.clock.now()
            if self.provider.bare and (status == 204 or isinstance(envelope, (dict, list))):
                told = read_date(response.headers.get("Date", "")) or received
                return Reply(envelope, told, received, raw)
            good = isinstance(envelope, dict) and not envelope.get("error")
            if not self.provider.bare and good and envelope.get("status", "ok") == "ok":
                time_server = read_time(envelope.get("time_server")) or received
                return Reply(envelope.get("body"), time_server, received, raw)
        code, message = read_error(envelope)
        message = secrets.clean(message)
        reaction = self.provider.refusal(status, code, message)
        seen = f"HTTP {status}"
        if code is not None:
            code = one_line(secrets.clean(code)) if isinstance(code, str) else code
            seen += f", code {code}"
        if code is not None or message:
            seen += f' "{one_line(message)}"'
        elif status < 400:
            seen += f", bad answer: {problem}"
        wait = self._retry_after(response)
        wait = told_wait(message) if wait is None else wait
        raise _Trouble(reaction, seen, status, code, message, wait)

    def _retry_after(self, response: httpx.Response) -> float | None:
        """Seconds of the header (RFC 9110: a number or a date); None without a sane one."""
        text = response.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        moment = read_date(text)
        return None if moment is None else max(0.0, moment.timestamp() - self.clock.time())

    def _error(self, endpoint: str, trouble: _Trouble) -> errors.IngestError:
        seen, reaction = trouble.seen, trouble.reaction
        if reaction is Reaction.RENEW and self.provider.bare and "expired" not in seen.lower():
            reaction = Reaction.SCOPE  # even with a fresh token: 401 is also what lacks a scope
        login = f"Run: netatmo-ingestd login --account {self.account}"
        if reaction in (Reaction.RENEW, Reaction.RELOGIN, Reaction.TERMS):
            cure = f"the login is refused ({seen}). {login}"
            if reaction is Reaction.TERMS:
                cure = f"new terms wait to be accepted ({seen}). Accept them in the cloud's app"
            return errors.LoginRequired(f"{endpoint}: {cure}", account=self.account, refused=True)
        facts: Any = {"endpoint": endpoint, "status": trouble.status, "code": trouble.code}
        if reaction in PASSING:
            tries = self.provider.retries + 1
            attempts = f"{tries} attempts" if tries > 1 else "one attempt"
            text = f"{endpoint}: {seen}, {attempts}; it is asked again at its next turn"
            return errors.ApiUnavailable(text, **facts)
        if reaction is Reaction.PAUSE:
            pause = self.budget.refused(
                self.account,
                application=names_application(trouble.message),
                retry_after=trouble.retry_after,
                # Where there is a quota of the day, it is the user's.
                unclear=not self.provider.per_day and "user" not in trouble.message.lower(),
            )
            text = f"{endpoint}: a quota is used up ({seen}); nothing is sent for {pause:.0f} s"
            return errors.ApiThrottled(text, retry_after=pause, **facts)
        advice = {
            Reaction.SCOPE: f"the login lacks a scope, or the method is retired. {login}",
            Reaction.TARGET: "this login sees no such device; it is asked again in a day",
            Reaction.KEY: f"set subscription_key of account {self.account} to an active one",
        }.get(reaction, self.provider.wrong)
        text = f"{endpoint}: refused ({seen}), {advice}"
        return errors.ApiRefused(text, reaction=reaction.value, **facts)
