"""Public stations beside an account's own: each tile is a poll, what is known stays what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from netatmo_ingestd import records
from netatmo_ingestd.settings import PublicArea
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

AREA = PublicArea(lat_ne=48.9, lon_ne=2.9, lat_sw=48.5, lon_sw=2.1)  # two tiles
FOREIGN, FOREIGN_GARDEN = "70:ee:50:00:00:77", "02:00:00:00:00:77"
BOTH = ("weather", "public")


class Town(Cloud):
    """The same home, and in each tile a station; in the first it is the home's own."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        endpoint = request.url.path.rpartition("/")[2]
        if endpoint != "getpublicdata" or self.answers.get(("home", endpoint)):
            return await super().__call__(request)
        call = Call("home", endpoint, dict(request.url.params), self.clock.time())
        self.calls.append(call)
        now = int(self.clock.time())
        own = call.params["lon_sw"] == "2.1"
        station, garden = (STATION, GARDEN) if own else (FOREIGN, FOREIGN_GARDEN)
        body = [
            {
                "_id": station,
                "place": {"location": [2.3, 48.8], "altitude": 30},
                "measures": {garden: {"res": {str(now): [11.5]}, "type": ["temperature"]}},
            }
        ]
        return httpx.Response(200, json={"body": body, "time_server": now})


def town(house: House) -> Cloud:
    house.cloud.__class__ = Town
    return house.cloud


async def public_rows(house: House) -> dict[str, dict[str, Any]]:
    found = []
    for batch in await house.spool.oldest_batches(10_000, 1 << 30):
        found += records.unpack(batch.body)[0]
    return {each["module_id"]: each for each in found if each.get("source") == "getpublicdata"}


async def test_each_tile_is_a_poll_and_is_planned(tmp_path: Path) -> None:
    """Two tiles, two calls a turn, after the account's own; the budget knows of both."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        cloud = town(house)

        assert await house.poller.once() == []

        asked = [call for call in cloud.calls if call.endpoint == "getpublicdata"]
        assert [call.params["lon_sw"] for call in asked] == ["2.1", "2.5"]
        assert all(set(call.params) == {"lat_ne", "lon_ne", "lat_sw", "lon_sw"} for call in asked)
        assert cloud.calls[0].endpoint == "getstationsdata"
        assert house.budget.usage("home").planned == pytest.approx(6 + 2 * 6 + 3 * 2)


async def test_own_modules_stay_what_they_are(tmp_path: Path) -> None:
    """A public row of an own module has its home and type; the own station is no public one."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        town(house)

        await house.poller.once()

        rows = await public_rows(house)
        entities = house.home.intake.entities("home")
        assert (rows[GARDEN]["home_id"], rows[GARDEN]["module_type"]) == ("home1", "NAModule1")
        assert rows[FOREIGN_GARDEN]["home_id"] == ""
        assert rows[FOREIGN_GARDEN]["module_type"] == "public"
        assert STATION in house.home.intake.modules("home")
        assert FOREIGN not in house.home.intake.modules("home")
        assert (entities[STATION].kind, entities[FOREIGN].kind) == ("module", "station")


async def test_public_first_does_not_take_an_own_station(tmp_path: Path) -> None:
    """Even when the dashboard was away at first, the own station has its history afterwards."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        cloud = town(house)
        cloud.answers["home", "getstationsdata"] = [httpx.Response(500)] * 4
        await house.poller.once()
        assert house.home.intake.entities("home")[STATION].kind == "station"

        house.clock.advance(600)
        await house.poller.once()

        assert house.home.intake.entities("home")[STATION].kind == "module"
        assert cloud.reads(STATION)
        assert not cloud.reads(FOREIGN)


async def test_a_refusal_costs_the_public_stations_alone(tmp_path: Path) -> None:
    """One tile finds it out, the other is not asked; the account's own goes on."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        cloud = town(house)
        cloud.answers["home", "getpublicdata"] = [refusal(403, 13)] * 9

        await house.poller.once()
        house.clock.advance(600)
        await house.poller.once()

        assert cloud.count("getpublicdata") == 1
        assert cloud.count("getstationsdata") == 2
        assert set(house.home.refused) == {"getpublicdata"}
