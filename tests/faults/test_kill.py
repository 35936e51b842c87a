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

# A start reads up to 3.5 days of each module; few modules and a short history take a second.
FEW = {"include": ["Garden", "Roof wind", "Rain"]}
DAEMON_KILLS = 50
STORE_KILLS = 20


@pytest.mark.timeout(600)
def test_daemon_and_store_killed_at_random_moments(tmp_path: Path) -> None:
    """After 50 kills of the daemon and 20 of the store, each row shown is stored exactly once.

    The refresh token is replaced at each use. The cloud accepts the one on disk in the end, or
    the daemon was killed in the milliseconds between its commit and our fsync, and said so.
    """
    seed = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(1_000_000)))
    dice = random.Random(seed)
    began = time.monotonic()
    with opened(tmp_path, speed=500, days=1, account=FEW) as house:
        house.start()
        house.mark()
        tell(f"FAULT_SEED={seed}; {time.monotonic() - began:.1f} s until the first rows")
        with_store = set(dice.sample(range(DAEMON_KILLS), STORE_KILLS))
        busy = lost = 0

        for number in range(DAEMON_KILLS):
            before = house.cloud.calls()
            if number in with_store:
                _kill_store(house, dice)
            elif dice.random() < 0.7:
                until(house.ready, within=30, what="the daemon runs", house=house)
            time.sleep(dice.uniform(0.0, 1.5))
            busy += house.cloud.calls() > before
            house.kill()
            left = house.login_left()
            house.start(ready=False)
            if not left:
                lost += 1
                _log_in_again(house)

        took = time.monotonic() - began
        compared = invariant(house, within=120)
        refreshes, counts = house.cloud.refreshes(), house.counted()
    tell(
        f"{compared.expected} rows; {busy} of {DAEMON_KILLS} lives saw a call; {refreshes} "
        f"refreshes, {lost} logins lost; {took:.0f} s + {time.monotonic() - began - took:.0f} s "
        f"to drain; {counts}"
    )
    assert busy > DAEMON_KILLS / 2
    assert lost <= 2


def _kill_store(house: House, dice: random.Random) -> None:
    """Once it runs; in half of the cases it is back before the next kill."""
    until(house.store_pid, within=30, what="the store runs", house=house)
    time.sleep(dice.uniform(0.0, 1.0))
    pid = house.store_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), within=5, what="the store is dead")
    if dice.random() < 0.5:
        until(house.store_pid, within=30, what="the store is back", house=house)


def _log_in_again(house: House) -> None:
    """The one loss that no program can avoid: it has to be announced for what it is."""

    def announced() -> bool:
        told = [event for event in house.events("login.failing") if "error" in event]
        return any("was never saved" in event["error"] for event in told)

    until(announced, within=30, what="the lost login is announced", house=house)
    house.login(token=house.cloud.current_token())
