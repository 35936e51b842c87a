"""Token pairs in memory, and three ways to rotate them (netatmo-api 1.3)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from netatmo_ingestd.simulator.answers import CallError

ACCESS_LIFE_S = 10_800
_FORGET_S = 86_400


@dataclass(frozen=True, slots=True)
class App:
    """A registered application."""

    client_id: str
    client_secret: str
    redirect_uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """A user.

    user_id  24 hex digits, the first half of its tokens
    owns     ids of its own stations
    invited  ids of stations it only sees (`read_only`)
    coaches  ids of its own air quality monitors
    scopes   of what else its homes have
    """

    user: str
    password: str
    user_id: str
    owns: tuple[str, ...]
    invited: tuple[str, ...] = ()
    coaches: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Session:
    """One consent: an app may act for an account within `scopes`.

    access   access token to the time it expires
    refresh  refresh token to the time it dies, None for the current one
    """

    app: App
    account: Account
    scopes: tuple[str, ...]
    access: dict[str, float] = field(default_factory=dict)
    refresh: dict[str, float | None] = field(default_factory=dict)

    def fresh(self) -> str:
        return f"{self.account.user_id}|{secrets.token_hex(16)}"


class Sessions:
    """Every token that was given out.

    rotation  "strict": a refresh kills the former pair; "never": the refresh token stays;
              "grace:SECONDS": the former pair lives on that long
    """

    def __init__(self, rotation: str = "strict") -> None:
        self._sessions: list[Session] = []
        self._expired: dict[str, float] = {}
        self._grace: float | None = 0.0
        self.rotation = ""
        self.rotate(rotation)

    def rotate(self, mode: str) -> None:
        """Change the rotation mode; raises ValueError for an unknown one."""
        name, _, seconds = mode.partition(":")
        if name == "grace" and seconds.isdigit():
            self._grace = float(seconds)
        elif mode in ("strict", "never"):
            self._grace = 0.0 if mode == "strict" else None
        else:
            raise ValueError(f"rotation: {mode!r} is none of strict, never, grace:SECONDS")
        self.rotation = mode

    def open(self, app: App, account: Account, scopes: tuple[str, ...]) -> Session:
        session = Session(app, account, scopes)
        self._sessions.append(session)
        return session

    def first_pair(self, session: Session, now: float) -> tuple[str, str]:
        """(access, refresh) of a new consent."""
        access, refresh = session.fresh(), session.fresh()
        session.refresh[refresh] = None
        session.access[access] = now + ACCESS_LIFE_S
        return access, refresh

    def next_pair(self, session: Session, used: str, now: float) -> tuple[str, str]:
        """(access, refresh) in exchange for the refresh token `used`."""
        if self._grace is not None:
            _retire(session, now, self._grace)
        self._forget(session, now)
        if self._grace is not None:
            return self.first_pair(session, now)
        access = session.fresh()
        session.access[access] = now + ACCESS_LIFE_S
        return access, used

    def by_access(self, token: str, now: float) -> Session:
        """The session of a bearer token, or the refusal of section 5.1."""
        if not token:
            raise CallError(403, 1, "Access token is missing")
        session = next((s for s in self._sessions if token in s.access), None)
        if session is None and token not in self._expired:
            raise CallError(403, 2, "Invalid access token")
        if session is None or session.access[token] <= now:
            raise CallError(403, 3, "Access token expired")
        return session

    def by_refresh(self, token: str) -> Session | None:
        """The session that was ever given this refresh token, alive or not."""
        return next((s for s in self._sessions if token in s.refresh), None)

    def accepted(self, refresh_token: str, now: float) -> bool:
        """Whether a refresh with this token would succeed; nothing is used up."""
        session = self.by_refresh(refresh_token)
        return session is not None and _alive(session.refresh[refresh_token], now)

    def expire_access(self, user: str | None, now: float) -> None:
        """Access tokens end early, refresh tokens stay."""
        for session in list(self._of(user)):
            self._expired.update(dict.fromkeys(session.access, now))
            session.access.clear()

    def revoke(self, user: str | None) -> None:
        """The user withdraws the app or changes the password: all tokens die."""
        for session in list(self._of(user)):
            self._sessions.remove(session)

    def current(self, user: str, now: float) -> list[str]:
        """Refresh tokens of an account that would be accepted now."""
        tokens = (item for session in self._of(user) for item in session.refresh.items())
        return [token for token, dies in tokens if _alive(dies, now)]

    def _of(self, user: str | None) -> Iterator[Session]:
        return (s for s in self._sessions if user is None or s.account.user == user)

    def _forget(self, session: Session, now: float) -> None:
        """Drop what died more than a day ago: years of refreshes keep the memory flat."""
        for token, dies in list(session.refresh.items()):
            if dies is not None and dies + _FORGET_S < now:
                del session.refresh[token]
        for known in (session.access, self._expired):
            for token in [token for token, end in known.items() if end + _FORGET_S < now]:
                del known[token]


def _alive(dies: float | None, now: float) -> bool:
    return dies is None or now < dies


def _retire(session: Session, now: float, grace: float) -> None:
    """Former tokens die after `grace` seconds; without grace the access token is gone at once."""
    for token, dies in session.refresh.items():
        session.refresh[token] = now + grace if dies is None else min(dies, now + grace)
    if not grace:
        session.access.clear()
    for token, expires in session.access.items():
        session.access[token] = min(expires, now + grace)
