"""What `status` and `doctor` show on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from netatmo_ingestd.doctor import Finding

_MARKS = {"good": "[green]ok[/]", "warn": "[yellow]warn[/]", "bad": "[red]FAIL[/]"}


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
    out.print(table)
    spool, store = report["spool"], report["store"]
    out.print(
        f"spool: {spool['records']} records wait ({spool['fill']:.0%} full)   "
        f"store: {store['name']} {store['state']}, {store['written']} writes, "
        f"{store['rejected']} rejected"
    )
    _show_modules(report, out)
    for name, amount in report["drift"].items():
        out.print(f"drift: {name} ({amount}×)", markup=False)
    for trouble in report["troubles"]:
        out.print("[red]![/] ", end="")
        out.print(trouble, markup=False)


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
            f"{module['name']}{note}",
            module["home"],
            module["type"],
            module["id"],
            newest or "-",
            age,
        )
    out.print(table)


def show_findings(findings: Sequence[Finding], out: Console) -> None:
    """One line each; the cure under what fails."""
    for finding in findings:
        out.print(f"{_MARKS[finding.verdict]:<14} ", end="")
        out.print(f"{finding.name}: {finding.text}", markup=False, soft_wrap=True)
        if finding.cure:
            out.print(f"       → {finding.cure}", markup=False, soft_wrap=True)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"
