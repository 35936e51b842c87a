"""The command line: one verb each.

Exit codes: 0 fine, 1 unhealthy, 2 configuration, 3 login needed, 4 busy.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from netatmo_ingestd import (
    __version__,
    backfill,
    build,
    daemon,
    demo,
    doctor,
    logs,
    status,
    terminal,
    verify,
)
from netatmo_ingestd.cli_login import log_in, log_out
from netatmo_ingestd.config import effective
from netatmo_ingestd.errors import ConfigError, IngestError
from netatmo_ingestd.process import Stop
from netatmo_ingestd.settings import HistorySettings, Settings
from netatmo_ingestd.startup import ConfigFile, complain, config_file, fail, run, settings_of

# typer uses the installed click, or from 0.29 on a copy of its own: whichever it is.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="netatmo-ingestd",
    help="Bring a home's Netatmo data into your own MongoDB, and keep it complete.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; every failure of ours is one line on standard error."""
    sys.excepthook = logs.last_words
    try:
        # What a command's typer.Exit carries comes back as a value.
        code = app(standalone_mode=False, prog_name="netatmo-ingestd")
    except IngestError as error:
        fail(str(error), error.exit_code)
    except ExceptionGroup as group:
        known, unknown = group.split(IngestError)
        if known is None or unknown is not None:
            raise
        first = _leaves(known)[0]
        fail(str(first), first.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(130) from None
    except _UsageError as error:
        _misused(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _leaves(group: ExceptionGroup[IngestError]) -> list[IngestError]:
    return [
        leaf
        for each in group.exceptions
        for leaf in (_leaves(each) if isinstance(each, ExceptionGroup) else [each])
    ]


def _misused(error: Any) -> NoReturn:
    """A command, option or value that does not exist."""
    command = error.ctx.command_path if error.ctx else "netatmo-ingestd"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())  # noqa: T201
        raise SystemExit(0)
    fail(f"{error.format_message().rstrip('.')}. Try: {command} --help", ConfigError.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"netatmo-ingestd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Bring a home's Netatmo data into your own MongoDB, and keep it complete."""


@app.command("demo")
def _demo(
    config: ConfigFile = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help="End by itself after so long; 0: at Ctrl-C.", show_default="until Ctrl-C"
        ),
    ] = 0,
    speed: Annotated[
        float, typer.Option(min=1, max=100_000, help="Simulated seconds in one second.")
    ] = 600,
    stations: Annotated[int, typer.Option(min=1, max=50, help="Stations; a monitor is added.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, another weather.")] = 1,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what is stored in DIR.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object as last line.")
    ] = False,
) -> None:
    """Show it working: a simulated cloud, the daemon and an embedded store, no account needed.

    \b
    Examples:
      netatmo-ingestd demo                       watch until Ctrl-C
      netatmo-ingestd demo --seconds 30 --json   then compare store and cloud
      netatmo-ingestd demo --state-dir ./demo    keep the store
    """
    del config
    options = demo.Options(seconds, speed, stations, seed, state_dir, json=as_json)
    raise typer.Exit(run(demo.run(options, out)))


@app.command("simulator")
def _simulator(
    config: ConfigFile = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0: any.")] = 8700,
    speed: Annotated[
        float, typer.Option(min=0.001, max=100_000, help="How many times faster.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, another weather.")] = 1,
    stations: Annotated[int, typer.Option(min=1, max=50, help="How many stations.")] = 1,
    coaches: Annotated[int, typer.Option(min=0, max=50, help="How many air quality monitors.")] = 0,
    products: Annotated[str, typer.Option(help="In each home: energy,security,control.")] = "",
    portal: Annotated[int, typer.Option(min=0, max=50, help="Users of Legrand's portal.")] = 0,
    origin: Annotated[
        float | None, typer.Option(help="Go on with the time of an earlier simulator.")
    ] = None,
) -> None:
    """Run a local Netatmo cloud with a ready-made account; its address is the first line printed.

    \b
    Example:
      netatmo-ingestd simulator --port 8700 --speed 600 --stations 2 --coaches 1
      netatmo-ingestd simulator --products energy,security,control --portal 1
    Then set [netatmo] api_url and auth_url, and [clock], to what it prints.
    """
    del config
    # Here: starlette is for it alone.
    from netatmo_ingestd.simulator import scenario, server  # noqa: PLC0415

    plan = server.Plan(
        port=port, speed=speed, seed=seed, stations=stations, coaches=coaches, origin=origin,
        products=scenario.products(products), portal=portal,
    )  # fmt: skip
    server.serve(plan)


app.command("login")(log_in)
app.command("logout")(log_out)


@app.command("run")
def _run_daemon(
    config: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Poll everything due, write it, end.")
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; a second signal skips the drain.

    \b
    Examples:
      netatmo-ingestd run --config config.toml
      netatmo-ingestd run --once
    """
    settings = settings_of(config)
    raise typer.Exit(run(_daemon(settings, once)))


@app.command("status")
def _status(
    config: ConfigFile = None,
    as_json: AsJson = False,
    store_uri: Annotated[
        bool,
        typer.Option(
            "--store-uri", help="Print the store's address, password included, for mongosh."
        ),
    ] = False,
) -> None:
    """Tell whether the daemon is well: login, budget, spool, store, modules. Exit 1 if it is not.

    \b
    Examples:
      netatmo-ingestd status
      mongosh "$(netatmo-ingestd status --store-uri)"
    """
    settings = settings_of(config)
    if store_uri:
        print(build.store_uri(settings))  # noqa: T201
        return
    report = status.read(settings.state_dir)
    if report is None:
        raise IngestError(
            f"{settings.state_dir}/status.json: missing; no daemon has run here. "
            "Run: netatmo-ingestd run"
        )
    healthy = report["running"] and report["healthy"]
    if as_json:
        print(json.dumps(report, indent=1))  # noqa: T201
    else:
        terminal.show_status(report, out)
    raise typer.Exit(0 if healthy else 1)


@app.command("backfill")
def _backfill(
    config: ConfigFile = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="Not further back than this day.", show_default="as configured"
        ),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this module, by id or name; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch missing history: the plan first, then the progress. Exit 1 if some is left.

    A running daemon does this by itself; then its progress is shown.

    \b
    Examples:
      netatmo-ingestd backfill --dry-run              what is missing, and what it costs
      netatmo-ingestd backfill --since 2024-01-01
      netatmo-ingestd backfill --module Garden --json
    """
    options = backfill.Options(
        since=_date("--since", since), modules=tuple(module or ()), dry_run=dry_run, json=as_json
    )
    raise typer.Exit(run(backfill.run(settings_of(config), options, out)))


@app.command("verify")
def _verify(
    config: ConfigFile = None,
    windows: Annotated[
        int, typer.Option(min=0, max=100_000, help="How many random windows of 3.5 days.")
    ] = 10,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.")] = None,
    module: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this module, by id or name.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Write what the cloud says where it differs.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Draw the same windows again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the cloud again for random stored windows and compare. Exit 1 if something differs.

    Each window is one request, paced like history: about ten seconds each. Also prints the coverage
    of each module by year, and its holes.

    \b
    Examples:
      netatmo-ingestd verify
      netatmo-ingestd verify --windows 100 --repair
    """
    options = verify.Options(
        windows=windows, account=account, module=module, repair=repair, json=as_json, seed=seed
    )
    raise typer.Exit(run(verify.run(settings_of(config), options, out)))


@app.command("doctor")
def _doctor(
    config: ConfigFile = None,
    show_settings: Annotated[
        bool,
        typer.Option("--settings", help="Only print every setting and where it comes from."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try every precondition for real; each failure comes with its cure. Exit 1 if one fails.

    \b
    Examples:
      netatmo-ingestd doctor --config config.toml
      netatmo-ingestd doctor --settings
    """
    settings = settings_of(config)
    if show_settings:
        terminal.show_settings(effective(settings, config_file(config)), out, as_json=as_json)
        return
    findings = run(doctor.examine(settings))
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=1))  # noqa: T201
    else:
        terminal.show_findings(findings, out)
    raise typer.Exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)


def _date(option: str, text: str | None) -> date | None:
    try:
        since = HistorySettings.model_validate({"since": text}).since if text else None
        return since if isinstance(since, date) else None
    except ValidationError as error:
        told = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f'{option}: "{text}" {told}') from None


async def _daemon(settings: Settings, once: bool) -> int:
    stop = Stop()
    with stop.on_signals():
        if not once:
            await daemon.run(settings, stop)
            return 0
        problems = await daemon.run_once(settings, stop)
    for problem in problems:
        complain(problem)
    return 0 if not problems else 3 if all(p.startswith("login") for p in problems) else 1
