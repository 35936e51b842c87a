"""The journal of data calls: /simulator/requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from netatmo_ingestd.simulator.journal import KEPT, Journal
from netatmo_ingestd.simulator.server import Plan
from tests.clocks import START
from tests.labs import Lab

NOW = int(START)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=1, days=30, origin=START))
    async with lab.http:
        await lab.login()
        yield lab


async def requests(lab: Lab, **query: Any) -> Any:
    answer = await lab.http.get("/simulator/requests", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_call_is_told_with_what_it_asked_and_brought(lab: Lab) -> None:
    """Arguments as sent, status, and the number and ends of the rows shown; no token call."""
    module, user = lab.station.modules[0], lab.accounts[0].user
    query = {"device_id": lab.station.id, "module_id": module.id, "type": "humidity"}
    window = {"date_begin": NOW - 7_200, "date_end": NOW}
    body = (await lab.get("getmeasure", **query, scale="max", **window)).json()["body"]
    lab.clock.advance(5)
    await lab.get("getstationsdata")

    first, second = await requests(lab)

    rows = lab.world.samples(module.id, NOW - 7_200, NOW, NOW)
    assert sum(len(segment["value"]) for segment in body) == len(rows)
    who = {"purpose": "live", "account": user, "status": 200}
    asked = {"module": module.id, "scale": "max", "begin": NOW - 7_200, "end": NOW}
    brought = {"rows": len(rows), "first": rows[0][0], "last": rows[-1][0]}
    assert first == {"index": 0, "at": START, "endpoint": "getmeasure", **who, **asked, **brought}
    nothing = dict.fromkeys(("module", "scale", "begin", "end", "first", "last"))
    told = {"index": 1, "at": START + 5, "endpoint": "getstationsdata", "rows": 0}
    assert second == {**told, **who, **nothing}


async def test_refused_and_spoiled_calls_are_told_too(lab: Lab) -> None:
    """The status is the one sent; `last` stays text, and a main device is its own module."""
    query = {"device_id": lab.station.id, "scale": "max", "type": "co2", "date_end": "last"}
    await lab.arm("http", status=502, count=1)
    await lab.get("getmeasure", **query)
    await lab.get("getmeasure", **query)
    await lab.get("getmeasure", **{**query, "device_id": "70:ee:50:00:00:00"})
    lab.access = "x"
    await lab.get("getmeasure", **query)

    told = await requests(lab)

    assert [(each["status"], each["rows"]) for each in told] == [
        (502, 0),
        (200, 1),
        (404, 0),
        (403, 0),
    ]
    assert (told[1]["module"], told[1]["begin"], told[1]["end"]) == (lab.station.id, None, "last")
    assert [each["account"] for each in told] == [lab.accounts[0].user] * 3 + [""]


async def test_the_journal_can_be_read_on_from_an_index(lab: Lab) -> None:
    """`since` is the first index wanted, `purpose` picks; counts of traffic are as before."""
    for purpose in ("live", "backfill", "live", "backfill"):
        headers = {"Authorization": f"Bearer {lab.access}", "X-Ingest-Purpose": purpose}
        await lab.http.get("/api/getstationsdata", headers=headers)

    picked = [
        [each["index"] for each in await requests(lab, **query)]
        for query in ({}, {"since": 2}, {"purpose": "backfill"}, {"purpose": "live", "since": 1})
    ]

    assert picked == [[0, 1, 2, 3], [2, 3], [1, 3], [2]]
    assert (await lab.stats())["by_purpose"] == {"live": 2, "backfill": 2}
    assert (await lab.http.get("/simulator/requests?since=x")).status_code == 400


def test_only_the_last_calls_are_kept() -> None:
    """Beyond 20,000 the oldest go; indices go on."""
    journal = Journal()
    for number in range(KEPT + 5):
        journal.add(
            at=number,
            purpose="",
            endpoint="getmeasure",
            account="",
            params=(),
            status=200,
            stamps=(number, number + 1),
        )

    kept = journal.since(0)

    assert (len(kept), kept[0]["index"], kept[-1]["index"]) == (20_000, 5, KEPT + 4)
    assert [each["first"] for each in journal.since(KEPT + 3)] == [KEPT + 3, KEPT + 4]
