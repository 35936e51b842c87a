"""The parent's side of the embedded store, without one: files, refusals, addresses."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd import embedded
from netatmo_ingestd.embedded import EmbeddedStore, disk_bytes, history_bytes, running_uri
from netatmo_ingestd.errors import Busy, ConfigError

ROOT = Path(__file__).parents[1]
PASSWORD = "0123456789abcdef" * 4
SCRAM = "directConnection=true&authSource=admin&authMechanism=SCRAM-SHA-256"
RUNNING: dict[str, Any] = {
    "pid": 1,
    "owner": os.getpid(),
    "port": 20123,
    "standalone": True,
    "auth": True,
    "tls_pem": None,
}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder whose lock somebody holds."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield tmp_path
    os.close(lock)


def note(folder: Path, **changes: Any) -> None:
    (folder / "running.json").write_text(json.dumps({**RUNNING, **changes}))
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)


def test_parent_never_imports_the_store() -> None:
    """Importing our side, whole as it is, does not import SecantusDB."""
    code = "import sys, netatmo_ingestd.embedded; print('secantus' in sys.modules)"

    assert python(code).stdout == "False\n"


async def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, one line says what to install, and nothing is made on disk."""
    monkeypatch.setitem(sys.modules, "secantus", None)

    with pytest.raises(ConfigError) as caught:
        await EmbeddedStore(tmp_path / "store").start()

    message = str(caught.value)
    assert "pip install 'netatmo-ingestd[embedded]'" in message
    assert "\n" not in message
    assert not (tmp_path / "store").exists()


FAKES = """
import json, os, sys, types
from pathlib import Path

class Storage:
    pass

class Server:
    def __init__(self, **options):
        self.storage, self.cursors = Storage(), None

for name, content in {
    "secantus": {},
    "secantus.server": {"SecantusDBServer": Server},
    "secantus.commands": {"CommandContext": list, "dispatch": dict},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)

from netatmo_ingestd.embedded_server import serve

options = dict.fromkeys(["auth", "standalone", "tls_pem", "enable_test_commands", "cache_size"])
folder = sys.argv[1]
sys.exit(serve({**options, "oplog_max_entries": 1, "folder": folder, "owner": os.getppid()}))
"""


def test_another_version_is_refused(tmp_path: Path) -> None:
    """A SecantusDB without the method that releases a session ends the child with the cure."""
    ended = python(FAKES, str(tmp_path))

    assert ended.returncode == ConfigError.exit_code
    last = ended.stderr.strip().rpartition("\n")[2]
    assert "_reset_thread_session" in last
    assert "pip install 'netatmo-ingestd[embedded]'" in last
    assert not (tmp_path / "running.json").exists()


def test_child_of_a_dead_parent_ends_at_once(tmp_path: Path) -> None:
    """A child whose parent died before it could ask to be told touches nothing."""
    options = json.dumps({"owner": 1, "folder": str(tmp_path)})

    code = "import runpy; runpy.run_module('netatmo_ingestd.embedded', None, '__main__')"
    ended = python(code, options)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        ["WiredTigerHS.wt"],
        ["WiredTiger", "WiredTigerLog.0000000007"],
        ["WiredTiger", "WiredTiger.wt", "secantus_documents_sh14.wt", "WiredTigerHS.wt"],
    ],
)
def test_lost_turtle_is_refused(tmp_path: Path, files: list[str]) -> None:
    """Data without WiredTiger.turtle is refused: which folder, what is missing, what to do."""
    data = tmp_path / "data"
    data.mkdir()
    for name in files:
        (data / name).touch()

    with pytest.raises(ConfigError) as caught:
        EmbeddedStore(tmp_path)._prepare()

    assert str(caught.value).startswith(f"{data}: WiredTiger.turtle is missing")
    assert "Restore the folder" in str(caught.value)


def test_first_start_cut_short_begins_anew(tmp_path: Path) -> None:
    """Tables of a first start that did not end are made anew; those of a later one never."""
    for name in ("WiredTigerLog.1", "secantus_users.wt"):
        EmbeddedStore(tmp_path, on_event=lambda _name, _fields: None)._prepare()
        assert (tmp_path / "unfinished").exists()
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / name).touch()
    (tmp_path / "unfinished").unlink()  # as the child does once it has made them all

    with pytest.raises(ConfigError, match="beside 1 files"):
        EmbeddedStore(tmp_path)._prepare()
    assert (tmp_path / "data" / "secantus_users.wt").exists()


def test_password_is_random_private_and_kept(tmp_path: Path) -> None:
    """Each folder has a password of its own, 0600, the same at each start."""
    told: list[str] = []
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "password.next").write_text("what a crash left behind")

        EmbeddedStore(folder, on_event=lambda name, _: told.append(name))._prepare()

        assert (folder / "password").stat().st_mode & 0o777 == 0o600
        first = embedded.read_password(folder)
        EmbeddedStore(folder)._prepare()
        assert embedded.read_password(folder) == first
        assert not (folder / "password.next").exists()
    assert len({embedded.read_password(folder) for folder in folders} | {""}) == 3
    assert told == []  # nothing was lost


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary", "readable", "link"])
def test_bad_password_file_is_replaced_aloud(tmp_path: Path, damage: str) -> None:
    """A password file that is lost, damaged or open to others is replaced, and it is told."""
    file = tmp_path / "password"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "WiredTiger.turtle").touch()
    note(tmp_path)
    if damage == "missing":
        file.unlink()
    elif damage == "readable":
        file.chmod(0o640)
    elif damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to("elsewhere")
    else:
        file.write_bytes({"empty": b"", "cut": b"0123", "binary": b"\xff" * 64}[damage])
    told: list[tuple[str, Mapping[str, Any]]] = []

    EmbeddedStore(tmp_path, on_event=lambda *event: told.append(event))._prepare()

    assert [name for name, _ in told] == ["store.password"]
    fresh = embedded.read_password(tmp_path)
    assert fresh not in {"", PASSWORD}
    assert fresh not in str(told)
    assert not file.is_symlink()


@pytest.mark.parametrize(
    ("changes", "uri"),
    [
        (
            {},
            f"mongodb://netatmo_ingestd:{PASSWORD}@127.0.0.1:20123/?{SCRAM}",
        ),
        ({"auth": False}, "mongodb://127.0.0.1:20123/?directConnection=true"),
        (
            {"auth": False, "standalone": False, "tls_pem": "/a b/c.pem"},
            "mongodb://127.0.0.1:20123/?replicaSet=secantus&tls=true&tlsCAFile=%2Fa%20b%2Fc.pem",
        ),
    ],
)
def test_uri_of_a_running_store(held: Path, changes: dict[str, Any], uri: str) -> None:
    """While the lock is held the note of the child becomes the URI, password included."""
    note(held, **changes)

    assert running_uri(held) == uri


def test_no_uri_without_the_lock(tmp_path: Path) -> None:
    """A note that a dead store left behind is not believed; nor does asking make any file."""
    note(tmp_path)
    (tmp_path / "lock").touch()

    assert running_uri(tmp_path) is None
    assert running_uri(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_no_uri_before_the_note_is_whole(held: Path, text: str) -> None:
    """A store that is just starting has no URI yet."""
    (held / "running.json").write_text(text)

    assert running_uri(held) is None


async def test_second_start_is_busy(held: Path) -> None:
    """Where a living process runs the store, another start says who, and ends."""
    note(held)
    lock = os.open(held / "lock", os.O_RDWR)

    with pytest.raises(Busy, match=f"process {os.getpid()} runs the embedded store"):
        await embedded._take(lock, held)

    os.close(lock)


async def test_store_that_never_ran(tmp_path: Path) -> None:
    """Before its first start a store has no URI, process or size, and stopping it is nothing."""
    store = EmbeddedStore(tmp_path / "store")

    await store.stop()

    assert (store.uri, store.pid, store.alive) == ("", None, False)
    assert history_bytes(store.folder) == disk_bytes(store.folder) == 0


def test_sizes(tmp_path: Path) -> None:
    """`history_bytes` is the size of one file, `disk_bytes` what all take on disk."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "WiredTigerHS.wt").write_bytes(bytes(5000))
    (tmp_path / "store.log").write_bytes(bytes(5000))

    assert history_bytes(tmp_path) == 5000
    assert disk_bytes(tmp_path) >= 10_000


def test_log_is_bounded(tmp_path: Path) -> None:
    """A log that a store in trouble fills is emptied, a small one is left alone."""
    said = tmp_path / "store.log"
    said.write_bytes(bytes(embedded.LOG_BYTES))
    embedded._trim(said)
    assert said.stat().st_size == embedded.LOG_BYTES

    said.write_bytes(bytes(embedded.LOG_BYTES + 1))
    embedded._trim(said)

    assert said.stat().st_size == 0
