"""What the commands show on a terminal, and ask there."""

from __future__ import annotations

import getpass
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from netatmo_ingestd import build, login
from netatmo_ingestd.client import open_http
from netatmo_ingestd.doctor import Finding
from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.process import forbid_dumps
from netatmo_ingestd.settings import AccountSettings, Settings

_MARKS = {"good": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("FAIL", "red")}


def show_status(report: Mapping[str, Any], out: Console) -> None:
    """The report of status.read as tables."""
    if report["running"]:
        out.print(f"daemon {report['version']} runs (pid {report['pid']}, {report['time']})")
    else:
        # A daemon that was told to end says so in its last report; else its disk may be read-only.
        what, command = (
            ("is not running", "run")
            if report.get("ended")
            else ("is not running, or cannot write its report", "doctor")
        )
        out.print(
            f"[red]daemon {what}[/] (last report {ago(report['age_s'])} ago). "
            f"Run: netatmo-ingestd {command}",
            soft_wrap=True,
        )
    table = Table(box=None, pad_edge=False)
    for title in ("account", "login", "requests last hour", "of", "paused"):
        table.add_column(title)
    for name, account in report["accounts"].items():
        budget = account["budget"]
        paused = ago(budget["paused_for"]) if budget["paused_for"] else "-"
        made, most = str(budget["hour"]), f"{budget['target']:g}"
        if budget.get("per_day"):
            made, most = f"{budget['day']} in 24 h", str(budget["per_day"])
        table.add_row(name, account["login"]["state"], made, most, paused)
    show_table(table, out)
    _show_products(report, out)
    spool, store = report["spool"], report["store"]
    out.print(
        f"spool: {spool['records']} records wait ({spool['fill']:.0%} full)   "
        f"store: {store['name']} {store['state']}, {store['written']} writes, "
        f"{store['rejected']} rejected, {store['revised']} rows revised by the cloud{_size(store)}",
        markup=False,
        soft_wrap=True,
    )
    _show_modules(report, out)
    for name, amount in report["problems"].items():
        out.print(plain(f"set aside: {name} ({amount}×)"), soft_wrap=True)
    for name, amount in report["drift"].items():
        out.print(plain(f"drift: {name} ({amount}×)"), soft_wrap=True)
    for hint in report["hints"]:
        out.print(Text("- ", "yellow") + plain(hint), soft_wrap=True)
    for trouble in report["troubles"]:
        out.print(Text("! ", "red") + plain(trouble), soft_wrap=True)
    if report["running"] and report["healthy"]:
        out.print("[green]all is well[/]")


def _show_products(report: Mapping[str, Any], out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("account", "product", "login shows"):
        table.add_column(title)
    for name, account in report["accounts"].items():
        for product, stands in account.get("products", {}).items():
            table.add_row(name, product, plain(_standing(stands)))
    show_table(table, out)


def _standing(stands: Mapping[str, Any]) -> str:
    parts = [f"{', '.join(stands['missing'])} missing"] if stands["missing"] else []
    parts += [f"{call} refused until {until}" for call, until in stands["refused"].items()]
    return f"{stands['state']}: {'; '.join(parts)}" if parts else str(stands["state"])


def _show_modules(report: Mapping[str, Any], out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("module", "home", "type", "id", "newest row", "age", "covered", "time left"):
        table.add_column(title)
    now = datetime.fromisoformat(report["time"])
    for module in report["modules"]:
        newest = module["newest"]
        age = ago((now - datetime.fromisoformat(newest)).total_seconds()) if newest else "-"
        note = " (vanished)" if module["vanished"] else ""
        table.add_row(
            plain(f"{module['name']}{note}"),
            plain(module["home"]),
            plain(module["type"]),
            plain(module["id"]),
            newest or "-",
            age,
            *_history(module["history"]),
        )
    show_table(table, out)


def _history(history: Mapping[str, Any] | None) -> tuple[str, str]:
    """(how much of the module's life is covered, how long the rest takes)."""
    if history is None or history["since"] is None:
        return "-", "-"
    # Rounded down: 100 % is whole.
    share = f"{int(history['covered'] * 1000) / 10:.1f} %"
    if not history["requests"]:
        return share, "-"
    return share, ago(history["eta_s"]) if history["eta_s"] is not None else "?"


def _size(store: Mapping[str, Any]) -> str:
    if store["bytes"] is None:
        return ""
    growth = store["bytes_per_day"]
    return f", {megabytes(store['bytes'])}" + (
        f" ({megabytes(growth)} a day)" if growth is not None else ""
    )


def megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def show_table(table: Table, out: Console) -> None:
    """Print it; whole cells also where nobody looks: a pipe has no width."""
    wide = out if out.is_terminal else Console(file=out.file, width=500, highlight=False)
    wide.print(table)


def plain(text: str) -> Text:
    """Names come from the cloud: no markup, no escape sequence of theirs reaches the terminal."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text))


def show_findings(findings: Sequence[Finding], out: Console) -> None:
    """One line each; the cure under what fails."""
    for finding in findings:
        word, colour = _MARKS[finding.verdict]
        line = plain(f"{finding.name}: {finding.text}")
        out.print(Text(f"{word:<5}", colour) + line, soft_wrap=True)
        if finding.cure:
            out.print(Text("     → ") + plain(finding.cure), soft_wrap=True)


def show_settings(options: Sequence[tuple[str, str, str]], out: Console, *, as_json: bool) -> None:
    """Every option with its value and origin."""
    if as_json:
        names = ("key", "value", "from")
        print(json.dumps([dict(zip(names, each, strict=True)) for each in options]))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    for title in ("setting", "value", "from"):
        table.add_column(title)
    for each in options:
        table.add_row(*map(plain, each))
    show_table(table, out)


def ago(seconds: float) -> str:
    """A stretch of time in its largest fitting unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"


def _piped(prompt: str) -> str:
    """One line of standard input; asked for, unseen, when that is a terminal."""
    return ask(prompt, getpass.getpass) if sys.stdin.isatty() else sys.stdin.readline()


def ask(prompt: str, read: Callable[[str], str] = input) -> str:
    """An answer from the terminal; Ctrl-C ends the waiting at once. Nothing else runs meanwhile."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return read(prompt)
    except EOFError:
        raise ConfigError(
            "login: standard input ended before an answer; run it in a terminal, or pipe it in"
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)


async def log_in(
    settings: Settings, name: str, way: str, out: Console, add: tuple[str, ...] = ()
) -> int:
    """One login of the account `name`: by browser, or `way` "paste", "token", "password".

    add  products that it asks for beside those of the settings
    """
    forbid_dumps()

    def say(text: str) -> None:
        out.print(text, soft_wrap=True, markup=False)

    async with open_http() as http:
        account = settings.find_account(name)
        request = build.login_request(settings, account, http, *add)
        if way == "token":
            result = await login.login_with_refresh_token(_piped("Refresh token: "), request)
        elif way == "password":
            user = ask("User name (e-mail): ")
            password = ask("Password: ", getpass.getpass)
            result = await login.login_with_password(user, password, request)
        elif way == "paste":
            consent = login.authorization_url(request)
            say(f"Open this page in any browser and accept:\n{consent.url}")
            say("The browser then fails to load a page: copy that page's whole address.")
            result = await login.login_with_paste(ask("Address: "), request, consent)
        else:
            result = await login.login_with_browser(request, say=say)
    say(f"Logged in as account {name}; scopes: {', '.join(result.scopes) or 'none told'}.")
    for product, scopes in account.not_granted(result.scopes, *add).items():
        say(f"Not granted: {product} ({', '.join(scopes)}); what needs it stays empty.")
    if result.set_aside:
        say(f"The older token file was damaged; it is kept as {result.set_aside}.")
    for line in to_configure(account, add):
        say(line)
    return 0


def to_configure(account: AccountSettings, add: Sequence[str]) -> list[str]:
    """What the settings still lack for the products `add`: the lines as they should stand there."""
    new = [each for each in dict.fromkeys(add) if each not in account.products]
    if not new:
        return []
    lines = [f"  products = {json.dumps([*account.products, *new])}"]
    if account.scopes:
        lines.append(f"  scopes = {json.dumps(list(account.scopes_for(*new)))}")
    if "public" in new:
        lines.append("  public_area = { lat_ne = …, lon_ne = …, lat_sw = …, lon_sw = … }")
    where = f'[[accounts]] name = "{account.name}"'
    return [f"Now write this under {where} in the settings, and restart the daemon:", *lines]
