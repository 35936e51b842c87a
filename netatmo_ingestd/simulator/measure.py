"""`getmeasure`: history as rows or buckets, by the rules of netatmo-api 3.3. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from netatmo_ingestd.simulator.answers import CallError, Json, invalid_argument, missing_arguments
from netatmo_ingestd.simulator.columns import DAY, STEPS, Column, column, known, names
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import Module, Sample, Stamped

LIMIT = 1024
_GAP_S = 600  # at scale max, a longer step ends a segment

Point = tuple[int, list[Json]]
Columns = Sequence[Column | None]


class Measured(Protocol):
    """What has rows: a module of a station, a device or a room."""

    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def setup(self) -> int: ...


class Rows(Protocol):
    """Which of its rows can be seen at `now`."""

    now: float

    def walk(self, module: Any, begin: float, end: float, /) -> Iterator[Stamped]: ...
    def rows(
        self, module: Any, begin: float, end: float, limit: int | None = None, /
    ) -> list[Stamped]: ...
    def newest(self, module: Any, /) -> Stamped | None: ...


@dataclass(frozen=True, slots=True)
class Query:
    """A checked request; `last` means only the newest point."""

    device_id: str
    module_id: str
    scale: str
    types: tuple[str, ...]
    begin: int | None
    end: int | None
    last: bool
    limit: int
    optimize: bool
    real_time: bool

    @property
    def step(self) -> int:
        return STEPS[self.scale]


def read_query(
    params: Sequence[tuple[str, str]], owner: str = "device_id", target: str = "module_id"
) -> Query:
    """Check the arguments; `type` may be repeated and is split at commas.

    owner, target  the names of the arguments that say what is asked
    """
    one = dict(params)
    types = _types(params)
    absent = [name for name in (owner, "scale", "type") if not one.get(name, "").strip(", ")]
    if absent:
        raise missing_arguments(absent[0])
    if one["scale"] not in STEPS:
        raise invalid_argument("Invalid scale")
    for name in types:
        if not known(name):
            raise invalid_argument(f"Invalid type, {name}")
    last = one.get("date_end") == "last"
    return Query(
        device_id=one[owner],
        module_id=one.get(target) or one[owner],
        scale=one["scale"],
        types=types,
        begin=None if last else _epoch(one.get("date_begin")),
        end=None if last else _epoch(one.get("date_end")),
        last=last,
        limit=_limit(one.get("limit")),
        optimize=one.get("optimize", "true").lower() not in ("false", "0"),
        real_time=one.get("real_time", "false").lower() in ("true", "1"),
    )


def points(query: Query, module: Measured, zone: ZoneInfo, view: Rows) -> list[Point]:
    """Stamps and value lists, oldest first, at most `query.limit`."""
    columns = [column(name, query.scale, module.fields) for name in query.types]
    if not any(columns):
        return []
    if query.last:
        return _last_point(query, module, zone, view, columns)
    if query.scale == "max":
        begin = module.setup if query.begin is None else query.begin
        end = view.now if query.end is None else query.end
        indices = [c.index if c else None for c in columns]
        rows = view.rows(module, begin, end, query.limit)
        return [(at, [None if i is None else row[i] for i in indices]) for at, row in rows]
    return list(islice(_buckets(query, module, zone, view, columns), query.limit))


def every(view: View, module: Module, scale: str, begin: int, end: int) -> list[Sample]:
    """All buckets from `begin` to `end` with all types of the module, whatever the limit.

    Raises  ValueError when the scale is none
    """
    zone = view.world.station_of(module).zone
    return buckets_of(view, module, module.id, zone, scale, begin, end)


def buckets_of(
    view: Rows, module: Measured, name: str, zone: ZoneInfo, scale: str, begin: int, end: int
) -> list[Sample]:
    """The same of anything that has rows."""
    if scale not in STEPS:
        raise ValueError(f"scale: {scale!r} is none of {', '.join(STEPS)}")
    types = names(scale, module.fields)
    query = Query(
        device_id=name,
        module_id=name,
        scale=scale,
        types=types,
        begin=begin,
        end=end,
        last=False,
        limit=sys.maxsize,
        optimize=False,
        real_time=True,
    )
    found = points(query, module, zone, view)
    return [(at, dict(zip(types, values, strict=True))) for at, values in found]


def shape(found: Sequence[Point], query: Query) -> Json:
    """The body: [] when empty, an object for optimize=false, else regular segments."""
    if not found:
        return []
    if not query.optimize:
        return {str(at): values for at, values in found}
    return _segments(found, query)


def bucket(scale: str, at: int, anchor: int, zone: ZoneInfo) -> tuple[int, int]:
    """[start, end) of the bucket that holds `at`.

    anchor  where the grid of 30min to 3hours begins: date_begin, or 0 for UTC
    zone    whose midnights bound the buckets of a day and more
    """
    step = STEPS[scale]
    if step < DAY:
        start = anchor + (at - anchor) // step * step
        return start, start + step
    day = datetime.fromtimestamp(at, zone)
    day = day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if scale == "1week":
        day -= timedelta(days=day.weekday())
    elif scale == "1month":
        day = day.replace(day=1)
    return int(day.timestamp()), int(_following(day, scale).timestamp())


def _following(day: datetime, scale: str) -> datetime:
    if scale == "1month":
        return (day + timedelta(days=32)).replace(day=1)
    return day + timedelta(days=7 if scale == "1week" else 1)


def _buckets(
    query: Query, module: Measured, zone: ZoneInfo, view: Rows, columns: Columns
) -> Iterator[Point]:
    """Buckets with data whose start is not after date_end; each is complete, even the last."""
    begin = module.setup if query.begin is None else query.begin
    if query.step >= DAY:
        begin = bucket(query.scale, begin, 0, zone)[0]
    last = view.now if query.end is None else query.end
    if begin > last:
        return
    start, end = 0, 0
    held: list[Stamped] = []
    for row in view.walk(module, begin, view.now):
        if row[0] >= end:
            if held:
                yield _point(query, (start, end), held, columns)
            start, end = bucket(query.scale, row[0], query.begin or 0, zone)
            held = []
            if start > last:
                return
        held.append(row)
    if held:
        yield _point(query, (start, end), held, columns)


def _last_point(
    query: Query, module: Measured, zone: ZoneInfo, view: Rows, columns: Columns
) -> list[Point]:
    newest = view.newest(module)
    if newest is None:
        return []
    if query.scale == "max":
        return [(newest[0], _folded([newest], columns))]
    edges = bucket(query.scale, newest[0], 0, zone)
    return [_point(query, edges, view.rows(module, edges[0], edges[1] - 1), columns)]


def _point(
    query: Query, edges: tuple[int, int], rows: Sequence[Stamped], columns: Columns
) -> Point:
    """A default stamp is the middle of the bucket, shifted after all filtering."""
    start, end = edges
    width = end - start if query.scale == "1month" else query.step
    return start if query.real_time else start + width // 2, _folded(rows, columns)


def _folded(rows: Sequence[Stamped], columns: Columns) -> list[Json]:
    stamps, series = [at for at, _ in rows], list(zip(*(row for _, row in rows), strict=True))
    return [c.of(stamps, series) if c else None for c in columns]


def _segments(found: Sequence[Point], query: Query) -> Json:
    """Runs of equal steps; a one-point segment has no `step_time`."""
    segments: list[dict[str, Json]] = []
    previous = step = 0
    for at, values in found:
        gap = at - previous
        if segments and (gap == step or (step == 0 and _opens(gap, query))):
            segments[-1]["step_time"] = step = gap
            segments[-1]["value"].append(values)
        else:
            segments.append({"beg_time": at, "value": [values]})
            step = 0
        previous = at
    return [
        {key: s[key] for key in ("beg_time", "step_time", "value") if key in s} for s in segments
    ]


def _opens(gap: int, query: Query) -> bool:
    """Whether a second point begins a run, or lies behind a gap."""
    if query.scale == "max":
        return gap <= _GAP_S
    return gap == query.step or (query.scale == "1month" and gap <= query.step)


def _types(params: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    lists = (value.split(",") for name, value in params if name == "type")
    return tuple(part.strip().lower() for parts in lists for part in parts if part.strip())


def _epoch(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise CallError(400, 25, "Invalid date") from None


def _limit(text: str | None) -> int:
    if not text:
        return LIMIT
    if not text.isdecimal() or int(text) < 1:
        raise invalid_argument("Invalid limit")
    return min(int(text), LIMIT)
