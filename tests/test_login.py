"""The four ways to log in, against a consent page and a token endpoint that keep the rules."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd import login
from netatmo_ingestd.errors import ApiUnavailable, Busy, ConfigError, OAuthError
from netatmo_ingestd.login import Consent, LoginRequest, LoginResult
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.tokenfile import TokenFile, TokenFileError, make_folder, token_lock
from tests.clocks import START, HandClock

SECRET = "canary-client-secret"
PASSWORD = "canary-password"
CLIENT = "0123456789abcdef01234567"


class Server:
    """A token endpoint for each grant; a code works once and only with its PKCE verifier."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.codes: dict[str, str] = {}
        self.answer: httpx.Response | None = None
        self.granted: list[str] | None = ["read_station"]
        self.gate = asyncio.Event()
        self.gate.set()

    def consent(self, url: str) -> str:
        """The user accepts: the query that comes back."""
        asked = {key: value[0] for key, value in parse_qs(urlsplit(url).query).items()}
        self.codes["canary-code"] = asked["code_challenge"]
        return f"state={asked['state']}&code=canary-code"

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        form = {key: value[0] for key, value in parse_qs(request.content.decode()).items()}
        self.forms.append(form)
        await self.gate.wait()
        assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)
        if self.answer is not None:
            return self.answer
        if form["grant_type"] == "authorization_code":
            challenge = self.codes.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            if challenge != base64.urlsafe_b64encode(digest).decode().rstrip("="):
                return httpx.Response(400, json={"error": "invalid_grant"})
        return httpx.Response(
            200,
            json={
                "access_token": "canary-access",
                "refresh_token": "canary-refresh",
                "scope": self.granted,
                "expires_in": 10800,
            },
        )


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    debug = warning = error = info


async def at_once() -> None:
    return


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    with respx.mock(assert_all_called=False) as router:
        router.post(NETATMO.token_url).mock(side_effect=server)
        yield server


@pytest.fixture
async def request_(tmp_path: Path, port: int) -> AsyncIterator[LoginRequest]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield LoginRequest(
            account="home",
            folder=tmp_path / "tokens" / "home",
            provider=NETATMO,
            client_id=CLIENT,
            client_secret=SECRET,
            scopes=("read_station",),
            redirect_uri=f"http://localhost:{port}/callback",
            http=http,
            clock=HandClock(),
            reserve=at_once,
            log=Log(),
        )


def saved(request: LoginRequest) -> Token | None:
    return TokenFile(request.folder / "token.json").load()


# --- the consent page's address -----------------------------------------------------------------


def test_address_of_the_consent_page(request_: LoginRequest) -> None:
    """The address asks for the account's scopes only, with state and an S256 challenge."""
    request = replace(request_, scopes=("read_station", "read_homecoach"))

    consent = login.authorization_url(request)

    assert consent.url.startswith("https://api.netatmo.com/oauth2/authorize?")
    given = {key: value[0] for key, value in parse_qs(urlsplit(consent.url).query).items()}
    challenge = hashlib.sha256(consent.verifier.encode()).digest()
    assert given == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": request.redirect_uri,
        "scope": "read_station read_homecoach",
        "state": consent.state,
        "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    assert consent.verifier not in consent.url
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", consent.verifier)


def test_state_is_fresh_each_time(request_: LoginRequest) -> None:
    """No two visits share state or verifier."""
    visits = [login.authorization_url(request_) for _ in range(20)]

    assert len({visit.state for visit in visits}) == 20
    assert len({visit.verifier for visit in visits}) == 20
    assert min(len(visit.state) for visit in visits) >= 32


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8735/callback?state=right&code=the-code",
        "  'http://localhost:8735/callback?code=the-code&state=right&x=1#top'\n",
        "<http://localhost:8735/callback?code=the-code&state=right>",
        "code=the-code&state=right",
        "?code=the%2Dcode&state=right",
        "localhost:8735/callback?code=the-code&state=right",
    ],
)
def test_code_in_an_address(address: str) -> None:
    """The code is found in a whole address, in its query, and in what copying leaves around it."""
    assert login.read_callback(address, "right", account="home") == "the-code"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://localhost:8735/callback?state=wrong&code=x", "state_mismatch"),
        ("code=x", "state_mismatch"),
        ("state=&code=x", "state_mismatch"),
        ("state=right&state=right&code=x", "state_mismatch"),
        ("state=rigä&code=x", "state_mismatch"),
        ("error=access_denied&state=wrong", "state_mismatch"),
        ("error=access_denied", "state_mismatch"),
        ("error=access_denied&state=right", "access_denied"),
        ("error=<script>&state=right", "?script?"),
        ("error=invalid_scope&state=right&code=x", "invalid_scope"),
        ("state=right&code=x&code=y", "no_code"),
        ("state=right&code=a%0d%0ab", "no_code"),
        ("https://api.netatmo.com/oauth2/authorize?client_id=1&state=right", "no_code"),
        ("state=\udcff&code=x", "state_mismatch"),
        ("", "no_code"),
        ("http://[", "no_code"),
        ("&" * 5000, "no_code"),
        ("&".join(f"a{number}=1" for number in range(100)), "no_code"),
    ],
)
def test_address_without_a_code_of_ours(address: str, code: str) -> None:
    """A foreign state, a refusal, or no code: each is one error with a cure, on one line."""
    with pytest.raises(OAuthError) as caught:
        login.read_callback(address, "right", account="home")

    assert caught.value.code == code
    assert caught.value.cure
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_pasted_text_is_answered(text: str) -> None:
    """No pasted text fails with anything but the typed error."""
    with pytest.raises(OAuthError):
        login.read_callback(text, "a-state-nobody-types", account="home")


# --- pasted address -----------------------------------------------------------------------------


async def test_paste(server: Server, request_: LoginRequest) -> None:
    """A pasted address becomes a saved login, exchanged with the verifier and the same redirect."""
    consent = login.authorization_url(request_)
    query = server.consent(consent.url)

    result = await login.login_with_paste(f"{request_.redirect_uri}?{query}", request_, consent)

    assert result == LoginResult(("read_station",), (), 1)
    assert server.forms[0]["redirect_uri"] == request_.redirect_uri
    assert server.forms[0]["scope"] == "read_station"
    assert saved(request_) == Token(
        access="canary-access",
        refresh="canary-refresh",
        expires=START + 10800,
        lifetime=10800.0,
        scopes=("read_station",),
        generation=1,
    )


async def test_paste_of_another_login(server: Server, request_: LoginRequest) -> None:
    """An address with the state of another login is refused before any call."""
    query = server.consent(login.authorization_url(request_).url)

    with pytest.raises(OAuthError):
        await login.login_with_paste(query, request_, login.authorization_url(request_))

    assert server.forms == []
    assert saved(request_) is None


async def test_missing_scope_is_reported(server: Server, request_: LoginRequest) -> None:
    """A scope that the user did not grant is named in the result of a login that is saved."""
    request = replace(request_, scopes=("read_station", "read_homecoach"))

    result = await login.login_with_refresh_token("canary-refresh-0", request)

    assert result.missing == ("read_homecoach",)
    assert result.scopes == ("read_station",)


# --- refresh token and password -----------------------------------------------------------------


async def test_refresh_token(server: Server, request_: LoginRequest) -> None:
    """A pasted refresh token is proved by one call, and what came back is saved."""
    await login.login_with_refresh_token(" abc|canary-refresh-0\n", request_)

    assert server.forms == [
        {
            "grant_type": "refresh_token",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "refresh_token": "abc|canary-refresh-0",
        }
    ]
    token = saved(request_)
    assert token is not None
    assert token.refresh == "canary-refresh"


@pytest.mark.parametrize("text", ["", "short", "two words of text", "x" * 9000, "abcdefß"])
async def test_text_that_is_no_refresh_token(
    text: str, server: Server, request_: LoginRequest
) -> None:
    """Text that cannot be a refresh token is refused without a call and without repeating it."""
    with pytest.raises(ConfigError) as caught:
        await login.login_with_refresh_token(text, request_)

    assert server.forms == []
    assert not text or text not in str(caught.value)


async def test_password(server: Server, request_: LoginRequest) -> None:
    """A server that takes passwords gets it once; it is in no file afterwards."""
    await login.login_with_password("me@example.org", PASSWORD, request_)

    assert server.forms[0]["username"] == "me@example.org"
    assert server.forms[0]["scope"] == "read_station"
    assert saved(request_) is not None
    for path in request_.folder.iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


async def test_password_refused(server: Server, request_: LoginRequest) -> None:
    """Netatmo's refusal of passwords is explained, and the way that works is named."""
    server.answer = httpx.Response(400, json={"error": "unauthorized_client"})

    with pytest.raises(
        OAuthError, match=r"July 2023.*netatmo-ingestd login --account home"
    ) as caught:
        await login.login_with_password("me@example.org", PASSWORD, request_)

    assert PASSWORD not in str(caught.value)
    assert saved(request_) is None


async def test_wrong_password(server: Server, request_: LoginRequest) -> None:
    """Any other refusal keeps its own explanation."""
    server.answer = httpx.Response(400, json={"error": "invalid_client"})

    with pytest.raises(OAuthError, match="client_secret"):
        await login.login_with_password("me@example.org", PASSWORD, request_)


# --- beside what is there -----------------------------------------------------------------------


def place(request: LoginRequest, **changes: Any) -> TokenFile:
    make_folder(request.folder)
    file = TokenFile(request.folder / "token.json")
    token = Token("canary-old", "canary-old-refresh", START + 9, 10800.0, (), 7)
    file.save(replace(token, **changes))
    return file


async def test_running_daemon_picks_it_up(server: Server, request_: LoginRequest) -> None:
    """A login over an older one is the next generation, and a running manager uses it at once."""
    place(request_)
    manager = TokenManager(
        account="home",
        folder=request_.folder,
        provider=NETATMO,
        client_id=CLIENT,
        client_secret=SECRET,
        http=request_.http,
        clock=request_.clock,
        reserve=at_once,
        log=request_.log,
    )
    assert manager.status()["generation"] == 7

    result = await login.login_with_refresh_token("canary-refresh-0", request_)

    assert result.generation == 8
    assert (await manager.current()).access == "canary-access"
    assert len(server.forms) == 1
    assert ("login.saved", {"account": "home", "generation": 8}) in request_.log.lines


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, json={"error": "invalid_grant"}),
        httpx.Response(500),
        httpx.Response(200, json={"access_token": None, "refresh_token": None}),
    ],
)
async def test_failed_login_keeps_the_old_one(
    answer: httpx.Response, server: Server, request_: LoginRequest
) -> None:
    """A login that fails leaves the one in place as it was."""
    before = place(request_).path.read_bytes()
    server.answer = answer

    with pytest.raises((OAuthError, ApiUnavailable)):
        await login.login_with_refresh_token("canary-refresh-0", request_)

    assert (request_.folder / "token.json").read_bytes() == before


async def test_disk_is_tried_first(server: Server, request_: LoginRequest) -> None:
    """When the login could not be saved, the code or refresh token is not spent."""
    place(request_).next.mkdir()

    with pytest.raises(TokenFileError, match="cannot be written"):
        await login.login_with_refresh_token("canary-refresh-0", request_)

    assert server.forms == []


async def test_damaged_file_is_kept_aside(server: Server, request_: LoginRequest) -> None:
    """A login replaces a damaged file, keeps that one beside it, and says where."""
    path = place(request_).path
    path.write_bytes(b"damaged")

    result = await login.login_with_refresh_token("canary-refresh-0", request_)

    assert result.set_aside is not None
    assert result.set_aside.read_bytes() == b"damaged"
    assert saved(request_) is not None


async def test_failed_login_leaves_a_damaged_file(server: Server, request_: LoginRequest) -> None:
    """A damaged file is moved only once there is a new login to put in its place."""
    path = place(request_).path
    path.write_bytes(b"damaged")
    server.answer = httpx.Response(500)

    with pytest.raises(ApiUnavailable):
        await login.login_with_refresh_token("canary-refresh-0", request_)

    assert path.read_bytes() == b"damaged"


async def test_foreign_file_is_not_replaced(server: Server, request_: LoginRequest) -> None:
    """A token file of another user is left alone: that user's daemon could not read ours."""
    path = place(request_).path
    try:
        os.chown(path, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")

    with pytest.raises(TokenFileError, match="12345"):
        await login.login_with_refresh_token("canary-refresh-0", request_)

    assert server.forms == []


async def test_login_waits_for_a_refresh(server: Server, request_: LoginRequest) -> None:
    """While a daemon refreshes, a login sends nothing; then it comes after it."""
    async with token_lock(request_.folder):
        task = asyncio.create_task(login.login_with_refresh_token("canary-refresh-0", request_))
        for _ in range(50):
            await asyncio.sleep(0)
        assert server.forms == []
        place(request_)

    assert (await task).generation == 8


async def test_interrupted_login_is_saved(server: Server, request_: LoginRequest) -> None:
    """Ctrl-C while the answer is on its way takes effect after it is saved."""
    server.gate.clear()
    task = asyncio.create_task(login.login_with_refresh_token("canary-refresh-0", request_))
    async with asyncio.timeout(10):
        while not server.forms:  # noqa: ASYNC110 - the call starts after work in a thread
            await asyncio.sleep(0.001)

    task.cancel()
    await asyncio.sleep(0)
    server.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert saved(request_) is not None


# --- the browser --------------------------------------------------------------------------------


class Terminal:
    """What the operator reads; `url` is there once it was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("Waiting"):
            self.said.set()

    @property
    def url(self) -> str:
        return next(line for line in self.lines if line.startswith("https://"))


async def visit(port: int, target: str, *, host: str = "", at: str = "127.0.0.1") -> str:
    """Status line, headers and body of one GET."""
    reader, writer = await asyncio.open_connection(at, port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {host or f'localhost:{port}'}\r\n\r\n".encode())
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


Start = Callable[..., Coroutine[Any, Any, tuple[asyncio.Task[LoginResult], Terminal]]]


@pytest.fixture
def start(request_: LoginRequest) -> Start:
    async def start(
        request: LoginRequest = request_, limit_s: float = 30.0
    ) -> tuple[asyncio.Task[LoginResult], Terminal]:
        terminal = Terminal()
        task = asyncio.create_task(login.login_with_browser(request, say=terminal, limit_s=limit_s))
        await terminal.said.wait()
        return task, terminal

    return start


async def test_browser(server: Server, request_: LoginRequest, port: int, start: Start) -> None:
    """The browser comes back with the code, reads a page, and the login is saved."""
    task, terminal = await start()

    page = await visit(port, f"/callback?{server.consent(terminal.url)}")

    assert page.startswith("HTTP/1.1 200 OK\r\n")
    assert "canary-code" not in page
    assert "Referrer-Policy: no-referrer" in page
    assert (await task).scopes == ("read_station",)
    assert saved(request_) is not None
    assert any(f"ssh -L {port}:localhost:{port} " in line for line in terminal.lines)


async def test_browser_over_ipv6(server: Server, port: int, start: Start) -> None:
    """A browser that takes localhost for ::1 is served too."""
    task, terminal = await start()
    try:
        page = await visit(port, f"/callback?{server.consent(terminal.url)}", at="::1")
    except OSError:
        task.cancel()
        pytest.skip("this machine has no IPv6 loopback")

    assert "200 OK" in page
    await task


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/callback?state=wrong&code=stolen", "", "400"),
        ("/callback?code=stolen", "", "400"),
        ("/callback", "", "400"),
        ("/callback?error=access_denied", "", "400"),
        ("/", "", "404"),
        ("/favicon.ico", "", "404"),
        ("{good}", "evil.example:{port}", "421"),
        ("{good}", "localhost", "421"),
        ("{good}", "localhost:{port}\r\nHost: localhost:{port}", "421"),
    ],
)
async def test_visit_that_decides_nothing(
    target: str, host: str, status: str, server: Server, port: int, start: Start
) -> None:
    """A wrong state, path or Host is turned away, and the right answer is still taken after it."""
    task, terminal = await start()
    good = f"/callback?{server.consent(terminal.url)}"

    page = await visit(port, target.format(good=good), host=host.format(port=port))

    assert page.startswith(f"HTTP/1.1 {status} ")
    assert server.forms == []
    await visit(port, good)
    await task


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n", b"x" * 100_000, b"\r\n\r\n"],
)
async def test_garbage_visitor(garbage: bytes, server: Server, port: int, start: Start) -> None:
    """A visitor that speaks something else, or leaves early, disturbs nobody."""
    task, terminal = await start()

    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(garbage)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    await visit(port, f"/callback?{server.consent(terminal.url)}")

    await task


async def test_idle_connection_delays_nothing(server: Server, port: int, start: Start) -> None:
    """A connection that a browser opened in advance and never used does not hold up the login."""
    task, terminal = await start()
    _, idle = await asyncio.open_connection("127.0.0.1", port)

    await visit(port, f"/callback?{server.consent(terminal.url)}")

    async with asyncio.timeout(login.VISIT_LIMIT_S / 2):
        await task
    idle.close()
    with contextlib.suppress(OSError):
        await idle.wait_closed()


async def test_scopes_that_are_not_told(server: Server, request_: LoginRequest) -> None:
    """An answer without scopes counts as having granted what was asked for."""
    server.granted = None

    result = await login.login_with_refresh_token("canary-refresh-0", request_)

    assert result == LoginResult(("read_station",), (), 1)


async def test_only_one_code(server: Server, port: int, start: Start) -> None:
    """Of two answers with the right state only the first is exchanged."""
    task, terminal = await start()
    good = f"/callback?{server.consent(terminal.url)}"

    pages = await asyncio.gather(visit(port, good), visit(port, good))

    await task
    assert len(server.forms) == 1
    assert sum("200 OK" in page for page in pages) >= 1


async def test_denied_on_the_consent_page(server: Server, port: int, start: Start) -> None:
    """Pressing "no" ends the login with the cure."""
    task, terminal = await start()
    state = parse_qs(urlsplit(terminal.url).query)["state"][0]

    page = await visit(port, f"/callback?error=access_denied&state={state}")

    assert page.startswith("HTTP/1.1 400 ")
    with pytest.raises(OAuthError, match="access_denied"):
        await task
    assert server.forms == []


async def test_nobody_comes(server: Server, port: int, start: Start) -> None:
    """Without a browser the login ends at its limit and frees the port."""
    task, _ = await start(limit_s=0.05)

    with pytest.raises(OAuthError, match="no browser came back"):
        await task

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_port_in_use(host: str, request_: LoginRequest, port: int) -> None:
    """A port that another program holds, on either loopback address, is one line with its cure."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        try:
            other.bind((host, port))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        other.listen()

        with pytest.raises(Busy, match=r"login\.port: port \d+ of .*\[login\] port"):
            await login.login_with_browser(request_, say=lambda _: None)


async def test_page_escapes_what_it_repeats(server: Server, port: int, start: Start) -> None:
    """What a visitor sends never becomes markup of the page."""
    task, terminal = await start()
    state = parse_qs(urlsplit(terminal.url).query)["state"][0]

    page = await visit(port, f"/callback?error=%3Cscript%3Ealert(1)&state={state}")

    assert "<script" not in page
    with pytest.raises(OAuthError):
        await task


# --- secrets ------------------------------------------------------------------------------------


async def test_no_secret_is_told(server: Server, request_: LoginRequest) -> None:
    """No secret of a login stands in a log event or a repr, and all are redacted anywhere else."""
    consent = login.authorization_url(request_)

    result = await login.login_with_paste(server.consent(consent.url), request_, consent)

    told = f"{request_.log.lines} {result} {saved(request_)} {replace(request_, log=None)}"
    assert "canary" not in told
    assert "canary" not in REDACTOR.clean("canary-access canary-refresh")
    assert consent.state not in repr(replace(consent, url=""))
    assert isinstance(consent, Consent)
