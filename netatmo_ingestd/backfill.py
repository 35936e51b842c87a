"""`backfill`: what of history is missing and what it costs, then the fetching of it, in view.

If a daemon runs, it is that one which fetches: its progress is shown, and no second walker started.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from netatmo_ingestd import build, daemon, logs, status
from netatmo_ingestd.account import LOGIN
from netatmo_ingestd.errors import ConfigError, IngestError, LoginRequired, StoreUnavailable
from netatmo_ingestd.plan import ROW_BYTES
from netatmo_ingestd.process import Stop
from netatmo_ingestd.settings import HistorySettings, Settings
from netatmo_ingestd.terminal import ago, megabytes, plain, show_table
from netatmo_ingestd.waits import finish, is_set

LOAD_S = 60.0
STILL_S = 5.0  # how long nothing may be asked for before what is left counts as refused
LOOK_S = 1.0
TELL_S = 10.0  # on no terminal, a line so often


@dataclass(frozen=True, slots=True)
class Options:
    """since: None as configured; modules: ids or names, empty for all."""

    since: date | None = None
    modules: tuple[str, ...] = ()
    dry_run: bool = False
    json: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """What one module still needs, as `status` tells it; `asked`: some of it may be asked for."""

    id: str
    name: str
    account: str
    covered: float
    requests: int
    rows: int
    eta_s: int | None
    asked: bool


async def run(settings: Settings, options: Options, out: Console) -> int:
    """0 when nothing is missing any more (or only the plan was wanted), 1 when something is."""
    stop = Stop()
    with stop.on_signals():
        report = status.read(settings.state_dir)
        if report and report["running"]:
            return await _follow(settings, options, stop, out)
        history = HistorySettings(since=options.since) if options.since else settings.history
        # Nothing but progress and failures is of interest here.
        logs.setup("warning", settings.log.format)
        async with build.opened(settings.model_copy(update={"history": history})) as parts:
            return await _fill(parts, options, stop, out)


# --- beside a daemon ------------------------------------------------------------------------------


async def _follow(settings: Settings, options: Options, stop: Stop, out: Console) -> int:
    if options.since or options.modules:
        raise ConfigError(
            "backfill: a daemon runs and fetches history by itself, as [history] since says; "
            "leave out --since and --module, or stop the daemon first"
        )
    modules = await _told(settings, stop)
    _show_plan(modules, options, out, "The daemon is fetching; this shows its progress.")
    if options.dry_run or options.json:
        return 0 if options.dry_run or not any(each.requests for each in modules) else 1

    async def look() -> Sequence[Module]:
        return await _told(settings, stop)

    return await _show(look, modules, stop, out)


async def _told(settings: Settings, stop: Stop) -> list[Module]:
    """The modules as the running daemon reports them, once it has read its ledger."""
    while True:
        report = status.read(settings.state_dir)
        if report is None or not report["running"]:
            raise IngestError("backfill: the daemon ended. Run: netatmo-ingestd status")
        if report["ledger"]["loaded"] or stop.asked.is_set():
            return [_module(each) for each in report["modules"] if each["history"]]
        await is_set(stop.asked, LOOK_S)


def _module(told: Mapping[str, Any]) -> Module:
    history = told["history"]
    return Module(
        id=told["id"],
        name=told["name"],
        account=told["account"],
        covered=history["covered"],
        requests=history["requests"],
        rows=history["rows"],
        eta_s=history["eta_s"],
        asked=history["asked"],
    )


# --- by ourselves -------------------------------------------------------------------------------


async def _fill(parts: build.Parts, options: Options, stop: Stop, out: Console) -> int:
    """The daemon in the foreground, until nothing is missing that can be had."""
    names = set(options.modules)
    parts.historian.only = names
    if options.dry_run:
        return await _plan(parts, options, stop, out)
    _check_logins(parts)
    running = asyncio.create_task(daemon.run_tasks(parts, stop))
    try:
        await _until_polled(parts, stop, running)
        modules = _planned(parts)
        _check_names(names, modules)
        _show_plan(modules, options, out, _space(parts, modules))

        async def look() -> Sequence[Module] | None:
            if running.done():
                return None
            _check_logins(parts)
            return _planned(parts)

        code = await _show(look, modules, stop, out, quiet=options.json)
        if code and not options.json and not stop.asked.is_set():
            out.print("The rest is refused for now (netatmo-ingestd status); it is tried again.")
    finally:
        stop.asked.set()
        await running
    if options.json:
        left = {"left_on_spool": parts.spool.records, **_as_dict(_planned(parts))}
        print(json.dumps(left))  # noqa: T201
    return code


async def _plan(parts: build.Parts, options: Options, stop: Stop, out: Console) -> int:
    """What is missing; where nothing is known at all, the newest rows are read first."""
    writing = asyncio.Event()
    writer = asyncio.create_task(parts.writer.run(writing))
    try:
        await _until(parts, stop, lambda: parts.ledger.loaded)
        if not parts.ledger.all():
            _check_logins(parts)
            await parts.poller.once()
            _check_logins(parts)
        modules = _planned(parts)
        _check_names(set(options.modules), modules)
        _show_plan(modules, options, out, _space(parts, modules))
    finally:
        writing.set()
        await finish(writer, stop.drain_s, stop.hurry)
        parts.reporter.write(ended=True)
    return 0


def _check_logins(parts: build.Parts) -> None:
    """LoginRequired when no account has a login that works."""
    accounts = parts.poller.accounts
    lost = [
        name for name, each in accounts.items() if each.login() is None or LOGIN in each.failing
    ]
    if len(lost) == len(accounts):
        raise LoginRequired(
            "backfill: the login is missing or lost. "
            f"Run: netatmo-ingestd login --account {lost[0]}",
            account=lost[0],
        )


def _check_names(names: set[str], modules: Sequence[Module]) -> None:
    known = {each.name for each in modules} | {each.id for each in modules}
    if unknown := sorted(names - known):
        raise ConfigError(
            f"--module: none is called {', '.join(unknown)}; see netatmo-ingestd status"
        )


async def _until_polled(parts: build.Parts, stop: Stop, running: asyncio.Task[None]) -> None:
    """Until the ledger was read and each module has its first answer, or cannot have one."""

    def known() -> bool:
        accounts = parts.poller.accounts.values()
        return running.done() or (
            parts.ledger.loaded
            and all(
                (each.last_good or each.failing)
                and each.queue.empty()
                and (each.first_done or each.failing or not each.intake.modules(each.name))
                for each in accounts
            )
        )

    await _until(parts, stop, known)
    _check_logins(parts)


async def _until(parts: build.Parts, stop: Stop, known: Callable[[], bool]) -> None:
    limit = time.monotonic() + LOAD_S
    while not known() and not stop.asked.is_set():
        if time.monotonic() > limit:
            raise StoreUnavailable(
                f"backfill: what is stored cannot be read within {LOAD_S:g} s "
                f"({parts.writer.counters.reason or 'the spool drains slowly'}); bring the store "
                "back, then run it again",
                reason="down",
            )
        await is_set(stop.asked, 0.1)


def _planned(parts: build.Parts) -> list[Module]:
    report = parts.reporter.snapshot()
    names = {each["id"]: each for each in report["modules"]}
    found = []
    for name, account in parts.poller.accounts.items():
        granted = report["accounts"][name]["budget"]["granted"]
        for module_id, history in parts.historian.progress(account, granted).items():
            found.append(_module({**names[module_id], "history": history}))
    return found


def _space(parts: build.Parts, modules: Sequence[Module]) -> str:
    """What it takes on disk, against what is free; ConfigError when it cannot fit."""
    size = sum(each.rows for each in modules) * ROW_BYTES
    if not parts.embedded:
        return f"It takes about {megabytes(size)} on the server."
    free = shutil.disk_usage(parts.settings.state_dir).free
    if size > free:
        raise ConfigError(
            f"backfill: about {megabytes(size)} are needed, {megabytes(free)} are free in "
            f"{parts.settings.state_dir}; make room, or fetch less with --since DATE"
        )
    return f"It takes about {megabytes(size)}; {megabytes(free)} are free."


# --- what one sees ------------------------------------------------------------------------------


def _as_dict(modules: Sequence[Module]) -> dict[str, Any]:
    return {
        "requests": sum(each.requests for each in modules),
        "rows": sum(each.rows for each in modules),
        "bytes": sum(each.rows for each in modules) * ROW_BYTES,
        "eta_s": max((each.eta_s or 0 for each in modules), default=0),
        "modules": [{name: getattr(each, name) for name in Module.__slots__} for each in modules],
    }


def _show_plan(modules: Sequence[Module], options: Options, out: Console, note: str) -> None:
    if options.json:
        if options.dry_run or note.startswith("The daemon"):
            print(json.dumps(_as_dict(modules)))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    for title in ("module", "account", "covered", "requests", "rows", "time left"):
        table.add_column(title)
    for each in modules:
        left = "-" if not each.requests else ago(each.eta_s) if each.eta_s is not None else "?"
        table.add_row(
            plain(each.name or each.id),
            plain(each.account),
            f"{each.covered:.1%}",
            str(each.requests),
            str(each.rows),
            left,
        )
    show_table(table, out)
    requests, eta_s = sum(each.requests for each in modules), _as_dict(modules)["eta_s"]
    if not requests:
        out.print("Nothing is missing.")
        return
    out.print(
        f"{requests} requests, about {ago(eta_s)} at the current budget. {note}", soft_wrap=True
    )


async def _show(
    look: Callable[[], Awaitable[Sequence[Module] | None]],
    modules: Sequence[Module],
    stop: Stop,
    out: Console,
    *,
    quiet: bool = False,
) -> int:
    """Bars, or lines on no terminal, until nothing is missing: 0; 1 when it ends before that."""
    if not any(each.requests for each in modules):
        return 0
    bars = _Bars(modules, out, quiet=quiet)
    still, left = 0, 0
    with bars.progress:
        while (seen := await look()) is not None:
            bars.update(seen)
            before, left = left, sum(each.requests for each in seen)
            if left == 0:
                return 0
            still = still + 1 if left == before and not any(each.asked for each in seen) else 0
            if still * LOOK_S >= STILL_S or await is_set(stop.asked, LOOK_S):
                break
    if not quiet:
        out.print(f"{left} requests are left, and go on where they stopped.")
    return 1


class _Bars:
    """A bar for each module, with its rate and the time that is left."""

    def __init__(self, modules: Sequence[Module], out: Console, *, quiet: bool) -> None:
        self._out, self._quiet = out, quiet
        self._first = {each.id: each.requests for each in modules}
        self._tasks: dict[str, TaskID] = {}
        self._began = self._told = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.completed}/{task.total} requests"),
            TextColumn("{task.fields[note]}"),
            console=out,
            disable=quiet or not out.is_terminal,
        )

    def update(self, modules: Sequence[Module]) -> None:
        for each in modules:
            self._update_one(each)
        now = time.monotonic()
        if not self._out.is_terminal and not self._quiet and now - self._told >= TELL_S:
            self._told = now
            sums = _as_dict(modules)
            self._out.print(
                f"{sums['requests']} requests left, about {ago(sums['eta_s'])}", soft_wrap=True
            )

    def _update_one(self, module: Module) -> None:
        total = max(self._first.setdefault(module.id, module.requests), module.requests)
        done = total - module.requests
        if module.id not in self._tasks:
            name = plain(module.name or module.id).plain[:24]
            self._tasks[module.id] = self.progress.add_task(name, total=total or 1, note="")
        minutes = max(time.monotonic() - self._began, 1.0) / 60
        note = f"{done / minutes:.0f}/min, {ago(module.eta_s or 0)} left"
        self.progress.update(
            self._tasks[module.id],
            total=total or 1,
            completed=done if total else 1,
            note=note if module.requests else "complete",
        )
