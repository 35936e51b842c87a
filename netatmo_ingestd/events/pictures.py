"""Fetches a picture of an event: one address gives bytes, or the reason why not.

An address inside an answer is data of somebody else. So: only hosts that are named, exactly these;
https, but for a loopback host that the owner named; no token, no redirects, no proxy; what the name
resolves to is public; a bound on bytes and time. The address itself is a key to the picture for
some minutes and stands in no message.

These are no API calls, and not counted by the budget; four are under way at a time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from netatmo_ingestd.bodies import TooLarge, one_line, read_body
from netatmo_ingestd.client import FOREIGN
from netatmo_ingestd.providers import is_loopback

AT_ONCE = 4
PICTURE_MAX = 8 << 20  # bytes
LIMIT_S = 30.0  # real time, from connecting to the last byte
TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=5.0, pool=30.0)
_FAILED = tuple(FOREIGN)
# What another try may cure; an address that is refused stays so.
_PASSING = {408, 425, 429}
_EXPIRED = {401, 403, 404, 410}

Resolve = Callable[[str], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class Image:
    content: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True)
class NoImage:
    """Why there is none.

    final    asking the same again would not help
    expired  perhaps because the address was too old: a fresh one may do
    """

    reason: str
    final: bool
    expired: bool = False


async def resolve(host: str) -> Collection[str]:
    """The addresses of `host`; OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return {str(each[4][0]) for each in found}


class Pictures:
    """Fetches pictures for all accounts.

    hosts  the only ones that are asked
    """

    def __init__(
        self, http: httpx.AsyncClient, hosts: Collection[str], log: Any, resolve: Resolve = resolve
    ) -> None:
        self._http = http
        self._hosts = frozenset(hosts)
        self._log = log
        self._resolve = resolve
        self._places = asyncio.Semaphore(AT_ONCE)
        self._refused: set[str] = set()

    async def fetch(self, address: str) -> Image | NoImage:
        """The picture at `address`; never raises for what comes from outside."""
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            return NoImage("no address", final=True)
        if refused := self._refuse(url):
            return refused
        async with self._places:
            try:
                async with asyncio.timeout(LIMIT_S):
                    return await self._resolved(url) or await self._get(url)
            except TimeoutError:
                return NoImage(f"no whole picture within {LIMIT_S:g} s", final=False)
            except _FAILED as error:
                seen = next(FOREIGN[kind][1] for kind in type(error).mro() if kind in FOREIGN)
                return NoImage(seen, final=False)

    def _refuse(self, url: httpx.URL) -> NoImage | None:
        host = url.host.lower()
        if not host:
            return NoImage("no address", final=True)
        if host not in self._hosts:
            if host not in self._refused and len(self._refused) < 100:
                self._refused.add(host)
                self._log.warning("picture.refused_host", host=one_line(host))
            return NoImage("host not allowed", final=True)
        if is_loopback(host):
            safe = url.scheme in ("http", "https")
        else:
            safe = url.scheme == "https" and url.port in (None, 443)
        if not safe or url.userinfo:
            return NoImage("address not allowed", final=True)
        return None

    async def _resolved(self, url: httpx.URL) -> NoImage | None:
        """None when the host stands in the public network; a name may lead anywhere."""
        if is_loopback(url.host):
            return None
        found = await self._resolve(url.host)
        if found and all(ipaddress.ip_address(each.partition("%")[0]).is_global for each in found):
            return None
        return NoImage("host is not public", final=False)

    async def _get(self, url: httpx.URL) -> Image | NoImage:
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        request = self._http.build_request("GET", url, headers=headers, timeout=TIMEOUT)
        response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
        async with aclosing(response):
            status = response.status_code
            if status != 200:
                passing = status >= 500 or status in _PASSING
                return NoImage(f"HTTP {status}", final=not passing, expired=status in _EXPIRED)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if not kind.startswith("image/") or len(kind) > 64:
                return NoImage(f"no image but {one_line(kind[:64]) or 'nothing named'}", final=True)
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > PICTURE_MAX:
                return NoImage("too large", final=True)
            try:
                content = await read_body(response, PICTURE_MAX)
            except TooLarge:
                return NoImage("too large", final=True)
            except ValueError as error:
                return NoImage(f"unreadable: {error}", final=False)
        return Image(content, kind) if content else NoImage("empty", final=False)
