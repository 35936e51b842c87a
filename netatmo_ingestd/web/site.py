"""What the daemon's web server consists of; `[web] listen` opens it, each part adds its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from starlette.routing import BaseRoute

from netatmo_ingestd import logs
from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.build import Parts
from netatmo_ingestd.settings import Settings
from netatmo_ingestd.tokenfile import token_folder
from netatmo_ingestd.web.pushes import Hints, Homes
from netatmo_ingestd.web.register import Registrar, full_url, secret_path
from netatmo_ingestd.web.server import serving
from netatmo_ingestd.web.webhook import Webhook


@dataclass(frozen=True)
class Site:
    """Everything that is served; `port` is None while nothing listens."""

    registrar: Registrar
    webhook: Webhook | None
    port: int | None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        await self.registrar.run(stop)

    def status(self) -> dict[str, Any] | None:
        """For `status`: whether each account's webhook stands, and what came in."""
        if self.webhook is None:
            return None
        return {
            "accounts": {name: asdict(each) for name, each in self.registrar.standing.items()},
            "counters": asdict(self.webhook.counters),
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
    registrar = Registrar(
        url=url,
        clients={name: each.client for name, each in accounts.items()},
        folders={name: token_folder(settings.state_dir, name) for name in accounts},
        clock=parts.clock,
        log=logs.logger(),
    )
    webhook = _webhook(parts, path, registrar) if hooked else None
    routes: list[BaseRoute] = [webhook.route()] if webhook else []
    if not settings.web.listen:
        yield Site(registrar, None, None)
        return
    async with serving(settings.web.address, routes) as port:
        site = Site(registrar, webhook, port)
        parts.reporter.more["webhook"] = site.status
        try:
            yield site
        finally:
            if webhook:
                webhook.hints.close()


def _webhook(parts: Parts, path: str, registrar: Registrar) -> Webhook:
    accounts = parts.poller.accounts
    return Webhook(
        path=path,
        secrets=_secrets(parts.settings),
        homes=lambda name: homes_of(accounts[name]),
        hints=Hints(parts.poller.hint, parts.clock),
        clock=parts.clock,
        log=logs.logger(),
        on_ended=registrar.look,
    )


def _secrets(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Client secret to the accounts of that app."""
    found: dict[str, tuple[str, ...]] = {}
    for account in settings.accounts:
        secret = settings.app_of(account).client_secret.get_secret_value()
        found[secret] = (*found.get(secret, ()), account.name)
    return found


def homes_of(account: AccountPolls) -> Homes:
    """What `account` knows of its homes by now."""
    entities = account.intake.entities(account.name)
    home_of = {entity_id: each.home_id for entity_id, each in entities.items() if each.home_id}
    return Homes(frozenset(home_of.values()), home_of)
