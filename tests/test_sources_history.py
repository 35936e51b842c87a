"""`getmeasure` and `getroommeasure` of homes by cases: rooms, thermostats, meters.

tests/data/<energy or control>/measure_<case>/ holds
response.json  the whole envelope as the cloud sends it
expected.json  `asked` (kind, module, device, home, type, types, scale, zone, begin) and all that
               becomes of the answer: `rows`, `days`, `problems`, `drift`, `wants`, `facts`
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.ledger import merge, missing
from netatmo_ingestd.models import Batch, Coverage, Entity, Measurement, Priority, Summary
from netatmo_ingestd.plan import trailing_begin
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.sources.control import ECOMETER, METER
from netatmo_ingestd.sources.days import days_poll
from netatmo_ingestd.sources.measure import LATE, ROOM_LATE, parse_rows, rows_poll
from netatmo_ingestd.sources.quantities import UNITS, UPSTREAM, day_types, with_energy
from netatmo_ingestd.upserts import operations
from tests.test_sources_weather import _exact, _fact, _plain, _row, reply_of

DATA = Path(__file__).parent / "data"
CASES = sorted(
    path for product in ("energy", "control") for path in (DATA / product).glob("measure_*")
)
NAMES = [f"{path.parent.name}-{path.name}" for path in CASES]
NOON = datetime(2025, 11, 1, 12, tzinfo=UTC)
HALF = timedelta(minutes=30)
DAY = timedelta(days=1)


def entity(asked: dict[str, Any]) -> Entity:
    zone = {"timezone": asked.get("zone", "UTC")}
    kind, home = asked["kind"], asked["home"]
    return Entity("home", kind, asked["module"], home, asked["device"], asked["type"], zone)


def poll_of(asked: dict[str, Any]) -> Poll:
    begin, types = datetime.fromtimestamp(asked["begin"], UTC), tuple(asked["types"])
    if asked["scale"] == "1day":
        return days_poll("home", entity(asked), (), begin, asked=types)
    return rows_poll("home", entity(asked), types, begin, scale=asked["scale"])


def read(case: Path) -> tuple[Reply, dict[str, Any], Poll]:
    """(answer, what is expected of it, the poll that got it)."""
    envelope, expected = (
        json.loads((case / f"{part}.json").read_text()) for part in ("response", "expected")
    )
    return reply_of(envelope), expected, poll_of(expected.pop("asked"))


def view(parsed: Parsed) -> dict[str, Any]:
    rows = [each for each in parsed.records if isinstance(each, Measurement)]
    days = [each for each in parsed.records if isinstance(each, Summary)]
    assert len(rows) + len(days) == len(parsed.records)
    return {
        "rows": [_row(each) for each in rows],
        "days": [_day(each) for each in days],
        "problems": sorted(str(each) for each in parsed.problems if not each.drift),
        "drift": sorted(str(each) for each in parsed.problems if each.drift),
        "wants": [dict(each.params) for each in parsed.wants],
        "facts": [_fact(each) for each in parsed.facts],
    }


def _day(day: Summary) -> dict[str, Any]:
    assert day.account == "home"
    names = ("home_id", "device_id", "module_id", "module_type", "day", "time", "until", "values")
    found: dict[str, Any] = _plain({name: getattr(day, name) for name in (*names, "source")})
    return found


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_case(case: Path) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    reply, expected, poll = read(case)

    told = view(poll.endpoint.parse(reply, poll))

    assert told == expected
    # 21 and 21.0 are equal to Python, not to MongoDB.
    assert _exact(told) == _exact(expected)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_case_is_storable(case: Path) -> None:
    """Everything that comes out of a case becomes upserts, under names of ours alone."""
    reply, _, poll = read(case)

    parsed = poll.endpoint.parse(reply, poll)
    batch = Batch("home", poll.endpoint.name, parsed.records, parsed.facts)
    documents, facts, _ = records.unpack(records.pack(batch)[0])

    assert facts == list(parsed.facts)
    assert all(operations(document) for document in documents)
    names = {name for document in documents for name in document["values"]}
    folds = {f"temperature_{fold}" for fold in ("min", "max", "min_time", "max_time")}
    assert names <= {*UNITS, *folds}


# --- energy ---------------------------------------------------------------------------------------


def meter(kind: str = "NLPC", entity_id: str = "meter") -> Entity:
    return Entity("home", "module", entity_id, "h", "gateway", kind, {"timezone": "Europe/Paris"})


def reply(body: Any, server: datetime) -> Reply:
    return Reply(body, server, server, b"")


amounts = st.none() | st.integers(0, 1_000_000)
families = st.sampled_from([METER, ECOMETER, (*METER, *(f"{METER[0]}${n}" for n in range(3, 12)))])


@given(st.data())
def test_energy_is_the_sum_of_the_tariffs_or_the_total(data: st.DataObject) -> None:
    """Whichever columns carry a value, of a half hour and of a day: never total and tariffs."""
    types = data.draw(families)
    total, *tariffs = row = data.draw(st.lists(amounts, min_size=len(types), max_size=len(types)))
    begin = NOON - 4 * DAY
    midnight = begin.replace(hour=23, minute=0)  # in Paris
    body = {str(int(midnight.timestamp())): row}
    fine = rows_poll("home", meter(), types, begin, scale="30min")
    coarse = days_poll("home", meter(), types, begin)

    told = [poll.endpoint.parse(reply(body, NOON), poll) for poll in (fine, coarse)]

    given_ = [each for each in tariffs if each is not None]
    energy = sum(given_) if given_ else total
    for parsed in told:
        if energy is None:
            assert parsed.records == []
            assert [each.drift for each in parsed.problems] == [True]
            continue
        (record,) = parsed.records
        assert isinstance(record, (Measurement, Summary))
        assert parsed.problems == []
        assert record.values == {
            "energy_wh": energy,
            **{
                UPSTREAM[name]: each
                for name, each in zip(types[1:], tariffs, strict=True)
                if each is not None
            },
        }
        assert all(type(value) is float for value in record.values.values())


@given(st.lists(st.none() | st.integers(0, 5000), min_size=3, max_size=3), st.integers(0, 2))
def test_a_sum_that_is_not_whole_is_none(tariffs: list[int | None], place: int) -> None:
    """A tariff that cannot be read leaves the others, and no sum that would be too small."""
    row = [7, *tariffs]
    row[place + 1] = "much"  # type: ignore[call-overload]
    body = {str(int((NOON - DAY).timestamp())): row, str(int(NOON.timestamp())): [None, 5, 6, None]}
    poll = rows_poll("home", meter(), METER, NOON - 2 * DAY, scale="30min")

    parsed = parse_rows(reply(body, NOON + DAY), poll)

    values = {each.time: each.values for each in parsed.records if isinstance(each, Measurement)}
    rest = [each for index, each in enumerate(tariffs) if index != place and each is not None]
    assert sorted(values.get(NOON - DAY, {}).values()) == sorted(rest)
    assert "energy_wh" not in values.get(NOON - DAY, {})
    assert values[NOON]["energy_wh"] == 11
    assert len(parsed.problems) == 1


def test_a_value_that_was_bent_counts() -> None:
    """An amount beyond int64 is drift, and a double now: the sum is known."""
    body = {str(int(NOON.timestamp())): [None, 2**70, None, 2**70]}

    parsed = parse_rows(
        reply(body, NOON + DAY), rows_poll("home", meter(), METER, NOON, scale="30min")
    )

    (row,) = parsed.records
    assert isinstance(row, Measurement)
    assert row.values["energy_wh"] == float(2**71)
    assert {each.drift for each in parsed.problems} == {True}


def test_nothing_but_meters_has_a_sum() -> None:
    """Values without energy stay as they are."""
    assert with_energy({"temperature": 1.0}) == {"temperature": 1.0}
    assert with_energy({"temperature": 1.0}, sound=False) == {"temperature": 1.0}


def test_what_days_are_asked_for() -> None:
    """A meter's tariffs; a thermostat has no set-point by the day, a room has one."""
    extremes = ("min_temp", "max_temp", "date_min_temp", "date_max_temp")
    boiler = ("temperature", "sp_temperature", "boileron", "boileroff")

    assert tuple(day_types(METER)) == METER
    assert tuple(day_types(ECOMETER)) == ECOMETER
    assert tuple(day_types(boiler)) == ("temperature", *extremes, "sum_boiler_on", "sum_boiler_off")
    assert tuple(day_types(boiler[:2])) == ("temperature", *extremes, "sp_temperature")


# --- late buckets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "late"), [("module", LATE), ("room", ROOM_LATE)])
@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.integers(0, 30), min_size=100, max_size=100),
    outage=st.tuples(st.integers(10, 60), st.integers(0, 40)),
    minute=st.integers(0, 59),
)
def test_a_late_bucket_is_not_missed(
    kind: str, late: timedelta, delays: list[int], outage: tuple[int, int], minute: int
) -> None:
    """Read once an hour, each bucket is had in the end, however late the cloud shows it.

    What the ledger calls covered and is late no more than usual was had by then; a meter that was
    cut off for hours uploads all at once.
    """
    target = Entity("home", kind, "m", "h", "d", "room" if kind == "room" else "NLPC", {})
    start = NOON - 10 * DAY
    begins = [start + place * HALF for place in range(len(delays))]
    shown = {
        begin: begin + HALF + timedelta(minutes=delay) * (late / LATE)
        for begin, delay in zip(begins, delays, strict=True)
    }
    cut, back = begins[outage[0]], begins[min(outage[0] + outage[1], 99)]
    shown |= {each: max(when, back) for each, when in shown.items() if each >= cut}
    had: set[datetime] = set()
    coverage: Coverage | None = None

    for hour in range(60):
        now = start + timedelta(hours=hour, minutes=minute)
        newest = coverage.newest if coverage else None
        begin = trailing_begin(now, newest, first=hour == 0, scale="30min")
        poll = rows_poll("home", target, ("temperature",), begin, scale="30min")
        seen = [each for each in begins if begin <= each and shown[each] <= now]
        parsed = parse_rows(reply({str(int(e.timestamp())): [1] for e in seen}, now), poll)
        had |= {each.time for each in parsed.records if isinstance(each, Measurement)}
        (fact,) = parsed.facts
        coverage = merge(coverage, fact, now)
        for first, last in coverage.covered:
            assert {each for each in begins if first <= each < last} <= had
        assert fact.end <= now - late

    assert coverage is not None
    assert had == set(begins)
    assert missing(coverage, start) == ()


@pytest.mark.parametrize("scale", ["max", "30min"])
def test_where_a_trailing_read_begins(scale: str) -> None:
    """Of buckets at an edge, at least a day back; of samples three hours; never over 3.5 days."""
    now = NOON + timedelta(minutes=47, seconds=3, microseconds=5)
    back = DAY if scale == "30min" else timedelta(hours=3)
    edge = HALF if scale == "30min" else timedelta(seconds=1)

    def begin(newest: datetime | None, *, first: bool = False) -> datetime:
        found = trailing_begin(now, newest, first=first, scale=scale)
        assert found.timestamp() % edge.total_seconds() == 0
        return found

    def near(wanted: datetime, found: datetime) -> bool:
        return timedelta(0) <= wanted - found < edge

    assert near(now - back, begin(now - HALF))
    assert near(now - 2 * DAY, begin(now - 2 * DAY))
    for found in (begin(now - 9 * DAY), begin(None), begin(now, first=True)):
        assert near(now - 3.5 * DAY, found)


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [Priority.TRAILING, Priority.REREAD, Priority.HISTORY])
def test_a_room_is_asked_by_its_home(priority: Priority) -> None:
    """getroommeasure by home and room, all else as of a module; its pages follow each other so."""
    room = Entity("home", "room", "17", "h", "", "room", {"module_types": ["NRV"]})
    rest = {
        "type": "temperature,sp_temperature", "limit": "1024", "optimize": "false",
        "real_time": "true", "home_id": "h", "room_id": "17",
    }  # fmt: skip
    begin = NOON - 40 * DAY

    asked = rows_poll("home", room, ("temperature", "sp_temperature"), begin, scale="30min",
                      priority=priority)  # fmt: skip
    body = {str(int((begin + place * HALF).timestamp())): [1, 2] for place in range(1024)}
    parsed = parse_rows(reply(body, NOON), asked)

    stamp = str(int(begin.timestamp()))
    assert asked.params == {**rest, "scale": "30min", "date_begin": stamp}
    assert (asked.endpoint.name, asked.endpoint.priority) == ("getroommeasure", priority)
    wants = [(each.endpoint, each.begin) for each in parsed.wants]
    following = (asked.endpoint, begin + 1024 * HALF)
    assert wants == ([] if priority == Priority.HISTORY else [following])


def test_days_of_a_room_are_asked_by_its_home() -> None:
    """The same of its day rows."""
    room = Entity("home", "room", "17", "h", "", "room", {})

    asked = days_poll("home", room, ("temperature", "sp_temperature"), NOON)

    assert asked.endpoint.name == "getroommeasure"
    assert (asked.params["room_id"], asked.params["home_id"]) == ("17", "h")
    assert "device_id" not in asked.params


@pytest.mark.parametrize(
    ("device", "module", "params"),
    [
        ("gateway", "gateway#1", {"device_id": "gateway", "module_id": "gateway#1"}),
        ("gateway", "gateway", {"device_id": "gateway"}),
        ("", "alone", {"device_id": "alone"}),
    ],
)
def test_a_module_is_asked_by_its_bridge(device: str, module: str, params: dict[str, str]) -> None:
    """A line of a meter by its bridge and full id; a bridge, or what has none, by itself."""
    of = Entity("home", "module", module, "h", device, "NLE", {})

    asked = rows_poll("home", of, ECOMETER, NOON, scale="30min")

    told = {name: asked.params[name] for name in asked.params if name.endswith("_id")}
    assert told == params
