"""How many calls are left: a durable budget that all work shares by priority, and backoff.

Windows nest, application (client id) above account. They lie on disk, one file for each client id,
reserved under a file lock, so every command spends from the same purse and a crash loop cannot
burn the quota. Times are monotonic (shared by all processes since the machine started); a stamp
from the future, as after a restart of the machine, counts as now.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.models import Priority

HOUR_S = 3600.0
BURST_S = 10.0
SPACING_S = 1.0  # never more than one request a second, token calls excepted
HARD_PER_HOUR = 490  # live polls and token calls; the cloud's limit is 500
APP_RESERVE = 0.05  # of the application's window, for live polls and token calls
PAUSE_FIRST_S = 60.0
PAUSE_MOST_S = 3600.0
LOWERED = 0.75  # of the target, for an hour after a refusal
LOWEST_TARGET = 50.0
ALL = "*"  # a pause of every account of the application


class Backoff:
    """Doubling waits with jitter: `next` grows from `first` to `most` seconds until `reset`."""

    def __init__(self, first: float, most: float, rng: random.Random) -> None:
        self.failures = 0
        self._first = first
        self._most = most
        self._rng = rng

    def next(self) -> float:
        """Seconds to wait after one more failure: 75 to 100 % of the doubled step."""
        step = min(self._most, self._first * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return step * (0.75 + 0.25 * self._rng.random())

    def reset(self) -> None:
        self.failures = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has spent, in requests; `paused_for` in seconds.

    target   calls an hour it allows itself now; lowered for an hour after a refusal
    planned  calls an hour of its fixed cadences
    granted  what is left of the target for re-reads and history
    """

    hour: int
    ten_seconds: int
    target: float
    planned: float
    granted: float
    paused_for: float
    app_hour: int


@dataclass
class _Purse:
    """The file's content. `stamps`: seconds by account, ascending."""

    stamps: dict[str, list[float]] = field(default_factory=dict)
    history: dict[str, float] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    lowered: dict[str, list[float]] = field(default_factory=dict)

    def forget(self, now: float) -> None:
        """Drop what is over; move what is from the future to now."""
        self.stamps = {
            account: kept
            for account, stamps in self.stamps.items()
            if (kept := [min(each, now) for each in stamps if each > now - HOUR_S])
        }
        self.history = {account: min(each, now) for account, each in self.history.items()}
        self.paused = {
            account: min(until, now + PAUSE_MOST_S)
            for account, until in self.paused.items()
            if until > now
        }
        self.lowered = {
            account: [target, min(until, now + HOUR_S)]
            for account, (target, until) in self.lowered.items()
            if until > now
        }


class Budget:
    """The purse of one client id.

    folder        holds one file for each client id
    per_hour      the target of each account; per_10s its burst
    app_per_hour  for all accounts of the application together; app_per_10s its burst, if held to it
    """

    def __init__(
        self,
        folder: Path,
        client_id: str,
        *,
        per_hour: int,
        per_10s: int,
        app_per_hour: int,
        clock: Clock,
        app_per_10s: int | None = None,
    ) -> None:
        name = hashlib.sha256(client_id.encode()).hexdigest()[:16]
        self._path = folder / f"{name}.json"
        self._per_hour = float(per_hour)
        self._per_10s = per_10s
        self._app_per_hour = app_per_hour
        self._app_per_10s = app_per_10s
        self._clock = clock
        self._planned: dict[str, float] = {}
        self._waiting: dict[str, list[tuple[int, int]]] = {}
        self._order = itertools.count()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def reserve(self, account: str, priority: Priority) -> float:
        """Wait until a call is allowed and note it on disk; the seconds waited.

        Callers of one account are served by priority, then in order of arrival.
        """
        began = self._clock.monotonic()
        place = (int(priority), next(self._order))
        queue = self._waiting.setdefault(account, [])
        queue.append(place)
        try:
            while True:
                wait = SPACING_S if min(queue) < place else self._try(account, priority)
                if wait <= 0:
                    return self._clock.monotonic() - began
                await self._clock.sleep(wait)
        finally:
            queue.remove(place)

    def plan(self, planned: Mapping[str, float]) -> float:
        """Tell what the fixed cadences ask (calls an hour by account); by how much to stretch them.

        1.0 when everything fits the accounts' targets and the application's window.
        """
        self._planned = dict(planned)
        factors = [asked / self._per_hour for asked in planned.values()]
        shared = self._app_per_hour * (1 - APP_RESERVE)
        return max([1.0, sum(planned.values()) / shared, *factors])

    def granted(self, account: str) -> float:
        """Calls an hour for re-reads and history: target less what the cadences ask."""
        return self.usage(account).granted

    def refused(self, account: str, *, application: bool, retry_after: float | None) -> float:
        """A quota is used up: pause the account, or all of the application; the seconds.

        For `retry_after`, else 60 s doubling to 1 h; the target is lowered for an hour. When a
        second account is refused while another is paused, the application is meant.
        """
        with self._opened() as (purse, now):
            others = set(purse.paused) - {account, ALL}
            name = ALL if application or others else account
            count = purse.refusals.get(name, 0)
            pause = min(PAUSE_MOST_S, PAUSE_FIRST_S * 2.0 ** min(count, 10))
            if retry_after is not None:
                pause = min(PAUSE_MOST_S, max(1.0, retry_after))
            purse.refusals[name] = count + 1
            purse.paused[name] = now + pause
            target = max(LOWEST_TARGET, self._target(purse, account) * LOWERED)
            purse.lowered[account] = [target, now + HOUR_S]
        return pause

    def accepted(self, account: str) -> None:
        """A call went well: the next pause starts small again."""
        if self._refused_lately(account):
            with self._opened() as (purse, _):
                purse.refusals.pop(account, None)
                purse.refusals.pop(ALL, None)

    def usage(self, account: str) -> Usage:
        """What `status` shows; spends nothing."""
        with self._opened() as (purse, now):
            stamps = purse.stamps.get(account, [])
            target = self._target(purse, account)
            planned = self._planned.get(account, 0.0)
            until = max(purse.paused.get(account, now), purse.paused.get(ALL, now))
            return Usage(
                hour=len(stamps),
                ten_seconds=sum(each > now - BURST_S for each in stamps),
                target=target,
                planned=planned,
                granted=max(0.0, target - planned),
                paused_for=until - now,
                app_hour=sum(len(each) for each in purse.stamps.values()),
            )

    # --- one attempt ----------------------------------------------------------------------------

    def _try(self, account: str, priority: Priority) -> float:
        """0 when the call was noted, else the seconds until it is worth trying again."""
        with self._opened() as (purse, now):
            wait = max(self._waits(purse, account, priority, now))
            if wait > 0:
                return wait
            purse.stamps.setdefault(account, []).append(now)
            if priority >= Priority.REREAD:
                purse.history[account] = now
        return 0.0

    def _waits(
        self, purse: _Purse, account: str, priority: Priority, now: float
    ) -> Iterator[float]:
        """How long each rule asks to wait."""
        stamps = purse.stamps.get(account, [])
        everyone = sorted(each for of_one in purse.stamps.values() for each in of_one)
        urgent = priority <= Priority.LIVE
        target = self._target(purse, account)
        hourly = HARD_PER_HOUR if urgent else target
        shared = self._app_per_hour if urgent else self._app_per_hour * (1 - APP_RESERVE)
        for name in (account, ALL):
            yield purse.paused.get(name, now) - now
        if stamps and priority != Priority.TOKEN:
            yield stamps[-1] + SPACING_S - now
        yield _opens(stamps, self._per_10s, BURST_S, now)
        yield _opens(stamps, hourly, HOUR_S, now)
        yield _opens(everyone, shared, HOUR_S, now)
        if self._app_per_10s is not None:
            yield _opens(everyone, self._app_per_10s, BURST_S, now)
        if priority >= Priority.REREAD:
            granted = target - self._planned.get(account, 0.0)
            last = purse.history.get(account)
            if granted <= 0:
                yield PAUSE_FIRST_S
            elif last is not None:
                yield last + HOUR_S / granted - now

    def _target(self, purse: _Purse, account: str) -> float:
        lowered = purse.lowered.get(account)
        return min(self._per_hour, lowered[0]) if lowered else self._per_hour

    def _refused_lately(self, account: str) -> bool:
        refusals = self._read().refusals
        return account in refusals or ALL in refusals

    # --- the file -------------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[tuple[_Purse, float]]:
        """The purse under its lock, written back when it changed. Held for about a millisecond."""
        lock = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now = self._clock.monotonic()
            purse = self._read()
            before = json.dumps(vars(purse))
            purse.forget(now)
            yield purse, now
            after = json.dumps(vars(purse))
            if after != before:
                fresh = self._path.with_suffix(".next")
                fresh.write_text(after)
                fresh.replace(self._path)
        finally:
            os.close(lock)

    def _read(self) -> _Purse:
        """A damaged file is an empty purse: the cloud's own limits still hold."""
        try:
            found: Any = json.loads(self._path.read_text())
            purse = _Purse(**found)
            purse.forget(self._clock.monotonic())
        except (OSError, ValueError, TypeError, AttributeError):
            return _Purse()
        return purse


def _opens(stamps: list[float], most: float, window_s: float, now: float) -> float:
    """Seconds until fewer than `most` of the ascending `stamps` lie in the last `window_s`."""
    place = len(stamps) - int(most)
    return stamps[place] + window_s - now if place >= 0 else 0.0
