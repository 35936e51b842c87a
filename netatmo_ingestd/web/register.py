"""Keeps the webhook registered at the cloud, for each account; or takes it away.

Registered anew at each start: the cloud suspends an address for a day that did not answer, as one
of a daemon that is down. Looked at every few hours, and registered again when it is gone. One
account's trouble is no other's. Source: netatmo-api 3.12.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netatmo_ingestd import waits
from netatmo_ingestd.client import WEBHOOKS, Client
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ApiError, ApiRefused, ConfigError, IngestError
from netatmo_ingestd.models import Priority
from netatmo_ingestd.polls import Reply
from netatmo_ingestd.settings import WebhookSettings

CHECK_EVERY = timedelta(hours=3)
RETRY_FIRST = timedelta(minutes=5)
_NOT_SERVED = (404, 405)  # the newer form is not there: the older one is asked
_NOTHING_THERE = (404, 405, 406, 409)


# --- the calls ------------------------------------------------------------------------------------


async def registered(client: Client) -> tuple[str, ...] | None:
    """The addresses that the cloud calls for this login; None when it cannot be asked."""
    try:
        body = (await _call(client, "GET")).body
        body = body if isinstance(body, list) else []
    except ApiError as error:
        if error.status in _NOT_SERVED:
            return None
        raise
    told = [each.get("url") for each in body if isinstance(each, dict)]
    return tuple(each for each in told if isinstance(each, str))


async def register(client: Client, url: str) -> None:
    """Let the cloud call `url`, instead of whatever it called. Raises ApiError, LoginRequired."""
    try:
        await _call(client, "POST", url=url)
    except ApiError as error:
        if error.status in _NOT_SERVED:
            await _old(client, "addwebhook", url=url)
            return
        if error.status != 409:
            raise
        await remove(client)
        await _call(client, "POST", url=url)


async def remove(client: Client) -> None:
    """Let the cloud call nothing any more; that it called nothing is fine. Raises as `register`."""
    try:
        await _call(client, "DELETE")
    except ApiError as error:
        if error.status not in _NOTHING_THERE:
            raise
        try:
            await _old(client, "dropwebhook")
        except ApiError as older:
            if older.status not in _NOTHING_THERE:
                raise


async def _call(client: Client, verb: str, **params: str) -> Reply:
    priority = Priority.EVENTS
    return await client.call(
        WEBHOOKS, params, priority=priority, purpose=priority.purpose, verb=verb
    )


async def _old(client: Client, endpoint: str, **params: str) -> None:
    priority = Priority.EVENTS
    await client.call(endpoint, params, priority=priority, purpose=priority.purpose)


@dataclass(frozen=True)
class Calls:
    """How a cloud is told which address to call.

    registered  the addresses it calls, None when it cannot be asked
    remove      takes ours away, which is named
    alone       True when there is one address, which replaces another program's
    every       how often it is looked at
    """

    registered: Callable[[Client], Awaitable[tuple[str, ...] | None]]
    register: Callable[[Client, str], Awaitable[None]]
    remove: Callable[[Client, str], Awaitable[None]]
    alone: bool
    every: timedelta = CHECK_EVERY


async def _remove_any(client: Client, _url: str) -> None:
    await remove(client)


NETATMO_CALLS = Calls(registered, register, _remove_any, alone=True)


# --- what is kept on disk -------------------------------------------------------------------------


def full_url(settings: WebhookSettings, path: str) -> str:
    """The whole address that the cloud calls."""
    return f"{settings.url}/webhook/{path}"


def notices_url(settings: WebhookSettings, path: str) -> str:
    """The whole address that Legrand's portal calls."""
    return f"{settings.url}/legrand/{path}"


def secret_path(state_dir: Path, settings: WebhookSettings) -> str:
    """The secret part of the address: as configured, else one that is made once and kept."""
    if configured := settings.path.get_secret_value():
        return configured
    file = state_dir / "webhook.path"
    found = _read(file)
    if len(found) < 16:
        found = secrets.token_urlsafe(24)
        _write(file, found)
    return found


class Registered:
    """Which address was registered for an account, beside its login: for when it is to go."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "webhook.url"

    def url(self) -> str:
        return _read(self._file)

    def note(self, url: str) -> None:
        _write(self._file, url)

    def forget(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(file.name + ".next")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, f"{text}\n".encode())
        finally:
            os.close(fd)
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror}); make the state folder writable"
        ) from error


# --- keeping it so --------------------------------------------------------------------------------


@dataclass
class Standing:
    """How it stands with one account; `checked` in epoch seconds."""

    registered: bool = False
    error: str = ""
    checked: float | None = None


class Registrar:
    """Keeps `url` registered for all `clients`; "" takes away what an earlier run registered.

    calls  how their cloud is told
    """

    def __init__(
        self,
        *,
        url: str,
        clients: Mapping[str, Client],
        folders: Mapping[str, Path],
        clock: Clock,
        log: Any,
        calls: Calls = NETATMO_CALLS,
    ) -> None:
        self._calls = calls
        self.standing = {name: Standing() for name in clients}
        self._url = url
        self._clients = dict(clients)
        self._kept = {name: Registered(folder) for name, folder in folders.items()}
        self._clock = clock
        self._log = log
        self._look = {name: asyncio.Event() for name in clients}

    def look(self) -> None:
        """Look at all of them now: the cloud says that it calls no more."""
        for event in self._look.values():
            event.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; a call on its way is dropped then, the next start registers anew."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._keep(name, stop)) for name in self._clients]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _keep(self, name: str, stop: asyncio.Event) -> None:
        failures, fresh = 0, True
        while not stop.is_set():
            self._look[name].clear()
            try:
                if not await self._stand(name, fresh=fresh):
                    return
            except IngestError as error:
                self._failed(name, error)
                wait = min(RETRY_FIRST * 2 ** min(failures, 10), CHECK_EVERY)
                failures += 1
            else:
                failures, fresh, wait = 0, False, self._calls.every
            limit = self._clock.real_seconds(wait.total_seconds())
            await waits.first(stop.wait(), self._look[name].wait(), limit=limit)

    async def _stand(self, name: str, *, fresh: bool) -> bool:
        """Make it so; False when nothing is left to do."""
        client, kept = self._clients[name], self._kept[name]
        if not self._url:
            if kept.url():
                await self._calls.remove(client, kept.url())
                kept.forget()
                self._log.info("webhook.removed", account=name)
            return False
        there = await self._calls.registered(client)
        if fresh or there is None or self._url not in there:
            foreign = set(there or ()) - {self._url, kept.url()}
            if foreign and self._calls.alone:
                hosts = sorted(urlsplit(each).hostname or "?" for each in foreign)
                self._log.warning("webhook.replaced", account=name, hosts=hosts)
            if there and self._calls.alone:
                await self._calls.remove(client, self._url)
            elif not self._calls.alone and kept.url() not in ("", self._url):
                await self._calls.remove(client, kept.url())
            await self._calls.register(client, self._url)
            kept.note(self._url)
            if not self.standing[name].registered or there is not None:
                again = self.standing[name].registered
                self._log.info("webhook.registered", account=name, again=again)
        self.standing[name] = Standing(registered=True, checked=self._clock.time())
        return True

    def _failed(self, name: str, error: IngestError) -> None:
        """Told once for each reason; polling goes on without."""
        text = str(error)
        if isinstance(error, ApiRefused) and error.code == 21:
            text += "; the cloud must be able to reach [webhook] url"
        before = self.standing[name]
        self.standing[name] = Standing(error=text, checked=self._clock.time())
        if before.error != text:
            self._log.error("webhook.failed", account=name, error=text)
