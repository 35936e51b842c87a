"""The authorization server: consent, codes, and the token endpoint.

Pure but for its memory: the time is a parameter, every refusal an `GrantError`
(netatmo-api sections 1.1, 1.2 and 1.4).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from netatmo_ingestd.simulator.curves import hashed
from netatmo_ingestd.simulator.sessions import ACCESS_LIFE_S, Account, App, Session, Sessions

CODE_LIFE_S = 600
DEFAULT_SCOPE = "read_station"
COACH_SCOPE = "read_homecoach"

_PRODUCTS = (
    *("station", "homecoach", "thermostat", "smarther", "camera", "camerapro", "presence"),
    *("doorbell", "smokedetector", "carbonmonoxidedetector", "magellan", "bubendorff"),
    *("mx", "mhs1", "bfi", "june"),
)
_ACCESS = {f"access_{name}" for name in ("camera", "camerapro", "presence", "doorbell")}
SCOPES = frozenset({f"{verb}_{name}" for name in _PRODUCTS for verb in ("read", "write")} | _ACCESS)

Json = dict[str, object]


class GrantError(Exception):
    """A refusal by the token or authorize endpoint; `error` is the OAuth code."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(description or error)
        self.error = error
        self.description = description

    @property
    def body(self) -> dict[str, str]:
        if not self.description:
            return {"error": self.error}
        return {"error": self.error, "error_description": self.description}


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked authorize request.

    redirect_uri  where the answer goes
    sent_uri      what the request said, "" when it relied on the registered one
    challenge     PKCE S256 challenge or ""
    """

    app: App
    redirect_uri: str
    sent_uri: str
    scopes: tuple[str, ...]
    state: str
    challenge: str


@dataclass(frozen=True, slots=True)
class _Code:
    ask: Ask
    account: Account
    expires: float


class Authority:
    """Knows apps, accounts, codes and (in `sessions`) every token."""

    def __init__(
        self,
        apps: Sequence[App],
        accounts: Sequence[Account],
        *,
        rotation: str = "strict",
        password_grant: bool = False,
    ) -> None:
        self.apps = {app.client_id: app for app in apps}
        self.accounts = {account.user: account for account in accounts}
        self.password_grant = password_grant
        self.sessions = Sessions(rotation)
        self.counts = {"requests": 0, "refreshes": 0, "logins": 0, "refused": 0, "reused": 0}
        self._codes: dict[str, _Code] = {}

    # --- the consent page ------------------------------------------------------------------------

    def check(self, params: Mapping[str, str]) -> Ask:
        """Read an authorize request; raises where a redirect would be unsafe."""
        app = self.apps.get(params.get("client_id", ""))
        if app is None:
            raise GrantError("invalid_client", "unknown client_id")
        sent = params.get("redirect_uri", "")
        uri = sent or (app.redirect_uris[0] if app.redirect_uris else "")
        if not (uri in app.redirect_uris or _is_loopback(uri)):
            raise GrantError("redirect_uri_mismatch", "redirect_uri is not registered")
        scopes = tuple((params.get("scope") or DEFAULT_SCOPE).split())
        state, challenge = params.get("state", ""), params.get("code_challenge", "")
        return Ask(app, uri, sent, scopes, state, challenge)

    def objection(self, params: Mapping[str, str], ask: Ask) -> str:
        """An OAuth error for the redirect, or ""."""
        if (params.get("response_type") or "code") != "code":
            return "unsupported_response_type"
        if not set(ask.scopes) <= SCOPES:
            return "invalid_scope"
        if ask.challenge and params.get("code_challenge_method") != "S256":
            return "invalid_request"
        return ""

    def login(self, user: str, password: str) -> Account | None:
        account = self.accounts.get(user)
        return account if account and account.password == password else None

    def consent(self, ask: Ask, account: Account, now: float) -> str:
        """A code for the callback: single use, ten minutes."""
        code = secrets.token_hex(16)
        self._codes[code] = _Code(ask, account, now + CODE_LIFE_S)
        return code

    def ready_made(self, app: App, account: Account, seed: int) -> str:
        """A refresh token like one of the developer portal's generator; fixed by `seed`.

        Its scopes are those of what the account has.
        """
        coaches = (COACH_SCOPE,) if account.coaches else ()
        scopes = (DEFAULT_SCOPE, *coaches, *account.scopes)
        session = self.sessions.open(app, account, scopes)
        halves = (hashed(seed, app.client_id, account.user, half) for half in (0, 1))
        token = f"{account.user_id}|" + "".join(f"{half:016x}" for half in halves)
        session.refresh[token] = None
        return token

    # --- the token endpoint ----------------------------------------------------------------------

    def token(self, form: Mapping[str, str], now: float) -> Json:
        """The answer to POST /oauth2/token."""
        self.counts["requests"] += 1
        try:
            return self._token(form, now)
        except GrantError:
            self.counts["refused"] += 1
            raise

    def _token(self, form: Mapping[str, str], now: float) -> Json:
        grants = {
            "authorization_code": self._by_code,
            "refresh_token": self._by_refresh,
            "password": self._by_password,
        }
        grant = grants.get(_need(form, "grant_type"))
        if grant is None:
            raise GrantError("unsupported_grant_type")
        app = self.apps.get(_need(form, "client_id"))
        if app is None or app.client_secret != _need(form, "client_secret"):
            raise GrantError("invalid_client")
        return grant(app, form, now)

    def _by_code(self, app: App, form: Mapping[str, str], now: float) -> Json:
        code = self._codes.pop(_need(form, "code"), None)
        if code is None or code.expires <= now or code.ask.app != app:
            raise GrantError("invalid_grant")
        ask = code.ask
        if form.get("redirect_uri", "") not in (
            (ask.sent_uri,) if ask.sent_uri else ("", ask.redirect_uri)
        ):
            raise GrantError("invalid_grant", "redirect_uri differs from the authorize request")
        if ask.challenge and _s256(form.get("code_verifier", "")) != ask.challenge:
            raise GrantError("invalid_grant", "code_verifier does not match")
        _same_scope(form, ask.scopes)
        return self._first(app, code.account, ask.scopes, now)

    def _by_refresh(self, app: App, form: Mapping[str, str], now: float) -> Json:
        token = _need(form, "refresh_token")
        session = self.sessions.by_refresh(token)
        if session is None or session.app != app:
            raise GrantError("invalid_grant")
        if not self.sessions.accepted(token, now):
            self.counts["reused"] += 1
            raise GrantError("invalid_grant")
        _same_scope(form, session.scopes)
        self.counts["refreshes"] += 1
        return _shown(self.sessions.next_pair(session, token, now), session)

    def _by_password(self, app: App, form: Mapping[str, str], now: float) -> Json:
        if not self.password_grant:
            raise GrantError("unauthorized_client")
        if not (form.get("username") and form.get("password")):
            raise GrantError("invalid_request", "username and password are required")
        account = self.login(form["username"], form["password"])
        if account is None:
            raise GrantError("invalid_grant")
        scopes = tuple((form.get("scope") or DEFAULT_SCOPE).split())
        if not set(scopes) <= SCOPES:
            raise GrantError("invalid_scope")
        return self._first(app, account, scopes, now)

    def _first(self, app: App, account: Account, scopes: tuple[str, ...], now: float) -> Json:
        self.counts["logins"] += 1
        session = self.sessions.open(app, account, scopes)
        return _shown(self.sessions.first_pair(session, now), session)


def _shown(pair: tuple[str, str], session: Session) -> Json:
    """Both spellings of the life, scope as a list, no token_type: as Netatmo answers."""
    return {
        "access_token": pair[0],
        "refresh_token": pair[1],
        "scope": list(session.scopes),
        "expires_in": ACCESS_LIFE_S,
        "expire_in": ACCESS_LIFE_S,
    }


def _need(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise GrantError("invalid_request", f"{name} is required")
    return form[name]


def _same_scope(form: Mapping[str, str], granted: tuple[str, ...]) -> None:
    if form.get("scope") and set(form["scope"].split()) != set(granted):
        raise GrantError("invalid_request", "scope differs from what the user granted")


def _s256(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _is_loopback(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
