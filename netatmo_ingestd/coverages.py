"""The documents of the ledger: a `coverage` document and its value, either way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from netatmo_ingestd.intervals import join
from netatmo_ingestd.models import Coverage, Interval
from netatmo_ingestd.records import Document


def to_coverage(document: Document) -> Coverage | None:
    """A `coverage` document, None for the barrier and for one that was edited into nonsense."""
    try:
        return Coverage(
            entity_id=_is(document["entity_id"], str),
            scale=_is(document["scale"], str),
            types=tuple(_is(each, str) for each in _is(document["types"], list)),
            **{name: _intervals(document[name]) for name in _INTERVALS},
            once=tuple((*_interval(each[:2]), _is(each[2], datetime)) for each in document["once"]),
            newest=_is(document["newest"], datetime, type(None)),
            asked=_is(document["asked"], datetime, type(None)),
            reread=tuple(_is(each, datetime) for each in document["reread"]),
            owner=_is(document["owner"]["account"], str),
            owned=_is(document["owner"]["time"], datetime),
            rev=_is(document["rev"], int),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return None


_INTERVALS = ("covered", "quiet", "filled", "confirmed", "forgotten")


def _is(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} is none of {kinds}")
    return value


def _interval(pair: Sequence[Any]) -> Interval:
    begin, end = (_is(each, datetime) for each in pair)
    return begin, end


def _intervals(pairs: Any) -> tuple[Interval, ...]:
    # Joined: the algebra needs them in order, and somebody may have pushed one at the end.
    return join(_interval(pair) for pair in _is(pairs, list))


def from_coverage(coverage: Coverage, rev: int) -> Document:
    """The document of `coverage` without its `_id`, at revision `rev`."""
    return {
        "entity_id": coverage.entity_id,
        "scale": coverage.scale,
        "types": list(coverage.types),
        **{
            name: [list(each) for each in getattr(coverage, name)]
            for name in ("covered", "quiet", "filled", "once", "confirmed", "forgotten")
        },
        "newest": coverage.newest,
        "asked": coverage.asked,
        "reread": list(coverage.reread),
        "owner": {"account": coverage.owner, "time": coverage.owned},
        "rev": rev,
    }
