"""What one account asks, and how it goes: its queue, its failures, what the cloud refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from netatmo_ingestd.client import Client
from netatmo_ingestd.errors import ApiRefused
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.limits import Budget
from netatmo_ingestd.models import Endpoint, Poll, Source

REFUSED_FOR = timedelta(days=1)
REMIND_EVERY = 100
LOGIN = "login"  # the key under which a lost login counts as failing


@dataclass
class Failing:
    """A series of failures of one endpoint of one account."""

    count: int = 0
    error: str = ""


@dataclass
class AccountPolls:
    """What one account asks, and how it goes.

    login    scopes of the login in use, None while there is none or it is dead
    waiting  keys on the queue: an endpoint that is still waiting is not queued again
    refused  endpoint or module to when it may be asked again
    scopes   what `login` told when it was last looked at
    """

    name: str
    sources: tuple[Source, ...]
    client: Client
    budget: Budget
    intake: Intake
    log: Any
    login: Callable[[], tuple[str, ...] | None] = lambda: None
    queue: asyncio.PriorityQueue[tuple[int, int, str, Poll]] = field(
        default_factory=asyncio.PriorityQueue
    )
    waiting: set[str] = field(default_factory=set)
    refused: dict[str, datetime] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    first_done: set[str] = field(default_factory=set)
    last_good: dict[str, datetime] = field(default_factory=dict)
    scopes: tuple[str, ...] | None = None

    def endpoints(self) -> Iterator[Endpoint]:
        for source in self.sources:
            yield from source.endpoints

    def is_refused(self, poll: Poll, now: datetime) -> bool:
        """True while the cloud is not to be asked this again."""
        until = [self.refused[key] for key in (poll.endpoint.name, poll.key) if key in self.refused]
        return bool(until) and now < max(until)

    def refuse(self, poll: Poll, error: ApiRefused, now: datetime) -> None:
        """Not again for a day: the endpoint when the scope is missing, else only this module."""
        key = poll.endpoint.name if error.reaction == "scope" else poll.key
        self.refused[key] = now + REFUSED_FOR
        self.log.error("poll.refused", account=self.name, what=key, error=str(error))
        self.failing.setdefault(key, Failing()).error = str(error)

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
        for key in (poll.endpoint.name, poll.key, LOGIN):
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

    def _failing_too(self, key: str) -> bool:
        """True while the endpoint of `key` fails, for whichever module."""
        name = key.partition("|")[0]
        return any(each.partition("|")[0] == name for each in self.failing)
