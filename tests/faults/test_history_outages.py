"""Outages, silent and replaced modules, corrected values: history closes every hole by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.house import House, opened, tell, until
from tests.faults.past import DAY, Call, differences, filled, holes, journal, repeated
from tests.stores import embedded_store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

HOUR = 3600.0
ALL = {"since": "all"}
SELDOM = {"weather": "1h", "trailing": "3h"}  # so that a month passes in minutes
SPEED = 16_000


def pass_time(house: House, seconds: float) -> None:
    """Let so much of the simulated time go by."""
    goal = house.now + seconds
    while house.now < goal:
        time.sleep(min(0.5, max(0.01, (goal - house.now) / house.cloud.clock.speed)))


async def test_outages_in_the_middle_of_history(tmp_path: Path) -> None:
    """Network, store, daemon and station are away in turn, the cloud fails: nothing is missing."""
    names = {"include": ["Living room", "Garden"]}
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(
            tmp_path, speed=SPEED, days=20, uri=store.uri, history=ALL, poll=SELDOM, account=names
        ) as house:
            house.start()
            until(lambda: journal(house, "history"), within=60, what="history began", house=house)
            begun = house.now
            # The cloud answers 5xx half of the time.
            house.cloud.arm("http", probability=0.5, seconds=2 * DAY)
            pass_time(house, 2 * DAY)
            # No network for six hours.
            house.cloud.arm("cut", after=0, seconds=6 * HOUR)
            pass_time(house, 12 * HOUR)
            # No store for a day.
            await store.stop()
            pass_time(house, DAY)
            await store.restart()
            # No daemon for three days.
            assert house.stop() == 0
            pass_time(house, 3 * DAY)
            house.start()
            pass_time(house, DAY)
            # The station is offline for three weeks, and uploads everything afterwards.
            station = house.cloud.world.modules()[0].station
            silent = house.now
            house.cloud.arm("offline", module=station, begin=silent, end=silent + 21 * DAY)
            pass_time(house, 22 * DAY)
            house.settle(within=120)
            filled(house, within=120)
            pass_time(house, 2 * DAY)  # what was empty once is asked again
            filled(house, within=120)

            calls, gaps = journal(house, "history"), holes(house)
            end = house.settle(within=120)
            wrong = {
                module: found
                for module in house.modules()
                if (found := differences(house, module, 0, end))
            }
    tell(f"{len(calls)} calls of history over {(end - begun) / DAY:.0f} days: {_told(calls)}")
    assert not wrong
    assert not gaps
    assert not repeated(calls)
    away = [call for call in calls if silent - HOUR <= (call["begin"] or 0) and call["at"] > silent]
    assert len(away) >= 2, "the three weeks are asked by history"


def test_modules_that_are_silent_gone_or_new(tmp_path: Path) -> None:
    """A gap of two years, a module that never spoke, one removed, one replaced: all rest."""
    names = {"include": ["Garden", "Roof wind", "Rain", "Bedroom"]}
    poll = {"weather": "2h", "trailing": "6h"}
    with opened(tmp_path, speed=22_000, days=790, history=ALL, poll=poll, account=names) as house:
        world, now = house.cloud.world, house.now
        garden, wind, rain, bedroom = (
            next(each for each in world.modules() if each.name == name)
            for name in ("Garden", "Roof wind", "Rain", "Bedroom")
        )
        house.cloud.arm("gap", module=garden.id, begin=now - 760 * DAY, end=now - 20 * DAY)
        house.cloud.arm("gap", module=wind.id)
        for module in (rain, bedroom):
            house.cloud.arm("gap", module=module.id, end=now - 20 * DAY)
        house.start()
        until(lambda: journal(house, "history"), within=60, what="history began", house=house)
        filled(house, within=200)
        house.cloud.arm("vanished", module=rain.id)
        replaced_at = house.now
        house.cloud.arm("replaced", module=bedroom.id, at=replaced_at)
        heir = world.successor(bedroom, replaced_at)
        pass_time(house, 8 * DAY)
        resting = house.now
        pass_time(house, 35 * DAY)

        calls = [call for call in journal(house) if call["endpoint"] == "getmeasure"]
        later = {
            module.name if module is not heir else "heir": [
                call for call in calls if call["module"] == module.id and call["at"] > resting
            ]
            for module in (garden, wind, rain, bedroom, heir)
        }
        gaps = holes(house)
        end = house.settle(within=120, modules=[garden.id, heir.id])
        wrong = {
            module.name: found
            for module, begin in ((garden, 0.0), (heir, replaced_at))
            if (found := differences(house, module.id, begin, end))
        }
        coverage = house.coverage()
        with house.database() as database:
            days = database["summaries"].count_documents({"module_id": heir.id})
    history = {name: _told(found) for name, found in later.items()}
    tell(f"calls in 35 days of rest: {history}; jumped over two years: {_jumps(calls, garden.id)}")
    assert not wrong
    assert not gaps
    assert len(later["Roof wind"]) <= 2, "a silent module costs at most one call a month"
    assert not later["Rain"]
    assert not later["Bedroom"]
    assert not [call for found in later.values() for call in found if call["purpose"] == "history"]
    assert coverage[garden.id]["confirmed"], "the empty years are final"
    assert _jumps(calls, garden.id) <= 6
    assert coverage[heir.id]["newest"].timestamp() > resting
    assert days >= 35, "the new module has its day rows"


def test_values_corrected_two_weeks_later(tmp_path: Path) -> None:
    """Values that the cloud corrects when they are 14 days old end up corrected, and counted."""
    names = {"include": ["Garden"]}
    with opened(tmp_path, speed=20_000, days=3, history=ALL, poll=SELDOM, account=names) as house:
        begin = house.now + DAY
        garden = house.modules()[0]
        house.cloud.arm(
            "revised", module=garden, begin=begin, end=begin + 2 * DAY, after_s=13.9 * DAY
        )
        house.start()
        pass_time(house, 26 * DAY)
        end = house.settle(within=120)
        filled(house, within=60)

        wrong = differences(house, garden, begin, end)
        store = house.status()["store"]
        rows = len(house.cloud.world.samples(garden, begin, begin + 2 * DAY - 1))
    tell(f"{store['revised']} rows counted as revised, {rows} were corrected")
    assert not wrong
    assert store["revised"] == rows


def _told(calls: list[Call]) -> dict[str, int]:
    found: dict[str, int] = {}
    for call in calls:
        name = f"{call['purpose']} {call['scale']}"
        found[name] = found.get(name, 0) + 1
    return found


def _jumps(calls: list[Call], module: str) -> int:
    """Calls whose first row lies over a month behind the begin that was asked."""
    return sum(
        call["module"] == module
        and call["scale"] == "max"
        and call["first"] is not None
        and call["first"] - call["begin"] > 30 * DAY
        for call in calls
    )
