"""The daemon as a service: how it ends, who else may run, what it tells, and a state disk in need."""

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
from pymongo.errors import PyMongoError

from tests.faults.house import (
    Child,
    House,
    assert_clean,
    command,
    environment,
    invariant,
    opened,
    tell,
    until,
)
from tests.stores import alive, require_extra

pytestmark = pytest.mark.faults

BUSY_WRITER = {"bulk_size": 50, "max_bulks_per_second": 20.0}
SLOW_WRITER = {"bulk_size": 20, "max_bulks_per_second": 1.0}
FAST_WRITER = {"bulk_size": 500, "max_bulks_per_second": 1000.0}
OFTEN = {"trailing": "10m"}  # so that a test waits less for the next one
MIB = 1 << 20


def _end_and_count(house: House, *, hurried: bool = False) -> tuple[float, int]:
    """SIGTERM, a second one if `hurried`; seconds until exit 0, and the records it left."""
    before = len(house.events("daemon.stopping"))
    began = time.monotonic()
    house.running.signal(signal.SIGTERM)
    if hurried:  # signals that follow at once are one for the kernel
        until(
            lambda: len(house.events("daemon.stopping")) > before,
            within=15,
            what="it drains",
            house=house,
        )
        house.running.signal(signal.SIGTERM)
    code = house.running.wait(55)
    took = time.monotonic() - began
    assert code == 0, house.tail()
    assert "Traceback" not in house.log.read_text()
    return took, int(house.events("daemon.stopped")[-1]["left_on_spool"])


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_signal_while_busy(tmp_path: Path) -> None:
    """SIGTERM with a bulk, a refresh and a poll under way: exit 0 within 55 s, the refresh saved.

    A second SIGTERM skips the drain; what is left on the spool arrives after the next start.
    """
    with opened(
        tmp_path, speed=500, stations=2, accounts=2, days=1, poll=OFTEN, writer=BUSY_WRITER
    ) as house:
        house.cloud.arm("stall", endpoint="token", count=1, real_seconds=4.0)
        second = house.cloud.accounts[1]["user"]
        house.start()
        until(lambda: _waiting(house) > 500, within=30, what="much waits", house=house)
        house.cloud.arm("expire_access", account=house.cloud.accounts[0]["user"])
        house.cloud.arm("stall", account=second, count=1, real_seconds=3.0)
        until(
            lambda: house.cloud.stats()["running"] == 2,
            within=20,
            what="a refresh and a poll are under way",
            house=house,
            every=0.01,
        )
        generation, refreshes = house.token(0)["generation"], house.cloud.refreshes()
        took, left = _end_and_count(house)
        waited = house.events("daemon.stopping")[-1]["records_waiting"]
        assert waited > 100
        assert house.token(0)["generation"] == generation + 1
        assert house.login_lives()

        house.write_config(writer=SLOW_WRITER)
        house.start()
        until(lambda: _waiting(house) > 500, within=30, what="much waits", house=house)
        hurried, more = _end_and_count(house, hurried=True)
        tell(
            f"{waited} records waited; {took:.1f} s until exit 0, {left} left; {refreshes} "
            f"refreshes before; hurried: {hurried:.1f} s, {more} left"
        )
        assert more > 0
        assert hurried < 15

        house.write_config(writer=FAST_WRITER)
        house.start()
        house.mark()
        invariant(house)


def _waiting(house: House) -> int:
    return int(house.status().get("spool", {}).get("records", 0))


# --- who else, and what it tells ----------------------------------------------------------------


def test_a_second_daemon(tmp_path: Path) -> None:
    """A second daemon in one state folder ends with 4 and one line; the first does not notice."""
    with opened(tmp_path, speed=500, days=1, poll=OFTEN) as house:
        first = house.start()
        house.mark()
        store, said = house.store_pid(), len(house.events())
        second = house.run("run")
        assert second.returncode == 4, second.stderr
        assert second.stdout == ""
        assert len(second.stderr.splitlines()) == 1
        assert f"pid {first.pid}" in second.stderr
        invariant(house)
        assert house.store_pid() == store
        assert len(house.events()) == said, house.tail()


def test_what_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a login: READY=1 once, then the watchdog is fed, STOPPING=1 once at SIGTERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with opened(tmp_path, speed=500, login=False) as house:
            house.start()
            assert service.recv(100) == b"READY=1"
            assert service.recv(100) == b"WATCHDOG=1"
            until(lambda: house.events("login.required"), within=10, what="no login", house=house)
            began = time.monotonic()
            assert service.recv(100) == b"WATCHDOG=1"
            fed_after = time.monotonic() - began
            assert house.stop() == 0
        service.setblocking(False)
        rest = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                rest.append(service.recv(100))
    tell(f"the watchdog was fed after {fed_after:.1f} s")
    assert [each for each in rest if each != b"WATCHDOG=1"] == [b"STOPPING=1"]


# --- the demonstration --------------------------------------------------------------------------


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        known = [(int(p.name), p) for p in Path("/proc").iterdir() if p.name.isdigit()]
        parents = {}
        for number, folder in known:
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[number] = int(stat[1])
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


@contextlib.contextmanager
def _demo(folder: Path, *arguments: str) -> Iterator[tuple[Child, Path]]:
    """The demonstration as a process, and the file with what it says."""
    require_extra()
    said = folder / f"said{len(list(folder.iterdir()))}"
    child = Child(command("demo", *arguments), said)
    try:
        yield child, said
    finally:
        left = _descendants(child.pid)
        child.end()
        until(lambda: not any(map(alive, left)), within=20, what="its children end as well")


@pytest.mark.parametrize("moment", ["the simulator starts", "the store starts", "it runs"])
def test_ctrl_c_ends_the_demo(tmp_path: Path, moment: str) -> None:
    """Ctrl-C ends the demonstration within 5 s at any stage: exit 0, no traceback, no child."""
    with _demo(tmp_path) as (child, said):
        reached = {
            "the simulator starts": lambda: len(_descendants(child.pid)) > 0,
            "the store starts": lambda: len(_descendants(child.pid)) > 1,
            "it runs": lambda: "modules" in said.read_text(),
        }[moment]
        until(reached, within=40, what=moment, every=0.01)
        children = _descendants(child.pid)
        child.signal(signal.SIGINT)
        began = time.monotonic()
        code = child.wait(20)
        took = time.monotonic() - began
        tell(f"ended after {took:.1f} s with {code}")
        assert not [pid for pid in children if alive(pid)]
    text = said.read_text()
    assert "Traceback" not in text, text
    assert code == 0, text
    assert took < 5


def test_the_demo_shows_a_station_within_20_seconds(tmp_path: Path) -> None:
    """20 s after its start the demonstration has stored rows of all 7 modules, nothing wrong."""
    began = time.monotonic()
    with _demo(tmp_path, "--seconds", "20", "--json") as (child, said):
        until(lambda: _modules_with_rows(said.read_text()) == 7, within=20, what="7 modules")
        took = time.monotonic() - began
        assert child.wait(60) == 0, said.read_text()
    result = json.loads(said.read_text().splitlines()[-1])
    tell(f"rows of 7 modules after {took:.1f} s; {result}")
    assert result["measurements"] >= result["expected"] > 0
    assert not any(result[key] for key in ("missing", "duplicates", "different", "unexpected"))


def _modules_with_rows(said: str) -> int:
    """As the store says whose address the demonstration prints."""
    address = re.search(r"mongodb://[^']+", said)
    if address is None:
        return 0
    client: Any = pymongo.MongoClient(address[0], serverSelectionTimeoutMS=1000)
    try:
        rows = client["netatmo"]["measurements"].find({}, {"module_id": 1})
        return len({row["module_id"] for row in rows})
    except PyMongoError:
        return 0
    finally:
        client.close()


# --- a state disk in need -----------------------------------------------------------------------


@contextlib.contextmanager
def _small_disk(tmp_path: Path, mib: int) -> Iterator[Callable[[], None]]:
    """The state folder on a disk of its own, the store's files elsewhere; what mounts it anew."""
    state, image = tmp_path / "state", tmp_path / "disk"
    state.mkdir()
    with image.open("wb") as file:
        file.truncate(mib * MIB)

    def mount() -> None:
        for line in (
            ["mount", "-o", "loop,errors=remount-ro", str(image), str(state)],
            ["chmod", "700", str(state)],
        ):
            subprocess.run(line, check=True, capture_output=True, text=True)

    def anew() -> None:
        subprocess.run(["umount", str(state)], check=True)
        # 1: it was damaged, as it had to be, and is mended.
        done = subprocess.run(["fsck.ext4", "-fy", str(image)], capture_output=True, check=False)
        assert done.returncode <= 1
        mount()

    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
        mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        (tmp_path / "store").mkdir()
        (state / "store").symlink_to(tmp_path / "store")
        yield anew
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def _fill(folder: Path, leave: int = 0) -> Path:
    """Take all room but `leave` bytes, with a file of its own."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (MIB, 4096):
            while shutil.disk_usage(folder).free > leave + size:
                file.write(os.urandom(size))
    return filler


def _calls_in(house: House, seconds: float) -> int:
    """How many calls the cloud sees in so many simulated seconds."""
    before, began = house.cloud.calls(), house.now
    until(lambda: house.now > began + seconds, within=30, what="time passes")
    assert house.running.alive, house.tail()
    return house.cloud.calls() - before


def _state_dir_verdict(house: House) -> str:
    findings = json.loads(house.run("doctor", "--json").stdout)
    found = next(each for each in findings if each["name"] == "state_dir")
    return f"{found['verdict']}: {found['text']}"


@pytest.mark.timeout(180)
def test_a_full_state_disk(tmp_path: Path) -> None:
    """On a full disk polling pauses, the spool drains, a restart works; all goes on with room."""
    state = tmp_path / "state"
    with (
        _small_disk(tmp_path, 32),
        opened(tmp_path, speed=200, days=4, poll=OFTEN, writer=FAST_WRITER) as house,
    ):
        filler = _fill(state, leave=10 * MIB)  # 8 of them are the ballast's
        house.start()
        until(house.store_pid, within=30, what="the store runs", house=house)
        os.kill(house.store_pid(), signal.SIGSTOP)
        until(lambda: house.cloud.calls() > 4, within=20, what="answers wait", house=house)
        _fill(state)
        until(lambda: house.events("spool.full"), within=30, what="it is full", house=house)
        calls, verdict = _calls_in(house, 1200), _state_dir_verdict(house)
        os.kill(house.store_pid(), signal.SIGCONT)
        took, left = _end_and_count(house)
        waited = house.events("daemon.stopping")[-1]["records_waiting"]

        house.start()
        until(
            lambda: len(house.events("spool.full")) > 1, within=30, what="full again", house=house
        )
        filler.unlink()
        house.mark()
        compared = invariant(house)
        until(lambda: house.status()["healthy"], within=20, what="it is well", house=house)
    tell(
        f"{calls} calls in 20 min while full, doctor: {verdict}; {waited} records drained in "
        f"{took:.1f} s, {left} left; {compared.expected} rows, none missing; {house.counted()}"
    )
    assert calls <= 5  # one trial in five minutes
    assert verdict.startswith("bad") and "No space left" in verdict
    assert waited > 0
    assert left == 0


@pytest.mark.timeout(180)
def test_a_state_disk_that_turns_read_only(tmp_path: Path) -> None:
    """When its disk turns read-only the daemon pauses and lives on; mended, nothing is missing."""
    with (
        _small_disk(tmp_path, 64) as anew,
        opened(tmp_path, speed=200, days=1, poll=OFTEN, writer=FAST_WRITER) as house,
    ):
        house.start()
        house.mark()
        device = Path(_mounted_from(tmp_path / "state")).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")
        until(lambda: house.events("spool.full"), within=20, what="it pauses", house=house)
        calls, verdict = _calls_in(house, 1200), _state_dir_verdict(house)
        began = time.monotonic()
        code = house.stop()
        took = time.monotonic() - began
        again = house.run("run")
        anew()
        house.start()
        invariant(house)
    tell(f"{calls} calls in 20 min, doctor: {verdict}; SIGTERM: {code} after {took:.1f} s")
    assert calls <= 5
    assert verdict.startswith("bad") and "Read-only" in verdict
    assert code == 0
    assert again.returncode == 2, again.stderr
    assert len(again.stderr.splitlines()) == 1


def _mounted_from(folder: Path) -> str:
    lines = Path("/proc/mounts").read_text().splitlines()
    return next(line.split()[0] for line in lines if line.split()[1] == str(folder))


# --- secrets ------------------------------------------------------------------------------------

MISHAPS: list[dict[str, Any]] = [
    {"kind": "invalid_token", "count": 1},
    {"kind": "http", "status": 500, "body": "json", "count": 1},
    {"kind": "redirect", "count": 1},
    {"kind": "cut", "count": 1},
    {"kind": "not_json", "count": 1},
    {"kind": "token_html", "count": 1},
    {"kind": "token_list", "count": 1},
    {"kind": "token_missing", "commit": True, "fields": ["expires_in", "expire_in"], "count": 1},
]


def test_no_secret_is_told(tmp_path: Path) -> None:
    """At debug level, with failures, no secret stands in log, report, document or state file."""
    debug = {"level": "debug", "format": "json"}
    flags = ("--password-grant",)
    with opened(
        tmp_path, speed=1000, days=1, cloud_flags=flags, login=False, poll=OFTEN, log=debug
    ) as house:
        said = [_password_login(house)]
        house.start()
        house.mark()
        for mishap in MISHAPS:
            house.cloud.arm(**mishap)
        house.cloud.arm("expire_access")
        until(
            lambda: house.token() and all(house.cloud.hits(m["kind"]) for m in MISHAPS),
            within=60,
            what="each mishap happened",
            house=house,
        )
        invariant(house)
        assert house.events("login.refreshed")
        for arguments in (("status", "--json"), ("doctor", "--json"), ("status",), ("doctor",)):
            done = house.run(*arguments)
            said.append(done.stdout + done.stderr)
        documents = _everything_stored(house)
        own = [f for f in house.state.rglob("*") if f.is_file() and not _may_hold_secrets(f)]
        files = {file.name: file.read_bytes().decode("latin-1") for file in (*own, house.log)}
        house.check_secrets()  # it also learns which secrets there are
        for place, text in {**files, "commands": "".join(said), "store": documents}.items():
            assert_clean(text, house.canaries, place)
        assert house.cloud.stats()["tokens_leaked"] == 0
        tell(
            f"{len(house.canaries)} secrets, {len(documents)} letters of documents, "
            f"{sorted(files)}; {house.counted()}"
        )


def _password_login(house: House) -> str:
    """Log in with user name and password, as its owner could; without a terminal."""
    account = house.cloud.accounts[0]
    done = subprocess.run(
        command("login", "--password", "--config", str(house.config)),
        input=f"{account['user']}\n{account['password']}\n",
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _may_hold_secrets(file: Path) -> bool:
    """The login itself, the store's password, and the store's own files."""
    return bool({"tokens", "data", "password"} & {file.name, *(p.name for p in file.parents)})


def _everything_stored(house: House) -> str:
    """Each document as text, compressed answers unpacked."""
    parts: list[str] = []

    def plainly(value: Any) -> str:
        return zlib.decompress(value).decode() if isinstance(value, bytes) else str(value)

    with house.database() as database:
        names = database.list_collection_names()
        assert {"answers", "changes", "measurements", "modules"} <= set(names)
        for name in names:
            parts += [json.dumps(each, default=plainly) for each in database[name].find()]
    return "\n".join(parts)
