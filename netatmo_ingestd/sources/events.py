"""Security events: `getevents`, one page of a home's events.

Events evolve: a video is recorded, then there or deleted, and sub-events are added. So an event is
told anew by each answer that has it. Their pictures are addresses that are good for minutes; they
are wants of the answer and stand in no record.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Event, Json, Priority
from netatmo_ingestd.polls import Endpoint, Parsed, PictureWant, Poll, Reply
from netatmo_ingestd.sources.reading import (
    Block,
    flag,
    harmless,
    ident,
    number,
    present,
    text,
)

PAGE_EVENTS = 30
"""Events of an answer: what the cloud sends by itself; how many it would is not documented."""

# Known types and, where witnesses agree, what their `sub_type` means (netatmo-api 3.7). Of `hush`
# and `battery_status` they contradict each other.
_PLAIN: tuple[str, ...] = (
    "person", "person_home", "person_away", "movement", "human", "animal", "vehicle", "outdoor",
    "daily_summary", "connection", "disconnection", "on", "off", "boot", "new_module",
    "module_connect", "module_disconnect", "module_low_battery", "module_end_update",
    "tag_big_move", "tag_small_move", "tag_open", "tag_uninstalled", "alarm_started",
    "incoming_call", "accepted_call", "missed_call", "rtc", "hush", "battery_status", "new_device",
    "light_mode", "ftp", "model_improved", "end_recording", "live_rec",
)  # fmt: skip
_CHAMBER = {0: "clean", 1: "dusty"}
EVENT_TYPES: Mapping[str, Mapping[int, str]] = {
    **{name: {} for name in _PLAIN},
    "sd": {1: "missing", 2: "inserted", 3: "formatted", 4: "ok", 5: "defective", 6: "too slow",
           7: "too small"},
    "alim": {1: "bad", 2: "ok"},
    "siren_sounding": {0: "stopped", 1: "sounding"},
    "siren_tampered": {0: "ok", 1: "tampered"},
    "smoke": {0: "cleared", 1: "detected"},
    "tampered": {0: "ready", 1: "tampered"},
    "wifi_status": {0: "error", 1: "ok"},
    "detection_chamber_status": _CHAMBER,
    "chamber_status": _CHAMBER,
    "sound_test": {0: "ok", 1: "error"},
    "co_detected": {0: "ok", 1: "pre-alarm", 2: "alarm"},
}  # fmt: skip
_DETECTED = {"person": "person", "human": "person", "animal": "animal", "vehicle": "vehicle"}
_SUBEVENT_TYPES = {"human", "animal", "vehicle", "movement"}
_CATEGORIES = {"human", "animal", "vehicle"}
_VIDEO = {"recording", "available", "deleted", "error"}

LEFT_OUT: Mapping[str, str] = {
    "events[].snapshot": "an address good for minutes: the picture itself is fetched if wanted",
    "events[].vignette": "the same",
    "events[].subevents[].snapshot": "the same",
    "events[].subevents[].vignette": "the same",
    "events[].vpn_url": "the camera's address, as good as a key",
    "events[].is_local": "whether that address is one of the local network",
}
"""Fields that no record takes, on purpose, and why; the same in `event_list`."""
_SLOTS = ("snapshot", "vignette")
_PICTURE = {"url", "expires_at", "filename", "id", "version", "key"}
_SUBEVENTS = ("subevents", "event_list")
_FIELDS = {
    "id", "type", "time", "module_id", "camera_id", "device_id", "message", "sub_message",
    "sub_type", "category", "video_id", "video_status", "person_id", "is_arrival", "out_of_sight",
    "vpn_url", "is_local", *_SLOTS, *_SUBEVENTS,
}  # fmt: skip
_SUB_FIELDS = {"id", "type", "time", "offset", "verified", "message", "category", *_SLOTS}
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


def parse_events(reply: Reply, poll: Poll) -> Parsed:
    """The events of a page, the newest first, and the pictures that they name.

    body      {"home": {"id", "events": [{"id", "type", "time", "module_id", "subevents": […]}]}},
              or absent, as each part of it may be: no events
    Units     `offset` s into the video
    Problems  an event without usable `id` or `time`; a value of a wrong type. An unknown type is
              stored, and told as news
    Raises    PayloadError if the body, or its home, is neither an object nor absent
    Source    netatmo-api 3.7; tests/data/security/
    """
    home = reply.body
    for path in ("body", "body.home"):
        if home in (None, []):
            home = {}
        if not isinstance(home, dict):
            raise PayloadError(f"getevents: {path} is no object", endpoint="getevents", path=path)
        home = home.get("home") if path == "body" else home
    reader = _Reader(poll.account, poll.entity_id)
    whole = Block(home, "body.home", reply.time_server, [])
    whole.unknown(("id", "events"))
    # Names of an id twice: the first one counts, as everywhere.
    found: dict[str, Event] = {}
    for block in whole.blocks("events"):
        if (event := reader.event(block)) is not None:
            found.setdefault(event.event_id, event)
    return Parsed(_newest_first(list(found.values())), whole.problems, pictures=reader.wants)


def _newest_first(events: list[Event]) -> list[Event]:
    """Sorted by us; events of one second in the order of the answer, which tells the older one."""
    if events and events[0].time < events[-1].time:
        events.reverse()
    return sorted(events, key=lambda each: each.time, reverse=True)


@dataclass
class _Reader:
    """One answer being read."""

    account: str
    home_id: str
    wants: list[PictureWant] = field(default_factory=list)

    def event(self, block: Block) -> Event | None:
        event_id, time = ident(block.fields.get("id")), block.moment("time")
        if event_id is None:
            block.problem("id", "missing or unusable; the event is left out")
            return None
        if time is None:
            block.problem("time", "missing or no plausible time; the event is left out")
            return None
        told = {name: block.told(name, ident) for name in ("module_id", "camera_id", "device_id")}
        kind = _named(block, "type", EVENT_TYPES) or "unknown"
        category = _named(block, "category", _CATEGORIES)
        sub_type, meaning = _sub_type(block, kind)
        strange = [*_others(block, _FIELDS), *self._pictures(block, event_id, "")]
        parts = list(self._subevents(block, event_id, strange))
        return Event(
            account=self.account,
            event_id=event_id,
            home_id=self.home_id,
            module_id=next(filter(None, told.values()), ""),
            type=kind,
            time=time,
            read=block.server.replace(microsecond=0),
            sub_type=sub_type,
            meaning=meaning,
            category=category,
            person_id=block.told("person_id", ident),
            is_arrival=block.told("is_arrival", flag),
            out_of_sight=block.told("out_of_sight", flag),
            message=_words(block, "message"),
            sub_message=_words(block, "sub_message"),
            video_id=block.told("video_id", ident),
            video_status=_named(block, "video_status", _VIDEO),
            detected=_detected(kind, category, parts),
            subevents=parts,
            other=tuple(strange),
        )

    def _subevents(
        self, block: Block, event_id: str, strange: list[tuple[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Each sub-event in our names; unknown fields go into `strange`."""
        for key in _SUBEVENTS:
            for place, sub in enumerate(block.blocks(key)):
                sub_id = sub.told("id", ident)
                facts = {
                    "id": sub_id,
                    "type": _named(sub, "type", _SUBEVENT_TYPES),
                    "time": sub.moment("time"),
                    "offset": sub.told("offset", number),
                    "verified": sub.told("verified", flag),
                    "message": _words(sub, "message"),
                    "category": _named(sub, "category", _CATEGORIES),
                }
                name = f"{sub_id or place}."
                strange += _others(sub, _SUB_FIELDS, name)
                strange += self._pictures(sub, event_id, name)
                yield present(**facts)

    def _pictures(self, block: Block, event_id: str, prefix: str) -> list[tuple[str, Any]]:
        """Note what can be fetched; unknown fields of a picture."""
        strange: list[tuple[str, Any]] = []
        for slot in _SLOTS:
            shown = block.inner(slot)
            if shown.fields:
                url = shown.told("url", text) or ""
                self.wants.append(PictureWant(event_id, f"{prefix}{slot}", url))
                strange += _others(shown, _PICTURE, f"{prefix}{slot}.")
        return strange


def _named(block: Block, key: str, known: Any) -> str | None:
    """A word of the cloud's; one that is not known is kept, and told as news."""
    word = block.told(key, text)
    if word is not None and word not in known:
        block.problem(key, f"unknown {key.replace('_', ' ')} {word[:64]}", drift=True)
    return word


def _sub_type(block: Block, kind: str) -> tuple[int | None, str | None]:
    """Code and meaning of what happened: `sub_type` is a number, or a text that may hold one."""
    value = block.fields.get("sub_type")
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,6}", value):
        return None, text(value)
    code = int(value) if isinstance(value, str) else block.told("sub_type", _code)
    return code, None if code is None else EVENT_TYPES.get(kind, {}).get(code)


def _code(value: Json) -> int | None:
    amount = number(value)
    return int(amount) if amount is not None and abs(amount) < 1e6 and amount % 1 == 0 else None


def _detected(kind: str, category: str | None, parts: list[dict[str, Any]]) -> list[str]:
    """What was seen, without repetition; "movement" when nobody can tell what moved."""
    words = [kind, category, *(part.get(key) for part in parts for key in ("type", "category"))]
    seen = sorted({_DETECTED[word] for word in words if word in _DETECTED})
    return seen or (["movement"] if "movement" in words else [])


def _words(block: Block, key: str) -> str | None:
    """Plain text: what is shown in bold carries tags."""
    told = block.told(key, text)
    return None if told is None else html.unescape(_TAG.sub("", told))


def _others(block: Block, known: Collection[str], prefix: str = "") -> list[tuple[str, Any]]:
    """Unknown fields as data, without anything that opens a door."""
    block.unknown(known)  # which tells the news
    return [
        (f"{prefix}{text(name)}", harmless(name, value))
        for name, value in block.fields.items()
        if name not in known
    ]


GETEVENTS = Endpoint(
    name="getevents",
    scope="",  # of whichever camera or alarm is there
    cadence="events",
    per="home",
    priority=Priority.EVENTS,
    parse=parse_events,
    secrets=(
        "**.url", "**.vpn_url", "**.key", "**.snapshot_key", "**.vignette_key", "**.snapshot_url",
        "**.vignette_url",
    ),
    lists=False,
)  # fmt: skip
