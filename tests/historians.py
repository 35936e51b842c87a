"""A historian with accounts in memory and a clock that a test moves.

`ask` of an account answers from rows that are worked out and notes the fact in the ledger, as the
intake does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.history import Historian
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.models import Coverage, Entity, Fact, Priority
from netatmo_ingestd.plan import History
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.settings import HistorySettings
from netatmo_ingestd.sources.measure import answered, rows_poll
from tests.clocks import HandClock
from tests.truth import DAY_TYPES_OF_MAIN, MAIN_TYPES

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
SETUP = NOW.replace(hour=0) - 40 * DAY
PAGE = 30  # rows of an answer; a row each four hours: five days


class Clock(HandClock):
    """waits  seconds of each rest, as asked for"""

    def __init__(self) -> None:
        super().__init__(NOW.timestamp())
        self.waits: list[float] = []
        self.rested = asyncio.Event()

    def real_seconds(self, seconds: float) -> float:
        self.waits.append(seconds)
        self.rested.set()
        return 0.0


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = info


@dataclass
class Account:
    """What the historian uses of an account.

    fails   ids of modules whose calls fail by themselves
    down    every call fails
    mute    answers say nothing: no fact
    gate    calls wait until it is set
    room    the spool takes history
    """

    name: str
    clock: Clock
    ledger: Ledger
    entities: dict[str, Entity]
    calls: list[Poll] = field(default_factory=list)
    at: list[datetime] = field(default_factory=list)
    failing: dict[str, Any] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    down: bool = False
    mute: bool = False
    has_room: bool = True
    in_flight: int = 0
    most_in_flight: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.intake = self.room = self

    histories = AccountPolls.histories

    def modules(self, name: str) -> dict[str, Entity]:
        return self.entities

    def is_refused(self, poll: Poll, now: datetime) -> bool:
        return poll.entity_id in self.refused

    def is_there(self, priority: Priority) -> bool:
        return self.has_room

    async def ask(self, poll: Poll, every: timedelta) -> Sequence[Poll] | None:
        self.calls.append(poll)
        self.at.append(self.clock.now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.in_flight -= 1
        if poll.entity_id in self.fails:
            self.failing[poll.key] = True
        if self.down or poll.entity_id in self.fails:
            return None
        if self.mute:
            return ()
        fact = self.fact(poll)
        self.ledger.note([fact])
        if fact.whole or poll.endpoint.priority == Priority.HISTORY:
            return ()
        assert poll.target is not None
        return [
            rows_poll(self.name, poll.target, poll.types, fact.end,
                      priority=poll.endpoint.priority, walked=poll.walked)
        ]  # fmt: skip

    def fact(self, poll: Poll) -> Fact:
        """The oldest rows from where it asks on: one each four hours, or one a day."""
        assert poll.begin is not None
        width, step = (DAY, DAY) if poll.scale == "1day" else (timedelta(seconds=1), 4 * HOUR)
        now = self.clock.now()
        end = now.replace(hour=0) if poll.scale == "1day" else now
        first = max(poll.begin, SETUP)
        at = SETUP + -(-(first - SETUP) // step) * step
        spans: list[tuple[datetime, datetime]] = []
        while at + width <= end and len(spans) < PAGE * (100 if step == DAY else 1):
            spans.append((at, at + width))
            at += step
        fact = answered(poll, spans, now, end, full=step != DAY and len(spans) == PAGE)
        assert fact is not None
        return fact

    def asked(self, priority: Priority, scale: str = "max") -> list[str]:
        """Modules in the order of their calls."""
        return [
            each.entity_id
            for each in self.calls
            if each.endpoint.priority == priority and each.scale == scale
        ]


@dataclass
class House:
    accounts: dict[str, Account]
    historian: Historian
    ledger: Ledger
    clock: Clock
    log: Log
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def home(self) -> Account:
        return self.accounts["home"]

    @asynccontextmanager
    async def running(self, grace_s: float = 5.0) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.historian.run(self.stop, grace_s, self.hurry))
        try:
            yield task
        finally:
            self.stop.set()
            self.hurry.set()
            await asyncio.wait_for(task, 10)

    async def looked(self, times: int = 5) -> None:
        """The historian found several times that it has nothing to do."""
        async with asyncio.timeout(10):
            for _ in range(times):
                self.clock.rested.clear()
                await self.clock.rested.wait()

    def state(self, name: str) -> History:
        """How the history of a module of "home" stands."""
        account = cast("AccountPolls", self.home)
        found = {each.entity.entity_id: each for each in self.historian.histories(account)}
        return found[f"home-{name}"]


def module(name: str, account: str = "home") -> Entity:
    described = {"name": f"The {name}", "timezone": "UTC"}
    return Entity(account, "module", name, "h", "d", "NAMain", described, setup=SETUP)


def coverage(name: str, begin: datetime = NOW - DAY, **more: Any) -> Coverage:
    """What the first trailing read of a module left."""
    told: dict[str, Any] = {"reread": (NOW, NOW), "filled": ((begin, NOW),), **more}
    return Coverage(
        name, "max", MAIN_TYPES, ((begin, NOW),), NOW - HOUR, "home", NOW, asked=NOW, **told
    )


def whole(name: str) -> list[Coverage]:
    """Nothing is missing of it."""
    today = NOW.replace(hour=0)
    days = replace(coverage(name, SETUP), scale="1day", types=DAY_TYPES_OF_MAIN,
                   covered=((datetime(2012, 1, 1, tzinfo=UTC), today),), filled=((SETUP, today),),
                   confirmed=((datetime(2012, 1, 1, tzinfo=UTC), SETUP),), asked=today,
                   reread=(NOW,))  # fmt: skip
    return [coverage(name, SETUP), days]


def a_house(
    *names: str, accounts: Sequence[str] = ("home",), loaded: bool = True, since: Any = "all"
) -> House:
    clock, ledger, log = Clock(), Ledger(), Log()
    fakes = {
        account: Account(account, clock, ledger, {
            each: module(each, account) for each in (f"{account}-{name}" for name in names)
        })
        for account in accounts
    }  # fmt: skip
    historian = Historian(
        accounts=cast("dict[str, AccountPolls]", fakes),
        ledger=ledger,
        settings=HistorySettings(since=since),
        clock=clock,
        log=log,
    )
    if loaded:
        ledger.load(
            replace(coverage(each), owner=account)
            for account, fake in fakes.items()
            for each in fake.entities
        )
    return House(fakes, historian, ledger, clock, log)
