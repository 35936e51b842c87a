"""Air quality monitors: recorded shapes, and garbage in any place.

tests/data/aircare/<case>/ is read as tests/data/weather/ is: see test_sources_weather.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Measurement
from netatmo_ingestd.polls import Parsed, Poll
from netatmo_ingestd.sources.aircare import AIRCARE, LEFT_OUT, MODULE_TYPES, parse_coaches
from netatmo_ingestd.sources.quantities import UNITS, UPSTREAM, day_types
from netatmo_ingestd.sources.weather import parse_stations
from tests import test_sources_weather as weather

CASES = Path(__file__).parent / "data" / "aircare"
NAMES = sorted(path.parent.name for path in CASES.glob("*/response.json"))
COACHES = AIRCARE.endpoints[0]
OUR_NAMES = {*weather.OUR_NAMES, "subtype", "module_name"}


def read(name: str) -> tuple[dict[str, Any], dict[str, Any], Poll]:
    """(answer, what is expected of it, the poll that got it)."""
    envelope, expected = (
        json.loads((CASES / name / f"{part}.json").read_text()) for part in ("response", "expected")
    )
    asked = expected.pop("asked", None)
    return envelope, expected, weather.poll_of(asked) if asked else Poll(COACHES, "home")


def parse(envelope: dict[str, Any]) -> Parsed:
    return parse_coaches(weather.reply_of(envelope), Poll(COACHES, "home"))


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    envelope, expected, poll = read(name)

    if "raises" in expected:
        with pytest.raises(PayloadError, match="gethomecoachsdata") as caught:
            poll.endpoint.parse(weather.reply_of(envelope), poll)
        assert caught.value.path == expected["raises"]
        return
    told = weather.view(poll.endpoint.parse(weather.reply_of(envelope), poll))

    assert expected.keys() == {*weather.EVERYTHING, "rows"}
    assert {key: told[key] for key in expected} == expected
    # 21 and 21.0 are equal to Python, not to MongoDB.
    assert weather._exact({key: told[key] for key in expected}) == weather._exact(expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "devices_missing"])
def test_case_is_storable(name: str) -> None:
    """Nothing that comes out of a case is refused by BSON, and no upstream key is a field name."""
    envelope, _, poll = read(name)

    parsed = poll.endpoint.parse(weather.reply_of(envelope), poll)
    batch = Batch("home", poll.endpoint.name, parsed.records, parsed.facts)
    documents, facts, _ = records.unpack(records.pack(batch)[0])

    assert [each["record"] for each in documents] == [
        type(each).__name__ for each in parsed.records
    ]
    assert facts == list(parsed.facts)
    assert set().union(*(weather._keys(each) for each in documents), set()) <= OUR_NAMES


def test_every_history_type_has_a_name() -> None:
    """Each type we ask getmeasure for has a quantity of ours, and day rows; the index is none."""
    asked = MODULE_TYPES["NHC"].history

    assert {UPSTREAM[name.lower()] for name in asked} <= set(UNITS)
    assert all(name in day_types(asked) for name in asked)
    assert "health_idx" not in {name.lower() for name in asked}


def test_left_out_is_left_out() -> None:
    """Nothing of a field in LEFT_OUT is in any record."""
    envelope, _, _ = read("monitor")
    bare = weather.view(parse(envelope))
    envelope["body"]["user"] = {"mail": "canary"}
    envelope["body"]["devices"][0]["cipher_id"] = "canary"

    assert set(LEFT_OUT) == {"user", "cipher_id"}
    assert weather.view(parse(envelope)) == bare


def test_a_monitor_is_no_type_of_the_weather_line() -> None:
    """A monitor among stations is kept, and told as news, since each line knows its own types."""
    envelope, _, _ = read("monitor")

    parsed = parse_stations(weather.reply_of(envelope), Poll(weather.STATIONS, "home"))

    assert [str(each) for each in parsed.problems] == ["body.devices[0].type: unknown type NHC"]
    assert [each.source for each in parsed.records if isinstance(each, Measurement)] == [
        "getstationsdata"
    ]


# --- garbage --------------------------------------------------------------------------------------

_KEYS = sorted(set(read("monitor")[0]["body"]["devices"][0]) - {"_id"})
_BOARD = sorted(read("monitor")[0]["body"]["devices"][0]["dashboard_data"])


def _odd(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys) | st.text(max_size=8), weather._garbage)


@settings(max_examples=200, deadline=None)
@given(device=_odd(_KEYS), dashboard=_odd(_BOARD) | weather._garbage)
def test_one_odd_monitor_costs_its_neighbours_nothing(
    device: dict[str, Any], dashboard: Any
) -> None:
    """Whatever stands in one monitor's fields, the row of the other is stored unchanged."""
    envelope, _, _ = read("monitor")
    good = envelope["body"]["devices"][0]
    odd = {**copy.deepcopy(good), "dashboard_data": dashboard, **device, "_id": "odd"}
    envelope["body"]["devices"] = [odd, good]

    parsed = parse(envelope)

    rows = {each.module_id: each for each in parsed.records if isinstance(each, Measurement)}
    assert rows[good["_id"]].time.timestamp() == good["dashboard_data"]["time_utc"]
    assert rows[good["_id"]].values == {
        UPSTREAM[key.lower()]: float(value)
        for key, value in good["dashboard_data"].items()
        if key.lower() in UPSTREAM
    }
    assert records.pack(Batch("home", COACHES.name, parsed.records))[1] == len(parsed.records)
