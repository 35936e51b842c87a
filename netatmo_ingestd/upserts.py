"""Records as upserts: the documents of each collection.

Every write is an upsert under a deterministic `_id`, so a repeated one changes nothing. No
pipeline updates, no embedded `_id`; measured quantities are doubles, times are dates.
"""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import bson

from netatmo_ingestd import records
from netatmo_ingestd.models import Coverage, Fact
from netatmo_ingestd.records import Document

INDEXES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "measurements": (("module_id", "scale", "time"), ("home_id", "time")),
    "states": (("entity_id", "time"),),
    "homes": (),
    "modules": (("home_id",),),
    "changes": (("entity_id", "time"),),
    "coverage": (),
    "answers": (("time",),),
    "dead_letters": (("time",),),
}
BULK_BYTES = 1 << 20
REGROW_S = 3600.0
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    bson.errors.BSONError,
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One update; `record` is the document it came from, for a dead letter.

    size  BSON bytes of filter and change together
    """

    collection: str
    where: Document
    change: Document
    upsert: bool
    size: int
    record: Document


def operations(document: Document) -> list[Operation]:
    """The upserts of one unpacked record (records.unpack); each is idempotent."""
    return _UPSERTS[document["record"]](document)


def unpacked(batches: Iterable[tuple[bytes, bool]]) -> tuple[list[Operation], list[Fact]]:
    """The operations and facts of some batches, each given as its body and whether it is damaged.

    What cannot be read, by damage or because another version wrote it, becomes a dead letter: as
    an exception it would come back at each start.
    """
    wanted: list[Operation] = []
    facts: list[Fact] = []
    for body, damaged in batches:
        try:
            if damaged:
                raise ValueError("damaged on the spool (checksum)")
            documents, established = records.unpack(body)
        except _UNREADABLE as error:
            wanted += dead_letter(f"{type(error).__name__}: {error}", body.hex())
            continue
        facts += established
        for document in documents:
            try:
                wanted += operations(document)
            except _UNREADABLE as error:
                wanted += dead_letter(f"{type(error).__name__}: {error}", document)
    return wanted, facts


@dataclass
class BulkSize:
    """How many operations a bulk holds: halved after two timeouts, doubled once an hour."""

    most: int
    regrow_s: float = REGROW_S
    now: int = 0
    timeouts: int = 0
    unanswered: int = 0
    changed: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.now = self.most

    def timed_out(self, size: int) -> bool:
        """A bulk of `size` was not answered; True when the size was halved."""
        self.timeouts += 1
        self.unanswered = size
        if self.timeouts < 2 or size == 1:
            return False
        self.now = max(1, min(self.now, size) // 2)
        self.timeouts = 0
        self.changed = time.monotonic()
        return True

    def went_well(self, size: int) -> bool:
        """A bulk of `size` was answered; True when bulks may grow again."""
        if size >= self.unanswered:
            # A smaller one proves nothing: each round begins with the same small ones.
            self.timeouts = 0
        if self.now == self.most or time.monotonic() - self.changed < self.regrow_s:
            return False
        self.now = min(self.most, self.now * 2)
        self.unanswered = self.timeouts = 0
        self.changed = time.monotonic()
        return True

    def cut(self, wanted: Sequence[Operation]) -> Iterator[list[Operation]]:
        """`wanted` by collection, in order, in bulks of at most `now` operations and 1 MiB."""
        by_collection: dict[str, list[Operation]] = {}
        for each in wanted:
            by_collection.setdefault(each.collection, []).append(each)
        for group in by_collection.values():
            bulk: list[Operation] = []
            size = 0
            for each in group:
                if bulk and (len(bulk) >= self.now or size + each.size > BULK_BYTES):
                    yield bulk
                    bulk, size = [], 0
                bulk.append(each)
                size += each.size
            yield bulk


def dead_letter(reason: str, document: Any) -> list[Operation]:
    """A record that is given up, with the reason."""
    return operations(records.dead_letter(reason[:300], document, _now()))


def _operation(
    collection: str,
    document: Document,
    where: Mapping[str, Any],
    change: Mapping[str, Any],
    *,
    upsert: bool = True,
) -> Operation:
    update = {name: fields for name, fields in change.items() if fields}
    size = len(bson.encode({"q": where, "u": update}))
    return Operation(collection, dict(where), update, upsert, size, document)


def _measurement(row: Document) -> list[Operation]:
    epoch = int(row["time"].timestamp())
    # One path for each quantity: a dashboard row and a history row of the same instant merge.
    values, odd = _doubles(row["values"])
    change: Document = {f"values.{name}": value for name, value in values.items()}
    if row["other"] or odd:
        change["other"] = [*_pairs(row["other"]), *odd]
    kept = ("account", "home_id", "device_id", "module_id", "module_type", "scale", "time")
    first = {name: row[name] for name in (*kept, "source")}
    return [
        _operation(
            "measurements",
            row,
            {"_id": f"{row['module_id']}|{row['scale']}|{epoch}"},
            {
                "$set": change,
                "$setOnInsert": {**first, "first_stored": _now()},
            },
        )
    ]


def _state(row: Document) -> list[Operation]:
    epoch = int(row["time"].timestamp())
    return [
        _operation(
            "states",
            row,
            {"_id": f"{row['entity_id']}|{epoch}"},
            {
                "$setOnInsert": {
                    **{name: row[name] for name in ("account", "entity_id", "kind", "home_id")},
                    "time": row["time"],
                    "values": row["values"],
                },
                "$max": {"until": row["until"]},
            },
        )
    ]


def _entity(row: Document) -> list[Operation]:
    collection = "homes" if row["kind"] == "home" else "modules"
    where = {"_id": row["entity_id"]}
    facts = {**row["description"], **row["condition"], **row["state"], "account": row["account"]}
    if collection == "modules":
        facts |= {"kind": row["kind"], "home_id": row["home_id"], "device_id": row["device_id"]}
    if row["setup"]:
        facts["setup"] = row["setup"]
    if row["other"]:
        facts["other"] = _pairs(row["other"])
    if not row["latest"]:
        return [_operation(collection, row, where, {"$set": facts})]
    time, values = row["latest"]
    latest = {"time": time, "values": _doubles(values)[0]}
    return [
        _operation(collection, row, where, {"$set": facts, "$setOnInsert": {"latest": latest}}),
        # An older answer never overwrites a newer one; whichever of the two runs first.
        _operation(
            collection,
            row,
            {**where, "latest.time": {"$not": {"$gte": time}}},
            {"$set": {"latest": latest}},
            upsert=False,
        ),
    ]


def _change(row: Document) -> list[Operation]:
    names = ("account", "entity_id", "kind", "home_id", "time", "what", "before", "after")
    facts = {name: row[name] for name in names}
    digest = _digest(records.to_json(facts).encode())
    epoch = int(row["time"].timestamp())
    where = {"_id": f"{row['entity_id']}|{epoch}|{digest}"}
    return [_operation("changes", row, where, {"$setOnInsert": facts})]


def _answer(row: Document) -> list[Operation]:
    key = f"{row['endpoint']}|{row['key']}"
    facts = {name: row[name] for name in ("account", "endpoint", "time", "problems", "body")}
    # One slot holds the newest; an answer with problems is kept beside it until it is replayed.
    wanted = [_operation("answers", row, {"_id": f"{key}|newest"}, {"$set": facts})]
    if row["keep"]:
        kept = {"_id": f"{key}|{_digest(zlib.decompress(row['body']))}"}
        wanted.append(_operation("answers", row, kept, {"$setOnInsert": facts}))
    return wanted


def _dead_letter(row: Document) -> list[Operation]:
    text = row["text"]
    # Not of the reason: a server words it differently each time, and one record is one letter.
    where = {"_id": _digest(text.encode())}
    return [
        _operation(
            "dead_letters",
            row,
            where,
            {
                "$setOnInsert": {
                    "reason": row["reason"],
                    "text": text[: records.MAX_TEXT],
                    "length": len(text),
                    "first": row["time"],
                },
                "$max": {"time": row["time"]},
            },
        )
    ]


_UPSERTS: Mapping[str, Callable[[Document], list[Operation]]] = {
    "Measurement": _measurement,
    "State": _state,
    "Entity": _entity,
    "Change": _change,
    "Answer": _answer,
    "DeadLetter": _dead_letter,
}


def to_coverage(document: Document) -> Coverage | None:
    """A `coverage` document, None for the barrier and for one that was edited by hand."""
    try:
        return Coverage(
            entity_id=document["entity_id"],
            scale=document["scale"],
            types=tuple(document["types"]),
            covered=tuple((begin, end) for begin, end in document["covered"]),
            newest=document.get("newest"),
            owner=document["owner"]["account"],
            owned=document["owner"]["time"],
            rev=document["rev"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def from_coverage(coverage: Coverage, rev: int) -> Document:
    """The document of `coverage` without its `_id`, at revision `rev`."""
    return {
        "entity_id": coverage.entity_id,
        "scale": coverage.scale,
        "types": list(coverage.types),
        "covered": [list(each) for each in coverage.covered],
        "newest": coverage.newest,
        "owner": {"account": coverage.owner, "time": coverage.owned},
        "rev": rev,
    }


def _doubles(values: Mapping[str, Any]) -> tuple[Document, list[Document]]:
    """The quantities as doubles; what is no number (NaN, infinite) as pairs for `other`."""
    doubles = {name: float(value) for name, value in values.items()}
    odd = [name for name, value in doubles.items() if not math.isfinite(value)]
    return doubles, [{"name": name, "value": str(doubles.pop(name))} for name in odd]


def _pairs(other: Sequence[Sequence[Any]]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in other]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


_EPOCH = datetime.fromtimestamp(0, UTC)
_ENTITY: Document = {
    "record": "Entity", "account": "_probe", "entity_id": "_probe", "home_id": "_probe",
    "device_id": "_probe", "type": "NAMain", "description": {"name": "probe"}, "condition": {},
    "state": {}, "latest": None, "setup": None, "read_only": False, "other": [],
}  # fmt: skip
# A known-good document of each collection: if the server refuses even this one, the fault is not
# in our records.
SAMPLES: Mapping[str, Document] = {
    "measurements": {
        "record": "Measurement", "account": "_probe", "home_id": "_probe", "device_id": "_probe",
        "module_id": "_probe", "module_type": "NAMain", "scale": "max", "time": _EPOCH,
        "values": {"temperature": 20.0}, "source": "getmeasure", "other": [],
    },
    "states": {
        "record": "State", "account": "_probe", "entity_id": "_probe", "kind": "module",
        "home_id": "_probe", "time": _EPOCH, "until": _EPOCH, "values": {"reachable": True},
    },
    "homes": {**_ENTITY, "kind": "home"},
    "modules": {**_ENTITY, "kind": "module"},
    "changes": {
        "record": "Change", "account": "_probe", "entity_id": "_probe", "kind": "module",
        "home_id": "_probe", "time": _EPOCH, "what": "added", "before": {}, "after": {},
    },
    "answers": {
        "record": "Answer", "account": "_probe", "endpoint": "_probe", "key": "_probe",
        "time": _EPOCH, "keep": False, "problems": [], "body": zlib.compress(b"{}"),
    },
    "dead_letters": {"record": "DeadLetter", "reason": "_probe", "text": "{}", "time": _EPOCH},
}  # fmt: skip
