"""The README's questions, asked with the real shell, against a simulated home."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.household import Household
from netatmo_ingestd.sources.days import midnights
from tests.faults.house import CHECKOUT, House, opened, until
from tests.faults.past import DAY, filled

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

PRODUCTS = {"products": ["weather", "energy", "security", "control"]}
SCENARIO = "[[homes]]\nvalves = 1\ncameras = 1\nmeters = 1\n"
NAMED = (
    "Garden", "Circuit 1", "Thermostat", "Living room", "Front door", "Remote", "Siren",
    "Indoor camera", "Valve Kitchen", "Ana", "Bruno",
)  # fmt: skip
"""What the questions are about: all the rest would only take time."""
QUESTIONS = (
    "outdoor temperature of the last 24 hours",
    "daily minimum and maximum of a year",
    "energy of each month by tariff, in Wh",
    "how many seconds the boiler was on yesterday: BEGIN and END are its two midnights",
    "persons that a camera saw in the last week, with their pictures",
    "low batteries",
    "the set-point of a room at a moment",
    "what is it now",
)


def shell() -> str:
    """The MongoDB shell; in CI it has to be there."""
    found = os.environ.get("MONGOSH") or shutil.which("mongosh")
    if not found:
        pytest.skip("no mongosh here: npm install mongosh, or set MONGOSH")
    return found


def queries() -> dict[str, str]:
    """Question to query, as they stand in the README."""
    readme = (CHECKOUT / "README.md").read_text()
    block = re.search(r"<!-- queries: .*?```js\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    pairs = [each.strip().partition("\n") for each in block[1].split("\n\n")]
    return {question.removeprefix("// "): query for question, _, query in pairs}


def ask(house: House, names: dict[str, str], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The answers of all questions; `names` are JavaScript values of the words in capitals."""
    lines = ['db = db.getSiblingDB("netatmo");']
    lines += [f"const {name} = {value};" for name, value in names.items()]
    lines += [f"print(EJSON.stringify(({query}).toArray()));" for query in queries().values()]
    script = folder / "questions.js"
    script.write_text("\n".join(lines))
    uri = house.run("status", "--store-uri").stdout.strip()
    done = subprocess.run(
        [shell(), uri, "--quiet", "--norc", "--file", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == len(queries()), done.stdout[-2000:] + done.stderr[-2000:]
    return dict(zip(queries(), answers, strict=True))


def shown(house: House, module: str, begin: float, end: float, scale: str = "") -> dict[int, Any]:
    more = f"&scale={scale}" if scale else ""
    route = f"expected?module={module}&begin={int(begin)}&end={int(end)}{more}"
    return dict(house.cloud.ask("GET", route)["rows"])


def at(value: dict[str, str]) -> datetime:
    return datetime.fromisoformat(value["$date"])


def test_the_readme_answers_its_questions(tmp_path: Path) -> None:
    """Each query of the README gives what the simulated home measured and did."""
    assert tuple(queries()) == QUESTIONS
    shell()
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    flags = ("--scenario", str(tmp_path / "scenario.toml"))
    with opened(
        tmp_path,
        speed=500,  # a look each 0.6 s: the boiler needs them all
        days=25,
        cloud_flags=flags,
        account={**PRODUCTS, "include": list(NAMED)},
        history={"since": "all"},
        security={"pictures": True, "picture_hosts": ["127.0.0.1"]},
    ) as house:
        (household,) = house.cloud.world.households.values()
        zone = ZoneInfo(household.zone)
        house.start()
        begun = house.now
        until(lambda: house.now > begun + 1.05 * DAY, within=300, what="a day", every=0.5)
        filled(house, within=300)
        now = house.settle(within=120)
        today = datetime.fromtimestamp(now, zone).date()
        begin, end = now - DAY, now  # a whole day that was looked at; "yesterday" takes up to two
        names = _names(house, household, now, begin, end)
        answers = [*ask(house, names, tmp_path).values()]

        garden, meter = json.loads(names["GARDEN"]), json.loads(names["METER"])
        warm = {
            stamp: row["Temperature"] for stamp, row in shown(house, garden, now - DAY, now).items()
        }
        days = shown(house, garden, *_days(house, zone, garden), scale="1day")
        events = house.cloud.ask("GET", f"expected?events={household.home_id}")["events"]
        energy = shown(house, meter, *_days(house, zone, meter), scale="1day")

    assert {
        int(at(row["time"]).timestamp()): row["values"]["temperature"] for row in answers[0]
    } == warm
    assert len(warm) >= 280
    assert [
        (each["values"]["temperature_min"], each["values"]["temperature_max"])
        for each in answers[1]
    ] == [
        (row["min_temp"], row["max_temp"])
        for stamp, row in days.items()
        if _day(stamp, zone) < today
    ]
    assert len(answers[1]) >= 24
    assert {each["_id"]: each for each in answers[2]} == _months(energy, zone, today)
    (burnt,) = answers[3]
    served = lives.boiler_on_seconds(household.of_type("NATherm1")[0], begin, end)
    assert abs(burnt["seconds"] - served) <= 24 * 300
    assert burnt["seconds"] > 3_600
    camera, week = json.loads(names["CAMERA"]), now - 7 * DAY
    seen = {each["_id"] for each in answers[4] if each["type"] == "person"}
    assert seen == {
        each["id"]
        for each in events
        if each["type"] == "person"
        and each["module_id"] == camera
        and week <= each["time"] <= now
        and each["id"] not in _fresh(events, now)
    } | (seen & _fresh(events, now))
    assert all("person" in each["detected"] for each in answers[4])
    assert all(len(each["images"]) == len(each["pictures"]) for each in answers[4])
    assert sum(len(each["images"]) for each in answers[4]) >= 10
    low = {
        device.id
        for device in household.devices
        if device.name in NAMED
        and device.type in ("NATherm1", "NRV", "NACamDoorTag", "NIS", "NLT")
        and lives.battery_state(lives.battery_mv(device, now)) in ("low", "very_low")
    }
    assert {each["_id"] for each in answers[5]} & {each.id for each in household.devices} == low
    (told,) = answers[6]
    amount, mode, _, _ = lives.setpoint(household.rooms[0], zone, now - 3_600)
    assert told["values"]["setpoint_temperature"] == amount
    assert told["values"].get("setpoint_mode") == mode
    latest = {each["_id"]: each["latest"] for each in answers[7]}
    assert garden in latest
    assert all(now - at(each["time"]).timestamp() < 3 * 3600 for each in latest.values())


def _names(
    house: House, household: Household, now: float, begin: float, end: float
) -> dict[str, str]:
    def date(moment: float) -> str:
        return f"new Date({int(moment * 1000)})"

    garden = next(each.id for each in house.cloud.world.modules() if each.name == "Garden")
    return {
        "GARDEN": json.dumps(garden),
        "METER": json.dumps(household.of_type("NLPC")[0].id),
        "THERMOSTAT": json.dumps(household.of_type("NATherm1")[0].id),
        "CAMERA": json.dumps(household.of_type("NACamera")[0].id),
        "ROOM": json.dumps(household.rooms[0].id),
        "NOW": str(int(now * 1000)),
        "BEGIN": date(begin),
        "END": date(end),
        "AT": date(now - 3_600),
        "FIRST_DAY": '"2000-01-01"',
        "LAST_DAY": '"2100-01-01"',
    }


def _fresh(events: list[dict[str, Any]], now: float) -> set[str]:
    """Events of the last minutes, which need not be read yet."""
    return {each["id"] for each in events if each["time"] > now - 1_800}


def _day(stamp: int, zone: ZoneInfo) -> Any:
    return datetime.fromtimestamp(stamp, UTC).astimezone(zone).date()


def _days(house: House, zone: ZoneInfo, module: str) -> tuple[float, float]:
    """From the local midnight before everything on."""
    first = datetime.fromtimestamp(house.cloud.world.setup, zone).date()
    return midnights(zone, first)[0].timestamp(), house.now


def _months(rows: dict[int, Any], zone: ZoneInfo, today: Any) -> dict[str, Any]:
    """Energy of whole days by month, as the meter's columns say."""
    found: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"total": 0.0, "base": 0.0, "peak": 0.0, "off_peak": 0.0}
    )
    for stamp, row in rows.items():
        if (day := _day(stamp, zone)) >= today:
            continue
        month = found[day.isoformat()[:7]]
        for tariff, name in enumerate(("base", "peak", "off_peak")):
            amount = row[f"sum_energy_buy_from_grid${tariff}"] or 0
            month[name] += amount
            month["total"] += amount
    return {month: {"_id": month, **sums} for month, sums in found.items()}
