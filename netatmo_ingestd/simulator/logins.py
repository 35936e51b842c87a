"""The consent page and the token endpoint over HTTP, for whichever cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.simulator import consent, mishaps
from netatmo_ingestd.simulator.answers import Answer, as_json
from netatmo_ingestd.simulator.faults import Switchboard
from netatmo_ingestd.simulator.oauth import Ask, Authority, GrantError

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
Shape = Callable[[dict[str, Any], float], dict[str, Any]]
"""Makes of a token answer the one of another cloud; the time is now."""


class Consents(Protocol):
    """The switch that a login looks at."""

    auto_consent: bool


class Logins:
    """One authorization server.

    scopes  what each login gets, whatever it asks for; none: what it asks for
    """

    def __init__(
        self,
        authority: Authority,
        clock: Clock,
        faults: Switchboard,
        switches: Consents,
        *,
        shape: Shape = lambda told, _now: told,
        scopes: tuple[str, ...] = (),
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._faults = faults
        self._switches = switches
        self._shape = shape
        self._scopes = scopes

    async def authorize(self, request: Request) -> Response:
        params = dict(parse_qsl(request.url.query, keep_blank_values=True))
        if request.method == "POST":
            body = (await request.body()).decode("utf-8", "replace")
            params |= dict(parse_qsl(body, keep_blank_values=True))
        now = self._clock.time()
        fault = self._faults.spoiler("authorize", None, now)
        if fault:
            return mishaps.spoil(fault, Answer(200, consent.page(params).encode(), {}, "text/html"))
        try:
            ask = self._authority.check(params)
        except GrantError as refused:
            return mishaps.plain(as_json(refused.body, 400))
        objection = self._authority.objection(params, ask)
        if objection:
            return _callback(ask, error=objection)
        if self._scopes:
            ask = replace(ask, scopes=self._scopes)
        if self._switches.auto_consent and request.method == "GET":
            users = self._authority.accounts
            account = users.get(params.get("user", ""), next(iter(users.values())))
            return _callback(ask, code=self._authority.consent(ask, account, now))
        return self._decide(params, ask, now)

    def _decide(self, params: dict[str, str], ask: Ask, now: float) -> Response:
        decision = params.get("decision")
        if decision == "deny":
            return _callback(ask, error="access_denied")
        if decision != "allow":
            return HTMLResponse(consent.page(params))
        account = self._authority.login(params.get("user", ""), params.get("password", ""))
        if account is None:
            return HTMLResponse(consent.page(params, alert="Wrong e-mail or password."), 401)
        return _callback(ask, code=self._authority.consent(ask, account, now))

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        now = self._clock.time()
        session = self._authority.sessions.by_refresh(form.get("refresh_token", ""))
        fault = self._faults.spoiler("token", session.account.user if session else None, now)
        if fault is None:
            return mishaps.plain(self._exchange(form, now))
        done = mishaps.needs_answer(fault)
        return mishaps.spoil(fault, self._exchange(form, now) if done else Answer(200, b""))

    def _exchange(self, form: Mapping[str, str], now: float) -> Answer:
        try:
            return as_json(self._shape(self._authority.token(form, now), now), 200, _NO_STORE)
        except GrantError as refused:
            return as_json(refused.body, 400, _NO_STORE)


def _callback(ask: Ask, **params: str) -> Response:
    """Back to the application, with the state it sent."""
    if ask.state:
        params["state"] = ask.state
    mark = "&" if "?" in ask.redirect_uri else "?"
    return RedirectResponse(f"{ask.redirect_uri}{mark}{urlencode(params)}", 302)
