"""`verify` and `backfill` with real processes, and day rows in three time zones."""

from __future__ import annotations

import json
import signal
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.faults.house import Child, House, command, opened, tell, until
from tests.faults.past import DAY, differences, filled, journal

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

ALL = {"since": "all"}
FEW = {"include": ["Garden", "Rain"]}
ZONES = ("Europe/Paris", "Australia/Lord_Howe", "America/Havana")


def test_verify_finds_and_repairs(tmp_path: Path) -> None:
    """A row deleted and one altered by hand are found, told with both values, and repaired."""
    with opened(tmp_path, speed=60, days=12, history=ALL, account=FEW) as house:
        house.start()
        filled(house, within=120)
        garden = house.modules()[0]
        with house.database() as database:
            gone, bent = database["measurements"].find({"module_id": garden}).skip(500).limit(2)
            database["measurements"].delete_one({"_id": gone["_id"]})
            change = {"$set": {"values.temperature": -77.0}}
            database["measurements"].update_one({"_id": bent["_id"]}, change)

        seen = _verify(house)
        repaired = _verify(house, "--repair")
        clean = _verify(house)
        shown = house.run("verify", "--windows", "3", "--module", garden)
        wrong = differences(house, garden, 0, house.now - DAY / 24)
        assert house.stop() == 0
        alone = _verify(house)  # starts the embedded store by itself

    told = {(each["what"], each["time"]) for each in seen[1]["differences"]}
    assert seen[0] == 1
    assert not wrong
    assert told == {
        ("missing", gone["time"].isoformat(timespec="seconds")),
        ("altered", bent["time"].isoformat(timespec="seconds")),
    }
    altered = next(each for each in seen[1]["differences"] if each["what"] == "altered")
    assert altered["stored"]["temperature"] == -77.0
    assert altered["cloud"]["temperature"] == bent["values"]["temperature"]
    assert (repaired[0], repaired[1]["repaired"]) == (0, 2)
    assert (clean[0], clean[1]["differences"]) == (0, [])
    assert (alone[0], alone[1]["differences"]) == (0, [])
    assert all(
        share == 100.0 and not each["holes"]
        for each in clean[1]["coverage"]
        for share in each["percent"].values()
    )
    assert "0 differ" in shown.stdout
    assert shown.returncode == 0


def test_backfill_alone_and_beside_a_daemon(tmp_path: Path) -> None:
    """The plan first, then all of it; interrupted it goes on later; a daemon is only watched."""
    with opened(tmp_path, speed=60, days=40, account=FEW) as house:
        planned = house.run("backfill", "--since", _day(house, 30), "--dry-run", "--json")
        plan = json.loads(planned.stdout)
        after_plan = len(journal(house, "history"))

        broken = Child(
            command("backfill", "--since", _day(house, 30), "--config", str(house.config)),
            tmp_path / "backfill.log",
        )
        house.others.append(broken)
        until(lambda: len(journal(house, "history")) > 4, within=60, what="it fetches")
        broken.signal(signal.SIGINT)
        interrupted = broken.wait(60)
        some = len(journal(house, "history"))
        done = house.run("backfill", "--since", _day(house, 30), "--json", within=120)
        all_calls = len(journal(house, "history"))
        none = house.run("backfill", "--since", _day(house, 30), "--json", within=60)
        more = len(journal(house, "history")) - all_calls

        house.write_config(history={"since": _day(house, 30)})
        house.start()
        until(lambda: house.status().get("modules"), within=30, what="it reports", house=house)
        beside = house.run("backfill", within=120)
        refused = house.run("backfill", "--module", "Garden")
        begin = datetime.fromisoformat(_day(house, 30)).replace(tzinfo=UTC).timestamp() + DAY
        wrong = {
            module: found
            for module in house.modules()
            if (found := differences(house, module, begin, house.now - 2 * DAY / 24))
        }

    tell(f"planned {plan['requests']} requests, {plan['rows']} rows; {some} then {all_calls} made")
    assert planned.returncode == 0
    assert after_plan == 0
    assert {each["name"] for each in plan["modules"]} == {"Garden", "Rain"}
    assert plan["requests"] == pytest.approx(all_calls, abs=4)
    assert plan["bytes"] > 0
    assert plan["eta_s"] > 0
    assert interrupted == 1
    assert "go on where they stopped" in (tmp_path / "backfill.log").read_text()
    assert done.returncode == 0
    assert json.loads(done.stdout)["requests"] == 0
    assert (none.returncode, more) == (0, 0)
    assert not wrong
    assert beside.returncode == 0
    assert "Nothing is missing" in beside.stdout
    assert refused.returncode == 2
    assert "stop the daemon" in refused.stderr


def test_days_of_a_year_in_three_zones(tmp_path: Path) -> None:
    """Each local day of a year is one summary, with the extremes and sums of just that day."""
    few = {"include": ["Garden", "Rain"]}
    flags = ("--timezones", ",".join(ZONES))
    with opened(
        tmp_path, speed=60, stations=3, days=400, history=ALL, account=few, cloud_flags=flags
    ) as house:
        house.cloud.world = _world_in_zones(house)
        house.start()
        wanted = len(house.modules())
        until(
            lambda: len(house.coverage("1day")) == wanted,
            within=120,
            what="the day rows are stored",
            house=house,
        )
        assert wanted == 6
        days = {module: _check_days(house, module) for module in house.modules()}
    tell(f"day rows compared: {days}")


def _world_in_zones(house: House) -> Any:
    from netatmo_ingestd.simulator.world import World  # noqa: PLC0415

    greeting = house.cloud.greeting
    return World(greeting["seed"], 3, origin=greeting["origin"], days=400, timezones=ZONES)


def _check_days(house: House, module_id: str) -> int:
    """Recomputes each day of a year from the samples; how many there were."""
    world = house.cloud.world
    module = world.by_id[module_id]
    zone = world.station_of(module).zone
    today = datetime.fromtimestamp(house.cloud.greeting["origin"], zone).date()
    with house.database() as database:
        rows = {row["day"]: row for row in database["summaries"].find({"module_id": module_id})}
    compared = 0
    for back in range(2, 370):
        day = today - timedelta(days=back)
        begin, end = _midnight(zone, day), _midnight(zone, day + timedelta(days=1))
        samples = world.samples(module_id, begin.timestamp(), end.timestamp() - 1)
        row = rows[day.isoformat()]
        assert (row["time"], row["until"]) == (begin, end), day
        if module.type == "NAModule3":
            total = sum(values["Rain"] for _, values in samples)
            assert row["values"]["rain_sum"] == pytest.approx(total, abs=0.001), day
        else:
            warm = [values["Temperature"] for _, values in samples]
            coldest = next(at for at, values in samples if values["Temperature"] == min(warm))
            assert row["values"]["temperature_min"] == float(min(warm)), day
            assert row["values"]["temperature_max"] == float(max(warm)), day
            assert row["values"]["temperature_min_time"].timestamp() == coldest, day
            mean = sum(warm) / len(warm)
            assert row["values"]["temperature"] == pytest.approx(mean, abs=0.051), day
        compared += 1
    return compared


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    """The first moment that has this local date, found by looking at each half hour."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(zone).date() < day:
        moment += timedelta(minutes=30)
    return moment


def _verify(house: House, *flags: str) -> tuple[int, dict[str, Any]]:
    done = house.run("verify", "--windows", "1000", "--json", *flags, within=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _day(house: House, back: int) -> str:
    """The date so many days before the world began to run."""
    return (
        datetime.fromtimestamp(house.cloud.greeting["origin"] - back * DAY, UTC).date().isoformat()
    )
