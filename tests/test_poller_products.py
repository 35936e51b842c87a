"""Product lines of one account: each is polled, none stops another, and homes are asked in turn."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from netatmo_ingestd.settings import AccountSettings
from tests.clocks import HandClock
from tests.stores import until
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


# --- homes ----------------------------------------------------------------------------------------

LINES = ("energy", "security", "control")
HEATED, WATCHED, WIRED, WINDY, EMPTY, NOVEL = (
    "heated",
    "watched",
    "wired",
    "windy",
    "empty",
    "novel",
)


ALL: dict[str, dict[str, str]] = {
    HEATED: {"relay": "NAPlug", "thermostat": "NATherm1", "valve": "NRV"},
    WATCHED: {"camera": "NACamera"},
    WIRED: {"gateway": "NLG", "meter": "NLPC"},
    WINDY: {"station": "NAMain"},
    EMPTY: {},
    NOVEL: {"brand new": "NLX9"},
}


class Homes(Cloud):
    """Homes by what stands in them; each module is in a room of its own home."""

    homes: dict[str, dict[str, str]]

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        endpoint = request.url.path.rpartition("/")[2]
        params = dict(request.url.params)
        self.calls.append(Call("home", endpoint, params, self.clock.time()))
        home = params.get("home_id", "")
        body: Any = {}
        if endpoint == "homesdata":
            body = {"homes": [self.home(each) for each in self.homes]}
        elif endpoint == "homestatus":
            inside = self.homes.get(home, {})
            modules = [{"id": each, "type": kind} for each, kind in inside.items()]
            body = {"home": {"id": home, "modules": modules}}
        elif endpoint == "getevents":
            body = {"home": {"id": home, "events": []}}
        return httpx.Response(200, json={"body": body, "time_server": int(self.clock.time())})

    def home(self, home: str) -> dict[str, Any]:
        told = [
            {"id": each, "type": kind, "name": each, "room_id": f"room of {home}"}
            for each, kind in self.homes[home].items()
        ]
        return {"id": home, "rooms": [{"id": f"room of {home}"}], "modules": told}

    def homes_asked(self, endpoint: str = "homestatus") -> list[str]:
        return sorted(each.params["home_id"] for each in self.calls if each.endpoint == endpoint)


def homely(house: House, *names: str) -> Homes:
    house.cloud.__class__ = Homes
    cloud = cast("Homes", house.cloud)
    cloud.homes = {name: ALL[name] for name in names or ALL}
    return cloud


async def test_a_shared_endpoint_is_asked_once_for_three_lines(tmp_path: Path) -> None:
    """One topology for all, one live state for each home, and the budget plans no more."""
    async with opened(tmp_path, products=LINES) as house:
        cloud = homely(house)

        assert await house.poller.once() == []

        assert cloud.count("homesdata") == 1
        assert len(cloud.homes_asked()) == len(set(cloud.homes_asked()))
        hourly = 1 / 3 + 4 * 12 + 6 + 2 + 2
        # Topology, live state of four homes, events of one, a thermostat's samples, and two
        # half-hourly rows: a room and a meter.
        assert house.budget.usage("home").planned == pytest.approx(hourly)


async def test_homes_are_asked_for_what_is_in_them(tmp_path: Path) -> None:
    """Live state where a module has one, or may; events where something watches; else nothing."""
    async with opened(tmp_path, products=LINES) as house:
        cloud = homely(house)

        await rounds(house, 2)

        assert cloud.homes_asked() == sorted([HEATED, WATCHED, WIRED, NOVEL] * 2)
        assert set(cloud.homes_asked("getevents")) == {WATCHED}
        assert cloud.homes_asked("getroommeasure") == [HEATED] * 2
        assert not {WINDY, EMPTY} & {each.params.get("home_id") for each in cloud.calls}


@pytest.mark.parametrize(
    ("products", "asked"),
    [
        (("weather",), set()),
        (("energy",), {HEATED}),
        (("security",), {WATCHED}),
    ],
)
async def test_a_line_of_its_own_asks_its_homes(
    tmp_path: Path, products: tuple[str, ...], asked: set[str]
) -> None:
    """At least the homes of a product are asked for it, and of weather alone none."""
    async with opened(tmp_path, products=products) as house:
        cloud = homely(house)

        await house.poller.once()

        assert set(cloud.homes_asked()) >= asked
        assert bool(cloud.homes_asked()) is bool(asked)
        assert cloud.count("homesdata") == (products != ("weather",))


async def test_a_new_home_is_asked_soon(tmp_path: Path) -> None:
    """As soon as the topology tells of it, and from then on at its cadence."""
    async with opened(tmp_path, HandClock(), products=LINES) as house:
        cloud = homely(house, HEATED)
        house.clock.auto = True
        async with house.running():
            await until(lambda: cloud.homes_asked() == [HEATED])
            cloud.homes = dict(ALL)

            house.clock.advance(3 * 3600)
            await house.poller._fire("home|homesdata")

            await until(lambda: {WATCHED, WIRED, NOVEL} <= set(cloud.homes_asked()))
            for home in (WATCHED, WIRED, NOVEL):
                job = house.poller._scheduler.get_job(f"home|homestatus|{home}")
                wait = job.next_run_time - datetime.now(UTC)
                assert wait <= timedelta(minutes=5)


async def test_a_home_that_is_gone_is_asked_no_more(tmp_path: Path) -> None:
    """After a day without it neither its state nor a module of it costs a call, or a job."""
    async with opened(tmp_path, products=LINES) as house:
        cloud = homely(house)
        await house.poller.once()
        del cloud.homes[WIRED]
        cloud.homes[WATCHED] = {}
        for _ in range(4):
            house.clock.advance(9 * 3600)
            await house.poller.once()
        before = [cloud.homes_asked().count(each) for each in (WIRED, WATCHED)]
        for key in (f"homestatus|{WIRED}", f"homestatus|{WATCHED}", "getmeasure|meter"):
            await house.poller._fire(f"home|{key}")
            assert f"home|{key}" not in house.poller._jobs

        await rounds(house, 3)

        assert [cloud.homes_asked().count(each) for each in (WIRED, WATCHED)] == before
        assert house.home.queue.empty()


async def test_meters_and_rooms_are_read_by_the_hour(tmp_path: Path) -> None:
    """What comes in half hours has a cadence of its own; a thermostat's samples are as others."""
    study = f"room of {HEATED}"
    async with opened(tmp_path, HandClock(), products=LINES) as house:
        cloud = homely(house)
        house.clock.auto = True
        async with house.running():
            await until(lambda: set(reads(cloud)) == {"meter", study, "thermostat"})
            due = {each: house.clock.time() + house.armed(each) for each in reads(cloud)}
            end = house.clock.time() + 6 * 3600 + 60
            while (key := min(due, key=due.__getitem__)) and due[key] < end:
                count = len(cloud.calls)
                house.clock.advance(max(0.0, due[key] - house.clock.time()) + 0.5)
                await house.poller._fire(f"home|getmeasure|{key}")
                due[key] = house.clock.time() + house.armed(key)
                await until(lambda: len(cloud.calls) > count)  # noqa: B023

    counts = Counter(reads(cloud))
    assert counts == {"meter": 1 + 6, study: 1 + 6, "thermostat": 1 + 12}
    scales = {(reads([each])[0], each.params["scale"]) for each in cloud.calls if reads([each])}
    assert scales == {("meter", "30min"), (study, "30min"), ("thermostat", "max")}


def reads(cloud: Homes | list[Call]) -> list[str]:
    """Whose rows were asked, a module or a room, one for each call."""
    calls = cloud if isinstance(cloud, list) else cloud.calls
    asked = [each for each in calls if "scale" in each.params]
    return [each.params.get("room_id") or each.module for each in asked]


async def test_what_needs_no_history_has_no_reads(tmp_path: Path) -> None:
    """Relays, gateways and cameras, and rooms without a thermostat or valve."""
    async with opened(tmp_path, products=LINES) as house:
        cloud = homely(house)
        await house.poller.once()

        assert set(reads(cloud)) == {"meter", "thermostat", f"room of {HEATED}"}


# --- hints ----------------------------------------------------------------------------------------


def queued(house: House) -> list[str]:
    """What waits to be asked; the queue is empty afterwards."""
    found = []
    while not house.home.queue.empty():
        *_, key, _ = house.home.queue.get_nowait()
        house.home.waiting.discard(key)
        found.append(key)
    return sorted(found)


async def test_a_hint_asks_one_home_now(tmp_path: Path) -> None:
    """The state of that home, and nothing else; of the account what is asked for all of it."""
    async with opened(tmp_path, products=LINES) as house:
        homely(house)
        await house.poller.once()

        for name, home in (
            ("homestatus", HEATED),
            ("getevents", WATCHED),
            ("homesdata", HEATED),
            ("homestatus", "of others"),
            ("homestatus", WINDY),
            ("getevents", HEATED),
            ("getstationsdata", ""),
        ):
            house.poller.hint("home", name, home)

        assert queued(house) == [f"getevents|{WATCHED}", "homesdata", f"homestatus|{HEATED}"]


async def test_hints_ask_at_most_every_ten_seconds(tmp_path: Path) -> None:
    """A flood of hints is one call in ten seconds for each home, and none is doubled."""
    async with opened(tmp_path, HandClock(), products=LINES) as house:
        homely(house)
        house.clock.auto = True
        await house.poller.once()
        house.clock.auto = False
        asked = []

        for _ in range(25):
            for home in (HEATED, WIRED, HEATED):
                house.poller.hint("home", "homestatus", home)
            asked.append(len(queued(house)))
            house.clock.advance(1)

        assert [place for place, count in enumerate(asked) if count] == [0, 10, 20]
        assert {*asked} == {0, 2}


async def test_a_clock_that_is_set_back_does_not_silence_hints(tmp_path: Path) -> None:
    """Ten seconds are ten seconds, whatever the wall clock says meanwhile."""
    async with opened(tmp_path, HandClock(), products=LINES) as house:
        homely(house)
        house.clock.auto = True
        await house.poller.once()
        house.clock.auto = False
        house.poller.hint("home", "homestatus", HEATED)
        assert queued(house) == [f"homestatus|{HEATED}"]

        house.clock.step(-3600)
        house.clock.advance(11)
        house.poller.hint("home", "homestatus", HEATED)

        assert queued(house) == [f"homestatus|{HEATED}"]


async def test_a_hint_of_what_waits_already_adds_nothing(tmp_path: Path) -> None:
    """What is on the queue is asked once, however often it is due and hinted at."""
    async with opened(tmp_path, products=LINES) as house:
        homely(house)
        await house.poller.once()

        await house.poller._fire(f"home|homestatus|{HEATED}")
        house.poller.hint("home", "homestatus", HEATED)

        assert queued(house) == [f"homestatus|{HEATED}"]


async def test_a_hint_takes_no_call_that_polls_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a quota of the day hints have what is planned for nothing else, in any 24 hours."""
    async with opened(tmp_path, HandClock(), products=LINES) as house:
        homely(house)
        house.clock.auto = True
        await house.poller.once()
        house.clock.auto = False
        monkeypatch.setattr(house.home.budget, "spare", lambda _: 3)
        asked = []

        for minute in range(0, 26 * 60, 20):
            house.poller.hint("home", "homestatus", HEATED)
            asked += [minute] * len(queued(house))
            house.clock.advance(20 * 60)

        assert asked == [0, 20, 40, 1440, 1460, 1480]
