"""Stations of others: tiles of an area, answers of `getpublicdata`, and garbage in any place.

tests/data/public/<case>/ is read as tests/data/weather/ is, with `stations` instead of homes and
modules: see test_sources_weather.
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
from netatmo_ingestd.area import TILE_DEGREES, tiles
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Entity, Measurement
from netatmo_ingestd.polls import Parsed, Poll
from netatmo_ingestd.sources.public import (
    LEFT_OUT,
    PUBLIC,
    PUBLIC_DATA,
    as_known,
    parse_public,
    tile_poll,
)
from netatmo_ingestd.sources.quantities import UNITS
from tests import test_sources_weather as weather

CASES = Path(__file__).parent / "data" / "public"
NAMES = sorted(path.name for path in CASES.iterdir())
TILE = "48,2,48.5,2.5"
POLL = tile_poll("home", TILE)
OUR_NAMES = weather.OUR_NAMES | {"street", "mark", "modules", "type", "id"}


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(answer, what is expected of it)."""
    envelope, expected = (
        json.loads((CASES / name / f"{part}.json").read_text()) for part in ("response", "expected")
    )
    return envelope, expected


def parse(envelope: dict[str, Any]) -> Parsed:
    return parse_public(weather.reply_of(envelope), POLL)


def view(parsed: Parsed) -> dict[str, Any]:
    told = weather.view(parsed)
    stations = {
        each.entity_id: weather._entity(each)
        for each in parsed.records
        if isinstance(each, Entity) and each.kind == "station"
    }
    assert (told["homes"], told["modules"], told["facts"], told["wants"]) == ({}, {}, [], [])
    return {"stations": stations, **{key: told[key] for key in ("rows", "problems", "drift")}}


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    envelope, expected = read(name)

    if "raises" in expected:
        with pytest.raises(PayloadError, match="getpublicdata") as caught:
            parse(envelope)
        assert caught.value.path == expected["raises"]
        return
    told = view(parse(envelope))

    assert told == expected
    assert weather._exact(told) == weather._exact(expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "no_list"])
def test_case_is_storable(name: str) -> None:
    """Nothing that comes out of a case is refused by BSON, and no upstream key is a field name."""
    envelope, _ = read(name)

    parsed = parse(envelope)
    documents, facts, _ = records.unpack(
        records.pack(Batch("home", PUBLIC_DATA.name, parsed.records))[0]
    )

    assert [each["record"] for each in documents] == [
        type(each).__name__ for each in parsed.records
    ]
    assert facts == []
    assert set().union(*(weather._keys(each) for each in documents), set()) <= OUR_NAMES


def test_each_quantity_has_a_unit() -> None:
    """What a row of a public station can hold stands in the table of units."""
    rows = [each for each in parse(read("station")[0]).records if isinstance(each, Measurement)]

    names = {name for row in rows for name in row.values}
    assert names == {
        "temperature", "humidity", "pressure", "rain_live", "rain_last_hour", "rain_last_day",
        "wind_strength", "wind_angle", "gust_strength", "gust_angle",
    }  # fmt: skip
    assert names <= set(UNITS)


def test_left_out_is_left_out() -> None:
    """Nothing of a field in LEFT_OUT is in any record."""
    envelope, expected = read("station")
    envelope["body"][0] |= dict.fromkeys(LEFT_OUT, "canary")

    assert view(parse(envelope)) == expected


def test_nothing_of_it_has_a_history() -> None:
    """No type of module belongs to the line, and a station is neither home nor module."""
    stations = [each for each in parse(read("station")[0]).records if isinstance(each, Entity)]

    assert dict(PUBLIC.module_types) == {}
    assert [(each.kind, each.home_id) for each in stations] == [("station", "")]


def test_what_an_account_has_itself_is_told_as_its_own() -> None:
    """Rows of own modules get their home and type; the own station is not described anew."""
    envelope, _ = read("two_stations")
    own = {
        module_id: Entity("home", "module", module_id, "h", "70:ee:50:00:0a:01", kind, {})
        for module_id, kind in (
            ("70:ee:50:00:0a:01", "NAMain"),
            ("02:00:00:00:0a:01", "NAModule1"),
        )
    }

    told = as_known(parse(envelope), own)

    rows = {each.module_id: each for each in told.records if isinstance(each, Measurement)}
    stations = [each.entity_id for each in told.records if isinstance(each, Entity)]
    assert stations == ["70:ee:50:00:0a:02"]
    assert len(rows) == 8
    garden, foreign = rows["02:00:00:00:0a:01"], rows["02:00:00:00:0a:02"]
    assert (garden.home_id, garden.device_id, garden.module_type) == (
        "h", "70:ee:50:00:0a:01", "NAModule1",
    )  # fmt: skip
    assert garden.values == {"temperature": 11.5, "humidity": 81.0}
    assert (foreign.home_id, foreign.module_type) == ("", "public")


# --- tiles ----------------------------------------------------------------------------------------


@given(
    lat=st.floats(-85, 84.9),
    lon=st.floats(-180, 179.9),
    height=st.floats(0.001, 3),
    width=st.floats(0.001, 3),
)
def test_tiles_cover_the_area_without_overlap(
    lat: float, lon: float, height: float, width: float
) -> None:
    """Each tile has at most a quarter of a degree a side; their areas add up to the whole."""
    lat_ne, lon_ne = min(85.0, lat + height), min(180.0, lon + width)

    found = [tuple(map(float, tile.split(","))) for tile in tiles(lat_ne, lon_ne, lat, lon)]

    for south, west, north, east in found:
        assert south < north <= south + TILE_DEGREES + 2e-5
        assert west < east <= west + TILE_DEGREES + 2e-5
    assert min(each[0] for each in found) == pytest.approx(lat, abs=1e-5)
    assert min(each[1] for each in found) == pytest.approx(lon, abs=1e-5)
    assert max(each[2] for each in found) == pytest.approx(lat_ne, abs=1e-5)
    assert max(each[3] for each in found) == pytest.approx(lon_ne, abs=1e-5)
    whole = sum((each[2] - each[0]) * (each[3] - each[1]) for each in found)
    assert whole == pytest.approx((lat_ne - lat) * (lon_ne - lon), abs=1e-3)


def test_a_small_area_is_one_tile() -> None:
    """A quarter of a degree is one tile, whatever floats make of it; its poll has its corners."""
    (tile,) = tiles(48.55, 2.35, 48.3, 2.1)

    poll = tile_poll("home", tile)

    assert tile == "48.3,2.1,48.55,2.35"
    assert poll.params == {"lat_sw": "48.3", "lon_sw": "2.1", "lat_ne": "48.55", "lon_ne": "2.35"}
    assert poll.key == f"getpublicdata|{tile}"
    assert len(tiles(49.3, 3.1, 48.3, 2.1)) == 16


# --- garbage --------------------------------------------------------------------------------------

_KEYS = ["place", "mark", "modules", "module_types", "measures", "enhanced"]


@settings(max_examples=200, deadline=None)
@given(
    station=st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=8), weather._garbage),
    measures=st.dictionaries(
        st.text(max_size=20),
        weather._garbage
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("res", "type", "rain_live", "rain_timeutc", "wind_angle"), weather._garbage
            ),
        )
        | st.fixed_dictionaries(
            {
                "res": st.dictionaries(st.text(max_size=12), weather._garbage, max_size=3),
                "type": st.lists(weather._garbage, max_size=3),
            }
        ),
    ),
)
def test_one_odd_station_costs_its_neighbours_nothing(
    station: dict[str, Any], measures: dict[str, Any]
) -> None:
    """Whatever stands in one station's fields, those of the other are stored unchanged."""
    envelope, expected = read("station")
    good = envelope["body"][0]
    odd = {**copy.deepcopy(good), "measures": measures, **station, "_id": "odd"}
    envelope["body"] = [odd, good]

    parsed = parse(envelope)

    own = Parsed([each for each in parsed.records if _station_of(each) == good["_id"]])
    assert view(own)["rows"] == expected["rows"]
    assert view(own)["stations"] == expected["stations"]
    assert records.pack(Batch("home", PUBLIC_DATA.name, parsed.records))[1] == len(parsed.records)


def _station_of(record: Any) -> str:
    return record.device_id if isinstance(record, (Entity, Measurement)) else ""


def test_a_poll_that_is_none_of_ours_still_parses() -> None:
    """The answer says all; the tile it was asked for is not needed."""
    envelope, expected = read("station")

    parsed = parse_public(weather.reply_of(envelope), Poll(PUBLIC_DATA, "home"))

    assert view(parsed) == expected
    assert parsed.records[0].account == "home"  # type: ignore[union-attr]
    assert datetime.fromtimestamp(envelope["time_server"], UTC).year == 2025
