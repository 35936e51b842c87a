"""The historian: who is asked what, in which order, and what is not asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netatmo_ingestd import history
from netatmo_ingestd.history import LOOK_S
from netatmo_ingestd.models import Priority
from tests.historians import DAY, NOW, SETUP, a_house, coverage, module
from tests.stores import until


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who has nothing to do looks again at once: what counts here is how often he asks."""
    monkeypatch.setattr(history, "LEAST_LOOK_S", 0.001)


async def test_everything_is_filled_and_then_nothing_is_asked() -> None:
    """Day rows first, then the finest; when nothing is missing the account is left alone."""
    house = a_house("a", "b")
    async with house.running():
        await until(lambda: ("history.filled", {"account": "home"}) in house.log.events)
        asked = len(house.home.calls)
        await house.looked()

    scales = [each.scale for each in house.home.calls]
    assert scales == ["1day"] * 2 + ["max"] * (asked - 2)
    assert asked == 2 + 2 * 8  # 39 days, 5 days a page
    for state in (house.state("a"), house.state("b")):
        assert (state.share(), state.requests(), state.missing()) == (1.0, 0, ())
        assert state.begin == SETUP
    begun = ("history.begun", {"account": "home", "modules": 2, "requests": 2 * (1 + 12)})
    assert house.log.events == [begun, ("history.filled", {"account": "home"})]
    assert set(house.clock.waits) == {LOOK_S}


async def test_nothing_is_asked_before_the_ledger_was_read() -> None:
    """What is missing is known only when the store has said what it holds."""
    house = a_house("a", loaded=False)
    house.ledger.note([])
    house.ledger.absorb([coverage("home-a")])
    async with house.running():
        await house.looked()
        assert house.home.calls == []

        house.ledger.load([])

        await until(lambda: house.home.calls)


async def test_modules_take_turns() -> None:
    """While several modules miss rows, no one is asked twice before each other was once."""
    house = a_house("a", "b", "c")
    async with house.running():
        await until(lambda: len(house.home.asked(Priority.HISTORY)) >= 18)

    order = house.home.asked(Priority.HISTORY)[:18]
    assert all(len(set(order[turn : turn + 3])) == 3 for turn in range(0, 18, 3))


async def test_late_rereads_go_before_history() -> None:
    """Of what is due, no history call precedes a late re-read."""
    house = a_house("a", "b")
    house.ledger.load([coverage("home-b", reread=(NOW - 2 * DAY, NOW))])
    async with house.running():
        await until(lambda: len(house.home.calls) >= 4)

    assert [each.endpoint.priority for each in house.home.calls[:2]] == [
        Priority.REREAD,
        Priority.HISTORY,
    ]
    assert house.home.calls[0].entity_id == "home-b"


async def test_the_pages_of_a_reread_follow_each_other() -> None:
    """A walk over several pages is not interrupted, and its last page ends it."""
    house = a_house("a", "b")
    known = coverage("home-a", SETUP, reread=(NOW, NOW - 8 * DAY))
    house.ledger.load([known, replace(known, entity_id="home-b")])
    async with house.running():
        await until(lambda: len(house.home.asked(Priority.REREAD)) == 10)
        await until(lambda: len(house.home.calls) > 10)

    order = house.home.asked(Priority.REREAD)
    assert order == [order[0]] * 5 + [order[5]] * 5  # 22 days
    assert set(order) == {"home-a", "home-b"}
    assert {each.walked for each in house.home.calls[:10]} == {NOW - 22 * DAY}
    for name in order:
        found = house.ledger.find(name, "max")
        assert found is not None
        assert found.reread == (NOW, NOW)


async def test_one_call_at_a_time_for_each_account() -> None:
    """An account that waits for its answer makes no second call, and delays no other account."""
    house = a_house("a", "b", accounts=("home", "other"))
    house.home.gate.clear()
    async with house.running():
        await until(lambda: len(house.accounts["other"].calls) >= 10)
        assert len(house.home.calls) == 1

        house.home.gate.set()

        await until(lambda: len(house.home.calls) >= 10)
    assert [each.most_in_flight for each in house.accounts.values()] == [1, 1]


async def test_whose_history_is_read() -> None:
    """Neither what another account owns, nor what has no history, nor others than were named."""
    house = a_house("a", "b", "c", "d")
    house.ledger.load([replace(coverage("home-a"), owner="other")])
    house.home.entities["home-b"] = replace(module("home-b"), type="NAUnknown")
    house.historian.only = {"The home-c", "home-a", "home-b"}
    async with house.running():
        await house.looked()

    assert set(house.home.asked(Priority.HISTORY)) == {"home-c"}


async def test_since_never_asks_for_no_past() -> None:
    """Only the day rows of what is there are asked for."""
    house = a_house("a", since="never")
    async with house.running():
        await house.looked()

    assert [(each.scale, each.begin) for each in house.home.calls] == [
        ("1day", (NOW - DAY).replace(hour=0))
    ]
