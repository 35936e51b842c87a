"""The daemon as a whole, in this process: a simulated cloud, a scripted MongoDB, a real spool."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from netatmo_ingestd import build, daemon, login, logs, spool, status
from netatmo_ingestd.client import open_http
from netatmo_ingestd.errors import Busy, ConfigError, IngestError
from netatmo_ingestd.process import Stop, notify, state_folder
from netatmo_ingestd.settings import (
    AccountSettings,
    AppSettings,
    ClockSettings,
    NetatmoSettings,
    Settings,
    StoreSettings,
    WriterSettings,
)
from netatmo_ingestd.simulator.server import Plan, Running, running
from tests.stores import until
from tests.wire import MUTE, WireServer

SPEED = 600.0
NOWHERE = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that each spool holds back is small here: writing it would take most of the time."""
    monkeypatch.setattr(spool, "BALLAST_BYTES", 1 << 20)


def settings_for(folder: Path, cloud: Running, uri: str, **changes: Any) -> Settings:
    """What an owner would write for this cloud and this store."""
    said = cloud.greeting
    account = AccountSettings(
        client_id=said["client_id"], client_secret=SecretStr(said["client_secret"])
    )
    return Settings(
        **{
            "state_dir": folder / "state",
            "store": StoreSettings(uri=SecretStr(uri)),
            "accounts": (account,),
            "netatmo": NetatmoSettings(api_url=cloud.url, auth_url=cloud.url),
            "clock": ClockSettings(origin=said["origin"], speed=said["speed"]),
            "writer": WriterSettings(max_bulks_per_second=1000),
            **changes,
        }
    )


async def log_in(settings: Settings, cloud: Running) -> None:
    async with open_http() as http:
        request = build.login_request(settings, settings.accounts[0], http)
        await login.login_with_refresh_token(cloud.greeting["refresh_token"], request)


@contextlib.asynccontextmanager
async def cloud_and_login(
    folder: Path, uri: str, **changes: Any
) -> AsyncIterator[tuple[Running, Settings]]:
    async with running(Plan(speed=SPEED, days=5)) as cloud:
        settings = settings_for(folder, cloud, uri, **changes)
        await log_in(settings, cloud)
        yield cloud, settings


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Every log line so far, decoded."""

    class Lines(io.StringIO):
        def write(self, text: str) -> int:
            found.extend(json.loads(line) for line in text.splitlines() if line)
            return len(text)

    found: list[dict[str, Any]] = []
    logs.setup("info", "json", Lines())
    yield found
    logs.setup()


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address)

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(1000).decode())
        return self.messages


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    found = Manager(address)
    yield found
    found.close()


@contextlib.asynccontextmanager
async def daemon_running(settings: Settings, stop: Stop) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(daemon.run(settings, stop))
    try:
        yield task
    finally:
        stop.signal()
        await asyncio.wait_for(task, 60)


# --- a whole life -------------------------------------------------------------------------------


@pytest.mark.contract
async def test_a_life_from_ready_to_stopped(
    tmp_path: Path, manager: Manager, lines: list[dict[str, Any]]
) -> None:
    """Rows arrive in the store; systemd hears READY, WATCHDOG, STOPPING; nothing is left behind."""
    async with WireServer() as mongo, cloud_and_login(tmp_path, mongo.uri()) as (_, settings):
        async with daemon_running(settings, Stop()):
            await until(lambda: len(mongo.documents.get("measurements", {})) > 500)
            await until(lambda: "WATCHDOG=1" in manager.read())

        assert manager.read()[0] == "READY=1"
        assert manager.messages.index("READY=1") < manager.messages.index("STOPPING=1")
        told = [line["event"] for line in lines if line["event"].startswith("daemon.")]
        assert told == ["daemon.started", "daemon.stopping", "daemon.stopped"]
        assert lines[-1]["left_on_spool"] == 0
        assert len(mongo.documents["coverage"]) > 1
        report = status.read(settings.state_dir)
        assert report is not None
        assert report["ended"]
        # Three polls are three seconds here, and while it drains none is made.
        assert [each for each in report["troubles"] if not each.endswith("lately")] == []


async def test_ready_waits_for_neither_store_nor_login(
    tmp_path: Path, manager: Manager, lines: list[dict[str, Any]]
) -> None:
    """Without MongoDB, without a login, the daemon starts, is ready, and says what is wrong."""
    async with running(Plan(speed=SPEED)) as cloud:
        settings = settings_for(tmp_path, cloud, NOWHERE)
        async with daemon_running(settings, Stop()):
            await until(lambda: "READY=1" in manager.read(), within=5)
            await until(lambda: any(line["event"] == "login.required" for line in lines))
            await until(lambda: any(line["event"] == "store.down" for line in lines))
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 10, "nothing waits, so there is nothing to drain"

    (line,) = [line for line in lines if line["event"] == "login.required"]
    assert "netatmo-ingestd login --account home" in json.dumps(line)


@pytest.mark.contract
async def test_a_login_is_picked_up_without_a_restart(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    """Rows arrive within seconds of a login that another command made."""
    async with WireServer() as mongo, running(Plan(speed=SPEED, days=5)) as cloud:
        settings = settings_for(tmp_path, cloud, mongo.uri())
        async with daemon_running(settings, Stop()):
            await until(lambda: any(line["event"] == "login.required" for line in lines))

            await log_in(settings, cloud)

            await until(lambda: mongo.documents.get("measurements"))


@pytest.mark.contract
async def test_what_the_store_did_not_take_waits_for_the_next_start(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    """A store that never answers delays the end by the drain's limit; the next start writes all."""
    async with (
        WireServer() as mongo,
        cloud_and_login(tmp_path, mongo.uri("socketTimeoutMS=200")) as (_, settings),
    ):
        mongo.rule = lambda name, command: MUTE if name == "update" else None
        async with daemon_running(settings, Stop(poll_s=0.5, drain_s=0.5)):
            await until(lambda: any(line["event"] == "store.down" for line in lines))
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 10
        assert lines[-1]["event"] == "daemon.stopped"
        assert lines[-1]["left_on_spool"] > 0
        assert not mongo.documents.get("measurements")

        mongo.rule = None
        async with daemon_running(settings, Stop()):
            await until(lambda: mongo.documents.get("measurements"))


@pytest.mark.contract
async def test_a_second_signal_skips_the_drain(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    """Asked twice, the daemon does not wait for a store that is slow; nothing is lost."""
    async with (
        WireServer() as mongo,
        cloud_and_login(tmp_path, mongo.uri("socketTimeoutMS=1000")) as (_, settings),
    ):
        mongo.rule = lambda name, command: MUTE if name == "update" else None
        stop = Stop(poll_s=0.5, drain_s=600)
        task = asyncio.create_task(daemon.run(settings, stop))
        await until(lambda: mongo.asked("update"))
        stop.signal()
        await until(lambda: any(line["event"] == "daemon.stopping" for line in lines))

        stop.signal()

        await asyncio.wait_for(task, 30)
        assert lines[-1]["left_on_spool"] > 0


async def test_signals_ask_then_hurry() -> None:
    """SIGTERM asks for the end, a second one of any kind hurries it; afterwards none is ours."""
    stop = Stop()
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        await until(stop.asked.is_set)
        assert not stop.hurry.is_set()

        os.kill(os.getpid(), signal.SIGINT)
        await until(stop.hurry.is_set)

    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- the watchdog -------------------------------------------------------------------------------


async def test_a_hung_poller_is_not_fed(tmp_path: Path, manager: Manager) -> None:
    """While the scheduler stands still the report is written and the watchdog is not fed."""
    async with running(Plan()) as cloud:
        settings = settings_for(tmp_path, cloud, NOWHERE)
        async with build.opened(settings) as parts:
            parts.poller.progressed = time.monotonic() - 2 * status.WATCHDOG_S
            rest = asyncio.Event()
            reporting = asyncio.create_task(daemon._report(parts, rest))
            await until((settings.state_dir / "status.json").exists)
            assert not await daemon._progresses(parts)
            rest.set()
            await reporting

    assert manager.read() == []


async def test_a_closed_spool_is_not_fed(tmp_path: Path, manager: Manager) -> None:
    """A spool that does not answer properly is no progress either."""
    async with running(Plan()) as cloud:
        settings = settings_for(tmp_path, cloud, NOWHERE)
        async with build.opened(settings) as parts:
            assert await daemon._progresses(parts)
            parts.spool._db, kept = None, parts.spool._db

            assert not await daemon._progresses(parts)

            parts.spool._db = kept


def test_notify_speaks_to_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is an abstract one, as containers use it."""
    name = f"netatmo-ingestd-test-{os.getpid()}"
    listener = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

    notify("READY=1")

    assert listener.read() == ["READY=1"]
    listener.close()


def test_notify_without_systemd_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket, or one that is gone, is no error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    notify("READY=1")


# --- once ---------------------------------------------------------------------------------------


@pytest.mark.contract
async def test_once_brings_everything_and_ends(tmp_path: Path) -> None:
    """One round reads every module, writes it and leaves a report that says it ended."""
    async with WireServer() as mongo, cloud_and_login(tmp_path, mongo.uri()) as (cloud, settings):
        problems = await daemon.run_once(settings, Stop())

        assert problems == []
        modules = {row["module_id"] for row in mongo.documents["measurements"].values()}
        assert modules == set(cloud.cloud.world.by_id)
        report = status.read(settings.state_dir)
        assert report is not None
        assert not report["running"]


@pytest.mark.contract
async def test_once_without_a_store_tells_what_waits(tmp_path: Path) -> None:
    """The rows are safe on the spool, and the problem says how many and why."""
    async with cloud_and_login(tmp_path, NOWHERE) as (_, settings):
        (problem,) = await daemon.run_once(settings, Stop(drain_s=0.2))

    assert problem.startswith("store: ")
    assert "records wait on the spool (down: " in problem


async def test_once_without_a_login_says_so(tmp_path: Path) -> None:
    """The only problem is the login, and it names the command."""
    async with WireServer() as mongo, running(Plan()) as cloud:
        settings = settings_for(tmp_path, cloud, mongo.uri())

        (problem,) = await daemon.run_once(settings, Stop())

    assert problem.startswith("login: ")
    assert "netatmo-ingestd login --account home" in problem


async def test_once_can_be_interrupted(tmp_path: Path) -> None:
    """A signal in the middle ends the round in time, and says that it was interrupted."""
    async with cloud_and_login(tmp_path, NOWHERE) as (_, settings):
        stop = Stop(drain_s=0.1)
        stop.signal()

        problems = await daemon.run_once(settings, stop)

    assert problems[0] == "interrupted"


# --- building -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"accounts": ()}, r"accounts: none is configured; add an \[\[accounts\]\]"),
        ({"store": StoreSettings()}, 'store.uri: missing; write "embedded"'),
        ({"accounts": (AccountSettings(),)}, "accounts.home.client_id: missing"),
        (
            {"accounts": (AccountSettings(client_id="a"),)},
            "accounts.home.client_secret: missing; copy it from the app's page",
        ),
    ],
)
async def test_settings_that_cannot_work_end_before_the_first_poll(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    """Each is a ConfigError in one line; no request was made."""
    async with running(Plan()) as cloud:
        settings = settings_for(tmp_path, cloud, NOWHERE, **changes)

        with pytest.raises(ConfigError, match=told):
            await daemon.run(settings, Stop())

        assert cloud.cloud.authority.counts["requests"] == 0


async def test_a_machine_without_a_date_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that starts in 1970 does not poll: its rows would be asked for the wrong time."""
    settings = Settings(state_dir=tmp_path, accounts=(AccountSettings(),))
    monkeypatch.setattr(time, "time", lambda: 86_400.0)

    with pytest.raises(IngestError, match="date is before 2024; set it, or start NTP"):
        await daemon.run(settings, Stop())


async def test_accounts_of_one_app_share_its_budget(tmp_path: Path) -> None:
    """One client id has one purse; another client id has its own."""
    accounts = (
        AccountSettings(name="a", app="one"),
        AccountSettings(name="b", app="one"),
        AccountSettings(name="c", client_id="own", client_secret=SecretStr("canary-secret")),
    )
    apps = {"one": AppSettings(client_id="shared", client_secret=SecretStr("canary-secret"))}
    async with running(Plan()) as cloud:
        settings = settings_for(tmp_path, cloud, NOWHERE, accounts=accounts, apps=apps)
        async with build.opened(settings) as parts:
            a, b, c = (parts.poller.accounts[name].budget for name in "abc")

            assert a is b
            assert a is not c


def test_one_daemon_for_one_state_folder(tmp_path: Path) -> None:
    """The second is Busy (exit 4) and names the first by its pid; a login is not kept out."""
    with state_folder(tmp_path / "state"):
        with pytest.raises(Busy, match=rf"in use by a running daemon \(pid {os.getpid()}\)"):
            state_folder(tmp_path / "state").__enter__()
        with state_folder(tmp_path / "state", exclusive=False):
            pass

    with state_folder(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["file/state", "file"])
def test_a_state_folder_that_cannot_be(tmp_path: Path, place: str) -> None:
    """A path below or at a regular file is a ConfigError that says what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"state_dir: .* is not usable \(.*\); make it writable"):
        state_folder(tmp_path / place).__enter__()


def test_a_state_folder_on_a_read_only_file_system() -> None:
    """Where nothing can be made, the message names the folder and the user."""
    with pytest.raises(ConfigError, match=rf"/proc/nothing .* user {os.getuid()}"):
        state_folder(Path("/proc/nothing")).__enter__()
