"""What Legrand's own portal has in common: bare answers, ISO times, numbers as texts, its calls.

Another cloud than Netatmo's, with few calls a day. A time without a zone is taken as UTC, which no
document says; where one of an answer lies ahead, none of it is UTC, and all are set aside. Source:
netatmo-api 8.3, 8.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Json, whole_seconds
from netatmo_ingestd.polls import Endpoint, Poll, Problem, Reply
from netatmo_ingestd.sources.reading import Block, blocks, ident, kind, number, text

SITE, PLANT, MODULE = "site", "plant", "module"
"""What the portal's endpoints are asked for, each `per` one of these."""
_T = TypeVar("_T")
_AHEAD = timedelta(minutes=15)
_ZONES = timedelta(hours=15)  # no zone is further ahead
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


def poll_of(endpoint: Endpoint, account: str, entity: Entity) -> Poll:
    """The call of an endpoint `per` site, plant or module."""
    params = {"site_id": entity.entity_id}
    if endpoint.per == PLANT:
        params = {"plant_id": entity.entity_id}
    elif endpoint.per == MODULE:
        params = {"plant_id": entity.home_id, "module_id": entity.entity_id}
    # Measures are asked a day back: `scale` says how far rows are remembered (plan.reach).
    return Poll(endpoint, account, params, target=entity, scale="")


def site(account: str, site_id: str) -> Entity:
    """A site as far as the settings know it."""
    return Entity(account, "home", site_id, site_id, "", SITE, {"name": site_id})


def whole(reply: Reply, endpoint: str) -> Block:
    """The body that should be an object. Raises PayloadError."""
    if not isinstance(reply.body, dict):
        raise _misshapen(reply, endpoint, "an object")
    return Block(reply.body, "body", reply.time_server, [])


def each_of(reply: Reply, endpoint: str) -> tuple[list[Block], list[Problem]]:
    """The objects of the body that should be a list. Raises PayloadError."""
    if not isinstance(reply.body, list):
        raise _misshapen(reply, endpoint, "a list")
    problems: list[Problem] = []
    found = blocks(reply.body, "body", problems)
    return [Block(fields, where, reply.time_server, problems) for where, fields in found], problems


def _misshapen(reply: Reply, endpoint: str, shape: str) -> PayloadError:
    return PayloadError(
        f"{endpoint}: body is {kind(reply.body)}, not {shape}", endpoint=endpoint, path="body"
    )


def id_of(block: Block, otherwise: str) -> str | None:
    """Its id; a problem without one."""
    found = ident(block.fields.get("id"))
    if found is None:
        block.problem("id", f"missing or unusable; {otherwise}")
    return found


def converted(block: Block, key: str, read: Callable[[Json], _T | None]) -> _T | None:
    """`read` of a field that is a text where a value of another kind is meant."""
    value = block.fields.get(key)
    found = read(value)
    if found is None and value not in (None, ""):
        block.problem(key, f"{kind(value)} that cannot be used")
    return found


def moment(block: Block, key: str, ahead: timedelta = _AHEAD) -> datetime | None:
    """A time in ISO 8601, at most `ahead` of the cloud's: a later one is no UTC, whatever it is."""

    def read(value: Json) -> datetime | None:
        if not isinstance(value, str):
            return None
        try:
            told = datetime.fromisoformat(value)
            found = whole_seconds(told.replace(tzinfo=told.tzinfo or UTC).astimezone(UTC))
        except (ValueError, OverflowError):
            return None
        return found if _OLDEST <= found <= block.server + ahead else None

    return converted(block, key, read)


def is_local(block: Block) -> bool:
    """True when a time without a zone lies ahead: then none of the others is UTC either."""
    limit = block.server.replace(tzinfo=None) + _AHEAD
    stamps = [block.fields.get("time")]
    for name in ("thermometer", "hygrometer"):
        inner = block.fields.get(name)
        listed = inner.get("measures") if isinstance(inner, dict) else None
        rows = (
            [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        )
        stamps += [each.get("timeStamp") for each in rows]
    for told in stamps:
        try:
            time = datetime.fromisoformat(told) if isinstance(told, str) else None
        except ValueError:
            continue
        if time is not None and time.tzinfo is None and limit < time < limit + _ZONES:
            return True
    return False


def decimal(block: Block, key: str) -> float | None:
    """A number, or a text of one."""
    return converted(block, key, _number)


def celsius(block: Block, key: str, unit: str | None = None) -> float | None:
    """A temperature in °C; `unit` is that of one that names none itself."""
    amount = decimal(block, key)
    told = block.told("unit", text) or unit or "C"
    if amount is not None and told.strip("° ").upper() == "F":
        return round((amount - 32) / 1.8, 2)
    return amount


def _number(value: Json) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,12}([.,]\d{1,12})?\s*", value):
        return float(value.replace(",", "."))
    return number(value)
