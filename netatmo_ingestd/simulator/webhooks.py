"""Webhooks: who registered which address, and the calls that it gets (netatmo-api 3.12).

`addwebhook` and `dropwebhook`, and `/webhooks/v1` with GET, POST and DELETE; one address for each
app and user, and any login may register one. Each call is signed with the secret of the app, sent
once, in the background. An address that fails five times within an hour is not called for a day;
registering it again ends that. Nothing outside of this machine is ever called.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.simulator import pushes
from netatmo_ingestd.simulator.answers import (
    NO_BODY,
    CallError,
    Json,
    invalid_argument,
    missing_arguments,
)
from netatmo_ingestd.simulator.faults import PUSHES, Fault, Switchboard
from netatmo_ingestd.simulator.pictures import Studio
from netatmo_ingestd.simulator.pushes import Body, Home, Push, Sign
from netatmo_ingestd.simulator.sessions import Account, App, Session
from netatmo_ingestd.simulator.world import World

REST = "webhooks/v1"
NAMES = ("addwebhook", "dropwebhook", REST)
PORTS = (80, 88, 443, 9443)
FAILURES, WITHIN_S, SUSPENDED_S = 5, 3_600, 86_400
ANSWER_S = 5.0  # real time that an address has for its answer
AHEAD_S = 3_600
_AT_ONCE = 8
_KEPT = 1_000
_HUGE = 70_000  # bytes: above what a receiver should read


@dataclass(eq=False)
class Line:
    """One registered address; times are simulated epochs.

    base       where this cloud answers: pictures have their addresses there
    failures   when calls failed lately
    suspended  no call before that
    """

    url: str
    app: App
    account: Account
    scopes: Sequence[str]
    base: str
    since: float
    failures: list[float] = field(default_factory=list)
    suspended: float = 0.0
    task: asyncio.Task[None] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "client_id": self.app.client_id,
            "user": self.account.user,
            "since": self.since,
            "suspended_until": self.suspended or None,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was made; `status` is 0 when no answer came. `body` is what should be in it."""

    at: float
    user: str
    push_type: str
    status: int
    body: Body

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("at", "user", "push_type", "status", "body")}


class Sent(NamedTuple):
    """A push on its way; `task` gives the status of each call it became, 0 without an answer."""

    body: Body
    task: asyncio.Task[list[int]]


class Webhooks:
    """Every registered address, and what was sent there.

    kinds      which of pushes.KINDS are sent by themselves, looked up for each
    any_port   whether ports other than PORTS are taken, looked up at each registration
    transport  of the calls; None is the network
    """

    def __init__(
        self,
        world: World,
        clock: Clock,
        faults: Switchboard,
        studio: Studio,
        kinds: Callable[[], Sequence[str]],
        any_port: Callable[[], bool],
    ) -> None:
        self.lines: dict[tuple[str, str], Line] = {}
        self.calls: deque[Call] = deque(maxlen=_KEPT)
        self.counts: Counter[str] = Counter()
        self.transport: httpx.AsyncBaseTransport | None = None
        self._world = world
        self._clock = clock
        self._faults = faults
        self._studio = studio
        self._kinds = kinds
        self._any_port = any_port
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[list[int]]] = set()

    # --- the methods ----------------------------------------------------------------------------

    def answer(
        self, name: str, verb: str, params: Mapping[str, str], session: Session, base: str
    ) -> Json:
        """What one of NAMES answers; CallError where it is refused."""
        key = (session.app.client_id, session.account.user)
        if name == REST and verb == "GET":
            return [{"url": line.url} for line in (self.lines.get(key),) if line]
        if name == "dropwebhook" or verb == "DELETE":
            if key not in self.lines and name == "dropwebhook":
                raise CallError(406, 7, "Nothing to drop")
            self._drop(key)
            return NO_BODY
        if name == REST and key in self.lines:
            raise CallError(409, "WH009", "webhook limit reached")
        url = self._checked(params.get("url", ""))
        self._drop(key)
        self._open(key, Line(url, session.app, session.account, session.scopes, base, self._now))
        return NO_BODY

    def _checked(self, url: str) -> str:
        if not url:
            raise missing_arguments("url")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):
            raise invalid_argument("Invalid url parameter") from None
        # Names are not looked up: none but this machine is known here.
        if not _is_loopback(host or ""):
            raise invalid_argument("Invalid url parameter")
        if port not in PORTS and not self._any_port():
            raise invalid_argument("Allowed ports for webhooks are 80, 88, 443 and 9443.")
        return url

    def _open(self, key: tuple[str, str], line: Line) -> None:
        self.lines[key] = line
        body = {"user_id": line.account.user_id, "push_type": "webhook_activation"}
        self.send(line, body)
        line.task = asyncio.create_task(self._follow(line))

    def _drop(self, key: tuple[str, str]) -> None:
        line = self.lines.pop(key, None)
        if line and line.task:
            line.task.cancel()

    # --- what is pushed -------------------------------------------------------------------------

    def homes(self, line: Line) -> list[Home]:
        """The homes of an account that have anything but weather."""
        names = {
            station.home_id: station.home_name
            for station in (self._world.stations[each] for each in line.account.owns)
        }
        return [
            Home(self._world.households[home_id], name, line.account.user_id, line.scopes)
            for home_id, name in names.items()
            if home_id in self._world.households
        ]

    def signer(self, line: Line) -> Sign:
        """Gives pictures addresses that are good from now on."""
        return lambda shot: str(self._studio.address(line.base, shot.name, self._now)["url"])

    async def _follow(self, line: Line) -> None:
        """Send what happens from now on, as it happens, until cancelled."""
        begin = line.since
        while True:
            due = self._due(line, begin, begin + AHEAD_S)
            for push in due:
                await self._until(push.at)
                if push.kind in self._kinds():
                    self.send(line, push.write(self.signer(line)))
            begin += AHEAD_S
            await self._until(begin)

    def _due(self, line: Line, begin: float, end: float) -> list[Push]:
        if not self._kinds():
            return []
        found = [pushes.between(self._world, home, begin, end) for home in self.homes(line)]
        return sorted((push for each in found for push in each), key=lambda push: push.at)

    async def _until(self, moment: float) -> None:
        await self._clock.sleep(max(0.0, moment - self._now))

    def changed(self, kind: str, module: str | None) -> None:
        """The topology of the homes with this module or room (None: of all) is another now."""
        if pushes.TOPOLOGY not in self._kinds():
            return
        for line in self.lines.values():
            for home in self.homes(line):
                body = pushes.topology_body(home, kind, module)
                if body:
                    self.send(line, body)

    def push(self, push_type: str, home_id: str | None, fields: Body) -> list[Sent]:
        """Send `pushes.example` at once to all who have that home (None: their first one).

        fields  change it: null takes one away
        Returns what is sent, on its way
        """
        sent = []
        for line in self.lines.values():
            here = [each for each in self.homes(line) if home_id in (None, each.household.home_id)]
            if here:
                mark, sign = secrets.token_hex(8), self.signer(line)
                body = pushes.example(here[0], push_type, self._now, sign, mark) | fields
                body = {name: value for name, value in body.items() if value is not None}
                sent.append(Sent(body, self.send(line, body)))
        return sent

    # --- calls ----------------------------------------------------------------------------------

    def send(self, line: Line, body: Body) -> asyncio.Task[list[int]]:
        """Call the address, once, in the background; the task gives each status that came back."""
        task = asyncio.create_task(self._send(line, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, line: Line, body: Body) -> list[int]:
        now = self._now
        if now < line.suspended:
            self.counts["suppressed"] += 1
            return []
        statuses = []
        fault = self._faults.spoiler(PUSHES, line.account.user, now)
        for raw, signature in _mangled(body, line.app.client_secret, fault):
            async with self._gate:
                status = await self._post(line.url, raw, signature)
            statuses.append(status)
            told = str(body.get("push_type", ""))
            self.calls.append(Call(now, line.account.user, told, status, body))
            good = 200 <= status < 300
            self.counts["delivered" if good else "failed"] += 1
            # A receiver that refuses what is no push of ours does well.
            if not good and fault is None:
                self._failed(line, now)
        return statuses

    def _failed(self, line: Line, now: float) -> None:
        line.failures = [each for each in line.failures if each > now - WITHIN_S] + [now]
        if len(line.failures) >= FAILURES:
            line.failures = []
            line.suspended = now + SUSPENDED_S
            self.counts["suspensions"] += 1

    async def _post(self, url: str, raw: bytes, signature: str) -> int:
        headers = {"Content-Type": "application/json", "X-Netatmo-secret": signature}
        try:
            async with httpx.AsyncClient(
                transport=self.transport, trust_env=False, timeout=ANSWER_S
            ) as http:
                answer = await http.post(url, content=raw, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return answer.status_code

    async def idle(self) -> None:
        """Wait until every call that is on its way is over."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Call nobody any more."""
        tasks = [*self._tasks, *(line.task for line in self.lines.values() if line.task)]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def _now(self) -> float:
        return self._clock.time()

    def as_json(self) -> dict[str, Any]:
        return {
            "registered": [line.as_json() for line in self.lines.values()],
            "counts": dict(self.counts),
            "calls": [call.as_json() for call in self.calls],
        }


def signature(secret: str, raw: bytes) -> str:
    """Of `X-Netatmo-secret`."""
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def _mangled(body: Body, secret: str, fault: Fault | None) -> Iterable[tuple[bytes, str]]:
    """(raw body, signature) of each call that a push becomes."""
    raw = json.dumps(body).encode()
    match fault.kind if fault else "":
        case "push_lost":
            return []
        case "push_twice":
            return [(raw, signature(secret, raw))] * 2
        case "push_forged":
            return [(raw, signature(secrets.token_hex(16), raw))]
        case "push_huge":
            raw = json.dumps(body | {"padding": "x" * _HUGE}).encode()
        case "push_not_json":
            raw = raw[: len(raw) // 2]
        case "push_bare":
            kept = {name: body[name] for name in body if name not in ("user_id", "home_id")}
            raw = json.dumps(kept).encode()
    return [(raw, signature(secret, raw))]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
