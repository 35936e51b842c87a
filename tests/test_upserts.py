"""Upserts by value: the document of each record kind, and of a coverage."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from netatmo_ingestd import records
from netatmo_ingestd.coverages import from_coverage, to_coverage
from netatmo_ingestd.models import (
    Answer,
    Change,
    Coverage,
    DeadLetter,
    Entity,
    Event,
    Measurement,
    Picture,
    Record,
    State,
    Summary,
)
from netatmo_ingestd.upserts import SAMPLES, Operation, operations
from tests.wire import Documents

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
EARLIER = NOON - timedelta(hours=1)
EPOCH = int(NOON.timestamp())
AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)


def ops(record: Record) -> list[Operation]:
    return operations(records.as_document(record))


def measurement(values: dict[str, Any], **more: Any) -> Measurement:
    given: dict[str, Any] = {"time": NOON, "source": "getmeasure", **more}
    return Measurement("home", "h", "d", "m", "NAMain", "max", values=values, **given)


def entity(kind: str = "module", **more: Any) -> Entity:
    return Entity("home", kind, "m", "h", "d", "NAMain", {"name": "Indoor"}, **more)


def test_measurement_sets_one_path_for_each_quantity() -> None:
    """A row is addressed by module, scale and epoch; who told it first is only set on insert."""
    [found] = ops(measurement({"temperature": 21, "co2": 400.0}, other=[("Odd", 1)]))

    assert (found.collection, found.upsert) == ("measurements", True)
    assert found.where == {"_id": f"m|max|{EPOCH}"}
    assert found.change["$set"] == {
        "values.temperature": 21.0,
        "values.co2": 400.0,
        "other": [{"name": "Odd", "value": 1}],
    }
    assert isinstance(found.change["$set"]["values.temperature"], float)
    first = found.change["$setOnInsert"]
    assert first.pop("first_stored").microsecond == 0
    assert first == {
        "account": "home",
        "home_id": "h",
        "device_id": "d",
        "module_id": "m",
        "module_type": "NAMain",
        "scale": "max",
        "time": NOON,
        "source": "getmeasure",
    }


def test_no_quantity_is_not_a_number() -> None:
    """NaN and infinities stay out of `values`, in rows and in `latest`, and are kept as text."""
    odd = {"co2": float("nan"), "noise": float("inf"), "temperature": 20.0}
    [row] = ops(measurement(odd))
    latest = ops(entity(latest=(NOON, odd)))[1].change["$set"]["latest"]

    assert row.change["$set"] == {
        "values.temperature": 20.0,
        "other": [{"name": "co2", "value": "nan"}, {"name": "noise", "value": "inf"}],
    }
    assert latest == {"time": NOON, "values": {"temperature": 20.0}}


def test_row_without_quantities_has_no_empty_operator() -> None:
    """A row without a value is still stored, and no empty `$set` is sent, which servers refuse."""
    [row] = ops(measurement({}))

    assert list(row.change) == ["$setOnInsert"]


def test_summary_is_one_document_a_local_day() -> None:
    """A day is addressed by its date; folds are doubles, moments dates, each under its own path."""
    folds: dict[str, Any] = {"temperature_min": 3, "temperature_min_time": NOON}
    until = NOON + timedelta(hours=23)
    day = Summary("home", "h", "d", "m", "NAMain", "2026-03-14", NOON, until, folds, "getmeasure")
    [found] = ops(day)

    assert (found.collection, found.upsert) == ("summaries", True)
    assert found.where == {"_id": "m|1day|2026-03-14"}
    assert found.change["$set"] == {
        "values.temperature_min": 3.0,
        "values.temperature_min_time": NOON,
    }
    assert isinstance(found.change["$set"]["values.temperature_min"], float)
    first = found.change["$setOnInsert"]
    assert first.pop("first_stored").microsecond == 0
    assert first == {
        "account": "home",
        "home_id": "h",
        "device_id": "d",
        "module_id": "m",
        "module_type": "NAMain",
        "day": "2026-03-14",
        "time": NOON,
        "until": until,
        "source": "getmeasure",
    }


def test_state_only_ever_grows() -> None:
    """A repeated state keeps its values and moves `until` forward alone."""
    state = State("home", "m", "module", "h", NOON, NOON + timedelta(minutes=5), {"on": True})
    [found] = ops(state)

    assert found.where == {"_id": f"m|{EPOCH}"}
    assert found.change["$max"] == {"until": NOON + timedelta(minutes=5)}
    assert found.change["$setOnInsert"]["values"] == {"on": True}
    assert "$set" not in found.change


def test_home_is_described_without_a_module_s_fields() -> None:
    """A home gets its description and account, and neither kind nor device."""
    [found] = ops(entity("home", setup=NOON, other=[("a", 1)]))

    assert found.collection == "homes"
    assert found.change == {
        "$set": {
            "name": "Indoor",
            "account": "home",
            "setup": NOON,
            "other": [{"name": "a", "value": 1}],
        }
    }


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 1), (2, 1, 2), (1, 2, 1)])
def test_older_latest_never_overwrites_a_newer_one(order: tuple[int, ...], turned: bool) -> None:
    """Whichever answer comes first, and whichever operation of each, the newest values stay."""
    documents = Documents()
    for hour in order:
        found = ops(entity(latest=(NOON + timedelta(hours=hour), {"co2": 100 * hour})))
        for each in reversed(found) if turned else found:
            documents.update(each.collection, each.where, each.change, upsert=each.upsert)

    newest = max(order)
    assert documents["modules"]["m"]["latest"] == {
        "time": NOON + timedelta(hours=newest),
        "values": {"co2": 100.0 * newest},
    }


def test_same_change_is_one_document() -> None:
    """A change is named by its content, whatever order its keys have; another one gets another."""
    given: dict[str, Any] = {"after": {}, "what": "changed", "time": NOON}
    one = Change("home", "m", "module", "h", before={"a": 1, "b": 2}, **given)
    same = Change("home", "m", "module", "h", before={"b": 2, "a": 1}, **given)
    other = Change("home", "m", "module", "h", before={"a": 1, "b": 3}, **given)

    assert ops(one)[0].where == ops(same)[0].where != ops(other)[0].where
    assert list(ops(one)[0].change) == ["$setOnInsert"]


def test_answer_with_problems_is_kept_beside_the_newest() -> None:
    """The newest answer has one slot; one worth keeping gets another, named by what it says."""
    body = zlib.compress(b'{"odd": 1}', 1)
    plain = Answer("home", "getstationsdata", "home", NOON, False, (), body)
    odd = Answer("home", "getstationsdata", "home", NOON, True, ("x: odd",), body)
    packed_otherwise = Answer(
        "home", "getstationsdata", "home", NOON, True, (), zlib.compress(b'{"odd": 1}', 9)
    )

    assert [each.where["_id"] for each in ops(plain)] == ["getstationsdata|home|newest"]
    newest, kept = ops(odd)
    assert newest.where == ops(plain)[0].where
    assert newest.change["$set"]["problems"] == ("x: odd",)
    assert kept.where == ops(packed_otherwise)[1].where != newest.where


def event(minute: int = 0, **more: Any) -> Event:
    return Event("home", "e1", "h", "m", "outdoor", NOON, NOON + timedelta(minutes=minute), **more)


def applied(*found: Operation) -> Documents:
    documents = Documents()
    for each in found:
        documents.update(each.collection, each.where, each.change, upsert=each.upsert)
    return documents


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 1), (2, 1, 2), (1, 2, 1)])
def test_an_event_evolves_and_keeps_its_pictures(order: tuple[int, ...], turned: bool) -> None:
    """Whichever answer comes first, the newest one counts, and no picture of any is lost."""
    told = {
        1: event(1, video_status="recording", pictures=["a"], person_name="Ana"),
        2: event(2, video_status="available", pictures=["b"], other=[("n", 1)]),
    }
    documents = Documents()
    for which in order:
        found = ops(told[which])
        for each in reversed(found) if turned else found:
            documents.update(each.collection, each.where, each.change, upsert=each.upsert)

    document = documents["events"]["e1"]
    newest = max(order)
    assert document["video_status"] == told[newest].video_status
    assert document["read"] == told[newest].read
    assert document["other"] == ([{"name": "n", "value": 1}] if newest == 2 else [])
    assert set(document["pictures"]) == {"a", "b"} & {told[each].pictures[0] for each in order}


def test_an_event_told_again_changes_nothing() -> None:
    """A repeated event, with or without pictures, leaves its document as it was."""
    for pictures in ((), ("a", "b")):
        found = ops(event(pictures=pictures, subevents=[{"id": "s"}], detected=["person"]))

        once, twice = applied(*found), applied(*found, *found)

        assert once == twice
        assert list(once["events"]["e1"]["pictures"]) == list(pictures)


def test_what_nobody_tried_is_not_called_lost() -> None:
    """`pictures_lost` stands as the last answer has it that dealt with the pictures."""
    lost = [{"slot": "snapshot", "reason": "HTTP 404"}]
    tried, found, untried = (
        ops(event(minute, pictures_lost=told)) for minute, told in ((1, lost), (2, []), (3, None))
    )

    assert applied(*tried, *untried)["events"]["e1"]["pictures_lost"] == lost
    assert applied(*tried, *found, *untried)["events"]["e1"]["pictures_lost"] == []
    assert "pictures_lost" not in applied(*untried)["events"]["e1"]


def test_a_picture_is_named_by_its_bytes() -> None:
    """The event that showed it first counts; bytes, size and type stand beside it."""
    given: dict[str, Any] = {"content": b"jpeg", "content_type": "image/jpeg"}
    one = Picture("home", "f00", time=NOON, event_id="e1", module_id="m", home_id="h", **given)
    two = Picture("home", "f00", time=EARLIER, event_id="e2", module_id="m", home_id="h", **given)

    document = applied(*ops(one), *ops(two))["pictures"]["f00"]

    assert document.pop("first_stored").microsecond == 0
    assert document == {
        "_id": "f00",
        "account": "home",
        "bytes": b"jpeg",
        "size": 4,
        "content_type": "image/jpeg",
        "time": NOON,
        "event_id": "e1",
        "module_id": "m",
        "home_id": "h",
    }


def test_one_record_is_one_dead_letter() -> None:
    """However its refusal is worded; and its text is cut at 1 MiB, with the full length beside."""
    long = "x" * (records.MAX_TEXT + 5)
    [first] = ops(DeadLetter("121: failed at 12:00", long, NOON))
    [again] = ops(DeadLetter("121: failed at 12:01", long, NOON + timedelta(minutes=1)))

    assert first.where == again.where
    stored = first.change["$setOnInsert"]
    assert len(stored["text"]) == records.MAX_TEXT
    assert stored["length"] == len(long)
    assert again.change["$max"] == {"time": NOON + timedelta(minutes=1)}


def test_size_is_what_goes_over_the_wire() -> None:
    """`size` is the BSON size of filter and change."""
    [found] = ops(measurement({"co2": 1.0}))

    assert found.size == len(bson.encode({"q": found.where, "u": found.change}))


def test_each_collection_has_a_good_example() -> None:
    """Each sample is an upsert of its own collection, so every collection can be probed."""
    kinds = {sample["record"] for sample in SAMPLES.values()}

    assert {type_.__name__ for type_ in Record.__args__} == kinds
    for collection, sample in SAMPLES.items():
        assert {each.collection for each in operations(sample)} == {collection}


# --- the ledger's documents ------------------------------------------------------------------


def test_coverage_comes_back_as_it_was() -> None:
    """A coverage survives its document in MongoDB, everything it holds included."""
    later = NOON + timedelta(hours=9)
    coverage = Coverage(
        entity_id="m",
        scale="max",
        types=("Temperature", "CO2"),
        covered=((NOON, later),),
        newest=later,
        owner="home",
        owned=NOON,
        rev=3,
        quiet=((later, later + timedelta(hours=1)),),
        filled=((NOON, NOON + timedelta(hours=1)),),
        once=((NOON, later, later),),
        confirmed=((NOON + timedelta(hours=1), later),),
        asked=later,
        reread=(NOON, later),
    )

    stored = bson.decode(bson.encode(from_coverage(coverage, 3)), AWARE)

    assert to_coverage(stored) == coverage


def test_coverage_of_ten_years_stays_small() -> None:
    """Ten years with 300 outages, each a piece of every list, take less than 64 KiB."""
    hour, pieces = timedelta(hours=1), []
    for number in range(300):
        begin = NOON + number * timedelta(days=12) + timedelta(seconds=number)
        pieces.append((begin, begin + 50 * hour))
    coverage = Coverage(
        entity_id="70:ee:50:00:00:01",
        scale="max",
        types=("Temperature", "CO2", "Humidity", "Pressure", "Noise"),
        covered=tuple(pieces),
        newest=pieces[-1][1],
        owner="home",
        owned=NOON,
        filled=tuple((one + step * hour, one + (step + 8) * hour)
                     for one, _ in pieces for step in (0, 20, 40)),
        once=tuple((begin + 8 * hour, begin + 20 * hour, NOON) for begin, _ in pieces),
        confirmed=tuple((begin + 28 * hour, begin + 40 * hour) for begin, _ in pieces),
        asked=pieces[-1][1],
        reread=(NOON, NOON),
    )  # fmt: skip

    stored = bson.encode(from_coverage(coverage, 1))

    assert len(stored) < 64 << 10
    assert to_coverage(bson.decode(stored, AWARE)) == replace(coverage, rev=1)


@pytest.mark.parametrize(
    "document",
    [
        {"_id": "_barrier", "rev": 4, "store_id": "x"},
        {"_id": "m|max"},
        {**from_coverage(Coverage("m", "max", (), (), None, "", NOON), 1), "covered": [1, 2]},
        {**from_coverage(Coverage("m", "max", (), (), None, "", NOON), 1), "owner": None},
    ],
    ids=["barrier", "empty", "no intervals", "no owner"],
)
def test_document_that_is_no_coverage_is_none(document: dict[str, Any]) -> None:
    """The barrier, and what somebody edited by hand, is not taken for coverage."""
    assert to_coverage(document) is None
