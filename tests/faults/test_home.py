"""A home with every product line, for a week: what is stored is what was served."""

from __future__ import annotations

from pathlib import Path

import pytest

from netatmo_ingestd.simulator import lives
from tests.faults.house import House, opened, tell, until
from tests.faults.lives import POLL_S, live_rows, stamps, states_of, wrong_live, wrong_states
from tests.faults.past import DAY, journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

HOUR = 3600.0
ALL_LINES = {"products": ["weather", "aircare", "energy", "security", "control"]}
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
    """States, live rows and history of seven days equal what was served, at 90 calls an hour."""
    with opened(
        tmp_path, speed=2_000, days=10, cloud_flags=scenario(tmp_path), account=ALL_LINES
    ) as house:
        (household,) = house.cloud.world.households.values()
        thermostat = household.of_type("NATherm1")[0]
        house.start()
        until(
            lambda: house.coverage() and house.status()["ledger"]["loaded"],
            within=60,
            what="the first rows are stored",
            house=house,
        )
        begun = house.now
        until(lambda: house.now > begun + 7 * DAY, within=400, what="a week has passed", every=1)
        house.settle(within=120)
        asked = [call for call in journal(house) if call["endpoint"] == "homestatus"]
        times = polls(house, thermostat.id)
        end = times[-1]
        calls = [call for call in journal(house) if begun + DAY <= call["at"] < begun + 7 * DAY]
        tokens = house.cloud.refreshes()

        states = wrong_states(house, household, times)
        live = wrong_live(house, household, times)
        day = (times[0] // DAY + 2) * DAY
        burnt = sum(
            max(0.0, min(last, day + DAY) - max(first, day))
            for each in states_of(house, thermostat.id)
            if each["values"]["boiler"]
            for first, last in [stamps(each)]
        )
        served = lives.boiler_on_seconds(thermostat, day, day + DAY)
        with house.database() as database:
            count = database["states"].count_documents({})
        changes = count / ((end - times[0]) / DAY)
    an_hour = (len(calls) + tokens) / (6 * 24)
    tell(
        f"{len(times)} answers of homestatus in {(end - times[0]) / DAY:.1f} days; {an_hour:.1f} "
        f"calls an hour; {changes:.0f} states a day; boiler {burnt:.0f} s of {served:.0f} s"
    )
    assert not states, (len(states), states[:5])
    assert not live, (len(live), live[:5])
    answered = [call for call in asked if call["status"] == 200 and call["at"] < end + 1]
    assert len(answered) == len(times)
    assert an_hour <= 90
    assert changes <= 300
    # One poll for each switch: twelve times on and off a day.
    assert abs(served - burnt) <= 24 * POLL_S
