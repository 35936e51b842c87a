"""History rows: `getmeasure` at the finest scale of a module, for every product that has it, and
`getroommeasure`, which is the same for a room.

Asked with `optimize=false` (stamps jitter by seconds at `max`, so optimized answers degrade into
one segment a row), an explicit `date_begin` and no `date_end`: a page begins at the oldest row from
there on, however long the silence before it. Both answer shapes are read all the same.

Bucketed scales are asked on one grid of UTC (`date_begin` sets the bucket edges) with
`real_time=true`, so a stamp is the begin of its bucket whatever page it comes on. A bucket is final
only when it is old enough to have been uploaded: see LATE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.intervals import join
from netatmo_ingestd.ledger import SILENCE
from netatmo_ingestd.models import Entity, Fact, Interval, Json, Measurement, Priority
from netatmo_ingestd.polls import Endpoint, ModuleType, Parse, Parsed, Poll, Problem, Reply
from netatmo_ingestd.sources.quantities import UPSTREAM, is_calm, is_energy, with_energy
from netatmo_ingestd.sources.reading import kind, moment, number, text, told

PAGE_ROWS = 1024
WIDTHS: Mapping[str, timedelta] = {
    "max": timedelta(seconds=1),
    "30min": timedelta(minutes=30),
    "1hour": timedelta(hours=1),
    "3hours": timedelta(hours=3),
}
"""How much time a row stands for; a row at `max` is an instant, which takes its second."""
LATE = timedelta(minutes=30)
"""How long after its end a bucket is not final yet: the last one comes 20 to 25 min late."""
ROOM_LATE = timedelta(hours=1)
"""The same of a room: thermostats and valves upload once an hour."""
ROOM = ModuleType("energy", ("temperature", "sp_temperature"), "30min")
"""What the cloud keeps of a room that has a history."""
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
    begin = on_grid(begin, scale)
    return Poll(
        at_place(target, ROWS, ROOM_ROWS)[priority],
        account,
        measure_params(target, scale, types, begin),
        target=target,
        begin=begin,
        types=types,
        scale=scale,
        walked=walked,
        since=since,
    )


def on_grid(moment: datetime, scale: str) -> datetime:
    """The begin of the bucket that `moment` lies in; at `max` the moment itself."""
    width_s = WIDTHS[scale].total_seconds()
    return moment - timedelta(seconds=moment.timestamp() % width_s) if width_s > 1 else moment


def at_place(
    target: Entity, of_module: Mapping[Priority, Endpoint], of_room: Mapping[Priority, Endpoint]
) -> Mapping[Priority, Endpoint]:
    """What to ask `target` by."""
    return of_room if target.kind == "room" else of_module


def measure_params(
    target: Entity, scale: str, types: Sequence[str], begin: datetime
) -> dict[str, str]:
    """The arguments of `getmeasure` and `getroommeasure` (netatmo-api 3.3, 3.4).

    A module is asked by its bridge, or alone when it is its own.
    """
    params = {
        "scale": scale,
        "type": ",".join(types),
        "date_begin": str(int(begin.timestamp())),
        "limit": str(PAGE_ROWS),
        "optimize": "false",
        "real_time": "true",
    }
    if target.kind == "room":
        return {"home_id": target.home_id, "room_id": target.entity_id, **params}
    device_id = target.device_id or target.entity_id
    if target.entity_id == device_id:
        return {"device_id": device_id, **params}
    return {"device_id": device_id, "module_id": target.entity_id, **params}


def history_of(kinds: Mapping[str, ModuleType], entity: Entity) -> ModuleType | None:
    """What the cloud keeps of `entity`: by its type, else by its `data_type`; None of most.

    A room has a history when one of its modules is of a type that gives it one.
    """
    if entity.kind == "room":
        inside = (kinds.get(str(each)) for each in entity.description.get("module_types") or ())
        return ROOM if any(each and each.room for each in inside) else None
    known = kinds.get(entity.type)
    if known:
        silent = entity.entity_id.endswith(known.silent)
        return None if silent or not known.history else known
    told = entity.description.get("data_types") or ()
    # All of them are instants, so that their finest scale is `max`.
    types = tuple(name for item in told for name in _BY_DATA_TYPE.get(str(item).lower(), ()))
    return ModuleType("", types) if types else None


def parse_rows(reply: Reply, poll: Poll) -> Parsed:
    """One measurement a stamp, and the fact that the window was answered.

    body      {"<epoch>": [value, …]} or [{"beg_time", "step_time"?, "value": [[…], …]}] or [] or {}
    Units     as Netatmo sends them, see sources/quantities.py; wind angle −1 (calm) is left out
    Problems  a stamp or value that is none; it is set aside, its neighbours stay. A meter's row
              without any value is drift: its energy may be in a column that is not asked
    Wants     the next page, when this one is full; history goes on by the ledger instead
    Raises    PayloadError if the body is neither object nor list
    Source    netatmo-api 3.3, 3.4; tests/data/weather/, energy/, control/
    """
    target, begin = asked_for(poll)
    rows, full, problems = read_page(reply, poll)
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
            source=poll.endpoint.name,
        )
        for where, at, told in rows
        if (values := _values(told, poll.types, where, problems))
    ]
    width, server = WIDTHS[poll.scale], reply.time_server.replace(microsecond=0)
    until = final_until(target, poll.scale, server)
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


def final_until(target: Entity, scale: str, server: datetime) -> datetime:
    """Up to when rows of `target` are final at `server`: of buckets the whole ones of some age."""
    if scale == "max":
        return server
    return on_grid(server - (ROOM_LATE if target.kind == "room" else LATE), scale)


def read_page(
    reply: Reply, poll: Poll
) -> tuple[list[tuple[str, datetime, Json]], bool, list[Problem]]:
    """(JSON path, time, value list) of each row with a plausible time; whether the page is full."""
    problems: list[Problem] = []
    rows = []
    count = 0
    for where, stamp, values in _told_rows(reply.body, poll.endpoint.name):
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


def _told_rows(body: Json, method: str) -> Iterator[tuple[str, Json, Json]]:
    """(JSON path, stamp, value list) of each row, whichever shape came."""
    if isinstance(body, dict):
        for key, values in body.items():
            yield f"body.{text(key[:40])}", _epoch(key), values
        return
    if not isinstance(body, list):
        raise PayloadError(
            f"{method}: body is {kind(body)}, neither object nor list",
            endpoint=method,
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
    found = {name: amount for name, amount in amounts.items() if amount is not None}
    if is_energy(types) and not any(value is not None for value in row):
        problems.append(Problem(where, "no tariff that is asked for has a value", drift=True))
    return found


def is_sound(problems: Sequence[Problem]) -> bool:
    """True when nothing of a row had to be set aside."""
    return all(each.drift for each in problems)


def _values(
    row: Json, types: tuple[str, ...], where: str, problems: list[Problem]
) -> dict[str, float]:
    before = len(problems)
    values = {
        UPSTREAM[name.lower()]: amount
        for name, amount in columns(row, types, where, problems).items()
        if not is_calm(name, amount)
    }
    return with_energy(values, sound=is_sound(problems[before:]))


def endpoints(name: str, parse: Parse, *priorities: Priority) -> dict[Priority, Endpoint]:
    """`getmeasure` or `getroommeasure` at each of these places in the budget."""
    return {
        priority: Endpoint(
            name=name,
            scope="",
            cadence="trailing",
            per="module",
            priority=priority,
            parse=parse,
        )
        for priority in priorities
    }


_PLACES = (Priority.TRAILING, Priority.REREAD, Priority.HISTORY)
ROWS = endpoints("getmeasure", parse_rows, *_PLACES)
ROOM_ROWS = endpoints("getroommeasure", parse_rows, *_PLACES)
MEASURE = ROWS[Priority.TRAILING]
