"""The daemon as a service: how it ends, who else may run, what it tells, a state disk in need."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests.faults import house as houses
from tests.faults.house import Child, House, assert_clean, command, invariant, opened, tell, until
from tests.stores import alive, require_extra

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

FEW = {"include": ["Garden", "Roof wind", "Rain"]}
BUSY = {"bulk_size": 50, "max_bulks_per_second": 10.0}
SLOW = {"bulk_size": 20, "max_bulks_per_second": 1.0}
FAST = {"bulk_size": 500, "max_bulks_per_second": 1000.0}
OFTEN = {"trailing": "10m"}  # so that a test waits less for the next one
NONE = {"records": 0}
MIB = 1 << 20


def _wait(house: House, what: str, condition: Callable[[], object]) -> None:
    until(condition, within=30, what=what, house=house, every=0.01)


def _end(house: House, *, hurried: bool = False) -> tuple[float, int, int]:
    """SIGTERM, a second one if `hurried`; seconds until exit 0, records that waited and stayed."""
    began, before = time.monotonic(), len(house.events("daemon.stopping"))
    house.running.signal(signal.SIGTERM)
    if hurried:  # signals that follow at once are one for the kernel
        _wait(house, "it drains", lambda: len(house.events("daemon.stopping")) > before)
        house.running.signal(signal.SIGTERM)
    assert house.running.wait(55) == 0, house.tail()
    assert "Traceback" not in house.log.read_text()
    waited = house.events("daemon.stopping")[-1]["records_waiting"]
    return time.monotonic() - began, waited, house.events("daemon.stopped")[-1]["left_on_spool"]


def test_a_signal_while_busy(tmp_path: Path) -> None:
    """SIGTERM with a bulk, a refresh and a poll under way: exit 0 within 55 s, the refresh saved.

    A second SIGTERM skips the drain; what is left on the spool arrives after the next start.
    """
    with opened(
        tmp_path, speed=500, stations=2, accounts=2, days=2, account=FEW, poll=OFTEN, writer=BUSY
    ) as house:
        first, second = (account["user"] for account in house.cloud.accounts)
        house.start()
        _wait(house, "much waits", lambda: house.status().get("spool", NONE)["records"] > 500)
        house.cloud.arm("stall", endpoint="token", count=1, real_seconds=4.0)
        house.cloud.arm("stall", account=second, count=1, real_seconds=3.0)
        house.cloud.arm("expire_access", account=first)
        both = "a refresh and a poll are under way"
        _wait(house, both, lambda: house.cloud.stats()["running"] == 2)
        generation = house.token(0)["generation"]
        took, waited, left = _end(house)
        assert house.token(0)["generation"] == generation + 1
        assert house.login_lives()

        house.write_config(writer=SLOW)
        house.start()
        _wait(house, "much waits", lambda: house.status().get("spool", NONE)["records"] > 500)
        hurried, _, more = _end(house, hurried=True)
        house.write_config(writer=FAST)
        house.start()
        house.mark()
        invariant(house)
    tell(f"exit 0 after {took:.1f} s, {left} of {waited} left; hurried {hurried:.1f} s, {more}")
    assert min(waited, more) > 100
    assert hurried < 15


def test_a_second_daemon(tmp_path: Path) -> None:
    """A second daemon in one state folder ends with 4 and one line; the first does not notice."""
    with opened(tmp_path, speed=1000, days=1, account=FEW, poll=OFTEN) as house:
        first = house.start()
        house.mark()
        store, said = house.store_pid(), len(house.events())
        second = house.run("run")
        assert (second.returncode, second.stdout) == (4, ""), second.stderr
        assert len(second.stderr.splitlines()) == 1
        assert f"pid {first.pid}" in second.stderr
        invariant(house)
        later = house.events()[said:]
        assert house.store_pid() == store
        assert not [event for event in later if event["level"] != "info"], house.tail()
        assert not [event for event in later if event["event"].startswith("daemon.start")]


def test_what_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without a login: READY=1 once, then the watchdog is fed, STOPPING=1 at SIGTERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(20 * houses.SLOW)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with opened(tmp_path, speed=500, login=False) as house:
            house.start()
            told = [service.recv(100) for _ in range(3)]
            _wait(house, "it misses a login", lambda: house.events("login.required"))
            assert house.stop() == 0
        service.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(service.recv(100))
    assert told[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert [each for each in told[3:] if each != b"WATCHDOG=1"] == [b"STOPPING=1"]


def _descendants(pid: int) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            found |= {int(child) for child in file.read_text().split()}
    return found.union(*map(_descendants, found))


@contextlib.contextmanager
def _demo(folder: Path, *arguments: str) -> Iterator[tuple[Child, Path]]:
    """The demonstration as a process, and the file with what it says."""
    require_extra()
    child = Child(command("demo", *arguments), said := folder / "said")
    try:
        yield child, said
    finally:
        if child.alive:
            child.signal(signal.SIGTERM)
            child.wait(20)


@pytest.mark.parametrize("moment", ["the simulator starts", "the store starts", "it runs"])
def test_ctrl_c_ends_the_demo(tmp_path: Path, moment: str) -> None:
    """Ctrl-C ends the demonstration within 5 s at any stage: exit 0, no traceback, no child."""
    with _demo(tmp_path) as (child, said):
        reached: dict[str, Callable[[], object]] = {
            "the simulator starts": lambda: len(_descendants(child.pid)) > 0,
            "the store starts": lambda: len(_descendants(child.pid)) > 1,
            "it runs": lambda: "modules" in said.read_text(),
        }
        until(reached[moment], within=40, what=moment, every=0.01)
        children = _descendants(child.pid)
        began = time.monotonic()
        child.signal(signal.SIGINT)
        code, took = child.wait(20), time.monotonic() - began
        left = [pid for pid in children if alive(pid)]
    tell(f"ended after {took:.1f} s with {code}")
    assert (code, left) == (0, []), said.read_text()
    assert "Traceback" not in said.read_text()
    assert took < 5 * houses.SLOW


def test_the_demo_shows_a_station_within_20_seconds(tmp_path: Path) -> None:
    """20 s after its start the demonstration has stored rows of every line, nothing wrong."""
    began = time.monotonic()
    with _demo(tmp_path, "--seconds", "20", "--json") as (child, said):
        until(lambda: "mongodb:" in said.read_text(), within=20, what="the store runs")
        address = re.findall(r"mongodb://[^']+", said.read_text())[0]
        with contextlib.closing(pymongo.MongoClient[Any](address)) as client:
            rows = client["netatmo"]["measurements"]
            until(
                lambda: (
                    {"NAMain", "NHC", "room", "NATherm1", "NLPC"}
                    <= set(rows.distinct("module_type"))
                ),
                within=20,
                what="rows of every line",
            )
            until(lambda: client["netatmo"]["events"].count_documents({}), within=20, what="events")
        took = time.monotonic() - began
        assert child.wait(60) == 0, said.read_text()
    result = json.loads(said.read_text().splitlines()[-1])
    tell(f"rows of every line after {took:.1f} s; {result['measurements']} rows in the end")
    assert took < 20 * houses.SLOW
    assert result["measurements"] >= result["expected"] > 0
    assert not any(result[key] for key in ("missing", "duplicates", "different", "unexpected"))


@contextlib.contextmanager
def _disk(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """The state folder on a disk of its own, the store's files elsewhere; what mends that disk."""
    state, image = tmp_path / "state", tmp_path / "disk"
    state.mkdir()
    with image.open("wb") as file:
        file.truncate(40 * MIB)

    def do(*line: object) -> int:
        return subprocess.run([*map(str, line)], check=False, capture_output=True).returncode

    mount = ("mount", "-o", "loop,errors=remount-ro", image, state)

    def mend() -> None:
        # 1: there was something to mend
        assert (do("umount", state), do("fsck.ext4", "-fy", image) <= 1, do(*mount)) == (0, True, 0)

    if not shutil.which("mkfs.ext4") or do("mkfs.ext4", "-Fm0", image) or do(*mount):
        pytest.skip("no file system can be made and mounted here; that takes root and e2fsprogs")
    try:
        (tmp_path / "store").mkdir()
        (state / "store").symlink_to(tmp_path / "store")
        yield mend
    finally:
        assert do("umount", "-l", state) == 0


def _fill(folder: Path, leave: int = 0) -> Path:
    """Take all room but `leave` bytes, with a file of its own."""
    with (
        (filler := folder / "filler").open("ab", buffering=0) as file,
        contextlib.suppress(OSError),
    ):
        for size in (MIB, 4096):
            while shutil.disk_usage(folder).free > leave + size:
                file.write(os.urandom(size))
    return filler


def _freeze_store(house: House) -> int:
    """Its process, once answers wait for it on the spool."""
    _wait(house, "the store runs", house.store_pid)
    store, calls = house.store_pid(), house.cloud.calls()
    os.kill(store, signal.SIGSTOP)
    _wait(house, "answers wait", lambda: house.cloud.calls() > calls + 4)
    return store


def _while_paused(house: House) -> tuple[int, str]:
    """Calls that the cloud sees in 20 minutes, and what the doctor says of the state folder."""
    before, began = house.cloud.calls(), house.now
    until(lambda: house.now > began + 1200, within=30, what="time passes")
    assert house.running.alive, house.tail()
    calls = house.cloud.calls() - before
    findings = json.loads(house.run("doctor", "--json").stdout)
    return calls, next(each["text"] for each in findings if each["verdict"] == "bad")


def test_a_full_state_disk(tmp_path: Path) -> None:
    """On a full disk polling pauses, the spool drains, a restart works; all goes on with room."""
    with _disk(tmp_path), opened(tmp_path, speed=200, days=4, poll=OFTEN, writer=FAST) as house:
        filler = _fill(house.state, leave=10 * MIB)  # 8 of them are the ballast's
        house.start()
        store = _freeze_store(house)
        _fill(house.state)
        _wait(house, "it is full", lambda: house.events("spool.full"))
        calls, text = _while_paused(house)
        os.kill(store, signal.SIGCONT)
        took, waited, left = _end(house)

        house.start()
        _wait(house, "it is full again", lambda: len(house.events("spool.full")) > 1)
        filler.unlink()
        house.mark()
        invariant(house)
        _wait(house, "it is well", lambda: house.status()["healthy"])
    tell(f"{calls} calls in 20 min; {waited} records drained in {took:.1f} s; {house.counted()}")
    assert "No space left" in text
    assert calls <= 5  # one trial in five minutes
    assert waited > 0 == left


def test_a_state_disk_that_turns_read_only(tmp_path: Path) -> None:
    """When its disk turns read-only the daemon pauses and lives on; mended, nothing is missing."""
    with _disk(tmp_path) as mend, opened(tmp_path, speed=200, days=1, poll=OFTEN) as house:
        house.start()
        house.mark()
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        device = next(Path(line[0]).name for line in mounts if line[1] == str(house.state))
        store = _freeze_store(house)
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")
        _wait(house, "it pauses", lambda: house.events("spool.full"))
        os.kill(store, signal.SIGCONT)
        calls, text = _while_paused(house)
        took, *_ = _end(house)
        again = house.run("run")
        mend()
        house.start()
        invariant(house)
    tell(f"{calls} calls in 20 min; exit 0 after {took:.1f} s; then: {again.stderr}")
    assert "Read-only" in text
    assert calls <= 5
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)


ONCE = (
    *("invalid_token", "http", "redirect", "cut", "not_json", "bad_json", "no_body"),
    *("token_html", "token_list", "token_nulls", "token_error"),
)


def test_no_secret_is_told(tmp_path: Path) -> None:
    """At debug level, with failures, no secret stands in log, report, document or state file."""
    debug, flags = {"level": "debug", "format": "json"}, ("--password-grant",)
    with opened(
        tmp_path, speed=1000, days=1, cloud_flags=flags, login=False, poll=OFTEN, log=debug
    ) as house:
        said = {"login": _log_in_by_password(house)}
        house.start()
        house.mark()
        for kind in ONCE:
            error = {"error": "temporarily_unavailable"} if kind == "token_error" else {}
            house.cloud.arm(kind, count=1, **error)
        house.cloud.arm("expire_access")
        # Each login on disk meanwhile is looked at, and so noted as a secret.
        _wait(house, "each was met", lambda: house.token() and all(map(house.cloud.hits, ONCE)))
        invariant(house)
        assert house.events("login.refreshed")  # it is told at debug level only
        for line in ("status --json", "doctor --json", "status", "doctor"):
            done = house.run(*line.split())
            said[line] = done.stdout + done.stderr
        for file in (house.log, *house.state.rglob("*")):
            # The login itself, the store's password and its own files.
            if file.is_file() and not {"tokens", "data", "password"} & set(file.parts):
                said[file.name] = file.read_bytes().decode("latin-1")
        said["documents"] = _everything_stored(house)
        house.check_secrets()  # it also notes the secrets of the configuration
        for place, text in said.items():
            assert_clean(text, house.canaries, place)
    tell(f"{len(house.canaries)} secrets; { ({where: len(text) for where, text in said.items()}) }")


def _log_in_by_password(house: House) -> str:
    """As its owner would, but without a terminal to ask at."""
    account = house.cloud.accounts[0]
    return subprocess.check_output(
        command("login", "--password", "--config", str(house.config)),
        input=f"{account['user']}\n{account['password']}\n",
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env=houses.environment(),
        start_new_session=True,
    )


def _everything_stored(house: House) -> str:
    """Each document as text, compressed answers unpacked."""

    def plainly(value: Any) -> str:
        return zlib.decompress(value).decode() if isinstance(value, bytes) else str(value)

    with house.database() as database:
        names = database.list_collection_names()
        assert {"answers", "changes", "measurements", "modules"} <= set(names)
        documents = [each for name in names for each in database[name].find()]
    return json.dumps(documents, default=plainly)
