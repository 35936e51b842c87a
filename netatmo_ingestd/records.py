"""Records as bytes: how a batch lies on the spool, and as text among the dead letters.

A record is BSON-encoded before it enters the spool. What cannot be encoded is set aside here,
alone: one such document inside a bulk write would stop all of its neighbours.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.codec_options import CodecOptions

from netatmo_ingestd.models import Batch, DeadLetter, Fact, Record

MAX_DEPTH = 100  # deeper documents break a command of the embedded store
MAX_BYTES = 15 << 20  # MongoDB refuses documents above 16 MiB
MAX_TEXT = 1 << 20
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)

Document = dict[str, Any]


def pack(batch: Batch) -> tuple[bytes, int]:
    """The BSON body of a spool row, and how many records it holds."""
    documents = [_encode(record) for record in batch.records]
    body = bson.encode(
        {
            "account": batch.account,
            "endpoint": batch.endpoint,
            "records": documents,
            "facts": [dataclasses.asdict(fact) for fact in batch.facts],
            "reread": batch.reread,
        }
    )
    return body, len(documents)


def unpack(body: bytes) -> tuple[list[Document], list[Fact], bool]:
    """Records as documents with their `record` kind, the facts of the batch, and its `reread`."""
    batch = bson.decode(body, _CODEC)
    documents = [bson.decode(raw, _CODEC) for raw in batch["records"]]
    return documents, [_fact(fact) for fact in batch["facts"]], batch["reread"]


def _fact(told: Document) -> Fact:
    filled = tuple((begin, end) for begin, end in told["filled"])
    return Fact(**{**told, "types": tuple(told["types"]), "filled": filled})


def dead_letter(reason: str, document: Any, moment: datetime) -> Document:
    """A rejected record as a document of kind "DeadLetter"."""
    return as_document(DeadLetter(reason, to_json(document), moment))


def as_document(record: Record) -> Document:
    return {"record": type(record).__name__, **_shallow(record)}


def _shallow(record: Record) -> Document:
    # dataclasses.asdict would copy every nested value; the records are frozen.
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _encode(record: Record) -> bytes:
    document = as_document(record)
    try:
        if _depth(document) > MAX_DEPTH:
            raise bson.errors.InvalidDocument(f"nested deeper than {MAX_DEPTH} levels")
        raw = bson.encode(document)
        if len(raw) > MAX_BYTES:
            raise bson.errors.InvalidDocument(f"{len(raw)} bytes, over {MAX_BYTES}")
    except (bson.errors.BSONError, OverflowError, UnicodeError, RecursionError) as error:
        # DocumentTooLarge and InvalidDocument are BSONError; a surrogate is a UnicodeError.
        moment = datetime.now(UTC).replace(microsecond=0)
        return bson.encode(dead_letter(f"{type(error).__name__}: {error}"[:500], document, moment))
    return raw


def _depth(value: Any, level: int = 1) -> int:
    if level > MAX_DEPTH:
        return level
    if isinstance(value, Mapping):
        return max((_depth(item, level + 1) for item in value.values()), default=level)
    if isinstance(value, (list, tuple)):
        return max((_depth(item, level + 1) for item in value), default=level)
    return level


# --- JSON with dates, for `last` and the dead letters ---------------------------------------------


def to_json(value: Any) -> str:
    """JSON text; dates as {"$date": ISO}, bytes as their length, what is odd as its repr."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=True, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return json.dumps({"unprintable": type(value).__name__})


def from_json(text: str) -> Any:
    return json.loads(text, object_hook=_dated)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$date": value.isoformat()}
    if isinstance(value, bytes):
        return {"$bytes": len(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return repr(value)


def _dated(value: dict[str, Any]) -> Any:
    if len(value) == 1 and isinstance(value.get("$date"), str):
        return datetime.fromisoformat(value["$date"])
    return value
