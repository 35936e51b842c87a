"""`include` and `exclude` of an account: which homes, rooms, modules and persons are stored.

Both name them by name or id; a home stands for all that is in it, a room for its modules. What an
account was only invited to see, and favourites, stay out unless `include` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from netatmo_ingestd.models import Entity, Measurement
from netatmo_ingestd.polls import Parsed


def select(
    parsed: Parsed,
    wants: Callable[[Entity], bool],
    only: Callable[[str], bool] | None = None,
) -> Parsed:
    """`parsed` without the entities, and their rows, that the account does not want.

    only  of which ids anything may be told; None: of any
    """
    entities = [each for each in parsed.records if isinstance(each, Entity)]
    chosen = {
        each.entity_id
        for each in entities
        if (only is None or only(each.entity_id)) and wants(each)
    }
    told = {each.entity_id for each in entities}
    kept = [
        each
        for each in parsed.records
        if not isinstance(each, (Entity, Measurement))
        or _id(each) in chosen
        or _id(each) not in told
    ]
    return replace(parsed, records=kept)


def wanted(entity: Entity, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """True when the account wants `entity` stored; `exclude` has the last word."""
    names = {
        entity.entity_id,
        entity.home_id,
        entity.device_id,
        entity.description.get("name"),
        *(entity.description.get(key) for key in ("home_name", "room_id", "room_name")),
    } - {"", None}
    if names & set(exclude):
        return False
    if entity.kind == "station":
        return True  # the area has chosen it
    if include:
        return bool(names & set(include))
    return not entity.read_only


def _id(record: Entity | Measurement) -> str:
    return record.entity_id if isinstance(record, Entity) else record.module_id
