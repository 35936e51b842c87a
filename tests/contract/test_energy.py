"""Energy by tariff against the simulated meters, and heating while nobody looked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.simulator import lives
from tests.faults.house import House, opened, until
from tests.faults.lives import stamps, states_of
from tests.faults.past import DAY, filled

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

HALF = lives.HALF
TARIFFS = ("energy_base_wh", "energy_peak_wh", "energy_off_peak_wh")


def rows_of(house: House, module: str, scale: str) -> dict[int, dict[str, float]]:
    with house.database() as database:
        rows = list(database["measurements"].find({"module_id": module, "scale": scale}))
    return {int(row["time"].timestamp()): row["values"] for row in rows}


def test_energy_by_tariff(tmp_path: Path) -> None:
    """Each half hour of sixty days equals the meter, tariff by tariff; its total is their sum.

    Among them are a contract change and, in a zone that has one, a summer-time change.
    """
    (tmp_path / "scenario.toml").write_text("[[homes]]\nproducts = ['control']\nmeters = 2\n")
    flags = ("--scenario", str(tmp_path / "scenario.toml"))
    with opened(
        tmp_path,
        speed=60,
        days=200,
        cloud_flags=flags,
        account={"products": ["control"], "include": ["Circuit 1", "Line 0"]},
        history={"since": "all"},
    ) as house:
        world = house.cloud.world
        (household,) = world.households.values()
        zone = ZoneInfo(household.zone)
        devices = [each for each in household.devices if each.name in ("Circuit 1", "Line 0")]
        house.start()
        filled(house, within=200)
        end = int(house.now) - 3 * 3600
        found = {each.id: rows_of(house, each.id, "30min") for each in devices}

    assert len(devices) == 2
    for device in devices:
        rows = found[device.id]
        halves = range(-(-device.setup // HALF), end // HALF)
        assert len(halves) > 190 * 48
        seen: set[str] = set()
        for half in halves:
            told = lives.energy(device, zone, half, world.contract)
            served = {
                name: float(amount)
                for name, amount in zip(TARIFFS, told, strict=True)
                if amount is not None
            }
            served["energy_wh"] = sum(served.values())
            assert rows.get(half * HALF) == served, (device.name, half * HALF)
            seen |= served.keys()
        assert seen == {*TARIFFS, "energy_wh"}, "both contracts are in it"


def test_a_day_without_the_daemon_shows_no_heating(tmp_path: Path) -> None:
    """While nobody looked nothing is known: no state reaches into that day, another follows it."""
    with opened(
        tmp_path,
        speed=3_000,
        days=4,
        cloud_flags=("--products", "energy"),
        account={"products": ["energy"]},
    ) as house:
        (household,) = house.cloud.world.households.values()
        thermostat = household.of_type("NATherm1")[0]
        house.start()
        until(lambda: states_of(house, thermostat.id), within=60, what="it is seen", house=house)
        begun = house.now
        until(lambda: house.now > begun + DAY / 4, within=60, what="a quarter of a day")
        assert house.stop() == 0
        off = house.now
        until(lambda: house.now > off + DAY, within=60, what="a day without the daemon")
        on = house.now
        house.start()
        until(lambda: _seen_until(house, thermostat.id) > on, within=60, what="it is seen again")
        states = [stamps(each) for each in states_of(house, thermostat.id)]
        boiler = [
            stamps(each) for each in states_of(house, thermostat.id) if each["values"]["boiler"]
        ]

    assert not [each for each in states if each[0] < on and each[1] > off], states
    assert boiler, "it ran in the quarter of a day before"
    assert lives.boiler_on_seconds(thermostat, off, on) > 3_600


def _seen_until(house: House, entity_id: str) -> float:
    documents: list[Any] = states_of(house, entity_id)
    return float(max(stamps(each)[1] for each in documents))
