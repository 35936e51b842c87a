"""What a service owes its surroundings: signals, one process for each state folder, sd_notify."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from netatmo_ingestd.errors import Busy, ConfigError


@dataclass
class Stop:
    """How the daemon is told to end, and how long its phases may take (real seconds).

    asked   no new polls, then drain
    hurry   skip the drain
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    poll_s: float = 10.0
    drain_s: float = 20.0

    def signal(self) -> None:
        if self.asked.is_set():
            self.hurry.set()
        self.asked.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """First thing: PID 1 ignores SIGTERM unless a handler is there."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


@contextmanager
def state_folder(folder: Path, *, exclusive: bool = True) -> Iterator[None]:
    """Make the state folder (0700) if it is missing; hold its lock, which is the daemon's alone.

    One that is there keeps its mode: it may be shared; what lies in it is private by itself.

    Raises ConfigError when it is not usable, Busy (exit 4) when another daemon runs in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"state_dir: {folder} is not usable ({error.strerror}); "
            f"make it writable for user {os.getuid()}, or name another"
        ) from error
    try:
        if not exclusive:
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode().strip() or "?"
            raise Busy(
                f"state_dir: {folder} is in use by a running daemon (pid {owner}); stop it first"
            ) from None
        with suppress(OSError):  # only tells others who runs; the disk may be full
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of the state folder; reports of others are of the dead."""
    try:
        lock = os.open(folder / "daemon.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def notify(state: str) -> None:
    """Tell systemd (`Type=notify`); does nothing elsewhere."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), address)


def forbid_dumps() -> None:
    """No core dump and no debugger of another process: the login is in our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(AttributeError, OSError):  # Linux only; a dump through a pipe ignores the limit
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
