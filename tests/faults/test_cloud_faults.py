"""A cloud that throttles, fails, lies and changes: what it showed is stored once all the same."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd.sources.quantities import UPSTREAM
from tests.faults.house import House, invariant, opened, tell, until

pytestmark = pytest.mark.faults

OFTEN = {"weather": "5m", "trailing": "10m"}
MINUTELY = {"weather": "1m", "trailing": "5m"}  # a pause of 60 s then hides a poll
FEW = {"include": ["Garden", "Roof wind", "Rain"]}
WRITER = {"max_bulks_per_second": 1000.0}


# --- pauses -------------------------------------------------------------------------------------


def _throttle(house: House, **fault: Any) -> float:
    """Arm one refusal and wait for it; the simulated moment when it was surely met."""
    before = house.cloud.hits("throttle")
    house.cloud.arm("throttle", count=1, **fault)
    until(
        lambda: house.cloud.hits("throttle") > before,
        within=30,
        what="a call is refused",
        house=house,
        every=0.002,
    )
    return house.now


def _calls(house: House, number: int | None = None) -> int:
    """Data calls so far, of all accounts or of one; those of one include none for tokens."""
    if number is None:
        return house.cloud.calls()
    user = house.cloud.accounts[number]["user"]
    return int(house.cloud.stats()["by_account"].get(user, 0))


def _silence(house: House, begin: float, number: int | None = None) -> float:
    """How long after `begin` (simulated) the next call comes."""
    before = _calls(house, number)
    until(
        lambda: _calls(house, number) > before,
        within=60,
        what="the pause ends",
        house=house,
        every=0.005,
    )
    return house.now - begin


@pytest.mark.timeout(180)
def test_quota_refusals(tmp_path: Path) -> None:
    """A quota refusal stops the account or all of the application, until then, also over a restart.

    Without Retry-After for 60 s, then 120 s; a token refused early costs one refresh, one repeat.
    """
    with opened(
        tmp_path, speed=60, stations=2, accounts=2, days=1, poll=MINUTELY, writer=WRITER
    ) as house:
        house.start()
        house.mark()
        first = house.cloud.accounts[0]["user"]

        # A message that names nobody is the account's own affair.
        met = _throttle(house, account=first, message="User usage reached", status=403)
        other = _silence(house, met, 1)
        paused = [_silence(house, met, 0)]
        met = _throttle(house, account=first)
        paused.append(_silence(house, met, 0))
        # The application's is everybody's.
        met = _throttle(house, account=first, message="Application usage reached", status=403)
        paused.append(_silence(house, met))
        met = _throttle(house, account=first, retry_after=300, message="User usage reached")
        paused.append(_silence(house, met, 0))

        met = _throttle(
            house, account=first, retry_after=900, message="Application usage reached", status=403
        )
        house.kill()
        calls = house.cloud.calls()
        house.start()
        assert house.cloud.calls() == calls
        restarted = _silence(house, met)

        refreshes, tokens = house.cloud.refreshes(), house.token()["generation"]
        house.cloud.arm("expired_token", count=1, account=first)
        until(lambda: house.cloud.hits("expired_token"), within=20, what="refused", house=house)
        until(lambda: house.token()["generation"] > tokens, within=20, what="it refreshes")
        invariant(house)
        tell(
            f"pauses of {', '.join(f'{each:.0f} s' for each in paused)}, the other account's next "
            f"call after {other:.0f} s; over a restart {restarted:.0f} s of 900; "
            f"{house.cloud.refreshes() - refreshes} refreshes; {house.counted()}"
        )
