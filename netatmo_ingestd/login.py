"""The four ways to a login: browser, pasted address, pasted refresh token, password.

Each ends with a token saved under the lock of `oauth`, one generation on, so a running daemon
picks it up by itself. An older login stays usable until the new one is on disk. Nothing here
prints: what the operator must see goes through `say`.
"""

from __future__ import annotations

import asyncio
import errno
import getpass
import hmac
import html
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import Busy, ConfigError, OAuthError
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.oauth import (
    TokenFile,
    TokenFileError,
    digest,
    is_token,
    oauth_error,
    request_token,
    to_the_end,
    token_lock,
)
from netatmo_ingestd.providers import Provider

CONSENT_LIMIT_S = 600.0
VISIT_LIMIT_S = 5.0
HEAD_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What the four ways share.

    folder   of the account (`oauth.token_folder`)
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
    REDACTOR.protect(f"login:{request.account}", [state, verifier, request.client_secret])
    url = prepare_grant_uri(
        request.provider.authorize_url,
        client_id=request.client_id,
        response_type="code",
        redirect_uri=request.redirect_uri,
        scope=list(request.scopes),
        state=state,
        code_challenge=create_s256_code_challenge(verifier),
        code_challenge_method="S256",
    )
    return Consent(url=str(url), state=state, verifier=verifier)


async def login_with_paste(address: str, request: LoginRequest, consent: Consent) -> LoginResult:
    """Take the address of the page that failed to load, or its `code=…&state=…` part."""
    code = read_callback(address, consent.state, account=request.account)
    return await _login_with_code(code, request, consent)


async def login_with_refresh_token(token: str, request: LoginRequest) -> LoginResult:
    """Take a refresh token, e.g. of the token generator at dev.netatmo.com, and prove it."""
    token = token.strip()
    if not is_token(token):
        raise ConfigError(
            f"refresh token: {len(token)} characters that cannot be one; "
            "paste the whole refresh token, on one line"
        )
    REDACTOR.protect(f"login:{request.account}", [token, request.client_secret])
    return await _log_in(request, "refresh_token", refresh_token=token)


async def login_with_password(user: str, password: str, request: LoginRequest) -> LoginResult:
    """grant_type=password, for servers that still take it. The password is not kept."""
    REDACTOR.protect(f"login:{request.account}", [password, request.client_secret])
    try:
        return await _log_in(
            request,
            "password",
            username=user,
            password=password,
            scope=list(request.scopes),
        )
    except OAuthError as error:
        if error.code != "unauthorized_client":
            raise
        raise OAuthError(
            f"account {request.account}: the cloud takes no password from this app (Netatmo "
            f"refuses it to all since July 2023); {error.cure}",
            code=error.code,
            status=error.status,
            cure=error.cure,
            final=True,
        ) from error


async def login_with_browser(
    request: LoginRequest, *, say: Callable[[str], None], limit_s: float = CONSENT_LIMIT_S
) -> LoginResult:
    """Show the consent page's address and wait on loopback for the browser to come back.

    say      receives the lines for the operator, the address alone on one of them
    limit_s  real time for all of it
    Raises   Busy (port in use), OAuthError (refused, or nobody came), ApiUnavailable
    """
    consent = authorization_url(request)
    callback = _Callback(request, consent)
    async with callback:
        port = callback.port
        say("Open this page in a browser on this machine and accept:")
        say(consent.url)
        say("No browser here? On the machine that has one, run this first and keep it open:")
        say(f"  ssh -L {port}:localhost:{port} {_user()}@{socket.gethostname()}")
        say(f"Waiting for the browser at {request.redirect_uri} …")
        try:
            async with asyncio.timeout(limit_s):
                code = await callback.code
        except TimeoutError:
            raise OAuthError(
                f"account {request.account}: no browser came back within {limit_s / 60:.0f} min; "
                f"log in again: netatmo-ingestd login --account {request.account}",
                code="timeout",
                status=0,
                cure=f"log in again: netatmo-ingestd login --account {request.account}",
                final=False,
            ) from None
    return await _login_with_code(code, request, consent)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


# --- what the browser brings back ---------------------------------------------------------------


def read_callback(address: str, state: str, *, account: str) -> str:
    """The code in a callback address or its query; pure.

    Raises OAuthError: a foreign state (compared in constant time), a refusal, no code
    """
    text = address.strip().strip("<>\"'")
    query = urlsplit(text).query if "?" in text else text.rpartition("?")[2]
    try:
        given = parse_qs(query, max_num_fields=20)
    except ValueError:
        given = {}
    login = f"netatmo-ingestd login --account {account}"
    seen = given.get("state", [""])
    error = given.get("error", [""])[0]
    if not any(name in given for name in ("code", "error")):
        raise _refused(
            account,
            "no_code",
            "there is no code in this address; accept on the consent page, then copy the whole "
            "address of the page that fails to load",
        )
    if len(seen) != 1 or not hmac.compare_digest(seen[0].encode(), state.encode()):
        raise _refused(
            account, "state_mismatch", f"this answer belongs to another login; start anew: {login}"
        )
    if error:
        raise oauth_error(error, status=0, account=account)
    if len(given["code"]) != 1 or not re.fullmatch(r"[\x21-\x7e]{1,2048}", given["code"][0]):
        raise _refused(account, "no_code", f"the code is cut or garbled; start anew: {login}")
    return given["code"][0]


def _refused(account: str, code: str, cure: str) -> OAuthError:
    return OAuthError(f"account {account}: {cure}", code=code, status=0, cure=cure, final=True)


class _Callback:
    """A listener on loopback that takes one good answer; everything else is turned away."""

    def __init__(self, request: LoginRequest, consent: Consent) -> None:
        parts = urlsplit(request.redirect_uri)
        self.port = parts.port or 80
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._account = request.account
        self._state = consent.state
        self._path = parts.path
        self._hosts = {f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
        self._servers: list[asyncio.Server] = []
        self._visits: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Callback:
        # Both: a browser may take "localhost" for either, and a foreign process on the other
        # one would receive the code.
        for host in ("127.0.0.1", "::1"):
            try:
                self._servers.append(
                    await asyncio.start_server(self._visit, host, self.port, limit=HEAD_MAX)
                )
            except OSError as error:
                if host == "::1" and error.errno != errno.EADDRINUSE:
                    continue  # no IPv6 here
                await self.__aexit__()
                raise Busy(
                    f"login.port: port {self.port} of {host} cannot be opened "
                    f"({error.strerror}); end what holds it, or set [login] port to another one, "
                    "here and on the app's page"
                ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        if self._visits:
            await asyncio.wait(self._visits)  # each has its own limit
        for server in self._servers:
            await server.wait_closed()
        if self.code.done() and not self.code.cancelled():
            self.code.exception()

    def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outcome: str | OAuthError | None = None
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
            self._settle(outcome)

    def _settle(self, outcome: str | OAuthError | None) -> None:
        if outcome is None or self.code.done():
            return
        if isinstance(outcome, OAuthError):
            self.code.set_exception(outcome)
        else:
            self.code.set_result(outcome)

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
        if self.code.done():
            return "409 Conflict", "This login has its answer already.", None
        try:
            code = read_callback(f"?{query}", self._state, account=self._account)
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
    REDACTOR.protect(
        f"login:{request.account}",
        [code, consent.state, consent.verifier, request.client_secret],
    )
    return await _log_in(
        request,
        "authorization_code",
        code=code,
        redirect_uri=request.redirect_uri,
        scope=list(request.scopes),
        code_verifier=consent.verifier,
    )


async def _log_in(request: LoginRequest, grant_type: str, **fields: object) -> LoginResult:
    """One exchange, saved. A Ctrl-C meanwhile takes effect after it: the answer may be a pair."""
    await request.reserve()
    task = asyncio.create_task(_exchange(request, grant_type, fields))
    await to_the_end(task)
    return task.result()


async def _exchange(
    request: LoginRequest, grant_type: str, fields: dict[str, object]
) -> LoginResult:
    file = TokenFile(request.folder / "token.json")
    async with token_lock(request.folder):
        old, unfit = await asyncio.to_thread(_in_place, file)
        asked = request.clock.time()
        sent = digest(str(fields.get("refresh_token", "")))
        note = {"generation": old.generation if old else 0, "sent": sent, "time": asked}
        await asyncio.to_thread(file.reserve, note)
        try:
            grant = await request_token(
                request.http,
                request.provider,
                request.account,
                grant_type,
                client_id=request.client_id,
                client_secret=request.client_secret,
                **fields,
            )
        except OAuthError:
            file.release()
            raise
        REDACTOR.protect(f"login:{request.account}", [grant.access, grant.refresh])
        token = grant.token(asked=asked, generation=old.generation + 1 if old else 1)
        aside = await asyncio.to_thread(file.set_aside) if unfit else None
        await asyncio.to_thread(file.save, token)
    request.log.info("login.saved", account=request.account, generation=token.generation)
    granted = token.scopes if grant.scopes is not None else request.scopes
    missing = tuple(scope for scope in request.scopes if scope not in granted)
    return LoginResult(granted, missing, token.generation, aside)


def _in_place(file: TokenFile) -> tuple[Token | None, bool]:
    """The login that is there, and whether it is a file that a new one may replace."""
    try:
        return file.recover(), False
    except TokenFileError as error:
        if error.kind in ("owner", "unreadable", "full"):
            raise
        return None, True
