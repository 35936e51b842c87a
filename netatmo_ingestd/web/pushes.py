"""What a push of Netatmo hints at: which account should ask which endpoint, for which home.

Nothing of a push is stored: delivery is at most once and out of order, so it is never the record,
only a reason to ask at once what is asked anyway. Source: netatmo-api 3.12, 7.10.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.models import Json

EVENTS, STATUS, TOPOLOGY = "getevents", "homestatus", "homesdata"
EVERYTHING = (EVENTS, STATUS, TOPOLOGY)
APART = timedelta(seconds=10.5)  # half a second more than the poller asks for
# A heating system tells each tenth of a degree; at 10 s each that alone would use up the budget.
DEVICE_EVENTS_APART = timedelta(minutes=1)
# What each push_type hints at, the first that matches. Only what moves a state asks for the state.
_KINDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), endpoints)
    for pattern, endpoints in (
        (r"webhook_(de)?activation|daily_summary|alert|alarm_event", ()),
        (r"topology_changed", (TOPOLOGY,)),
        (r"display_change|home_event_changed|device_event", (STATUS,)),
        (r"[A-Z]\w+-(movement|human|animal|vehicle|tag_\w+|(incoming|missed)_call)", (EVENTS,)),
        (r"[A-Z]\w+-\w+|(dis)?connection", (EVENTS, STATUS)),
    )
)

Hint = Callable[[str, str, str], None]
"""(account, endpoint, home id): ask now what is asked anyway."""


@dataclass(frozen=True, slots=True)
class Homes:
    """What an account knows of its homes.

    ids      of all of them
    home_of  id of a module, room or home to that of its home
    """

    ids: Collection[str]
    home_of: Mapping[str, str]


def endpoints_of(push: Mapping[str, Json]) -> tuple[str, ...]:
    """Which endpoints a push hints at; what is not known hints at all of its home."""
    kind = push.get("push_type")
    if kind == "home_event_changed" and push.get("event_type") == "schedule":
        return (STATUS, TOPOLOGY)  # which one is selected stands in the topology
    if isinstance(kind, str):
        for pattern, endpoints in _KINDS:
            if pattern.fullmatch(kind):
                return endpoints
    return EVERYTHING


def home_of(push: Mapping[str, Json], homes: Homes) -> str:
    """The home that a push is about, as far as an account knows it; "" when it does not."""
    home = push.get("home")
    named = [push.get("home_id"), home.get("id") if isinstance(home, dict) else None]
    for each in named:
        if isinstance(each, str) and each in homes.ids:
            return each
    if any(isinstance(each, str) and each for each in named):
        return ""
    for key in ("device_id", "camera_id", "module_id"):
        each = push.get(key)
        if isinstance(each, str) and homes.home_of.get(each):
            return homes.home_of[each]
    return next(iter(homes.ids)) if len(homes.ids) == 1 else ""


def hints_of(
    push: Mapping[str, Json], accounts: Mapping[str, Homes]
) -> Iterator[tuple[str, str, str]]:
    """(account, endpoint, home id) of each hint in a push that one of `accounts` was sent.

    An app may have hundreds of accounts: a home that none of them knows hints at nothing, but
    for the topology of an account that is the app's only one.
    """
    wanted = endpoints_of(push)
    found = {name: home for name, homes in accounts.items() if (home := home_of(push, homes))}
    for name, home in found.items():
        for endpoint in wanted:
            # The topology is asked for all homes of an account at once.
            yield name, endpoint, "" if endpoint == TOPOLOGY else home
    if not found and len(accounts) == 1 and wanted:
        yield next(iter(accounts)), TOPOLOGY, ""


class Hints:
    """Hands hints on, of each endpoint and home at most one in ten seconds; none is lost.

    One that comes too early is handed on when its time has come, once, however many there were;
    the most urgent of them says when.

    least_s  real seconds between two of them, however fast the clock is: whoever calls us lives in
             real time, so on a fast clock alone a flood would become a flood of polls
    """

    def __init__(self, hint: Hint, clock: Clock, least_s: float = APART.total_seconds()) -> None:
        self._hint = hint
        self._clock = clock
        self._least_s = least_s
        self._last: dict[tuple[str, str, str], tuple[float, float]] = {}
        self._later: dict[tuple[str, str, str], asyncio.TimerHandle] = {}
        self.given = 0

    def take(self, account: str, endpoint: str, home_id: str, apart: timedelta = APART) -> None:
        key = (account, endpoint, home_id)
        wait_s = self._wait_s(key, apart)
        if wait_s <= 0:
            self._give(key)
            return
        loop = asyncio.get_running_loop()
        if waiting := self._later.get(key):
            if waiting.when() <= loop.time() + wait_s:
                return
            waiting.cancel()
        self._later[key] = loop.call_later(wait_s, self._give, key)

    def _wait_s(self, key: tuple[str, str, str], apart: timedelta) -> float:
        """Real seconds until the next hint of `key` may be handed on."""
        if key not in self._last:
            return 0.0
        told, really = self._last[key]
        rest_s = told + apart.total_seconds() - self._clock.monotonic()
        rest_real_s = really + self._least_s - time.monotonic()
        return max(self._clock.real_seconds(rest_s), rest_real_s)

    def close(self) -> None:
        """Hand on nothing any more."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def _give(self, key: tuple[str, str, str]) -> None:
        if waiting := self._later.pop(key, None):
            waiting.cancel()
        self._hint(*key)
        self.given += 1
        self._last[key] = self._clock.monotonic(), time.monotonic()
