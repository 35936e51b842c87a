"""History rows: `getmeasure` at the finest scale of a module, for every product that has it.

Asked with `optimize=false` (stamps jitter by seconds at `max`, so optimized answers degrade into
one segment a row), an explicit `date_begin` and no `date_end`: a page begins at the oldest row from
there on, however long the silence before it. Both answer shapes are read all the same.

Bucketed scales are asked on one grid of UTC (`date_begin` sets the bucket edges) with
`real_time=true`, so a stamp is the begin of its bucket whatever page it comes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.intervals import join
from netatmo_ingestd.ledger import SILENCE
from netatmo_ingestd.models import Entity, Fact, Interval, Json, Measurement, Priority
from netatmo_ingestd.polls import Endpoint, ModuleType, Parse, Parsed, Poll, Problem, Reply
from netatmo_ingestd.sources.quantities import UPSTREAM, is_calm
from netatmo_ingestd.sources.reading import kind, moment, number, text, told

PAGE_ROWS = 1024
WIDTHS: Mapping[str, timedelta] = {
    "max": timedelta(seconds=1),
    "30min": timedelta(minutes=30),
    "1hour": timedelta(hours=1),
    "3hours": timedelta(hours=3),
}
"""How much time a row stands for; a row at `max` is an instant, which takes its second."""
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


def rows_poll(
    account: str,
    target: Entity,
    types: tuple[str, ...],
    begin: datetime,
    *,
    scale: str = "max",
    priority: Priority = Priority.TRAILING,
    walked: datetime | None = None,
    since: datetime | None = None,
) -> Poll:
    """The call for all rows of `target` from `begin` on (at most 1024, the oldest first)."""
    if scale != "max":
        begin -= timedelta(seconds=begin.timestamp() % WIDTHS[scale].total_seconds())
    return Poll(
        ROWS[priority],
        account,
        measure_params(target, scale, types, begin),
        target=target,
        begin=begin,
        types=types,
        scale=scale,
        walked=walked,
        since=since,
    )


def measure_params(
    target: Entity, scale: str, types: Sequence[str], begin: datetime
) -> dict[str, str]:
    """The arguments of `getmeasure` (netatmo-api 3.3)."""
    params = {
        "device_id": target.device_id,
        "scale": scale,
        "type": ",".join(types),
        "date_begin": str(int(begin.timestamp())),
        "limit": str(PAGE_ROWS),
        "optimize": "false",
        "real_time": "true",
    }
    if target.entity_id != target.device_id:
        params["module_id"] = target.entity_id
    return params


def history_types(kinds: Mapping[str, ModuleType], entity: Entity) -> tuple[str, ...]:
    """What to ask the history of `entity` for: by its type, else by its `data_type`."""
    known = kinds.get(entity.type)
    if known:
        return known.history
    told = entity.description.get("data_types") or ()
    return tuple(name for item in told for name in _BY_DATA_TYPE.get(str(item).lower(), ()))


def history_scale(kinds: Mapping[str, ModuleType], entity: Entity) -> str:
    """The finest scale that the cloud keeps of `entity`."""
    known = kinds.get(entity.type)
    return known.scale if known else "max"


def parse_rows(reply: Reply, poll: Poll) -> Parsed:
    """One measurement a stamp, and the fact that the window was answered.

    body      {"<epoch>": [value, …]} or [{"beg_time", "step_time"?, "value": [[…], …]}] or [] or {}
    Units     as Netatmo sends them, see sources/quantities.py; wind angle −1 (calm) is left out
    Problems  a stamp or value that is none; it is set aside, its neighbours stay
    Wants     the next page, when this one is full; history goes on by the ledger instead
    Raises    PayloadError if the body is neither object nor list
    Source    netatmo-api 3.3; tests/data/weather/
    """
    target, begin = asked_for(poll)
    rows, full, problems = read_page(reply)
    records = [
        Measurement(
            account=poll.account,
            home_id=target.home_id,
            device_id=target.device_id,
            module_id=target.entity_id,
            module_type=target.type,
            scale=poll.scale,
            time=at,
            values=values,
            source="getmeasure",
        )
        for where, at, told in rows
        if (values := _values(told, poll.types, where, problems))
    ]
    width, server = WIDTHS[poll.scale], reply.time_server.replace(microsecond=0)
    # Of a bucketed scale only whole buckets are final.
    until = server - timedelta(seconds=server.timestamp() % width.total_seconds())
    fact = answered(poll, [(at, at + width) for _, at, _ in rows], server, until, full=full)
    if fact is None:
        problems.append(Problem("body", "a full page, but no row after the moment asked from"))
        return Parsed(records, problems)
    wants: tuple[Poll, ...] = ()
    if full and poll.endpoint.priority < Priority.HISTORY:
        following = rows_poll(
            poll.account,
            target,
            poll.types,
            fact.end,
            scale=poll.scale,
            priority=poll.endpoint.priority,
            walked=poll.walked or begin,
            since=poll.since or server,
        )
        wants = (following,)
    return Parsed(records, problems, wants, (fact,))


def asked_for(poll: Poll) -> tuple[Entity, datetime]:
    """The entity and the begin of a windowed poll."""
    if poll.target is None or poll.begin is None:
        raise ValueError("a window is of an entity, and begins somewhere")
    return poll.target, poll.begin


def read_page(reply: Reply) -> tuple[list[tuple[str, datetime, Json]], bool, list[Problem]]:
    """(JSON path, time, value list) of each row with a plausible time; whether the page is full."""
    problems: list[Problem] = []
    rows = []
    count = 0
    for where, stamp, values in _told_rows(reply.body):
        count += 1
        at = moment(stamp, reply.time_server)
        if at is None:
            problems.append(Problem(where, "no plausible time"))
        else:
            rows.append((where, at, values))
    return rows, count >= PAGE_ROWS, problems


def answered(
    poll: Poll, spans: Sequence[Interval], server: datetime, until: datetime, *, full: bool
) -> Fact | None:
    """The fact that the window of `poll` was answered with rows that stand for `spans`.

    The cloud spoke of the time up to `until`, its own now, and of that only up to a full page's
    end. A full page without a usable row establishes nothing: None.
    """
    target, begin = asked_for(poll)
    seen = [each for each in spans if begin < each[1] <= until]
    if full and not seen:
        return None
    filled = join(seen, SILENCE)
    return Fact(
        entity_id=target.entity_id,
        scale=poll.scale,
        types=poll.types,
        begin=begin,
        end=filled[-1][1] if full else max(until, begin),
        rows=len(seen),
        newest=max((first for first, _ in seen), default=None),
        account=poll.account,
        asked=server,
        filled=filled,
        whole=not full,
        walked=poll.walked,
        since=poll.since,
    )


def _told_rows(body: Json) -> Iterator[tuple[str, Json, Json]]:
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


def columns(
    row: Json, types: Sequence[str], where: str, problems: list[Problem]
) -> dict[str, float]:
    """The numbers of a row by upstream type; null and what is no number are left out."""
    if not isinstance(row, list):
        problems.append(Problem(where, f"is {kind(row)}, not a list of values"))
        return {}
    if len(row) > len(types):
        problems.append(Problem(where, f"{len(row)} values for {len(types)} types"))
    block = dict(zip(types, row, strict=False))
    amounts = {name: told(block, name, number, where, problems) for name in block}
    return {name: amount for name, amount in amounts.items() if amount is not None}


def _values(
    row: Json, types: tuple[str, ...], where: str, problems: list[Problem]
) -> dict[str, float]:
    return {
        UPSTREAM[name.lower()]: amount
        for name, amount in columns(row, types, where, problems).items()
        if not is_calm(name, amount)
    }


def endpoints(parse: Parse, *priorities: Priority) -> dict[Priority, Endpoint]:
    """`getmeasure` at each of these places in the budget."""
    return {
        priority: Endpoint(
            name="getmeasure",
            scope="",
            cadence="trailing",
            per="module",
            priority=priority,
            parse=parse,
        )
        for priority in priorities
    }


ROWS = endpoints(parse_rows, Priority.TRAILING, Priority.REREAD, Priority.HISTORY)
MEASURE = ROWS[Priority.TRAILING]
