"""The historian when calls fail or settle nothing, and when it is to end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from typing import cast

import pytest

from netatmo_ingestd import history
from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.history import ASIDE, ASIDE_MOST, HELD, LOOK_S
from netatmo_ingestd.models import Priority
from tests.historians import DAY, NOW, SETUP, a_house, coverage, whole
from tests.stores import until


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who has nothing to do looks again at once: what counts here is how often he asks."""
    monkeypatch.setattr(history, "LEAST_LOOK_S", 0.001)


async def test_failures_are_waited_for_longer_and_longer() -> None:
    """Each failure doubles the wait up to a quarter of an hour; an answer begins anew."""
    house = a_house("a")
    house.home.down = True
    async with house.running():
        await until(lambda: len(house.home.calls) >= 10)
        waits = house.clock.waits[:10]
        house.home.down = False
        await until(lambda: house.log.events[-1][0] == "history.filled")
        house.home.down = True
        seen = len(house.clock.waits)
        house.clock.advance(2 * 86_400)
        await until(lambda: any(each != LOOK_S for each in house.clock.waits[seen:]))

    longest = [min(900.0, 5.0 * 2**number) for number in range(10)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    again = next(each for each in house.clock.waits[seen:] if each != LOOK_S)
    assert 2.5 <= again <= 5.0


async def test_a_call_that_fails_by_itself_holds_up_no_other() -> None:
    """A module that cannot be read waits a quarter of an hour each time; the others are filled."""
    house = a_house("a", "b")
    house.ledger.load([coverage("home-a", reread=(NOW - 2 * DAY, NOW))])
    house.home.fails = {"home-a"}
    async with house.running():
        await until(lambda: house.state("b").requests() == 0)
        await house.looked()
        tried = Counter((each.entity_id, each.scale, each.endpoint.priority)
                        for each in house.home.calls if each.entity_id == "home-a")  # fmt: skip
        assert set(tried.values()) == {1}
        assert all(name != "history.filled" for name, _ in house.log.events)

        house.clock.advance(HELD.total_seconds())

        await until(lambda: len(house.home.asked(Priority.REREAD)) == 2)


async def test_a_call_that_settles_nothing_is_set_aside() -> None:
    """A day, then twice as long each time, a month at most; it is repeated for ever, but seldom."""
    house = a_house("a")
    fine, days = whole("home-a")
    pieces = ((SETUP, NOW - 20 * DAY), (NOW - 19 * DAY, NOW))
    house.ledger.forget()
    house.ledger.load([replace(fine, covered=pieces, reread=()), replace(days, reread=())])
    house.home.mute = True
    async with house.running():
        for _ in range(200):
            await house.looked(2)
            house.clock.advance(86_400)

    waits = [(two - one) // DAY for one, two in itertools.pairwise(house.home.at)]
    assert ASIDE == DAY
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert set(waits[5:]) == {ASIDE_MOST // DAY}
    assert len(waits) == 5 + (200 - 31) // 30


async def test_a_full_spool_is_no_failure() -> None:
    """While history has no room nothing is asked, and afterwards there is nothing to wait for."""
    house = a_house("a")
    house.home.has_room = False
    async with house.running():
        await house.looked()
        assert house.home.calls == []

        house.home.has_room = True

        await until(lambda: house.log.events[-1][0] == "history.filled")
    assert set(house.clock.waits) <= {0.0, LOOK_S}


async def test_what_the_cloud_refuses_is_not_asked() -> None:
    """Not even when nothing else is missing; it is told that some is left."""
    house = a_house("a", "b")
    house.home.refused = {"home-a"}
    async with house.running():
        await until(lambda: house.log.events and house.log.events[-1][0] == "history.blocked")

    assert set(house.home.asked(Priority.HISTORY)) == {"home-b"}
    assert house.log.events[-1][1]["requests"] > 0


# --- the end --------------------------------------------------------------------------------------


async def test_stopping_lets_the_call_in_flight_end() -> None:
    """After the signal an answer that is under way is taken; no further call begins."""
    house = a_house("a")
    house.home.gate.clear()
    task = asyncio.create_task(house.historian.run(house.stop, 10.0))
    await until(lambda: house.home.calls)

    house.stop.set()
    await asyncio.sleep(0)
    house.home.gate.set()
    await asyncio.wait_for(task, 5)

    assert len(house.home.calls) == 1
    assert house.ledger.find("home-a", "1day") is not None


@pytest.mark.parametrize("how", ["grace", "hurry"])
async def test_stopping_waits_for_no_mute_cloud(how: str) -> None:
    """However many accounts wait for an answer, all end with one grace, or at once when hurried."""
    house = a_house("a", accounts=[f"home{number}" for number in range(20)])
    for each in house.accounts.values():
        each.gate.clear()
    grace_s = 0.2 if how == "grace" else 60.0
    task = asyncio.create_task(house.historian.run(house.stop, grace_s, house.hurry))
    await until(lambda: all(each.in_flight for each in house.accounts.values()))

    house.stop.set()
    if how == "hurry":
        house.hurry.set()
    await asyncio.wait_for(task, 2)

    assert all(each.in_flight == 0 for each in house.accounts.values())


async def test_progress_tells_what_may_be_asked() -> None:
    """Of a module that is refused the rest is told, and that it cannot be had now."""
    house = a_house("a", "b", "c")
    house.home.refused = {"home-b"}
    async with house.running():
        await until(lambda: house.log.events and house.log.events[-1][0] == "history.blocked")

    progress = house.historian.progress(cast("AccountPolls", house.home), 12.0)
    assert [progress[f"home-{each}"]["covered"] for each in "ac"] == [1.0, 1.0]
    assert progress["home-a"] == {
        "since": SETUP.isoformat(timespec="seconds"),
        "covered": 1.0,
        "rows": 0,
        "requests": 0,
        "eta_s": 0,
        "asked": False,
    }
    assert progress["home-b"]["requests"] > 0
    assert progress["home-b"]["eta_s"] == progress["home-b"]["requests"] * 300
    assert progress["home-b"]["asked"] is False
