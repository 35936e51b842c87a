"""Two weeks of two stations in some minutes: everything arrives, within the limits of the cloud."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.house import House, invariant, iso, opened, tell, until

pytestmark = pytest.mark.faults

STATIONS = 2
DAYS = 14.0
SPEED = 4000  # what two cores keep up with while two other tests run
HOUR, DAY = 3600.0, 86_400.0
PER_HOUR = 20  # requests for each station of seven modules

Sample = tuple[float, int]
"""Simulated time, and the polls at fixed cadences that the cloud had counted by then."""


@pytest.mark.timeout(1200)
def test_two_weeks_of_two_stations(tmp_path: Path) -> None:
    """Each row of 14 days is stored once, value by value, with 20 requests an hour and station."""
    with opened(tmp_path, speed=SPEED, stations=STATIONS) as house:
        began = time.monotonic()
        house.start()
        house.mark()
        started = house.since + 3.5 * DAY
        memory, files = house.running.memory_mib, house.running.descriptors

        samples = _watch(house, started + HOUR, DAYS * DAY)
        settled = house.settle(within=300)
        stats, counts = house.cloud.stats(), house.counted()
        # Nothing new arrives from here on, so that a busy machine has less to catch up with.
        house.cloud.arm("http", status=503)
        compared = invariant(house, settled=settled)

        grown = house.running.memory_mib
        open_files = house.running.descriptors
        until(
            lambda: house.status()["spool"]["batches"] == 0,
            within=300,
            what="the spool is empty",
            house=house,
        )
        assert house.stop() == 0
        left = house.status()["spool"]
        took = time.monotonic() - began

    hours = (samples[-1][0] - samples[0][0]) / HOUR
    per_hour = (samples[-1][1] - samples[0][1]) / hours / STATIONS
    busiest_day = _busiest(samples, DAY) / STATIONS
    busiest_six = _busiest(samples, 6 * HOUR) / STATIONS
    busiest_hour = _busiest(samples, HOUR) / STATIONS
    tell(
        f"{compared.expected} rows due, {compared.stored} stored, all equal; {hours / 24:.1f} days "
        f"until {iso(samples[-1][0])} in {took:.0f} s\n"
        f"requests an hour and station: {per_hour:.2f} on average, {busiest_day:.2f} on the "
        f"busiest day, {busiest_six:.2f} in the busiest six hours, {busiest_hour:.2f} in the "
        f"busiest one; start and tokens included, one clock hour had {stats['busiest_hour']} of "
        f"both stations; {stats['requests']} in all, "
        f"{stats['by_status']}, windows {stats['windows']}\n"
        f"daemon: {memory:.0f} MiB, later {grown:.0f} MiB; {files}, later {open_files} open files; "
        f"{counts}"
    )
    assert per_hour <= PER_HOUR
    assert busiest_day <= PER_HOUR
    assert busiest_six <= PER_HOUR
    # Where the machine stood still for 0.1 s, polls of seven minutes go into the next hour.
    assert busiest_hour <= 1.25 * PER_HOUR
    # Strict rotation ends the access token at once, also for a call that is under way: it is
    # refused, and repeated once with the new one.
    assert set(stats["refused"]) <= {"403/2"}
    assert stats["refused"].get("403/2", 0) <= stats["token"]["refreshes"]
    assert left["batches"] == 0
    assert grown < memory + 50
    assert open_files <= files + 8


def _watch(house: House, begin: float, lasting: float) -> list[Sample]:
    """Counts of the cloud from `begin` on, some in each simulated hour."""
    samples: list[Sample] = []
    while house.now < begin + lasting:
        assert house.running.alive, house.tail()
        time.sleep(HOUR / SPEED / 8)
        if house.now >= begin:
            stats = house.cloud.stats()
            # At fixed cadences; late re-reads take a part of what these leave.
            calls = sum(stats["by_purpose"].get(each, 0) for each in ("live", "trailing"))
            samples.append((stats["now"], calls))
    return samples


def _busiest(samples: list[Sample], span: float) -> float:
    """Most calls an hour in any stretch of `span` seconds (or a little longer) between samples."""
    most, last = 0.0, 0
    for at, calls in samples:
        while last < len(samples) and samples[last][0] < at + span:
            last += 1
        if last == len(samples):
            break
        most = max(most, (samples[last][1] - calls) * HOUR / (samples[last][0] - at))
    return most
