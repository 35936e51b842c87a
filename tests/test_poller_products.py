"""Two product lines of one account: each is polled, and neither stops the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from netatmo_ingestd.settings import AccountSettings
from tests.test_poller import (
    GARDEN,
    STATION,
    Call,
    Cloud,
    House,
    opened,
    refusal,
    small_ballast,
)

__all__ = ["small_ballast"]  # a fixture

COACH = "70:ee:50:00:00:0f"
BOTH = ("weather", "aircare")
TYPES = "Temperature,CO2,Humidity,Noise,Pressure"


class Airy(Cloud):
    """The same home with an air quality monitor."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        endpoint = request.url.path.rpartition("/")[2]
        if endpoint != "gethomecoachsdata" or self.answers.get(("home", endpoint)):
            return await super().__call__(request)
        self.calls.append(Call("home", endpoint, {}, self.clock.time()))
        body = {"devices": [{"_id": COACH, "type": "NHC", "station_name": "Nursery"}]}
        return httpx.Response(200, json={"body": body, "time_server": int(self.clock.time())})


def airy(house: House) -> Cloud:
    house.cloud.__class__ = Airy
    return house.cloud


async def rounds(house: House, count: int) -> None:
    for _ in range(count):
        await house.poller.once()
        house.clock.advance(1800)


async def test_both_lines_are_polled_and_counted(tmp_path: Path) -> None:
    """A dashboard call each, a trailing read for each module, and the budget knows of all."""
    async with opened(tmp_path, products=BOTH) as house:
        cloud = airy(house)

        assert await house.poller.once() == []

        assert [cloud.count(each) for each in ("getstationsdata", "gethomecoachsdata")] == [1, 1]
        assert [call.params["type"] for call in cloud.reads(COACH)] == [TYPES]
        assert house.budget.usage("home").planned == pytest.approx(6 + 6 + 4 * 2)
        assert {f"home|getmeasure|{each}" for each in (STATION, COACH)} <= set(house.poller._jobs)


@pytest.mark.parametrize(
    ("missing", "refused", "read"),
    [
        (["gethomecoachsdata"], "gethomecoachsdata", {STATION: 3, COACH: 0}),
        (["getstationsdata"], "getstationsdata", {STATION: 0, COACH: 3}),
        ([COACH], "getmeasure aircare", {STATION: 3, COACH: 1}),
        # A station and its first module share the refusal: one of them finds it out.
        ([GARDEN, STATION, "05:00:00:00:00:01"], "getmeasure weather", {GARDEN: 1, COACH: 3}),
    ],
)
async def test_a_scope_missing_for_one_line_leaves_the_other_alone(
    tmp_path: Path, missing: list[str], refused: str, read: dict[str, int]
) -> None:
    """A 403 with code 13 costs the calls of that product, be it a dashboard or its history."""
    async with opened(tmp_path, products=BOTH) as house:
        cloud = airy(house)
        for name in missing:
            cloud.answers["home", name] = [refusal(403, 13)] * 9

        await rounds(house, 3)

        assert set(house.home.refused) == {refused}
        if GARDEN in read:
            family = [cloud.count(each) for each in (STATION, GARDEN, "05:00:00:00:00:01")]
            assert sorted(family) == [0, 0, 1]
            read = {COACH: read[COACH]}
        assert {each: cloud.count(each) for each in read} == read
        assert house.log.count("poll.refused") == 1


async def test_a_product_that_is_taken_out_is_not_read_any_more(tmp_path: Path) -> None:
    """Its modules are remembered on disk, but they are nobody's business after a restart."""
    async with opened(tmp_path, products=BOTH) as house:
        airy(house)
        await house.poller.once()
        intake: Any = house.home.intake
        assert COACH in intake.modules("home")

        again = type(intake)(
            settings=AccountSettings(name="home", products=("weather",)),
            spool=house.spool,
            memory=house.memory,
            ledger=intake._ledger,
            log=house.log,
        )

        assert COACH not in again.modules("home")
        assert {STATION, GARDEN} <= set(again.modules("home"))
