"""Fills history: backfill, gap repair, late re-reads; spends what the budget leaves over.

One walk for each account, one call at a time; what to ask is worked out anew from the ledger before
each call, so nothing is lost by a stop and nothing asked twice. Live polls never wait for it: it
begins when the ledger was read from the store and the spool of the previous run is drained.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.limits import Backoff
from netatmo_ingestd.models import Priority
from netatmo_ingestd.plan import History, Step, steps
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.settings import HistorySettings
from netatmo_ingestd.waits import beside, first

LOOK_S = 60.0  # of the daemon's clock; how often one who has nothing to do looks again
LEAST_LOOK_S = 0.25  # real
RETRY_S = (5.0, 900.0)
EVERY = timedelta(hours=1)  # a call that takes longer is told
ASIDE = timedelta(days=1)
"""For how long a call is not repeated that changed nothing in the ledger; doubled each time, up to
a month."""
ASIDE_MOST = timedelta(days=30)
HELD = timedelta(minutes=15)
"""For how long others go before a call that failed."""


class Historian:
    """Walks the histories of all accounts; `only` those modules (ids or names) if any are named."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, AccountPolls],
        ledger: Ledger,
        settings: HistorySettings,
        clock: Clock,
        log: Any,
    ) -> None:
        self.only: set[str] = set()
        self._accounts = dict(accounts)
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._log = log
        self._filling: set[str] = set()
        self._served: dict[str, int] = {}
        self._turn = 0
        self._aside: dict[Any, tuple[datetime, timedelta]] = {}
        self._held: dict[Any, datetime] = {}

    async def run(
        self, stop: asyncio.Event, grace_s: float = 10.0, hurry: asyncio.Event | None = None
    ) -> None:
        """Until `stop`; a call in flight has `grace_s` real seconds to end, none when hurried."""
        walks = (self._walk(account, stop) for account in self._accounts.values())
        await beside(walks, stop, grace_s, hurry)

    def histories(self, account: AccountPolls) -> Iterator[History]:
        """Each module and room whose history `account` reads."""
        now = self._clock.now()
        for entity, types, scale in account.histories():
            if self.only and not self.only & {entity.entity_id, _name(entity)}:
                continue
            if self._ledger.owned_by_other(entity.entity_id, scale, account.name, now):
                continue
            fine = self._ledger.find(entity.entity_id, scale)
            days = self._ledger.find(entity.entity_id, "1day")
            since = self._settings.since
            yield History(account.name, entity, types, scale, fine, days, since)

    def progress(self, account: AccountPolls, granted: float) -> dict[str, dict[str, Any]]:
        """How far the history of each module is, by id.

        granted  calls an hour that this account may spend on it
        Returns  {"since": ISO time or None, "covered": 0 to 1, "rows", "requests": still missing,
                 "eta_s": None when nothing is granted, "asked": whether some may be asked for
                 now}; modules take turns, so a long history ends after the short ones beside it
        """
        found, now = list(self.histories(account)), self._clock.now()
        left = {each.entity.entity_id: each.requests() for each in found}
        return {
            each.entity.entity_id: {
                "since": each.begin.isoformat(timespec="seconds") if each.begin else None,
                "covered": round(each.share(), 6),
                "rows": each.rows(),
                "requests": own,
                "eta_s": round(sum(min(own, other) for other in left.values()) * 3600 / granted)
                if granted > 0
                else None,
                "asked": own > 0
                and any(self._can_ask(account, step, now) for step in steps(each, now)),
            }
            for each in found
            for own in (left[each.entity.entity_id],)
        }

    async def _walk(self, account: AccountPolls, stop: asyncio.Event) -> None:
        backoff = Backoff(*RETRY_S, rng=random.Random())  # noqa: S311
        step: Step | None = None
        pages: list[Poll] = []
        while not stop.is_set():
            if not pages:
                step = self._next(account)
                self._tell(account, step)
            if step is None:
                await self._rest(stop, LOOK_S)
                continue
            if not account.room.is_there(step.poll.endpoint.priority):
                await self._rest(stop, 0.0)
                continue
            wants = await account.ask(pages.pop(0) if pages else step.poll, EVERY)
            self._served[step.poll.entity_id] = self._turn = self._turn + 1
            if wants is None:
                pages.clear()  # the walk begins again
                self._failed(account, step)
                await self._rest(stop, backoff.next())
                continue
            backoff.reset()
            pages += wants
            if not pages:
                self._answered(account, step)

    def _next(self, account: AccountPolls) -> Step | None:
        """The most urgent call of `account`; none before the ledger was read."""
        if not self._ledger.loaded:
            return None
        now = self._clock.now()
        due = [step for step in self._due(account, now) if self._may_ask(account, step, now)]
        return min(due, key=self._urgency, default=None)

    def _tell(self, account: AccountPolls, step: Step | None) -> None:
        """Log when missing history begins to be filled, and when nothing is missing any more."""
        name = account.name
        if step is None and name in self._filling and not self.to_fill(account):
            self._filling.discard(name)
            if rest := sum(each.requests() for each in self.histories(account)):
                self._log.warning("history.blocked", account=name, requests=rest)
            else:
                self._log.info("history.filled", account=name)
        elif step and step.poll.endpoint.priority == Priority.HISTORY and name not in self._filling:
            self._filling.add(name)
            left = [each.requests() for each in self.histories(account)]
            self._log.info("history.begun", account=name, modules=len(left), requests=sum(left))

    def _failed(self, account: AccountPolls, step: Step) -> None:
        """Let other calls go first: one that fails by itself would hold all of them up."""
        if step.poll.key in account.failing:
            self._held[step.name] = self._clock.now() + HELD

    def _answered(self, account: AccountPolls, step: Step) -> None:
        """Set a call aside that is due again at once: it would be repeated for ever."""
        now = self._clock.now()
        self._held.pop(step.name, None)
        if step.name not in {each.name for each in self._due(account, now)}:
            self._aside.pop(step.name, None)
            return
        for name in [name for name, (until, _) in self._aside.items() if now - until > ASIDE_MOST]:
            del self._aside[name]
        _, before = self._aside.get(step.name, (now, ASIDE / 2))
        wait = min(before * 2, ASIDE_MOST)
        self._aside[step.name] = now + wait, wait

    def _due(self, account: AccountPolls, now: datetime) -> Iterator[Step]:
        for history in self.histories(account):
            yield from steps(history, now)

    def to_fill(self, account: AccountPolls) -> bool:
        """Whether anything is missing that may be asked for; unknown before the ledger is read."""
        if not self._ledger.loaded:
            return True
        now = self._clock.now()
        return any(
            step.poll.endpoint.priority == Priority.HISTORY and self._can_ask(account, step, now)
            for step in self._due(account, now)
        )

    def _urgency(self, step: Step) -> tuple[int, int, int]:
        """Late re-reads, then newer before older, then whoever was served longest ago."""
        served = self._served.get(step.poll.entity_id, 0)
        return step.poll.endpoint.priority, step.rank, served

    def _may_ask(self, account: AccountPolls, step: Step, now: datetime) -> bool:
        return self._can_ask(account, step, now) and self._held.get(step.name, now) <= now

    def _can_ask(self, account: AccountPolls, step: Step, now: datetime) -> bool:
        """False while the cloud refuses it, or it settled nothing when it was asked."""
        until, _ = self._aside.get(step.name, (now, ASIDE))
        return until <= now and not account.is_refused(step.poll, now)

    async def _rest(self, stop: asyncio.Event, seconds: float) -> None:
        real_s = max(LEAST_LOOK_S, self._clock.real_seconds(seconds))
        await first(stop.wait(), limit=real_s)


def _name(entity: Any) -> str:
    return str(entity.description.get("name", ""))
