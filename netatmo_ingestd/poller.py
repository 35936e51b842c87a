"""When: a due endpoint becomes records on the spool.

Scheduler jobs do no work: they put an endpoint on its account's queue and re-arm themselves. One
loop for each account takes polls off its queue, one call at a time, so an account whose login is
dead or whose quota is used up never delays another.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from netatmo_ingestd.account import LOGIN, AccountPolls, Job, Room
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.events import EventWalker
from netatmo_ingestd.failures import Failures
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.plan import FIRST_REACH, reach, trailing_begin
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.settings import PollSettings
from netatmo_ingestd.sources import MODULE_TYPES
from netatmo_ingestd.sources.emergency import FAILURE_FLAG, SITE_CONTROLLERS
from netatmo_ingestd.sources.events import GETEVENTS
from netatmo_ingestd.sources.measure import MEASURE, history_of, rows_poll
from netatmo_ingestd.waits import finish, is_set

SILENT_AFTER = timedelta(hours=1)  # stations upload every ten minutes, some later
SILENT_EVERY = timedelta(days=30)  # how often a module is read of which nothing was heard since
OVERDUE_S = 60.0  # real time; a scheduler that late is not working
HINTS_APART_S = 10.0
CLOCK_CHECK_S = 5.0
CLOCK_PARTED_S = 2.0


def next_due(anchor: datetime, every: timedelta, now: datetime) -> datetime:
    """The first moment after `now` on the fixed grid `anchor` + k · `every`."""
    steps = max(0, (now - anchor) // every + 1)
    return anchor + steps * every


class Poller:
    """Polls all accounts; `run` for years, `once` for one round."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, AccountPolls],
        room: Room,
        ledger: Ledger,
        settings: PollSettings,
        events: EventWalker,
        failures: Failures,
        clock: Clock,
        log: Any,
        check_s: float = CLOCK_CHECK_S,
    ) -> None:
        self.accounts = dict(accounts)
        self.progressed = time.monotonic()
        self.room = room
        self._ledger = ledger
        self._settings = settings
        self._events = events
        self._failures = failures
        self._clock = clock
        self._log = log
        self._check_s = check_s
        self._order = itertools.count()
        self._grace_s = 10.0
        self._hurry = asyncio.Event()
        self._anchors: dict[str, datetime] = {}
        self._jobs: dict[str, tuple[AccountPolls, Job]] = {}
        self._hinted: dict[str, float] = {}
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            # More instances than ever run: a job that re-arms itself for a moment that has come
            # before it counts as ended would be skipped for good.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 100},
        )

    async def run(
        self, stop: asyncio.Event, grace_s: float = 10.0, hurry: asyncio.Event | None = None
    ) -> None:
        """Until `stop`; a poll in flight has `grace_s` real seconds to end, none when hurried."""
        self._grace_s, self._hurry = grace_s, hurry or self._hurry
        self._scheduler.start()
        try:
            async with asyncio.TaskGroup() as group:
                for account in self.accounts.values():
                    self._arm_new(account)
                    group.create_task(self._serve(account, stop))
                group.create_task(self._watch(stop))
        finally:
            self._scheduler.shutdown(wait=False)

    async def once(self) -> list[str]:
        """Poll everything due for each account, wants included; what failed, in words."""
        async with asyncio.TaskGroup() as group:
            for account in self.accounts.values():
                group.create_task(self._serve_once(account))
        problems = [
            f"{name}: {each.error}"
            if len(self.accounts) == 1
            else f"{name} ({account.name}): {each.error}"
            for account in self.accounts.values()
            for name, each in account.failing.items()
        ]
        return [*problems, f"spool: {self.room.paused}"] if self.room.paused else problems

    async def _serve_once(self, account: AccountPolls) -> None:
        asked: set[Job] = set()
        while fresh := [job for job in self._all_jobs(account) if job not in asked]:
            # What describes goes first: the rest is asked for what is there by then.
            job = min(fresh, key=lambda each: (each[0] is MEASURE, each[1] != ""))
            asked.add(job)
            self._enqueue(account, job)
            self._arm(account, job)
            while not account.queue.empty():
                *_, key, poll = account.queue.get_nowait()
                account.waiting.discard(key)
                await self._serve_one(account, poll)
        self._replan()

    def start_over(self) -> None:
        """The store was replaced: read every module as after a start, and now."""
        self._events.forget()
        self._failures.forget()
        for account in self.accounts.values():
            account.intake.forget()
            account.first_done.clear()
            account.read_at.clear()
            for job in account.jobs():
                self._enqueue(account, job)

    # --- when -----------------------------------------------------------------------------------

    def interval(self, account: AccountPolls, job: Job) -> timedelta:
        """How long between two polls of a job."""
        endpoint, entity_id = job
        cadence = endpoint.cadence
        if endpoint is MEASURE:
            entity = account.intake.modules(account.name).get(entity_id)
            kept = history_of(MODULE_TYPES, entity) if entity else None
            if kept and kept.scale != "max":
                cadence = "buckets"
        every: timedelta = getattr(self._settings, cadence)
        return every * account.stretch

    def hint(self, account_name: str, endpoint_name: str, home_id: str = "") -> None:
        """Ask now what is asked anyway: something is said to have happened. Not twice in 10 s."""
        account = self.accounts[account_name]
        for job in account.jobs():
            endpoint, entity_id = job
            if endpoint.name != endpoint_name or entity_id not in ("", home_id):
                continue
            # Monotonic: a wall clock that is set back must not silence hints until it caught up.
            key, now = _key(account, job), self._clock.monotonic()
            poll = account.poll_of(job)
            if poll is None or poll.key in account.waiting:
                continue
            if account.is_refused(poll, self._clock.now()):
                continue
            if now - self._hinted.get(key, -math.inf) >= HINTS_APART_S and account.spares(now):
                self._hinted[key] = now
                self._put(account, poll)

    def _all_jobs(self, account: AccountPolls) -> Iterator[Job]:
        yield from account.jobs()
        for entity, *_ in account.histories():
            yield MEASURE, entity.entity_id

    def _arm(self, account: AccountPolls, job: Job) -> None:
        """Place the next one-shot of a job."""
        key = _key(account, job)
        now = self._clock.now()
        every = self.interval(account, job)
        due = next_due(self._anchors.setdefault(key, now), every, now)
        self._jobs[key] = (account, job)
        real_s = self._clock.real_seconds((due - now).total_seconds())
        self._scheduler.add_job(
            self._fire,
            DateTrigger(datetime.now(UTC) + timedelta(seconds=real_s)),
            args=[key],
            id=key,
            replace_existing=True,
        )

    async def _fire(self, key: str) -> None:
        """The job: put it on the queue, re-arm. No work: shutdown cancels running jobs."""
        account, job = self._jobs[key]
        if job[1] and job not in self._all_jobs(account):
            del self._jobs[key]
            for name in (job[0].name, "getroommeasure"):
                account.forget(f"{name}|{job[1]}")
            return
        self._enqueue(account, job)
        self._arm(account, job)

    def _enqueue(self, account: AccountPolls, job: Job) -> None:
        endpoint, entity_id = job
        trailing = endpoint is MEASURE
        poll = self._trailing(account, entity_id) if trailing else account.poll_of(job)
        if poll is not None:
            self._put(account, poll)

    def _put(self, account: AccountPolls, poll: Poll) -> None:
        key = poll.key
        if key not in account.waiting:
            account.waiting.add(key)
            account.queue.put_nowait((poll.endpoint.priority, next(self._order), key, poll))

    def _trailing(self, account: AccountPolls, module_id: str) -> Poll | None:
        entity = account.intake.modules(account.name).get(module_id)
        kept = history_of(MODULE_TYPES, entity) if entity else None
        if entity is None or kept is None:
            return None
        types, scale, now = kept.history, kept.scale, self._clock.now()
        if self._read_by_other(account, module_id, scale, now):
            return None
        coverage = self._ledger.find(module_id, scale)
        if read := self._silent_since(account, module_id):
            if now - read < SILENT_EVERY:
                return None
            # One call for all of the silence: there is hardly anything new to come first.
            begin = min(coverage.asked or read if coverage else read, now - reach(scale))
            return rows_poll(account.name, entity, types, begin, scale=scale)
        newest = account.intake.newest(module_id) or (coverage.newest if coverage else None)
        first = module_id not in account.first_done
        begin = trailing_begin(now, newest, first=first, scale=scale)
        return rows_poll(account.name, entity, types, begin, scale=scale)

    def _silent_since(self, account: AccountPolls, module_id: str) -> datetime | None:
        """When a module was last read that was not heard since, as a later description says."""
        heard, last = account.intake.heard(module_id), account.read_at.get(module_id)
        if heard is None or last is None or last[0] is None:
            return None
        (sign, told), ((known, _), read) = heard, last
        silent = told > read and sign == known and any(sign)
        signs = [each for each in sign if isinstance(each, datetime)]
        return read if silent and told - max(signs, default=read) > SILENT_AFTER else None

    def _read_by_other(
        self, account: AccountPolls, module_id: str, scale: str, now: datetime
    ) -> bool:
        """True when another account owns this history; one that left it to us does not count.

        An account that was only invited reads a module until its owner's first answer.
        """
        if not self._ledger.owned_by_other(module_id, scale, account.name, now):
            return False
        coverage = self._ledger.find(module_id, scale)
        other = self.accounts.get(coverage.owner) if coverage else None
        return other is None or module_id in other.intake.modules(other.name)

    def _arm_new(self, account: AccountPolls) -> None:
        """Whatever is not asked yet is, now and from now on; trailing reads spread over a round."""
        fresh = [job for job in self._all_jobs(account) if _key(account, job) not in self._jobs]
        if not fresh:
            return
        self._replan()
        now = self._clock.now()
        reads = sorted(entity_id for endpoint, entity_id in fresh if endpoint is MEASURE)
        for job in sorted(fresh, key=lambda each: each[1]):
            if job[0] is MEASURE:
                share = reads.index(job[1]) / len(reads)
                self._anchors[_key(account, job)] = now + self.interval(account, job) * share
            self._enqueue(account, job)
            self._arm(account, job)

    def _replan(self) -> None:
        """Tell the budgets what the fixed cadences ask; stretch them if they do not fit."""
        hour = timedelta(hours=1)
        budgets = {id(account.budget): account.budget for account in self.accounts.values()}
        for budget in budgets.values():
            own = [each for each in self.accounts.values() if each.budget is budget]
            factor = budget.plan(
                {
                    account.name: sum(
                        hour * account.stretch / self.interval(account, job)
                        for job in self._all_jobs(account)
                    )
                    for account in own
                }
            )
            if factor != own[0].stretch:
                self._log.warning(
                    "poll.stretched",
                    account=own[0].name,
                    accounts=len(own),
                    factor=round(factor, 2),
                )
            for account in own:
                account.stretch = factor

    async def _watch(self, stop: asyncio.Event) -> None:
        """Look now and then whether the scheduler works, at the logins and at the clocks."""
        wall, mono = time.time(), time.monotonic()
        while not stop.is_set():
            await is_set(stop, self._check_s)
            if not self._overdue():
                self.progressed = time.monotonic()
            self._arm_lost()
            for account in self.accounts.values():
                self._look_at_login(account)
            parted = (time.time() - wall) - (time.monotonic() - mono)
            wall, mono = time.time(), time.monotonic()
            if abs(parted) > CLOCK_PARTED_S:
                self._clock_stepped(parted)

    def _clock_stepped(self, by_s: float) -> None:
        """Re-arm when wall and monotonic clock part: suspend, NTP step, a start in 1970."""
        self._log.warning("clock.stepped", by_s=round(by_s, 1))
        self._anchors.clear()
        for account, job in list(self._jobs.values()):
            self._enqueue(account, job)
            self._arm(account, job)

    def _look_at_login(self, account: AccountPolls) -> None:
        """A login that came back, or has other scopes, is used at once."""
        before, account.scopes = account.scopes, account.login()
        seen, account.seen = account.seen, account.logins()
        if account.scopes is None or (account.scopes == before and account.seen == seen):
            return
        if LOGIN in account.failing or before is not None:
            account.failing.pop(LOGIN, None)
            for key in list(account.refused):
                account.forget(key)
            for job in self._all_jobs(account):
                self._enqueue(account, job)

    def _overdue(self) -> bool:
        """True when a job waits that should long have run: the scheduler hangs."""
        late = datetime.now(UTC) - timedelta(seconds=OVERDUE_S)
        jobs = self._scheduler.get_jobs()
        return any(job.next_run_time and job.next_run_time < late for job in jobs)

    def _arm_lost(self) -> None:
        """A job that is not there any more would never be asked again."""
        there = {job.id for job in self._scheduler.get_jobs()}
        for key, (account, job) in list(self._jobs.items()):
            if key not in there:
                self._arm(account, job)

    # --- one poll ---------------------------------------------------------------------------------

    async def _serve(self, account: AccountPolls, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                getter = asyncio.ensure_future(account.queue.get())
                await asyncio.wait({getter, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set() or not getter.done():
                    getter.cancel()
                    return
                *_, key, poll = getter.result()
                account.waiting.discard(key)
                work = asyncio.ensure_future(self._serve_one(account, poll))
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done() and not await finish(work, self._grace_s, self._hurry):
                    return
                work.result()
                if poll.begin is None:
                    self._arm_new(account)
        finally:
            stopped.cancel()

    async def _serve_one(self, account: AccountPolls, poll: Poll) -> None:
        heard = account.intake.heard(poll.entity_id)  # what is heard meanwhile is for the next one
        endpoint = MEASURE if poll.begin is not None else poll.endpoint
        every = self.interval(account, (endpoint, poll.entity_id))
        if endpoint is GETEVENTS and poll.target is not None:
            await self._events.poll(account, poll.target, every)
            return
        asking = self._failures if endpoint in (SITE_CONTROLLERS, FAILURE_FLAG) else None
        wants = await (asking.ask(account, poll, every) if asking else account.ask(poll, every))
        if wants is None:
            return
        now = self._clock.now()
        # A short read that was on its way when the store was found replaced is no first one.
        if poll.begin is not None and now - poll.begin >= FIRST_REACH:
            account.first_done.add(poll.entity_id)
        if poll.begin is not None:
            account.read_at[poll.entity_id] = (heard, now)
        for want in wants:
            self._put(account, want)


def _key(account: AccountPolls, job: Job) -> str:
    endpoint, entity_id = job
    return "|".join(filter(None, (account.name, endpoint.name, entity_id)))
