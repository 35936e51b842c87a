"""What we talk about: frozen values, no I/O.

Records are what an answer becomes (Measurement, Summary, State, Entity, Change, Event, Picture,
FailureCode, Answer, DeadLetter). All times are aware datetimes in UTC of whole seconds, all
quantities floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

Json = Any
"""A decoded JSON value; checked where it enters, typed after."""


class Priority(IntEnum):
    """Who goes first when the budget is short; lower is sooner (design, section 7)."""

    TOKEN = 0
    LIVE = 1
    EVENTS = 2
    TRAILING = 3
    REREAD = 4
    HISTORY = 5

    @property
    def purpose(self) -> str:
        """The word under which calls are counted: live, trailing, reread or history."""
        return "live" if self <= Priority.EVENTS else self.name.lower()


# --- records ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measurement:
    """All quantities of one module at one time.

    scale   "max" for the finest rows of the cloud
    values  quantity name (see sources/quantities.py) to float in its documented unit
    source  the endpoint that told it first
    other   upstream fields without a name of ours, as (name, value)
    """

    account: str
    home_id: str
    device_id: str
    module_id: str
    module_type: str
    scale: str
    time: datetime
    values: Mapping[str, float]
    source: str
    other: Sequence[tuple[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A module's day in its home's time zone.

    day     local date, "2026-03-14"
    time    UTC moment at which it begins, `until` at which the next one does (23, 24 or 25 h)
    values  quantity name with its fold (temperature_min, rain_sum …) to float, or to a moment
            (temperature_min_time …)
    """

    account: str
    home_id: str
    device_id: str
    module_id: str
    module_type: str
    day: str
    time: datetime
    until: datetime
    values: Mapping[str, float | datetime]
    source: str


@dataclass(frozen=True, slots=True)
class State:
    """An interval in which the discrete state `values` of an entity did not change.

    time   first seen so; names the document together with `entity_id`
    until  last poll that confirmed it
    """

    account: str
    entity_id: str
    kind: str
    home_id: str
    time: datetime
    until: datetime
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entity:
    """A description of a home, or of something in it, as one answer gives it.

    kind         "home", "room", "module" or "person"
    device_id    through which a module reports (its own for a gateway); "" for what has none
    description  slow facts in our own names (name, type, firmware …); a change is recorded
    condition    fast facts in our own names (radio, last_seen, battery): kept, not compared
    state        discrete facts that become `states` intervals (reachable …); None: there is none
    latest       newest quantities and their time, or None when the module is silent
    setup        when it was installed, if told
    read_only    True for what the account was only invited to see
    """

    account: str
    kind: str
    entity_id: str
    home_id: str
    device_id: str
    type: str
    description: Mapping[str, Any]
    condition: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    latest: tuple[datetime, Mapping[str, float]] | None = None
    setup: datetime | None = None
    read_only: bool = False
    other: Sequence[tuple[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What changed in a description: `what` is "added", "changed", "vanished" or "returned"."""

    account: str
    entity_id: str
    kind: str
    home_id: str
    time: datetime
    what: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A security event as one answer tells it; it evolves until its video is there.

    read           when that answer was given: an older one never overwrites a newer one
    type           as the cloud names it (sources/events.py has the known ones)
    sub_type       its code for what happened, `meaning` the same in a word, where that is certain
    person_name    as it was known then
    message        plain text
    is_arrival     True when a person came home
    detected       "person", "animal", "vehicle", "movement", from the event and its sub-events
    subevents      each with our own field names: id, type, time, offset (s into the video) …
    pictures       sha256 of each picture that is stored
    pictures_lost  what could not be had, each {"slot", "reason"}; None when nobody tried
    """

    account: str
    event_id: str
    home_id: str
    module_id: str
    type: str
    time: datetime
    read: datetime
    sub_type: int | None = None
    meaning: str | None = None
    category: str | None = None
    person_id: str | None = None
    person_name: str | None = None
    is_arrival: bool | None = None
    out_of_sight: bool | None = None
    message: str | None = None
    sub_message: str | None = None
    video_id: str | None = None
    video_status: str | None = None
    detected: Sequence[str] = ()
    subevents: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[str] = ()
    pictures_lost: Sequence[Mapping[str, str]] | None = None
    other: Sequence[tuple[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """One image; `event_id` and `time` are those of the first event that showed it."""

    account: str
    sha256: str
    content: bytes = field(repr=False)
    content_type: str
    time: datetime
    event_id: str
    module_id: str
    home_id: str


@dataclass(frozen=True, slots=True)
class FailureCode:
    """What a failure flag of a product means, for all time.

    failures  one for each set bit, {"flag": "0x0008", "type": "BLOCK.FAULTY_BATTERY"}
    """

    account: str
    reference: str
    flag: int
    failures: Sequence[Mapping[str, str]]
    time: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """A scrubbed raw answer, compressed.

    key     account and entity asked, without the window
    keep    True when it had problems or drift: kept until a version that understands it
    body    zlib of the scrubbed JSON text
    """

    account: str
    endpoint: str
    key: str
    time: datetime
    keep: bool
    problems: Sequence[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be stored, as JSON text, with the reason."""

    reason: str
    text: str
    time: datetime


Record = (
    Measurement
    | Summary
    | State
    | Entity
    | Change
    | Event
    | Picture
    | FailureCode
    | Answer
    | DeadLetter
)


# --- what an answer establishes ---------------------------------------------------------------


Interval = tuple[datetime, datetime]
"""Half-open: [begin, end)."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a windowed answer establishes about one entity and scale.

    The window [begin, end) was answered at `asked` (time of the cloud).

    filled  stretches of it whose rows lie at most 6 h apart, ascending; each ends where its last
            row does
    rows    how many rows there are
    newest  time of the newest one
    whole   True when it reaches the cloud's now, False for a full page
    walked  where the walk began whose last page so far this is: all of [walked, end) was asked
    since   when its first page was answered; None: this is the first
    """

    entity_id: str
    scale: str
    types: tuple[str, ...]
    begin: datetime
    end: datetime
    rows: int
    newest: datetime | None
    account: str
    asked: datetime
    filled: tuple[Interval, ...] = ()
    whole: bool = True
    walked: datetime | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one answer and the facts it establishes: one spool row, settled whole.

    reread  True when its rows were asked for before: those that a write changes are revised ones
    """

    account: str
    endpoint: str
    records: Sequence[Record]
    facts: Sequence[Fact] = ()
    reread: bool = False


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one entity and scale have in the store (one `coverage` document).

    All intervals ascend and are disjoint.

    covered    answered windows, each up to the newest row that it had
    quiet      answered windows behind the newest row: silence at the edge, provisional
    filled     stretches with rows at most 6 h apart; the rest of `covered` is empty
    once       (begin, end, when) of empty stretches that one answer found so
    confirmed  empty stretches that two answers at least 24 h apart found so: final
    forgotten  deleted by the owner: never asked for again, never stored again
    newest     newest row
    asked      up to which moment it was ever asked
    reread     up to where each depth of late re-reads has come (ledger.DEPTHS)
    owner      account that reads its history, and when it last did
    rev        revision of the document, 0 before it exists
    """

    entity_id: str
    scale: str
    types: tuple[str, ...]
    covered: tuple[Interval, ...]
    newest: datetime | None
    owner: str
    owned: datetime
    rev: int = 0
    quiet: tuple[Interval, ...] = ()
    filled: tuple[Interval, ...] = ()
    once: tuple[tuple[datetime, datetime, datetime], ...] = ()
    confirmed: tuple[Interval, ...] = ()
    forgotten: tuple[Interval, ...] = ()
    asked: datetime | None = None
    reread: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the operations of one bulk, by their position.

    written   acknowledged
    modified  how many existing documents a write changed
    rejected  at fault themselves: (position, reason)
    retry     to be sent again: (position, reason)
    """

    written: int
    modified: int = 0
    rejected: Sequence[tuple[int, str]] = ()
    retry: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A login. `repr` hides it.

    expires     epoch seconds on the daemon's clock
    generation  counts saved pairs; a caller that was refused names the one it used
    """

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires: float
    lifetime: float
    scopes: tuple[str, ...]
    generation: int
    previous_refresh: str = field(default="", repr=False)


def whole_seconds(moment: datetime) -> datetime:
    """`moment` without its fraction: stored times are whole seconds."""
    return moment.replace(microsecond=0)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)
