"""What is asked, and what came back: frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from netatmo_ingestd.models import Entity, Fact, Json, Priority, Record


@dataclass(frozen=True, slots=True)
class Poll:
    """One call to make.

    endpoint  what to ask
    account   whose login
    params    upstream parameters
    target    the entity asked, for endpoints `per` home or module
    begin     window asked, for windowed endpoints: from there up to now
    types     upstream types asked, in order
    scale     of the rows asked
    walked    where the walk began whose next page this is; None: at `begin`
    since     when its first page was answered; None: this is the first
    """

    endpoint: Endpoint
    account: str
    params: Mapping[str, str] = field(default_factory=dict)
    target: Entity | None = None
    begin: datetime | None = None
    types: tuple[str, ...] = ()
    scale: str = "max"
    walked: datetime | None = None
    since: datetime | None = None

    @property
    def entity_id(self) -> str:
        return self.target.entity_id if self.target else ""

    @property
    def key(self) -> str:
        """The endpoint, and the module if it is asked for one: what fails or waits together."""
        name, priority = self.endpoint.name, self.endpoint.priority
        if priority >= Priority.REREAD:
            name = f"{name} {priority.purpose} {self.scale}"
        return f"{name}|{self.entity_id}" if self.target else name


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
class PictureWant:
    """A picture that an event names.

    slot  where it stands in the event: "snapshot", "<sub-event>.vignette" …
    url   good for some minutes, and a secret as long; "" when only the camera has the picture
    """

    event_id: str
    slot: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What `parse` made of an answer.

    last  rows for the table `last` of the spool, in the same transaction; None deletes one
    """

    records: Sequence[Record] = ()
    problems: Sequence[Problem] = ()
    wants: Sequence[Poll] = ()
    facts: Sequence[Fact] = ()
    pictures: Sequence[PictureWant] = ()
    last: Mapping[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)


Parse = Callable[[Reply, Poll], Parsed]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API method with its cadence.

    name      method, e.g. "getstationsdata"; also its name in logs
    scope     OAuth scope it needs; "" when that is up to the module asked for
    cadence   key of [poll] that sets its interval
    per       "account", "home", "area" (a tile of it) or "module"; of Legrand's portal also "site",
              "plant" and "code" (a failure flag)
    priority  its place in the budget
    parse     pure: a reply and the poll that asked for it become records
    secrets   paths whose values are removed from stored answers, "*" for each list element
    lists     True when what a good answer leaves out is not there any more
    """

    name: str
    scope: str
    cadence: str
    per: str
    priority: Priority
    parse: Parse
    secrets: tuple[str, ...] = ()
    lists: bool = True

    @property
    def path(self) -> str:
        return f"/api/{self.name}"


@dataclass(frozen=True, slots=True)
class ModuleType:
    """What the cloud keeps of a module type.

    history     upstream `getmeasure` types, in the order we ask; none when there is no history
    scale       finest scale of its history
    scope       OAuth scope that shows it; "" when none is known that does
    room        True when the room it stands in has a history of its own (`getroommeasure`)
    silent      ends of the ids of its sub-modules that have no history
    """

    product: str
    history: tuple[str, ...] = ()
    scale: str = "max"
    scope: str = ""
    room: bool = False
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A product line: data and pure functions (design, section 5)."""

    name: str
    scopes: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    module_types: Mapping[str, ModuleType]
