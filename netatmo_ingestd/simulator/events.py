"""`getevents`: the events of a home as they are now, page by page (netatmo-api 3.7).

A page begins behind the event that `event_id` names, in the order of `happenings.shown`. The id
filters and `offset` of the method do nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

from netatmo_ingestd.simulator import happenings
from netatmo_ingestd.simulator.answers import NO_BODY, Json, invalid_argument, missing_arguments
from netatmo_ingestd.simulator.curves import hashed
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.happenings import Happening, Shot
from netatmo_ingestd.simulator.household import SCOPES
from netatmo_ingestd.simulator.pictures import image
from netatmo_ingestd.simulator.weather import Call, Method
from netatmo_ingestd.simulator.world import World

SIZE = 30
READ_SCOPES = tuple(dict.fromkeys(SCOPES[kind] for kind in sorted(happenings.TYPES)))
_GARBAGE: tuple[Json, ...] = ([], -1, "\ud800", {}, 2**70, None, "x" * 3_000, True, [[]], {"$a": 1})


def page(call: Call) -> Json:
    """`getevents`: at most `size` events; no body for a home without any."""
    asked = dict(call.params)
    home_id, size = asked.get("home_id"), asked.get("size", str(SIZE))
    if not home_id:
        raise missing_arguments("home_id")
    if home_id not in [call.view.world.stations[each].home_id for each in call.account.owns]:
        raise invalid_argument("Invalid home_id")
    if not size.isdecimal() or not int(size):
        raise invalid_argument("Invalid size")
    household = call.view.world.households.get(home_id)
    if household is None:
        return NO_BODY
    now, kept, after = call.view.now, call.event_days, asked.get("event_id", "")
    last = happenings.find(household, now, after, kept) if after else None
    if after and (last is None or last.device.scope not in call.scopes):
        raise invalid_argument("Invalid event_id")
    behind = happenings.shown(household, now, kept, after)
    found = list(islice((e for e in behind if e.device.scope in call.scopes), int(size)))
    if not found and last is None:
        return NO_BODY
    if not found and last is not None and repeats_last(home_id):
        found = [last]
    hand = _hand_out(call)
    events = [told(event, now, partial(hand, event)) for event in found]
    return {"home": {"id": home_id, "events": _spoiled(call, found, events)}}


METHODS: Mapping[str, Method] = {"getevents": Method(READ_SCOPES, page)}


def repeats_last(home_id: str) -> bool:
    """Whether behind its oldest event a home shows that one again, rather than nothing."""
    return hashed(0, home_id, "last page") % 2 == 0


def told(event: Happening, now: float, picture: Callable[[Shot], Json]) -> dict[str, Json]:
    """An event as it is at `now`.

    picture   what stands for one
    """
    shown: dict[str, Json] = {
        "id": event.id,
        "type": event.type,
        "time": event.time,
        "module_id": event.device.id,
        **event.told,
        "message": event.message,
    }
    if event.device.type == "NACamDoorTag":
        shown["camera_id"] = event.device.bridge
    if event.video:
        shown |= {"video_id": event.video, "video_status": event.video_status(now)}
    shown |= {shot.slot: picture(shot) for shot in event.shots}
    if event.parts:
        shown["subevents"] = [
            {
                "id": part.id,
                "type": part.type,
                "time": part.time,
                "offset": part.offset,
                "verified": True,
                "message": part.message,
                **{shot.slot: picture(shot) for shot in part.shots},
            }
            for part in event.parts
            if part.time <= now
        ]
    return shown


def expected(world: World, home_id: str, now: float, kept_days: float) -> list[dict[str, Json]]:
    """All that can be seen, faults aside: a picture is {"sha256", "address": whether it had one}.

    Raises  ValueError for a home that is not of this world
    """
    household = world.households.get(home_id)
    if household is None:
        raise ValueError(f"events: {home_id!r} is no home with other devices than weather stations")
    return [told(event, now, _sum) for event in happenings.shown(household, now, kept_days)]


def _sum(shot: Shot) -> Json:
    sha256 = hashlib.sha256(image(shot.art)).hexdigest()
    return {"sha256": sha256, "address": not shot.filename}


def _hand_out(call: Call) -> Callable[[Happening, Shot], Json]:
    """Pictures of one answer, each with an address of its own."""
    elsewhere = [fault for fault in call.faults if fault.kind == "picture_foreign_host"]

    def hand(event: Happening, shot: Shot) -> Json:
        if shot.filename:
            return {"filename": shot.filename}
        bases = [f"https://{f.params['host']}" for f in elsewhere if _is_about(f, event)]
        return call.studio.address((*bases, call.base)[0], shot.name, call.view.now)

    return hand


def _is_about(fault: Fault, event: Happening) -> bool:
    named = fault.params.get("event")
    return named in (None, event.id) and fault.touches(event.device.id, event.device.gateway)


def _spoiled(
    call: Call, found: list[Happening], events: list[dict[str, Json]]
) -> list[dict[str, Json]]:
    """World faults that change one event: the one named, else the first of the answer."""
    for fault in call.faults:
        if fault.kind not in ("event_garbled", "event_unknown_type"):
            continue
        place = next((i for i, event in enumerate(found) if _is_about(fault, event)), None)
        if place is None:
            continue
        if fault.kind == "event_unknown_type":
            events[place]["type"] = fault.params["type"]
        else:
            names = [name for name in events[place] if name != "id"]
            garbage = {name: _GARBAGE[i % len(_GARBAGE)] for i, name in enumerate(names)}
            events[place] = {"id": events[place]["id"], **garbage}
    return events
