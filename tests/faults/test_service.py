"""The daemon as a service: how it ends, who else may run, what it tells, and a state disk in need."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import re
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from tests.faults.house import Child, House, assert_clean, command, invariant, opened, tell, until
from tests.stores import alive, require_extra

pytestmark = pytest.mark.faults

BUSY_WRITER = {"bulk_size": 50, "max_bulks_per_second": 20.0}
SLOW_WRITER = {"bulk_size": 20, "max_bulks_per_second": 1.0}
FAST_WRITER = {"bulk_size": 500, "max_bulks_per_second": 1000.0}
OFTEN = {"trailing": "10m"}  # so that a test waits less for the next one
MIB = 1 << 20


def _end_and_count(house: House, *, hurried: bool = False) -> tuple[float, int]:
    """SIGTERM, a second one if `hurried`; seconds until exit 0, and the records it left."""
    before = len(house.events("daemon.stopping"))
    began = time.monotonic()
    house.running.signal(signal.SIGTERM)
    if hurried:  # signals that follow at once are one for the kernel
        until(
            lambda: len(house.events("daemon.stopping")) > before,
            within=15,
            what="it drains",
            house=house,
        )
        house.running.signal(signal.SIGTERM)
    code = house.running.wait(55)
    took = time.monotonic() - began
    assert code == 0, house.tail()
    assert "Traceback" not in house.log.read_text()
    return took, int(house.events("daemon.stopped")[-1]["left_on_spool"])


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_signal_while_busy(tmp_path: Path) -> None:
    """SIGTERM with a bulk, a refresh and a poll under way: exit 0 within 55 s, the refresh saved.

    A second SIGTERM skips the drain; what is left on the spool arrives after the next start.
    """
    with opened(
        tmp_path, speed=500, stations=2, accounts=2, days=1, poll=OFTEN, writer=BUSY_WRITER
    ) as house:
        house.cloud.arm("stall", endpoint="token", count=1, real_seconds=4.0)
        second = house.cloud.accounts[1]["user"]
        house.start()
        until(lambda: _waiting(house) > 500, within=30, what="much waits", house=house)
        house.cloud.arm("expire_access", account=house.cloud.accounts[0]["user"])
        house.cloud.arm("stall", account=second, count=1, real_seconds=3.0)
        until(
            lambda: house.cloud.stats()["running"] == 2,
            within=20,
            what="a refresh and a poll are under way",
            house=house,
            every=0.01,
        )
        generation, refreshes = house.token(0)["generation"], house.cloud.refreshes()
        took, left = _end_and_count(house)
        waited = house.events("daemon.stopping")[-1]["records_waiting"]
        assert waited > 100
        assert house.token(0)["generation"] == generation + 1
        assert house.login_lives()

        house.write_config(writer=SLOW_WRITER)
        house.start()
        until(lambda: _waiting(house) > 500, within=30, what="much waits", house=house)
        hurried, more = _end_and_count(house, hurried=True)
        tell(
            f"{waited} records waited; {took:.1f} s until exit 0, {left} left; {refreshes} "
            f"refreshes before; hurried: {hurried:.1f} s, {more} left"
        )
        assert more > 0
        assert hurried < 15

        house.write_config(writer=FAST_WRITER)
        house.start()
        house.mark()
        invariant(house)


def _waiting(house: House) -> int:
    return int(house.status().get("spool", {}).get("records", 0))
