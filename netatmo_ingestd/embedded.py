"""Starts, watches and stops the embedded store: SecantusDB, a process of its own behind a socket.

It promises: loopback only; nothing is answered without the password; it ends with the process that
started it; two never run in one folder; the URI outlives restarts while its port is free. What goes
through the socket is the business of `mongo`.

This is the parent's side and never imports `secantus` (GPL-2.0: a program of its own); the child is
`embedded_server`.

The folder, `<state_dir>/store`, 0700, every file 0600: `data/` (WiredTiger's), `password` (of our
one user), `port` (wished for at the next start), `running.json` (the child's options, "pid",
"owner", "port"; true while `lock` is held), `lock` (flock, inherited: held exactly as long as the
child lives), `unfinished` (until the first start has made every table), `store.log` (what it
prints) and `store.log.1` (what it printed before).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from netatmo_ingestd.errors import Busy, ConfigError, IngestError, StoreUnavailable
from netatmo_ingestd.waits import is_set

USER = "netatmo_ingestd"
CURE = "Run: pip install 'netatmo-ingestd[embedded]'"
# Below the range from which outgoing connections take theirs: none of them sits on our port while
# the store restarts, and no client that retries connects to itself.
PORTS = range(20000, 32000)
CLOSE_S = 15  # a clean end may take so long, then the kernel ends it, whoever still waits
LOG_BYTES = 1 << 20
JOURNAL_BYTES = 10 << 20  # what WiredTiger wants for its next one
PACKAGES = str(Path(__file__).resolve().parents[1])

log = logging.getLogger(__name__)
OnEvent = Callable[[str, Mapping[str, Any]], None]


class EmbeddedStore:
    """One store in one folder. It dies with the thread that calls `start`: call it from the loop's.

    standalone            False: a one-node replica set, which keeps 340 bytes of memory an upsert
    auth, tls_pem         for tests: no password; a PEM file with certificate and key
    enable_test_commands  for tests: `configureFailPoint`, and the right to call it
    start_timeout         seconds; after a kill it reads the journal first
    on_event              told "store.…" and fields, never a secret
    """

    def __init__(
        self,
        folder: Path,
        *,
        standalone: bool = True,
        auth: bool = True,
        tls_pem: Path | None = None,
        enable_test_commands: bool = False,
        cache_size: str = "64M",
        oplog_max_entries: int = 2000,
        start_timeout: float = 120.0,
        on_event: OnEvent = lambda name, fields: log.warning("%s %s", name, fields),
    ) -> None:
        self.folder = folder.resolve()
        self._options = {
            "folder": str(self.folder),
            "owner": os.getpid(),
            "standalone": standalone,
            "auth": auth,
            "tls_pem": str(tls_pem.resolve()) if tls_pem else None,
            "enable_test_commands": enable_test_commands,
            "cache_size": cache_size,
            "oplog_max_entries": oplog_max_entries,
        }
        self._start_timeout = start_timeout
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._uri = ""
        self._turn = asyncio.Lock()
        self._broken = False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self.alive else None

    @property
    def uri(self) -> str:
        """Where it answers, **with the password**; the last one while it is down, "" before."""
        return self._uri

    async def start(self) -> str:
        """Start it unless it runs, wait until it answers, and return its URI.

        Raises  ConfigError (extra missing or of another version, damaged folder), Busy (a living
                process runs it, see `running_uri`), StoreUnavailable (it ended, or gave no answer)
        """
        async with self._turn:
            if not self.alive:
                await self._start()
        return self._uri

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by the signal `how`, by force if that takes too long; connections are cut."""
        async with self._turn:
            await self._end(how)

    async def restart(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End it by the signal `how` and start it again."""
        async with self._turn:
            await self._end(how)
            await self._start()
        return self._uri

    def report_broken(self) -> None:
        """Let `supervise` kill and restart it: after a full disk it refuses everything for good."""
        self._broken = True

    async def supervise(
        self, stop: asyncio.Event, *, first_delay: float = 0.5, longest_delay: float = 60.0
    ) -> None:
        """Start it if need be and again whenever it ended, until `stop` is set; leaves it running.

        To stop the store, set `stop` first.
        Each failure doubles the pause before the next start; a run of `longest_delay` forgets them.
        Tells store.ended (error, failures, retry_in_s) and store.restarted (pid, failures).
        """
        failures, began, error = 0, time.monotonic(), ""
        while not await is_set(stop, 0.3 if self.alive else 0.0):
            if self.alive and not self._broken:
                _trim(self.folder / "store.log")
                if time.monotonic() - began > longest_delay:
                    failures = 0
                continue
            if self._process or failures:
                error = error or ("refused everything" if self.alive else self._epitaph("ended"))
                delay = min(longest_delay, first_delay * 2 ** min(failures, 16))
                failures += 1
                what = {"error": error, "failures": failures, "retry_in_s": delay}
                self._on_event("store.ended", what)
                if await is_set(stop, delay):
                    return
            try:
                await self.restart(signal.SIGKILL)
            except IngestError as caught:
                error, failures = str(caught), max(failures, 1)
            else:
                began, error = time.monotonic(), ""
                if failures:
                    self._on_event("store.restarted", {"pid": self.pid, "failures": failures})

    async def _start(self) -> None:
        if importlib.util.find_spec("secantus") is None:
            msg = f'store.uri: "embedded" needs a package that is not installed. {CURE}'
            raise ConfigError(msg)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            with _opened(self.folder / "lock", os.O_RDWR | os.O_CREAT) as lock:
                await _take(lock, self.folder)
                self._prepare()
                await self._spawn(lock)  # the child's copy holds it from here on
            await self._until_ready()
        except OSError as error:
            await self._end(signal.SIGKILL)
            reason = "full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "down"
            msg = f"{self.folder}: cannot start the embedded store ({error.strerror or error})"
            raise StoreUnavailable(msg, reason=reason) from error
        except BaseException:
            await asyncio.shield(self._end(signal.SIGKILL))
            raise

    def _prepare(self) -> None:
        data, said = self.folder / "data", self.folder / "store.log"
        unfinished = self.folder / "unfinished"
        if unfinished.exists():  # no one has written yet; a table half made is refused for good
            shutil.rmtree(data, ignore_errors=True)
        names = {file.name for file in data.iterdir()} if data.is_dir() else set()
        if not names:
            write_private(unfinished, "")
        late = {n for n in names if n.endswith(".wt") or n.startswith("WiredTigerLog")}
        if "WiredTiger.turtle" not in names and late:
            msg = (
                f"{data}: WiredTiger.turtle is missing beside {len(late)} files of the database, "
                "which would begin anew, empty. Restore the folder from a copy, or move it away"
            )
            raise ConfigError(msg)
        if self._options["auth"] and not read_password(self.folder):
            write_private(self.folder / "password", secrets.token_hex(32))
            if names:
                what = "password file missing, damaged or open to others: there is a new password"
                self._on_event("store.password", {"error": what, "folder": str(self.folder)})
        (self.folder / "running.json").unlink(missing_ok=True)
        if said.exists():
            said.replace(said.with_suffix(".log.1"))

    async def _spawn(self, lock: int) -> None:
        # No variable of ours (secrets), none of SecantusDB's (one of them ends all durability).
        kept = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        command = (sys.executable, "-P", "-m", "netatmo_ingestd.embedded_server")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with _opened(self.folder / "store.log", flags) as said:  # a full pipe would stop it
            self._process = await asyncio.create_subprocess_exec(
                *(*command, json.dumps(self._options)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self.folder,
                env={**env, "PYTHONPATH": PACKAGES},
                pass_fds=(lock,),
                start_new_session=True,
            )
        self._broken = False

    async def _until_ready(self) -> None:
        """Wait for the child's note that it listens."""
        process, limit = self._process, time.monotonic() + self._start_timeout
        assert process is not None
        while (running := _running(self.folder)).get("pid") != process.pid:
            if process.returncode == ConfigError.exit_code:
                raise ConfigError(self._epitaph("could not start"))
            if process.returncode is not None:
                reason = "full" if shutil.disk_usage(self.folder).free < JOURNAL_BYTES else "down"
                raise StoreUnavailable(self._epitaph("could not start"), reason=reason)
            if time.monotonic() > limit:
                msg = f"{self.folder}: embedded store not ready after {self._start_timeout} s"
                raise StoreUnavailable(msg, reason="timeout")
            await asyncio.sleep(0.02)
        uri = _uri(self.folder, running)
        if self._uri not in {"", uri}:
            self._on_event("store.moved", {"port": running["port"]})
        self._uri = uri

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            await asyncio.wait_for(process.wait(), CLOSE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _epitaph(self, what: str) -> str:
        text = ""
        with contextlib.suppress(OSError):
            text = (self.folder / "store.log").read_text("utf-8", "replace").strip()
        last = text.rsplit("\n", 1)[-1][:300]
        code = self._process.returncode if self._process else None
        room = shutil.disk_usage(self.folder).free >> 20
        return f"embedded store {what} (exit {code}, {room} MiB free): {last or 'it said nothing'}"


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[str]:
    """The URI of the store that runs in `folder`, or of one that runs for this block only."""
    if uri := running_uri(folder):
        yield uri
        return
    store = EmbeddedStore(folder)
    try:
        yield await store.start()
    finally:
        await store.stop()


def running_uri(folder: Path) -> str | None:
    """URI, with the password, of the store that runs in `folder`, whoever started it; or None."""
    with contextlib.suppress(FileNotFoundError), _opened(folder / "lock", os.O_RDWR) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            running = _running(folder)
            return _uri(folder, running) if running else None
    return None


def history_bytes(folder: Path) -> int:
    """Size of the history file, which must not grow with each update; 0 before the first start."""
    with contextlib.suppress(OSError):
        return (folder / "data" / "WiredTigerHS.wt").stat().st_size
    return 0


def disk_bytes(folder: Path) -> int:
    """What all of its files take on disk."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # journals come and go
            total += file.lstat().st_blocks * 512
    return total


async def _take(lock: int, folder: Path) -> None:
    """Lock it; a store whose owner died is given the time to close."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner, waited = _running(folder).get("owner", 0), time.monotonic() - began
        # A second's patience: a `running_uri` holds it for a moment.
        if waited > CLOSE_S + 5 or (waited > 1 and _lives(owner)):
            msg = f"{folder}: process {owner} runs the embedded store. Stop it, or use its URI"
            raise Busy(msg)
        await asyncio.sleep(0.05)


def _lives(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _running(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / "running.json").read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _uri(folder: Path, running: Mapping[str, Any]) -> str:
    login = f"{USER}:{read_password(folder)}@" if running["auth"] else ""
    query = "directConnection=true" if running["standalone"] else "replicaSet=secantus"
    if login:
        query += "&authSource=admin&authMechanism=SCRAM-SHA-256"
    if running["tls_pem"]:
        query += f"&tls=true&tlsCAFile={quote(running['tls_pem'], safe='')}"
    return f"mongodb://{login}127.0.0.1:{running['port']}/?{query}"


def read_password(folder: Path) -> str:
    """What the file holds; "" if it is missing, damaged, a link, or others could read it."""
    file = folder / "password"
    with contextlib.suppress(OSError):
        text = file.read_bytes().decode("latin-1")
        if file.lstat().st_mode & 0o170077 == 0o100000 and re.fullmatch(r"[0-9a-f]{64}", text):
            return text
    return ""


def write_private(file: Path, text: str) -> None:
    """Replace `file` atomically, 0600, and flush it and its folder to disk."""
    fresh = file.with_name(f"{file.name}.next")
    fresh.unlink(missing_ok=True)
    with _opened(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as out:
        if os.write(out, text.encode()) != len(text.encode()):  # no error on a disk just full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(out)
    fresh.replace(file)
    with _opened(file.parent, os.O_RDONLY) as folder:
        os.fsync(folder)


@contextlib.contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _trim(said: Path) -> None:
    """Empty a log that a store in trouble has filled; it appends, so it goes on at the start."""
    with contextlib.suppress(OSError):
        if said.stat().st_size > LOG_BYTES:
            os.truncate(said, 0)
