"""`getstationsdata` and `getmeasure` by cases: one folder under data/weather, one case.

response.json  the whole envelope as the cloud sends it
expected.json  what is told about it; of each key only what the case names is compared:
               `asked` (the module and window of a getmeasure case; without it the answer is a
               getstationsdata), `homes`, `modules`, `rows`, `row_count`, `problems`, `drift`,
               `wants`, `facts`, or `raises` with the JSON path of a PayloadError
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Entity, Fact, Measurement
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.sources.fields import MODULE_NUMBERS, ROOM_NUMBERS, VELUX_NUMBERS
from netatmo_ingestd.sources.measure import parse_rows, rows_poll
from netatmo_ingestd.sources.quantities import UNITS, UPSTREAM
from netatmo_ingestd.sources.weather import LEFT_OUT, MODULE_TYPES, WEATHER, parse_stations

CASES = Path(__file__).parent / "data" / "weather"
NAMES = sorted(path.parent.name for path in CASES.glob("*/response.json"))
STATIONS = WEATHER.endpoints[0]
EVERYTHING = {"homes", "modules", "problems", "drift", "wants", "facts"}


def reply_of(envelope: dict[str, Any]) -> Reply:
    server = datetime.fromtimestamp(envelope["time_server"], UTC)
    return Reply(envelope.get("body"), server, server, json.dumps(envelope).encode())


def poll_of(asked: dict[str, Any] | None) -> Poll:
    if asked is None:
        return Poll(STATIONS, "home")
    target = Entity(
        account="home",
        kind="module",
        entity_id=asked["module"],
        home_id=asked["home"],
        device_id=asked["device"],
        type=asked["type"],
        description={},
    )
    begin = datetime.fromtimestamp(asked["begin"], UTC)
    return rows_poll("home", target, tuple(asked["types"]), begin)


def view(parsed: Parsed) -> dict[str, Any]:
    """Everything in `parsed` as JSON, dates as text."""
    entities = [each for each in parsed.records if isinstance(each, Entity)]
    rows = [each for each in parsed.records if isinstance(each, Measurement)]
    assert len(entities) + len(rows) == len(parsed.records)
    return {
        "homes": {each.entity_id: _entity(each) for each in entities if each.kind == "home"},
        "modules": {each.entity_id: _entity(each) for each in entities if each.kind == "module"},
        "rows": [_row(each) for each in rows],
        "row_count": len(rows),
        "problems": sorted(str(each) for each in parsed.problems if not each.drift),
        "drift": sorted(str(each) for each in parsed.problems if each.drift),
        "wants": [dict(each.params) for each in parsed.wants],
        "facts": [_fact(each) for each in parsed.facts],
    }


def _entity(entity: Entity) -> dict[str, Any]:
    told = {
        "home_id": entity.home_id,
        "device_id": entity.device_id,
        "type": entity.type,
        "read_only": entity.read_only,
        "setup": entity.setup,
        "description": entity.description,
        "condition": entity.condition,
        "state": entity.state,
        "latest": entity.latest,
        "other": entity.other,
    }
    found: dict[str, Any] = _plain(told)
    return found


def _row(row: Measurement) -> dict[str, Any]:
    assert row.account == "home"
    assert all(type(value) is float for value in row.values.values())
    told = {
        "home_id": row.home_id,
        "device_id": row.device_id,
        "module_id": row.module_id,
        "module_type": row.module_type,
        "scale": row.scale,
        "time": row.time,
        "values": row.values,
        "source": row.source,
        "other": row.other,
    }
    found: dict[str, Any] = _plain(told)
    return found


def _fact(fact: Fact) -> dict[str, Any]:
    assert fact.account == "home"
    told = {
        "entity_id": fact.entity_id,
        "scale": fact.scale,
        "types": fact.types,
        "begin": fact.begin,
        "end": fact.end,
        "rows": fact.rows,
        "newest": fact.newest,
    }
    found: dict[str, Any] = _plain(told)
    return found


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda moment: moment.isoformat()))


def envelope_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CASES / name / "response.json").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    expected = json.loads((CASES / name / "expected.json").read_text())
    poll = poll_of(expected.pop("asked", None))
    reply = reply_of(envelope_of(name))

    if "raises" in expected:
        with pytest.raises(PayloadError) as caught:
            poll.endpoint.parse(reply, poll)
        assert caught.value.path == expected["raises"]
        return
    told = view(poll.endpoint.parse(reply, poll))

    assert expected.keys() >= EVERYTHING
    assert expected.keys() & {"rows", "row_count"}
    assert {key: told[key] for key in expected} == expected
    # 21 and 21.0 are equal to Python, not to MongoDB.
    assert _exact({key: told[key] for key in expected}) == _exact(expected)


@pytest.mark.parametrize("name", NAMES)
def test_case_is_storable(name: str) -> None:
    """Nothing that comes out of a case is refused by BSON, and no upstream key is a field name."""
    expected = json.loads((CASES / name / "expected.json").read_text())
    if "raises" in expected:
        return
    poll = poll_of(expected.get("asked"))
    reply = reply_of(envelope_of(name))

    parsed = poll.endpoint.parse(reply, poll)
    documents, facts, _ = records.unpack(
        records.pack(Batch("home", poll.endpoint.name, parsed.records, parsed.facts))[0]
    )

    assert [each["record"] for each in documents] == [
        type(each).__name__ for each in parsed.records
    ]
    assert facts == list(parsed.facts)
    assert set().union(*(_keys(each) for each in documents), set()) <= OUR_NAMES


_FIELD_NAMES = """
    record account kind entity_id home_id device_id type description condition state latest setup
    read_only other module_id module_type scale time values source
    name timezone city country altitude longitude latitude home_name station_name firmware
    last_setup last_upgrade data_types radio last_seen last_message main_device
    battery percent level_mv reachable co2_calibrating trend temperature pressure
    today temperature_min temperature_max temperature_min_time temperature_max_time
    rain_last_hour rain_today wind_strength_max wind_angle_max wind_strength_max_time
"""
OUR_NAMES = {*_FIELD_NAMES.split(), *UNITS}


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_keys(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_keys(item) for item in value))
    return set()


def test_every_history_type_has_a_name() -> None:
    """Each type we ask getmeasure for has a quantity of ours with a documented unit."""
    asked = {name for kind in MODULE_TYPES.values() for name in kind.history}

    assert {UPSTREAM[name.lower()] for name in asked} <= set(UNITS)
    live = {*ROOM_NUMBERS.values(), *VELUX_NUMBERS.values(), *MODULE_NUMBERS.values()}
    public = {"rain_live", "rain_last_hour", "rain_last_day"}
    assert {*UPSTREAM.values(), *live, *public} == set(UNITS)


def test_left_out_is_left_out() -> None:
    """Nothing of a field in LEFT_OUT is in any record."""
    envelope = envelope_of("full_station")
    device = envelope["body"]["devices"][0]
    bare = view(parse_stations(reply_of(envelope), Poll(STATIONS, "home")))
    envelope["body"]["user"] = {"mail": "canary"}
    device["cipher_id"] = "canary"
    device["modules"][1]["dashboard_data"]["WindHistoric"] = [{"WindStrength": 77}]

    told = view(parse_stations(reply_of(envelope), Poll(STATIONS, "home")))

    assert set(LEFT_OUT) == {"user", "cipher_id", "WindHistoric"}
    assert told == bare


# --- garbage --------------------------------------------------------------------------------------

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**70), 10**400, -1, 0, 65535, 1e308, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["\ud800", "$where", "a.b", "", "NAMain", "\x00", "x" * 5000])
)
_garbage = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_STATION_KEYS = set(envelope_of("full_station")["body"]["devices"][0]) - {"_id", "modules"}
_MODULE_KEYS = set(envelope_of("full_station")["body"]["devices"][0]["modules"][0])


def _odd(keys: set[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(sorted(keys)) | st.text(max_size=8), _garbage)


_dashboards = st.dictionaries(
    st.sampled_from(
        ["time_utc", "Temperature", "WindAngle", "min_temp", "date_max_temp", "temp_trend"]
    )
    | st.text(max_size=8),
    _garbage | st.just(1_761_999_640),
)


@settings(max_examples=200, deadline=None)
@given(
    module=_odd(_MODULE_KEYS),
    dashboard=_dashboards | _garbage,
    station=_odd(_STATION_KEYS),
    place=st.integers(0, 3),
)
def test_one_odd_module_costs_its_neighbours_nothing(
    module: dict[str, Any], dashboard: Any, station: dict[str, Any], place: int
) -> None:
    """Whatever stands in one module's fields, the rows of the others are stored unchanged."""
    envelope = envelope_of("full_station")
    other = copy.deepcopy(envelope["body"]["devices"][0])
    other["_id"] = "70:ee:50:2a:10:aa"
    other["modules"] = []
    clean = envelope["body"]["devices"][0]["modules"]
    station.pop("_id", None)
    station.pop("modules", None)
    envelope["body"]["devices"][0] |= station
    odd = {**clean[place], "_id": "odd", "dashboard_data": dashboard, **module}
    siblings = [each for index, each in enumerate(clean) if index != place]
    envelope["body"]["devices"][0]["modules"] = [odd, *siblings]
    envelope["body"]["devices"].append(other)

    parsed = parse_stations(reply_of(envelope), Poll(STATIONS, "home"))

    rows = {each.module_id: each for each in parsed.records if isinstance(each, Measurement)}
    for sibling in [*siblings, other]:
        stamp = sibling["dashboard_data"]["time_utc"]
        assert rows[sibling["_id"]].time.timestamp() == stamp
        assert set(rows[sibling["_id"]].values.values()) == {
            float(value)
            for key, value in sibling["dashboard_data"].items()
            if key.lower() in UPSTREAM
        }
    assert records.pack(Batch("home", "getstationsdata", parsed.records))[1] == len(parsed.records)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=12), _garbage, max_size=5) | st.lists(_garbage, max_size=5))
def test_one_odd_row_costs_its_neighbours_nothing(garbage: Any) -> None:
    """Whatever stands among the rows of a history answer, the good ones are stored unchanged."""
    good = 1_761_990_300
    if isinstance(garbage, dict):
        body: Any = {**garbage, str(good): [17.5, 900]}
    else:
        body = [*garbage, {"beg_time": good, "value": [[17.5, 900]]}]
    poll = poll_of(
        {
            "module": "03:00:00:2a:10:05",
            "device": "70:ee:50:2a:10:01",
            "home": "h",
            "type": "NAModule4",
            "types": ["Temperature", "CO2"],
            "begin": 1_761_990_000,
        }
    )

    parsed = parse_rows(reply_of({"body": body, "time_server": 1_762_000_000}), poll)

    values = [
        each.values
        for each in parsed.records
        if isinstance(each, Measurement) and each.time.timestamp() == good
    ]
    assert {"temperature": 17.5, "co2": 900.0} in values
