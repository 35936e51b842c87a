"""Answers that others recorded from the real cloud; they lie beside the checkout, not in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.models import Batch, Entity
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Reply
from netatmo_ingestd.sources import aircare, homestatus, topology, weather
from netatmo_ingestd.sources.aircare import AIRCARE
from netatmo_ingestd.sources.control import METER
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.measure import rows_poll
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.sources.weather import WEATHER
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import operations

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "recorded"
DASHBOARDS = {
    "gladys/getstationsdata.json": WEATHER,
    "pyatmo/weatherstation_data_simple.json": WEATHER,
    "gladys/gethomecoachsdata.json": AIRCARE,
    "pyatmo/home_coach_no_devices.json": AIRCARE,
}
HOMES = {
    "pyatmo/homesdata.json": HOMESDATA,
    "pyatmo/homesdata_empty.json": HOMESDATA,
    "gladys/netatmo.homesdata.mock.test.json": HOMESDATA,
    "pyatmo/home_status_simple.json": HOMESTATUS,
    "pyatmo/home_status_error_and_data.json": HOMESTATUS,
    "gladys/getHomeStatus.json": HOMESTATUS,
    "gladys/netatmo.homestatus.mock.test.json": HOMESTATUS,
}
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "getstationsdata": weather.LEFT_OUT,
    "gethomecoachsdata": aircare.LEFT_OUT,
    "homesdata": topology.LEFT_OUT,
    "homestatus": homestatus.LEFT_OUT,
}
ROWS = ("pyatmo/weatherstation_measure.json",)
ENERGY = "pyatmo/getmeasure_energy_98_76_54_32_10_00_00_69.json"
MODULE = Entity("home", "module", "12:34:56:07:bb:3e", "", "12:34:56:37:11:ca", "NAModule4", {})

Where = tuple[str | int, ...]


@pytest.fixture(params=[*DASHBOARDS, *HOMES, *ROWS, ENERGY])
def recorded(request: pytest.FixtureRequest) -> tuple[Any, Poll]:
    """(envelope, the poll that got it)."""
    file = RECORDED / request.param
    if not file.exists():
        pytest.skip(f"no {request.param} in shared/recorded beside the checkout")
    envelope = json.loads(file.read_text())
    if request.param in HOMES:
        return home_envelope(envelope), home_poll(HOMES[request.param], envelope)
    if request.param in DASHBOARDS:
        return envelope, Poll(DASHBOARDS[request.param].endpoints[0], "home")
    if request.param == ENERGY:
        return envelope, energy_poll(envelope)
    begin = datetime.fromtimestamp(min(map(int, envelope["body"])), UTC)
    return envelope, rows_poll("home", MODULE, ("Temperature",), begin)


def home_envelope(told: Any) -> Any:
    """Some recordings hold the body alone, without the time at which it was told."""
    return {"time_server": 1_712_000_000, **(told if "body" in told else {"body": told})}


def home_poll(endpoint: Endpoint, told: Any) -> Poll:
    if endpoint is HOMESDATA:
        return Poll(endpoint, "home")
    home_id = told.get("body", told)["home"]["id"]
    home = Entity("home", "home", home_id, home_id, "", "home", {})
    return Poll(endpoint, "home", {"home_id": home_id}, target=home)


def energy_poll(envelope: Any) -> Poll:
    meter = Entity("home", "module", "98:76:54:32:10:00:00:69", "h", "gateway", "NLPC", {})
    begin = datetime.fromtimestamp(envelope["body"][0]["beg_time"], UTC)
    return rows_poll("home", meter, METER, begin, scale="30min")


def parse(envelope: Any, poll: Poll) -> Parsed:
    stamps = [envelope["time_server"]]
    # Some recordings were put together from answers of years under the time of the first.
    stamps += [
        value
        for where, value in leaves(envelope["body"])
        if where[-1] in ("time_utc", "last_seen", "setup_date")
    ]
    server = datetime.fromtimestamp(max(stamps) + 60, UTC)
    return poll.endpoint.parse(Reply(envelope["body"], server, server, b""), poll)


async def test_recorded_answer_is_stored(recorded: tuple[Any, Poll], tmp_path: Path) -> None:
    """A real answer parses without a problem but drift, and every record becomes upserts."""
    envelope, poll = recorded
    spool = Spool(tmp_path, 1 << 20)
    await spool.open()

    parsed = parse(envelope, poll)
    await spool.append(Batch("home", poll.endpoint.name, parsed.records, parsed.facts), {})
    (waiting,) = await spool.oldest_batches(9, 1 << 20)
    await spool.close()
    documents, facts, _ = records.unpack(waiting.body)

    assert [str(each) for each in parsed.problems if not each.drift] == []
    assert [each["record"] for each in documents] == [
        type(each).__name__ for each in parsed.records
    ]
    assert [tuple(fact.types) for fact in facts] == [fact.types for fact in parsed.facts]
    assert all(operations(document) for document in documents)


def test_recorded_monitor_is_nothing_new() -> None:
    """A real air quality monitor is described whole: no field or type of it is unknown."""
    file = RECORDED / "gladys/gethomecoachsdata.json"
    if not file.exists():
        pytest.skip("no gladys/gethomecoachsdata.json in shared/recorded beside the checkout")
    envelope = json.loads(file.read_text())

    parsed = parse(envelope, Poll(AIRCARE.endpoints[0], "home"))

    assert parsed.problems == []
    monitor, row = map(records.as_document, parsed.records)
    assert monitor["description"]["name"] == "Air Chambre parental "
    assert row["values"]["health_index"] == 0.0


def test_every_leaf_ends_somewhere(recorded: tuple[Any, Poll]) -> None:
    """Another value at any leaf of a real answer changes some record, but for LEFT_OUT."""
    envelope, poll = recorded
    before = comparable(parse(envelope, poll))
    lost = []

    for where, value in list(leaves(envelope["body"])):
        if value is None:
            continue  # no value at all
        put(envelope["body"], where, other_than(value, where))
        if comparable(parse(envelope, poll)) == before:
            lost.append(where)
        put(envelope["body"], where, value)

    shadowed = shadows(envelope["body"])
    left_out = LEFT_OUT.get(poll.endpoint.name, {})
    unexplained = [
        where
        for where in lost
        if not any(is_at(where, path) for path in left_out)
        and not any(where[: len(at)] == at for at in shadowed)
    ]
    assert unexplained == []


def test_recorded_rows_keep_their_values() -> None:
    """Each recorded history row is one measurement with exactly its value and time."""
    file = RECORDED / ROWS[0]
    if not file.exists():
        pytest.skip(f"no {ROWS[0]} in shared/recorded beside the checkout")
    envelope = json.loads(file.read_text())
    begin = datetime.fromtimestamp(min(map(int, envelope["body"])), UTC)

    parsed = parse(envelope, rows_poll("home", MODULE, ("Temperature",), begin))

    rows = {
        str(int(document["time"].timestamp())): [document["values"]["temperature"]]
        for document in map(records.as_document, parsed.records)
    }
    assert rows == envelope["body"]
    assert len(parsed.records) == 13


def test_recorded_energy_keeps_its_values() -> None:
    """Each recorded half hour is the sum of its tariffs, and has each of them beside it."""
    file = RECORDED / ENERGY
    if not file.exists():
        pytest.skip(f"no {ENERGY} in shared/recorded beside the checkout")
    envelope = json.loads(file.read_text())
    (segment,) = envelope["body"]
    first, step = segment["beg_time"], segment["step_time"]

    parsed = parse(envelope, energy_poll(envelope))

    rows = {
        int(document["time"].timestamp()): document["values"]
        for document in map(records.as_document, parsed.records)
    }
    tariffs = ("energy_base_wh", "energy_peak_wh", "energy_off_peak_wh")
    assert rows == {
        first + place * step: {
            "energy_wh": sum(each for each in told if each is not None),
            **{name: each for name, each in zip(tariffs, told, strict=True) if each is not None},
        }
        for place, (_, *told) in enumerate(segment["value"])
    }
    assert len(rows) == 39
    assert parsed.problems == []


# --- walking --------------------------------------------------------------------------------------


def leaves(value: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*where, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*where, place))
    else:
        yield where, value


def put(body: Any, where: Where, value: Any) -> None:
    for step in where[:-1]:
        body = body[step]
    body[where[-1]] = value


def is_at(where: Where, path: str) -> bool:
    """Whether a leaf stands at or below `path`; a bare name is one wherever it stands."""
    if "." not in path:
        return path in where
    steps = path.split(".")
    return len(steps) <= len(where) and all(
        isinstance(at, int) if step == "*" else at == step
        for step, at in zip(steps, where, strict=False)
    )


def other_than(value: Any, where: Where) -> Any:
    """Another value of the same type, still plausible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    never = value == 0 and str(where[-1]).endswith(("_time", "last_seen"))
    return 1_500_000_000 if never else value - 1


def comparable(parsed: Parsed) -> list[Any]:
    return [astuple(each) for each in parsed.records]


def shadows(body: Any) -> list[Where]:
    """What is told better elsewhere.

    Modules without data whose id has data under another station; and in the live state of a home
    what stands in a dashboard.
    """
    if isinstance(body, dict) and "home" in body:
        return [
            ("home", "modules", place)
            for place, module in enumerate(body["home"].get("modules", []))
            if module["type"] in homestatus.DASHBOARDS
        ]
    if not isinstance(body, dict) or "devices" not in body:
        return []
    blocks: list[tuple[Where, Any]] = [
        (("devices", place, "modules", number), module)
        for place, device in enumerate(body["devices"])
        for number, module in enumerate(device.get("modules", []))
    ]
    full = {module["_id"] for _, module in blocks if "dashboard_data" in module}
    return [
        where
        for where, module in blocks
        if module["_id"] in full and "dashboard_data" not in module
    ]
