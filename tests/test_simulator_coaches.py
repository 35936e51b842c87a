"""Simulated air quality monitors: their values, what is told of them, and who may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator.curves import health_index
from netatmo_ingestd.simulator.server import Plan, build
from netatmo_ingestd.simulator.world import DAY, World
from tests.clocks import START
from tests.labs import Lab, error

NOW = int(START)
BOTH = "read_station read_homecoach"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=1, coaches=2, days=30, origin=START, password_grant=True))
    async with lab.http:
        await lab.login()
        yield lab


async def coaches(lab: Lab, **params: Any) -> Any:
    return (await lab.get("gethomecoachsdata", **params)).json()["body"]["devices"]


async def login_with(lab: Lab, scope: str) -> None:
    user = lab.accounts[0]
    form: dict[str, Any] = {"username": user.user, "password": user.password, "scope": scope}
    lab.access = (await lab.token("password", **form)).json()["access_token"]


def history(coach: str, **more: Any) -> dict[str, Any]:
    return {"device_id": coach, "scale": "max", "optimize": "false", "type": "co2,noise", **more}


# --- the world ----------------------------------------------------------------------------------


def test_coaches_leave_the_stations_as_they_are() -> None:
    """With and without them a seed has the same stations, values and uploads."""
    plain, more = World(7, 2, origin=NOW, days=3), World(7, 2, origin=NOW, days=3, coaches=3)

    assert more.stations == plain.stations
    assert more.modules()[: len(plain.modules())] == plain.modules()
    for module in plain.modules():
        seen = [each.samples(module.id, NOW - DAY, NOW, NOW) for each in (plain, more)]
        assert seen[0] == seen[1]


def test_a_coach_stands_in_a_home_with_an_id_of_its_own() -> None:
    """It reports through itself, from the home of a station, where the air pressure is the same."""
    world = World(7, 2, origin=NOW, days=3, coaches=3)

    found = list(world.coaches.values())

    assert len(world.by_id) == 2 * 7 + 3
    assert {coach.id[:8] for coach in found} == {"70:ee:50"}
    assert all(coach.all == (coach.main,) and coach.main.station == coach.id for coach in found)
    assert [c.home_id for c in found] == [[*world.stations.values()][n].home_id for n in (0, 1, 0)]
    at, sample = world.samples(found[0].id, NOW - DAY, NOW)[100]
    near = world.samples(next(iter(world.stations)), at - 300, at + 300)
    pressures = [values["Pressure"] for _, values in near]
    assert min(pressures) - 0.2 <= sample["Pressure"] <= max(pressures) + 0.2


@pytest.mark.parametrize(
    ("air", "index"),
    [
        ((700, 50, 35), 0),
        ((900, 50, 35), 1),
        ((1399, 50, 35), 2),
        ((1500, 50, 35), 3),
        ((1600, 50, 35), 4),
        ((700, 61, 35), 1),
        ((700, 29, 35), 2),
        ((700, 95, 35), 4),
        ((700, 50, 64), 2),
        ((1000, 50, 70), 4),
    ],
)
def test_the_index_is_the_worst_of_three(air: tuple[int, int, int], index: int) -> None:
    """CO2, humidity and noise each have their steps."""
    assert health_index(*air) == index


def test_each_sample_has_the_index_of_its_air() -> None:
    """It is between 0 and 4, follows the rule, and is not always the same."""
    world = World(7, 1, origin=NOW, days=30, coaches=1)
    coach = next(iter(world.coaches))

    samples = [values for _, values in world.samples(coach, NOW - 10 * DAY, NOW)]

    assert len(samples) == pytest.approx(2_880, abs=2)
    assert all(
        each["health_idx"] == health_index(each["CO2"], each["Humidity"], each["Noise"])
        for each in samples
    )
    assert len({each["health_idx"] for each in samples}) >= 2


# --- what is told -------------------------------------------------------------------------------


async def test_the_dashboard_shows_the_newest_uploaded_sample(lab: Lab) -> None:
    """Field by field, the pressure at the device's altitude included; no trends, no modules."""
    for device in await coaches(lab):
        coach = lab.world.coaches[device["_id"]]
        at, values = lab.world.samples(coach.id, NOW - 3_600, NOW, NOW)[-1]
        board = device["dashboard_data"]

        assert {name: board[name] for name in values} == values
        assert board["time_utc"] == at
        assert board["AbsolutePressure"] < board["Pressure"]
        assert (device["type"], device["station_name"]) == ("NHC", coach.main.name)
        assert not {"modules", "home_id", "home_name"} & set(device)
        assert not {name for name in board if name.endswith("_trend")}


async def test_one_coach_can_be_asked_for(lab: Lab) -> None:
    """By its id; an unknown one is refused as the cloud does."""
    first, second = lab.world.coaches

    assert [each["_id"] for each in await coaches(lab)] == [first, second]
    assert [each["_id"] for each in await coaches(lab, device_id=second)] == [second]
    assert error(await lab.get("gethomecoachsdata", device_id=lab.station.id)) == (400, 21)
    assert first not in {each["_id"] for each in await lab.devices()}


async def test_history_has_every_type_but_the_index(lab: Lab) -> None:
    """Rows of the finest scale and day rows; a type that is known elsewhere is a null column."""
    coach = next(iter(lab.world.coaches))
    types = "temperature,co2,humidity,noise,pressure,health_idx"

    query = history(coach, date_begin=NOW - DAY) | {"type": types}
    rows = (await lab.get("getmeasure", **query)).json()["body"]
    days = (await lab.get("getmeasure", **history(coach, scale="1day"))).json()["body"]

    samples = lab.world.samples(coach, NOW - DAY, NOW, NOW)
    names = ("Temperature", "CO2", "Humidity", "Noise", "Pressure")
    assert rows == {str(at): [*(v[name] for name in names), None] for at, v in samples}
    assert len(days) == 31


async def test_expected_rows_are_those_that_getmeasure_gives(lab: Lab) -> None:
    """The control routes know a coach like any module, index and faults included."""
    coach = next(iter(lab.world.coaches))
    await lab.arm("gap", module=coach, begin=NOW - 7_200, end=NOW - 3_600)

    world = (await lab.http.get("/simulator/world")).json()
    told = (
        await lab.http.get("/simulator/expected", params={"module": coach, "begin": NOW - DAY})
    ).json()
    rows = (await lab.get("getmeasure", **history(coach, date_begin=NOW - DAY))).json()["body"]

    assert {m["id"]: m["type"] for m in world["modules"]}[coach] == "NHC"
    assert world["accounts"][0]["coaches"] == list(lab.world.coaches)
    assert {str(at): [v["CO2"], v["Noise"]] for at, v in told["rows"]} == rows
    assert all("health_idx" in values for _, values in told["rows"])
    assert len(rows) < 280


# --- who may see it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "allowed"), [("read_station", "station"), ("read_homecoach", "coach"), (BOTH, "")]
)
async def test_each_product_takes_its_own_scope(lab: Lab, scope: str, allowed: str) -> None:
    """Dashboards and histories: a missing scope is code 13 for that product alone."""
    coach = next(iter(lab.world.coaches))
    await login_with(lab, scope)

    answers = {
        "station": [await lab.get("getstationsdata")],
        "coach": [await lab.get("gethomecoachsdata")],
    }
    for name, device in (("station", lab.station.id), ("coach", coach)):
        answers[name].append(await lab.get("getmeasure", **history(device)))

    for name, given in answers.items():
        if allowed in ("", name):
            assert [answer.status_code for answer in given] == [200, 200]
        else:
            assert [error(answer) for answer in given] == [(403, 13)] * 2


async def test_coaches_are_dealt_like_stations() -> None:
    """Each account sees its own, and its ready-made login has the scope for what it has."""
    lab = Lab(Plan(seed=7, stations=3, coaches=2, days=3, origin=START, accounts=3))
    async with lab.http:
        seen, scopes = [], []
        for number in range(3):
            token = await lab.token(number=number, refresh_token=lab.refresh_token(number))
            lab.access = token.json()["access_token"]
            scopes.append(token.json()["scope"])
            answer = await lab.get("gethomecoachsdata")
            seen.append(len(answer.json()["body"]["devices"]) if answer.is_success else None)
        foreign = await lab.get("getmeasure", **history(next(iter(lab.world.coaches))))

    assert seen == [1, 1, None]
    assert scopes == [BOTH.split(), BOTH.split(), ["read_station"]]
    assert error(foreign) == (404, 9)


def test_a_wrong_number_is_a_configuration_error() -> None:
    """One line, before anything is made."""
    with pytest.raises(ConfigError, match="coaches -1 is not in"):
        build(Plan(coaches=-1))


# --- faults -------------------------------------------------------------------------------------

# What is about modules behind a device, or about guests, leaves a coach alone.
ELSEWHERE = {"ghost", "twice", "favourite", "replaced", "revised"}
FAULTS: dict[str, dict[str, Any]] = {
    "unreachable": {},
    "late": {"hours": 24, "begin": 0},
    "gap": {},
    "offline": {"begin": NOW - 7_200},
    "future": {"where": "both"},
    "no_name": {},
    "missing": {},
    "unknown_type": {},
    "unknown_field": {},
    "wrong_type": {},
    "key_injection": {},
    "poison": {},
    "read_only": {},
    "vanished": {},
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_world_faults_change_an_answer_and_go_away(lab: Lab, kind: str) -> None:
    """Armed for one coach, a kind changes what is said of it; its neighbour stays as it is."""
    first, second = lab.world.coaches
    before = {each["_id"]: each for each in await coaches(lab)}

    await lab.arm(kind, module=first, **FAULTS[kind])
    during = {each["_id"]: each for each in await coaches(lab)}
    await lab.http.delete("/simulator/faults", params={"kind": kind})
    after = {each["_id"]: each for each in await coaches(lab)}

    assert during.get(first) != before[first]
    assert during[second] == before[second]
    assert after == before


@pytest.mark.parametrize("kind", sorted(ELSEWHERE))
async def test_faults_of_modules_leave_coaches_alone(lab: Lab, kind: str) -> None:
    """Armed for everything, they break no answer about coaches."""
    before = await coaches(lab)

    await lab.arm(kind, **({"type": "Rain"} if kind == "revised" else {}))

    assert await coaches(lab) == before


async def test_a_vanished_coach_has_no_history(lab: Lab) -> None:
    """It is gone from the list, and unknown to getmeasure; the other one is there."""
    first, second = lab.world.coaches

    await lab.arm("vanished", module=first)

    assert [each["_id"] for each in await coaches(lab)] == [second]
    assert error(await lab.get("getmeasure", **history(first))) == (404, 9)
    assert (await lab.get("getmeasure", **history(second))).status_code == 200


async def test_a_silent_coach_may_be_called_reachable(lab: Lab) -> None:
    """Unreachable: no dashboard. With only that missing it is still said to be reachable."""
    first, second = lab.world.coaches

    await lab.arm("unreachable", module=first)
    await lab.arm("missing", module=second, keys=["dashboard_data"])
    told = await coaches(lab)

    assert [each["reachable"] for each in told] == [False, True]
    assert not any("dashboard_data" in each for each in told)


@pytest.mark.parametrize("where", ["dashboard", "measure"])
async def test_a_value_of_a_wrong_type_comes_where_it_was_asked_for(lab: Lab, where: str) -> None:
    """In the dashboard, or in the rows of getmeasure."""
    coach = next(iter(lab.world.coaches))

    await lab.arm("wrong_type", module=coach, where=where)
    (device,) = await coaches(lab, device_id=coach)
    rows = (await lab.get("getmeasure", **history(coach, date_begin=NOW - DAY))).json()["body"]

    assert (device["dashboard_data"]["CO2"] == "high") == (where == "dashboard")
    assert ({row[0] for row in rows.values()} == {"high"}) == (where == "measure")
