"""The poller: when each endpoint is asked, and what it does about each kind of failure.

A real client over respx, a real spool; time is moved by hand, or runs some thousand times as fast.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from hypothesis import assume, given
from hypothesis import strategies as st

from netatmo_ingestd import records, spool
from netatmo_ingestd.account import AccountPolls, Room
from netatmo_ingestd.client import Client, open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import LoginRequired
from netatmo_ingestd.events import EventWalker
from netatmo_ingestd.failures import Failures
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.logs import EVENTS
from netatmo_ingestd.memory import Memory
from netatmo_ingestd.models import Token
from netatmo_ingestd.plan import trailing_begin
from netatmo_ingestd.poller import Poller, next_due
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.settings import (
    AccountSettings,
    HistorySettings,
    PollSettings,
    PublicArea,
)
from netatmo_ingestd.sources import for_products
from netatmo_ingestd.sources.measure import MEASURE
from netatmo_ingestd.spool import Spool
from tests.clocks import HandClock
from tests.stores import until

STATION, GARDEN, RAIN = "70:ee:50:00:00:01", "02:00:00:00:00:01", "05:00:00:00:00:01"
DAY = 86_400.0
MOMENTS = st.integers(1_577_836_800_000_000, 2_208_988_800_000_000).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
AGES = st.integers(0, 30 * 86_400).map(lambda seconds: timedelta(seconds=seconds))

Answer = httpx.Response | Exception | Callable[[], Awaitable[httpx.Response | None]]


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that each spool holds back is small here: writing it would take most of the time."""
    monkeypatch.setattr(spool, "BALLAST_BYTES", 1 << 20)


class Log:
    """Collects events; each must be in the documented list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        def note(event: str, **fields: Any) -> None:
            assert event in EVENTS
            self.lines.append((event, fields))

        return note

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.lines)


@dataclass
class Call:
    """One request as the cloud saw it; `at` on its clock."""

    account: str
    endpoint: str
    params: Mapping[str, str]
    at: float

    @property
    def module(self) -> str:
        return self.params.get("module_id") or self.params.get("device_id", "")

    @property
    def begin(self) -> float:
        return float(self.params["date_begin"])


class Cloud:
    """One station with two modules, a row each fifty minutes, behind respx.

    answers  for (account, endpoint or module id): given instead, one for each call
    rows_s   seconds between two rows
    until    rows end here; None: up to now
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[Call] = []
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.modules = [GARDEN, RAIN]
        self.rows_s = 3000
        self.until: float | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        account = request.headers["Authorization"].removeprefix("Bearer canary-access-")
        endpoint = request.url.path.rpartition("/")[2]
        call = Call(account, endpoint, dict(request.url.params), self.clock.time())
        self.calls.append(call)
        for key in ((account, call.module), (account, endpoint)):
            if self.answers.get(key):
                answer = self.answers[key].pop(0)
                if isinstance(answer, Exception):
                    raise answer
                found = answer if isinstance(answer, httpx.Response) else await answer()
                if found is not None:
                    return found
        body = self.stations() if endpoint == "getstationsdata" else self.rows(call)
        return httpx.Response(200, json={"body": body, "time_server": int(self.clock.time())})

    def stations(self) -> dict[str, Any]:
        def described(module_id: str, kind: str) -> dict[str, Any]:
            return {"_id": module_id, "type": kind, "module_name": module_id, "reachable": True}

        kinds = {GARDEN: "NAModule1", RAIN: "NAModule3"}
        return {
            "devices": [
                {
                    **described(STATION, "NAMain"),
                    "home_id": "home1",
                    "home_name": "Home",
                    "modules": [described(each, kinds[each]) for each in self.modules],
                }
            ]
        }

    def rows(self, call: Call) -> dict[str, list[float]]:
        end = self.clock.time() if self.until is None else self.until
        first = -(-int(call.begin) // self.rows_s) * self.rows_s
        width = len(call.params["type"].split(","))
        return {
            str(epoch): [float(epoch % 40)] * width
            for epoch in range(first, int(end), self.rows_s)[:1024]
        }

    def count(self, what: str, account: str = "home") -> int:
        """Calls of an endpoint, or rows asked of a module."""
        mine = [call for call in self.calls if call.account == account]
        return sum(what in (call.endpoint, call.module) for call in mine)

    def reads(self, module_id: str) -> list[Call]:
        return [call for call in self.calls if call.module == module_id]


@dataclass
class Login:
    """The tokens of an account; `lost` makes every call fail before it leaves."""

    account: str
    lost: bool = False
    scopes: tuple[str, ...] = ("read_station",)
    asked: int = 0

    async def current(self) -> Token:
        self.asked += 1
        if self.lost:
            raise LoginRequired(f"account {self.account}: there is no login", account=self.account)
        access = f"canary-access-{self.account}"
        return Token(access, "canary-refresh", 9e9, 10800.0, self.scopes, 1)

    async def renew(self, refused: int) -> Token:
        return await self.current()

    def state(self) -> tuple[str, ...] | None:
        return None if self.lost else self.scopes


@dataclass
class House:
    cloud: Cloud
    poller: Poller
    spool: Spool
    memory: Memory
    log: Log
    clock: Any
    logins: dict[str, Login]
    budget: Budget
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def home(self) -> AccountPolls:
        return self.poller.accounts["home"]

    async def rows(self) -> list[tuple[str, datetime]]:
        """(module, time) of every row on the spool."""
        found = []
        for batch in await self.spool.oldest_batches(10_000, 1 << 30):
            documents, *_ = records.unpack(batch.body)
            found += [
                (each["module_id"], each["time"])
                for each in documents
                if each["record"] == "Measurement"
            ]
        return found

    async def settle(self) -> None:
        taken = await self.spool.oldest_batches(10_000, 1 << 30)
        await self.spool.settle([batch.id for batch in taken], {})

    def armed(self, key: str) -> float:
        """Real seconds until the job of `key` fires."""
        job = self.poller._scheduler.get_job(job_key(key))
        assert job is not None
        return float((job.next_run_time - datetime.now(UTC)).total_seconds())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.poller.run(self.stop, 0.2))
        try:
            yield task
        finally:
            self.stop.set()
            await asyncio.wait_for(task, 10)


def job_key(what: str) -> str:
    """The job of an endpoint, or of a module's trailing read."""
    return f"home|{what}" if what.startswith("get") else f"home|getmeasure|{what}"


@asynccontextmanager
async def opened(
    folder: Path,
    clock: Clock | None = None,
    *,
    accounts: tuple[str, ...] = ("home",),
    max_bytes: int = 1 << 30,
    poll: PollSettings | None = None,
    per_hour: int = 400,
    check_s: float = 0.02,
    products: tuple[str, ...] = ("weather",),
    area: PublicArea | None = None,
) -> AsyncIterator[House]:
    clock = clock or HandClock(auto=True)
    cloud, log, memory, ledger = Cloud(clock), Log(), Memory(), Ledger()
    queue = Spool(folder, max_bytes)
    await queue.open()
    room = Room(queue, clock, log)
    budget = Budget(
        folder / "budget", "app", per_hour=per_hour, per_10s=50, app_per_hour=2000, clock=clock
    )
    logins = {name: Login(name) for name in accounts}
    async with open_http() as http:
        polls = {
            name: AccountPolls(
                name=name,
                sources=for_products(products),
                tiles=area.tiles if area else (),
                client=Client(
                    account=name,
                    provider=NETATMO,
                    http=http,
                    tokens=logins[name],
                    budget=budget,
                    clock=clock,
                    rng=random.Random(1),
                ),
                budget=budget,
                intake=Intake(
                    settings=AccountSettings(name=name, products=products, public_area=area),
                    spool=queue,
                    memory=memory,
                    ledger=ledger,
                    log=log,
                ),
                room=room,
                clock=clock,
                log=log,
                login=logins[name].state,
            )
            for name in accounts
        }
        poller = Poller(
            accounts=polls,
            room=room,
            ledger=ledger,
            settings=poll or PollSettings(),
            failures=Failures(),
            events=EventWalker(
                accounts=polls,
                ledger=ledger,
                gallery=None,
                settings=HistorySettings(),
                clock=clock,
            ),
            clock=clock,
            log=log,
            check_s=check_s,
        )
        with respx.mock(base_url=NETATMO.api_url, assert_all_called=False) as router:
            router.get(path__startswith="/api/").mock(side_effect=cloud)
            try:
                yield House(cloud, poller, queue, memory, log, clock, logins, budget)
            finally:
                await queue.close()


def fast(speed: float = 6000) -> Clock:
    """Ten minutes in a tenth of a second."""
    return Clock(time.time(), speed)


def refusal(status: int, code: int, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": message}})


# --- when: pure ---------------------------------------------------------------------------------


@given(MOMENTS, st.timedeltas(timedelta(seconds=1), timedelta(days=1)), MOMENTS)
def test_next_due_is_the_first_moment_of_the_grid(
    anchor: datetime, every: timedelta, now: datetime
) -> None:
    """It lies after now, on the grid, and no earlier moment of the grid does."""
    due = next_due(anchor, every, now)

    assert due > now or due == anchor
    assert (due - anchor) % every == timedelta(0)
    assert due >= anchor
    assert due == anchor or due - every <= now


@given(MOMENTS, AGES)
def test_a_trailing_read_begins_at_the_newest_row_or_earlier(now: datetime, age: timedelta) -> None:
    """It begins 3 h back or at an older newest row, on a whole second; at most 3.5 days back."""
    newest = now.replace(microsecond=0) - age

    begin = trailing_begin(now, newest, first=False)

    assert begin.microsecond == 0
    furthest = (now - timedelta(days=3.5)).replace(microsecond=0)
    if newest >= furthest:
        assert begin <= newest
    wanted = min(newest, (now - timedelta(hours=3)).replace(microsecond=0))
    assert begin == max(furthest, wanted)


@given(MOMENTS, AGES)
def test_the_first_trailing_read_reaches_further(now: datetime, age: timedelta) -> None:
    """After a start, or without a known row, it begins 3.5 days back, however old the newest row.

    What lies behind is more than one page: a hole, for history to fill.
    """
    newest = now.replace(microsecond=0) - age
    reach = (now - timedelta(days=3.5)).replace(microsecond=0)

    assert trailing_begin(now, newest, first=True) == reach
    assert trailing_begin(now, None, first=True) == reach
    assert trailing_begin(now, None, first=False) == reach


@given(MOMENTS, st.timedeltas(timedelta(minutes=1), timedelta(days=1)))
def test_polls_of_a_series_never_come_closer_than_their_interval(
    anchor: datetime, every: timedelta
) -> None:
    """Asked at each due moment, the next is exactly one interval later: no drift."""
    assume(anchor.year < 2039)
    due = next_due(anchor, every, anchor)

    assert due == anchor + every
    assert next_due(anchor, every, due) == anchor + 2 * every


# --- one round ----------------------------------------------------------------------------------


async def test_one_round_asks_everything_once(tmp_path: Path) -> None:
    """`once` asks the account's endpoint and then each module's rows, and nothing twice."""
    async with opened(tmp_path) as house:
        problems = await house.poller.once()

        assert problems == []
        assert Counter(call.module or call.endpoint for call in house.cloud.calls) == {
            "getstationsdata": 1,
            STATION: 1,
            GARDEN: 1,
            RAIN: 1,
        }
        rows = await house.rows()
        assert Counter(module for module, _ in rows) == {STATION: 101, GARDEN: 101, RAIN: 101}


async def test_the_first_read_reaches_three_and_a_half_days_then_three_hours(
    tmp_path: Path,
) -> None:
    """After a start 3.5 days are asked for; then 3 h, or back to a newest row that is older."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        house.clock.advance(1800)
        await house.poller.once()
        house.cloud.until = house.clock.time()
        house.clock.advance(10 * 3600)
        await house.poller.once()

        first, second, third = house.cloud.reads(GARDEN)
        assert first.at - first.begin == pytest.approx(3.5 * DAY, abs=30)
        assert second.at - second.begin == pytest.approx(3 * 3600, abs=30)
        newest = house.memory.newest[GARDEN].timestamp()
        assert third.begin == newest < third.at - 9 * 3600


async def test_a_failed_first_read_reaches_as_far_again(tmp_path: Path) -> None:
    """3.5 days are asked for until a first read has succeeded, not until it was tried."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", GARDEN] = [httpx.Response(500)] * 4
        (problem,) = await house.poller.once()
        await house.poller.once()

        last = house.cloud.reads(GARDEN)[-1]
        assert problem.startswith(f"getmeasure|{GARDEN}: getmeasure: HTTP 500")
        assert last.at - last.begin == pytest.approx(3.5 * DAY, abs=30)


async def test_pages_are_followed_to_the_end(tmp_path: Path) -> None:
    """A full page is followed by the next one, and every row arrives once."""
    async with opened(tmp_path) as house:
        house.cloud.rows_s = 120
        await house.poller.once()

        reads = house.cloud.reads(GARDEN)
        assert len(reads) == 3
        assert [read.begin for read in reads] == sorted({read.begin for read in reads})
        rows = [each for each in await house.rows() if each[0] == GARDEN]
        assert len(rows) == len(set(rows)) == 2520


async def test_once_tells_what_failed(tmp_path: Path) -> None:
    """Each failing endpoint is one problem in words; a full spool is one as well."""
    async with opened(tmp_path, max_bytes=1000) as house:
        house.cloud.answers["home", "getstationsdata"] = [httpx.Response(503)] * 4
        (problem,) = await house.poller.once()
        assert problem.startswith("getstationsdata: getstationsdata: ")

        *_, full = await house.poller.once()

        assert full.startswith("spool: ")
        assert "max_bytes" in full


async def test_once_does_not_wait_for_the_other_account(tmp_path: Path) -> None:
    """In one round an account that gets no answer delays no other."""
    async with opened(tmp_path, fast(), accounts=("home", "other")) as house:
        gate = asyncio.Event()

        async def mute() -> None:
            await gate.wait()

        house.cloud.answers["home", "getstationsdata"] = [mute]
        round_ = asyncio.create_task(house.poller.once())
        await until(lambda: house.cloud.count("getmeasure", "other") == 3)
        assert house.cloud.count("getmeasure") == 0

        gate.set()

        assert await asyncio.wait_for(round_, 10) == []
        # The modules are described by the account that was first; both may read their rows.
        assert house.cloud.count("getstationsdata") == 1


# --- cadence ------------------------------------------------------------------------------------


async def test_each_endpoint_is_asked_at_its_cadence(tmp_path: Path) -> None:
    """In three hours the station is asked every 10 min, each module's rows every 30 min."""
    async with opened(tmp_path) as house, house.running():
        await until(lambda: house.spool.batches == 4)
        keys = ("getstationsdata", STATION, GARDEN, RAIN)
        due = {key: house.clock.time() + house.armed(key) for key in keys}
        end = house.clock.time() + 3 * 3600 + 60
        while (key := min(due, key=due.__getitem__)) and due[key] < end:
            batches = house.spool.batches
            house.clock.advance(max(0.0, due[key] - house.clock.time()) + 0.5)
            await house.poller._fire(job_key(key))  # as the scheduler does, never too early
            due[key] = house.clock.time() + house.armed(key)
            await until(lambda: house.spool.batches == batches + 1)  # noqa: B023

        assert house.cloud.count("getstationsdata") == 1 + 18
        assert [house.cloud.count(each) for each in keys[1:]] == [1 + 6] * 3


async def test_reads_of_modules_are_spread_over_the_interval(tmp_path: Path) -> None:
    """After the first round the trailing reads of three modules lie ten minutes apart."""
    async with opened(tmp_path, HandClock()) as house:
        house.clock.auto = True
        async with house.running():
            await until(lambda: house.cloud.count("getmeasure") == 3)
            waits = sorted(round(house.armed(each) / 600) for each in (STATION, GARDEN, RAIN))

            assert waits == [1, 2, 3]


async def test_a_late_job_keeps_the_grid(tmp_path: Path) -> None:
    """A poll that fires late is followed by one at the regular moment, not a whole interval on."""
    async with opened(tmp_path) as house, house.running():
        await until(lambda: house.cloud.count("getmeasure") == 3)
        anchor = house.poller._anchors["home|getstationsdata"].timestamp()
        house.clock.advance(anchor + 700 - house.clock.time())

        await house.poller._fire("home|getstationsdata")

        assert house.armed("getstationsdata") == pytest.approx(500, abs=5)


async def test_slow_calls_pile_up_nothing(tmp_path: Path) -> None:
    """While one call lasts ten intervals its next polls wait as one; then the cadence goes on."""
    async with opened(tmp_path, fast()) as house, house.running():
        gate = asyncio.Event()

        async def slow() -> None:
            await gate.wait()

        house.cloud.answers["home", "getstationsdata"] = [slow]
        began = house.clock.time()
        await until(lambda: house.clock.time() > began + 6000)
        assert house.cloud.count("getstationsdata") == 1
        assert house.home.queue.qsize() == 1

        gate.set()

        await until(lambda: house.cloud.count("getstationsdata") >= 3)
        first, second, third = [c.at for c in house.cloud.calls if not c.module][:3]
        assert second - first > 6000
        assert third - second < 6000
        assert house.log.count("poll.slow") == 1


async def test_cadences_that_do_not_fit_are_stretched(tmp_path: Path) -> None:
    """Twelve calls an hour under an allowance of ten: every interval grows evenly, told once."""
    async with opened(tmp_path, per_hour=10) as house:
        await house.poller.once()
        await house.poller.once()

        assert house.home.stretch == pytest.approx(1.2)
        assert house.poller.interval(house.home, (MEASURE, GARDEN)) == timedelta(minutes=36)
        assert house.log.count("poll.stretched") == 1


async def test_cadences_that_fit_are_left_alone(tmp_path: Path) -> None:
    """One station fits its budget ten times over: nothing is stretched."""
    async with opened(tmp_path) as house:
        await house.poller.once()

        assert house.home.stretch == 1.0
        assert house.budget.usage("home").planned == pytest.approx(12)
        assert house.log.count("poll.stretched") == 0


@pytest.mark.parametrize("by_s", [-3 * 3600.0, 3 * 3600.0, 56 * 365 * DAY])
async def test_a_clock_step_arms_everything_anew(
    by_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the wall clock jumps, everything is polled at once and armed within its interval."""
    async with opened(tmp_path) as house, house.running():
        await until(lambda: house.cloud.count("getmeasure") == 3)
        real = time.time

        monkeypatch.setattr(time, "time", lambda: real() + by_s)
        house.clock.step(by_s)

        await until(lambda: house.cloud.count("getmeasure") >= 6, what="modules are read again")
        assert house.log.count("clock.stepped") == 1
        assert house.cloud.count("getstationsdata") == 2
        assert 0 < house.armed("getstationsdata") <= 600
        assert 0 < house.armed(GARDEN) <= 1800


async def test_a_clock_that_runs_evenly_is_no_step(tmp_path: Path) -> None:
    """Nothing is armed anew while wall and monotonic clock agree."""
    async with opened(tmp_path, check_s=0.001) as house, house.running():
        seen = house.poller.progressed
        await until(lambda: house.poller.progressed > seen + 0.05)

        assert house.log.count("clock.stepped") == 0


# --- failures -----------------------------------------------------------------------------------


async def test_a_passing_failure_is_told_once_and_its_end(tmp_path: Path) -> None:
    """A series of failures is one line and a recovery; each poll is tried again in its turn."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", "getstationsdata"] = [httpx.Response(502)] * 12
        for _ in range(3):
            await house.poller.once()
        assert house.home.failing["getstationsdata"].count == 3

        assert await house.poller.once() == []

        assert house.log.count("poll.failed") == 1
        assert [fields["failures"] for event, fields in house.log.lines
                if event == "poll.recovered"] == [3]  # fmt: skip
        assert house.home.failing == {}


async def test_a_missing_scope_is_asked_again_a_day_later(tmp_path: Path) -> None:
    """403 with code 13 stops that endpoint for a day; then one call finds that it works again."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", "getstationsdata"] = [refusal(403, 13)]
        await house.poller.once()
        for _ in range(23):
            house.clock.advance(3600)
            assert "code 13" in (await house.poller.once())[0]
        assert house.cloud.count("getstationsdata") == 1
        assert house.log.count("poll.refused") == 1

        house.clock.advance(3600)

        assert await house.poller.once() == []
        assert house.cloud.count("getstationsdata") == 2
        assert house.home.refused == {}


async def test_a_login_with_more_scopes_is_used_at_once(tmp_path: Path) -> None:
    """Once a login has the missing scope, the refused call is made without delay."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", "getstationsdata"] = [refusal(403, 13)]
        house.logins["home"].scopes = ()
        async with house.running():
            await until(lambda: house.home.refused)
            await until(lambda: house.home.scopes == ())

            house.logins["home"].scopes = ("read_station",)

            await until(lambda: house.cloud.count("getmeasure") == 3)
            assert house.home.refused == {}
            assert house.home.failing == {}


async def test_an_unknown_target_costs_only_itself(tmp_path: Path) -> None:
    """A module that the cloud does not know is left alone for a day; its neighbours are read."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", GARDEN] = [refusal(404, 9, "Device not found")]
        (problem,) = await house.poller.once()
        house.clock.advance(1800)
        await house.poller.once()

        assert problem.startswith(f"getmeasure|{GARDEN}: ")
        assert house.cloud.count(GARDEN) == 1
        assert house.cloud.count(STATION) == house.cloud.count(RAIN) == 2


async def test_a_refused_module_that_vanished_is_forgotten(tmp_path: Path) -> None:
    """What was wrong with a module is no trouble any more once the module is gone."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", GARDEN] = [refusal(404, 9)]
        await house.poller.once()
        house.cloud.modules = [RAIN]
        for _ in range(4):
            house.clock.advance(9 * 3600)
            await house.poller.once()
        assert GARDEN not in house.home.intake.modules("home")

        await house.poller._fire(f"home|getmeasure|{GARDEN}")

        assert house.home.failing == {}
        assert house.home.refused == {}


async def test_a_used_up_quota_is_waited_for(tmp_path: Path) -> None:
    """After 403 with code 26 nothing is sent for a minute; then polling goes on by itself."""
    async with opened(tmp_path) as house:
        house.cloud.answers["home", "getstationsdata"] = [refusal(403, 26, "User usage reached")]
        (problem,) = await house.poller.once()
        refused_at = house.cloud.calls[-1].at
        assert "nothing is sent for 60 s" in problem

        assert await house.poller.once() == []

        assert house.cloud.calls[1].at >= refused_at + 60
        assert house.log.count("poll.recovered") == 1


async def test_a_new_login_of_the_same_scopes_is_tried_at_once(tmp_path: Path) -> None:
    """What was refused is asked again when somebody has logged in anew; a refresh lifts nothing."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        house.poller._look_at_login(house.home)
        house.home.refused["getstationsdata"] = house.clock.now() + timedelta(days=1)

        house.poller._look_at_login(house.home)
        assert house.home.refused

        house.home.logins = lambda: 1
        house.poller._look_at_login(house.home)
        assert house.home.refused == {}


async def test_a_lost_login_costs_nothing_and_recovers(tmp_path: Path) -> None:
    """Without a login no request leaves and none is counted; a new login is used within seconds."""
    async with opened(tmp_path) as house:
        login = house.logins["home"]
        login.lost = True
        async with house.running():
            await until(lambda: "login" in house.home.failing)
            for _ in range(3):
                await house.poller._fire("home|getstationsdata")
            await until(lambda: login.asked >= 2)
            assert house.cloud.calls == []
            assert house.budget.usage("home").hour == 0

            login.lost = False

            await until(lambda: house.cloud.count("getmeasure") == 3)
            assert house.home.failing == {}
            assert house.log.count("poll.failed") == 1


async def test_a_login_that_the_cloud_refuses_is_not_hammered(tmp_path: Path) -> None:
    """While a login looks fine here and is refused there, polls keep to their cadence."""
    async with opened(tmp_path, check_s=0.001) as house:
        house.cloud.answers["home", "getstationsdata"] = [refusal(403, 3)] * 1000
        async with house.running():
            await until(lambda: "login" in house.home.failing)
            seen = house.poller.progressed
            await until(lambda: house.poller.progressed > seen + 0.2)

        assert house.cloud.count("getstationsdata") <= 4
        assert house.log.count("poll.failed") <= 2


@pytest.mark.parametrize("how", ["mute", "no login", "error"])
async def test_a_dead_account_delays_no_other(how: str, tmp_path: Path) -> None:
    """An account without an answer, without a login, or refused each time costs others nothing."""
    async with opened(tmp_path, fast(), accounts=("home", "other")) as house:
        gate = asyncio.Event()

        async def mute() -> None:
            await gate.wait()

        if how == "no login":
            house.logins["home"].lost = True
        else:
            house.cloud.answers["home", "getstationsdata"] = (
                [mute] if how == "mute" else [httpx.Response(500) for _ in range(1000)]
            )
        async with house.running():
            for endpoint in ("getstationsdata", "getmeasure"):
                await until(lambda: house.cloud.count(endpoint, "other") >= 6)  # noqa: B023
            gate.set()


# --- the spool is full --------------------------------------------------------------------------


async def test_a_full_spool_pauses_polling_until_something_left(tmp_path: Path) -> None:
    """What could not be kept is not asked for; when the store has taken something, polls resume."""
    async with opened(tmp_path, max_bytes=80_000) as house:
        problems = await house.poller.once()
        assert house.poller.room.paused
        assert "max_bytes" in problems[-1]
        asked = len(house.cloud.calls)
        for _ in range(5):
            house.clock.advance(10)
            await house.poller.once()
        assert len(house.cloud.calls) == asked

        await house.settle()
        problems = await house.poller.once()

        assert problems == []
        assert not house.poller.room.paused
        assert house.log.count("spool.full") == house.log.count("spool.room") == 1
        assert house.cloud.count(GARDEN) >= 1


async def test_a_spool_near_its_bound_does_not_flap(tmp_path: Path) -> None:
    """A spool that has room for small answers only is told full once, not at each poll."""
    async with opened(tmp_path, max_bytes=80_000) as house:
        for _ in range(20):
            await house.poller.once()
            house.clock.advance(600)

        assert house.spool.bytes <= 80_000
        assert house.log.count("spool.full") <= 3
        assert len(house.cloud.calls) < 60


async def test_a_full_disk_is_tried_again_by_itself(tmp_path: Path) -> None:
    """When the disk is full of other things, one poll in five minutes finds that it has room."""
    async with opened(tmp_path) as house:
        bound, house.spool.max_bytes = house.spool.max_bytes, 1
        await house.poller.once()
        asked = len(house.cloud.calls)
        house.spool.max_bytes = bound
        await house.poller.once()
        assert len(house.cloud.calls) == asked

        house.clock.advance(300)

        assert await house.poller.once() == []
        assert not house.poller.room.paused


async def test_rows_that_found_no_room_are_asked_for_again(tmp_path: Path) -> None:
    """After a full spool the next read begins where the rows on the spool end: none is missing."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        await house.settle()
        known = house.memory.newest[GARDEN]
        bound, house.spool.max_bytes = house.spool.max_bytes, 1
        house.clock.advance(12 * 3600)
        await house.poller.once()
        assert house.memory.newest[GARDEN] == known

        house.spool.max_bytes = bound
        house.clock.advance(3600)
        await house.poller.once()

        rows = {at.timestamp() for module, at in await house.rows() if module == GARDEN}
        first = known.timestamp()
        last = int(house.cloud.reads(GARDEN)[-1].at)
        assert rows >= set(range(int(first) + 3000, last - 3000, 3000))
        assert first not in rows, "what was on the spool before is not put there again"


# --- modules come and go, the store is replaced, the end ----------------------------------------


async def test_a_vanished_module_is_not_read_any_more(tmp_path: Path) -> None:
    """After a day of answers without it, a module costs no request; when it returns it is read."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        house.cloud.modules = [RAIN]
        for _ in range(4):
            house.clock.advance(9 * 3600)
            await house.poller.once()
        read = house.cloud.count(GARDEN)
        await house.poller._fire(f"home|getmeasure|{GARDEN}")
        house.clock.advance(3600)
        await house.poller.once()
        assert house.cloud.count(GARDEN) == read
        assert f"home|getmeasure|{GARDEN}" not in house.poller._jobs

        house.cloud.modules = [RAIN, GARDEN]
        await house.poller.once()

        assert house.cloud.count(GARDEN) == read + 1
        assert house.log.count("module.vanished") == house.log.count("module.returned") == 1


async def test_a_replaced_store_is_filled_again(tmp_path: Path) -> None:
    """When the store was replaced, each module is read as after a start: 3.5 days back."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        house.clock.advance(1800)

        house.poller.start_over()
        await house.poller.once()

        last = house.cloud.reads(GARDEN)[-1]
        assert last.at - last.begin == pytest.approx(3.5 * DAY, abs=30)


async def test_stopping_lets_the_call_in_flight_end(tmp_path: Path) -> None:
    """After the signal the call that is under way is kept; no further one begins."""
    async with opened(tmp_path) as house:
        gate = asyncio.Event()

        async def slow() -> None:
            await gate.wait()

        house.cloud.answers["home", "getstationsdata"] = [slow]
        task = asyncio.create_task(house.poller.run(house.stop, 10.0))
        await until(lambda: house.cloud.calls)
        house.stop.set()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.wait_for(task, 10)

        assert house.spool.batches == 1
        assert len(house.cloud.calls) == 1


async def test_stopping_does_not_wait_for_a_mute_cloud(tmp_path: Path) -> None:
    """A call without an answer is given up after the grace, and the spool stays sound."""
    async with opened(tmp_path) as house:

        async def mute() -> None:
            await asyncio.Event().wait()

        house.cloud.answers["home", "getstationsdata"] = [mute]
        began = time.monotonic()
        async with house.running():
            await until(lambda: house.cloud.calls)

        assert time.monotonic() - began < 5
        assert house.spool.batches == 0


async def test_progress_is_noted_while_the_scheduler_works(tmp_path: Path) -> None:
    """`progressed` moves while jobs run on time, and stands still when one is long overdue."""
    async with opened(tmp_path) as house, house.running():
        seen = house.poller.progressed
        await until(lambda: house.poller.progressed > seen)

        house.poller._scheduler.pause()
        house.poller._scheduler.modify_job(
            "home|getstationsdata", next_run_time=datetime.now(UTC) - timedelta(minutes=2)
        )
        await until(house.poller._overdue)
        with suppress(TimeoutError):
            await asyncio.wait_for(house.stop.wait(), 0.1)  # several looks
        stuck = house.poller.progressed
        with suppress(TimeoutError):
            await asyncio.wait_for(house.stop.wait(), 0.1)

        assert house.poller.progressed == stuck
