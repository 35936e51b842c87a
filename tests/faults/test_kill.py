"""The daemon and its store, killed at random moments: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.house import House, invariant, opened, tell, until
from tests.stores import alive

pytestmark = pytest.mark.faults

# A start reads up to 3.5 days of each module. Few modules and a short history keep that to a second.
FEW = {"include": ["Garden", "Roof wind"]}
DAEMON_KILLS = 50
STORE_KILLS = 20


@pytest.mark.timeout(600)
def test_daemon_and_store_killed_at_random_moments(tmp_path: Path) -> None:
    """After 50 kills of the daemon and 20 of the store, each row shown is stored exactly once.

    The refresh token is replaced at each use, and the cloud accepts the one on disk in the end.
    """
    seed = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(1_000_000)))
    dice = random.Random(seed)
    began = time.monotonic()
    with opened(tmp_path, speed=1000, days=1, account=FEW) as house:
        house.start()
        house.mark()
        tell(f"FAULT_SEED={seed}; {time.monotonic() - began:.1f} s until the first rows")
        with_store = set(dice.sample(range(DAEMON_KILLS), STORE_KILLS))
        busy = 0

        for number in range(DAEMON_KILLS):
            before = house.cloud.calls()
            if number in with_store:
                _kill_store(house, dice)
            elif dice.random() < 0.7:
                until(house.ready, within=30, what=f"the daemon runs\n{house.tail()}")
            time.sleep(dice.uniform(0.0, 1.5))
            busy += house.cloud.calls() > before
            house.kill()
            house.start(ready=False)

        compared = invariant(house, within=120)
        counts = house.counted()
    tell(
        f"{compared.expected} rows, {busy} of {DAEMON_KILLS} lives saw a call, "
        f"{time.monotonic() - began:.0f} s, {counts}"
    )
    assert busy > DAEMON_KILLS / 2


def _kill_store(house: House, dice: random.Random) -> None:
    """Once it runs; in half of the cases it is back before the next kill."""
    until(house.store_pid, within=30, what=f"the store runs\n{house.tail()}")
    time.sleep(dice.uniform(0.0, 1.0))
    pid = house.store_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), within=5, what="the store is dead")
    if dice.random() < 0.5:
        until(house.store_pid, within=30, what=f"the store is back\n{house.tail()}")
