"""The cloud as an ASGI application: OAuth, data methods, quotas, and faults on top.

A data call passes: bearer token, quotas, an armed request fault, scope, method. The control
routes under /simulator are in `control`; nothing here listens on a socket (see `server`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.simulator import (
    aircare,
    consent,
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
from netatmo_ingestd.simulator.oauth import Ask, Authority, GrantError
from netatmo_ingestd.simulator.pictures import Studio
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
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
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
        routes = [
            Route("/oauth2/authorize", self._authorize, methods=["GET", "POST"]),
            Route("/oauth2/token", self._token, methods=["POST"]),
            Route("/api/{method}", self._data, methods=["GET", "POST"]),
            Route(f"/{webhooks.REST}", self._data, methods=["GET", "POST", "DELETE"]),
            Route("/pictures/{name}", self._picture, methods=["GET"]),
            Route("/elsewhere", self._elsewhere, methods=["GET", "POST"]),
            *control.routes(self),
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

    # --- OAuth --------------------------------------------------------------------------------

    async def _authorize(self, request: Request) -> Response:
        params = dict(await _params(request))
        now = self.clock.time()
        fault = self.faults.spoiler("authorize", None, now)
        if fault:
            return mishaps.spoil(fault, Answer(200, consent.page(params).encode(), {}, "text/html"))
        try:
            ask = self.authority.check(params)
        except GrantError as refused:
            return mishaps.plain(as_json(refused.body, 400))
        objection = self.authority.objection(params, ask)
        if objection:
            return _callback(ask, error=objection)
        if self.switches.auto_consent and request.method == "GET":
            users = self.authority.accounts
            account = users.get(params.get("user", ""), next(iter(users.values())))
            return _callback(ask, code=self.authority.consent(ask, account, now))
        return self._decide(params, ask, now)

    def _decide(self, params: dict[str, str], ask: Ask, now: float) -> Response:
        decision = params.get("decision")
        if decision == "deny":
            return _callback(ask, error="access_denied")
        if decision != "allow":
            return HTMLResponse(consent.page(params))
        account = self.authority.login(params.get("user", ""), params.get("password", ""))
        if account is None:
            return HTMLResponse(consent.page(params, alert="Wrong e-mail or password."), 401)
        return _callback(ask, code=self.authority.consent(ask, account, now))

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        now = self.clock.time()
        session = self.authority.sessions.by_refresh(form.get("refresh_token", ""))
        fault = self.faults.spoiler("token", session.account.user if session else None, now)
        if fault is None:
            return mishaps.plain(self._exchange(form, now))
        done = mishaps.needs_answer(fault)
        return mishaps.spoil(fault, self._exchange(form, now) if done else Answer(200, b""))

    def _exchange(self, form: Mapping[str, str], now: float) -> Answer:
        try:
            return as_json(self.authority.token(form, now), 200, _NO_STORE)
        except GrantError as refused:
            return as_json(refused.body, 400, _NO_STORE)

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
        if scope["type"] != "http" or scope["path"].startswith(("/simulator", "/pictures/")):
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


def _callback(ask: Ask, **params: str) -> Response:
    """Back to the application, with the state it sent."""
    if ask.state:
        params["state"] = ask.state
    mark = "&" if "?" in ask.redirect_uri else "?"
    return RedirectResponse(f"{ask.redirect_uri}{mark}{urlencode(params)}", 302)


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
