"""How many requests we allow ourselves, and how long we wait after a failure.

The budget nests: the application (client id) above its accounts. Every call is counted first, in
one small file for each client id, so all commands of this program spend from one purse and a crash
loop cannot burn the quota. Promised: no window, as our clock sees it, holds more calls than allowed.
Not promised: that the cloud sees them as evenly spaced as they left, nor fairness among processes.

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
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
_FILE_MAX = 4 << 20
_LOCK_LIMIT_S = 0.25  # real; a process frozen inside its millisecond must not stop the others


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

    def forget(self, now: int) -> bool:
        """Drop what no window sees any more; True when nothing is left."""
        del self.calls[: bisect_left(self.calls, now - HOUR)]
        if now - self.planned_at > HOUR:
            self.planned = 0.0
        ended = max(self.paused_until, self.lowered_until, self.background + HOUR) <= now
        return ended and not (self.calls or self.planned or self.failures)


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
        self._path = folder / f"{hashlib.sha256(client_id.encode()).hexdigest()[:16]}.json"
        self._per_hour, self._per_10s = min(per_hour, HARD_PER_HOUR), per_10s
        self._app_per_hour, self._app_per_10s = app_per_hour, app_per_10s
        self._clock = clock
        self._numbers = itertools.count()
        self._waiting: list[_Ticket] = []
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0
        self._entries: dict[str, _Entry] = {}
        self._all: list[int] = []  # the calls of all accounts
        self._seen = b""  # the file that `_entries` was read from or written to
        self._plan: dict[str, float] = {}
        self._error = ""

    async def reserve(self, account: str, priority: Priority) -> float:
        """Wait until `account` may make one call, and count it on disk; seconds waited."""
        asked = self._clock.monotonic()
        granted = asyncio.get_running_loop().create_future()
        ticket = _Ticket(priority, next(self._numbers), account, granted)
        due = self._alarm is None or self._now() >= self._alarm_at
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
        dropped = self._plan.keys() - planned.keys()
        self._plan = {name: calls / stretch for name, calls in planned.items()}
        with self._opened() as now:
            for name in dropped:
                self._entry(name).planned = 0.0
            self._save(now)
        if self._waiting:
            self._serve(self._waiting)
        return stretch

    def granted(self, account: str) -> float:
        """Calls an hour that planned polls leave to late re-reads and history of `account`."""
        now = self._load()
        return max(0.0, min(self._left(account, now), self._left(APP, now)))

    def refused(
        self, account: str, *, application: bool, retry_after: float | None, unclear: bool = True
    ) -> float:
        """A quota was used up: stop `account`, or all accounts of the application.

        unclear  the message names neither; then a second account refused within the pause of the
                 first stops them all
        Returns  seconds until the next call: `retry_after`, or 60 s doubling to 1 h
        """
        with self._opened() as now:
            others = (e for name, e in self._entries.items() if name not in (APP, account))
            application |= unclear and any(entry.paused_until > now for entry in others)
            name = APP if application else account
            entry = self._entry(name)
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
            self._save(now)
        if first:
            who = "all accounts of the application" if application else account
            logs.logger().warning(
                "budget.paused", account=who, for_s=round(left_s), target_per_hour=round(target)
            )
        return left_s

    def accepted(self, account: str) -> None:
        """A call succeeded: the next pause begins at 60 s again."""
        if not any(self._entry(name).failures for name in (account, APP)):
            return
        with self._opened() as now:
            for entry in (self._entry(account), self._entry(APP)):
                entry.failures *= entry.paused_until > now
            self._save(now)

    def usage(self, account: str) -> Usage:
        """Where `account` stands now; reads, changes nothing."""
        granted, now = self.granted(account), self._now()
        calls = self._all if account == APP else self._entry(account).calls
        paused_until = max(self._entry(name).paused_until for name in (account, APP))
        return Usage(
            hour=_count(calls, now - HOUR),
            ten_seconds=_count(calls, now - TEN_SECONDS),
            target=self._target(account, now),
            planned=self._planned(account),
            granted=granted,
            paused_for=max(0, paused_until - now) / SECOND,
            app_hour=_count(self._all, now - HOUR),
            app_target=self._target(APP, now),
            error=self._error,
        )

    @property
    def purse(self) -> Usage:
        """The totals of all accounts."""
        return self.usage(APP)

    # --- who may go -----------------------------------------------------------------------------

    def _serve(self, tickets: Sequence[_Ticket]) -> None:
        """Grant what is due, by priority, then arrival; set the alarm for what is not."""
        next_at, granted = math.inf, []
        with self._opened() as now:
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
                self._save(now)
        for ticket in granted:
            ticket.granted.set_result(None)
        if math.isfinite(next_at):
            self._set_alarm(next_at)

    def _opens(self, name: str, priority: Priority, now: int) -> float:
        """From when there is room for this call, as things stand; `now` or earlier: at once."""
        entry, app, urgent = self._entry(name), self._entry(APP), priority <= Priority.LIVE
        app_limit = self._app_per_hour if urgent else self._target(APP, now) * (1 - RESERVE)
        burst = min(BURST_MOST, max(BURST_LEAST, 2 * (len(self._entries) - 1)))
        opens = max(
            _room(entry.calls, self._per_10s, TEN_SECONDS),
            _room(entry.calls, HARD_PER_HOUR if urgent else self._target(name, now), HOUR),
            _room(self._all, self._app_per_10s or burst, TEN_SECONDS),
            _room(self._all, app_limit, HOUR),
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
        entry = self._entry(ticket.account)
        entry.calls.append(stamp)
        self._all.append(stamp)
        if ticket.priority >= Priority.REREAD:
            entry.background = self._entry(APP).background = stamp

    def _base(self, name: str) -> float:
        return self._app_per_hour if name == APP else self._per_hour

    def _target(self, name: str, now: int) -> float:
        entry, base = self._entry(name), self._base(name)
        return min(base, entry.lowered) if entry.lowered_until > now else base

    def _planned(self, name: str) -> float:
        if name == APP:
            return sum(entry.planned for entry in self._entries.values())
        return self._entry(name).planned

    def _left(self, name: str, now: int) -> float:
        keep = 1 - RESERVE if name == APP else 1.0
        return self._target(name, now) * keep - self._planned(name)

    def _entry(self, name: str) -> _Entry:
        return self._entries.setdefault(name, _Entry())

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.create_task(self._ring(at))

    async def _ring(self, at: float) -> None:
        await self._clock.sleep(at / SECOND - self._clock.monotonic())
        self._alarm = None
        self._serve(self._waiting)

    # --- the file -------------------------------------------------------------------------------

    def _now(self) -> int:
        return math.floor(self._clock.monotonic() * SECOND)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The state that all processes share, under their lock; gives the time."""
        lock = -1
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
            _take(lock)
        except OSError as error:
            self._error = f"{self._path.parent}: {error.strerror}"
        try:
            yield self._load()
        finally:
            if lock >= 0:
                os.close(lock)

    def _load(self) -> int:
        raw = self._seen
        try:
            with self._path.open("rb") as file:
                raw = file.read(_FILE_MAX)
        except FileNotFoundError:
            pass  # what this process remembers is the best there is
        except OSError as error:
            self._error = f"{self._path}: {error.strerror}"
        now = self._now()
        if raw != self._seen:
            self._seen = raw
            try:
                self._entries = _decode(raw, now)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                logs.logger().warning(
                    "budget.paused", for_s=0, error=f"{self._path}: damaged ({error}), begun anew"
                )
            self._all = sorted(itertools.chain(*(e.calls for e in self._entries.values())))
        for name, calls in self._plan.items():
            entry = self._entry(name)
            entry.planned, entry.planned_at = calls, now
        return now

    def _save(self, now: int) -> None:
        gone = [name for name, entry in self._entries.items() if entry.forget(now)]
        for name in gone:
            del self._entries[name]
        del self._all[: bisect_left(self._all, now - HOUR)]
        rows = {n: [getattr(e, f) for f in _Entry.__slots__] for n, e in self._entries.items()}
        data = json.dumps({"at": now, "entries": rows}, separators=(",", ":")).encode()
        fresh = self._path.with_suffix(".next")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
            fresh.replace(self._path)
        except OSError as error:
            self._error = f"{self._path}: {error.strerror}; other commands do not see our calls"
            return
        self._seen, self._error = data, ""


def _decode(raw: bytes, now: int) -> dict[str, _Entry]:
    """Read the file; a time later than `at`, when it was written, counts as `at`.

    An `at` after now is of an earlier start of the machine: all times move back with it, so that
    the newest call counts as made now, and none as older than it is.
    """
    state = json.loads(raw)
    at, entries = int(state["at"]), {}
    back = max(0, at - now)
    longest = round(RETRY_AFTER_MOST_S) * SECOND
    for name, row in state["entries"].items():
        calls, planned, lowered, failures, background, planned_at, paused, lowered_until = row
        if not (0 <= planned < 1e6 and 0 <= lowered < 1e6):
            raise ValueError(f"rates of {name!r}")
        entries[name] = _Entry(
            sorted(min(int(call), at + 1) - back for call in calls),
            float(planned),
            float(lowered),
            min(max(int(failures), 0), 99),
            min(int(background), at + 1) - back,
            min(int(planned_at), at) - back,
            min(int(paused), at + longest) - back,
            min(int(lowered_until), at + HOUR) - back,
        )
    return entries


def _room(calls: Sequence[int], limit: float, window: int) -> float:
    """From when on `window` ms hold fewer than `limit` of `calls`."""
    place = math.floor(limit)
    if place < 1:
        return math.inf
    return calls[-place] + window + 1 if len(calls) >= place else -math.inf


def _count(calls: Sequence[int], since: int) -> int:
    return len(calls) - bisect_left(calls, since)


def _take(lock: int) -> None:
    """Take the file lock; go on without it when somebody keeps it for long."""
    deadline = time.monotonic() + _LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.0005)
        else:
            return
