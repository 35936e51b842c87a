"""How many requests we allow ourselves, and how long we wait after a failure.

The budget nests: the application (client id) above its accounts. Every call is counted first, in
one small file for each client id, so all commands of this program spend from one purse and a crash
loop cannot burn the quota. Promised: no window of our clock holds more calls than allowed. Not
promised: that the cloud sees them as evenly spaced as they left, nor fairness among processes.

    who              an hour, each account     spaced
    token            up to 490                 not, and a pause does not stop it
    live             up to 490                 1 s
    events, trailing up to the target (400)    1 s
    reread, history  up to the target          evenly, over what the planned polls leave

Each account makes up to 50 in 10 s; all of an application up to 2000 an hour, of which the last 2 %
are for token and live calls. Source: netatmo-api.md 6, design.md 7.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import random
import time
import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from netatmo_ingestd import logs
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.models import Priority

# The file holds whole milliseconds: a call is stamped rounded up and looked at rounded down.
SECOND, TEN_SECONDS, MINUTE, HOUR = 1_000, 10_000, 60_000, 3_600_000
HARD_PER_HOUR = 490  # the cloud's limit is 500; ten are left for its way of counting
RESERVE = 0.02  # of the application's hour
BURST_LEAST, BURST_MOST = 20, 200  # nobody reports that few accounts are held to 2 × users
PAUSE_FIRST_S, PAUSE_MOST_S, RETRY_AFTER_MOST_S = 60.0, 3600.0, 86_400.0
LOWERED = 0.75  # of the target, for an hour after a refusal; never below what is planned
APP = ""  # the application's place among the accounts


class Backoff:
    """Doubling waits: `first`, 2 · `first`, … up to `most` seconds, each shortened at random.

    jitter    largest part by which a wait is shortened, 0 to 1
    failures  waits handed out since the last `reset`
    """

    def __init__(
        self, first: float, most: float, *, rng: random.Random, jitter: float = 0.5
    ) -> None:
        self.failures = 0
        self._first, self._most, self._jitter, self._rng = first, most, jitter, rng

    def next(self) -> float:
        """Seconds to wait before the next try."""
        wait = min(self._most, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return wait * (1.0 - self._jitter * self._rng.random())

    def reset(self) -> None:
        self.failures = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Where an account stands, or (`Budget.purse`) all accounts of the application together.

    hour, ten_seconds  calls counted in the last hour and the last 10 s
    target             calls an hour it goes up to; lower than set for an hour after a refusal
    planned, granted   calls an hour of all fixed cadences, and what they leave for history
    paused_for         seconds until it, or its application, may call again; 0 when it may
    app_hour           calls of all accounts in the last hour, `app_target` what they go up to
    error              why the file is not kept, so that this process counts alone; "" when it is
    """

    hour: int
    ten_seconds: int
    target: float
    planned: float
    granted: float
    paused_for: float
    app_hour: int
    app_target: float
    error: str


@dataclass(order=True, slots=True)
class _Ticket:
    priority: Priority
    number: int
    account: str = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class Budget:
    """The purse of one client id.

    folder        holds its file, made when needed; a file that cannot be kept costs the sharing
    per_hour      target of each account, `per_10s` its burst
    app_per_hour  for all accounts together, `app_per_10s` their burst; None: 2 for each account,
                  at least 20, at most 200
    clock         its monotonic time is the same in all processes since the machine started
    """

    def __init__(
        self,
        folder: Path,
        client_id: str,
        *,
        per_hour: int,
        per_10s: int,
        app_per_hour: int,
        app_per_10s: int | None = None,
        clock: Clock,
    ) -> None:
        self._per_hour, self._per_10s = min(per_hour, HARD_PER_HOUR), per_10s
        self._app_per_hour, self._app_per_10s = app_per_hour, app_per_10s
        self._clock = clock
        self._purse = _Purse(folder, client_id, clock)
        self._numbers = itertools.count()
        self._waiting: list[_Ticket] = []
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    async def reserve(self, account: str, priority: Priority) -> float:
        """Wait until `account` may make one call, and count it on disk; seconds waited."""
        asked = self._clock.monotonic()
        granted = asyncio.get_running_loop().create_future()
        ticket = _Ticket(priority, next(self._numbers), account, granted)
        due = self._alarm is None or self._purse.now() >= self._alarm_at
        insort(self._waiting, ticket)
        try:
            # Before the alarm rings none of the others may go, so only the new one is looked at.
            self._serve(self._waiting if due else [ticket])
            await granted
        finally:
            self._waiting.remove(ticket)
            if not self._waiting and self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
        return self._clock.monotonic() - asked

    def plan(self, planned: Mapping[str, float]) -> float:
        """Say how many calls an hour the fixed cadences of each account ask for.

        Returns by how much to stretch them (1.0: they fit): asked / allowed, of the account or of
        the application, whichever is tighter.
        """
        worst = max(planned.values(), default=0.0) / self._per_hour
        stretch = max(1.0, worst, sum(planned.values()) / self._app_per_hour)
        with self._purse.opened() as now:
            self._purse.plan({name: calls / stretch for name, calls in planned.items()}, now)
            self._purse.save(now)
        if self._waiting:
            self._serve(self._waiting)
        return stretch

    def granted(self, account: str) -> float:
        """Calls an hour that planned polls leave to late re-reads and history of `account`."""
        now = self._purse.load()
        return max(0.0, min(self._left(account, now), self._left(APP, now)))

    def refused(
        self, account: str, *, application: bool, retry_after: float | None, unclear: bool = True
    ) -> float:
        """A quota was used up: stop `account`, or all accounts of the application.

        unclear  the message names neither; then a second account refused within the pause of the
                 first stops them all
        Returns  seconds until the next call: `retry_after`, or 60 s doubling to 1 h
        """
        with self._purse.opened() as now:
            others = (e for name, e in self._purse.entries.items() if name not in (APP, account))
            application |= unclear and any(entry.paused_until > now for entry in others)
            name = APP if application else account
            entry = self._purse.entry(name)
            # Calls that were under way when the pause began bring no second lesson.
            first = entry.paused_until <= now
            if first:
                floor = min(self._planned(name), self._base(name))
                entry.lowered = max(floor, self._target(name, now) * LOWERED)
                entry.lowered_until = now + HOUR
                entry.failures = min(entry.failures + 1, 99)
            pause = min(PAUSE_FIRST_S * 2.0 ** (entry.failures - 1), PAUSE_MOST_S)
            if retry_after is not None:
                pause = min(max(retry_after, 1.0), RETRY_AFTER_MOST_S)
            if first or retry_after is not None:
                entry.paused_until = max(entry.paused_until, now + math.ceil(pause * SECOND))
            left_s, target = (entry.paused_until - now) / SECOND, self._target(name, now)
            self._purse.save(now)
        if first:
            who = "all accounts of the application" if application else account
            logs.logger().warning(
                "budget.paused", account=who, for_s=round(left_s), target_per_hour=round(target)
            )
        return left_s

    def accepted(self, account: str) -> None:
        """A call succeeded: the next pause begins at 60 s again."""
        if not any(self._purse.entry(name).failures for name in (account, APP)):
            return
        with self._purse.opened() as now:
            for entry in (self._purse.entry(account), self._purse.entry(APP)):
                if entry.paused_until <= now:  # else it was under way when the pause began
                    entry.failures = 0
            self._purse.save(now)

    def usage(self, account: str) -> Usage:
        """Where `account` stands now; reads, changes nothing."""
        granted, now = self.granted(account), self._purse.now()
        calls = self._purse.calls if account == APP else self._purse.entry(account).calls
        paused_until = max(self._purse.entry(name).paused_until for name in (account, APP))
        return Usage(
            hour=_count(calls, now - HOUR),
            ten_seconds=_count(calls, now - TEN_SECONDS),
            target=self._target(account, now),
            planned=self._planned(account),
            granted=granted,
            paused_for=max(0, paused_until - now) / SECOND,
            app_hour=_count(self._purse.calls, now - HOUR),
            app_target=self._target(APP, now),
            error=self._purse.error,
        )

    @property
    def purse(self) -> Usage:
        """The totals of all accounts."""
        return self.usage(APP)

    # --- who may go -----------------------------------------------------------------------------

    def _serve(self, tickets: Sequence[_Ticket]) -> None:
        """Grant what is due, by priority, then arrival; set the alarm for what is not."""
        next_at, granted = math.inf, []
        with self._purse.opened() as now:
            for ticket in tickets:
                if ticket.granted.done():
                    continue
                opens = self._opens(ticket.account, ticket.priority, now)
                if opens <= now:
                    self._count_call(ticket, now + 1)
                    granted.append(ticket)
                else:
                    next_at = min(next_at, opens, now + MINUTE)  # others may change the file
            if granted:
                self._purse.save(now)
        for ticket in granted:
            ticket.granted.set_result(None)
        if math.isfinite(next_at):
            self._set_alarm(next_at)

    def _opens(self, name: str, priority: Priority, now: int) -> float:
        """From when there is room for this call, as things stand; `now` or earlier: at once."""
        entry, app, urgent = (
            self._purse.entry(name),
            self._purse.entry(APP),
            priority <= Priority.LIVE,
        )
        app_limit = self._app_per_hour if urgent else self._target(APP, now) * (1 - RESERVE)
        burst = min(BURST_MOST, max(BURST_LEAST, 2 * (len(self._purse.entries) - 1)))
        opens = max(
            _room(entry.calls, self._per_10s, TEN_SECONDS),
            _room(entry.calls, HARD_PER_HOUR if urgent else self._target(name, now), HOUR),
            _room(self._purse.calls, self._app_per_10s or burst, TEN_SECONDS),
            _room(self._purse.calls, app_limit, HOUR),
        )
        if priority > Priority.TOKEN:
            pace = _room(entry.calls, 1, SECOND)
            opens = max(opens, pace, entry.paused_until, app.paused_until)
        if priority >= Priority.REREAD:
            for place, last in ((name, entry.background), (APP, app.background)):
                left = self._left(place, now)
                opens = max(opens, last + HOUR / left if left > 0 else math.inf)
        return opens

    def _count_call(self, ticket: _Ticket, stamp: int) -> None:
        entry = self._purse.entry(ticket.account)
        entry.calls.append(stamp)
        self._purse.calls.append(stamp)
        if ticket.priority >= Priority.REREAD:
            entry.background = self._purse.entry(APP).background = stamp

    def _base(self, name: str) -> float:
        return self._app_per_hour if name == APP else self._per_hour

    def _target(self, name: str, now: int) -> float:
        entry, base = self._purse.entry(name), self._base(name)
        return min(base, entry.lowered) if entry.lowered_until > now else base

    def _planned(self, name: str) -> float:
        if name == APP:
            return sum(entry.planned for entry in self._purse.entries.values())
        return self._purse.entry(name).planned

    def _left(self, name: str, now: int) -> float:
        keep = 1 - RESERVE if name == APP else 1.0
        return self._target(name, now) * keep - self._planned(name)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.create_task(self._ring(at))
        self._alarm.add_done_callback(self._rung)

    async def _ring(self, at: float) -> None:
        # At least a millisecond: a float that is rounded down would else be asked for ever.
        await self._clock.sleep(max(at / SECOND - self._clock.monotonic(), 1 / SECOND))
        self._alarm = None
        self._serve(self._waiting)

    def _rung(self, alarm: asyncio.Task[None]) -> None:
        """A defect in here reaches those who wait, instead of leaving them waiting."""
        if not alarm.cancelled() and (error := alarm.exception()):
            for ticket in self._waiting:
                if not ticket.granted.done():
                    ticket.granted.set_exception(error)


# --- the purse: what is on disk -----------------------------------------------------------------


@dataclass(slots=True)
class _Entry:
    """What the file says of one account, or of the application. Times in ms of the clock."""

    calls: list[int] = field(default_factory=list)
    planned: float = 0.0
    lowered: float = 0.0
    failures: int = 0
    background: int = -HOUR
    planned_at: int = -HOUR
    paused_until: int = 0
    lowered_until: int = 0

    def move_back(self, by: int) -> _Entry:
        """The same at an earlier time."""
        self.calls = [call - by for call in self.calls]
        self.background -= by
        self.planned_at -= by
        self.paused_until -= by
        self.lowered_until -= by
        return self

    def forget(self, now: int) -> bool:
        """Drop what no window sees any more; True when nothing is left."""
        del self.calls[: bisect_left(self.calls, now - HOUR)]
        if now - self.planned_at > HOUR:
            self.planned = 0.0
        ended = max(self.paused_until, self.lowered_until, self.background + HOUR) <= now
        return ended and not (self.calls or self.planned or self.failures)


class _Purse:
    """The file of one client id and what it says: `entries` by account, the `calls` of all.

    error  why the file is not kept; what this process remembers is then the best there is
    """

    def __init__(self, folder: Path, client_id: str, clock: Clock) -> None:
        self.entries: dict[str, _Entry] = {}
        self.calls: list[int] = []
        self.error = ""
        self._path = folder / f"{hashlib.sha256(client_id.encode()).hexdigest()[:16]}.json"
        self._clock = clock
        self._seen = b""  # the file that `entries` was read from or written to
        self._plan: dict[str, float] = {}

    def now(self) -> int:
        return math.floor(self._clock.monotonic() * SECOND)

    def entry(self, name: str) -> _Entry:
        return self.entries.setdefault(name, _Entry())

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
                logs.logger().warning("budget.paused", for_s=0, error=text)
            self.calls = sorted(itertools.chain(*(e.calls for e in self.entries.values())))
        self._note_plan(now)
        return now

    def save(self, now: int) -> None:
        """Replace the file; at each moment one whole version lies under one of its two names.

        Not in one rename: over an existing file, ext4 writes the new one out first, some
        milliseconds for each call. A full disk costs the sharing, nothing else.
        """
        for name in [name for name, entry in self.entries.items() if entry.forget(now)]:
            del self.entries[name]
        del self.calls[: bisect_left(self.calls, now - HOUR)]
        data = _encode(self.entries, now)
        fresh = self._path.with_suffix(".next")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
            self._path.unlink(missing_ok=True)
            fresh.rename(self._path)
        except OSError as error:
            self.error = f"{self._path}: {error.strerror}; other commands do not see our calls"
        else:
            self._seen, self.error = data, ""


_ROW = attrgetter(*_Entry.__slots__)


def _encode(entries: Mapping[str, _Entry], now: int) -> bytes:
    rows = {name: _ROW(entry) for name, entry in entries.items()}
    text = json.dumps({"at": now, "entries": rows}, separators=(",", ":")).encode()
    return b"%08x %s" % (zlib.crc32(text), text)


def _decode(raw: bytes, now: int) -> dict[str, _Entry]:
    """Read the file.

    One written later than now is of an earlier start of the machine: all its times move back by
    the difference, so that its newest call counts as made now, and none as older than it is.
    """
    check, _, text = raw.partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        raise ValueError("its checksum differs")
    state = json.loads(text)
    back = max(0, state["at"] - now)
    return {name: _Entry(*row).move_back(back) for name, row in state["entries"].items()}


def _room(calls: Sequence[int], limit: float, window: int) -> float:
    """From when on `window` ms hold fewer than `limit` of `calls`."""
    place = math.floor(limit)
    if place < 1:
        return math.inf
    return calls[-place] + window + 1 if len(calls) >= place else -math.inf


def _count(calls: Sequence[int], since: int) -> int:
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
