"""The fault switchboard: which faults are armed, and which of them a request meets.

A fault has a `kind`, the parameters of that kind, and a scope: `count` (requests), `seconds` or
`until` (simulated time), `endpoint`, `account`, `probability`. What it does stands elsewhere:
`mishaps` spoils single answers, `view` and `oddities` change the world.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUEST = "request"  # spoils one answer; `endpoint` "token" or "authorize" for those two
LOGIN = "login"  # spoils one answer of the token endpoint
PICTURE = "picture"  # spoils one answer of the host of pictures
WORLD = "world"  # changes what is measured or described, for all requests while armed
PUSH = "push"  # spoils one call of a webhook
EVENTS = "events"  # changes what getevents answers, while armed
ACTION = "action"  # happens once, when armed


@dataclass(frozen=True, slots=True)
class Kind:
    """Group and parameters (with defaults) of a kind of fault."""

    group: str
    params: Mapping[str, Any]


def _request(**params: Any) -> Kind:
    return Kind(REQUEST, {"commit": False, **params})


def _token(**params: Any) -> Kind:
    return Kind(LOGIN, {"commit": False, **params})


def _picture(**params: Any) -> Kind:
    return Kind(PICTURE, params)


def _push() -> Kind:
    return Kind(PUSH, {})


def _world(**params: Any) -> Kind:
    return Kind(WORLD, {"module": None, **params})


def _events(**params: Any) -> Kind:
    return Kind(EVENTS, {"module": None, "event": None, **params})


PICTURES = "pictures"
"""The endpoint that stands for all pictures."""
PUSHES = "pushes"
"""The one that stands for all calls of webhooks."""
PORTAL = "legrand:"
"""Before the endpoints of Legrand's portal, which faults of its own kind meet, and no others."""
YEARS_10 = 315_360_000
MIB = 1024 * 1024

HOUSEHOLD: Mapping[str, Kind] = {
    "renamed": _world(name="Renamed"),
    "moved": _world(room=None),  # None: into the next room
    # Every field but the id is of some other kind, by turns.
    "garbled": _world(shift=0),
    "unknown_value": _world(field="monitoring", value="dozing"),
    "lone_room": _world(where="homesdata"),  # the one method that tells of it
    "no_modules": _world(),
    "no_schedules": _world(),
    "odd_status": _world(variant="empty"),  # misfits.status lists them
}
"""World faults of what stands in a home beside its station; `module` may be a room or the home."""

KINDS: Mapping[str, Kind] = {
    # refusals
    "http": _request(status=503, body="html", retry_after=None),
    "throttle": _request(status=429, message="Maximum api usage reached", retry_after=None),
    "concurrency": _request(retry_after=None),
    "error": _request(status=400, code=21, message="Invalid argument"),
    "expired_token": _request(),
    "invalid_token": _request(),
    "no_scope": _request(),
    # Of getpublicdata alone: what stands behind it is away.
    "public_upstream": _request(status=500),
    # Of Legrand's portal: {"statusCode", "message"}.
    "portal": _request(status=500, message="Server error", retry_after=None),
    # the wire
    "cut": _request(commit=True, after=None),
    "stall": _request(commit=True, real_seconds=30.0),
    "slow": _request(commit=True, chunk=16, pause=0.1),
    # bodies
    "huge": _request(size=9 * MIB),
    "gzip_bomb": _request(size=64 * MIB),
    "not_json": _request(),
    "bad_json": _request(variant="nan"),
    "empty": _request(),
    "redirect": _request(status=302, location="/elsewhere"),
    "no_body": _request(commit=True, value=None),
    # the token endpoint
    "token_error": _token(error="invalid_grant", status=400),
    "token_html": _token(),
    "token_list": _token(),
    "token_nulls": _token(),
    "token_missing": _token(fields=["access_token"]),
    "token_soon": _token(),
    "token_expire_in_only": _token(commit=True),
    "token_huge": _token(size=MIB),
    # the host of pictures
    "picture_status": _picture(status=404),
    "picture_slow": _picture(chunk=64, pause=0.1),
    "picture_huge": _picture(size=9 * MIB),
    "picture_html": _picture(),
    "picture_stall": _picture(real_seconds=30.0),
    "picture_redirect": _picture(status=302, location="/elsewhere"),
    # calls of webhooks. A call that comes twice has the same bytes; the others are signed as they
    # are but for the forged one
    "push_lost": _push(),
    "push_twice": _push(),
    "push_forged": _push(),
    "push_huge": _push(),
    "push_not_json": _push(),
    "push_bare": _push(),  # neither user_id nor home_id
    # the world: silence and time. `module` is a module, a station with all behind it, or None for
    # everything; windows are [begin, end) in epoch seconds. Without `begin`: from the beginning for
    # gap and revised, from the arming for late and offline
    "unreachable": _world(code=6),  # of a device: in the errors of homestatus, with all behind it
    "late": _world(hours=6.0, begin=None, end=None),
    # Measured nothing; with both open it never reported at all.
    "gap": _world(begin=None, end=None),
    # No upload; the first one behind it brings all rows, or with buffered=False those of the window
    # are lost, or they come only newest_first_s after the end while fresh ones are seen at once.
    "offline": _world(begin=None, end=None, buffered=True, newest_first_s=0),
    # The corrected value is seen once a row is after_s old.
    "revised": _world(type="Temperature", delta=0.5, begin=None, end=None, after_s=0),
    "future": _world(ahead_s=YEARS_10, where="measure"),
    # the world: descriptions
    "no_name": _world(),
    "missing": _world(keys=["home_id", "station_name"]),
    "ghost": _world(),
    "twice": _world(),
    "unknown_type": _world(type="NAModule9"),
    "unknown_field": _world(field="VOC", value=417),
    "wrong_type": _world(field="CO2", value="high", where="dashboard"),
    "key_injection": _world(),
    "poison": _world(variant="surrogate"),
    "favourite": _world(),
    "read_only": _world(),
    "vanished": _world(),
    **HOUSEHOLD,
    # From `at` on (default: the arming) World.successor stands in the place of a module.
    "replaced": _world(at=None),
    # getevents. `event` is an id; None is the first of an answer, for picture_foreign_host
    # every one. /simulator/expected tells events as they are without these
    "event_garbled": _events(),  # every field but its id
    "event_unknown_type": _events(type="teleported"),
    "picture_foreign_host": _events(host="pictures.example.net"),
    # getpublicdata: a thermometer in the sun, which `filter` leaves out
    "public_outlier": _world(delta=30.0),
    # at once
    "expire_access": Kind(ACTION, {}),
    "revoke": Kind(ACTION, {}),
}

_ONLY = dict.fromkeys(("public_upstream", "public_outlier"), "getpublicdata")
_SCOPE = ("kind", "count", "seconds", "until", "endpoint", "account", "probability")


@dataclass(slots=True)
class Fault:
    """An armed fault; times are simulated epoch seconds."""

    id: int
    kind: str
    params: dict[str, Any]
    armed: float
    count: int | None
    until: float | None
    endpoint: str | None
    account: str | None
    probability: float
    hits: int = 0

    @property
    def group(self) -> str:
        return KINDS[self.kind].group

    def live(self, now: float) -> bool:
        return (self.count is None or self.count > 0) and (self.until is None or now < self.until)

    def meets(self, endpoint: str, account: str | None) -> bool:
        """Whether a request is one this fault is for."""
        if (self.kind == "portal") != endpoint.startswith(PORTAL):
            return False
        return self._here(endpoint.removeprefix(PORTAL)) and self.account in (None, account)

    def _here(self, endpoint: str) -> bool:
        """Without a name, all data methods; logins and pictures only by name or "*"."""
        if self.group == LOGIN:
            return endpoint == "token"
        if self.group == PICTURE:
            return endpoint == PICTURES
        if self.group == PUSH or endpoint == PUSHES:
            return self.group == PUSH and endpoint == PUSHES
        if self.group == EVENTS:
            return endpoint == "getevents"
        if self.endpoint is None:
            return endpoint not in ("token", "authorize", PICTURES)
        return self.endpoint in (endpoint, "*")

    def touches(self, module_id: str, station_id: str) -> bool:
        """Whether it is about this module, or about the station behind it."""
        return self.params["module"] in (None, module_id, station_id)

    def as_json(self) -> dict[str, Any]:
        scope = {name: getattr(self, name) for name in ("id", *_SCOPE, "hits") if name != "seconds"}
        return scope | {"armed": self.armed} | self.params


class Switchboard:
    """All armed faults. `probability` is drawn from the seed, so a run can be repeated."""

    def __init__(self, seed: int) -> None:
        self._faults: list[Fault] = []
        self._next = 1
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def arm(self, spec: Mapping[str, Any], now: float) -> Fault:
        """Arm one fault; raises ValueError with one line when `spec` is not understood."""
        kind = KINDS.get(str(spec.get("kind")))
        if kind is None:
            raise ValueError(f"kind: {spec.get('kind')!r} is none of {', '.join(sorted(KINDS))}")
        unknown = sorted(set(spec) - set(_SCOPE) - set(kind.params))
        if unknown:
            raise ValueError(f"{spec['kind']}: {unknown[0]!r} is none of {', '.join(kind.params)}")
        until = spec.get("until")
        if spec.get("seconds") is not None:
            until = now + float(spec["seconds"])
        fault = Fault(
            id=self._next,
            kind=spec["kind"],
            params={name: spec.get(name, default) for name, default in kind.params.items()},
            armed=now,
            count=None if spec.get("count") is None else int(spec["count"]),
            until=None if until is None else float(until),
            endpoint=spec.get("endpoint", _ONLY.get(spec["kind"])),
            account=spec.get("account"),
            probability=float(spec.get("probability", 1.0)),
        )
        self._next += 1
        if fault.group != ACTION:
            self._faults.append(fault)
        return fault

    def disarm(self, fault_id: int | None = None, kind: str | None = None) -> int:
        """Remove one, a kind, or all; tells how many."""
        before = len(self._faults)
        self._faults = [
            f
            for f in self._faults
            if (fault_id is not None and f.id != fault_id) or (kind is not None and f.kind != kind)
        ]
        return before - len(self._faults)

    def armed(self) -> list[Fault]:
        return list(self._faults)

    def spoiler(self, endpoint: str, account: str | None, now: float) -> Fault | None:
        """The first request fault this request meets; uses up one of its count."""
        for fault in self._faults:
            if fault.group in (REQUEST, LOGIN, PICTURE, PUSH) and self._strikes(
                fault, endpoint, account, now
            ):
                return _use(fault)
        return None

    def world(self, endpoint: str, account: str | None, now: float) -> list[Fault]:
        """The faults of world and events this request meets; uses up one of each count."""
        return [
            _use(fault)
            for fault in self._faults
            if fault.group in (WORLD, EVENTS) and self._strikes(fault, endpoint, account, now)
        ]

    def peek(self, now: float) -> list[Fault]:
        """World faults in force, for whoever asks what is visible; uses up nothing."""
        return [fault for fault in self._faults if fault.group == WORLD and fault.live(now)]

    def _strikes(self, fault: Fault, endpoint: str, account: str | None, now: float) -> bool:
        if not (fault.live(now) and fault.meets(endpoint, account)):
            return False
        return fault.probability >= 1.0 or self._random.random() < fault.probability


def _use(fault: Fault) -> Fault:
    fault.hits += 1
    if fault.count is not None:
        fault.count -= 1
    return fault
