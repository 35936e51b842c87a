"""Records as bytes: types that come back exactly, and what cannot be stored, set aside alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.models import (
    Answer,
    Batch,
    Change,
    DeadLetter,
    Entity,
    Fact,
    Measurement,
    Record,
    State,
)
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import operations

NOW = datetime(2025, 11, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def row(other: tuple[tuple[str, Any], ...] = (), **values: float) -> Measurement:
    return Measurement("a", "h", "d", "m", "NAMain", "max", NOW, values, "test", other)


def packed(*found: Record) -> list[records.Document]:
    body, count = records.pack(Batch("a", "test", found))
    documents, *_ = records.unpack(body)
    assert count == len(found)
    return documents


ALL: list[Record] = [
    row((("$where", "x"), ("n", None)), temperature=21.0, co2=600.0),
    State("a", "m", "module", "h", NOW, LATER, {"reachable": True, "level": "low", "n": None}),
    Entity(
        "a",
        "module",
        "m",
        "h",
        "d",
        "NAMain",
        {"name": "Küche", "firmware": 206.0, "types": ["CO2"], "at": NOW},
        {"radio": 61.0, "battery": {"percent": 5.0, "time": NOW}},
        {"reachable": False},
        (NOW, {"temperature": 21.0}),
        LATER,
        read_only=True,
        other=(("x", 2**62), ("y", -1), ("z", True)),
    ),
    Change("a", "m", "module", "h", NOW, "changed", {"name": "old"}, {"name": "new"}),
    Answer("a", "getstationsdata", "a", NOW, keep=True, problems=["p: t"], body=b"\x00\xff"),
    DeadLetter("why", '{"a": 1}', NOW),
]


def exact(value: Any) -> Any:
    """`value` with the type of every part, tuples as lists, 64-bit integers as integers."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return ("int", int(value))
    return (type(value).__name__, value)


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_round_trip_keeps_types(record: Record) -> None:
    """Every kind of record comes back with equal values of the same types."""
    (document,) = packed(record)

    assert exact(document) == exact(records.as_document(record))
    assert document["record"] == type(record).__name__


def test_facts_round_trip() -> None:
    """A fact comes back equal, its types as a tuple and its times aware."""
    facts = [
        Fact("m", "max", ("CO2",), NOW, LATER, 5, NOW, "a", LATER, ((NOW, LATER),), False, NOW),
        Fact("m", "max", (), NOW, LATER, 0, None, "a", LATER),
    ]

    body, count = records.pack(Batch("a", "getmeasure", [], facts))

    assert records.unpack(body) == ([], facts, False)
    assert count == 0


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["temperature", "co2", "noise"]), st.floats(allow_nan=False)),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001  made aware below
)
def test_any_row_round_trips(values: dict[str, float], time: datetime) -> None:
    """Any float and any whole second survive exactly."""
    moment = time.replace(microsecond=0, tzinfo=UTC)
    measured = Measurement("a", "h", "d", "m", "t", "max", moment, values, "test")

    (document,) = packed(measured)

    assert exact(document) == exact(records.as_document(measured))


# --- poison ---------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"n": value}
    return value


POISON: dict[str, tuple[Any, str]] = {
    "2^63": (2**63, "8-byte ints"),
    "lone surrogate": ("a\ud800", "surrogates not allowed"),
    "surrogate in a key": ({"\ud800": 1}, "surrogates not allowed"),
    "NUL in a key": ({"a\x00b": 1}, "NULL byte"),
    "key that is no text": ({1: 1}, "string keys"),
    "depth 500": (nested(500), "deeper than 100"),
    "depth 100000": (nested(100_000), "deeper than 100"),
    "17 MB": ("x" * 17_000_000, "over 15728640"),
    "a set": ({1}, "cannot encode"),
}


@pytest.mark.parametrize("name", POISON)
def test_poison_is_set_aside_alone(name: str) -> None:
    """What BSON or a server would refuse becomes a dead letter; its neighbours stay in order."""
    value, reason = POISON[name]

    before, letter, after = packed(
        row(temperature=1.0), row((("x", value),), temperature=2.0), row(temperature=3.0)
    )

    assert [before["values"], after["values"]] == [{"temperature": 1.0}, {"temperature": 3.0}]
    assert letter["record"] == "DeadLetter"
    assert reason in letter["reason"]
    assert len(letter["reason"]) <= 500


@pytest.mark.parametrize("name", sorted(set(POISON) - {"depth 100000"}))
def test_dead_letter_holds_the_whole_record(name: str) -> None:
    """A dead letter's text names module, time and values of the record it stands for."""
    (letter,) = packed(row((("x", POISON[name][0]),), temperature=2.0))

    told = records.from_json(letter["text"])
    assert (told["module_id"], told["time"], told["values"]) == ("m", NOW, {"temperature": 2.0})
    assert told["other"][0][0] == "x"


def test_dead_letters_are_small_enough_for_a_server() -> None:
    """However large the record was, its dead letter's upsert fits into a document."""
    (letter,) = packed(row((("x", "x" * 17_000_000),)))

    (upsert,) = operations(letter)

    assert upsert.size < 2 << 20
    assert upsert.change["$setOnInsert"]["length"] == len(letter["text"]) > 17_000_000


def test_what_is_deep_but_allowed_is_stored() -> None:
    """Depth below the limit is no reason to set a record aside."""
    (document,) = packed(row((("x", nested(90)),)))

    assert document["record"] == "Measurement"
    assert document["other"] == [["x", nested(90)]]


async def test_poison_and_neighbours_wait_on_the_spool(tmp_path: Path) -> None:
    """A batch with one poisoned record is appended; the dead letter and its neighbours wait."""
    spool = Spool(tmp_path, 64 << 20)
    await spool.open()

    poisoned = row((("x", 2**63),), temperature=2.0)
    await spool.append(Batch("a", "t", [row(temperature=1.0), poisoned]), {})
    (waiting,) = await spool.oldest_batches(1, 1)
    await spool.close()

    documents, *_ = records.unpack(waiting.body)
    assert [each["record"] for each in documents] == ["Measurement", "DeadLetter"]
    assert not waiting.damaged


# --- text -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_json_round_trips(value: Any) -> None:
    """What JSON can hold comes back equal."""
    assert records.from_json(records.to_json(value)) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (NOW, NOW),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"$date": "no date of ours", "b": 1}, {"$date": "no date of ours", "b": 1}),
        (b"abc", {"$bytes": 3}),
        ({1}, "{1}"),
        ({(1, 2): 3}, {"unprintable": "dict"}),
    ],
)
def test_text_of_odd_values(value: Any, told: Any) -> None:
    """Dates come back as dates, bytes as their length; nothing makes it raise."""
    assert records.from_json(records.to_json(value)) == told


def test_text_survives_any_depth() -> None:
    """A value too deep for text is told as such."""
    assert records.to_json(nested(100_000)) == '{"unprintable": "dict"}'
