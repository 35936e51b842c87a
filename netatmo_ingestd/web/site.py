"""What the daemon's web server consists of; `[web] listen` opens it, each part adds its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from starlette.routing import BaseRoute

from netatmo_ingestd import logs
from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.build import Parts
from netatmo_ingestd.providers import LEGRAND, NETATMO
from netatmo_ingestd.settings import Settings
from netatmo_ingestd.sources.smarther import SMARTHER
from netatmo_ingestd.tokenfile import token_folder
from netatmo_ingestd.web.notices import PORTAL_CALLS, Notices
from netatmo_ingestd.web.pushes import Hints, Homes
from netatmo_ingestd.web.register import (
    NETATMO_CALLS,
    Registrar,
    full_url,
    notices_url,
    secret_path,
)
from netatmo_ingestd.web.server import serving
from netatmo_ingestd.web.webhook import Webhook


@dataclass(frozen=True)
class Site:
    """Everything that is served; `port` is None while nothing listens."""

    registrars: tuple[Registrar, ...]
    webhook: Webhook | None
    notices: Notices | None
    port: int | None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as group:
            for registrar in self.registrars:
                group.create_task(registrar.run(stop))

    def status(self) -> dict[str, Any] | None:
        """For `status`: whether each account's webhook stands, and what came in."""
        if self.webhook is None or self.notices is None:
            return None
        standing = {name: each for one in self.registrars for name, each in one.standing.items()}
        return {
            "accounts": {name: asdict(each) for name, each in standing.items()},
            "counters": asdict(self.webhook.counters),
            "notices": asdict(self.notices.counters),
            "hints": self.webhook.hints.given,
        }


@asynccontextmanager
async def open_site(parts: Parts) -> AsyncIterator[Site]:
    """Listen as the settings say. Raises Busy or ConfigError when the address cannot be had."""
    settings, accounts = parts.settings, parts.poller.accounts
    hooked = bool(settings.webhook.url)
    path = secret_path(settings.state_dir, settings.webhook) if hooked else ""
    url = full_url(settings.webhook, path) if hooked else ""
    logs.REDACTOR.protect("webhook", [path])
    ours = {NETATMO.name: url, LEGRAND.name: notices_url(settings.webhook, path) if url else ""}
    registrars = tuple(
        Registrar(
            url=ours[provider],
            clients={name: accounts[name].client for name in names},
            folders={name: token_folder(settings.state_dir, name) for name in names},
            clock=parts.clock,
            log=logs.logger(),
            calls=calls,
        )
        for provider, calls in ((NETATMO.name, NETATMO_CALLS), (LEGRAND.name, PORTAL_CALLS))
        if (names := _hooked(settings, provider))
    )
    if not settings.web.listen:
        yield Site(registrars, None, None, None)
        return
    hints = Hints(parts.poller.hint, parts.clock)
    webhook = _webhook(parts, path, registrars, hints) if hooked else None
    notices = _notices(parts, path, hints) if hooked else None
    routes: list[BaseRoute] = [each.route() for each in (webhook, notices) if each]
    async with serving(settings.web.address, routes) as port:
        site = Site(registrars, webhook, notices, port)
        parts.reporter.more["webhook"] = site.status
        try:
            yield site
        finally:
            hints.close()


def _hooked(settings: Settings, provider: str) -> tuple[str, ...]:
    """Accounts that may be called for; of Legrand those with thermostats."""
    return tuple(
        account.name
        for account in settings.accounts
        if account.provider == provider
        and (provider == NETATMO.name or SMARTHER.name in account.products)
    )


def _webhook(parts: Parts, path: str, registrars: tuple[Registrar, ...], hints: Hints) -> Webhook:
    accounts = parts.poller.accounts

    def look() -> None:
        for registrar in registrars:
            registrar.look()

    return Webhook(
        path=path,
        secrets=_secrets(parts.settings),
        homes=lambda name: homes_of(accounts[name]),
        hints=hints,
        clock=parts.clock,
        log=logs.logger(),
        on_ended=look,
    )


def _notices(parts: Parts, path: str, hints: Hints) -> Notices:
    accounts = parts.poller.accounts
    names = _hooked(parts.settings, LEGRAND.name)
    return Notices(
        path=path,
        homes={name: partial(homes_of, accounts[name]) for name in names},
        hints=hints,
        clock=parts.clock,
    )


def _secrets(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Client secret to the accounts of that app."""
    found: dict[str, tuple[str, ...]] = {}
    for account in settings.accounts:
        if account.provider != NETATMO.name:
            continue  # Legrand signs nothing
        secret = settings.app_of(account).client_secret.get_secret_value()
        found[secret] = (*found.get(secret, ()), account.name)
    return found


def homes_of(account: AccountPolls) -> Homes:
    """What `account` knows of its homes by now."""
    entities = account.intake.entities(account.name)
    home_of = {entity_id: each.home_id for entity_id, each in entities.items() if each.home_id}
    return Homes(frozenset(home_of.values()), home_of)
