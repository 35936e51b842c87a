"""What one account asks: from a poll to the spool, each kind of failure, and when there is room."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from netatmo_ingestd.account import (
    FULL_RETRY_S,
    HISTORY_AHEAD,
    HISTORY_BOUND,
    REFUSED_FOR,
    REMIND_EVERY,
    AccountPolls,
    Room,
)
from netatmo_ingestd.errors import (
    ApiRefused,
    ApiThrottled,
    ApiUnavailable,
    LoginRequired,
    SpoolError,
)
from netatmo_ingestd.models import Priority
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.sources import SOURCES
from netatmo_ingestd.sources.days import days_poll
from netatmo_ingestd.sources.measure import rows_poll
from netatmo_ingestd.sources.weather import WEATHER
from tests.clocks import HandClock
from tests.truth import MODULE, START, TYPES

EVERY = timedelta(minutes=30)
STATIONS = Poll(WEATHER.endpoints[0], "home")


def rows(
    priority: Priority = Priority.TRAILING, module: str = "m", kind: str = MODULE.type
) -> Poll:
    target = replace(MODULE, entity_id=module, type=kind)
    return rows_poll("home", target, TYPES, START, priority=priority)


@dataclass
class Spool:
    fill: float = 0.0
    bytes: int = 1000
    records: int = 0


@dataclass
class Cloud:
    """Client and intake at once.

    error  raised by the call, `spooled` by what takes its answer
    takes  seconds of the clock
    """

    clock: HandClock
    error: Exception | None = None
    spooled: Exception | None = None
    takes: float = 0.0
    wants: tuple[Poll, ...] = ()
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def call(self, endpoint: str, params: Any, **how: Any) -> str:
        self.calls.append({"endpoint": endpoint, "params": params, **how})
        self.clock.advance(self.takes)
        if self.error:
            raise self.error
        return "a reply"

    async def take(
        self, reply: str, poll: Poll, every: timedelta, through: Any
    ) -> tuple[Poll, ...]:
        assert (reply, every, through) == ("a reply", EVERY, None)
        if self.spooled:
            raise self.spooled
        return self.wants


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def _take(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    info = warning = error = _take

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.events)


class House:
    def __init__(self) -> None:
        self.clock, self.log, self.spool = HandClock(), Log(), Spool()
        self.cloud = Cloud(self.clock)
        self.room = Room(cast("Any", self.spool), self.clock, self.log)
        self.account = AccountPolls(
            name="home",
            sources=(WEATHER,),
            client=cast("Any", self.cloud),
            budget=cast("Any", None),
            intake=cast("Any", self.cloud),
            room=self.room,
            clock=self.clock,
            log=self.log,
        )

    async def ask(self, poll: Poll) -> Any:
        return await self.account.ask(poll, EVERY)

    async def fails(self, poll: Poll, error: Exception | None) -> Any:
        self.cloud.error = error
        return await self.ask(poll)


def unavailable(endpoint: str = "getmeasure") -> ApiUnavailable:
    return ApiUnavailable(f"{endpoint}: HTTP 500", endpoint=endpoint, status=500)


def refusal(reaction: str) -> ApiRefused:
    return ApiRefused("no", endpoint="getmeasure", status=403, code=13, reaction=reaction)


# --- one call -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poll", "purpose"),
    [
        (STATIONS, "live"),
        (rows(), "trailing"),
        (rows(Priority.REREAD), "reread"),
        (days_poll("home", MODULE, TYPES, START), "history"),
    ],
)
async def test_a_call_is_counted_under_its_purpose(poll: Poll, purpose: str) -> None:
    """The client is told what is asked, how urgent it is, and what for; the wants come back."""
    house = House()
    house.cloud.wants = (rows(module="n"),)

    wants = await house.ask(poll)

    assert wants == house.cloud.wants
    assert house.cloud.calls == [
        {
            "endpoint": poll.endpoint.name,
            "params": poll.params,
            "priority": poll.endpoint.priority,
            "purpose": purpose,
        }
    ]
    assert house.account.last_good == {poll.endpoint.name: house.clock.now()}
    assert house.log.events == []


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (unavailable(), "getmeasure|m"),
        (
            ApiThrottled("full", endpoint="x", status=403, code=26, retry_after=60),
            "getmeasure|m",
        ),
        (LoginRequired("lost", account="home"), "login"),
    ],
)
async def test_a_passing_failure_is_none_and_counted(error: Exception, key: str) -> None:
    """Nothing comes of it, a series is told once, and so is its end."""
    house = House()

    assert [await house.fails(rows(), error) for _ in range(3)] == [None] * 3

    assert (house.account.failing[key].count, house.account.failing[key].error) == (3, str(error))
    assert house.log.count("poll.failed") == 1
    assert await house.fails(rows(), None) == ()
    assert house.account.failing == {}
    assert house.log.events[-1] == (
        "poll.recovered", {"account": "home", "endpoint": key, "failures": 3}
    )  # fmt: skip


async def test_a_long_series_is_reminded_of() -> None:
    """One line each hundred failures."""
    house = House()

    for _ in range(2 * REMIND_EVERY):
        await house.fails(rows(), unavailable())

    assert house.log.count("poll.failed") == 3


async def test_of_many_modules_the_first_failure_is_told() -> None:
    """When an endpoint fails for all modules, that is one line, and one when the last is well."""
    house = House()
    for module in "abc":
        await house.fails(rows(module=module), unavailable())

    for module in "abc":
        await house.fails(rows(module=module), None)

    assert (house.log.count("poll.failed"), house.log.count("poll.recovered")) == (1, 1)


@pytest.mark.parametrize(("reaction", "others"), [("target", ["n"]), ("bug", ["n"]), ("scope", [])])
async def test_a_refusal_is_kept_for_a_day(reaction: str, others: list[str]) -> None:
    """A missing scope stops all it unlocks, an unknown module itself; a day later it is tried."""
    house = House()
    assert await house.fails(rows(), refusal(reaction)) is None
    house.cloud.error = None

    assert await house.ask(rows()) is None
    assert [each for each in "n" if await house.ask(rows(module=each)) is not None] == others
    assert len(house.cloud.calls) == 1 + len(others)

    house.clock.advance(REFUSED_FOR.total_seconds())

    assert await house.ask(rows()) == ()
    assert house.account.refused == {}


async def test_a_refused_key_stops_all_that_is_asked_with_it() -> None:
    """One line, and nothing is asked for an hour; a good answer ends it."""
    house = House()
    await house.fails(rows(), refusal("key"))
    house.cloud.error = None

    assert await house.ask(rows(module="n")) is None
    assert await house.ask(STATIONS) is None
    assert len(house.cloud.calls) == house.log.count("poll.refused") == 1

    house.clock.advance(3600)

    assert await house.ask(STATIONS) == ()
    assert house.account.refused == house.account.failing == {}


async def test_a_login_that_one_call_is_refused_is_cured_by_that_call_alone() -> None:
    """Others that go well meanwhile do not tell that it is well; those without a token do."""
    house, lost = House(), LoginRequired("refused", account="home", refused=True)
    await house.fails(rows(), lost)
    await house.fails(STATIONS, LoginRequired("no token", account="home"))

    assert await house.fails(STATIONS, None) == ()
    assert "login" in house.account.failing
    assert await house.ask(rows()) == ()
    assert house.account.failing == {}
    assert house.log.count("poll.recovered") == 1


@pytest.mark.parametrize(("kind", "other"), [("NHC", "NAModule1"), ("NAModule1", "NHC")])
async def test_a_missing_scope_is_of_one_product(kind: str, other: str) -> None:
    """Of the endpoint that products share, only the refused product's modules are left alone."""
    house = House()
    house.account.sources = SOURCES
    refused, allowed = (rows(kind=each, module=each) for each in (kind, other))
    await house.fails(refused, refusal("scope"))
    house.cloud.error = None

    assert await house.ask(refused) is None
    assert await house.ask(rows(kind=kind, module="another")) is None
    assert await house.ask(allowed) == ()
    assert await house.ask(STATIONS) == ()
    assert await house.ask(refused) is None

    house.clock.advance(REFUSED_FOR.total_seconds())

    assert await house.ask(refused) == ()
    assert house.account.refused == house.account.failing == {}


async def test_history_of_a_module_may_be_refused_by_itself() -> None:
    """What is refused of day rows or old rows stops no trailing read of the same module."""
    house = House()
    await house.fails(rows(Priority.HISTORY), refusal("bug"))
    house.cloud.error = None

    assert await house.ask(rows(Priority.HISTORY)) is None
    assert await house.ask(rows()) == ()
    assert await house.ask(rows(Priority.REREAD)) == ()
    assert await house.ask(days_poll("home", MODULE, TYPES, START)) == ()


@pytest.mark.parametrize("kind", ["getroommeasure", "getmeasure"])
async def test_a_room_belongs_to_energy(kind: str) -> None:
    """A scope that rooms lack costs the other rooms, and neither thermostats nor meters."""
    house = House()
    rooms, thermostats, meters = (
        [
            rows_poll("home", replace(MODULE, kind=of, entity_id=each, type=name), TYPES, START)
            for each in ("1", "2")
        ]
        for of, name in (("room", "room"), ("module", "NATherm1"), ("module", "NLPC"))
    )
    refused, others = (rooms, thermostats) if kind == "getroommeasure" else (thermostats, rooms)

    await house.fails(refused[0], refusal("scope"))
    house.cloud.error = None

    assert set(house.account.refused) == {f"{kind} energy"}
    assert [await house.ask(each) for each in refused] == [None, None]
    assert [await house.ask(each) for each in (*others, *meters)] == [()] * 4


async def test_a_slow_call_is_told() -> None:
    """One that takes longer than its interval, whatever became of it."""
    house = House()
    house.cloud.takes = EVERY.total_seconds() + 1

    await house.ask(rows())
    await house.fails(rows(), unavailable())

    assert house.log.count("poll.slow") == 2


async def test_a_damaged_spool_ends_it() -> None:
    """The next start sets it aside; a full one is no reason to end."""
    house = House()
    house.cloud.spooled = SpoolError("damaged", full=False)

    with pytest.raises(SpoolError):
        await house.ask(rows())

    house.cloud.spooled = SpoolError("full", full=True)
    assert await house.ask(rows()) is None
    assert house.room.paused == "full"


# --- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fill", "records", "live", "history"),
    [
        (0.0, 0, True, True),
        (HISTORY_BOUND - 0.01, HISTORY_AHEAD - 1, True, True),
        (HISTORY_BOUND, 0, True, False),
        (0.0, HISTORY_AHEAD, True, False),
        (0.99, 0, True, False),
        (1.0, 0, False, False),
    ],
)
async def test_history_leaves_room_for_what_is_shown_only_now(
    fill: float, records: int, live: bool, history: bool
) -> None:
    """From 80 % on, or behind many waiting records, only live and trailing calls are made."""
    house = House()
    house.spool.fill, house.spool.records = fill, records

    for priority in (Priority.REREAD, Priority.HISTORY):
        assert (await house.ask(rows(priority)) is not None) is history
    assert (await house.ask(rows()) is not None) is live
    assert (await house.ask(STATIONS) is not None) is live
    assert len(house.cloud.calls) == 2 * live + 2 * history


async def full_house(fill: float) -> House:
    """One whose spool took no more."""
    house = House()
    house.spool.fill = fill
    house.cloud.spooled = SpoolError("spool.max_bytes", full=True)
    await house.ask(rows())
    house.cloud.spooled = None
    return house


async def test_a_full_spool_waits_until_something_left() -> None:
    """Nothing is asked while it is as full as it was; then all is well, told once."""
    house = await full_house(0.85)
    assert await house.ask(rows()) is None
    assert len(house.cloud.calls) == 1

    house.spool.bytes -= 1

    assert await house.ask(rows(module="n")) == ()
    assert house.room.paused == ""
    assert (house.log.count("spool.full"), house.log.count("spool.room")) == (1, 1)


async def test_a_disk_that_others_filled_is_tried_now_and_then() -> None:
    """Nothing has to leave the spool: what found no room is tried again after five minutes."""
    house = await full_house(0.1)
    house.clock.advance(FULL_RETRY_S - 1)
    assert await house.ask(rows()) is None

    house.clock.advance(1)

    assert await house.ask(rows(module="n")) == ()
    assert house.room.paused  # a smaller answer may find room where this one finds none
    assert await house.ask(rows()) == ()
    assert house.room.paused == ""


async def test_a_bound_is_lifted_by_what_leaves_alone() -> None:
    """Above 90 % no time that passes makes room."""
    house = await full_house(0.95)

    house.clock.advance(10 * FULL_RETRY_S)

    assert await house.ask(rows()) is None
