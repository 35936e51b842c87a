"""What we talk about: frozen values, no I/O.

Records are what an answer becomes (Measurement, State, Entity, Change, Answer, DeadLetter). All
times are aware datetimes in UTC of whole seconds, all measured quantities floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """A description of a home or a module as one answer gives it.

    kind         "home" or "module"
    description  slow facts in our own names (name, type, firmware …); a change is recorded
    condition    fast facts in our own names (radio, last_seen, battery): kept, not compared
    state        discrete facts that become `states` intervals (reachable …)
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


Record = Measurement | State | Entity | Change | Answer | DeadLetter


# --- what is asked, and what came back ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poll:
    """One call to make.

    endpoint  what to ask
    account   whose login
    params    upstream parameters
    target    the entity asked, for endpoints `per` home or module
    begin     window asked, for windowed endpoints; `end` None means up to now
    types     upstream types asked, in order
    """

    endpoint: Endpoint
    account: str
    params: Mapping[str, str] = field(default_factory=dict)
    target: Entity | None = None
    begin: datetime | None = None
    end: datetime | None = None
    types: tuple[str, ...] = ()

    @property
    def entity_id(self) -> str:
        return self.target.entity_id if self.target else ""

    @property
    def key(self) -> str:
        """The endpoint, and the module if it is asked for one: what fails or waits together."""
        return f"{self.endpoint.name}|{self.entity_id}" if self.target else self.endpoint.name


@dataclass(frozen=True, slots=True)
class Reply:
    """One good answer: `body` of the envelope, its `time_server`, and the raw text."""

    body: Json
    time_server: datetime
    received: datetime
    raw: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an answer that we did not understand.

    drift  True for new fields and types (news), False for a value that had to be set aside
    """

    path: str
    text: str
    drift: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True, slots=True)
class Fact:
    """What a windowed answer establishes about one entity and scale.

    The window [begin, end) was answered with `rows` rows, the newest at `newest`.
    """

    entity_id: str
    scale: str
    types: tuple[str, ...]
    begin: datetime
    end: datetime
    rows: int
    newest: datetime | None
    account: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What `parse` made of an answer."""

    records: Sequence[Record] = ()
    problems: Sequence[Problem] = ()
    wants: Sequence[Poll] = ()
    facts: Sequence[Fact] = ()


Parse = Callable[[Reply, Poll], Parsed]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API method with its cadence.

    name      method, e.g. "getstationsdata"; also its name in logs
    scope     OAuth scope it needs
    cadence   key of [poll] that sets its interval
    per       "account", "home" or "module"
    priority  its place in the budget
    parse     pure: a reply and the poll that asked for it become records
    secrets   paths whose values are removed from stored answers, "*" for each list element
    """

    name: str
    scope: str
    cadence: str
    per: str
    priority: Priority
    parse: Parse
    secrets: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"/api/{self.name}"


@dataclass(frozen=True, slots=True)
class ModuleType:
    """What a module type measures and what the cloud keeps of it.

    history     upstream `getmeasure` types, in the order we ask
    scale       finest scale of its history
    """

    product: str
    history: tuple[str, ...]
    scale: str = "max"


@dataclass(frozen=True, slots=True)
class Source:
    """A product line: data and pure functions (design, section 5)."""

    name: str
    scopes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    module_types: Mapping[str, ModuleType]


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one answer and the facts it establishes: one spool row, settled whole."""

    account: str
    endpoint: str
    records: Sequence[Record]
    facts: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one entity and scale have in the store (one `coverage` document).

    covered  answered windows [begin, end), ascending, disjoint
    newest   newest stored row
    owner    account that reads its history, and when it last did
    rev      revision of the document, 0 before it exists
    """

    entity_id: str
    scale: str
    types: tuple[str, ...]
    covered: tuple[tuple[datetime, datetime], ...]
    newest: datetime | None
    owner: str
    owned: datetime
    rev: int = 0


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
