"""The commands `login` and `logout`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from netatmo_ingestd import logout, terminal
from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.providers import SCOPES
from netatmo_ingestd.settings import nearest
from netatmo_ingestd.startup import ConfigFile, run, settings_of

out = Console(highlight=False)
AccountName = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Which account.")
]


def log_in(
    config: ConfigFile = None,
    account: AccountName = None,
    paste: Annotated[
        bool, typer.Option("--paste", help="Paste the address of the page that failed to load.")
    ] = False,
    refresh_token_stdin: Annotated[
        bool,
        typer.Option("--refresh-token-stdin", help="Read a refresh token from standard input."),
    ] = False,
    password: Annotated[
        bool, typer.Option("--password", help="User name and password, for servers that take it.")
    ] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="PRODUCT", help="Ask for this product too; may be repeated."),
    ] = None,
) -> None:
    """Log in once; a running daemon picks the login up by itself.

    \b
    Examples:
      netatmo-ingestd login                         open the printed address in a browser
      netatmo-ingestd login --paste                 the browser is on another machine
      netatmo-ingestd login --refresh-token-stdin < token.txt
      netatmo-ingestd login --add energy            the same login, and what a product needs
    """
    if paste + refresh_token_stdin + password > 1:
        raise ConfigError("login: choose one of --paste, --refresh-token-stdin, --password")
    for product in add or ():
        if product not in SCOPES:
            known, near = ", ".join(SCOPES), nearest(product, SCOPES)
            raise ConfigError(f'login: --add "{product}" is no product; known: {known}{near}')
    settings = settings_of(config)
    chosen = settings.find_account(account)
    provider = settings.provider(chosen.provider)
    for product in add or ():
        if product not in provider.scopes:
            known = ", ".join(provider.scopes)
            raise ConfigError(
                f'login: --add "{product}" is none of {provider.name}, whose account '
                f"{chosen.name} is; known: {known}"
            )
    way = "paste" if paste else "token" if refresh_token_stdin else "password" if password else ""
    raise typer.Exit(run(terminal.log_in(settings, chosen.name, way, out, tuple(add or ()))))


def log_out(
    config: ConfigFile = None,
    account: AccountName = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a login, and let the cloud call us no more for it. What is stored stays.

    \b
    Example:
      netatmo-ingestd logout --account home
    """
    settings = settings_of(config)
    chosen = settings.find_account(account)
    raise typer.Exit(run(logout.log_out(settings, chosen, out, sure=yes)))
