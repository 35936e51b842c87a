"""History is complete, within its budget, with hardly a call too many, whatever is killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.house import opened, tell, until
from tests.faults.past import DAY, differences, filled, holes, journal, least_calls, left, repeated

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

ALL = {"since": "all"}
KILLS = 30


def test_sixty_days_of_seven_modules(tmp_path: Path) -> None:
    """All of 60 days arrive with hardly a call too many, at the rate that is granted."""
    with opened(tmp_path, speed=8, days=60, history=ALL) as house:
        house.start()
        filled(house, within=400)

        stats, calls = house.cloud.stats(), journal(house, "history")
        budget = house.status()["accounts"]["home1"]["budget"]
        modules = house.modules()
        least = least_calls(house, modules)
        end = house.now - DAY / 24
        wrong = {
            module: found for module in modules if (found := differences(house, module, 0, end))
        }
        with house.database() as database:
            days = database["summaries"].count_documents({})
    hours = (calls[-1]["at"] - calls[0]["at"]) / 3600
    used = (len(calls) - 1) / hours / budget["granted"]
    tell(
        f"{len(calls)} calls of history, the least is {least}; {used:.1%} of the granted "
        f"{budget['granted']:g} an hour used; {stats['by_purpose']}; refused {stats['refused']}; "
        f"{days} day rows"
    )
    assert not wrong
    assert len(calls) <= least + max(0.02 * least, len(modules))
    assert used >= 0.98
    assert stats["over_limit"] == 0
    assert budget["held"] == 0
    assert not repeated(calls)
    assert 7 * 58 <= days <= 7 * 60


def test_killed_thirty_times(tmp_path: Path) -> None:
    """Thirty SIGKILLs on the way cost at most one more call of history each, and no row."""
    names = {"include": ["Garden", "Rain"]}
    chance = random.Random(4)
    # A kill between a refresh and its answer may cost the login, which other tests are about.
    flags = ("--rotation", "grace:36000")
    with opened(
        tmp_path, speed=60, days=200, history=ALL, account=names, cloud_flags=flags
    ) as house:
        for _ in range(KILLS):
            house.start()
            seen = len(journal(house, "history"))
            goal = seen + chance.randint(1, 3)
            until(
                lambda: len(journal(house, "history")) >= goal,  # noqa: B023
                within=60,
                what="history goes on",
                house=house,
            )
            house.kill()
        house.start()
        assert left(house) != 0
        filled(house, within=300)

        calls, modules = journal(house, "history"), house.modules()
        least = least_calls(house, modules)
        end = house.now - DAY / 24
        wrong = {
            module: found for module in modules if (found := differences(house, module, 0, end))
        }
        gaps = holes(house)
    again = sum(count - 1 for count in repeated(calls).values())
    tell(f"{len(calls)} calls of history, the least is {least}; {again} were repeated")
    assert not wrong
    assert not gaps
    assert again <= KILLS
    assert len(calls) <= least + max(0.02 * least, len(modules)) + KILLS
