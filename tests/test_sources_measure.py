"""History rows: what is asked, what a window establishes, how pages follow each other.

Single answers are cases under data/weather (measure_*); here are the claims that need more.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netatmo_ingestd.models import Entity, Measurement, Priority
from netatmo_ingestd.polls import ModuleType, Parsed, Poll, Reply
from netatmo_ingestd.sources import MODULE_TYPES
from netatmo_ingestd.sources.measure import (
    MEASURE,
    PAGE_ROWS,
    history_of,
    parse_rows,
    rows_poll,
)

SERVER = datetime(2025, 11, 1, 12, 0, 0, 700_000, UTC)
BEGIN = datetime(2025, 10, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def module(kind: str = "NAModule1", **description: Any) -> Entity:
    return Entity("home", "module", "mod", "h", "dev", kind, description)


def poll(begin: datetime = BEGIN) -> Poll:
    return rows_poll("home", module(), ("Temperature", "Humidity"), begin)


def parse(body: Any, asked: Poll | None = None) -> Parsed:
    return parse_rows(Reply(body, SERVER, SERVER, b""), asked or poll())


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def test_what_is_asked() -> None:
    """A submodule is asked by station and module id, unoptimized and from an explicit begin."""
    asked = rows_poll("home", module(), ("Temperature", "Humidity"), BEGIN)

    assert asked.params == {
        "device_id": "dev",
        "module_id": "mod",
        "scale": "max",
        "type": "Temperature,Humidity",
        "date_begin": str(epoch(BEGIN)),
        "limit": "1024",
        "optimize": "false",
        "real_time": "true",
    }
    assert asked.begin == BEGIN
    assert asked.endpoint is MEASURE


def test_station_is_asked_without_module_id() -> None:
    """A station's own history carries no module_id."""
    station = Entity("home", "module", "dev", "h", "dev", "NAMain", {})

    assert "module_id" not in rows_poll("home", station, ("CO2",), BEGIN).params


@pytest.mark.parametrize(
    ("kind", "told", "types"),
    [
        ("NAMain", ["Wind"], ("Temperature", "CO2", "Humidity", "Pressure", "Noise")),
        ("NAModule3", None, ("Rain",)),
        (
            "NAModule9",
            ["wind", "Rain"],
            ("WindStrength", "WindAngle", "GustStrength", "GustAngle", "Rain"),
        ),
        ("NAModule9", ["Illuminance"], ()),
        ("NAModule9", None, ()),
    ],
)
def test_history_types(kind: str, told: list[str] | None, types: tuple[str, ...]) -> None:
    """A known type is asked by our table, an unknown one by its data_type as far as we know it."""
    entity = module(kind, **({"data_types": told} if told else {}))

    kept = history_of(MODULE_TYPES, entity)
    assert (kept.history if kept else ()) == types


def test_a_window_ends_at_the_clouds_now() -> None:
    """An answer establishes nothing about times after its time_server, whatever rows it holds."""
    ahead = SERVER + timedelta(hours=20)

    (fact,) = parse({str(epoch(ahead)): [1, 2]}).facts

    assert fact.end == fact.asked == SERVER.replace(microsecond=0)
    assert (fact.rows, fact.newest, fact.filled) == (0, None, ())


def test_a_full_page_ends_at_its_newest_row() -> None:
    """A full page covers up to its newest row; the next begins a second later, of the same walk."""
    body = {str(epoch(BEGIN) + 300 * place): [place, None] for place in range(PAGE_ROWS)}
    newest = BEGIN + timedelta(seconds=300 * (PAGE_ROWS - 1))

    parsed = parse(body)

    (fact,), (want,) = parsed.facts, parsed.wants
    assert (fact.begin, fact.end, fact.rows) == (BEGIN, newest + SECOND, PAGE_ROWS)
    assert (fact.newest, fact.filled) == (newest, ((BEGIN, newest + SECOND),))
    assert (fact.whole, fact.walked) == (False, None)
    since = SERVER.replace(microsecond=0)
    assert want == replace(poll(newest + SECOND), walked=BEGIN, since=since)


def test_rows_without_a_value_fill_a_page_too() -> None:
    """Rows of nulls and unusable stamps count to a full page: the cloud counted them."""
    good = {str(epoch(BEGIN) + 300): [1, 2]}
    nulls = {str(epoch(BEGIN) + 300 * place): [None, None] for place in range(2, PAGE_ROWS)}

    parsed = parse({**good, **nulls, "soon": [1, 2]})

    assert parsed.facts[0].rows == PAGE_ROWS - 1
    assert len(parsed.records) == 1
    assert parsed.facts[0].end == BEGIN + timedelta(seconds=300 * (PAGE_ROWS - 1)) + SECOND
    assert len(parsed.wants) == 1


def test_a_page_of_bad_stamps_establishes_nothing() -> None:
    """A full page without one usable stamp is no evidence that the window is empty."""
    body = {str(4_000_000_000 + place): [1, 2] for place in range(PAGE_ROWS)}

    parsed = parse(body)

    assert (parsed.facts, parsed.wants, list(parsed.records)) == ((), (), [])
    assert len(parsed.problems) == PAGE_ROWS + 1


def test_optimized_pages_are_counted_by_point() -> None:
    """1024 points in two segments are a full page just as 1024 keys are."""
    half = PAGE_ROWS // 2
    body = [
        {"beg_time": epoch(BEGIN), "step_time": 300, "value": [[1, 2]] * half},
        {"beg_time": epoch(BEGIN) + 400_000, "step_time": 300, "value": [[1, 2]] * half},
    ]

    parsed = parse(body)

    assert parsed.facts[0].rows == PAGE_ROWS
    assert parsed.wants[0].begin == BEGIN + timedelta(seconds=400_000 + 300 * (half - 1) + 1)


def test_a_poll_without_module_is_a_bug_of_ours() -> None:
    """Parsing rows for nothing in particular raises instead of storing rows without an owner."""
    with pytest.raises(ValueError, match="of an entity"):
        parse_rows(Reply({}, SERVER, SERVER, b""), Poll(MEASURE, "home"))


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048, 2049, 5000])
def test_pages_bring_every_row_once(count: int) -> None:
    """Following the wants of full pages reads every row once, and their windows leave no gap."""
    # Jittering steps, and now and then a gap of days.
    steps = (
        1 + place * 7919 % 13 + (100_000 if place % 700 == 699 else 0) for place in range(count)
    )
    stamps = [epoch(BEGIN) + sum_ for sum_ in itertools.accumulate(steps)]
    found: list[int] = []
    windows = []
    asked: Poll | None = poll()

    while asked is not None:
        assert asked.begin is not None
        first = epoch(asked.begin)
        page = [stamp for stamp in stamps if stamp >= first][:PAGE_ROWS]
        parsed = parse({str(stamp): [20.5, 50] for stamp in page}, asked)
        found += [epoch(row.time) for row in parsed.records if isinstance(row, Measurement)]
        windows += [(fact.begin, fact.end) for fact in parsed.facts]
        asked = parsed.wants[0] if parsed.wants else None

    assert found == stamps
    assert [end for _, end in windows[:-1]] == [begin for begin, _ in windows[1:]]
    assert (windows[0][0], windows[-1][1]) == (BEGIN, SERVER.replace(microsecond=0))


# --- bucketed scales ------------------------------------------------------------------------------

BUCKETS = [("30min", 1800), ("1hour", 3600), ("3hours", 10800)]


def bucketed(scale: str, begin: datetime, priority: Priority = Priority.TRAILING) -> Poll:
    return rows_poll("home", module(), ("Temperature",), begin, scale=scale, priority=priority)


@pytest.mark.parametrize(("scale", "width_s"), BUCKETS)
def test_buckets_are_asked_on_one_grid(scale: str, width_s: int) -> None:
    """Whatever moment is asked from, a bucket edge of UTC is: a row has one stamp on every page."""
    odd = BEGIN + timedelta(hours=7, minutes=47, seconds=3)

    asked = bucketed(scale, odd)

    assert asked.begin is not None
    assert epoch(asked.begin) % width_s == 0
    assert timedelta(0) <= odd - asked.begin < timedelta(seconds=width_s)
    assert asked.params["date_begin"] == str(epoch(asked.begin))
    assert asked.params["scale"] == asked.scale == scale


@pytest.mark.parametrize(("scale", "width_s"), BUCKETS)
def test_only_whole_buckets_are_established(scale: str, width_s: int) -> None:
    """The bucket of now still changes, and one less than half an hour old may: both are stored,
    and asked for again."""
    width = timedelta(seconds=width_s)
    server = SERVER + timedelta(minutes=31)
    edge = server.replace(minute=0, second=0, microsecond=0)  # noon is an edge of all three
    body = {str(epoch(edge - 2 * width)): [1], str(epoch(edge - width)): [2], str(epoch(edge)): [3]}

    parsed = parse_rows(Reply(body, server, server, b""), bucketed(scale, BEGIN))

    (fact,) = parsed.facts
    assert [epoch(each.time) for each in parsed.records if isinstance(each, Measurement)] == [
        epoch(edge) + step * width_s for step in (-2, -1, 0)
    ]
    assert {each.scale for each in parsed.records if isinstance(each, Measurement)} == {scale}
    assert (fact.scale, fact.begin, fact.end) == (scale, BEGIN, edge)
    assert (fact.rows, fact.newest) == (2, edge - width)
    assert fact.filled == ((edge - 2 * width, edge),)
    assert fact.asked == server.replace(microsecond=0)
    fresh = server - timedelta(minutes=2)
    (before,) = parse_rows(Reply(body, fresh, fresh, b""), bucketed(scale, BEGIN)).facts
    assert (before.end, before.newest) == (edge - width, edge - 2 * width)


@pytest.mark.parametrize(("scale", "width_s"), BUCKETS)
def test_the_next_page_of_buckets_begins_behind_the_last(scale: str, width_s: int) -> None:
    """A full page ends where its last bucket does, and the next one begins on the same grid."""
    begin = SERVER.replace(microsecond=0) - 2000 * timedelta(seconds=width_s)
    stamps = [epoch(begin) + place * width_s for place in range(PAGE_ROWS)]
    asked = bucketed(scale, begin, Priority.REREAD)

    parsed = parse({str(stamp): [1] for stamp in stamps}, asked)

    (fact,), (want,) = parsed.facts, parsed.wants
    end = begin + PAGE_ROWS * timedelta(seconds=width_s)
    assert (fact.end, fact.newest) == (end, end - timedelta(seconds=width_s))
    assert fact.filled == ((begin, end),)
    assert (want.begin, want.scale, want.walked) == (end, scale, begin)
    assert want.endpoint.priority == Priority.REREAD


# --- whose page it is -----------------------------------------------------------------------------


def test_history_goes_on_by_the_ledger() -> None:
    """A full page of history wants nothing: what to ask next is worked out anew."""
    body = {str(epoch(BEGIN) + 300 * place): [place, None] for place in range(PAGE_ROWS)}
    asked = rows_poll("home", module(), ("CO2",), BEGIN, priority=Priority.HISTORY, walked=BEGIN)

    parsed = parse(body, asked)

    assert parsed.wants == ()
    assert (parsed.facts[0].whole, parsed.facts[0].walked) == (False, BEGIN)


def test_pages_of_a_walk_remember_where_it_began() -> None:
    """The last page of a re-read tells from where on all was asked."""
    body = {str(epoch(BEGIN) + 300 * place): [place, None] for place in range(PAGE_ROWS)}
    earlier = BEGIN - timedelta(days=9)
    asked = rows_poll("home", module(), ("CO2",), BEGIN, priority=Priority.REREAD, walked=earlier)

    (want,) = parse(body, asked).wants

    assert want.walked == earlier
    assert parse({}, want).facts[0].walked == earlier
    assert parse({}, want).facts[0].whole


def test_rows_far_apart_are_stretches_of_their_own() -> None:
    """A fact tells where rows lie at most 6 h apart; each stretch ends where its last row does."""
    hours = [0, 1, 7, 13.5, 14]
    body = {str(epoch(BEGIN + timedelta(hours=hour))): [1, 2] for hour in hours}

    (fact,) = parse(body).facts

    def stretch(first: float, last: float) -> tuple[datetime, datetime]:
        return BEGIN + timedelta(hours=first), BEGIN + timedelta(hours=last) + SECOND

    assert fact.filled == (stretch(0, 7), stretch(13.5, 14))
    assert (fact.rows, fact.newest) == (5, BEGIN + timedelta(hours=14))


@pytest.mark.parametrize(("kind", "scale"), [("NAMain", "max"), ("NAModule9", "max")])
def test_history_scale(kind: str, scale: str) -> None:
    """A module's finest scale stands in our table; an unknown type is asked for its raw rows."""
    kept = history_of(MODULE_TYPES, module(kind, data_types=["Rain"]))
    assert kept is not None
    assert kept.scale == scale
    meter = {"NLPC": ModuleType("energy", ("sum_energy_elec",), "30min")}
    found = history_of(meter, module("NLPC"))
    assert found is not None
    assert found.scale == "30min"
