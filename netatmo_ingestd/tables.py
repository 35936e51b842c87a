"""What `status` and `doctor` show on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from netatmo_ingestd.doctor import Finding

_MARKS = {"good": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("FAIL", "red")}


def show_status(report: Mapping[str, Any], out: Console) -> None:
    """The report of status.read as tables."""
    if report["running"]:
        out.print(f"daemon {report['version']} runs (pid {report['pid']}, {report['time']})")
    else:
        out.print(
            f"[red]daemon is not running[/] (last report {_ago(report['age_s'])} ago). "
            "Run: netatmo-ingestd run"
        )
    table = Table(box=None, pad_edge=False)
    for title in ("account", "login", "requests last hour", "of", "paused"):
        table.add_column(title)
    for name, account in report["accounts"].items():
        budget = account["budget"]
        paused = _ago(budget["paused_for"]) if budget["paused_for"] else "-"
        table.add_row(
            name, account["login"]["state"], str(budget["hour"]), f"{budget['target']:g}", paused
        )
    _print(table, out)
    spool, store = report["spool"], report["store"]
    out.print(
        f"spool: {spool['records']} records wait ({spool['fill']:.0%} full)   "
        f"store: {store['name']} {store['state']}, {store['written']} writes, "
        f"{store['rejected']} rejected",
        markup=False,
        soft_wrap=True,
    )
    _show_modules(report, out)
    for name, amount in report["drift"].items():
        out.print(_plain(f"drift: {name} ({amount}×)"), soft_wrap=True)
    for hint in report["hints"]:
        out.print(Text("- ", "yellow") + _plain(hint), soft_wrap=True)
    for trouble in report["troubles"]:
        out.print(Text("! ", "red") + _plain(trouble), soft_wrap=True)
    if report["running"] and report["healthy"]:
        out.print("[green]all is well[/]")


def _show_modules(report: Mapping[str, Any], out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("module", "home", "type", "id", "newest row", "age"):
        table.add_column(title)
    now = datetime.fromisoformat(report["time"])
    for module in report["modules"]:
        newest = module["newest"]
        age = _ago((now - datetime.fromisoformat(newest)).total_seconds()) if newest else "-"
        note = " (vanished)" if module["vanished"] else ""
        table.add_row(
            _plain(f"{module['name']}{note}"),
            _plain(module["home"]),
            _plain(module["type"]),
            _plain(module["id"]),
            newest or "-",
            age,
        )
    _print(table, out)


def _print(table: Table, out: Console) -> None:
    """Whole cells also where nobody looks: a pipe has no width."""
    wide = out if out.is_terminal else Console(file=out.file, width=500, highlight=False)
    wide.print(table)


def _plain(text: str) -> Text:
    """Names come from the cloud: no markup, no escape sequence of theirs reaches the terminal."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text))


def show_findings(findings: Sequence[Finding], out: Console) -> None:
    """One line each; the cure under what fails."""
    for finding in findings:
        word, colour = _MARKS[finding.verdict]
        line = _plain(f"{finding.name}: {finding.text}")
        out.print(Text(f"{word:<5}", colour) + line, soft_wrap=True)
        if finding.cure:
            out.print(Text("     → ") + _plain(finding.cure), soft_wrap=True)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"
