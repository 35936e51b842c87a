"""A home with every product line, for a week: what is stored is what was served.

NETATMO_INGESTD_TEST_DAYS=30 makes the week longer: the long form, for half an hour and more.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.household import Household
from tests.faults.house import House, opened, tell, until
from tests.faults.lives import (
    POLL_S,
    live_rows,
    stamps,
    states_of,
    wrong_events,
    wrong_live,
    wrong_states,
)
from tests.faults.past import DAY, Call, differences, journal

DAYS = int(os.environ.get("NETATMO_INGESTD_TEST_DAYS", "7"))
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900 * max(1, DAYS // 7))]

HOUR = 3600.0
PAGES = 8
chance = random.Random(5)
ALL_LINES = {"products": ["weather", "aircare", "energy", "security", "control"]}
PICTURES = {"pictures": True, "picture_hosts": ["127.0.0.1"]}
SCENARIO = """
[[homes]]
valves = 5
cameras = 3
meters = 20
"""


def scenario(folder: Path) -> tuple[str, ...]:
    file = folder / "scenario.toml"
    file.write_text(SCENARIO)
    return ("--scenario", str(file), "--coaches", "1")


def polls(house: House, device: str) -> list[int]:
    """The times of all answers of homestatus that are stored."""
    return sorted(live_rows(house, device))


def test_a_week_of_every_line(tmp_path: Path) -> None:
    """States, live rows, events, pictures and history of these days equal what was served."""
    with opened(
        tmp_path,
        speed=1_600,
        days=10,
        cloud_flags=scenario(tmp_path),
        account=ALL_LINES,
        security=PICTURES,
        poll={"status": "20m"},  # at such a speed more is too much for two busy cores
    ) as house:
        household, thermostat, begun = moved_in(house)
        long = 60 * DAYS
        until(lambda: house.now > begun + DAYS * DAY, within=long, what="they have passed", every=1)
        house.settle(within=120)
        asked = [call for call in journal(house) if call["endpoint"] == "homestatus"]
        times = polls(house, thermostat)
        end = times[-1]

        states = wrong_states(house, household, times)
        live = wrong_live(house, household, times)
        events = wrong_events(house, household, begun, end - 2 * HOUR)
        named = {each.name: each.id for each in house.cloud.world.modules()}
        rows = {
            name: found
            for name, module in (
                ("Thermostat", thermostat),
                ("Garden", named["Garden"]),
                ("Nursery", named["Nursery"]),
            )
            if (found := differences(house, module, begun, end - 2 * HOUR))
        }
    tell(f"{len(times)} answers of homestatus in {(end - times[0]) / DAY:.1f} days")
    assert not states, (len(states), states[:5])
    assert not events, (len(events), events[:5])
    assert not rows
    assert not live, (len(live), live[:5])
    answered = [call for call in asked if call["status"] == 200 and call["at"] < end + 1]
    # The journal of the simulator goes back some weeks.
    assert len(answered) == sum(each >= asked[0]["at"] - 1 for each in times)


def test_a_day_at_default_cadences(tmp_path: Path) -> None:
    """A whole home costs 90 calls an hour at most, and 300 states a day; the heating is right."""
    with opened(
        tmp_path, speed=700, days=5, cloud_flags=scenario(tmp_path), account=ALL_LINES
    ) as house:
        household, thermostat, begun = moved_in(house)
        until(lambda: house.now > begun + 1.2 * DAY, within=300, what="a day has passed", every=1)
        calls = [call for call in journal(house) if begun + DAY / 6 <= call["at"] < begun + DAY]
        tokens = house.cloud.refreshes()
        times = polls(house, thermostat)
        begin, end = times[0], times[0] + DAY
        burnt = sum(
            max(0.0, min(last, end) - max(first, begin))
            for each in states_of(house, thermostat)
            if each["values"]["boiler"]
            for first, last in [stamps(each)]
        )
        (device,) = household.of_type("NATherm1")
        served = lives.boiler_on_seconds(device, begin, end)
        with house.database() as database:
            states = database["states"].count_documents({})
    an_hour = (len(calls) + tokens) / 20
    changes = states / ((times[-1] - times[0]) / DAY)
    tell(
        f"{an_hour:.1f} calls an hour; {changes:.0f} states a day; boiler {burnt:.0f} s of "
        f"{served:.0f} s"
    )
    assert an_hour <= 90
    assert changes <= 300
    # One poll for each switch: twelve times on and off a day.
    assert abs(served - burnt) <= 24 * POLL_S


def moved_in(house: House) -> tuple[Household, str, float]:
    """(what stands in it, its thermostat, when the first rows were stored); the daemon runs."""
    (household,) = house.cloud.world.households.values()
    house.start()
    until(
        lambda: house.coverage() and house.status()["ledger"]["loaded"],
        within=60,
        what="the first rows are stored",
        house=house,
    )
    return household, household.of_type("NATherm1")[0].id, house.now


def test_catching_up_on_events_killed_on_each_page(tmp_path: Path) -> None:
    """Three days of events, a SIGKILL at each page: no event and no picture is missing."""
    with opened(
        tmp_path,
        speed=150,
        days=4,
        cloud_flags=("--products", "security"),
        account={"products": ["security"]},
        history={"since": "all"},
        security=PICTURES,
    ) as house:
        (household,) = house.cloud.world.households.values()
        begun, kills = house.now, 0
        while kills < PAGES:
            house.start()
            seen = len(pages(house))
            until(
                lambda: len(pages(house)) > seen,  # noqa: B023
                within=60,
                what="a page of events is asked",
                house=house,
                every=0.02,
            )
            time.sleep(chance.random() * 0.4)
            house.kill()
            kills += 1
        house.start()
        until(lambda: whole(house, household.home_id), within=120, what="all is read", house=house)
        until(lambda: house.now > begun + DAY / 8, within=120, what="the newest have settled")
        end = house.now - 2 * HOUR
        wrong = wrong_events(house, household, begun - 3 * DAY, end)
        with house.database() as database:
            counts = {name: database[name].count_documents({}) for name in ("events", "pictures")}
            lost = database["events"].count_documents({"pictures_lost.reason": {"$ne": None}})
        calls = len(pages(house))
        stats = house.cloud.stats()
    tell(f"{kills} kills: {counts}, {lost} events with a picture lost, {calls} calls of getevents")
    assert not wrong, (len(wrong), wrong[:5])
    assert counts["events"] >= 100
    assert stats["pictures"]["leaked"] == 0


def pages(house: House) -> list[Call]:
    return [call for call in journal(house) if call["endpoint"] == "getevents"]


def whole(house: House, home_id: str) -> bool:
    """Everything from the first event on is covered, up to an hour ago."""
    document = house.coverage("events").get(home_id)
    return (
        document is not None
        and len(document["covered"]) == 1
        and (house.now - document["covered"][0][1].timestamp() < 2 * HOUR)
        and document["covered"][0][0].year == 2000
    )
