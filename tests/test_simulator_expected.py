"""What /simulator/expected tells of buckets: the control route and getmeasure agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from netatmo_ingestd.simulator import columns
from netatmo_ingestd.simulator.server import Plan
from netatmo_ingestd.simulator.world import DAY, Module
from tests.clocks import START
from tests.labs import Lab

NOW = int(START)
ZONE = "America/St_Johns"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=1, days=1_500, origin=START, timezones=(ZONE,)))
    async with lab.http:
        await lab.login()
        yield lab


async def expected(lab: Lab, module: Module, **query: Any) -> dict[int, dict[str, Any]]:
    answer = await lab.http.get("/simulator/expected", params={"module": module.id, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == len(answer.json()["rows"])
    return dict(answer.json()["rows"])


async def measured(
    lab: Lab, module: Module, scale: str, types: tuple[str, ...], **window: Any
) -> dict[int, dict[str, Any]]:
    query = {"device_id": module.station, "module_id": module.id, "type": ",".join(types)}
    query |= {"scale": scale, "optimize": "false", "real_time": "true"}
    body = (await lab.get("getmeasure", **query, **window)).json()["body"]
    return {int(at): dict(zip(types, values, strict=True)) for at, values in body.items()}


@pytest.mark.parametrize("scale", ["30min", "1day", "1week", "1month"])
async def test_expected_buckets_are_those_that_getmeasure_gives(lab: Lab, scale: str) -> None:
    """For every module, type by type and value by value, a hole included."""
    await lab.arm("gap", begin=NOW - 9 * DAY, end=NOW - 6 * DAY)
    begin = (NOW - 19 * DAY) // 1_800 * 1_800

    for module in lab.station.all:
        types = columns.names(scale, module.fields)
        rows = await expected(lab, module, scale=scale, begin=begin, end=NOW)
        given = await measured(lab, module, scale, types, date_begin=begin, date_end=NOW)

        assert rows == given
        assert rows


async def test_a_day_has_mean_extremes_and_their_times(lab: Lab) -> None:
    """The names are those of getmeasure; min and max were measured at the times told."""
    outdoor, wind, rain = lab.station.modules[:3]

    days = await expected(lab, outdoor, scale="1day", begin=NOW - 3 * DAY, end=NOW)

    at, day = sorted(days.items())[1]
    samples = dict(lab.world.samples(outdoor.id, at, at + DAY - 1))
    temperatures = [values["Temperature"] for values in samples.values()]
    assert list(day) == [
        *("temperature", "min_temp", "max_temp", "date_min_temp", "date_max_temp"),
        *("humidity", "min_hum", "max_hum", "date_min_hum", "date_max_hum"),
    ]
    assert (day["min_temp"], day["max_temp"]) == (min(temperatures), max(temperatures))
    assert samples[day["date_max_temp"]]["Temperature"] == day["max_temp"]
    for module, names in ((wind, {"windstrength", "date_max_gust"}), (rain, {"rain", "sum_rain"})):
        [other] = (await expected(lab, module, scale="1day", begin=at, end=at)).values()
        assert names <= set(other)


async def test_expected_days_have_no_limit(lab: Lab) -> None:
    """1,500 days come at once, each beginning at the local midnight; getmeasure gives 1,024."""
    rain = lab.station.modules[2]

    rows = await expected(lab, rain, scale="1day")
    page = await measured(lab, rain, "1day", ("sum_rain",), date_begin=rain.setup)

    assert len(rows) == 1_501
    assert list(page) == list(rows)[:1_024]


async def test_a_scale_that_is_none_is_refused(lab: Lab) -> None:
    """One line names those there are."""
    query = {"module": lab.station.id, "scale": "2days"}

    answer = await lab.http.get("/simulator/expected", params=query)

    assert answer.status_code == 400
    assert "'2days' is none of max, 30min" in answer.json()["error"]
