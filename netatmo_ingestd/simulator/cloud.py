"""The cloud as an ASGI application: OAuth, data methods, quotas, and faults on top.

A data call passes: bearer token, quotas, an armed request fault, scope, method. The control
routes under /simulator are in `control`; nothing here listens on a socket (see `server`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.simulator import (
    aircare,
    control,
    events,
    homes,
    mishaps,
    publicdata,
    weather,
    webhooks,
)
from netatmo_ingestd.simulator.answers import Answer, CallError, as_json, bad, good, no_scope
from netatmo_ingestd.simulator.faults import PICTURES, Switchboard
from netatmo_ingestd.simulator.happenings import KEPT_DAYS
from netatmo_ingestd.simulator.journal import Journal
from netatmo_ingestd.simulator.logins import Logins
from netatmo_ingestd.simulator.oauth import Authority
from netatmo_ingestd.simulator.pictures import Studio
from netatmo_ingestd.simulator.portal import BASES, Portal
from netatmo_ingestd.simulator.pushes import DISPLAY, EVENTS, TOPOLOGY
from netatmo_ingestd.simulator.sessions import Session
from netatmo_ingestd.simulator.traffic import Limits, Quotas, Traffic
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.weather import Call, Method
from netatmo_ingestd.simulator.webhooks import Webhooks
from netatmo_ingestd.simulator.world import World

METHODS: Mapping[str, Method] = {
    **weather.METHODS,
    **aircare.METHODS,
    **homes.METHODS,
    **events.METHODS,
    **publicdata.METHODS,
}
_JSON_METHODS = ("homesdata", webhooks.REST)  # seen to take a JSON body; history takes none
_UNCOUNTED = ("/simulator", "/pictures/", *BASES)  # the portal counts its own calls
_CROWDED = CallError(429, 11, "Failed to enter concurrency limited section")


@dataclass(slots=True)
class Switches:
    """What may be changed while it runs.

    auto_consent  the authorize page answers by itself, for the account named `user` or the first
    show_invited  invited stations are listed even without get_favorites
    event_days    how long events are kept
    pushes        which kinds of push are sent by themselves
    any_port      webhooks may have any port, not only those of the real cloud
    """

    auto_consent: bool = False
    show_invited: bool = False
    event_days: float = KEPT_DAYS
    pushes: tuple[str, ...] = (EVENTS, DISPLAY, TOPOLOGY)
    any_port: bool = True


class Cloud:
    """One simulated cloud; `app` is what a server runs."""

    def __init__(
        self,
        world: World,
        authority: Authority,
        clock: Clock,
        limits: Limits | None = None,
        switches: Switches | None = None,
        *,
        portal_users: int = 0,
    ) -> None:
        self.world = world
        self.authority = authority
        self.clock = clock
        self.switches = switches or Switches()
        self.quotas = Quotas(limits or Limits())
        self.traffic = Traffic()
        self.journal = Journal()
        self.faults = Switchboard(world.seed)
        self.studio = Studio(world.seed)
        self.webhooks = Webhooks(
            world,
            clock,
            self.faults,
            self.studio,
            kinds=lambda: self.switches.pushes,
            any_port=lambda: self.switches.any_port,
        )
        self.ready_made: dict[str, str] = {}
        logins = Logins(authority, clock, self.faults, self.switches)
        self.portal = (
            Portal(world.seed, portal_users, clock, self.faults, self.switches, authority)
            if portal_users
            else None
        )
        routes = [
            Route("/oauth2/authorize", logins.authorize, methods=["GET", "POST"]),
            Route("/oauth2/token", logins.token, methods=["POST"]),
            Route("/api/{method}", self._data, methods=["GET", "POST"]),
            Route(f"/{webhooks.REST}", self._data, methods=["GET", "POST", "DELETE"]),
            Route("/pictures/{name}", self._picture, methods=["GET"]),
            Route("/elsewhere", self._elsewhere, methods=["GET", "POST"]),
            *control.routes(self),
            *(self.portal.routes() if self.portal else ()),
        ]
        self.app: ASGIApp = _Counted(Starlette(routes=routes), self)

    # --- data ---------------------------------------------------------------------------------

    async def _data(self, request: Request) -> Response:
        begun, now = time.perf_counter(), self.clock.time()
        name = _name_of(request)
        try:
            params = await _params(request)
            request.scope["simulator.params"] = params
            session = self._admit(request, now)
            fault = self.faults.spoiler(name, session.account.user, now)
            if fault and not mishaps.needs_answer(fault):
                return mishaps.spoil(fault, Answer(200, b""))
            answer = good(
                self._call(request, params, session, now),
                took_s=time.perf_counter() - begun,
                now=now,
            )
            return mishaps.spoil(fault, answer) if fault else mishaps.plain(answer)
        except CallError as refused:
            self.traffic.refuse(refused)
            return mishaps.plain(bad(refused))

    def _admit(self, request: Request, now: float) -> Session:
        """The session of the bearer token, counted against its quotas."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        session = self.authority.sessions.by_access(token if kind.lower() == "bearer" else "", now)
        user = session.account.user
        request.scope["simulator.account"] = user
        running = self.traffic.claim(user)
        self.quotas.spend(session.app.client_id, user, now)
        if self.quotas.limits.parallel is not None and running > self.quotas.limits.parallel:
            raise _CROWDED
        return session

    def _call(
        self, request: Request, params: list[tuple[str, str]], session: Session, now: float
    ) -> object:
        name, base = _name_of(request), str(request.base_url).rstrip("/")
        if name in webhooks.NAMES:
            return self.webhooks.answer(name, request.method, dict(params), session, base)
        method = METHODS.get(name)
        if method is None:
            raise CallError(404, 31, "Method not found")
        if not set(method.scopes) & set(session.scopes):
            raise no_scope()
        faults = self.faults.world(name, session.account.user, now)
        view = View(self.world, now, faults)
        call = Call(
            params,
            session.account,
            view,
            session.scopes,
            faults,
            self.switches.show_invited,
            base=base,
            studio=self.studio,
            event_days=self.switches.event_days,
        )
        body = method.answer(call)
        self.traffic.rows += len(call.stamps)
        request.scope["simulator.stamps"] = call.stamps
        return body

    async def _picture(self, request: Request) -> Response:
        """No API call: neither its quotas nor its counts know of it."""
        now, counts = self.clock.time(), self.studio.counts
        leaked = "authorization" in request.headers
        counts.leaked += leaked
        self.traffic.leaked += leaked
        answer = self.studio.answer(request.path_params["name"], request.query_params, now)
        if answer.status != 200:
            counts.refused += 1
            return mishaps.plain(answer)
        fault = self.faults.spoiler(PICTURES, None, now)
        if fault is None:
            counts.fetched += 1
            return mishaps.plain(answer)
        counts.spoiled += 1
        return mishaps.spoil(fault, answer)

    async def _elsewhere(self, request: Request) -> Response:
        """Where redirects lead: counts who follows one with a bearer token."""
        self.traffic.followed += 1
        self.traffic.leaked += "authorization" in request.headers
        return mishaps.plain(as_json({"elsewhere": True}))


class _Counted:
    """Counts each request from arrival to the last byte of its answer, and keeps the journal."""

    def __init__(self, app: ASGIApp, cloud: Cloud) -> None:
        self._app = app
        self._cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_UNCOUNTED):
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        traffic, now = self._cloud.traffic, self._cloud.clock.time()
        purpose = dict(scope["headers"]).get(b"x-ingest-purpose", b"").decode("latin-1")
        path = scope["path"].lstrip("/")
        endpoint = path if path == webhooks.REST else path.rsplit("/", 1)[-1]
        traffic.enter(endpoint, purpose, now)
        try:
            await self._app(scope, receive, watched)
        finally:
            account = scope.get("simulator.account", "")
            traffic.leave(status, account)
            if "simulator.params" in scope:
                self._cloud.journal.add(
                    at=now,
                    purpose=purpose,
                    endpoint=endpoint,
                    account=account,
                    params=scope["simulator.params"],
                    status=status,
                    stamps=scope.get("simulator.stamps", ()),
                )


def _name_of(request: Request) -> str:
    return str(request.path_params.get("method", webhooks.REST))


async def _params(request: Request) -> list[tuple[str, str]]:
    """Arguments of a GET query, a POST form, or both; of some methods also of a JSON object.

    Raises  CallError 400, code 40, when that is none
    """
    found = parse_qsl(request.url.query, keep_blank_values=True)
    if request.method != "POST":
        return found
    body = (await request.body()).decode("utf-8", "replace")
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json" and _name_of(request) in _JSON_METHODS:
        return found + _of_json(body)
    return found + parse_qsl(body, keep_blank_values=True)


def _of_json(body: str) -> list[tuple[str, str]]:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise CallError(400, 40, "JSON bad encoding")
    return [
        (name, ",".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in told.items()
    ]
