"""The purse of a client id on disk: which calls were made when, pauses, lowered targets, plans.

One small file, read and replaced under a lock by every process that calls. Damage or a full disk
costs the sharing between processes, never a call.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from netatmo_ingestd import logs
from netatmo_ingestd.clock import Clock

# The file holds whole milliseconds: a call is stamped rounded up and looked at rounded down.
SECOND, TEN_SECONDS, MINUTE, HOUR, DAY = 1_000, 10_000, 60_000, 3_600_000, 86_400_000


@dataclass(slots=True)
class Entry:
    """What the file says of one account, or of the application. Times in ms of the clock."""

    calls: list[int] = field(default_factory=list)
    planned: float = 0.0
    lowered: float = 0.0
    failures: int = 0
    background: int = -HOUR
    planned_at: int = -HOUR
    paused_until: int = 0
    lowered_until: int = 0

    def move_back(self, by: int) -> Entry:
        """The same at an earlier time."""
        self.calls = [call - by for call in self.calls]
        self.background -= by
        self.planned_at -= by
        self.paused_until -= by
        self.lowered_until -= by
        return self

    def forget(self, now: int, window: int) -> bool:
        """Drop what the longest window sees no more; True when nothing is left."""
        del self.calls[: bisect_left(self.calls, now - window)]
        if now - self.planned_at > HOUR:
            self.planned = 0.0
        ended = max(self.paused_until, self.lowered_until, self.background + HOUR) <= now
        return ended and not (self.calls or self.planned or self.failures)


class Purse:
    """The file of one client id and what it says: `entries` by account, the `calls` of all.

    window  ms of the longest window that calls are kept for
    error   why the file is not kept; what this process remembers is then the best there is
    """

    def __init__(self, folder: Path, client_id: str, clock: Clock, window: int = HOUR) -> None:
        self.entries: dict[str, Entry] = {}
        self.calls: list[int] = []
        self.error = ""
        self._path = folder / f"{hashlib.sha256(client_id.encode()).hexdigest()[:16]}.json"
        self._clock = clock
        self._window = window
        self._seen = b""  # the file that `entries` was read from or written to
        self._plan: dict[str, float] = {}

    def now(self) -> int:
        return math.floor(self._clock.monotonic() * SECOND)

    def entry(self, name: str) -> Entry:
        return self.entries.setdefault(name, Entry())

    def plan(self, planned: dict[str, float], now: int) -> None:
        """Note what this process plans; it lapses an hour after the process wrote last."""
        for name in self._plan.keys() - planned.keys():
            self.entry(name).planned = 0.0
        self._plan = planned
        self._note_plan(now)

    def _note_plan(self, now: int) -> None:
        for name, calls in self._plan.items():
            entry = self.entry(name)
            entry.planned, entry.planned_at = calls, now

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The state that all processes share, under their lock; gives the time."""
        lock = -1
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
            _take(lock)
        except OSError as error:
            self.error = f"{self._path.parent}: {error.strerror}"
        try:
            yield self.load()
        finally:
            if lock >= 0:
                os.close(lock)

    def load(self) -> int:
        """Read the file if it changed; gives the time. Without the lock only to look."""
        raw = self._seen
        for path in (self._path, self._path.with_suffix(".next")):
            try:
                raw = path.read_bytes()
                break
            except FileNotFoundError:
                continue  # `save` was cut off between its last two steps, or there is none yet
            except OSError as error:
                self.error = f"{path}: {error.strerror}"
        now = self.now()
        if raw != self._seen:
            self._seen = raw
            try:
                self.entries = _decode(raw, now)
            except (ValueError, TypeError, LookupError) as error:
                text = f"{self._path}: damaged ({error}); counted from what this process knows"
                logs.logger().warning("budget.damaged", error=text)
            self.calls = sorted(itertools.chain(*(e.calls for e in self.entries.values())))
        self._note_plan(now)
        return now

    def save(self, now: int) -> None:
        """Replace the file; at each moment one whole version lies under one of its two names.

        Not in one rename: over an existing file, ext4 writes the new one out first, some
        milliseconds for each call. A full disk costs the sharing, nothing else.
        """
        for name in [
            name for name, entry in self.entries.items() if entry.forget(now, self._window)
        ]:
            del self.entries[name]
        del self.calls[: bisect_left(self.calls, now - self._window)]
        data = _encode(self.entries, now)
        fresh = self._path.with_suffix(".next")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._window > HOUR:
                    os.fsync(file)  # of a day's quota a power cut must not forget much
            finally:
                os.close(file)
            self._path.unlink(missing_ok=True)
            fresh.rename(self._path)
        except OSError as error:
            self.error = f"{self._path}: {error.strerror}; other commands do not see our calls"
        else:
            self._seen, self.error = data, ""


_ROW = attrgetter(*Entry.__slots__)


def _encode(entries: Mapping[str, Entry], now: int) -> bytes:
    rows = {name: _ROW(entry) for name, entry in entries.items()}
    text = json.dumps({"at": now, "entries": rows}, separators=(",", ":")).encode()
    return b"%08x %s" % (zlib.crc32(text), text)


def _decode(raw: bytes, now: int) -> dict[str, Entry]:
    """Read the file.

    One written later than now is of an earlier start of the machine: all its times move back by
    the difference, so that its newest call counts as made now, and none as older than it is.
    """
    check, _, text = raw.partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        raise ValueError("its checksum differs")
    state = json.loads(text)
    back = max(0, state["at"] - now)
    return {name: Entry(*row).move_back(back) for name, row in state["entries"].items()}


def room(calls: Sequence[int], limit: float, window: int) -> float:
    """From when on `window` ms hold fewer than `limit` of `calls`."""
    place = math.floor(limit)
    if place < 1:
        return math.inf
    return calls[-place] + window + 1 if len(calls) >= place else -math.inf


def count(calls: Sequence[int], since: int) -> int:
    return len(calls) - bisect_left(calls, since)


def _take(lock: int) -> None:
    """Take the file lock; go on without it if a process was frozen inside its millisecond."""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.0005)
        else:
            return
