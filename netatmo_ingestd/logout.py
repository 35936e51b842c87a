"""The end of a login: the cloud calls us no more, and the token file goes. What is stored stays."""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console

from netatmo_ingestd import build, terminal
from netatmo_ingestd.client import open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ConfigError, IngestError
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.process import forbid_dumps, state_folder
from netatmo_ingestd.providers import LEGRAND, NETATMO
from netatmo_ingestd.settings import AccountSettings, Settings
from netatmo_ingestd.tokenfile import TokenFile, token_folder, token_lock
from netatmo_ingestd.web.notices import PORTAL_CALLS
from netatmo_ingestd.web.register import NETATMO_CALLS, Registered

WEBHOOK_LIMIT_S = 60.0
WITHDRAWN = {
    NETATMO.name: "at home.netatmo.com, under third-party apps",
    LEGRAND.name: "in your Legrand account",
}


async def log_out(
    settings: Settings, account: AccountSettings, out: Console, *, sure: bool = False
) -> int:
    """Remove webhook and token of `account`; asks first unless `sure`. Exit code 0, 1 if told no.

    A webhook that cannot be removed is no reason to stay: the cloud gives it up by itself.
    Raises ConfigError when nobody can be asked, or a file cannot be removed
    """
    forbid_dumps()

    def say(text: str) -> None:
        out.print(REDACTOR.clean(text), soft_wrap=True, markup=False)

    folder = token_folder(settings.state_dir, account.name)
    file, kept = TokenFile(folder / "token.json"), Registered(folder)
    if not file.is_there():
        say(f"Account {account.name} is not logged in.")
        return 0
    if not sure and not _agreed(account.name):
        say("Nothing was changed.")
        return 1
    if url := kept.url():
        REDACTOR.protect("webhook", [url, url.rpartition("/")[2]])
        try:
            async with asyncio.timeout(WEBHOOK_LIMIT_S):
                await _remove_webhook(settings, account, url)
            say("The webhook is removed.")
        except (IngestError, TimeoutError) as error:
            why = str(error) or f"no answer in {WEBHOOK_LIMIT_S:g} s"
            say(f"The webhook could not be removed ({why}); it ends when nobody answers it.")
        kept.forget()
    async with token_lock(folder):
        file.remove()
    say(
        f"Account {account.name} is logged out here; a running daemon notices by itself. The app's "
        f"access can be withdrawn {WITHDRAWN[account.provider]}."
    )
    return 0


def _agreed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("logout: asks first, and nobody is there to answer; add --yes")
    answer = terminal.ask(f"Forget the login of account {name}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


async def _remove_webhook(settings: Settings, account: AccountSettings, url: str) -> None:
    clock = Clock(settings.clock.origin, settings.clock.speed)
    with state_folder(settings.state_dir, exclusive=False):
        budget = build.open_budget(settings, account, clock)
    async with open_http() as http:
        tokens, client = build.open_login(settings, account, http, clock, budget)
        async with tokens:
            calls = PORTAL_CALLS if client.provider.bare else NETATMO_CALLS
            await calls.remove(client, url)
