"""What every command begins with: settings, logs and redaction; and how it fails, in one line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

import typer

from netatmo_ingestd import logs
from netatmo_ingestd.config import load
from netatmo_ingestd.settings import Settings

_T = TypeVar("_T")
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings. Default: $NETATMO_INGESTD_CONFIG, ./config.toml, "
        "/etc/netatmo-ingestd/config.toml.",
    ),
]
_PLACES = (Path("config.toml"), Path("/etc/netatmo-ingestd/config.toml"))


def fail(message: str, code: int) -> NoReturn:
    """One line: what, where, what to do."""
    complain(message)
    raise SystemExit(code)


def complain(message: str) -> None:
    """One line on standard error, without secrets."""
    line = " ".join(logs.REDACTOR.clean(message).split())
    print(f"netatmo-ingestd: {line}", file=sys.stderr)  # noqa: T201


def config_file(path: Path | None) -> Path | None:
    """The settings file: `path` itself, else the one of the environment, else of a usual place."""
    named = os.environ.get("NETATMO_INGESTD_CONFIG")
    if path is None and named:
        return Path(named)
    return path or next((place for place in _PLACES if _is_there(place)), None)


def settings_of(path: Path | None) -> Settings:
    """The settings that `path` and the environment give; logs and redaction are set up by them."""
    settings = load(config_file(path))
    logs.setup(settings.log.level, settings.log.format)
    apps = (*settings.accounts, *settings.apps.values())
    logs.REDACTOR.protect("conf", [each.client_secret.get_secret_value() for each in apps])
    uri = settings.store.uri.get_secret_value()
    password = urlsplit(uri).password or ""
    logs.REDACTOR.protect("conf:store", [password, unquote(password)])
    return settings


def _is_there(place: Path) -> bool:
    """True also for a file in a folder that we may not enter: reading it then says so."""
    try:
        return place.exists()
    except PermissionError:
        return True


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end; what it writes is private."""
    os.umask(0o077)
    return asyncio.run(work)
