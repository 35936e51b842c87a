"""Two product lines under one login, as real processes: both are complete, whatever is killed."""

from __future__ import annotations

import json
import random
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.faults.house import House, invariant, opened, tell, until
from tests.faults.past import DAY, differences, filled, journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

COACH = ("--coaches", "1")
BOTH = {"products": ["weather", "aircare"], "include": ["Garden", "Nursery"]}
KILLS = 8


def coach_of(house: House) -> str:
    return next(iter(house.cloud.world.coaches))


def test_a_monitor_is_complete_whatever_is_killed(tmp_path: Path) -> None:
    """Its past and its present are stored once, with day rows, and the index of each dashboard."""
    chance = random.Random(8)
    with opened(
        tmp_path, speed=60, days=100, cloud_flags=COACH, account=BOTH, history={"since": "all"}
    ) as house:
        for _ in range(KILLS):
            house.start()
            goal = len(journal(house, "history")) + chance.randint(1, 5)
            until(
                lambda: len(journal(house, "history")) >= goal,  # noqa: B023
                within=60,
                what="history goes on",
                house=house,
            )
            house.kill()
        house.start()
        filled(house, within=120)

        coach, end = coach_of(house), house.now - DAY / 24
        wrong = {each: differences(house, each, 0, end) for each in house.modules()}
        with house.database() as database:
            days = database["summaries"].count_documents({"module_id": coach})
            told = list(
                database["measurements"].find(
                    {"module_id": coach, "values.health_index": {"$exists": True}}
                )
            )
            (monitor,) = database["modules"].find({"_id": coach})
        shown = dict(house.cloud.world.samples(coach, 0, house.now))
    tell(f"{days} day rows, {len(told)} rows with an index; {wrong}")
    assert coach in wrong
    assert len(wrong) == 2
    assert not any(wrong.values())
    assert days >= 98
    assert told
    for row in told:
        sample = shown[int(row["time"].timestamp())]
        assert row["values"]["health_index"] == float(sample["health_idx"])
    assert (monitor["type"], monitor["name"], monitor["reachable"]) == ("NHC", "Nursery", True)


def test_a_scope_that_is_missing_leaves_the_other_line_alone(tmp_path: Path) -> None:
    """Without read_homecoach stations are read as ever; a login that has it brings the monitor."""
    with opened(tmp_path, speed=600, days=2, cloud_flags=COACH, account=BOTH, login=False) as house:
        house.login(token=weather_alone(house))
        house.start()
        coach = coach_of(house)
        (garden,) = set(house.modules()) - {coach}
        until(
            lambda: garden in house.coverage(),
            within=60,
            what="the station's module is stored",
            house=house,
        )
        until(
            lambda: any("gethomecoachsdata" in each for each in house.status()["troubles"]),
            within=30,
            what="the status names what is refused",
            house=house,
        )
        refused = house.cloud.stats()["by_endpoint"]["gethomecoachsdata"]
        assert coach not in house.coverage()

        house.login()

        house.mark()
        compared = invariant(house)
        assert coach in house.coverage()
        told = [event["what"] for event in house.events("poll.refused")]
    tell(f"{compared.expected} rows; refused: {told}")
    assert told == ["gethomecoachsdata"]
    assert refused == 1


def weather_alone(house: House) -> str:
    """A refresh token of a login without the scope of the monitors."""
    house.cloud.ask("POST", "settings", {"password_grant": True})
    first = house.cloud.accounts[0]
    form = {"grant_type": "password", "scope": "read_station", "username": first["user"]}
    form |= {name: first[name] for name in ("password", "client_id", "client_secret")}
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"{house.cloud.url}/oauth2/token", data, timeout=30) as answer:
        return str(json.load(answer)["refresh_token"])
