"""History of simulated thermostats and rooms: samples, buckets, boiler seconds, scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.simulator import lives
from tests.clocks import START
from tests.households import GRID, asked, household, lab_of, login_with, only, rows
from tests.labs import Lab, error

NOW = int(START)
DAY, HOUR, HALF = 86_400, 3_600, lives.HALF
PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = lab_of(tmp_path)
    async with lab.http:
        await lab.login()
        yield lab


# --- thermostats ----------------------------------------------------------------------------------

WARMTH = "temperature,sp_temperature,boileron,boileroff"


@pytest.mark.parametrize("kind", ["NATherm1", "OTM"])
async def test_a_thermostat_has_a_sample_each_ten_minutes(lab: Lab, kind: str) -> None:
    """Temperature and set-point of its room; seconds on and off make ten minutes."""
    device, begin = only(lab, kind), NOW - DAY
    room = next(each for each in household(lab).rooms if each.id == device.room_id)

    found = await rows(lab, **asked(device, scale="max", type=WARMTH, date_begin=begin))

    assert len(found) == 144
    for at, (warmth, target, on, off) in found.items():
        assert warmth == lives.temperature(room, at)
        assert target == lives.setpoint(room, PARIS, at)[0]
        assert on + off == 600
        assert on == lives.boiler_on_seconds(device, at - 600, at)
    stamps = list(found)
    span = lives.boiler_on_seconds(device, stamps[0] - 600, stamps[-1])
    assert sum(row[2] for row in found.values()) == span > 0


@pytest.mark.parametrize("scale", ["30min", "1hour", "3hours", "1day"])
async def test_the_boiler_of_a_bucket_is_that_of_its_samples(lab: Lab, scale: str) -> None:
    """sum_boiler_on and …off; temperatures with their extremes."""
    device, begin = only(lab, "NATherm1"), NOW // DAY * DAY - 3 * DAY
    samples = await rows(
        lab, **asked(device, scale="max", type=WARMTH, date_begin=begin - DAY, date_end=NOW)
    )
    types = "sum_boiler_on,sum_boiler_off,min_temp,max_temp,temperature"

    found = await rows(
        lab, **asked(device, scale=scale, type=types, date_begin=begin, date_end=begin + DAY)
    )

    first, second, *_ = found
    width = second - first
    starts = [*found, max(found) + width]
    for (at, row), end in zip(found.items(), starts[1:], strict=True):
        inside = [each for stamp, each in samples.items() if at <= stamp < end]
        assert row[0] == sum(each[2] for each in inside)
        assert row[1] == sum(each[3] for each in inside)
        assert row[2] == min(each[0] for each in inside)
        assert row[3] == max(each[0] for each in inside)
        assert row[2] <= row[4] <= row[3]


async def test_a_long_bucket_tells_when_it_was_coldest(lab: Lab) -> None:
    device, begin = only(lab, "NATherm1"), NOW // DAY * DAY - 3 * DAY
    types = "min_temp,date_min_temp,max_temp,date_max_temp"
    samples = await rows(lab, **asked(device, scale="max", type=WARMTH, date_begin=begin - DAY))

    found = await rows(lab, **asked(device, scale="1day", type=types, date_begin=begin))
    hours = await rows(lab, **asked(device, scale="1hour", type=types, date_begin=begin))

    for least, coldest, most, warmest in list(found.values())[1:]:
        assert samples[coldest][0] == least
        assert samples[warmest][0] == most
    assert all(row[1] is row[3] is None for row in hours.values())


# --- rooms ----------------------------------------------------------------------------------------


def of_room(lab: Lab, kind: str, **params: Any) -> dict[str, Any]:
    plain = {"home_id": household(lab).home_id, "room_id": only(lab, kind).room_id}
    types = "temperature,sp_temperature,min_temp,max_temp"
    shape = {"scale": "30min", "optimize": "false", "real_time": "true", "type": types}
    return {**plain, **shape, **params}


@pytest.mark.parametrize("kind", ["NATherm1", "NRV", "OTM", "BNS", "NAC"])
async def test_each_warmed_room_has_a_history(lab: Lab, kind: str) -> None:
    """Half hours of samples of ten minutes, by the curves of the room."""
    room = next(each for each in household(lab).rooms if each.id == only(lab, kind).room_id)
    begin = NOW // DAY * DAY - DAY

    found = await rows(
        lab, "getroommeasure", **of_room(lab, kind, date_begin=begin, date_end=begin + 6 * HOUR - 1)
    )

    assert list(found) == list(range(begin, begin + 6 * HOUR, HALF))
    for at, row in found.items():
        inside = list(lives.sample_times(room.salt, at, at + HALF - 1))
        warmth = [lives.temperature(room, each) for each in inside]
        assert len(inside) == 3
        assert (row[2], row[3]) == (min(warmth), max(warmth))
        assert row[2] <= row[0] <= row[3]
        targets = [lives.setpoint(room, PARIS, each)[0] for each in inside]
        assert min(targets) <= row[1] <= max(targets)


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({"scale": "max"}, (400, 21)),
        ({"type": "temperature,warmth"}, (400, 21)),
        ({"room_id": "1"}, (400, 21)),
        ({"home_id": "f" * 24}, (400, 21)),
        ({"home_id": ""}, (400, 10)),
        ({"type": ""}, (400, 10)),
        ({"date_begin": "soon"}, (400, 25)),
    ],
)
async def test_a_room_is_asked_properly(lab: Lab, params: Any, refusal: Any) -> None:
    answer = await lab.get("getroommeasure", **of_room(lab, "NRV", **params))

    assert error(answer) == refusal


async def test_a_room_without_heating_is_empty(lab: Lab) -> None:
    """Known types that do not apply, and rooms that nothing measures, give an empty body."""
    boiler = of_room(lab, "NRV", type="boileron")

    assert (await lab.get("getroommeasure", **boiler)).json()["body"] == []


@pytest.mark.parametrize(
    ("scope", "kind", "seen"),
    [
        ("read_thermostat", "NRV", True),
        ("read_thermostat", "BNS", False),
        ("read_smarther", "BNS", True),
        ("read_smarther", "NRV", False),
    ],
)
async def test_a_room_takes_the_scope_of_what_is_in_it(
    lab: Lab, scope: str, kind: str, seen: bool
) -> None:
    await login_with(lab, scope)
    answer = await lab.get("getroommeasure", **of_room(lab, kind))

    assert answer.status_code == (200 if seen else 403)


@pytest.mark.parametrize(
    ("scope", "kind"), [("read_magellan", "NATherm1"), ("read_thermostat", "NLPC")]
)
async def test_history_takes_the_scope_of_the_device(lab: Lab, scope: str, kind: str) -> None:
    await login_with(lab, scope)

    answer = await lab.get("getmeasure", **asked(only(lab, kind), type=f"temperature,{GRID}$1"))

    assert error(answer) == (403, 13)
