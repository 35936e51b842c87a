"""Two logins of one application: limits, and a station that both of them see."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.house import House, invariant, opened, tell, until
from tests.faults.past import journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

HOUR = 3600.0
PER_HOUR = 20  # six dashboards, and two reads of each of seven modules


def _measures(house: House) -> Counter[str]:
    """Calls at fixed cadences by account; late re-reads take a part of what these leave."""
    calls = journal(house, "live", "trailing")
    # A call with a token that a refresh has just ended is of no account.
    return Counter(str(call["account"]) for call in calls if call["account"])


def test_each_account_keeps_to_its_cadence(tmp_path: Path) -> None:
    """Two accounts of one app ask 20 times an hour each, and every row of both is stored once."""
    with opened(tmp_path, speed=3000, stations=2, accounts=2, days=1) as house:
        house.start()
        house.mark()
        time.sleep(HOUR / 3000)
        before, began = _measures(house), house.now
        while house.now < began + 24 * HOUR:
            assert house.running.alive, house.tail()
            time.sleep(0.2)
        after, hours = _measures(house), (house.now - began) / HOUR
        rates = {user: (after[user] - before[user]) / hours for user in after}

        compared = invariant(house, within=120)

        windows = house.cloud.stats()["windows"]
        tell(f"{rates} calls an hour over {hours:.1f} h; {compared.expected} rows; {windows}")
    assert len(rates) == 2
    # A refresh in the middle of a call makes the cloud refuse that call once.
    assert all(rate <= PER_HOUR + 0.5 for rate in rates.values())


def test_cadences_that_do_not_fit_are_stretched(tmp_path: Path) -> None:
    """Asked for 480 calls an hour and account, the daemon tells that, and makes 400 at most."""
    with opened(
        tmp_path,
        speed=120,
        stations=2,
        accounts=2,
        days=1,
        poll={"weather": "60s", "trailing": "60s"},
    ) as house:
        house.start()
        house.mark()
        began = house.now
        until(lambda: house.now > began + 1.2 * HOUR, within=60, what="an hour passes", house=house)
        compared = invariant(house, within=120)
        stats, counts = house.cloud.stats(), house.counted()
        factor = house.events("poll.stretched")[-1]["factor"]
        tell(f"stretched by {factor}; {stats['windows']}; {compared.expected} rows; {counts}")
    assert factor == pytest.approx(480 / 400, rel=0.02)
    for name, most in stats["windows"].items():
        # On the way to the cloud some of them come closer together: 10 ms are a second here.
        assert most["hour"] <= (400 if "|" in name else 800) * 1.02, name
        assert most["hour"] >= (300 if "|" in name else 600), name
        assert most["10s"] <= 20, name


@pytest.mark.parametrize("late", [None, 0, 1], ids=["together", "first-late", "second-late"])
def test_station_that_both_see(tmp_path: Path, late: int | None) -> None:
    """A shared station is stored once and read by one account, whichever answer comes first.

    late  which account's first answer is held back
    """
    with opened(
        tmp_path,
        speed=2000,
        stations=2,
        accounts=2,
        days=1,
        cloud_flags=("--apps", "1", "--shared"),
        account={"include": ["Harbour House", "Mill Cottage"]},
    ) as house:
        house.cloud.ask("POST", "settings", {"show_invited": True})
        if late is not None:
            user = house.cloud.accounts[late]["user"]
            house.cloud.arm(
                "stall", account=user, endpoint="getstationsdata", count=1, real_seconds=3.0
            )
        house.start()
        house.mark(within=90)
        time.sleep(2 * HOUR / 2000)
        before, began = len(journal(house, "trailing")), house.now

        until(lambda: house.now > began + 6 * HOUR, within=60, what="six hours", house=house)
        reads, hours = len(journal(house, "trailing")) - before, (house.now - began) / HOUR
        compared = invariant(house, within=120)
        coverage = house.coverage()

        found = {module: document["owner"]["account"] for module, document in coverage.items()}
        tell(f"{reads / hours:.1f} reads an hour, owners {found}; {compared.expected} rows")
    assert sorted(coverage) == sorted(house.modules())
    for station in house.cloud.world.stations:
        # One that answered before the station's owner stays the owner of its history for a week.
        # Each module has its own: where both answer together, a station's may be of either.
        names = {found[module.id] for module in house.cloud.world.stations[station].all}
        assert late is None or names == {f"home{2 - late}"}
    # Of 14 modules each is read twice an hour, by one account; late re-reads aside.
    assert 22 <= reads / hours <= 29
