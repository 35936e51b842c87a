"""Reading upstream JSON: each value is checked where it enters and has a type after.

Nothing here raises on bad data: a value that is not what it should be comes back as None, and the
caller notes a Problem with its JSON path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from netatmo_ingestd.models import Json
from netatmo_ingestd.polls import Problem

_IDENT = re.compile(r"[^|\x00-\x1f\ud800-\udfff]{1,64}")
# Bounded, so that a long text costs no quadratic search.
_WORD = r"[^\s@\"<>,;:]"
_MAIL = re.compile(rf"{_WORD}{{1,64}}@{_WORD}{{1,255}}")
# Also as JSON text may have it: https:\/\/…
_WEB = re.compile(r"(?i:[a-z][a-z0-9+.-]{0,15}):(?:\\?/){2}[^\s\"<>]{0,4096}")
_SECRET = re.compile(r"(?i:(^|_)(key|token|url|uri|secret|signature|password|pin)s?($|_))")
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=2)
_INT64 = 1 << 63
_LONG = 4096
_DEEP = 12  # levels of a nested value; what we know of has six
_T = TypeVar("_T")
Reader = Callable[[Json], Any]
"""Makes a value of ours of one of theirs; None when it cannot be used."""


def told(
    block: Mapping[str, Json],
    key: str,
    read: Callable[[Json], _T | None],
    path: str,
    problems: list[Problem],
) -> _T | None:
    """`read` of one field; missing and null are None.

    A value that `read` cannot use is a Problem, one that had to be bent is drift.
    """
    value = block.get(key)
    if value is None:
        return None
    result = read(value)
    if result is None:
        problems.append(Problem(f"{path}.{key}", f"{kind(value)} that cannot be used"))
    elif isinstance(value, int) and not -_INT64 <= value < _INT64:
        problems.append(Problem(f"{path}.{key}", "beyond int64; a double now", drift=True))
    elif isinstance(value, str) and result != value:
        problems.append(Problem(f"{path}.{key}", "no clean text; mended", drift=True))
    return result


@dataclass(frozen=True, slots=True)
class Block:
    """One object of an answer and its JSON path; what cannot be used goes into `problems`."""

    fields: Mapping[str, Json]
    where: str
    server: datetime
    problems: list[Problem]

    def told(self, key: str, read: Callable[[Json], _T | None]) -> _T | None:
        return told(self.fields, key, read, self.where, self.problems)

    def read(self, fields: Mapping[str, tuple[str, Reader]]) -> dict[str, Any]:
        """Each of `fields`, upstream name to our name and its reader, by our name."""
        return {ours: self.told(key, reader) for key, (ours, reader) in fields.items()}

    def moment(self, key: str, ahead: timedelta = AHEAD) -> datetime | None:
        """A time, at most `ahead` of the cloud's; 0, or false as PHP puts it, means never."""
        if self.fields.get(key) == 0:
            return None
        return self.told(key, lambda value: moment(value, self.server, ahead))

    def inner(self, key: str) -> Block:
        """The object at `key`, an empty one if there is none."""
        found = self.told(key, lambda value: value if isinstance(value, dict) else None)
        return replace(self, fields=found or {}, where=f"{self.where}.{key}")

    def blocks(self, key: str) -> Iterator[Block]:
        """The objects of the list at `key`."""
        for where, fields in blocks(self.fields.get(key), f"{self.where}.{key}", self.problems):
            yield replace(self, fields=fields, where=where)

    def unknown(self, known: Collection[str]) -> tuple[tuple[str, Any], ...]:
        return unknown(self.fields, known, self.where, self.problems)

    def problem(self, key: str, words: str, *, drift: bool = False) -> None:
        self.problems.append(Problem(f"{self.where}.{key}", words, drift=drift))


def present(**facts: Any) -> dict[str, Any]:
    """The facts that were told."""
    return {name: value for name, value in facts.items() if value is not None}


def number(value: Json) -> float | None:
    """A finite float; None for anything else (a boolean is no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def ident(value: Json) -> str | None:
    """An id that may be part of an `_id`; opaque, case-sensitive, stray blanks kept."""
    return value if isinstance(value, str) and _IDENT.fullmatch(value) else None


def text(value: Json) -> str | None:
    """Text that can be stored; a lone surrogate is replaced."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode()[:_LONG]


def flag(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


def scalar(value: Json) -> bool | float | str | None:
    """A switch, a number (always a double) or a word."""
    if isinstance(value, bool):
        return value
    return text(value) if isinstance(value, str) else number(value)


def moment(value: Json, server: datetime, ahead: timedelta = AHEAD) -> datetime | None:
    """An epoch as a UTC date, if it lies between 2000 and `ahead` after `server`."""
    seconds = number(value)
    if seconds is None or not 0 < seconds < 1e11:
        return None
    result = datetime.fromtimestamp(int(seconds), UTC)
    return result if _FIRST <= result <= server + ahead else None


def pair(value: Json) -> tuple[float, float] | None:
    """Two numbers, or none."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = number(value[0]), number(value[1])
    return None if first is None or second is None else (first, second)


def plain(value: Json) -> Any:
    """Any JSON value as something storable: scalars stay, the rest becomes JSON text.

    Upstream keys so never become field names; integers beyond int64 become doubles.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        if isinstance(value, int) and -_INT64 <= value < _INT64:
            return value
        return number(value)
    if isinstance(value, str):
        return text(value)
    try:
        return json.dumps(value, ensure_ascii=True)[:_LONG]
    except RecursionError:
        return f"{kind(value)}, nested too deeply"


def harmless(name: str, value: Json) -> Any:
    """An unknown field as data, without anything that opens a door: keys, addresses, passwords."""
    if _SECRET.search(name):
        return "removed"
    try:
        told = plain(json.loads(json.dumps(value), object_pairs_hook=_without_keys))
    except RecursionError:
        told = plain(value)
    return without_addresses(told) if isinstance(told, str) else told


def _without_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    return {name: "removed" if _SECRET.search(name) else value for name, value in pairs}


def unknown(
    block: Mapping[str, Json], known: Collection[str], path: str, problems: list[Problem]
) -> tuple[tuple[str, Any], ...]:
    """Fields without a name of ours, as data; each is noted once as drift by its path."""
    found: list[tuple[str, Any]] = []
    for key, value in block.items():
        if key not in known:
            found.append((text(key) or "", harmless(key, value)))
            problems.append(Problem(f"{path}.{text(key)}", "unknown field", drift=True))
    return tuple(found)


def shaped(
    value: Json,
    names: Mapping[str, str],
    path: str,
    problems: list[Problem],
    strange: list[tuple[str, Any]],
    depth: int = _DEEP,
) -> Any:
    """A nested value with our field names all the way down; what has none goes into `strange`.

    Numbers become doubles, what is nested deeper than `depth` levels JSON text.
    """
    if isinstance(value, (dict, list)) and depth == 0:
        problems.append(Problem(path, "nested deeply; a text now", drift=True))
        return plain(value)
    if isinstance(value, list):
        return [
            shaped(each, names, f"{path}[{place}]", problems, strange, depth - 1)
            for place, each in enumerate(value)
        ]
    if not isinstance(value, dict):
        whole, _, key = path.rpartition(".")
        return told({key: value}, key, scalar, whole, problems)
    found: dict[str, Any] = {}
    for key, each in value.items():
        inner = f"{path}.{text(key)}"
        if key in names:
            found[names[key]] = shaped(each, names, inner, problems, strange, depth - 1)
        else:
            strange.append((f"{path.rpartition('.')[2]}.{text(key)}", harmless(key, each)))
            problems.append(Problem(inner, "unknown field", drift=True))
    return found


def blocks(
    value: Json, path: str, problems: list[Problem]
) -> Iterator[tuple[str, dict[str, Json]]]:
    """The objects of a list with their JSON paths; what is no object is a Problem."""
    if value is None:
        return
    if not isinstance(value, list):
        problems.append(Problem(path, f"is {kind(value)}, not a list"))
        return
    for number_, item in enumerate(value):
        where = f"{path}[{number_}]"
        if isinstance(item, dict):
            yield where, item
        else:
            problems.append(Problem(where, f"is {kind(item)}, not an object"))


def kind(value: Json) -> str:
    """A JSON type's name, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def scrub(body: Json, secrets: Collection[str]) -> Json:
    """A copy of `body` without the values at the paths of `secrets`.

    In a path `*` is each list element, and `**` in front whatever depth. Mail and web addresses go
    wherever they stand: an answer is kept most surely when its shape is new.
    Raises RecursionError; use `without_addresses` on the text then.
    """
    # An object around it, so that the hook sees whatever stands at the top.
    result = json.loads(json.dumps({"": body}), object_pairs_hook=_clean_pairs)[""]
    for path in secrets:
        _remove(result, path.split("."))
    return result


def without_addresses(told: str) -> str:
    """`told` without mail and web addresses; of these many carry their key in them."""
    told = _MAIL.sub("removed", told) if "@" in told else told
    return _WEB.sub("removed", told) if "://" in told or ":\\/" in told else told


def _clean_pairs(pairs: list[tuple[str, Json]]) -> Json:
    return {without_addresses(key): _clean(value) for key, value in pairs}


def _clean(value: Json) -> Json:
    if isinstance(value, str):
        return without_addresses(value)
    # Objects inside went through the hook before.
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _remove(value: Json, parts: list[str]) -> None:
    if parts[0] == "**":
        _remove(value, parts[1:])
        inner = value.values() if isinstance(value, dict) else value
        for item in inner if isinstance(value, (dict, list)) else ():
            _remove(item, parts)
    elif parts[0] == "*":
        for item in value if isinstance(value, list) else ():
            _remove(item, parts[1:])
    elif isinstance(value, dict) and parts[0] in value:
        if len(parts) == 1:
            value[parts[0]] = "removed"
        else:
            _remove(value[parts[0]], parts[1:])
