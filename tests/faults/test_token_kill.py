"""A process killed at each step of a refresh: the login lives, or its loss is announced.

The child is a real process with the real manager. It is killed at the border to the kernel: its
script wraps the few calls of `os` that touch the disk, so the code under test has no hook for it.
The token endpoint replaces both tokens at each use and refuses every older one.
"""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from netatmo_ingestd.errors import ApiUnavailable, LoginRequired
from netatmo_ingestd.models import Token
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.providers import NETATMO, Provider
from netatmo_ingestd.tokenfile import TokenFile, make_folder
from tests.clocks import HandClock

pytestmark = pytest.mark.faults

# Arguments: folder, address, step ("fsync:2" dies after the second fsync, "write:2:half" in the
# middle of the second write, "any:7" after the seventh call of any kind, "" never).
CHILD = """
import asyncio, dataclasses, os, signal, sys
from pathlib import Path
import httpx
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.providers import NETATMO

folder, address, step = sys.argv[1:]
kind, number, half = (step + "::").split(":")[:3]
counts = {}

def die():
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()

def wrap(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        for key in (name, "any"):
            counts[key] = counts.get(key, 0) + 1
        here = str(counts.get(kind)) == number and kind in (name, "any")
        if here and half:
            real(args[0], args[1][: len(args[1]) // 2])
            die()
        try:
            return real(*args, **kwargs)
        finally:
            if here:
                die()
    setattr(os, name, call)

async def main():
    provider = dataclasses.replace(NETATMO, api_url=address, auth_url=address)
    async def at_once(): pass
    class Log:
        def info(self, *args, **kwargs): pass
        debug = warning = error = info
    async with httpx.AsyncClient(trust_env=False) as http:
        manager = TokenManager(
            account="home", folder=Path(folder), provider=provider, client_id="id",
            client_secret="secret", http=http, clock=Clock(), reserve=at_once, log=Log(),
        )
        for name in ("open", "fchmod", "write", "ftruncate", "fsync", "replace"):
            wrap(name)
        await manager.current()
    print(counts["any"])

asyncio.run(main())
"""


class StrictServer:
    """A token endpoint in a thread.

    committed  set when a pair was replaced
    stall      while set, answers are held back after the commit
    """

    def __init__(self) -> None:
        self.number = 1
        self.calls = 0
        self.committed = threading.Event()
        self.answering = threading.Event()
        self.answering.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.reply(*outer.answer(form["refresh_token"][0]))

            def reply(self, status: int, data: dict[str, Any]) -> None:
                body = json.dumps(data).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    return  # the child is dead

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def refresh(self) -> str:
        return f"refresh-{self.number}"

    @property
    def provider(self) -> Provider:
        address = f"http://127.0.0.1:{self._server.server_port}"
        return replace(NETATMO, api_url=address, auth_url=address)

    def answer(self, refresh: str) -> tuple[int, dict[str, Any]]:
        self.calls += 1
        if refresh != self.refresh:
            return 400, {"error": "invalid_grant"}
        self.number += 1
        pair = {"access_token": f"access-{self.number}", "refresh_token": self.refresh}
        self.committed.set()
        self.answering.wait()
        return 200, {**pair, "expires_in": 10800}

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[StrictServer]:
    server = StrictServer()
    yield server
    server.close()


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return expired_login(tmp_path)


def expired_login(folder: Path) -> TokenFile:
    make_folder(folder / "home")
    file = TokenFile(folder / "home" / "token.json")
    file.save(Token("access-1", "refresh-1", 0.0, 10800.0, ("read_station",), 1))
    return file


def child(file: TokenFile, server: StrictServer, step: str) -> subprocess.Popen[str]:
    address = server.provider.auth_url
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file.path.parent), address, step],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    debug = warning = error = info


async def after_restart(file: TokenFile, server: StrictServer) -> tuple[str, Log]:
    """Whether a new process finds the login "alive" or, after the whole schedule, "lost"."""

    async def at_once() -> None:
        return

    clock, log = HandClock(time.time()), Log()
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        TokenManager(
            account="home",
            folder=file.path.parent,
            provider=server.provider,
            client_id="id",
            client_secret="secret",
            http=http,
            clock=clock,
            reserve=at_once,
            log=log,
        ) as manager,
    ):
        for _ in range(10):
            try:
                token = await manager.current()
            except ApiUnavailable:
                clock.advance(3600)
            except LoginRequired:
                return "lost", log
            else:
                # Only a token the server accepts is alive: prove it by one more refresh.
                assert token.refresh == server.refresh
                assert (await manager.renew(token.generation)).refresh == server.refresh
                return "alive", log
    raise AssertionError("neither alive nor lost")


def announced(log: Log) -> bool:
    """The first refusal tells of the answer that was never saved; the end names the cure."""
    failing = [fields for event, fields in log.lines if event == "login.failing"]
    required = [fields for event, fields in log.lines if event == "login.required"]
    return (
        "was never saved" in failing[0]["error"]
        and len(required) == 1
        and "netatmo-ingestd login --account home" in required[0]["cure"]
    )


# Of the four fsyncs two are of the reservation (file, folder), one of the pair, one of the folder.
@pytest.mark.parametrize(
    ("step", "calls", "expected"),
    [
        ("write:1:half", 0, "alive"),  # half a reservation
        ("fsync:2", 0, "alive"),  # reserved, nothing sent
        ("write:2:half", 1, "lost"),  # half a pair
        ("fsync:3", 1, "alive"),  # the pair is on disk, not yet in place
        ("replace:1", 1, "alive"),
        ("fsync:4", 1, "alive"),
    ],
)
async def test_kill_token_matrix(
    step: str, calls: int, expected: str, file: TokenFile, server: StrictServer
) -> None:
    """Killed on either side of the exchange, the login lives; inside, the loss is announced."""
    process = child(file, server, step)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert server.calls == calls
    assert file.load() is not None

    found, log = await after_restart(file, server)

    assert found == expected
    assert found == "alive" or announced(log)


async def test_kill_after_commit(file: TokenFile, server: StrictServer) -> None:
    """Killed between the cloud's commit and its answer, the login is lost, and that is told."""
    server.answering.clear()
    process = child(file, server, "")
    assert server.committed.wait(60)
    process.kill()
    process.communicate(timeout=60)
    server.answering.set()
    assert file.load() is not None

    found, log = await after_restart(file, server)

    assert found == "lost"
    assert announced(log)


async def test_kill_at_every_call(tmp_path: Path, server: StrictServer) -> None:
    """Killed after any disk call, the file is whole; only the commit window can lose, and tells."""
    whole = child(expired_login(tmp_path / "whole"), server, "")
    output, errors = whole.communicate(timeout=60)
    assert whole.returncode == 0, errors
    found: dict[int, str] = {}

    for number in range(1, int(output) + 1):
        file = expired_login(tmp_path / str(number))
        server.number, server.calls = 1, 0
        process = child(file, server, f"any:{number}")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        assert file.load() is not None
        asked = server.calls
        found[number], log = await after_restart(file, server)
        assert found[number] == "alive" or (asked == 1 and announced(log))

    lost = [number for number, what in found.items() if what == "lost"]
    assert len(lost) == 2  # the reservation is opened again, its mode set; the write ends it
    assert lost[1] == lost[0] + 1
