"""Day rows: `getmeasure` and `getroommeasure` at `scale=1day`, one summary for each local day.

A day is 23, 24 or 25 hours long and begins at the local midnight, or where the clock jumps over it.
Its date decides, not its length: a stamp anywhere inside a day names that day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from netatmo_ingestd.models import Entity, Interval, Json, Priority, Summary
from netatmo_ingestd.polls import Parsed, Poll, Problem, Reply
from netatmo_ingestd.sources.measure import (
    answered,
    asked_for,
    at_place,
    columns,
    endpoints,
    is_sound,
    measure_params,
    read_page,
)
from netatmo_ingestd.sources.quantities import DAY_TYPES, day_types, is_calm, with_energy
from netatmo_ingestd.sources.reading import moment

LATE = timedelta(hours=1)
"""How long after its end a day is asked for: the last upload has to be in."""


def days_poll(
    account: str,
    target: Entity,
    types: tuple[str, ...],
    begin: datetime,
    *,
    priority: Priority = Priority.HISTORY,
    walked: datetime | None = None,
    asked: tuple[str, ...] = (),
) -> Poll:
    """The call for the day rows of `target` from `begin` on (at most 1024, the oldest first).

    types  as its finest rows are asked for
    asked  types of the day rows, for a caller who knows them
    """
    asked = asked or tuple(day_types(types))
    return Poll(
        at_place(target, DAYS, ROOM_DAYS)[priority],
        account,
        measure_params(target, "1day", asked, begin),
        target=target,
        begin=begin,
        types=asked,
        scale="1day",
        walked=walked,
    )


def zone_of(target: Entity) -> ZoneInfo:
    """The time zone of its home; UTC while that is unknown."""
    return _zone(str(target.description.get("timezone") or "UTC"))


def midnights(zone: ZoneInfo, day: date) -> Interval:
    """When the local `day` begins and ends, in UTC."""
    return _begin(zone, day), _begin(zone, day + timedelta(days=1))


def parse_days(reply: Reply, poll: Poll) -> Parsed:
    """One summary for each day that is over, and the fact that the window was answered.

    body      as of parse_rows, stamps at local midnights
    Units     as of the finest rows; `…_time` is a moment
    Problems  a stamp or value that is none; it is set aside, its neighbours stay
    Wants     the next page, when this one is full; history goes on by the ledger instead
    Raises    PayloadError if the body is neither object nor list
    Source    netatmo-api 3.3, 3.4; tests/data/weather/, energy/, control/
    """
    target, _ = asked_for(poll)
    zone = zone_of(target)
    today, _ = midnights(zone, reply.time_server.astimezone(zone).date())
    rows, full, problems = read_page(reply, poll)
    days = [
        (day, *midnights(zone, day), where, values)
        for where, at, values in rows
        for day in (at.astimezone(zone).date(),)
    ]
    over = [each for each in days if each[2] <= today]
    records = [
        Summary(
            account=poll.account,
            home_id=target.home_id,
            device_id=target.device_id,
            module_id=target.entity_id,
            module_type=target.type,
            day=day.isoformat(),
            time=begin,
            until=end,
            values=folds,
            source=poll.endpoint.name,
        )
        for day, begin, end, where, values in over
        if (folds := _folds(values, poll, reply, where, problems))
    ]
    server = reply.time_server.replace(microsecond=0)
    spans = [(begin, end) for _, begin, end, _, _ in over]
    fact = answered(poll, spans, server, today, full=full)
    if fact is None:
        problems.append(Problem("body", "a full page, but no day after the moment asked from"))
        return Parsed(records, problems)
    return Parsed(records, problems, (), (fact,))


def _folds(
    row: Json, poll: Poll, reply: Reply, where: str, problems: list[Problem]
) -> dict[str, float | datetime]:
    before = len(problems)
    found: dict[str, float | datetime] = {}
    for upstream, amount in columns(row, poll.types, where, problems).items():
        name, is_moment = _NAMES[upstream]
        if not is_moment:
            if not is_calm(upstream, amount):
                found[name] = amount
        elif at := moment(amount, reply.time_server):
            found[name] = at
        else:
            problems.append(Problem(f"{where}.{upstream}", "no plausible time"))
    return with_energy(found, sound=is_sound(problems[before:]))


def _begin(zone: ZoneInfo, day: date) -> datetime:
    # Where the clock jumps over midnight, the first moment of the day; where it strikes it twice,
    # the first of both.
    return datetime.combine(day, time(), zone).astimezone(UTC)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


_NAMES = {asked: named for each in DAY_TYPES.values() for asked, named in each.items()}
_PLACES = (Priority.REREAD, Priority.HISTORY)
DAYS = endpoints("getmeasure", parse_days, *_PLACES)
ROOM_DAYS = endpoints("getroommeasure", parse_days, *_PLACES)
