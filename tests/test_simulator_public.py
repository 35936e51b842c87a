"""The simulated weather map: who is on it, in which shapes, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from netatmo_ingestd.providers import Reaction, read_refusal
from netatmo_ingestd.simulator.publicdata import CELL, STRANGERS, strangers
from netatmo_ingestd.simulator.server import Plan
from tests.clocks import START
from tests.labs import Lab, error

NOW = int(START)
# Around the first station, which stands at 47.2184 north and 1.5536 west; six cells of 0.1 degrees.
AREA = {"lat_ne": "47.29999", "lon_ne": "-1.40001", "lat_sw": "47.1", "lon_sw": "-1.6"}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=2, days=30, origin=START, password_grant=True))
    async with lab.http:
        await lab.login()
        yield lab


async def shown(lab: Lab, **params: Any) -> list[Any]:
    answer = await lab.get("getpublicdata", **{**AREA, **params})
    assert answer.status_code == 200, answer.text
    body: list[Any] = answer.json()["body"]
    return body


async def login_with(lab: Lab, scope: str) -> None:
    user = lab.accounts[0]
    form: dict[str, Any] = {"username": user.user, "password": user.password, "scope": scope}
    lab.access = (await lab.token("password", **form)).json()["access_token"]


async def test_own_stations_and_strangers_of_the_area(lab: Lab) -> None:
    """The account's station that stands there, and a fixed number of strangers in each cell."""
    found = {each["_id"]: each for each in await shown(lab)}

    own = set(lab.world.stations)
    assert set(found) & own == {lab.station.id}
    assert len(set(found) - own) == STRANGERS * 4
    for each in found.values():
        longitude, latitude = each["place"]["location"]
        assert -1.6 <= longitude <= -1.4
        assert 47.1 <= latitude <= 47.3


async def test_strangers_are_the_same_every_time(lab: Lab) -> None:
    """Whoever asks, whenever, by whatever part of the area: a station is a function of the seed."""
    whole = await shown(lab)
    again = [
        each
        for west, east in (("-1.6", "-1.50001"), ("-1.5", "-1.40001"))
        for each in await shown(lab, lon_sw=west, lon_ne=east)
    ]

    assert sorted(each["_id"] for each in again) == sorted(each["_id"] for each in whole)
    assert {str(each) for each in again} == {str(each) for each in whole}


async def test_every_shape_of_measures(lab: Lab) -> None:
    """Pressure under the station itself, climate, rain and wind; indoor modules are private."""
    found = await shown(lab)

    shapes = set()
    for each in found:
        assert set(each["modules"]) == set(each["module_types"])
        assert set(each["measures"]) == {each["_id"], *each["modules"]}
        assert each["measures"][each["_id"]]["type"] == ["pressure"]
        shapes |= {
            (each["module_types"].get(name, "NAMain"), *sorted(told))
            for name, told in each["measures"].items()
        }
    assert shapes == {
        ("NAMain", "res", "type"),
        ("NAModule1", "res", "type"),
        ("NAModule2", "gust_angle", "gust_strength", "wind_angle", "wind_strength", "wind_timeutc"),
        ("NAModule3", "rain_24h", "rain_60min", "rain_live", "rain_timeutc"),
    }


async def test_own_values_are_those_of_the_history(lab: Lab) -> None:
    """The map shows the newest visible row of a module, at its time."""
    (mine,) = [each for each in await shown(lab) if each["_id"] == lab.station.id]

    for module in lab.station.all:
        if module.type == "NAModule4":
            assert module.id not in mine["measures"]
            continue
        at, values = lab.world.samples(module.id, NOW - 3600, NOW, NOW)[-1]
        told = mine["measures"][module.id]
        if module.type == "NAModule1":
            assert told["res"] == {str(at): [values["Temperature"], values["Humidity"]]}
        elif module.type == "NAModule2":
            assert (told["wind_timeutc"], told["wind_strength"], told["gust_angle"]) == (
                at,
                values["WindStrength"],
                values["GustAngle"],
            )
        elif module.type == "NAModule3":
            hour = [v["Rain"] for t, v in lab.world.samples(module.id, at - 3599, at, NOW)]
            assert told["rain_timeutc"] == at
            assert told["rain_60min"] == pytest.approx(sum(map(float, hour)))
            assert told["rain_live"] == pytest.approx(float(values["Rain"]) * 12)
        else:
            assert told["res"] == {str(at): [values["Pressure"]]}


@pytest.mark.parametrize(
    ("required", "kinds"),
    [("rain", {"NAModule3"}), ("wind", {"NAModule2"}), ("rain,wind", {"NAModule2", "NAModule3"})],
)
async def test_required_data(lab: Lab, required: str, kinds: set[str]) -> None:
    """Only stations that have all of what is required; those are whole."""
    every = await shown(lab)

    found = await shown(lab, required_data=required)

    assert found == [each for each in every if kinds <= set(each["module_types"].values())]
    assert 0 < len(found) < len(every)


async def test_filter_leaves_out_who_measures_nonsense(lab: Lab) -> None:
    """A thermometer in the sun; of the others nothing changes, and no history does."""
    every = await shown(lab)
    (outdoor,) = [each for each in lab.station.all if each.type == "NAModule1"]
    before = (await lab.devices())[0]
    await lab.arm("public_outlier", module=lab.station.id)

    plain, filtered = await shown(lab), await shown(lab, filter="true")

    def temperature(found: list[Any]) -> float:
        (mine,) = [each for each in found if each["_id"] == lab.station.id]
        ((value, _),) = mine["measures"][outdoor.id]["res"].values()
        return float(value)

    assert temperature(plain) == pytest.approx(temperature(every) + 30)
    others = [each for each in every if each["_id"] != lab.station.id]
    assert filtered == others == [each for each in plain if each["_id"] != lab.station.id]
    assert await shown(lab, filter="false") == plain
    assert (await lab.devices())[0] == before


async def test_a_large_area_is_sampled(lab: Lab) -> None:
    """Some stations of a tile are missing when the whole is asked at once, the same each time."""
    wide = {**AREA, "lat_ne": "48.0", "lon_ne": "-1.0"}

    found = await shown(lab, **wide)

    some = {each["_id"] for each in found}
    assert {each["_id"] for each in await shown(lab)} - some
    assert some == {each["_id"] for each in await shown(lab, **wide)}


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"lat_ne": ""}, (400, 10)),
        ({"lat_ne": "47.0"}, (400, 21)),
        ({"lon_ne": "-1.7"}, (400, 21)),
        ({"lat_ne": "85.5"}, (400, 21)),
        ({"lon_sw": "-181"}, (400, 21)),
        ({"lon_sw": "west"}, (400, 21)),
        ({"lon_sw": "nan"}, (400, 21)),
        ({"required_data": "snow"}, (400, 21)),
    ],
)
async def test_an_area_that_is_none(
    lab: Lab, params: dict[str, str], told: tuple[int, int]
) -> None:
    """Corners have their ranges and their order."""
    assert error(await lab.get("getpublicdata", **{**AREA, **params})) == told


@pytest.mark.parametrize("scope", ["read_station", "read_magellan", "access_camera"])
async def test_any_login_will_do(lab: Lab, scope: str) -> None:
    """The map has no scope of its own, but it takes a login."""
    await login_with(lab, scope)

    assert await shown(lab)

    lab.access = "nonsense"
    assert error(await lab.get("getpublicdata", **AREA)) == (403, 2)


async def test_what_stands_behind_it_may_be_away(lab: Lab) -> None:
    """The recorded failure, of the map alone; a client reads it as one that passes."""
    await lab.arm("public_upstream", count=1)

    assert (await lab.get("getstationsdata")).status_code == 200
    answer = await lab.get("getpublicdata", **AREA)

    told = answer.json()["error"]
    assert told["message"].startswith("failed to connect to server")
    assert read_refusal(answer.status_code, told["code"], told["message"]) is Reaction.RETRY
    assert await shown(lab)


async def test_a_stranger_that_is_silent_is_not_shown(lab: Lab) -> None:
    """World faults reach strangers, too: who does not upload leaves the map."""
    stranger = next(each for each in await shown(lab) if each["_id"] not in lab.world.stations)
    await lab.arm("unreachable", module=stranger["_id"])
    lab.clock.advance(5 * 3600)
    await login_with(lab, "read_station")

    assert stranger["_id"] not in {each["_id"] for each in await shown(lab)}


def test_cells_share_nobody() -> None:
    """Neighbouring cells have stations of their own, each inside its cell."""
    ids = []
    for row, column in ((471, -16), (471, -15), (-1, 0), (0, 0)):
        world = strangers(7, NOW, row, column)
        ids += list(world.stations)
        for station in world.stations.values():
            longitude, latitude = station.place.location
            assert row * CELL <= latitude < (row + 1) * CELL + 1e-9
            assert column * CELL <= longitude < (column + 1) * CELL + 1e-9
    assert len(set(ids)) == 4 * STRANGERS
