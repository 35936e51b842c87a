"""Upserts by value: the document of each record kind, bulks, what cannot be read."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest

from netatmo_ingestd import records
from netatmo_ingestd.models import (
    Answer,
    Batch,
    Change,
    Coverage,
    DeadLetter,
    Entity,
    Fact,
    Measurement,
    Record,
    State,
)
from netatmo_ingestd.upserts import (
    BULK_BYTES,
    SAMPLES,
    BulkSize,
    Operation,
    from_coverage,
    operations,
    to_coverage,
    unpacked,
)
from tests.wire import Documents

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
EPOCH = int(NOON.timestamp())


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


# --- bulks ---------------------------------------------------------------------------------------


def sized(collection: str, *sizes: int) -> list[Operation]:
    return [Operation(collection, {"_id": n}, {}, True, size, {}) for n, size in enumerate(sizes)]


def test_bulks_hold_one_collection_and_not_too_many() -> None:
    """Operations go out by collection, in order, none lost, at most so many at once."""
    mixed = [*sized("a", *[1] * 5), *sized("b", 1), *sized("a", 1, 1)]

    found = list(BulkSize(3).cut(mixed))

    assert [(bulk[0].collection, len(bulk)) for bulk in found] == [
        ("a", 3), ("a", 3), ("a", 1), ("b", 1)
    ]  # fmt: skip
    assert [each for bulk in found for each in bulk if each.collection == "a"] == [
        each for each in mixed if each.collection == "a"
    ]


def test_bulks_hold_at_most_a_mebibyte() -> None:
    """A bulk ends before 1 MiB; an operation that alone is larger travels alone."""
    half = BULK_BYTES // 2

    found = list(BulkSize(500).cut(sized("a", half, half, 1, 3 * BULK_BYTES, 1)))

    assert [[each.size for each in bulk] for bulk in found] == [
        [half, half], [1], [3 * BULK_BYTES], [1]
    ]  # fmt: skip


def test_bulks_shrink_while_they_are_sent() -> None:
    """A smaller size counts from the next bulk on."""
    size = BulkSize(4)
    found = []
    for bulk in size.cut(sized("a", *[1] * 8)):
        found.append(len(bulk))
        size.now = 2

    assert found == [4, 2, 2]


# --- what cannot be read -------------------------------------------------------------------------


def test_batch_is_unpacked_whole() -> None:
    """Records become operations and facts come back as they were given."""
    fact = Fact("m", "max", ("Temperature",), NOON, NOON + timedelta(hours=1), 1, NOON, "home")
    body, _ = records.pack(Batch("home", "getmeasure", [measurement({"co2": 1.0})], [fact]))

    wanted, facts = unpacked([(body, False)])

    assert [each.collection for each in wanted] == ["measurements"]
    assert facts == [fact]


@pytest.mark.parametrize(
    ("body", "damaged"),
    [
        (records.pack(Batch("home", "x", []))[0], True),
        (b"\x01\x02", False),
        (bson.encode({"another": "version"}), False),
        (bson.encode({"records": [], "facts": [{"entity_id": "m", "unknown": 1}]}), False),
    ],
    ids=["checksum", "no BSON", "no records", "unknown fact"],
)
def test_unreadable_batch_becomes_a_dead_letter(body: bytes, damaged: bool) -> None:
    """Nothing that lies on the spool can stop the daemon; its bytes are kept as text."""
    [letter], facts = unpacked([(body, damaged)])

    assert letter.collection == "dead_letters"
    assert body.hex() in letter.change["$setOnInsert"]["text"]
    assert facts == []


def test_unreadable_record_costs_its_neighbours_nothing() -> None:
    """A record of an unknown kind, or with a text for a number, alone becomes a dead letter."""
    good = records.as_document(measurement({"co2": 1.0}))
    odd = {**good, "values": {"co2": "much"}}
    documents = [good, {"record": "Dream", "of": 1}, odd, good]
    body = bson.encode({"records": [bson.encode(each) for each in documents], "facts": []})

    wanted, _ = unpacked([(body, False)])

    assert [each.collection for each in wanted] == [
        "measurements", "dead_letters", "dead_letters", "measurements"
    ]  # fmt: skip
    assert "Dream" in wanted[1].change["$setOnInsert"]["reason"]
    assert "much" in wanted[2].change["$setOnInsert"]["text"]


# --- the ledger's documents ------------------------------------------------------------------


def test_coverage_comes_back_as_it_was() -> None:
    """A coverage survives its document, but for the new revision."""
    coverage = Coverage("m", "max", ("Temperature",), ((NOON, NOON),), NOON, "home", NOON, 3)

    assert to_coverage(from_coverage(coverage, 3)) == coverage


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
