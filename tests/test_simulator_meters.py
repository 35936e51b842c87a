"""History of the simulated meters: energy by tariff, its prices, and what a store must have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.simulator import lives
from tests.clocks import START
from tests.households import GRID, asked, household, lab_of, of, only, rows
from tests.labs import Lab, error

NOW = int(START)
DAY, HOUR, HALF = 86_400, 3_600, lives.HALF
PARIS = ZoneInfo("Europe/Paris")
CONTRACT = (NOW - 9 * DAY) // DAY * DAY


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = lab_of(tmp_path, contract=CONTRACT + 100)
    async with lab.http:
        await lab.login()
        yield lab


def total(row: list[Any]) -> int:
    return sum(each for each in row if each is not None)


# --- meters ---------------------------------------------------------------------------------------


async def test_a_half_hour_is_what_the_meter_counted(lab: Lab) -> None:
    """The total is always null; one column carries the value, two where the tariff changes."""
    meter, begin = only(lab, "NLPC"), NOW // DAY * DAY - 3 * DAY

    found = await rows(lab, **asked(meter, date_begin=begin, date_end=begin + DAY - 1))

    assert list(found) == list(range(begin, begin + DAY, HALF))
    for at, row in found.items():
        served = lives.energy(meter, PARIS, at // HALF, lab.world.contract)
        assert row == [None, *served]
    carried = [sum(each is not None for each in row) for row in found.values()]
    assert sorted(set(carried)) == [1, 2]
    assert carried.count(2) == 2


async def test_a_contract_changes_at_the_moment_that_is_set(lab: Lab) -> None:
    """Before it one tariff, after it two; the moment is cut to its half hour."""
    meter = only(lab, "NLP")

    found = await rows(lab, **asked(meter, date_begin=CONTRACT - DAY, date_end=CONTRACT + DAY))

    assert lab.world.contract == CONTRACT
    before = {at: row for at, row in found.items() if at < CONTRACT}
    after = {at: row for at, row in found.items() if at >= CONTRACT}
    assert len(before) == len(after) - 1 == 48
    assert all(row[1] is not None and row[2:] == [None, None] for row in before.values())
    assert all(row[1] is None and total(row) > 0 for row in after.values())


@pytest.mark.parametrize(
    ("scale", "step"), [("1hour", HOUR), ("3hours", 3 * HOUR), ("1day", DAY), ("1week", 7 * DAY)]
)
async def test_longer_buckets_are_sums_of_half_hours(lab: Lab, scale: str, step: int) -> None:
    """By tariff, across the contract change; days and weeks by the clock of the home."""
    meter, begin = only(lab, "NLPM"), CONTRACT - 8 * DAY
    halves = await rows(lab, **asked(meter, date_begin=begin, date_end=NOW))

    found = await rows(lab, **asked(meter, scale=scale, date_begin=begin, date_end=NOW))

    whole = [at for at in found if at >= begin]
    assert len(whole) >= 2
    for at in whole:
        inside = [row for half, row in halves.items() if at <= half < at + step]
        columns = list(zip(*inside, strict=True))
        for column, value in zip(columns, found[at], strict=True):
            told = [each for each in column if each is not None]
            assert value == (sum(told) if told else None)


@pytest.mark.parametrize("day", ["2026-03-29", "2025-10-26"])
async def test_a_day_of_the_clock_change(tmp_path: Path, day: str) -> None:
    """23 or 25 hours: its energy is that of its half hours, and peak hours keep local time."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=PARIS)
    begin = int(midnight.timestamp())
    end = int((midnight + timedelta(days=1)).timestamp())
    lab = lab_of(tmp_path, days=800, contract=begin - 30 * DAY)
    lab.clock.advance(begin + 10 * DAY - NOW)
    async with lab.http:
        await lab.login()
        meter = only(lab, "NLPC")
        (found,) = (
            await rows(lab, **asked(meter, scale="1day", date_begin=begin, date_end=begin + HOUR))
        ).items()
        halves = await rows(lab, **asked(meter, date_begin=begin, date_end=end - 1))

    assert end - begin != DAY
    assert found[0] == begin
    assert len(halves) == (end - begin) // HALF
    assert total(found[1]) == sum(map(total, halves.values()))
    mixed = [at for at, row in halves.items() if None not in row[2:]]
    local = [datetime.fromtimestamp(at, PARIS) for at in mixed]
    assert [(each.hour, each.minute) for each in local] == [(6, 30), (22, 0)]


async def test_the_last_half_hour_is_twenty_minutes_late(lab: Lab) -> None:
    """It can be seen 20 minutes after its end, not a second before."""
    meter, half = only(lab, "NLPC"), NOW // HALF * HALF
    due = half + HALF + lives.METER_LATE_S

    lab.clock.advance(due - 1 - NOW)
    early = await rows(lab, **asked(meter, date_begin=half - HALF))
    lab.clock.advance(1)
    then = await rows(lab, **asked(meter, date_begin=half - HALF))

    assert list(early) == [half - HALF]
    assert list(then) == [half - HALF, half]


async def test_buckets_are_counted_from_date_begin(lab: Lab) -> None:
    """Another phase gives other stamps; the default stamp is the middle of the bucket."""
    meter, begin = only(lab, "NLPC"), NOW // DAY * DAY - 2 * DAY

    shifted = await rows(
        lab, **asked(meter, scale="1hour", date_begin=begin + 700, date_end=begin + 5 * HOUR)
    )
    middle = await rows(
        lab, **asked(meter, date_begin=begin, date_end=begin + HOUR, real_time="false")
    )

    assert {at % HOUR for at in shifted} == {700}
    assert list(middle) == [begin + 900, begin + 2_700, begin + 4_500]


async def test_a_page_has_1024_half_hours(lab: Lab) -> None:
    """The oldest; the next one begins a step after the last bucket."""
    meter = only(lab, "NLPC")
    begin = meter.setup // HALF * HALF + HALF

    first = await rows(lab, **asked(meter, date_begin=begin))
    second = await rows(lab, **asked(meter, date_begin=list(first)[-1] + HALF))

    assert list(first) == list(range(begin, begin + 1024 * HALF, HALF))
    assert next(iter(second)) == begin + 1024 * HALF
    assert list(second)[-1] <= NOW - HALF - lives.METER_LATE_S


async def test_prices_are_told_where_asked(lab: Lab) -> None:
    """Each tariff's energy at its price; the total is null as that of the energy."""
    meter, begin = only(lab, "NLPC"), CONTRACT - HOUR
    span = {"scale": "1hour", "date_begin": begin, "date_end": CONTRACT + 12 * HOUR}
    energy = await rows(lab, **asked(meter, **span))

    paid = await rows(lab, **asked(meter, **span, type=of(f"{GRID}_price")))

    assert list(paid) == list(energy)
    for at, row in paid.items():
        assert row[0] is None
        for watt_hours, each, money in zip(energy[at][1:], lives.PRICES, row[1:], strict=True):
            due = None if watt_hours is None else watt_hours * each / 1000
            assert money == (due and pytest.approx(due, abs=1e-5))


async def test_phases_add_up_to_their_meter(lab: Lab) -> None:
    """Of three phases each has its own energy; the base has their sum."""
    base, *phases = household(lab).of_type("NLY")
    begin = CONTRACT - 6 * HOUR
    found = [
        await rows(lab, **asked(each, date_begin=begin, date_end=CONTRACT + DAY))
        for each in (base, *phases)
    ]

    assert len({tuple(map(tuple, each.values())) for each in found}) == 4
    for at, row in found[0].items():
        parts = [each[at] for each in found[1:]]
        assert total(row) == sum(map(total, parts))
        assert [each is None for each in row] == [each is None for each in parts[0]]


async def test_an_ecometer_measures_by_line_and_old_names(lab: Lab) -> None:
    """Lines of electricity, each for itself; not the base, not gas and water, not the new names."""
    base, *lines = household(lab).of_type("NLE")
    begin = NOW - 2 * DAY
    old = of("sum_energy_elec")

    found = [await rows(lab, **asked(each, type=old, date_begin=begin)) for each in lines]
    new = await rows(lab, **asked(lines[0], date_begin=begin))
    whole = await rows(lab, **asked(base, type=old, date_begin=begin))

    assert [bool(each) for each in found] == [True] * 6 + [False] * 3
    assert len({repr(each) for each in found[:6]}) == 6
    assert (new, whole) == ({}, {})


async def test_types_are_known_or_refused(lab: Lab) -> None:
    """No list has it: 400, code 21. Known, but of others: a null column, or nothing at all."""
    meter = only(lab, "NLPC")
    span = {"date_begin": NOW - 5 * HOUR}

    wrong = await lab.get("getmeasure", **asked(meter, **span, type=f"{GRID}$0,voltage"))
    mixed = await rows(lab, **asked(meter, **span, type=f"Temperature,{GRID}$1,{GRID}$11"))
    alone = (await lab.get("getmeasure", **asked(meter, **span, type="temperature,co2"))).json()

    assert error(wrong) == (400, 21)
    assert mixed
    assert all(row[0] is None and row[2] is None for row in mixed.values())
    assert any(row[1] is not None for row in mixed.values())
    assert alone["body"] == []


@pytest.mark.parametrize("kind", ["NLG", "NLV", "NLT", "NBR", "NACamera", "NRV", "NAPlug"])
async def test_what_measures_nothing_has_an_empty_history(lab: Lab, kind: str) -> None:
    device = only(lab, kind)
    for types in (of(GRID), "temperature"):
        answer = await lab.get("getmeasure", **asked(device, type=types))
        assert answer.json()["body"] == []


async def test_a_meter_is_asked_of_its_own_gateway(lab: Lab) -> None:
    meter, relay = only(lab, "NLPC"), only(lab, "NAPlug")

    assert error(await lab.get("getmeasure", **asked(meter, device_id=relay.id))) == (404, 9)
    assert error(await lab.get("getmeasure", **asked(meter, module_id="00:04"))) == (404, 9)


# --- what must be in a store by now ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["NLPC", "NATherm1", "NLY"])
@pytest.mark.parametrize("scale", ["30min", "1day"])
async def test_expected_rows_are_those_that_are_served(lab: Lab, kind: str, scale: str) -> None:
    """Every type of it by name, on the same grid, as many as there are."""
    device, begin = only(lab, kind), NOW // DAY * DAY - 9 * DAY
    params = {"module": device.id, "scale": scale, "begin": str(begin), "end": str(NOW)}

    told = (await lab.http.get("/simulator/expected", params=params)).json()

    types = list(told["rows"][0][1])
    served = await rows(lab, **asked(device, scale=scale, type=",".join(types), date_begin=begin))
    assert told["count"] == len(told["rows"]) == len(served)
    for at, values in told["rows"]:
        assert list(values.values()) == served[at]


async def test_expected_rows_of_a_room_and_of_samples(lab: Lab) -> None:
    """A room by half hours, a thermostat by samples, without being asked for a scale."""
    thermostat = only(lab, "NATherm1")
    for name, step in ((thermostat.room_id, HALF), (thermostat.id, 600)):
        params = {"module": name, "begin": NOW - DAY, "end": NOW}
        told = (await lab.http.get("/simulator/expected", params=params)).json()

        stamps = [at for at, _ in told["rows"]]
        assert {b - a for a, b in pairwise(stamps)} == {step}
        assert told["module"] == name
