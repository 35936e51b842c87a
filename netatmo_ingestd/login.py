"""The four ways to a login: browser, pasted address, pasted refresh token, password.

Each ends with a token saved under the lock of `tokenfile`, one generation on, so a running daemon
picks it up by itself. An older login stays usable until the new one is on disk. Nothing here
prints: what the operator must see goes through `say`.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import html
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from netatmo_ingestd import grants, tokenfile, waits
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import Busy, ConfigError, OAuthError
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.providers import NETATMO, Provider

CONSENT_LIMIT_S = 600.0
VISIT_LIMIT_S = 5.0
SECRET_FIELDS = ("code", "code_verifier", "password", "refresh_token")


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What the four ways share.

    folder   of the account (`tokenfile.token_folder`)
    scopes   of the account's products
    reserve  waits for one call of the budget
    """

    account: str
    folder: Path
    provider: Provider
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]
    redirect_uri: str
    http: httpx.AsyncClient
    clock: Clock
    reserve: Callable[[], Awaitable[None]]
    log: Any

    @property
    def sent_scopes(self) -> list[str] | None:
        """What a request names; None where they are those of the app."""
        return list(self.scopes) if self.provider.sends_scope else None


@dataclass(frozen=True, slots=True)
class Consent:
    """One visit of the consent page; `url` opens it."""

    url: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoginResult:
    """A saved login.

    missing    scopes that were asked for and not granted
    set_aside  where a damaged older file was moved to
    """

    scopes: tuple[str, ...]
    missing: tuple[str, ...]
    generation: int
    set_aside: Path | None = None


def authorization_url(request: LoginRequest) -> Consent:
    """The consent page with a fresh state and PKCE challenge."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    _protect(request, state, verifier)
    url = prepare_grant_uri(
        request.provider.authorize_url,
        client_id=request.client_id,
        response_type="code",
        redirect_uri=request.redirect_uri,
        scope=request.sent_scopes,
        state=state,
        code_challenge=create_s256_code_challenge(verifier),
        code_challenge_method="S256",
    )
    return Consent(url=str(url), state=state, verifier=verifier)


async def login_with_paste(address: str, request: LoginRequest, consent: Consent) -> LoginResult:
    """Take the address of the page that failed to load, or its `code=…&state=…` part."""
    portal = request.provider.portal
    code = read_callback(address, consent.state, account=request.account, portal=portal)
    return await _login_with_code(code, request, consent)


async def login_with_refresh_token(token: str, request: LoginRequest) -> LoginResult:
    """Take a refresh token, e.g. of the token generator of the app's page, and prove it."""
    token = token.strip()
    if not grants.is_token(token):
        raise ConfigError(f"refresh token: {len(token)} characters are none; paste all of it")
    return await _log_in(request, "refresh_token", refresh_token=token)


async def login_with_password(user: str, password: str, request: LoginRequest) -> LoginResult:
    """grant_type=password, for servers that still take it. The password is not kept."""
    scope = list(request.scopes)
    try:
        return await _log_in(request, "password", username=user, password=password, scope=scope)
    except OAuthError as error:
        if error.code != "unauthorized_client":
            raise
        why = "the cloud takes no password from this app (Netatmo: from none since July 2023)"
        raise _refused(request.account, error.code, f"{why}; {error.cure}", error.status) from error


async def login_with_browser(
    request: LoginRequest, *, say: Callable[[str], None], limit_s: float = CONSENT_LIMIT_S
) -> LoginResult:
    """Show the consent page's address and wait on loopback for the browser to come back.

    say      receives the lines for the operator, the address alone on one of them
    limit_s  real time for all of it
    Raises   Busy (port in use), OAuthError (refused, or nobody came), ApiUnavailable
    """
    consent = authorization_url(request)
    async with _Callback(request, consent) as callback:
        port = callback.port
        say("Open this page in a browser on this machine and accept:")
        say(consent.url)
        say("No browser here? On the machine that has one, run this first and keep it open:")
        say(f"  ssh -L {port}:localhost:{port} USER@{socket.gethostname()}")
        say(f"Waiting for the browser at {request.redirect_uri} …")
        try:
            async with asyncio.timeout(limit_s):
                outcome = await callback.outcome
        except TimeoutError:
            text = (
                f"no browser came back in {limit_s:.0f} s; start anew: {_command(request.account)}"
            )
            raise _refused(request.account, "timeout", text) from None
    if isinstance(outcome, OAuthError):
        raise outcome
    return await _login_with_code(outcome, request, consent)


def _command(account: str) -> str:
    return f"netatmo-ingestd login --account {account}"


def _refused(account: str, code: str, cure: str, status: int = 0) -> OAuthError:
    return OAuthError(f"account {account}: {cure}", code=code, status=status, cure=cure, final=True)


# --- what the browser brings back ---------------------------------------------------------------


def read_callback(address: str, state: str, *, account: str, portal: str = NETATMO.portal) -> str:
    """The code in a callback address or its query; pure.

    Raises OAuthError: a foreign state (compared in constant time), a refusal, no code
    """
    text = address.strip().strip("<>\"'")
    query = urlsplit(text).query if "?" in text else text.rpartition("?")[2]
    try:
        given = parse_qs(query, max_num_fields=20)
    except ValueError:
        given = {}
    state_given, error = given.get("state", []), given.get("error", [""])[0]
    if "code" not in given and "error" not in given:
        todo = (
            "accept on the consent page, then copy the whole address of the page that fails to load"
        )
        raise _refused(account, "no_code", f"there is no code in this address; {todo}")
    again = f"start anew: {_command(account)}"
    states = [text.encode("utf-8", "surrogatepass") for text in (*state_given, state)]
    if len(states) != 2 or not hmac.compare_digest(*states):
        raise _refused(account, "state_mismatch", f"this answer belongs to another login; {again}")
    if error:
        raise grants.oauth_error(error, status=0, account=account, portal=portal)
    if len(given["code"]) != 1 or not re.fullmatch(r"[\x21-\x7e]{1,4096}", given["code"][0]):
        raise _refused(account, "no_code", f"the code is cut or garbled; {again}")
    return given["code"][0]


class _Callback:
    """A listener on loopback that takes one good answer; everything else is turned away."""

    def __init__(self, request: LoginRequest, consent: Consent) -> None:
        parts = urlsplit(request.redirect_uri)
        self.port = parts.port or 80
        self.outcome: asyncio.Future[str | OAuthError] = asyncio.get_running_loop().create_future()
        self._account = request.account
        self._portal = request.provider.portal
        self._state = consent.state
        self._path = parts.path
        self._hosts = {f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
        self._servers: list[asyncio.Server] = []
        self._visits: set[asyncio.Task[Any] | None] = set()

    async def __aenter__(self) -> _Callback:
        # Both: a browser may take "localhost" for either, and a foreign process on the other
        # one would receive the code.
        for host in ("127.0.0.1", "::1"):
            try:
                self._servers.append(await asyncio.start_server(self._serve, host, self.port))
            except OSError as error:
                if host == "::1" and error.errno != errno.EADDRINUSE:
                    continue  # no IPv6 here
                await self.__aexit__()
                raise Busy(
                    f"login.port: port {self.port} of {host} cannot be opened "
                    f"({os.strerror(error.errno or 0)}); end what holds it, or set [login] port "
                    "to another one, here and on the app's page"
                ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in filter(None, self._visits):
            task.cancel()  # a browser opens connections in advance and leaves them idle
        for server in self._servers:
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outcome: str | OAuthError | None = None
        self._visits.add(task := asyncio.current_task())
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(VISIT_LIMIT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    status, text, outcome = self._answer(head.decode("latin-1"))
                    writer.write(_page(status, text))
                    await writer.drain()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._visits.discard(task)
            if outcome is not None and not self.outcome.done():
                self.outcome.set_result(outcome)

    def _answer(self, head: str) -> tuple[str, str, str | OAuthError | None]:
        """Status, text for the human, and what the visit decides (None: nothing)."""
        first, _, rest = head.partition("\r\n")
        verb, _, target = first.partition(" ")
        path, _, query = target.rpartition(" ")[0].partition("?")
        hosts = re.findall(r"(?im)^host:[ \t]*(\S*)[ \t]*\r?$", rest)
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "421 Misdirected Request", "This address is not served here.", None
        if verb != "GET" or path != self._path:
            return "404 Not Found", "There is nothing here.", None
        if self.outcome.done():
            return "409 Conflict", "This login has its answer already.", None
        try:
            code = read_callback(
                f"?{query}", self._state, account=self._account, portal=self._portal
            )
        except OAuthError as error:
            # Any page can send a browser here: only an answer with our state decides.
            ours = error.code not in ("state_mismatch", "no_code")
            return "400 Bad Request", f"No login: {error}", error if ours else None
        return "200 OK", "The code has arrived. See the terminal for the result.", code


def _page(status: str, text: str) -> bytes:
    body = (
        "<!doctype html><meta charset=utf-8><title>netatmo_ingestd</title>"
        f"<h1>netatmo_ingestd</h1><p>{html.escape(text)}</p>"
    ).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'\r\n\r\n"
    )
    return head.encode() + body


# --- the exchange -------------------------------------------------------------------------------


async def _login_with_code(code: str, request: LoginRequest, consent: Consent) -> LoginResult:
    return await _log_in(
        request,
        "authorization_code",
        code=code,
        redirect_uri=request.redirect_uri,
        scope=request.sent_scopes,
        code_verifier=consent.verifier,
    )


async def _log_in(request: LoginRequest, grant_type: str, **fields: Any) -> LoginResult:
    """One exchange, saved. A Ctrl-C meanwhile takes effect after it: the answer may be a pair."""
    _protect(request, *(fields[name] for name in fields if name in SECRET_FIELDS))
    fields |= {"client_id": request.client_id, "client_secret": request.client_secret}
    await request.reserve()
    task = asyncio.create_task(_exchange(request, grant_type, fields))
    await waits.to_the_end(task)
    return task.result()


def _protect(request: LoginRequest, *more: str) -> None:
    REDACTOR.protect(f"login:{request.account}", [request.client_secret, *more])


async def _exchange(request: LoginRequest, grant_type: str, fields: dict[str, Any]) -> LoginResult:
    file = tokenfile.TokenFile(request.folder / "token.json")
    async with tokenfile.token_lock(request.folder):
        old, unfit = await asyncio.to_thread(_in_place, file)
        asked = request.clock.time()
        sent = tokenfile.digest(str(fields.get("refresh_token", "")))
        note = {"generation": old.generation if old else 0, "sent": sent, "time": asked}
        await asyncio.to_thread(file.reserve, note)
        try:
            grant = await grants.request_token(
                request.http, request.provider, request.account, grant_type, **fields
            )
        except OAuthError:
            file.release()
            raise
        _protect(request, grant.access, grant.refresh)
        if grant.scopes is None:  # not told: what was asked for
            grant = replace(grant, scopes=request.scopes)
        token = grant.token(asked=asked, generation=old.generation + 1 if old else 1)
        aside = await asyncio.to_thread(file.set_aside) if unfit else None
        await asyncio.to_thread(file.save, token)
    request.log.info("login.saved", account=request.account, generation=token.generation)
    missing = tuple(scope for scope in request.scopes if scope not in token.scopes)
    return LoginResult(token.scopes, missing, token.generation, aside)


def _in_place(file: tokenfile.TokenFile) -> tuple[Token | None, bool]:
    """The login that is there, and whether it is a file that a new one may replace."""
    try:
        return file.recover(), False
    except tokenfile.TokenFileError as error:
        if error.kind in ("owner", "unreadable", "full"):
            raise
        return None, True
