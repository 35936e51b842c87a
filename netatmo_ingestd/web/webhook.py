"""Where Netatmo calls: `POST /webhook/<path>`, signed with the client secret of the app.

A call that is not Netatmo's, or not for us, does nothing. A good one is answered at once and
becomes a hint (`pushes`). Only counters are kept of any of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from netatmo_ingestd.bodies import read_json
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.web.pushes import (
    APART,
    DEVICE_EVENTS_APART,
    Hints,
    Homes,
    hints_of,
)

BODY_MAX = 64 * 1024
BODY_LIMIT_S = 10.0  # real time for all of it
REPLAYED_WITHIN = timedelta(minutes=10)  # later the same may have happened again
_MOST_DIGESTS = 10_000
_SIGNATURE = re.compile(r"[0-9a-fA-F]{64}")


@dataclass
class Counters:
    """What came in; `last` is the time of the last good one (epoch seconds)."""

    good: int = 0
    replayed: int = 0
    refused: int = 0
    oversized: int = 0
    malformed: int = 0
    last: float | None = None
    activated: float | None = None


@dataclass(kw_only=True)
class Webhook:
    """Answers the calls of Netatmo.

    path      the secret part of the address
    secrets   client secret of an app to the names of its accounts
    homes     what an account knows of its homes
    hints     where a good push leads to
    on_ended  called when the cloud says that it calls no more
    """

    path: str = field(repr=False)
    secrets: Mapping[str, tuple[str, ...]] = field(repr=False)
    homes: Callable[[str], Homes]
    hints: Hints
    clock: Clock
    log: Any
    on_ended: Callable[[], None] = lambda: None
    counters: Counters = field(default_factory=Counters)
    _seen: OrderedDict[bytes, float] = field(default_factory=OrderedDict)

    def route(self) -> Route:
        return Route("/webhook/{path}", self.answer, methods=["POST"])

    async def answer(self, request: Request) -> Response:
        """One call: 404 elsewhere, 413 too large, 403 not signed, 400 no JSON object, else 200."""
        body = await received(request, self.path, self.counters)
        if isinstance(body, Response):
            return body
        accounts = self._signed_by(body, request.headers.get("X-Netatmo-secret", ""))
        if not accounts:
            self._refuse()
            return Response(status_code=403)
        try:
            push = read_json(body)
        except ValueError:
            push = None
        if not isinstance(push, dict):
            self.counters.malformed += 1
            return Response(status_code=400)
        if self._is_replayed(body):
            self.counters.replayed += 1
        else:
            self._take(push, accounts)
        return Response(status_code=200)

    def _signed_by(self, body: bytes, signature: str) -> tuple[str, ...]:
        """The accounts of the app whose secret signed `body`; each is tried, so none is told."""
        if not _SIGNATURE.fullmatch(signature):
            return ()
        found: tuple[str, ...] = ()
        for secret, accounts in self.secrets.items():
            expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            if hmac.compare_digest(expected, signature.lower()):
                found = (*found, *accounts)
        return found

    def _refuse(self) -> None:
        """Anybody can send garbage: told once, and counted."""
        self.counters.refused += 1
        if self.counters.refused == 1:
            self.log.warning("webhook.refused", reason="its signature is not of an app of ours")

    def _is_replayed(self, body: bytes) -> bool:
        """True when the same bytes came a short while ago; only good ones are remembered."""
        now, digest = self.clock.monotonic(), hashlib.sha256(body).digest()
        seen = self._seen.get(digest)
        if seen is not None and now - seen < REPLAYED_WITHIN.total_seconds():
            return True
        self._seen.pop(digest, None)
        self._seen[digest] = now
        while len(self._seen) > _MOST_DIGESTS:
            self._seen.popitem(last=False)
        return False

    def _take(self, push: Mapping[str, Any], accounts: tuple[str, ...]) -> None:
        self.counters.good += 1
        self.counters.last = self.clock.time()
        kind = push.get("push_type")
        if kind == "webhook_activation":
            self.counters.activated = self.counters.last
            self.log.info("webhook.activated")
        elif kind == "webhook_deactivation":
            self.on_ended()
        apart = DEVICE_EVENTS_APART if kind == "device_event" else APART
        for account, endpoint, home_id in hints_of(
            push, {name: self.homes(name) for name in accounts}
        ):
            self.hints.take(account, endpoint, home_id, apart)


async def received(request: Request, path: str, counters: Counters) -> bytes | Response:
    """The body of a call that is for us; else what to answer: 404, 408 too slow, 413 too large."""
    given = request.path_params["path"].encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(given, path.encode()):
        return Response(status_code=404)
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            body = await _body(request)
    except (TimeoutError, ClientDisconnect):
        counters.malformed += 1
        return Response(status_code=408)
    if body is None:
        counters.oversized += 1
        return Response(status_code=413, headers={"Connection": "close"})
    return body


async def _body(request: Request) -> bytes | None:
    """The raw body; None when it is too large, which is known as soon as possible."""
    length = request.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and (len(length) > 9 or int(length) > BODY_MAX):
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            return None
    return bytes(body)
