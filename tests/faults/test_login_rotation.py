"""A cloud that replaces the refresh token at each use, for weeks; and a login that is withdrawn."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.house import invariant, opened, tell, until

pytestmark = pytest.mark.faults

FEW = {"include": ["Garden"]}
SELDOM = {"weather": "1h", "trailing": "6h"}
HOUR = 3600.0
REFRESHES = 200


@pytest.mark.timeout(300)
def test_two_hundred_rotations(tmp_path: Path) -> None:
    """Of 200 refreshes, each of which kills the former pair of tokens, none loses the login."""
    with opened(
        tmp_path, speed=30_000, account=FEW, cloud_flags=("--rotation", "strict"), poll=SELDOM
    ) as house:
        began = time.monotonic()
        house.start()
        house.mark()
        first = house.cloud.refreshes()
        while house.cloud.refreshes() < first + REFRESHES:
            assert house.running.alive, house.tail()
            assert time.monotonic() < began + 240
            time.sleep(1.0)

        compared = invariant(house)
        token, counts = house.cloud.stats()["token"], house.counted()
        generation = house.token()["generation"]
        tell(
            f"{token}, generation {generation}, {compared.expected} rows, "
            f"{time.monotonic() - began:.0f} s; {counts}"
        )
        assert token["refused"] == token["reused"] == 0
        # One for the login by the portal's token, one for each refresh.
        assert token["refreshes"] - 2 <= generation <= token["refreshes"]
        assert not {"login.failing", "login.required"} & set(counts)


@pytest.mark.timeout(180)
def test_refreshes_while_restarted(tmp_path: Path) -> None:
    """Ten orderly restarts while a refresh is due all the time lose no login either."""
    with opened(tmp_path, speed=30_000, days=1, account=FEW, poll=SELDOM) as house:
        house.start()
        house.mark()
        for _ in range(10):
            time.sleep(0.5)
            assert house.stop() == 0
            assert house.login_lives()
            house.start()
        invariant(house)
        token = house.cloud.stats()["token"]
        tell(f"{token}")
        assert token["refused"] == token["reused"] == 0


@pytest.mark.timeout(180)
def test_dead_login_is_cured_by_a_new_one(tmp_path: Path) -> None:
    """A withdrawn login is announced; `login` alone, without a restart, brings all rows since."""
    with opened(tmp_path, speed=2000, account={"include": ["Garden", "Rain"]}) as house:
        house.start()
        house.mark()
        pid = house.running.pid
        house.cloud.arm("revoke")

        until(
            lambda: house.events("login.required"), within=60, what="it is announced", house=house
        )
        asked, moment = house.cloud.stats()["by_endpoint"], house.now
        time.sleep(6.0)
        after, hours = house.cloud.stats()["by_endpoint"], (house.now - moment) / HOUR
        tokens = after["token"] - asked["token"]
        data = sum(after.values()) - sum(asked.values()) - tokens
        tell(f"dead for {hours:.1f} hours: {tokens} token calls, {data} data calls")
        assert data == 0
        assert tokens <= 2
        until(lambda: not house.status()["healthy"], within=15, what="it is unwell", house=house)
        assert "netatmo-ingestd login --account home1" in str(house.status()["troubles"])

        house.login_by_consent()

        until(lambda: house.events("login.found"), within=30, what="it is noticed", house=house)
        compared = invariant(house)
        assert house.running.pid == pid
        until(lambda: house.status()["healthy"], within=30, what="it is well", house=house)
        tell(f"{compared.expected} rows; {house.counted()}")
