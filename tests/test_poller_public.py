"""Public stations beside an account's own: each tile is a poll, what is known stays what it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from netatmo_ingestd import records
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.polls import Poll, Reply
from netatmo_ingestd.settings import AccountSettings, PublicArea
from netatmo_ingestd.sources.quantities import UPSTREAM
from netatmo_ingestd.sources.weather import MODULE_TYPES, WEATHER
from tests.test_poller import (
    GARDEN,
    RAIN,
    STATION,
    Call,
    Cloud,
    House,
    opened,
    refusal,
    small_ballast,
)

__all__ = ["small_ballast"]  # a fixture

AREA = PublicArea(lat_ne=48.7, lon_ne=2.5, lat_sw=48.5, lon_sw=2.1)  # two tiles
FOREIGN, FOREIGN_GARDEN = "70:ee:50:00:00:77", "02:00:00:00:00:77"
BOTH = ("weather", "public")
GAUGE = MODULE_TYPES["NAModule3"].history


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
        assert [call.params["lon_sw"] for call in asked] == ["2.1", "2.3"]
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


async def test_rain_of_the_map_is_not_the_rain_of_an_own_gauge(tmp_path: Path) -> None:
    """A public row of an own gauge adds to the row of its dashboard, and writes nothing over."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        town(house)
        moment = int(house.clock.time()) - 60
        rain = {"rain_live": 1.2, "rain_60min": 0.3, "rain_24h": 4.1, "rain_timeutc": moment}
        shown = [{"_id": STATION, "measures": {RAIN: rain}}]
        house.cloud.answers["home", "getpublicdata"] = [
            httpx.Response(200, json={"body": shown, "time_server": moment + 60})
        ]
        await house.poller.once()

        row = (await public_rows(house))[RAIN]

        assert row["module_type"] == "NAModule3"
        assert row["values"] == {"rain_live": 1.2, "rain_last_hour": 0.3, "rain_last_day": 4.1}
        assert not set(row["values"]) & {UPSTREAM[each.lower()] for each in GAUGE}


@pytest.mark.parametrize("gone", [False, True])
async def test_a_map_of_one_account_hides_no_news_of_another(tmp_path: Path, gone: bool) -> None:
    """That a station was a stranger's to one account is no reason not to tell that it was added."""
    async with opened(tmp_path, products=BOTH, area=AREA) as house:
        cloud = town(house)
        cloud.answers["home", "getstationsdata"] = [httpx.Response(500)] * 4
        await house.poller.once()
        assert house.home.intake.entities("home")[STATION].kind == "station"
        other = AccountSettings(name="other", products=("weather",))
        intake = Intake(
            settings=other,
            spool=house.spool,
            memory=house.memory,
            ledger=house.home.intake._ledger,
            log=house.log,
        )
        begun = house.clock.now()

        for day in range(1, 6 if gone else 2):
            moment = begun + timedelta(days=day)
            devices = cloud.stations()["devices"] if day == 1 else [{"_id": "70:ee:50:00:00:09"}]
            reply = Reply({"devices": devices}, moment, moment, b"{}")
            await intake.take(reply, Poll(WEATHER.endpoints[0], "other"), timedelta(minutes=10))

        told = []
        for batch in await house.spool.oldest_batches(10_000, 1 << 30):
            told += [
                each["what"]
                for each in records.unpack(batch.body)[0]
                if each["record"] == "Change" and each["entity_id"] == STATION
            ]
        assert told == (["added", "vanished"] if gone else ["added"])
