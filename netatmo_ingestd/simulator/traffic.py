"""What was asked of the cloud: the quotas of netatmo-api 6, and counts to test a client by."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from netatmo_ingestd.simulator.answers import CallError

HOUR = 3600


@dataclass(slots=True)
class Limits:
    """Calls allowed in sliding windows of simulated time.

    app_burst  also hold an application to min(200, 2 * users) calls in 10 s
    parallel   calls of one account at a time before 429 code 11, None for any number
    style      "429": code 26 "Maximum api usage reached"; "403": which quota is told
    """

    account_10s: int = 50
    account_hour: int = 500
    app_hour: int = 2000
    app_burst: bool = False
    parallel: int | None = None
    style: str = "429"


class Window:
    """How many calls the last `seconds` saw; refused ones count."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()
        self.most = 0

    def count(self, now: float) -> int:
        times = self._times
        times.append(now)
        while times[0] <= now - self._seconds:
            times.popleft()
        self.most = max(self.most, len(times))
        return len(times)


class Quotas:
    """Windows per (application, account) and per application."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.over_limit = 0
        self._windows: dict[tuple[str, str, int], Window] = {}
        self._users: dict[str, set[str]] = {}

    def spend(self, app: str, user: str, now: float) -> None:
        """Count one call; raises the refusal when it is above a limit."""
        self._users.setdefault(app, set()).add(user)
        counts = {
            (name, seconds): self._window(app, name, seconds).count(now)
            for name in (user, "")
            for seconds in (10, HOUR)
        }
        limits = self.limits
        burst = min(200, 2 * len(self._users[app])) if limits.app_burst else None
        if counts[user, 10] > limits.account_10s or counts[user, HOUR] > limits.account_hour:
            self._refuse("User usage reached")
        if counts["", HOUR] > limits.app_hour or (burst and counts["", 10] > burst):
            self._refuse("Application usage reached")

    def as_json(self) -> dict[str, Any]:
        """The fullest each window has been."""
        names = {10: "10s", HOUR: "hour"}
        most: dict[str, dict[str, int]] = {}
        for (app, user, seconds), window in self._windows.items():
            key = f"{app}|{user}" if user else app
            most.setdefault(key, {})[names[seconds]] = window.most
        return most

    def _window(self, app: str, user: str, seconds: int) -> Window:
        return self._windows.setdefault((app, user, seconds), Window(seconds))

    def _refuse(self, which: str) -> None:
        self.over_limit += 1
        if self.limits.style == "403":
            raise CallError(403, 26, which)
        raise CallError(429, 26, "Maximum api usage reached")


@dataclass(slots=True)
class Traffic:
    """Counts since the start.

    followed    requests that came after a redirect, `leaked` those that brought a bearer token
    high_water  most requests that were under way at once
    """

    total: int = 0
    endpoint: Counter[str] = field(default_factory=Counter)
    purpose: Counter[str] = field(default_factory=Counter)
    account: Counter[str] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    followed: int = 0
    leaked: int = 0
    busiest_hour: int = 0
    running: int = 0
    high_water: int = 0
    _by_account: Counter[str] = field(default_factory=Counter)
    _hour: tuple[int, int] = (0, 0)

    def enter(self, endpoint: str, purpose: str, now: float) -> None:
        """A request arrives at `endpoint`; "token" and "authorize" are endpoints too."""
        self.total += 1
        self.endpoint[endpoint] += 1
        if purpose:
            self.purpose[purpose] += 1
        hour, count = self._hour
        self._hour = (int(now) // HOUR, count + 1 if hour == int(now) // HOUR else 1)
        self.busiest_hour = max(self.busiest_hour, self._hour[1])
        self.running += 1
        self.high_water = max(self.high_water, self.running)

    def claim(self, user: str) -> int:
        """The request turns out to be of this account; tells how many of its are under way."""
        self.account[user] += 1
        self._by_account[user] += 1
        return self._by_account[user]

    def leave(self, status: int, user: str) -> None:
        """Its answer is over; status 0 when none was sent."""
        self.status[str(status)] += 1
        self.running -= 1
        if user:
            self._by_account[user] -= 1

    def refuse(self, refused: CallError) -> None:
        self.refused[f"{refused.status}/{refused.code}"] += 1

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.total,
            "by_endpoint": dict(self.endpoint),
            "by_purpose": dict(self.purpose),
            "by_account": dict(self.account),
            "by_status": dict(self.status),
            "refused": dict(self.refused),
            "rows": self.rows,
            "redirects_followed": self.followed,
            "tokens_leaked": self.leaked,
            "busiest_hour": self.busiest_hour,
            "running": self.running,
            "high_water": self.high_water,
        }
