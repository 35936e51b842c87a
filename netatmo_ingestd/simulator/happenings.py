"""What happens in a home with security devices: functions of their salts and the time.

Some forty events a day in a usual home, in agreement with what `lives` says of doors, persons and
cameras. An event grows for some minutes: its video is recorded, sub-events are added (netatmo-api
3.7). Events stand in one order for good, newest first but for a few neighbours that are swapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from netatmo_ingestd.simulator import lives
from netatmo_ingestd.simulator.curves import hashed
from netatmo_ingestd.simulator.household import Device, Household, Person

DAY = 86_400
KEPT_DAYS = 90
CAMERAS = ("NACamera", "NOC", "NDB")
_SWAPPED_IN = 12  # one pair of so many
_NEAR_S = 3_600
_KINDS = {
    "human": "Person detected",
    "animal": "Animal detected",
    "vehicle": "Car detected",
    "movement": "Motion detected",
}


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture of an event or sub-event.

    slot      "snapshot" or "vignette"
    art       which image it is; some events have the same
    filename  where it lies on the camera's card, empty for one with an address
    """

    slot: str
    name: str
    art: int
    filename: str


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-event, seen from `time` on; `offset` in seconds into the video."""

    id: str
    type: str
    time: int
    offset: int
    message: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """An event as it is in the end.

    told        the fields of its type
    video       id of its video, empty without one
    recorded_s  how long that is recorded
    deleted_s   when it is deleted again, seconds after the beginning; None: never
    """

    id: str
    time: int
    type: str
    device: Device
    message: str
    told: Mapping[str, Any] = field(default_factory=dict, hash=False)
    video: str = ""
    recorded_s: int = 0
    deleted_s: int | None = None
    shots: tuple[Shot, ...] = ()
    parts: tuple[Part, ...] = ()

    def video_status(self, now: float) -> str:
        if self.deleted_s is not None and self.time + self.deleted_s <= now:
            return "deleted"
        return "available" if self.time + self.recorded_s <= now else "recording"


def shown(
    household: Household, now: float, kept_days: float = KEPT_DAYS, after: str = ""
) -> Iterator[Happening]:
    """What the cloud has at `now`, in its order.

    after   id of an event: only what comes behind it, which is what is older
    Raises  KeyError when there is no such event (any more)
    """
    first = now - kept_days * DAY
    day = int(now) // DAY
    if after:
        if find(household, now, after, kept_days) is None:
            raise KeyError(after)
        day = _time_of(after) // DAY
    behind = not after
    for each_day in range(day, int(first) // DAY - 1, -1):
        for each in _in_order(household, each_day):
            if behind and first <= each.time <= now:
                yield each
            behind = behind or each.id == after


def find(
    household: Household, now: float, event_id: str, kept_days: float = KEPT_DAYS
) -> Happening | None:
    """The event of that id, if the cloud has it at `now`."""
    at = _time_of(event_id)
    if not now - kept_days * DAY <= at <= now:
        return None
    return next((e for e in _in_order(household, at // DAY) if e.id == event_id), None)


def _time_of(event_id: str) -> int:
    """Epoch in the first eight digits of an id; negative in what is none."""
    try:
        return int(event_id[:8], 16) if len(event_id) == 24 else -1
    except ValueError:
        return -1


@lru_cache(maxsize=512)
def _in_order(household: Household, day: int) -> tuple[Happening, ...]:
    """All of a UTC day, whenever they are seen; two neighbours now and then the wrong way round."""
    events = sorted(_of_day(household, day), key=lambda each: (each.time, each.id), reverse=True)
    place = 0
    while place + 1 < len(events):
        one, other = events[place : place + 2]
        if int(one.id[-4:], 16) % _SWAPPED_IN == 0 and one.time - other.time < _NEAR_S:
            events[place : place + 2] = other, one
            place += 1
        place += 1
    return tuple(events)


def _of_day(household: Household, day: int) -> Iterator[Happening]:
    for device in household.devices:
        write = _WRITERS.get(device.type)
        if write is None or (day + 1) * DAY <= device.setup:
            continue
        for event in write(_Diary(household, device, day)):
            if event.time >= device.setup:
                yield event


@dataclass(frozen=True, slots=True)
class _Diary:
    """A day of one device."""

    household: Household
    device: Device
    day: int

    def mark(self, *what: object) -> int:
        return hashed(self.device.salt, *what, self.day)

    def is_due(self, what: str, days: int) -> bool:
        """Whether this is a day on which a thing happens that does so every `days`."""
        return (self.day + hashed(self.device.salt, what)) % days == 0

    def moments(self, what: str, least: int, most: int) -> Iterator[int]:
        """Times between 06:00 and 23:00 UTC, while the camera looks."""
        count = least + self.mark(what, "count") % (most - least + 1)
        for number in range(count):
            at = self.at(21_600 + self.mark(what, number) % 61_200)
            if lives.monitoring(self.device, at) == "on":
                yield at

    def at(self, seconds: int) -> int:
        return self.day * DAY + seconds

    def note(self, kind: str, at: int, message: str, **told: Any) -> Happening:
        salt = told.get("person_id", "")
        mark = hashed(self.device.salt, "event", kind, at, salt)
        return Happening(f"{at:08x}{mark:016x}", at, kind, self.device, message, told)

    def film(self, kind: str, at: int, message: str, *slots: str, **told: Any) -> Happening:
        """An event with a video and pictures."""
        plain = self.note(kind, at, message, **told)
        mark = hashed(self.device.salt, "video", plain.id)
        video = _uuid(mark, hashed(self.device.salt, "video", plain.id, 2))
        return replace(
            plain,
            video=video,
            recorded_s=60 + mark % 240,
            # By somebody who has seen it, within the hour; what he leaves stays.
            deleted_s=900 + (mark >> 32) % 1_800 if mark >> 24 & 15 == 0 else None,
            shots=self.shots(plain.id, video, *slots),
        )

    def shots(self, event_id: str, video: str, *slots: str) -> tuple[Shot, ...]:
        """Every fifth event has its pictures on the card alone; every eighth a common one."""
        mark = hashed(self.device.salt, "shots", event_id)
        found = []
        for slot in slots:
            own = event_id if mark >> 8 & 7 else f"still {mark >> 16 & 1}"
            art = hashed(self.device.salt, slot, own)
            name = f"{art:016x}{hashed(mark, slot):016x}"
            path = f"vod/{video}/events/{event_id}/{slot}_{event_id}.jpg"
            found.append(Shot(slot, name, art, path if mark % 5 == 0 else ""))
        return tuple(found)


# --- cameras -------------------------------------------------------------------------------------


def _camera(diary: _Diary) -> Iterator[Happening]:
    """Monitoring goes off and on, the connection breaks."""
    name = f"<b>{diary.device.name}</b>"
    before = lives.monitoring(diary.device, diary.at(-1))
    for seconds in range(0, DAY, lives.HALF):
        state = lives.monitoring(diary.device, diary.at(seconds))
        if state != before:
            yield diary.note(state, diary.at(seconds), f"{name}: monitoring {state}")
        before = state
    if diary.is_due("offline", 6):
        mark = diary.mark("offline")
        gone = diary.at(50_000 + mark % 20_000)
        yield diary.note("disconnection", gone, f"{name} disconnected")
        back = gone + 300 + (mark >> 16) % 1_800
        yield diary.note("connection", back, f"{name} connected")


def _indoor(diary: _Diary) -> Iterator[Happening]:
    yield from _camera(diary)
    for person in diary.household.persons:
        yield from _person(diary, person)
    for at in diary.moments("movement", 5, 9):
        category = {} if at % 3 == 0 else {"category": ("human", "animal")[at % 2]}
        yield diary.film("movement", at, _KINDS["movement"], "snapshot", **category)
    for at in diary.moments("human", 1, 3):
        yield diary.film("human", at, _KINDS["human"], "snapshot", "vignette")


def _person(diary: _Diary, person: Person) -> Iterator[Happening]:
    """Goes, comes back, is seen in between."""
    left, back = lives.absence(person, diary.day)
    name, known = f"<b>{person.name}</b>", {"person_id": person.id}
    yield diary.note("person_away", left, f"{name} has left", **known)
    yield diary.film(
        "person", back, f"{name} arrived", "snapshot", "vignette", **known, is_arrival=True
    )
    for at in diary.moments(f"seen {person.id}", 2, 4):
        if not lives.is_away(person, at):
            told = known | {"is_arrival": False, "out_of_sight": False}
            yield diary.film("person", at, f"{name} seen", "snapshot", "vignette", **told)


def _outdoor(diary: _Diary) -> Iterator[Happening]:
    yield from _camera(diary)
    for at in diary.moments("outdoor", 5, 9):
        yield _container(diary, at)


def _container(diary: _Diary, at: int) -> Happening:
    """An `outdoor` event: one to four sub-events within its video."""
    film = diary.film("outdoor", at, f"Activity at <b>{diary.device.name}</b>")
    mark = hashed(diary.device.salt, "parts", film.id)
    parts, offset = [], 0
    for number in range(1 + mark % 4):
        each = hashed(mark, number)
        kind = tuple(_KINDS)[each % len(_KINDS)]
        name = _uuid(each, hashed(mark, number, 2))
        shots = diary.shots(name, film.video, "snapshot", "vignette")
        parts.append(Part(name, kind, at + offset, offset, _KINDS[kind], shots))
        offset += 15 + (each >> 8) % 90
    return replace(film, recorded_s=max(film.recorded_s, offset), parts=tuple(parts))


def _doorbell(diary: _Diary) -> Iterator[Happening]:
    yield from _camera(diary)
    for at in diary.moments("ring", 1, 3):
        name = f"<b>{diary.device.name}</b>"
        yield diary.film("incoming_call", at, f"Somebody rings at {name}", "snapshot", "vignette")
        answer = "accepted_call" if at % 3 == 0 else "missed_call"
        yield diary.note(answer, at + 30, f"{name}: {answer.replace('_', ' ')}")
    for at in diary.moments("outdoor", 1, 3):
        yield _container(diary, at)


# --- sensors -------------------------------------------------------------------------------------


def _tag(diary: _Diary) -> Iterator[Happening]:
    name = f"<b>{diary.device.name}</b>"
    per_day = DAY // lives.SLOT
    for slot in range(diary.day * per_day, (diary.day + 1) * per_day):
        begin, _ = lives.opening(diary.device, slot)
        yield diary.note("tag_open", begin, f"{name} was opened")
        if hashed(diary.device.salt, "knock", slot) % 12 == 0:
            kind = ("tag_small_move", "tag_big_move")[slot % 2]
            yield diary.note(kind, begin + 120, f"{name} moved")


def _spell(diary: _Diary, kind: str, days: int, *steps: tuple[int, str]) -> Iterator[Happening]:
    """Every `days`, one (sub_type, message) after the other, minutes apart."""
    if diary.is_due(kind, days):
        at = diary.at(30_000 + diary.mark(kind) % 40_000)
        for step, (number, message) in enumerate(steps):
            later = at + step * (90 + diary.mark(kind, step) % 600)
            yield diary.note(kind, later, message, sub_type=number)


def _siren(diary: _Diary) -> Iterator[Happening]:
    yield from _spell(diary, "siren_sounding", 9, (1, "The siren sounds"), (0, "It is silent"))
    yield from _spell(diary, "siren_tampered", 31, (1, "Siren: <b>tampered</b>"), (0, "Siren: ok"))


def _alarm(diary: _Diary) -> Iterator[Happening]:
    name = f"<b>{diary.device.name}</b>"
    yield from _spell(diary, "sound_test", 30, (0, f"{name}: sound test passed"))
    yield from _spell(diary, "wifi_status", 7, (0, f"{name}: no Wi-Fi"), (1, f"{name}: Wi-Fi ok"))
    yield from _spell(diary, "battery_status", 45, (0, f"{name}: battery low"))
    yield from _spell(diary, "tampered", 60, (1, f"{name}: taken down"), (0, f"{name}: ready"))


def _smoke(diary: _Diary) -> Iterator[Happening]:
    yield from _alarm(diary)
    yield from _spell(diary, "smoke", 20, (1, "<b>Smoke</b> detected"), (0, "Smoke cleared"))
    yield from _spell(diary, "hush", 40, (0, "Alarm muted"), (1, "Alarm no longer muted"))
    yield from _spell(diary, "detection_chamber_status", 50, (1, "Chamber dusty"))


def _monoxide(diary: _Diary) -> Iterator[Happening]:
    yield from _alarm(diary)
    steps = ((1, "<b>CO</b> pre-alarm"), (2, "<b>CO</b> alarm"), (0, "CO cleared"))
    yield from _spell(diary, "co_detected", 35, *steps)


_WRITERS = {
    "NACamera": _indoor,
    "NOC": _outdoor,
    "NDB": _doorbell,
    "NACamDoorTag": _tag,
    "NIS": _siren,
    "NSD": _smoke,
    "NCO": _monoxide,
}
TYPES = frozenset(_WRITERS)


def _uuid(one: int, other: int) -> str:
    digits = f"{one:016x}{other:016x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
