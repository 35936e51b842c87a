"""History rows: `getmeasure` at `scale=max`, for every product that has it.

Asked with `optimize=false` (stamps jitter by seconds at `max`, so optimized answers degrade into
one segment a row) and an explicit `date_begin`; both answer shapes are read all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import (
    Endpoint,
    Entity,
    Fact,
    Json,
    Measurement,
    ModuleType,
    Parsed,
    Poll,
    Priority,
    Problem,
    Reply,
)
from netatmo_ingestd.sources.quantities import UPSTREAM, is_calm
from netatmo_ingestd.sources.reading import kind, moment, number, text, told

PAGE_ROWS = 1024
_SECOND = timedelta(seconds=1)
# What an unknown module type can be asked for, by its `data_type` entries.
_BY_DATA_TYPE = {
    "wind": ("WindStrength", "WindAngle", "GustStrength", "GustAngle"),
    "temperature": ("Temperature",),
    "co2": ("CO2",),
    "humidity": ("Humidity",),
    "noise": ("Noise",),
    "pressure": ("Pressure",),
    "rain": ("Rain",),
}


def rows_poll(account: str, target: Entity, types: tuple[str, ...], begin: datetime) -> Poll:
    """The call for all rows of `target` from `begin` on (at most 1024, the oldest first)."""
    params = {
        "device_id": target.device_id,
        "scale": "max",
        "type": ",".join(types),
        "date_begin": str(int(begin.timestamp())),
        "limit": str(PAGE_ROWS),
        "optimize": "false",
        "real_time": "true",
    }
    if target.entity_id != target.device_id:
        params["module_id"] = target.entity_id
    return Poll(MEASURE, account, params, target=target, begin=begin, types=types)


def history_types(kinds: dict[str, ModuleType], entity: Entity) -> tuple[str, ...]:
    """What to ask the history of `entity` for: by its type, else by its `data_type`."""
    known = kinds.get(entity.type)
    if known:
        return known.history
    told = entity.description.get("data_types") or ()
    return tuple(name for item in told for name in _BY_DATA_TYPE.get(str(item).lower(), ()))


def parse_rows(reply: Reply, poll: Poll) -> Parsed:
    """One measurement a stamp, and the fact that the window was answered.

    body      {"<epoch>": [value, …]} or [{"beg_time", "step_time"?, "value": [[…], …]}] or [] or {}
    Units     as Netatmo sends them, see sources/quantities.py; wind angle −1 (calm) is left out
    Problems  a stamp or value that is none; it is set aside, its neighbours stay
    Wants     the next page, when this one is full
    Raises    PayloadError if the body is neither object nor list
    Source    netatmo-api 3.3; tests/data/weather/
    """
    target, begin = poll.target, poll.begin
    if target is None or begin is None:
        raise ValueError("getmeasure is asked for a module and from a time")
    problems: list[Problem] = []
    records: list[Measurement] = []
    stamps = 0
    newest = begin
    for where, stamp, values in _rows(reply.body):
        stamps += 1
        at = moment(stamp, reply.time_server)
        if at is None:
            problems.append(Problem(where, "no plausible time"))
            continue
        newest = max(newest, at)
        numbers = _values(values, poll.types, where, problems)
        if numbers:
            records.append(
                Measurement(
                    account=poll.account,
                    home_id=target.home_id,
                    device_id=target.device_id,
                    module_id=target.entity_id,
                    module_type=target.type,
                    scale="max",
                    time=at,
                    values=numbers,
                    source="getmeasure",
                )
            )
    full = stamps >= PAGE_ROWS
    if full and newest <= begin:
        # A page of unusable stamps only: what it covers is unknown, so it establishes nothing.
        problems.append(Problem("body", f"{stamps} rows, none after the one asked from"))
        return Parsed(records, problems)
    # The cloud spoke of the time up to its own now, and of that only up to a full page's end.
    server = reply.time_server.replace(microsecond=0)
    end = min(newest + _SECOND, server) if full else server
    fact = Fact(
        entity_id=target.entity_id,
        scale="max",
        types=poll.types,
        begin=begin,
        end=end,
        rows=len(records),
        newest=max((record.time for record in records), default=None),
        account=poll.account,
    )
    wants = (rows_poll(poll.account, target, poll.types, newest + _SECOND),) if full else ()
    return Parsed(records, problems, wants, (fact,))


def _rows(body: Json) -> Iterator[tuple[str, Json, Json]]:
    """(JSON path, stamp, value list) of each row, whichever shape came."""
    if isinstance(body, dict):
        for key, values in body.items():
            yield f"body.{text(key[:40])}", _epoch(key), values
        return
    if not isinstance(body, list):
        raise PayloadError(
            f"getmeasure: body is {kind(body)}, neither object nor list",
            endpoint="getmeasure",
            path="body",
        )
    for index, segment in enumerate(body):
        where = f"body[{index}]"
        if not isinstance(segment, dict) or not isinstance(segment.get("value"), list):
            yield where, None, None
            continue
        first, step = number(segment.get("beg_time")), number(segment.get("step_time"))
        for place, values in enumerate(segment["value"]):
            stamp = first if place == 0 else None  # one point has no `step_time`
            if place and first is not None and step is not None and step > 0:
                stamp = first + place * step
            yield f"{where}.value[{place}]", stamp, values


def _epoch(key: str) -> Json:
    return int(key) if key.isascii() and key.isdigit() and len(key) < 12 else None


def _values(
    row: Json, types: tuple[str, ...], where: str, problems: list[Problem]
) -> dict[str, float]:
    if not isinstance(row, list):
        problems.append(Problem(where, f"is {kind(row)}, not a list of values"))
        return {}
    if len(row) > len(types):
        problems.append(Problem(where, f"{len(row)} values for {len(types)} types"))
    found = {}
    told_row = dict(zip(types, row, strict=False))
    for name in told_row:
        amount = told(told_row, name, number, where, problems)
        if amount is not None and not is_calm(name, amount):
            found[UPSTREAM[name.lower()]] = amount
    return found


MEASURE = Endpoint(
    name="getmeasure",
    scope="read_station",
    cadence="trailing",
    per="module",
    priority=Priority.TRAILING,
    parse=parse_rows,
)
