"""The login on disk and its refresh: no token is lost, none is used before it is safe."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import math
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd import grants, tokenfile
from netatmo_ingestd.errors import ApiUnavailable, Busy, LoginRequired, OAuthError
from netatmo_ingestd.grants import parse_token_answer
from netatmo_ingestd.logs import EVENTS, REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.providers import NETATMO, OAUTH_CURES
from netatmo_ingestd.tokenfile import TokenFile, TokenFileError
from tests.clocks import START, HandClock

SECRET = "canary-client-secret"


def a_token(**changes: Any) -> Token:
    token = Token(
        access="canary-access-1",
        refresh="canary-refresh-1",
        expires=START + 10800,
        lifetime=10800.0,
        scopes=("read_station",),
        generation=1,
    )
    return replace(token, **changes)


class StrictCloud:
    """A token endpoint that replaces both tokens at each use and refuses every older one.

    answers  taken first, one for each call; then it answers by its rules
    gate     each call waits here, after the pair was replaced
    """

    def __init__(self) -> None:
        self.number = 1
        self.asked: list[str] = []
        self.answers: list[httpx.Response | Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_commit: Callable[[], None] = lambda: None

    @property
    def refresh(self) -> str:
        return f"canary-refresh-{self.number}"

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        form = {key: value[0] for key, value in parse_qs(request.content.decode()).items()}
        assert form["grant_type"] == "refresh_token"
        assert form["client_secret"] == SECRET
        self.asked.append(form["refresh_token"])
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if form["refresh_token"] != self.refresh:
            return httpx.Response(400, json={"error": "invalid_grant"})
        self.number += 1
        self.on_commit()
        await self.gate.wait()
        return httpx.Response(200, json=self.pair())

    def pair(self) -> dict[str, Any]:
        return {
            "access_token": f"canary-access-{self.number}",
            "refresh_token": self.refresh,
            "scope": ["read_station"],
            "expires_in": 10800,
            "expire_in": 10800,
        }


class Log:
    """Collects events; each must be in the documented list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def _add(self, event: str, **fields: Any) -> None:
        assert event in EVENTS
        self.lines.append((event, fields))

    debug = info = warning = error = _add

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - files and threads have no event to wait for
            await asyncio.sleep(0.001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokens" / "home"
    tokenfile.make_folder(folder)
    return folder


@pytest.fixture
def file(folder: Path) -> TokenFile:
    file = TokenFile(folder / "token.json")
    file.save(a_token())
    return file


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def cloud() -> AsyncIterator[StrictCloud]:
    cloud = StrictCloud()
    with respx.mock(assert_all_called=False) as router:
        router.post(NETATMO.token_url).mock(side_effect=cloud)
        yield cloud


Build = Callable[..., TokenManager]


@pytest.fixture
async def build(folder: Path, clock: HandClock, log: Log) -> AsyncIterator[Build]:
    """Makes managers of the account "home"; all are closed at the end."""
    made: list[TokenManager] = []
    async with httpx.AsyncClient(trust_env=False) as http:

        async def at_once() -> None:
            return

        def make(reserve: Callable[[], Awaitable[None]] = at_once) -> TokenManager:
            manager = TokenManager(
                account="home",
                folder=folder,
                provider=NETATMO,
                client_id="0123456789abcdef01234567",
                client_secret=SECRET,
                http=http,
                clock=clock,
                reserve=reserve,
                log=log,
            )
            made.append(manager)
            return manager

        yield make
        for manager in made:
            await manager.close()


# --- the answer ---------------------------------------------------------------------------------

GOOD = {"access_token": "access-1", "refresh_token": "a|b-refresh", "expires_in": 10800}


def answer(**changes: Any) -> bytes:
    data = {**GOOD, **changes}
    return json.dumps({key: value for key, value in data.items() if value != "absent"}).encode()


@pytest.mark.parametrize(
    ("changes", "lifetime"),
    [
        ({}, 10800),
        ({"expires_in": "10800"}, 10800),
        ({"expires_in": 1.5}, 1.5),
        ({"expires_in": "absent", "expire_in": 7200}, 7200),
        ({"expires_in": "absent"}, 3600),
        ({"expires_in": "soon"}, 3600),
        ({"expires_in": None}, 3600),
        ({"expires_in": True}, 3600),
        ({"expires_in": -1}, 3600),
        ({"expires_in": 0}, 3600),
        ({"expires_in": 1e300}, 3600),
        ({"expires_in": math.nan}, 3600),
        ({"expires_in": [1]}, 3600),
    ],
)
def test_life_of_an_answer(changes: dict[str, Any], lifetime: float) -> None:
    """Either spelling of the life counts, as number or digits; nonsense means an hour."""
    grant = parse_token_answer(200, answer(**changes), account="home")

    assert grant.lifetime == lifetime
    assert (grant.access, grant.refresh) == ("access-1", "a|b-refresh")


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (["read_station", "read_thermostat"], ("read_station", "read_thermostat")),
        ("read_station read_thermostat", ("read_station", "read_thermostat")),
        ([], ()),
        (["a", 1, None], ("a",)),
        (7, None),
        ("absent", None),
    ],
)
def test_scopes_of_an_answer(scope: Any, scopes: tuple[str, ...] | None) -> None:
    """Scopes come as a list or as one text; anything else is as if they were not told."""
    assert parse_token_answer(200, answer(scope=scope), account="home").scopes == scopes


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (502, b"<html>Bad gateway</html>"),
        (503, b'{"error": "server_error"}'),
        (429, b""),
        (302, answer()),
        (200, b""),
        (200, b"<html>maintenance</html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"[" * 60_000),
        (200, b"\xff\xfe"),
        (200, b'{"expires_in": ' + b"9" * 5000 + b"}"),
        (200, answer(access_token=None, refresh_token=None)),
        (200, answer(access_token="absent")),
        (200, answer(refresh_token="")),
        (200, answer(refresh_token="x" * 9000)),
        (200, answer(access_token="two\r\nlines")),
        (200, answer(access_token=["list"])),
    ],
)
def test_no_pair_of_tokens(status: int, body: bytes) -> None:
    """What holds no pair of tokens is a passing failure with the status, on one line."""
    with pytest.raises(ApiUnavailable) as caught:
        parse_token_answer(status, body, account="home")

    assert caught.value.status == status
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [*OAUTH_CURES, "consent_expired", "we\nird" + "x" * 100])
def test_each_refusal_has_a_cure(code: str) -> None:
    """Every OAuth error, known or not, is one typed error that names the account and a cure."""
    with pytest.raises(OAuthError) as caught:
        parse_token_answer(400, json.dumps({"error": code}).encode(), account="home")

    error = caught.value
    assert error.final == (code in OAUTH_CURES and OAUTH_CURES[code].final)
    assert error.cure
    assert error.cure in str(error)
    assert "home" in str(error)
    assert "{" not in str(error)
    assert "\n" not in str(error)


def test_numeric_code_of_a_dead_refresh_token() -> None:
    """Code 30 of the data endpoints' envelope is read as invalid_grant."""
    with pytest.raises(OAuthError) as caught:
        parse_token_answer(403, b'{"error": {"code": 30, "message": "x"}}', account="home")

    assert caught.value.code == "invalid_grant"


@given(st.integers(100, 599), st.binary(max_size=200) | st.just(answer()))
def test_any_answer_is_a_grant_or_a_typed_error(status: int, body: bytes) -> None:
    """No answer makes the parser fail with anything but its two errors."""
    try:
        grant = parse_token_answer(status, body, account="home")
    except (ApiUnavailable, OAuthError):
        return

    assert grant.access
    assert grant.refresh


# --- the file -----------------------------------------------------------------------------------


def test_round_trip_and_modes(file: TokenFile) -> None:
    """A saved login reads back equal from a 0600 file, alone in a 0700 folder."""
    assert file.load() == a_token()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == ["token.json"]


def test_no_file(folder: Path) -> None:
    """No file is no login, not an error."""
    assert TokenFile(folder / "token.json").load() is None


def test_folder_is_closed_to_others(tmp_path: Path) -> None:
    """A folder that others could enter is closed when the lock is taken."""
    folder = tmp_path / "tokens" / "home"
    folder.mkdir(parents=True)
    folder.chmod(0o755)

    tokenfile.make_folder(folder)

    assert folder.stat().st_mode & 0o777 == 0o700


@given(st.data())
def test_damage_is_always_noticed(data: st.DataObject) -> None:
    """A cut or altered file is reported as damaged; it never gives a wrong token."""
    with tempfile.TemporaryDirectory() as name:
        file = TokenFile(Path(name) / "token.json")
        file.save(a_token())
        good = file.path.read_bytes()
        at = data.draw(st.integers(0, len(good) - 1))
        cut = data.draw(st.booleans())
        bad = good[:at] if cut else good[:at] + bytes([good[at] ^ 0x15]) + good[at + 1 :]
        file.path.write_bytes(bad)

        with pytest.raises(TokenFileError) as caught:
            file.load()

        assert caught.value.kind == "damaged"
        assert "canary" not in str(caught.value)


def _open_to_others(path: Path) -> None:
    path.chmod(0o644)


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


def _damaged(path: Path) -> None:
    path.write_bytes(b"\0" * 300)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


UNFIT = {
    "open": (_open_to_others, "chmod 600"),
    "symlink": (_linked, "symbolic link"),
    "owner": (_foreign, "12345"),
    "damaged": (_damaged, "netatmo-ingestd login --account home"),
    "folder": (_a_folder, "token.json"),
}


@pytest.mark.parametrize("kind", UNFIT)
async def test_unfit_file_is_reported_and_left(
    kind: str, file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """An unfit token file is not used, not overwritten, and the reason is told once."""
    spoil, hint = UNFIT[kind]
    spoil(file.path)
    before = file.path.lstat()
    manager = build()
    clock.advance(20_000)

    for _ in range(3):
        with pytest.raises(LoginRequired, match=hint):
            await manager.current()

    assert manager.state == "none"
    assert hint in manager.status()["cure"]
    assert cloud.asked == []
    assert file.path.lstat().st_ino == before.st_ino
    assert log.events == ["login.file"]


async def test_unfit_file_while_running(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """A file that becomes unfit costs no poll while the token lives, and heals by itself."""
    manager = build()
    token = await manager.current()
    file.path.chmod(0o644)

    assert await manager.current() == token
    clock.advance(10_800)
    with pytest.raises(ApiUnavailable):
        await manager.current()
    assert cloud.asked == []
    file.path.chmod(0o600)

    assert (await manager.current()).generation == 2
    assert log.events.count("login.file") == 1


def test_save_that_was_cut_off_is_finished(file: TokenFile) -> None:
    """A complete newer token that was not renamed yet is adopted; the login is not lost."""
    newer = a_token(refresh="canary-refresh-2", generation=2)
    file.save(newer)
    file.path.rename(file.next)

    assert file.load() is None
    assert file.recover() == newer
    assert file.load() == newer
    assert not file.next.exists()


@pytest.mark.parametrize("left", [b"", b"{", b" " * 16384, b'{"asking": 3}', b"[1]"])
def test_rest_of_a_save_is_no_login(file: TokenFile, left: bytes) -> None:
    """A reservation or half a token beside the login changes nothing."""
    file.next.write_bytes(left)
    file.next.chmod(0o600)

    assert file.recover() == a_token()
    assert file.unanswered("canary-refresh-1") is None


def test_leftover_that_others_can_read(file: TokenFile) -> None:
    """A reservation that is open to others does not make the login open to them."""
    file.next.write_bytes(b"")
    file.next.chmod(0o644)

    file.save(a_token(generation=2))

    assert file.path.stat().st_mode & 0o777 == 0o600


def test_older_leftover_is_not_adopted(file: TokenFile) -> None:
    """An older complete token beside a newer one stays where it is."""
    file.path.rename(file.next)
    other = TokenFile(file.path.with_name("other.json"))
    other.save(a_token(generation=5))
    other.path.rename(file.path)

    recovered = file.recover()

    assert recovered is not None
    assert recovered.generation == 5


# --- one refresh --------------------------------------------------------------------------------


async def test_good_token_is_used(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """While two thirds of its life last, a token is used without any call."""
    manager = build()
    clock.advance(7_199)

    assert await manager.current() == a_token()
    assert manager.state == "ok"
    assert cloud.asked == []


async def test_twenty_callers_one_refresh(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Twenty callers with an expired token cause one token call and share its result."""
    manager = build()
    clock.advance(10_800)

    tokens = await asyncio.gather(*(manager.current() for _ in range(20)))

    assert {token.generation for token in tokens} == {2}
    assert cloud.asked == ["canary-refresh-1"]
    assert file.load() == tokens[0]


async def test_due_token_is_refreshed_behind_the_callers(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """With a third of the life left, callers go on with the old token while the new one is made."""
    manager = build()
    cloud.gate.clear()
    clock.advance(7_200)

    assert (await manager.current()).generation == 1
    await until(lambda: cloud.asked != [])
    assert (await manager.current()).generation == 1
    assert manager.state == "stale"
    cloud.gate.set()
    await until(lambda: manager.status()["generation"] == 2)

    assert (await manager.current()).refresh == cloud.refresh
    assert len(cloud.asked) == 1


async def test_failing_refresh_does_not_block_a_living_token(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """A failing refresh is told, tried again, recovered from; callers notice nothing."""
    manager = build()
    cloud.answers = [httpx.Response(500)] * 2
    clock.advance(7_200)

    for failures in (1, 2):
        assert (await manager.current()).generation == 1
        await until(lambda: manager.status()["failures"] == failures)  # noqa: B023
        clock.advance(60)
    assert manager.state == "stale"
    assert (await manager.current()).generation == 1
    await until(lambda: manager.status()["generation"] == 2)

    assert log.events == ["login.failing", "login.failing", "login.recovered", "login.refreshed"]
    assert manager.status()["cure"] == ""


async def test_cancelled_caller_does_not_stop_the_refresh(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A caller that is cancelled in mid-refresh costs nothing: the pair is saved and used."""
    manager = build()
    cloud.gate.clear()
    clock.advance(10_800)
    caller = asyncio.create_task(manager.current())
    await until(lambda: cloud.asked != [])

    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    cloud.gate.set()

    assert (await manager.current()).refresh == cloud.refresh
    assert len(cloud.asked) == 1


async def test_saved_before_used(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Whenever a caller holds a token, that very token is on disk."""
    manager = build()

    for _ in range(5):
        clock.advance(10_800)
        token = await manager.current()
        assert TokenFile(file.path).load() == token


async def test_renamed_is_not_yet_safe(
    file: TokenFile,
    cloud: StrictCloud,
    build: Build,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the rename and the fsync of the folder the new token is not handed out."""
    renamed, safe = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) and not file.next.exists():
            renamed.set()
            safe.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    manager = build()
    clock.advance(7_200)
    await manager.current()
    await until(renamed.is_set)

    assert (await manager.current()).generation == 1
    safe.set()
    await until(lambda: manager.status()["generation"] == 2)


async def test_save_cut_off_by_another_process_is_finished(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A complete pair that a killed process left beside the file is adopted without a call."""
    manager = build()
    await manager.current()
    other = TokenFile(file.path.with_name("other.json"))
    newer = a_token(refresh="canary-other", generation=2, expires=clock.time() + 20_000)
    other.save(newer)
    other.path.rename(file.next)
    clock.advance(10_800)

    assert await manager.current() == newer
    assert cloud.asked == []
    assert file.load() == newer


async def test_refused_early(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A token refused while it should be valid is renewed once, however many callers saw that."""
    manager = build()
    await manager.current()

    tokens = await asyncio.gather(*(manager.renew(1) for _ in range(20)))
    late = await manager.renew(1)

    assert {token.generation for token in (*tokens, late)} == {2}
    assert len(cloud.asked) == 1


async def test_refused_token_is_not_handed_out_again(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """After a refusal the old token is not used, even when its renewal fails."""
    manager = build()
    cloud.answers = [httpx.Response(503)]

    with pytest.raises(ApiUnavailable):
        await manager.renew(1)
    with pytest.raises(ApiUnavailable):
        await manager.current()
    assert manager.state == "expired"
    clock.advance(60)

    assert (await manager.current()).generation == 2


async def test_two_hundred_strict_rotations(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Through 200 strict rotations, failures and restarts, the login on disk is the living one."""
    manager = build()
    for number in range(200):
        if number % 17 == 0:
            manager = build()
        if number % 5 == 0:
            cloud.answers = [httpx.Response(500), httpx.ConnectError("refused")]
        clock.advance(10_800)
        callers = 0
        while True:
            try:
                tokens = await asyncio.gather(*(manager.current() for _ in range(3)))
                break
            except ApiUnavailable:
                callers += 1
                clock.advance(60)
        assert callers <= 2
        assert {token.refresh for token in tokens} == {cloud.refresh}

    saved = file.load()
    assert saved is not None
    assert saved.refresh == cloud.refresh
    assert saved.generation == 201
    assert saved.previous_refresh == "canary-refresh-200"


async def test_clock_set_back(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A clock set back makes the end of the life unknown: a refresh follows, nobody waits."""
    manager = build()
    clock.step(-10_800)

    assert (await manager.current()).generation == 1
    await until(lambda: manager.status()["generation"] == 2)

    assert manager.state == "ok"


async def test_short_life(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A token that lives for less than the usual margin is used, not renewed at each call."""
    manager = build()
    cloud.answers = [httpx.Response(200, json={**cloud.pair(), "expires_in": 30})]
    clock.advance(10_800)

    for _ in range(5):
        await manager.current()

    assert len(cloud.asked) == 1


# --- bad answers --------------------------------------------------------------------------------

BAD_ANSWERS: dict[str, httpx.Response | Exception] = {
    "500": httpx.Response(500, json={"error": "x"}),
    "html": httpx.Response(200, html="<h1>maintenance</h1>"),
    "empty": httpx.Response(200),
    "list": httpx.Response(200, json=[]),
    "nulls": httpx.Response(200, json={"access_token": None, "refresh_token": None}),
    "missing": httpx.Response(200, json={"access_token": "access-2"}),
    "1 MB": httpx.Response(200, content=json.dumps({**GOOD, "more": "x" * 1_000_000}).encode()),
    "redirect": httpx.Response(302, headers={"Location": "https://example.org/"}, json=GOOD),
    "redirect to itself": httpx.Response(307, headers={"Location": NETATMO.token_url}),
    "reset": httpx.ReadError("reset"),
    "timeout": httpx.ReadTimeout("slow"),
    "garbled gzip": httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")
    ),
    "too many": httpx.Response(400, json={"error": "too_many_connections"}),
    "client": httpx.Response(400, json={"error": "invalid_client"}),
    "unknown": httpx.Response(400, json={"error": "consent_expired"}),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answer(
    name: str, file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """After a bad answer the old login stays; a backoff step costs one call for all callers."""
    bad = BAD_ANSWERS[name]
    before = file.path.read_bytes()
    manager = build()
    clock.advance(10_800)

    for step in range(1, 5):
        cloud.answers = [bad]
        results = await asyncio.gather(
            *(manager.current() for _ in range(20)), return_exceptions=True
        )
        again = await asyncio.gather(*(manager.current() for _ in range(5)), return_exceptions=True)
        assert {type(result) for result in (*results, *again)} == {ApiUnavailable}
        assert len(cloud.asked) == step
        assert file.path.read_bytes() == before
        clock.advance(3600)

    assert manager.state == "expired"
    assert (await manager.current()).generation == 2
    assert log.events.count("login.failing") == 3  # the first, the second, the fourth


async def test_both_lives_absent_or_odd(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Only `expire_in`, or a life of "soon", is no reason to lose a pair."""
    manager = build()
    clock.advance(10_800)
    pair = {"access_token": "access-2", "refresh_token": "refresh-2"}
    cloud.answers = [httpx.Response(200, json={**pair, "expire_in": 10800})]
    assert (await manager.current()).lifetime == 10800

    clock.advance(10_800)
    cloud.answers = [httpx.Response(200, json={**pair, "expires_in": "soon"})]

    assert (await manager.current()).lifetime == 3600
    assert (await manager.current()).scopes == ("read_station",)


async def test_answer_that_never_ends(
    file: TokenFile,
    cloud: StrictCloud,
    build: Build,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token endpoint that accepts and never answers is given up after the limit, in real time."""
    monkeypatch.setattr(grants, "REQUEST_LIMIT_S", 0.05)
    cloud.gate.clear()
    manager = build()
    clock.advance(10_800)

    with pytest.raises(ApiUnavailable, match="TimeoutError"):
        await manager.current()


@pytest.mark.contract
async def test_backoff_doubles_up_to_an_hour(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Failures are spaced by doubling waits up to an hour; later the cure names a new login."""
    manager = build()
    clock.advance(10_800)
    begun = clock.monotonic()
    calls: list[float] = []

    while clock.monotonic() < begun + 86_400:
        cloud.answers = [httpx.Response(500)]
        with pytest.raises(ApiUnavailable):
            await manager.current()
        if len(cloud.asked) > len(calls):
            calls.append(clock.monotonic())
            if len(calls) == 1:
                assert "log in again" not in manager.status()["cure"]
        clock.advance(1)

    waits = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert waits == sorted(waits)
    assert 10 <= waits[0] <= 13
    assert 3600 <= waits[-1] <= 3601
    assert len(calls) < 35
    assert "netatmo-ingestd login --account home" in manager.status()["cure"]


# --- death and resurrection ---------------------------------------------------------------------


async def test_invalid_grant_is_not_death_at_once(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """The cloud's passing invalid_grant makes the login suspect; 30 s later it works again."""
    manager = build()
    cloud.answers = [httpx.Response(400, json={"error": "invalid_grant"})]
    clock.advance(10_800)

    with pytest.raises(ApiUnavailable, match="invalid_grant"):
        await manager.current()
    assert manager.state == "suspect"
    assert not file.next.exists()  # the answer came: nothing is lost on the way
    assert "never saved" not in manager.status()["error"]
    clock.advance(29)
    with pytest.raises(ApiUnavailable):
        await manager.current()
    assert len(cloud.asked) == 1
    clock.advance(1)

    assert (await manager.current()).generation == 2
    assert manager.status()["state"] == "ok"
    assert log.events == ["login.failing", "login.recovered", "login.refreshed"]


async def watch(
    manager: TokenManager, cloud: StrictCloud, clock: HandClock, seconds: int
) -> list[int]:
    """Call once a second for so long; when (from the first) calls went out."""
    calls: list[int] = []
    for second in range(seconds):
        before = len(cloud.asked)
        with pytest.raises((ApiUnavailable, LoginRequired)):
            await manager.current()
        if len(cloud.asked) > before:
            calls.append(second)
        clock.advance(1)
    return calls


async def test_schedule_to_death(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """A refused login is tried after 30 s, 5 min, 1 h, once with the token before; then dead."""
    file.save(a_token(previous_refresh="canary-refresh-0"))
    cloud.number = 99
    manager = build()
    clock.advance(10_800)

    calls = await watch(manager, cloud, clock, 4000)

    assert calls == [0, 30, 330, 3930, 3960]
    assert cloud.asked == ["canary-refresh-1"] * 4 + ["canary-refresh-0"]
    assert manager.state == "dead"
    with pytest.raises(LoginRequired, match="netatmo-ingestd login --account home"):
        await manager.current()
    assert log.events.count("login.required") == 1


async def test_previous_token_may_save_the_login(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """When only the refresh token before is accepted, the login lives on."""
    file.save(a_token(refresh="canary-lost-answer", previous_refresh="canary-refresh-1"))
    manager = build()
    clock.advance(10_800)

    await watch(manager, cloud, clock, 3960)

    assert (await manager.current()).refresh == cloud.refresh
    assert manager.state == "ok"


async def test_dead_login_is_probed_four_times_a_day(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """A dead login costs four calls a day, and one that the cloud takes again revives it."""
    cloud.number = 99
    manager = build()
    clock.advance(10_800)
    await watch(manager, cloud, clock, 3931)
    assert manager.state == "dead"

    calls = []
    for minute in range(2 * 24 * 60 + 1):
        before = len(cloud.asked)
        with pytest.raises(LoginRequired):
            await manager.current()
        calls += [minute] * (len(cloud.asked) - before)
        clock.advance(60)
    assert calls == [360, 720, 1080, 1440, 1800, 2160, 2520, 2880]
    cloud.number = 1
    clock.advance(6 * 3600)

    assert (await manager.current()).generation == 2
    assert log.events.count("login.required") == 1
    assert log.events[-2:] == ["login.recovered", "login.refreshed"]


async def test_new_login_is_picked_up(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """A login saved beside a dead one is used at the next call: no restart, no token call."""
    cloud.number = 99
    manager = build()
    clock.advance(10_800)
    await watch(manager, cloud, clock, 3931)
    asked = len(cloud.asked)

    fresh = a_token(refresh="canary-fresh", generation=2, expires=clock.time() + 10_800)
    TokenFile(file.path).save(fresh)

    assert await manager.current() == fresh
    assert manager.state == "ok"
    assert len(cloud.asked) == asked
    assert log.events[-1] == "login.found"
    assert manager.adopted == 1


async def test_first_login_is_picked_up(
    folder: Path, cloud: StrictCloud, build: Build, log: Log
) -> None:
    """Without a login the manager says how to make one, once, and takes it when it appears."""
    manager = build()
    for _ in range(2):
        with pytest.raises(LoginRequired, match="netatmo-ingestd login --account home"):
            await manager.current()
    assert manager.state == "none"

    TokenFile(folder / "token.json").save(a_token())

    assert await manager.current() == a_token()
    assert log.events == ["login.required", "login.found"]


async def test_deleted_login_ends(file: TokenFile, cloud: StrictCloud, build: Build) -> None:
    """Deleting the file logs the account out."""
    manager = build()
    await manager.current()
    file.path.unlink()

    with pytest.raises(LoginRequired):
        await manager.current()


# --- several processes --------------------------------------------------------------------------


async def test_newer_login_of_another_process_is_adopted(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """What another process refreshed is used, not refreshed again."""
    first, second = build(), build()
    await asyncio.gather(first.current(), second.current())
    clock.advance(10_800)

    tokens = await asyncio.gather(first.current(), second.current())

    assert tokens[0] == tokens[1]
    assert len(cloud.asked) == 1


async def test_held_lock_is_waited_for(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """While another process holds the lock the loop runs; then the login it made is used."""
    manager = build()
    await manager.current()
    clock.advance(10_800)
    fd = os.open(file.path.parent / "token.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    caller = asyncio.create_task(manager.current())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not caller.done()

    newer = a_token(refresh="canary-other", generation=2, expires=clock.time() + 10_800)
    TokenFile(file.path).save(newer)
    os.close(fd)

    assert await caller == newer
    assert cloud.asked == []


async def test_lock_held_for_too_long(folder: Path) -> None:
    """A lock that is not given up within the limit is reported as busy, with the file's name."""
    async with tokenfile.token_lock(folder):
        with pytest.raises(Busy, match=r"token\.lock"):
            async with tokenfile.token_lock(folder, limit_s=0.0):
                pass


async def test_close_waits_for_the_exchange(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """Shutdown waits for a refresh on its way, even when shutdown itself is cancelled."""
    manager = build()
    cloud.gate.clear()
    clock.advance(7_200)
    await manager.current()
    await until(lambda: cloud.number == 2)
    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()

    cloud.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing

    saved = file.load()
    assert saved is not None
    assert saved.refresh == cloud.refresh


async def test_close_drops_what_has_not_begun(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A refresh that still waits for the budget does not hold up the shutdown."""

    async def never() -> None:
        await asyncio.Event().wait()

    manager = build(never)
    clock.advance(10_800)
    caller = asyncio.create_task(manager.current())
    await asyncio.sleep(0)

    await manager.close()

    with pytest.raises(ApiUnavailable, match="stopping"):
        await caller
    assert cloud.asked == []


# --- the disk -----------------------------------------------------------------------------------


async def test_unsaved_pair_is_kept_and_saved_later(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A pair that cannot be saved is not used, not asked for again, and saved when it can be."""
    manager = build()
    clock.advance(10_800)

    def block() -> None:
        file.next.unlink()
        file.next.mkdir()

    cloud.on_commit = block
    with pytest.raises(ApiUnavailable, match=r"token\.json\.next"):
        await manager.current()
    assert file.load() == a_token()
    file.next.rmdir()
    clock.advance(60)

    assert (await manager.current()).refresh == cloud.refresh
    assert len(cloud.asked) == 1
    saved = file.load()
    assert saved is not None
    assert saved.refresh == cloud.refresh


async def test_unsaved_pair_is_saved_at_the_end(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock
) -> None:
    """A pair that could not be saved gets a last try when the daemon stops."""
    manager = build()
    clock.advance(10_800)

    def block() -> None:
        file.next.unlink()
        file.next.mkdir()

    cloud.on_commit = block
    with pytest.raises(ApiUnavailable):
        await manager.current()
    file.next.rmdir()

    await manager.close()

    saved = file.load()
    assert saved is not None
    assert saved.refresh == cloud.refresh


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    where = tmp_path / "disk"
    where.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs more rights")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        try:
            while ballast.write(b"x" * 512):
                pass
        except OSError:
            return


@pytest.mark.parametrize("when", ["before reserve", "between reserve and save"])
async def test_disk_full(
    when: str,
    small_disk: Path,
    cloud: StrictCloud,
    clock: HandClock,
    log: Log,
) -> None:
    """On a full disk no token is asked for; when it fills after the request, the pair is saved."""
    folder = small_disk / "tokens" / "home"
    tokenfile.make_folder(folder)
    file = TokenFile(folder / "token.json")
    file.save(a_token())
    (folder / "token.lock").touch(mode=0o600)

    async def at_once() -> None:
        return

    async with (
        httpx.AsyncClient(trust_env=False) as http,
        TokenManager(
            account="home",
            folder=folder,
            provider=NETATMO,
            client_id="id",
            client_secret=SECRET,
            http=http,
            clock=clock,
            reserve=at_once,
            log=log,
        ) as manager,
    ):
        if when == "before reserve":
            fill(small_disk)
            clock.advance(7_200)
            assert (await manager.current()).generation == 1
            await until(lambda: manager.status()["failures"] == 1)
            assert (await manager.current()).generation == 1
            assert cloud.asked == []
            assert "No space left" in manager.status()["error"]
            (small_disk / "ballast").unlink()
        else:
            cloud.on_commit = lambda: fill(small_disk)
        clock.advance(10_800)

        token = await manager.current()

    assert token.refresh == cloud.refresh
    assert file.load() == token


def test_short_writes(tmp_path: Path) -> None:
    """A disk that takes only part of a write makes the reservation fail; the login stays whole."""
    script = """
import resource, sys
from pathlib import Path
from netatmo_ingestd.models import Token
from netatmo_ingestd.tokenfile import TokenFile, TokenFileError
file = TokenFile(Path(sys.argv[1]) / "token.json")
token = Token("access-1", "refresh-1", 1.0, 2.0, ("a",), 1)
file.save(token)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    file.reserve({"generation": 1})
except TokenFileError as error:
    print(error.kind, file.load() == token)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "full True\n"


# --- secrets ------------------------------------------------------------------------------------


async def test_no_secret_is_told(
    file: TokenFile, cloud: StrictCloud, build: Build, clock: HandClock, log: Log
) -> None:
    """No token and no client secret stands in a log event, an error, a status or a repr."""
    manager = build()
    told: list[str] = []
    cloud.answers = [
        httpx.Response(400, json={"error": "invalid_grant"}),
        httpx.Response(200, json={"access_token": "canary-half", "refresh_token": None}),
        httpx.ReadTimeout("slow"),
    ]
    for _ in range(4):
        clock.advance(10_800)
        try:
            told.append(repr(await manager.current()))
        except ApiUnavailable as error:
            told += [str(error), repr(error)]
        told += [repr(manager.status()), repr(manager)]

    told.append(repr(log.lines))
    assert cloud.number == 2
    assert "canary" not in "".join(told)


async def test_living_secrets_are_redacted(
    file: TokenFile,
    cloud: StrictCloud,
    build: Build,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both pairs, old and new, and the client secret are hidden from output after a refresh."""
    monkeypatch.setattr(REDACTOR, "_secrets", {})  # of other tests
    manager = build()
    clock.advance(10_800)

    token = await manager.current()

    text = f"{token.access} {token.refresh} canary-access-1 canary-refresh-1 {SECRET}"
    assert REDACTOR.clean(text) == "*** *** *** *** ***"


def test_process_cannot_be_dumped() -> None:
    """After `forbid_dumps` the process leaves no core and is not dumpable."""
    script = """
import ctypes, resource
from netatmo_ingestd.process import forbid_dumps
forbid_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "(0, 0) 0\n"
