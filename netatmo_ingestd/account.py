"""What one account asks, and how it goes: its queue, its failures, what the cloud refuses it.

`ask` is the one way from a poll to the spool, for the poller and for history.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from netatmo_ingestd.client import Client
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ApiError, ApiRefused, LoginRequired, SpoolError
from netatmo_ingestd.intake import Intake, Through
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Entity, Priority
from netatmo_ingestd.polls import Endpoint, Poll, Source
from netatmo_ingestd.sources import MODULE_TYPES, product_of, serves
from netatmo_ingestd.sources.legrand import MODULE, PLANT, SITE, poll_of, site
from netatmo_ingestd.sources.measure import history_of
from netatmo_ingestd.sources.public import tile_poll
from netatmo_ingestd.spool import Spool

REFUSED_FOR = timedelta(days=1)
KEY_REFUSED_FOR = timedelta(hours=1)  # it may be made active at the portal at any time
REMIND_EVERY = 100
DAY_S = 86_400.0
HISTORY_BOUND = 0.8  # of the spool: the rest is for what the cloud shows only now
HISTORY_AHEAD = 10_000  # records: fresh readings do not queue behind hours of history
NEAR_BOUND = 0.9
FULL_RETRY_S = 300.0  # a disk that others filled tells nobody when it has room again
Job = tuple[Endpoint, str]
"""What is asked again and again: an endpoint, and the home, tile or module it is asked for."""
LOGIN = "login"  # the key under which a lost login counts as failing
KEY = "subscription_key"  # and a refused key, of all that is asked with it


@dataclass
class Failing:
    """A series of failures of one endpoint of one account.

    polls  of a login: what was refused and when; "" when there was no token to ask with
    """

    count: int = 0
    error: str = ""
    polls: dict[str, datetime] = field(default_factory=dict)


class Room:
    """Whether the spool has room for an answer: nothing is asked for that could not be kept.

    paused  why polling waits, "" while it does not
    """

    def __init__(self, spool: Spool, clock: Clock, log: Any) -> None:
        self.paused = ""
        self._spool = spool
        self._clock = clock
        self._log = log
        self._full = (0, 0.0, "")  # bytes, time and poll when the spool took no more

    def is_there(self, priority: Priority) -> bool:
        """Whether an answer can be kept; once full, only when something has left."""
        ahead = self._spool.fill >= HISTORY_BOUND or self._spool.records >= HISTORY_AHEAD
        if priority >= Priority.REREAD and ahead:
            return False
        if self.paused:
            if self._spool.fill > NEAR_BOUND:
                return False  # its bound is lifted by what leaves it, and by nothing else
            then, tried, _ = self._full
            if self._spool.bytes >= then and self._clock.monotonic() - tried < FULL_RETRY_S:
                return False
        return self._spool.fill < 1.0

    @property
    def takes_pictures(self) -> bool:
        """What may come later waits while the spool is nearly full."""
        return self._spool.fill < HISTORY_BOUND

    def ran_out(self, poll: Poll, error: SpoolError) -> None:
        if not self.paused:
            self._log.error("spool.full", error=str(error), paused="polling")
        self.paused = str(error)
        self._full = (self._spool.bytes, self._clock.monotonic(), poll.key)

    def took(self, poll: Poll) -> None:
        """There is room when something has left, or what found none was taken."""
        then, _, refused = self._full
        if self.paused and (self._spool.bytes < then or refused == poll.key):
            self.paused = ""
            self._log.info("spool.room", fill=round(self._spool.fill, 2))


@dataclass
class AccountPolls:
    """What one account asks, and how it goes.

    login    scopes of the login in use, None while there is none or it is dead
    logins   counts the logins that were made meanwhile, `seen` those that are known here
    waiting  keys on the queue: an endpoint that is still waiting is not queued again
    read_at  of each module its last sign of life at its last trailing read, and when that was
    refused  endpoint, product or module to when it may be asked again
    scopes   what `login` told when it was last looked at
    asked    scopes that a login of it asks for
    tiles    of the area whose public stations are asked for
    sites    ids of those whose emergency lighting is asked for
    extra    when hints were followed, monotonic
    stretch  by how much its cadences are longer than set, to fit its budget
    """

    name: str
    sources: tuple[Source, ...]
    client: Client
    budget: Budget
    intake: Intake
    room: Room
    clock: Clock
    log: Any
    login: Callable[[], tuple[str, ...] | None] = lambda: None
    queue: asyncio.PriorityQueue[tuple[int, int, str, Poll]] = field(
        default_factory=asyncio.PriorityQueue
    )
    waiting: set[str] = field(default_factory=set)
    refused: dict[str, datetime] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    first_done: set[str] = field(default_factory=set)
    read_at: dict[str, tuple[Any, datetime]] = field(default_factory=dict)
    last_good: dict[str, datetime] = field(default_factory=dict)
    scopes: tuple[str, ...] | None = None
    asked: tuple[str, ...] = ()
    tiles: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    stretch: float = 1.0
    logins: Callable[[], int] = lambda: 0
    seen: int = 0
    extra: deque[float] = field(default_factory=partial(deque, maxlen=1000))

    def endpoints(self) -> Iterator[Endpoint]:
        """Each endpoint of its products once, whichever of them share it."""
        yield from {
            each.name: each for source in self.sources for each in source.endpoints
        }.values()

    def spares(self, now: float) -> bool:
        """Whether a call beside the planned ones is left of 24 h, and count it; `now` monotonic."""
        while self.extra and now - self.extra[0] >= DAY_S:
            self.extra.popleft()
        if len(self.extra) >= self.budget.spare(self.name):
            return False
        self.extra.append(now)
        return True

    def poll_of(self, job: Job) -> Poll | None:
        """What to ask for a job at a fixed cadence; None when its home is not there any more."""
        endpoint, entity_id = job
        if endpoint.per == "area":
            return tile_poll(self.name, entity_id)
        if endpoint.per in (SITE, PLANT, MODULE):
            entity = self.intake.entities(self.name).get(entity_id)
            if entity is None and endpoint.per == SITE:
                entity = site(self.name, entity_id)
            return poll_of(endpoint, self.name, entity) if entity else None
        if endpoint.per != "home":
            return Poll(endpoint, self.name)
        home = self.intake.homes(self.name, endpoint).get(entity_id)
        return Poll(endpoint, self.name, {"home_id": entity_id}, target=home) if home else None

    def jobs(self) -> Iterator[Job]:
        """What is asked at fixed cadences, the trailing reads aside."""
        for endpoint in self.endpoints():
            for entity_id in self._asked_for(endpoint):
                yield endpoint, entity_id

    def _asked_for(self, endpoint: Endpoint) -> Iterable[str]:
        """Ids of all that an endpoint is asked for; "" is the account as a whole."""
        if endpoint.per == "home":
            return self.intake.homes(self.name, endpoint)
        if endpoint.per == "area":
            return self.tiles
        if endpoint.per == SITE:
            return [each for each in self.sites if self.intake.wants(site(self.name, each))]
        if endpoint.per in (PLANT, MODULE):
            entities = self.intake.entities(self.name).values()
            return [each.entity_id for each in entities if is_asked(endpoint, each)]
        return ("",)

    def histories(self) -> Iterator[tuple[Entity, tuple[str, ...], str]]:
        """(entity, upstream types, finest scale) of each whose history the cloud keeps."""
        for entity in self.intake.modules(self.name).values():
            if kept := history_of(MODULE_TYPES, entity):
                yield entity, kept.history, kept.scale

    async def ask(
        self, poll: Poll, every: timedelta, through: Through | None = None
    ) -> Sequence[Poll] | None:
        """One call, and its answer on the spool: what should follow, None when nothing came of it.

        every    how often this is asked; a call that takes longer is told
        through  what completes the parsed answer before it is put on the spool
        Raises   SpoolError when the spool is damaged
        """
        name = poll.endpoint.name
        if self.is_refused(poll, self.clock.now()) or not self.room.is_there(
            poll.endpoint.priority
        ):
            return None
        began, wants = self.clock.monotonic(), None
        try:
            # The client limits each attempt; waiting for the budget has no limit.
            priority = poll.endpoint.priority
            reply = await self.client.call(
                name, poll.params, priority=priority, purpose=priority.purpose
            )
            wants = await self.intake.take(reply, poll, every, through)
        except ApiRefused as error:
            self.refuse(poll, error, self.clock.now())
        except ApiError as error:
            self.failed(poll.key, str(error))
        except LoginRequired as error:
            self.failed(LOGIN, str(error))
            key = poll.key if error.refused else ""
            self.failing[LOGIN].polls[key] = self.clock.now()
        except SpoolError as error:
            if not error.full:
                raise  # damaged: the next start sets it aside
            self.room.ran_out(poll, error)
        else:
            self.room.took(poll)
            self.went_well(poll, self.clock.now())
        took = self.clock.monotonic() - began
        if took > every.total_seconds():
            self.log.warning("poll.slow", account=self.name, endpoint=name, took_s=round(took, 1))
        return wants

    def is_refused(self, poll: Poll, now: datetime) -> bool:
        """True while the cloud is not to be asked this again."""
        keys = (self._unlocked(poll), poll.key, KEY)
        until = [self.refused[key] for key in keys if key in self.refused]
        return bool(until) and now < max(until)

    def refuse(self, poll: Poll, error: ApiRefused, now: datetime) -> None:
        """Not again for a day: all that the scope unlocks if it is missing, else this module.

        Without a good key nothing is asked, for an hour.
        """
        keys = {"scope": self._unlocked(poll), "key": KEY}
        self._set_aside(keys.get(error.reaction, poll.key), str(error), now)

    def set_aside(self, poll: Poll, reason: str) -> None:
        """Not again for a day: its answer is of no use."""
        self._set_aside(poll.key, reason, self.clock.now())

    def _set_aside(self, key: str, reason: str, now: datetime) -> None:
        self.refused[key] = now + (KEY_REFUSED_FOR if key == KEY else REFUSED_FOR)
        self.log.error("poll.refused", account=self.name, what=key, error=reason)
        self.failing.setdefault(key, Failing()).error = reason

    def failed(self, key: str, error: str) -> None:
        """Count it; of all the modules of an endpoint the first failure is told."""
        first = not self._failing_too(key)
        series = self.failing.setdefault(key, Failing())
        series.count += 1
        series.error = error
        if first or series.count % REMIND_EVERY == 0:
            self.log.warning(
                "poll.failed", account=self.name, endpoint=key, error=error, failures=series.count
            )

    def went_well(self, poll: Poll, now: datetime) -> None:
        """Ends what was failing or refused; the recovery is told."""
        self.last_good[poll.endpoint.name] = now
        login = self.failing.get(LOGIN)
        if login:  # what was not refused again for a day is not asked any more
            login.polls = {
                key: at
                for key, at in login.polls.items()
                if key not in ("", poll.key) and now - at < REFUSED_FOR
            }
        ended = (LOGIN,) if login and not login.polls else ()
        for key in (self._unlocked(poll), poll.key, KEY, *ended):
            self.refused.pop(key, None)
            series = self.failing.pop(key, None)
            if series and not self._failing_too(key):
                self.log.info(
                    "poll.recovered", account=self.name, endpoint=key, failures=series.count
                )

    def forget(self, key: str) -> None:
        """What was wrong with `key` is of no interest any more."""
        self.refused.pop(key, None)
        self.failing.pop(key, None)
        if login := self.failing.get(LOGIN):
            login.polls.pop(key, None)
            if not login.polls:
                del self.failing[LOGIN]

    def troubled(self) -> set[str]:
        """Keys of what fails or is refused."""
        login = self.failing.get(LOGIN)
        return {*self.failing, *self.refused, *(login.polls if login else ())}

    def _unlocked(self, poll: Poll) -> str:
        """What one scope unlocks: an endpoint; of one that products share, the product's part."""
        name = poll.endpoint.name
        product = product_of(poll.target) if poll.target else ""
        return f"{name} {product}" if product else name

    def _failing_too(self, key: str) -> bool:
        """True while the endpoint of `key` fails, for whichever module."""
        name = key.partition("|")[0]
        return any(each.partition("|")[0] == name for each in self.failing)


def is_asked(endpoint: Endpoint, entity: Entity) -> bool:
    """Whether an endpoint `per` plant or module is asked for `entity`."""
    if endpoint.per == PLANT:
        return entity.type == PLANT
    return entity.kind == "module" and serves(endpoint, entity)
