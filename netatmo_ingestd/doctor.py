"""Tries every precondition for real; each failure comes with its cure."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from netatmo_ingestd import embedded, logs, status
from netatmo_ingestd.build import SANE_CLOCK, open_budget, open_login, store_beside
from netatmo_ingestd.client import open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import (
    ApiRefused,
    ConfigError,
    IngestError,
    LoginRequired,
    StoreUnavailable,
)
from netatmo_ingestd.models import Priority
from netatmo_ingestd.polls import Poll, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.settings import AccountSettings, Settings
from netatmo_ingestd.sources import for_products
from netatmo_ingestd.sources.legrand import SITE, poll_of, site
from netatmo_ingestd.sources.public import tile_poll
from netatmo_ingestd.tokenfile import TokenFile, token_folder
from netatmo_ingestd.upserts import INDEXES

Verdict = Literal["good", "warn", "bad"]
CONNECT_S = 5.0
CALL_S = 30.0
FREE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried, how it went, and what to do."""

    name: str
    verdict: Verdict
    text: str
    cure: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def examine(settings: Settings) -> list[Finding]:
    """All findings; never raises for what it finds."""
    findings = [_clock(), _state_dir(settings.state_dir), _sqlite()]
    names = sorted({account.provider for account in settings.accounts} or {NETATMO.name})
    clouds = [settings.provider(name) for name in names]
    urls = {urlsplit(url).netloc: url for each in clouds for url in (each.api_url, each.auth_url)}
    findings += [await _cloud(url) for url in urls.values()]
    if not settings.accounts:
        findings.append(
            Finding("accounts", "bad", "none is configured", "add an [[accounts]] section")
        )
    for account in settings.accounts:
        findings += await _login(settings, account)
    findings += await _store(settings)
    findings += _report(settings.state_dir)
    clean = logs.REDACTOR.clean
    return [replace(each, text=clean(each.text), cure=clean(each.cure)) for each in findings]


def _clock() -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < SANE_CLOCK:
        return Finding("clock", "bad", f"says {now}", "set the date, or start NTP")
    return Finding("clock", "good", now)


def _state_dir(folder: Path) -> Finding:
    probe = folder / ".doctor"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        return Finding(
            "state_dir",
            "bad",
            f"{folder}: {error.strerror}",
            f"make it writable for user {os.getuid()}, free space, or name another",
        )
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        text = f"{folder}: {free >> 20} MiB free"
        return Finding("state_dir", "warn", text, "free some space; the spool lives there")
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding("state_dir", "warn", f"{folder} has mode {mode:o}", f"chmod 700 {folder}")
    return Finding("state_dir", "good", f"{folder}, {free >> 30} GiB free")


def _sqlite() -> Finding:
    return Finding("sqlite", "good", f"{sqlite3.sqlite_version}, one exclusive connection")


async def _cloud(address: str) -> Finding:
    url = urlsplit(address)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(
                url.hostname, port, ssl=True if url.scheme == "https" else None
            )
            writer.close()
    except (OSError, TimeoutError) as error:
        what = str(error) or f"no answer within {CONNECT_S:.0f} s"
        return Finding(
            "cloud",
            "bad",
            f"{url.netloc}: {what}",
            "check network, DNS and firewall of this machine",
        )
    return Finding("cloud", "good", f"{url.netloc} answers")


async def _login(settings: Settings, account: AccountSettings) -> list[Finding]:
    name = f"login {account.name}"
    again = f"run: netatmo-ingestd login --account {account.name}"
    try:
        settings.app_of(account)
        settings.subscription_key(account)
    except ConfigError as error:
        return [Finding(name, "bad", str(error), "complete the [[accounts]] section")]
    try:
        token = TokenFile(token_folder(settings.state_dir, account.name) / "token.json").load()
    except ConfigError as error:
        return [Finding(name, "bad", str(error), again)]
    if token is None:
        return [Finding(name, "bad", "never logged in", again)]
    missing = sorted(set(account.scopes_for()) - set(token.scopes)) if token.scopes else []
    if missing:
        return [Finding(name, "warn", f"scopes not granted: {', '.join(missing)}", again)]
    return [await _try_login(settings, account, name, again)]


async def _try_login(
    settings: Settings, account: AccountSettings, name: str, again: str
) -> Finding:
    """One real call with the login, counted in the budget like any other."""
    clock = Clock(settings.clock.origin, settings.clock.speed)
    budget = open_budget(settings, account, clock)
    sources = for_products(account.products)
    if not sources:
        return Finding(
            name, "warn", "names no products", "add products to its [[accounts]] section"
        )
    usage = budget.usage(account.name)
    if usage.per_day and usage.day >= usage.per_day:
        text = f"its {usage.per_day} calls of 24 h are used up; nothing is tried"
        return Finding(name, "warn", text, "wait, or lengthen its [poll] intervals")
    endpoint, names = "", []
    try:
        async with open_http() as http, asyncio.timeout(CALL_S):
            tokens, client = open_login(settings, account, http, clock, budget)
            async with tokens:
                for poll in _first_polls(account, sources):
                    endpoint = poll.endpoint.name
                    await client.call(endpoint, poll.params, priority=Priority.LIVE, purpose="live")
                    names.append(endpoint)
    except LoginRequired as error:
        return Finding(name, "bad", str(error), again)
    except TimeoutError:
        return Finding(
            name, "warn", f"{endpoint}: not answered within {CALL_S:.0f} s", "try again later"
        )
    except IngestError as error:
        alone = "" if isinstance(error, ApiRefused) else "; it is tried by itself"
        return Finding(name, "bad", str(error), f"see what the message says{alone}")
    hour = budget.usage(account.name).hour
    told = f"{', '.join(names)} answer{'' if len(names) > 1 else 's'}"
    return Finding(name, "good", f"{told}; {hour} requests in the last hour")


def _first_polls(account: AccountSettings, sources: Sequence[Source]) -> list[Poll]:
    """What each product asks first, each once."""
    found: dict[str, Poll] = {}
    for source in sources:
        first, area = source.endpoints[0], account.public_area
        poll = Poll(first, account.name)
        if first.per == "area" and area:
            poll = tile_poll(account.name, area.tiles[0])
        elif first.per == SITE:
            poll = poll_of(first, account.name, site(account.name, account.sites[0]))
        found.setdefault(first.name, poll)
    return list(found.values())


async def _store(settings: Settings) -> list[Finding]:
    findings = []
    try:
        async with store_beside(settings) as store:
            hello = await store.ping()
            kind = "replica set" if hello.get("setName") else hello.get("msg") or "standalone"
            findings.append(Finding("store", "good", f"answers ({kind})"))
            findings += [
                Finding(
                    f"store {collection}",
                    "bad",
                    "refuses a well-formed document",
                    "remove the collection's validator, or look at the server's disk",
                )
                for collection in INDEXES
                if collection != "coverage" and not await store.accepts(collection)
            ]
            missing = await store.missing_indexes()
            if missing:
                findings.append(
                    Finding(
                        "store indexes",
                        "warn",
                        f"missing: {', '.join(missing)}; queries by them are slow",
                        "the daemon makes them at its first start; if the server refuses, so be it",
                    )
                )
            if settings.store.embedded:
                folder = settings.state_dir / "store"
                history = embedded.history_bytes(folder) >> 20
                size = embedded.disk_bytes(folder) >> 20
                findings.append(
                    Finding("store size", "good", f"{size} MiB on disk, history file {history} MiB")
                )
    except StoreUnavailable as error:
        cure = "start MongoDB, or correct [store] uri; meanwhile everything waits on the spool"
        if error.reason == "denied":
            cure = "correct user, password and authSource in [store] uri, or grant readWrite"
        findings.append(Finding("store", "bad", str(error), cure))
    except IngestError as error:  # its message names the cure
        findings.append(Finding("store", "bad", str(error), "do that, or correct [store] uri"))
    return findings


def _report(folder: Path) -> list[Finding]:
    """What the running daemon found out by itself."""
    try:
        report = status.read(folder)
    except IngestError as error:
        return [Finding("daemon", "bad", str(error), "do that")]
    if report is None or not report["running"]:
        return [Finding("daemon", "warn", "not running", "run: netatmo-ingestd run")]
    findings = [Finding("daemon", "good", f"running, pid {report['pid']}")]
    findings += [
        Finding("daemon says", "bad", text, "see netatmo-ingestd status")
        for text in report["troubles"]
    ]
    findings += [
        Finding("daemon says", "warn", text, "see netatmo-ingestd status")
        for text in report["hints"]
    ]
    return findings
