"""Records as upserts: the documents of each collection.

Every write is an upsert under a deterministic `_id`, so a repeated one changes nothing. No
pipeline updates, no embedded `_id`; measured quantities are doubles, times are dates.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import bson

from netatmo_ingestd import records
from netatmo_ingestd.records import Document

INDEXES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "measurements": (("module_id", "scale", "time"), ("home_id", "time")),
    "summaries": (("module_id", "day"),),
    "states": (("entity_id", "time"),),
    "homes": (),
    "modules": (("home_id",),),
    "changes": (("entity_id", "time"),),
    "events": (("module_id", "time"), ("home_id", "time"), ("type", "time")),
    "pictures": (("time",),),
    "failure_codes": (),
    "coverage": (),
    "answers": (("time",),),
    "dead_letters": (("time",),),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One update; `record` is the document it came from, for a dead letter.

    size    BSON bytes of filter and change together
    reread  its row was asked for before: what it changes is revised
    """

    collection: str
    where: Document
    change: Document
    upsert: bool
    size: int
    record: Document
    reread: bool = False


def operations(document: Document) -> list[Operation]:
    """The upserts of one unpacked record (records.unpack); each is idempotent."""
    return _UPSERTS[document["record"]](document)


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


def _summary(row: Document) -> list[Operation]:
    kept = ("account", "home_id", "device_id", "module_id", "module_type", "day", "time", "until")
    folds = {
        name: value if isinstance(value, datetime) else float(value)
        for name, value in row["values"].items()
    }
    return [
        _operation(
            "summaries",
            row,
            {"_id": f"{row['module_id']}|1day|{row['day']}"},
            {
                "$set": {f"values.{name}": value for name, value in folds.items()},
                "$setOnInsert": {
                    **{name: row[name] for name in (*kept, "source")},
                    "first_stored": _now(),
                },
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
    told = {**row["description"], **row["condition"], **row["state"], "account": row["account"]}
    facts = {name: value for name, value in told.items() if value is not None}
    ended = {"$unset": {name: "" for name, value in told.items() if value is None}}
    if collection == "modules":
        facts |= {"kind": row["kind"], "home_id": row["home_id"]}
        if row["device_id"]:
            facts["device_id"] = row["device_id"]
    if row["setup"]:
        facts["setup"] = row["setup"]
    if row["other"]:
        facts["other"] = _pairs(row["other"])
    if not row["latest"]:
        return [_operation(collection, row, where, {"$set": facts, **ended})]
    time, values = row["latest"]
    latest = {"time": time, "values": _doubles(values)[0]}
    return [
        _operation(
            collection, row, where, {"$set": facts, **ended, "$setOnInsert": {"latest": latest}}
        ),
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


_EVOLVES = (
    "meaning", "category", "person_id", "person_name", "is_arrival", "out_of_sight", "message",
    "sub_message", "video_id", "video_status", "sub_type", "detected", "subevents", "pictures_lost",
)  # fmt: skip


def _event(row: Document) -> list[Operation]:
    where = {"_id": row["event_id"]}
    told = {name: row[name] for name in _EVOLVES if row[name] is not None}
    told["other"] = _pairs(row["other"])
    told |= {name: row[name] for name in ("home_id", "module_id", "type", "time", "read")}
    first = {**told, "account": row["account"], "first_stored": _now()}
    change: Document = {"$setOnInsert": first}
    if row["pictures"]:
        # Whatever an answer names and whichever comes first: a hash that stands there stays.
        change["$addToSet"] = {"pictures": {"$each": list(row["pictures"])}}
    else:
        first["pictures"] = []
    return [
        _operation("events", row, where, change),
        _operation(
            "events",
            row,
            {**where, "read": {"$not": {"$gte": row["read"]}}},
            {"$set": told},
            upsert=False,
        ),
    ]


def _picture(row: Document) -> list[Operation]:
    names = ("account", "content_type", "time", "event_id", "module_id", "home_id")
    facts = {name: row[name] for name in names}
    facts |= {"bytes": row["content"], "size": len(row["content"]), "first_stored": _now()}
    return [_operation("pictures", row, {"_id": row["sha256"]}, {"$setOnInsert": facts})]


def _failure_code(row: Document) -> list[Operation]:
    facts = {name: row[name] for name in ("account", "reference", "flag", "failures", "time")}
    where = {"_id": f"{row['reference']}|{row['flag']}"}
    return [_operation("failure_codes", row, where, {"$setOnInsert": facts})]


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
    "Summary": _summary,
    "State": _state,
    "Entity": _entity,
    "Change": _change,
    "Event": _event,
    "Picture": _picture,
    "FailureCode": _failure_code,
    "Answer": _answer,
    "DeadLetter": _dead_letter,
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
    "summaries": {
        "record": "Summary", "account": "_probe", "home_id": "_probe", "device_id": "_probe",
        "module_id": "_probe", "module_type": "NAMain", "day": "1970-01-01", "time": _EPOCH,
        "until": _EPOCH, "values": {"temperature": 20.0}, "source": "getmeasure",
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
    "events": {
        **dict.fromkeys(_EVOLVES), "pictures": [], "other": [], "record": "Event",
        "account": "_probe", "event_id": "_probe", "home_id": "_probe", "module_id": "_probe",
        "type": "movement", "time": _EPOCH, "read": _EPOCH,
    },
    "pictures": {
        "record": "Picture", "account": "_probe", "sha256": "_probe", "content": b"\xff\xd8",
        "content_type": "image/jpeg", "time": _EPOCH, "event_id": "_probe", "module_id": "_probe",
        "home_id": "_probe",
    },
    "failure_codes": {
        "record": "FailureCode", "account": "_probe", "reference": "_probe", "flag": 1,
        "failures": [], "time": _EPOCH,
    },
    "answers": {
        "record": "Answer", "account": "_probe", "endpoint": "_probe", "key": "_probe",
        "time": _EPOCH, "keep": False, "problems": [], "body": zlib.compress(b"{}"),
    },
    "dead_letters": {"record": "DeadLetter", "reason": "_probe", "text": "{}", "time": _EPOCH},
}  # fmt: skip
