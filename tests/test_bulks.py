"""From spool rows to bulks: how bulks are cut, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import bson
import pytest

from netatmo_ingestd import records
from netatmo_ingestd.bulks import BULK_BYTES, BulkSize, unpacked
from netatmo_ingestd.models import Batch, Fact, Measurement
from netatmo_ingestd.upserts import Operation

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


def measurement(co2: float) -> Measurement:
    values = {"co2": co2}
    return Measurement("home", "h", "d", "m", "NAMain", "max", NOON, values, "getmeasure")


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


def test_bulks_never_mix_rereads_with_the_rest() -> None:
    """Rows asked for again travel apart, so what they change can be told from what live ones do."""
    mixed = sized("a", *[1] * 6)
    mixed[1::2] = [replace(each, reread=True) for each in mixed[1::2]]

    found = list(BulkSize(2).cut(mixed))

    assert [[each.where["_id"] for each in bulk] for bulk in found] == [[0, 2], [4], [1, 3], [5]]
    assert [{each.reread for each in bulk} for bulk in found] == [{False}, {False}, {True}, {True}]


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
    later = NOON + timedelta(hours=1)
    filled = ((NOON, NOON + timedelta(seconds=1)),)
    fact = Fact("m", "max", ("CO2",), NOON, later, 1, NOON, "home", later, filled)
    body, _ = records.pack(Batch("home", "getmeasure", [measurement(1.0)], [fact]))

    wanted, facts = unpacked([(body, False)])

    assert [each.collection for each in wanted] == ["measurements"]
    assert facts == [fact]


@pytest.mark.parametrize("reread", [False, True])
def test_operations_know_that_their_rows_were_asked_for_before(reread: bool) -> None:
    """Every operation of a re-read says so, and none of another batch beside it."""
    batches = [
        Batch("home", "getmeasure", [measurement(1.0), measurement(2.0)], reread=reread),
        Batch("home", "getmeasure", [measurement(3.0)]),
    ]

    wanted, _ = unpacked([(records.pack(each)[0], False) for each in batches])

    assert [each.reread for each in wanted] == [reread, reread, False]


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
    good = records.as_document(measurement(1.0))
    odd = {**good, "values": {"co2": "much"}}
    documents = [good, {"record": "Dream", "of": 1}, odd, good]
    packed = [bson.encode(each) for each in documents]
    body = bson.encode({"records": packed, "facts": [], "reread": False})

    wanted, _ = unpacked([(body, False)])

    assert [each.collection for each in wanted] == [
        "measurements", "dead_letters", "dead_letters", "measurements"
    ]  # fmt: skip
    assert "Dream" in wanted[1].change["$setOnInsert"]["reason"]
    assert "much" in wanted[2].change["$setOnInsert"]["text"]
