"""The budget: no window is ever fuller than allowed, whoever asks, in whatever order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.limits import HARD_PER_HOUR, Backoff, Budget
from netatmo_ingestd.models import Priority
from tests.clocks import HandClock

Call = tuple[float, str, Priority]


def a_budget(folder: Path, clock: Clock, **changes: Any) -> Budget:
    limits: dict[str, Any] = {"per_hour": 400, "per_10s": 50, "app_per_hour": 2000} | changes
    return Budget(folder, "client-1", clock=clock, **limits)


def the_file(folder: Path, kind: str = "json") -> Path:
    return next(folder.glob(f"*.{kind}"))


def hold(lock: Path) -> subprocess.Popen[bytes]:
    """A process that holds `lock` until it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder


async def settle() -> None:
    """Let every coroutine go on until all of them wait for time."""
    for _ in range(20):
        await asyncio.sleep(0)


def next_wake(clock: HandClock) -> float | None:
    waits = [at for at, future in clock._sleepers if not future.done()]
    return min(waits) - clock.monotonic() if waits else None


async def run_out(clock: HandClock, tasks: Sequence[asyncio.Task[Any]], limit_s: float) -> None:
    """Let time pass from alarm to alarm until all tasks ended or `limit_s` went by."""
    end = clock.monotonic() + limit_s
    await settle()
    while not all(task.done() for task in tasks):
        wait = next_wake(clock)
        if wait is None or clock.monotonic() + wait > end:
            clock.advance(end - clock.monotonic())
            await settle()
            return
        clock.advance(max(wait, 0.0) + 1e-6)  # floats: not a hair before the moment
        await settle()


async def drop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def most_in(times: Iterable[float], window_s: float) -> int:
    """The largest number of `times` in any closed window of `window_s`."""
    ordered = sorted(times)
    most = first = 0
    for last, end in enumerate(ordered):
        while end - ordered[first] > window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


# --- the windows ---------------------------------------------------------------------------------

arrivals = st.lists(
    st.tuples(
        st.floats(0, 400, allow_nan=False),
        st.sampled_from(["anna", "ben", "carla"]),
        st.sampled_from(list(Priority)),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(arrivals)
def test_no_window_is_overdrawn(calls: list[tuple[float, str, Priority, int]]) -> None:
    """For any arrivals of three accounts at two budgets on one file, no window is overdrawn."""

    async def play(folder: Path) -> list[Call]:
        clock = HandClock()
        small: dict[str, Any] = {"per_hour": 12, "per_10s": 3, "app_per_hour": 40, "app_per_10s": 5}
        budgets = [a_budget(folder, clock, **small) for _ in range(2)]
        made: list[Call] = []

        async def one(at: float, account: str, priority: Priority, which: int) -> None:
            await clock.sleep(at)
            await budgets[which].reserve(account, priority)
            made.append((clock.monotonic(), account, priority))

        tasks = [asyncio.create_task(one(*call)) for call in calls]
        await run_out(clock, tasks, 40_000)
        assert all(task.done() for task in tasks), "somebody waits for ever"
        return made

    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(play(Path(folder)))

    assert len(made) == len(calls)
    assert most_in((at for at, _, _ in made), 10) <= 5
    assert most_in((at for at, _, _ in made), 3600) <= 40
    for account in ("anna", "ben", "carla"):
        own = [(at, priority) for at, name, priority in made if name == account]
        assert most_in((at for at, _ in own), 10) <= 3
        assert most_in((at for at, priority in own if priority > Priority.TOKEN), 1) <= 1
        below_live = [(at, priority) for at, priority in own if priority > Priority.LIVE]
        assert most_in((at for at, _ in below_live), 3600) <= 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 60, allow_nan=False), st.sampled_from(list(Priority))),
        min_size=2,
        max_size=25,
    )
)
def test_everybody_is_served_without_overtaking_upwards(
    calls: list[tuple[float, Priority]],
) -> None:
    """Among callers of one account that wait at the same time, none overtakes a higher priority."""

    async def play(folder: Path) -> list[tuple[float, float, Priority]]:
        clock = HandClock()
        budget = a_budget(folder, clock)
        made: list[tuple[float, float, Priority]] = []

        async def one(at: float, priority: Priority) -> None:
            await clock.sleep(at)
            asked = clock.monotonic()
            await budget.reserve("home", priority)
            made.append((clock.monotonic(), asked, priority))

        tasks = [asyncio.create_task(one(*call)) for call in calls]
        await run_out(clock, tasks, 7200)
        return made

    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(play(Path(folder)))

    assert len(made) == len(calls)
    for went, _, priority in made:
        waiting = [other for gone, asked, other in made if asked < went < gone]
        assert all(other >= priority for other in waiting)


async def test_live_goes_up_to_490(tmp_path: Path) -> None:
    """Live calls alone never exceed 490 in an hour, however many ask."""
    clock = HandClock(auto=True)
    budget = a_budget(tmp_path, clock)
    times = []

    for _ in range(1200):
        await budget.reserve("home", Priority.LIVE)
        times.append(clock.monotonic())

    assert most_in(times, 3600) == HARD_PER_HOUR
    assert most_in(times, 1) == 1


async def test_trailing_stops_at_the_target_while_live_goes_on(tmp_path: Path) -> None:
    """At the target trailing reads wait; live and token calls still go."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock, per_hour=20)
    for _ in range(20):
        await asyncio.gather(budget.reserve("home", Priority.TRAILING), _pass(clock, 2))

    trailing = asyncio.create_task(budget.reserve("home", Priority.TRAILING))
    await settle()
    live = await budget.reserve("home", Priority.LIVE)
    token = await budget.reserve("home", Priority.TOKEN)

    assert (live, token) == (0.0, 0.0)
    assert not trailing.done()
    assert budget.usage("home").hour == 22
    await drop([trailing])


async def _pass(clock: HandClock, seconds: float) -> None:
    await settle()
    clock.advance(seconds)


async def test_the_last_calls_of_the_application_are_for_live(tmp_path: Path) -> None:
    """Lower priorities leave 2 % of the application's hour, so they cannot starve live calls."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock, app_per_hour=100, app_per_10s=200)
    lower = [
        asyncio.create_task(budget.reserve(f"home{number}", Priority.TRAILING))
        for number in range(120)
    ]
    await settle()
    gone = sum(task.done() for task in lower)

    live = [await budget.reserve(f"live{number}", Priority.LIVE) for number in range(2)]
    blocked = asyncio.create_task(budget.reserve("live3", Priority.LIVE))
    await settle()

    assert gone == 98
    assert live == [0.0, 0.0]
    assert not blocked.done()
    await drop([blocked, *lower])


async def test_token_calls_ignore_the_pace(tmp_path: Path) -> None:
    """A token call leaves in the same second as a live one, but not above 50 in 10 s."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)

    waits = [await budget.reserve("home", Priority.TOKEN) for _ in range(20)]
    last = asyncio.create_task(budget.reserve("home", Priority.TOKEN))
    await settle()

    assert waits == [0.0] * 20
    assert not last.done()  # 20 in 10 s is what so small an application makes
    await drop([last])


@pytest.mark.parametrize(
    ("accounts", "burst"), [(1, 20), (10, 20), (15, 30), (100, 200), (150, 200)]
)
async def test_burst_of_the_application(tmp_path: Path, accounts: int, burst: int) -> None:
    """Without a number of its own, the application makes 2 calls in 10 s for each account."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.plan({f"home{number}": 1.0 for number in range(accounts)})

    tasks = [
        asyncio.create_task(budget.reserve(f"home{number % accounts}", Priority.TOKEN))
        for number in range(250)
    ]
    await settle()
    gone = sum(task.done() for task in tasks)

    assert gone == burst
    await drop(tasks)


# --- who goes first ------------------------------------------------------------------------------


async def test_waiting_callers_go_by_priority_then_arrival(tmp_path: Path) -> None:
    """When a slot opens, the highest priority takes it; equals go in the order they came."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    await budget.reserve("home", Priority.LIVE)
    order: list[str] = []

    async def one(name: str, priority: Priority) -> None:
        await budget.reserve("home", priority)
        order.append(name)

    tasks = []
    for name, priority in (
        ("history", Priority.HISTORY),
        ("trailing 1", Priority.TRAILING),
        ("events", Priority.EVENTS),
        ("trailing 2", Priority.TRAILING),
        ("live", Priority.LIVE),
    ):
        tasks.append(asyncio.create_task(one(name, priority)))
        await settle()
    await run_out(clock, tasks, 100)

    assert order == ["live", "events", "trailing 1", "trailing 2", "history"]


async def test_waiting_history_never_delays_live(tmp_path: Path) -> None:
    """With a hundred history calls waiting, a live call still leaves at once."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    history = [asyncio.create_task(budget.reserve("home", Priority.HISTORY)) for _ in range(100)]
    await run_out(clock, history, 30.5)

    waited = await budget.reserve("home", Priority.LIVE)

    assert waited == 0.0
    await drop(history)


async def test_one_blocked_account_blocks_no_other(tmp_path: Path) -> None:
    """A live call that waits for its own account lets history of another account pass."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("anna", application=False, retry_after=600)
    anna = asyncio.create_task(budget.reserve("anna", Priority.LIVE))
    await settle()

    waited = await budget.reserve("ben", Priority.HISTORY)

    assert waited == 0.0
    await drop([anna])


async def test_history_is_spaced_evenly_over_what_is_left(tmp_path: Path) -> None:
    """With 40 planned of 400 one call goes each 10 s; of a long idleness 30 s are caught up."""
    clock = HandClock(auto=True)
    budget = a_budget(tmp_path, clock)
    budget.plan({"home": 40.0})
    await budget.reserve("home", Priority.HISTORY)
    clock.advance(100)
    await budget.reserve("home", Priority.REREAD)

    waits = [await budget.reserve("home", Priority.HISTORY) for _ in range(6)]

    assert budget.granted("home") == 360.0
    assert waits == pytest.approx([1, 1, 1, 7, 10, 10], abs=0.01)


async def test_a_late_alarm_costs_history_no_call(tmp_path: Path) -> None:
    """Calls that each leave some seconds late still number what was granted."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.plan({"home": 40.0})
    made = 0

    async def read() -> None:
        nonlocal made
        while True:
            await budget.reserve("home", Priority.HISTORY)
            made += 1

    task = asyncio.create_task(read())
    await settle()
    for _ in range(3600 // 7):
        clock.advance(7.0)  # whatever rang meanwhile rings now
        await settle()
    await drop([task])

    assert made == pytest.approx(360, abs=4)


@pytest.mark.parametrize(
    ("priority", "most"),
    [(Priority.HISTORY, 18), (Priority.REREAD, 18), (Priority.TRAILING, 20), (Priority.EVENTS, 20)],
)
async def test_background_work_leaves_two_calls_of_the_target(
    priority: Priority, most: int, tmp_path: Path
) -> None:
    """In no hour do late re-reads and history take the last two calls of the target."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock, per_hour=20)
    times: list[float] = []

    async def read() -> None:
        while True:
            await budget.reserve("home", priority)
            times.append(clock.monotonic())

    task = asyncio.create_task(read())
    await run_out(clock, [task], 3 * 3600)
    await drop([task])

    assert most_in(times, 3600 - 1) == most


async def test_live_calls_that_found_the_hour_full_are_counted_once(tmp_path: Path) -> None:
    """`held` counts a live call that a full window made wait, not one that waited for its turn."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock, per_10s=5)
    calls = [asyncio.create_task(budget.reserve("home", Priority.LIVE)) for _ in range(5)]
    calls.append(asyncio.create_task(budget.reserve("home", Priority.TRAILING)))
    await settle()
    assert budget.usage("home").held == 0

    await run_out(clock, calls, 4.5)
    calls += [asyncio.create_task(budget.reserve("home", Priority.LIVE)) for _ in range(2)]
    await run_out(clock, calls, 60)

    assert all(call.done() for call in calls)
    assert budget.usage("home").held == 2
    assert budget.usage("other").held == 0


async def test_history_of_all_accounts_shares_the_application(tmp_path: Path) -> None:
    """Ten accounts share what the application has, in turn; 30 s before the first are made good."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    names = [f"home{number}" for number in range(10)]
    budget.plan(dict.fromkeys(names, 10.0))
    made: Counter[str] = Counter()

    async def read(name: str) -> None:
        while True:
            await budget.reserve(name, Priority.HISTORY)
            made[name] += 1

    tasks = [asyncio.create_task(read(name)) for name in names]
    await run_out(clock, tasks, 1800)
    await drop(tasks)

    spacing_s = 3600 / (1960 - 100)
    assert sum(made.values()) == pytest.approx((1800 + 30) / spacing_s, abs=2)
    assert max(made.values()) - min(made.values()) <= 2


async def test_history_waits_while_the_polls_take_everything(tmp_path: Path) -> None:
    """Without anything left history waits, and goes on within a minute when polls are dropped."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.plan({"home": 400.0})
    history = asyncio.create_task(budget.reserve("home", Priority.HISTORY))
    await run_out(clock, [history], 7200)
    before = history.done()

    budget.plan({"home": 100.0})
    await settle()

    assert not before
    assert history.done()


async def test_other_process_changes_are_seen_within_a_minute(tmp_path: Path) -> None:
    """A caller that waits notices what another process changed in the file."""
    clock = HandClock()
    here, there = a_budget(tmp_path, clock), a_budget(tmp_path, clock)
    there.plan({"home": 400.0})
    history = asyncio.create_task(here.reserve("home", Priority.HISTORY))
    await settle()

    there.plan({"home": 10.0})
    await run_out(clock, [history], 61)

    assert history.done()


async def test_waiting_costs_no_busy_loop(tmp_path: Path) -> None:
    """Twenty callers that wait an hour sleep a few times, not thousands of times."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("home", application=False, retry_after=3600)
    tasks = [asyncio.create_task(budget.reserve("home", Priority.LIVE)) for _ in range(20)]

    await run_out(clock, tasks, 3599)

    assert not any(task.done() for task in tasks)
    assert len(clock.slept) <= 61
    await drop(tasks)


async def test_cancelled_caller_leaves_the_queue(tmp_path: Path) -> None:
    """A cancelled caller takes no slot, and the budget sleeps no longer for it."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    await budget.reserve("home", Priority.LIVE)
    task = asyncio.create_task(budget.reserve("home", Priority.LIVE))
    await settle()

    await drop([task])
    await settle()
    asleep = clock.sleepers
    clock.advance(5)
    await settle()

    assert budget.usage("home").hour == 1
    assert asleep == clock.sleepers == 0


async def test_a_defect_reaches_those_who_wait(tmp_path: Path) -> None:
    """An exception inside the alarm ends the waiting call instead of leaving it there for ever."""

    class Broken(HandClock):
        async def sleep(self, seconds: float) -> None:
            raise ZeroDivisionError

    budget = a_budget(tmp_path, Broken())
    await budget.reserve("home", Priority.LIVE)

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(budget.reserve("home", Priority.LIVE), 5)


# --- planning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planned", "stretch"),
    [
        ({}, 1.0),
        ({"home": 20.0}, 1.0),
        ({"home": 400.0}, 1.0),
        ({"home": 600.0}, 1.5),
        ({"anna": 20.0, "ben": 800.0}, 2.0),
        ({f"home{number}": 25.0 for number in range(300)}, 3.75),  # 7,500/h asked, 2,000 allowed
    ],
)
def test_plan_tells_the_stretch(tmp_path: Path, planned: dict[str, float], stretch: float) -> None:
    """Cadences that do not fit an account or the application are stretched: asked / allowed."""
    budget = a_budget(tmp_path, HandClock())

    factor = budget.plan(planned)

    assert factor == pytest.approx(stretch)


async def test_plan_is_shared_and_lapses(tmp_path: Path) -> None:
    """Other commands see the daemon's plan; it lapses an hour after the daemon wrote last."""
    clock = HandClock()
    daemon, command = a_budget(tmp_path, clock), a_budget(tmp_path, clock)
    daemon.plan({"home": 100.0})
    seen = command.granted("home")
    clock.advance(3000)
    await daemon.reserve("home", Priority.LIVE)
    clock.advance(3000)
    kept = command.granted("home")

    clock.advance(700)
    await command.reserve("other", Priority.LIVE)

    assert (seen, kept) == (300.0, 300.0)
    assert a_budget(tmp_path, clock).granted("home") == 400.0
    assert daemon.granted("home") == 300.0


def test_plan_forgets_dropped_accounts(tmp_path: Path) -> None:
    """A plan replaces the earlier one of the same process."""
    budget = a_budget(tmp_path, HandClock())
    budget.plan({"anna": 100.0, "ben": 50.0})

    budget.plan({"ben": 60.0})

    assert budget.usage("anna").planned == 0.0
    assert budget.purse.planned == 60.0


# --- refusals ------------------------------------------------------------------------------------


def test_pauses_double_to_an_hour(tmp_path: Path) -> None:
    """Refusals in a row pause 60 s, 120 s … 3,600 s; a success starts again at 60 s."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    pauses = []
    for _ in range(9):
        pauses.append(budget.refused("home", application=False, retry_after=None))
        clock.advance(pauses[-1] + 1)

    budget.accepted("home")
    again = budget.refused("home", application=False, retry_after=None)

    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert again == 60


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """`Retry-After` sets the pause, kept between a second and a day."""
    clock = HandClock()

    pauses = [
        a_budget(tmp_path / str(told), clock).refused("h", application=False, retry_after=told)
        for told in (0.0, 37.0, 7200.0, 1e12)
    ]

    assert pauses == [1.0, 37.0, 7200.0, 86_400.0]


def test_late_refusals_bring_no_second_lesson(tmp_path: Path) -> None:
    """Refusals of calls that were under way neither double the pause nor lower the target again."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("home", application=False, retry_after=None)
    clock.advance(1)

    left = budget.refused("home", application=False, retry_after=None)
    budget.accepted("home")  # also of before
    clock.advance(60)
    after = budget.refused("home", application=False, retry_after=None)

    assert left == 59.0
    assert after == 120.0


async def test_paused_account_calls_nothing_but_tokens(tmp_path: Path) -> None:
    """During a pause no data call of the account leaves; the first one leaves right after it."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("home", application=False, retry_after=120)
    tasks = [
        asyncio.create_task(budget.reserve("home", priority))
        for priority in Priority
        if priority > Priority.TOKEN
    ]

    await run_out(clock, tasks, 119.9)
    before = [task.done() for task in tasks]
    token = await budget.reserve("home", Priority.TOKEN)
    paused_for = budget.usage("home").paused_for
    await run_out(clock, tasks, 60)

    assert not any(before)
    assert token == 0.0
    assert paused_for == pytest.approx(0.1, abs=0.01)
    assert await tasks[0] == pytest.approx(120.9, abs=1.1)
    await drop(tasks)


@pytest.mark.parametrize(("planned", "targets"), [(20.0, (300, 225)), (350.0, (350, 350))])
def test_refusals_lower_the_target_for_an_hour(
    tmp_path: Path, planned: float, targets: tuple[int, int]
) -> None:
    """Each refusal takes a quarter off the target, never below what is planned, for an hour."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.plan({"home": planned})

    budget.refused("home", application=False, retry_after=None)
    first = budget.usage("home").target
    clock.advance(100)
    budget.refused("home", application=False, retry_after=None)
    second = budget.usage("home").target
    clock.advance(3601)

    assert (first, second) == targets
    assert budget.usage("home").target == 400


def test_application_refusal_stops_all(tmp_path: Path) -> None:
    """A refusal that names the application stops every account and lowers the common target."""
    budget = a_budget(tmp_path, HandClock())

    budget.refused("anna", application=True, retry_after=None)

    assert budget.usage("ben").paused_for == 60
    assert budget.usage("ben").target == 400
    assert budget.usage("ben").app_target == 1500
    assert budget.purse.paused_for == 60


@pytest.mark.parametrize(("unclear", "all_stop"), [(True, True), (False, False)])
def test_second_account_within_the_pause_stops_all(
    tmp_path: Path, unclear: bool, all_stop: bool
) -> None:
    """Two accounts refused without a name given mean the application; with a name they do not."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("anna", application=False, retry_after=None, unclear=unclear)
    first = budget.usage("carla").paused_for
    clock.advance(30)

    budget.refused("ben", application=False, retry_after=None, unclear=unclear)

    assert first == 0
    assert (budget.usage("carla").paused_for > 0) is all_stop


def test_second_account_after_the_pause_stops_itself(tmp_path: Path) -> None:
    """A refusal after the first pause ended is about its own account."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    budget.refused("anna", application=False, retry_after=None)
    clock.advance(61)

    budget.refused("ben", application=False, retry_after=None)

    assert budget.usage("carla").paused_for == 0


def test_pause_is_announced_once(tmp_path: Path) -> None:
    """One log line for a pause: who, for how long, the new target."""
    budget = a_budget(tmp_path, HandClock())

    with structlog.testing.capture_logs() as lines:
        budget.refused("home", application=False, retry_after=None)
        budget.refused("home", application=False, retry_after=None)

    assert lines == [
        {
            "event": "budget.paused",
            "log_level": "warning",
            "account": "home",
            "for_s": 60,
            "target_per_hour": 300,
        }
    ]


# --- on disk -------------------------------------------------------------------------------------


async def test_calls_and_pauses_survive_a_restart(tmp_path: Path) -> None:
    """A budget opened again on the same folder goes on where the last one ended."""
    clock = HandClock()
    before = a_budget(tmp_path, clock)
    for _ in range(10):
        await before.reserve("home", Priority.TOKEN)
    before.refused("home", application=False, retry_after=None)
    clock.advance(1)

    after = a_budget(tmp_path, clock)

    assert after.usage("home") == before.usage("home")
    assert after.usage("home").hour == 10
    assert after.usage("home").paused_for == 59
    clock.advance(60)
    assert after.refused("home", application=False, retry_after=None) == 120


async def test_call_is_on_disk_before_it_is_granted(tmp_path: Path) -> None:
    """When `reserve` returns, another process already counts the call."""
    clock = HandClock()
    budget, other = a_budget(tmp_path, clock), a_budget(tmp_path, clock)

    for number in range(1, 4):
        await budget.reserve("home", Priority.TOKEN)
        assert other.usage("home").hour == number


async def test_client_ids_have_purses_of_their_own(tmp_path: Path) -> None:
    """Calls of one client id are not counted for another; the id stands in no file name."""
    clock = HandClock()
    one = Budget(tmp_path, "id-one", per_hour=9, per_10s=9, app_per_hour=9, clock=clock)
    two = Budget(tmp_path, "id-two", per_hour=9, per_10s=9, app_per_hour=9, clock=clock)

    await one.reserve("home", Priority.LIVE)

    assert (one.purse.hour, two.purse.hour) == (1, 0)
    assert "id-one" not in str(one._purse._path)


async def test_after_a_reboot_old_calls_count_as_recent(tmp_path: Path) -> None:
    """Stamps later than now keep their distances, the newest counting as now, and expire."""
    clock = HandClock()
    clock.advance(1_000_000)
    before = a_budget(tmp_path, clock, per_hour=5)
    for _ in range(5):
        await asyncio.gather(before.reserve("home", Priority.TRAILING), _pass(clock, 100))
    before.refused("other", application=False, retry_after=300)

    rebooted = HandClock()
    budget = a_budget(tmp_path, rebooted, per_hour=5)
    usage, paused_for = budget.usage("home"), budget.usage("other").paused_for
    task = asyncio.create_task(budget.reserve("home", Priority.TRAILING))
    await run_out(rebooted, [task], 4000)

    assert usage.hour == 5
    assert paused_for == pytest.approx(300, abs=1)
    assert task.result() == pytest.approx(3600 - 500, abs=1)


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 100,
        b"",
        b"no json",
        b"[]",
        b'{"at": 1, "entries": {}}',
        b"00000000 {}",
        b'8a1a6a9e {"at":"x","entries":{}}',
    ],
)
async def test_damaged_file_is_told_and_replaced(tmp_path: Path, damage: bytes) -> None:
    """A damaged file costs a log line and what was in it, never a crash."""
    clock = HandClock()
    first = a_budget(tmp_path, clock)
    await first.reserve("home", Priority.LIVE)
    path = the_file(tmp_path)
    path.write_bytes(damage)

    with structlog.testing.capture_logs() as lines:
        fresh = a_budget(tmp_path, clock)
        await fresh.reserve("home", Priority.LIVE)
        await first.reserve("home", Priority.TOKEN)

    assert [line["log_level"] for line in lines] == (["warning"] if damage else [])
    assert a_budget(tmp_path, clock).usage("home").hour == 2


async def test_running_process_outlives_damage(tmp_path: Path) -> None:
    """A process that has counted itself goes on from its own numbers when the file is spoiled."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    for _ in range(5):
        await budget.reserve("home", Priority.TOKEN)
    path = the_file(tmp_path)

    path.write_bytes(b"garbage")
    await budget.reserve("home", Priority.TOKEN)
    path.unlink()
    await budget.reserve("home", Priority.TOKEN)

    assert a_budget(tmp_path, clock).usage("home").hour == 7


async def test_kill_between_the_steps_of_a_save_loses_nothing(tmp_path: Path) -> None:
    """A file that was not given its final name any more is found under the other one."""
    clock = HandClock()
    before = a_budget(tmp_path, clock)
    for _ in range(3):
        await before.reserve("home", Priority.TOKEN)
    path = the_file(tmp_path)
    path.rename(path.with_suffix(".next"))

    after = a_budget(tmp_path, clock)
    seen = after.usage("home").hour
    await after.reserve("home", Priority.TOKEN)

    assert seen == 3
    assert a_budget(tmp_path, clock).usage("home").hour == 4
    assert not path.with_suffix(".next").exists()


async def test_unwritable_folder_costs_only_the_sharing(tmp_path: Path) -> None:
    """When the file cannot be kept the process counts alone, keeps its limits and says so."""
    blocked = tmp_path / "budget"
    blocked.write_text("a file where the folder should be")
    clock = HandClock(auto=True)
    budget = a_budget(blocked, clock)

    times = []
    for _ in range(30):
        await budget.reserve("home", Priority.LIVE)
        times.append(clock.monotonic())

    assert most_in(times, 1) == 1
    assert str(blocked) in budget.usage("home").error


async def test_short_write_keeps_the_old_file(tmp_path: Path) -> None:
    """A disk that takes half of the new file leaves the old one whole."""
    clock = HandClock()
    budget = a_budget(tmp_path, clock)
    await budget.reserve("home", Priority.LIVE)
    write, path = os.write, the_file(tmp_path)
    whole = path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
        await budget.reserve("home", Priority.TOKEN)
        error = budget.usage("home").error

    assert "No space left" in error
    assert path.read_bytes() == whole
    await budget.reserve("home", Priority.TOKEN)
    assert budget.usage("home").error == ""
    assert a_budget(tmp_path, clock).usage("home").hour == 3


async def test_file_stays_small(tmp_path: Path) -> None:
    """After two days of calls at full pace the file holds the last hour and no more."""
    clock = HandClock(auto=True)
    budget = a_budget(tmp_path, clock)

    for number in range(1500):
        clock.advance(43)
        await budget.reserve(f"home{number // 20}", Priority.LIVE)

    path = the_file(tmp_path)
    assert path.stat().st_size < 3000
    assert len(json.loads(path.read_bytes().partition(b" ")[2])["entries"]) <= 6


HOLDER = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_frozen_process_does_not_stop_the_others(tmp_path: Path) -> None:
    """A lock that somebody never gives back delays a call by a moment, not for ever."""
    budget = a_budget(tmp_path, HandClock())
    await budget.reserve("home", Priority.TOKEN)
    holder = hold(the_file(tmp_path, "lock"))
    try:
        started = time.monotonic()

        await budget.reserve("home", Priority.TOKEN)

        assert time.monotonic() - started < 5
        assert budget.usage("home").hour == 2
    finally:
        with suppress(ProcessLookupError):
            holder.kill()
        holder.communicate()


CHILD = """
import asyncio, sys
from pathlib import Path
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Priority

async def main(folder, account, count):
    limits = {"per_hour": 400, "per_10s": 10, "app_per_hour": 2000, "app_per_10s": 15}
    budget = Budget(Path(folder), "client-1", clock=Clock(speed=500.0), **limits)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(count)):
        await budget.reserve(account, Priority.LIVE)

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_processes_share_one_purse(tmp_path: Path) -> None:
    """Two real processes that spend at once lose no call and overdraw no window together."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), account, "80"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        for account in ("anna", "ben", "ben")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:  # all of them, before the first one is waited for
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)

    budget = a_budget(tmp_path, Clock(speed=500.0))
    budget.usage("anna")
    calls = {name: entry.calls for name, entry in budget._purse.entries.items()}

    assert [child.returncode for child in children] == [0, 0, 0]
    assert {name: len(each) for name, each in calls.items() if each} == {"anna": 80, "ben": 160}
    assert most_in([*calls["anna"], *calls["ben"]], 10_000) <= 15
    assert all(most_in(each, 10_000) <= 10 for each in calls.values())
    assert all(most_in(each, 1_000) <= 1 for each in calls.values())


# --- backoff -------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_backoff_stays_within_its_bounds(seed: int, count: int) -> None:
    """Each wait lies between half the doubled one and the doubled one, never above the most."""
    backoff = Backoff(0.2, 15.0, rng=random.Random(seed))

    waits = [backoff.next() for _ in range(count)]

    for number, wait in enumerate(waits):
        full = min(15.0, 0.2 * 2**number)
        assert full / 2 <= wait <= full
    assert backoff.failures == count


def test_backoff_starts_again_after_a_success() -> None:
    """`reset` forgets the failures; without jitter the waits are the doubled ones."""
    backoff = Backoff(1.0, 8.0, rng=random.Random(0), jitter=0.0)

    first = [backoff.next() for _ in range(6)]
    backoff.reset()

    assert first == [1, 2, 4, 8, 8, 8]
    assert (backoff.failures, backoff.next()) == (0, 1.0)


# --- a quota of the day ---------------------------------------------------------------------------


async def test_a_day_holds_no_more_than_its_quota(tmp_path: Path) -> None:
    """Of calls that are always wanted no 24 h hold more than 60 of one account; tokens go through.

    Another account has its own, and a restart counts what was made before.
    """
    clock, made = HandClock(), []
    budget = a_budget(tmp_path, clock, per_day=60)

    async def call(name: str, count: int, one: Budget) -> None:
        for _ in range(count):
            await one.reserve(name, Priority.LIVE)
            made.append((clock.monotonic(), name))

    first = asyncio.create_task(call("a", 50, budget))
    await run_out(clock, [first], 3600)
    budget = a_budget(tmp_path, clock, per_day=60)
    rest = asyncio.create_task(call("a", 40, budget))
    await run_out(clock, [rest], 3600)
    assert len(made) == 60
    assert (budget.usage("a").day, budget.usage("a").per_day) == (60, 60)

    token = asyncio.create_task(budget.reserve("a", Priority.TOKEN))
    other = asyncio.create_task(call("b", 5, budget))
    await run_out(clock, [token, other], 60)
    assert token.done()
    assert other.done()

    await run_out(clock, [rest], 3 * 86_400)
    assert rest.done()
    mine = [at for at, name in made if name == "a"]
    assert len(mine) == 90
    assert most_in(mine, 86_400 - 1) <= 60


async def test_polls_are_spread_over_the_day(tmp_path: Path) -> None:
    """Cadences are stretched to what the quota leaves beside token calls and follow-up calls."""
    budget = a_budget(tmp_path, HandClock(), per_day=450)

    assert budget.plan({"a": 10.0}) == 1.0
    assert budget.spare("a") == 450 - 30 - 240
    assert budget.plan({"a": 17.5}) == 1.0
    assert budget.spare("a") == 0
    assert budget.plan({"a": 35.0, "b": 1.0}) == pytest.approx(2.0)
    assert a_budget(tmp_path / "other", HandClock()).plan({"a": 35.0}) == 1.0
