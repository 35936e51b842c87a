"""How many requests we allow ourselves, and how long we wait after a failure.

The budget nests: the application (client id) above its accounts. Every call is counted first, in
one small file for each client id, so all commands of this program spend from one purse and a crash
loop cannot burn the quota. Promised: no window of our clock holds more calls than allowed. Not
promised: that the cloud sees them as evenly spaced as they left, nor fairness among processes.

    who              an hour, each account     spaced
    token            up to 490                 not, and a pause does not stop it
    live             up to 490                 1 s
    events, trailing up to the target (400)    1 s
    reread, history  up to 2 below the target  evenly, over what the planned polls leave

Each account makes up to 50 in 10 s; all of an application up to 2000 an hour, of which the last 2 %
are for token and live calls. Where there is a quota of the day, an account also makes no more than
that in any 24 h, and its polls are spread over them. Source: netatmo-api.md 6, 8.2, design.md 7.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netatmo_ingestd import logs
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.models import Priority
from netatmo_ingestd.purse import DAY, HOUR, MINUTE, SECOND, TEN_SECONDS, Purse, count, room

HARD_PER_HOUR = 490  # the cloud's limit is 500; ten are left for its way of counting
RESERVE = 0.02  # of the application's hour
BURST_LEAST, BURST_MOST = 20, 200  # nobody reports that few accounts are held to 2 × users
PAUSE_FIRST_S, PAUSE_MOST_S, RETRY_AFTER_MOST_S = 60.0, 3600.0, 86_400.0
KEPT_OF_DAY = 30  # calls of a day's quota that no poll is planned for: token calls, wants, restarts
KEPT_FREE = 2  # calls of an hour that background work never takes: room for a trailing read
CATCH_UP = 30 * SECOND  # a late alarm costs no background call, if it is that little late
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
    day, per_day       calls counted in the last 24 h and how many may be; 0, 0 without such a quota
    target             calls an hour it goes up to; lower than set for an hour after a refusal
    planned, granted   calls an hour of all fixed cadences, and what they leave for history
    held               live calls that a full window held back since this process started
    paused_for         seconds until it, or its application, may call again; 0 when it may
    app_hour           calls of all accounts in the last hour, `app_target` what they go up to
    error              why the file is not kept, so that this process counts alone; "" when it is
    """

    hour: int
    ten_seconds: int
    target: float
    planned: float
    granted: float
    held: int
    paused_for: float
    app_hour: int
    app_target: float
    error: str
    day: int = 0
    per_day: int = 0


@dataclass(order=True, slots=True)
class _Ticket:
    priority: Priority
    number: int
    account: str = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)
    held: bool = field(default=False, compare=False)


class Budget:
    """The purse of one client id.

    folder        holds its file, made when needed; a file that cannot be kept costs the sharing
    per_hour      target of each account, `per_10s` its burst
    app_per_hour  for all accounts together, `app_per_10s` their burst; None: 2 for each account,
                  at least 20, at most 200
    per_day       of each account in any 24 h; 0: no such window
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
        per_day: int = 0,
        clock: Clock,
    ) -> None:
        self._per_hour, self._per_10s = min(per_hour, HARD_PER_HOUR), per_10s
        self._app_per_hour, self._app_per_10s = app_per_hour, app_per_10s
        self._per_day = per_day
        self._clock = clock
        self._purse = Purse(folder, client_id, clock, DAY if per_day else HOUR)
        self._numbers = itertools.count()
        self._waiting: list[_Ticket] = []
        self._held: Counter[str] = Counter()
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
        most = float(self._per_hour)
        if self._per_day:
            most = min(most, max(self._per_day - KEPT_OF_DAY, self._per_day / 2) / 24)
        worst = max(planned.values(), default=0.0) / most
        stretch = max(1.0, worst, sum(planned.values()) / self._app_per_hour)
        with self._purse.opened() as now:
            self._purse.plan({name: calls / stretch for name, calls in planned.items()}, now)
            self._purse.save(now)
        if self._waiting:
            self._serve(self._waiting)
        return stretch

    def spare(self, account: str) -> float:
        """Calls of any 24 h that polls and their follow-ups leave; no end without such a quota."""
        if not self._per_day:
            return math.inf
        now = self._purse.load()
        most = self._per_day - KEPT_OF_DAY
        if count(self._purse.entry(account).calls, now - DAY) >= most:
            return 0.0  # whatever took them
        return most - 24 * self._planned(account)

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
            hour=count(calls, now - HOUR),
            ten_seconds=count(calls, now - TEN_SECONDS),
            target=self._target(account, now),
            planned=self._planned(account),
            granted=granted,
            held=self._held[account],
            paused_for=max(0, paused_until - now) / SECOND,
            app_hour=count(self._purse.calls, now - HOUR),
            app_target=self._target(APP, now),
            error=self._purse.error,
            day=count(calls, now - DAY) if self._per_day else 0,
            per_day=self._per_day,
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
                self._note_held(ticket, now)
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
        entry, app = self._purse.entry(name), self._purse.entry(APP)
        opens = self._windows(name, priority, now)
        if priority > Priority.TOKEN:
            pace = room(entry.calls, 1, SECOND)
            opens = max(opens, pace, entry.paused_until, app.paused_until)
        if priority >= Priority.REREAD:
            for place, last in ((name, entry.background), (APP, app.background)):
                opens = max(opens, last + self._spacing(place, now))
        return opens

    def _windows(self, name: str, priority: Priority, now: int) -> float:
        """From when the sliding windows of the account and the application have room."""
        entry, urgent = self._purse.entry(name), priority <= Priority.LIVE
        hour = HARD_PER_HOUR if urgent else self._target(name, now)
        if priority >= Priority.REREAD:
            hour -= KEPT_FREE
        app_hour = self._app_per_hour if urgent else self._target(APP, now) * (1 - RESERVE)
        burst = min(BURST_MOST, max(BURST_LEAST, 2 * (len(self._purse.entries) - 1)))
        # A token call is not made to the host whose quota it is.
        day = self._per_day if priority > Priority.TOKEN else 0
        return max(
            room(entry.calls, day, DAY) if day else -math.inf,
            room(entry.calls, self._per_10s, TEN_SECONDS),
            room(entry.calls, hour, HOUR),
            room(self._purse.calls, self._app_per_10s or burst, TEN_SECONDS),
            room(self._purse.calls, app_hour, HOUR),
        )

    def _spacing(self, name: str, now: int) -> float:
        """Between two background calls, so that they use what is granted evenly."""
        left = self._left(name, now)
        return HOUR / left if left > 0 else math.inf

    def _note_held(self, ticket: _Ticket, now: int) -> None:
        """Count a live call that finds the windows full, once."""
        if ticket.priority == Priority.LIVE and not ticket.held:
            ticket.held = self._windows(ticket.account, ticket.priority, now) > now
            self._held[ticket.account] += ticket.held

    def _count_call(self, ticket: _Ticket, stamp: int) -> None:
        entry = self._purse.entry(ticket.account)
        entry.calls.append(stamp)
        self._purse.calls.append(stamp)
        if ticket.priority >= Priority.REREAD:
            for name in (ticket.account, APP):
                place = self._purse.entry(name)
                # On its own grid: a call that was a little late does not delay those after it.
                planned = place.background + self._spacing(name, stamp)
                late = stamp - CATCH_UP
                place.background = max(late, math.ceil(min(planned, stamp)))

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
