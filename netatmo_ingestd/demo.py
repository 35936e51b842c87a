"""Simulator, daemon and embedded store in one command: documents within seconds, no account needed.

At the end of a bounded run the store is compared, value by value, with what the simulated cloud
had shown: the world is a function of its seed, so every row can be computed again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from netatmo_ingestd import build, daemon, login, logs
from netatmo_ingestd.client import open_http
from netatmo_ingestd.errors import ConfigError, IngestError
from netatmo_ingestd.models import Interval
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.process import Stop
from netatmo_ingestd.settings import (
    AccountSettings,
    ClockSettings,
    LogSettings,
    NetatmoSettings,
    SecuritySettings,
    Settings,
    StoreSettings,
    WriterSettings,
)
from netatmo_ingestd.simulator.world import World
from netatmo_ingestd.sources import MODULE_TYPES
from netatmo_ingestd.sources.quantities import UNITS, UPSTREAM

SHOW_EVERY_S = 1.0
COACHES = 1  # beside the stations of --stations
HOUSEHOLD = ("energy", "security", "control")  # of the home of each station
PRODUCTS = ("weather", "aircare", *HOUSEHOLD)
WORDS = (
    "setpoint_temperature", "boiler", "on", "brightness", "position", "status", "monitoring",
    "fan_speed", "home",
)  # fmt: skip
"""Discrete state that is shown beside the newest values, where a module has it."""


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: real time, 0 until Ctrl-C; state_dir: None for a folder that goes with the demo."""

    seconds: float
    speed: float
    stations: int
    seed: int
    state_dir: Path | None
    json: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of the store against rows of the cloud.

    different   stored with another value
    unexpected  stored, never shown by the cloud
    """

    measurements: int = 0
    expected: int = 0
    missing: int = 0
    duplicates: int = 0
    different: int = 0
    unexpected: int = 0

    @property
    def clean(self) -> bool:
        return self.missing + self.duplicates + self.different + self.unexpected == 0


async def run(options: Options, out: Console) -> int:
    """The whole demonstration; 0 when nothing is missing, twice or different."""
    stop = Stop(poll_s=0.5, drain_s=1.0)
    with stop.on_signals():
        async with AsyncExitStack() as stack:
            folder = _folder(options, stack)
            logs.setup("warning", "json", stack.enter_context((folder / "demo.log").open("a")))
            cloud = await stack.enter_async_context(_simulator(options))
            settings = _settings(folder, cloud)
            async with open_http() as http:
                request = build.login_request(settings, settings.accounts[0], http)
                await login.login_with_refresh_token(cloud["refresh_token"], request)
            return await _show(options, settings, cloud, stop, out)


async def _show(
    options: Options, settings: Settings, cloud: dict[str, Any], stop: Stop, out: Console
) -> int:
    began = time.monotonic()
    async with build.opened(settings) as parts:
        uri = parts.embedded.uri if parts.embedded else ""
        out.print(
            f"A simulated Netatmo cloud runs at {cloud['url']}, {options.speed:g} times as fast as "
            f"real time.\nThe store: mongosh '{uri}'\nThe log: {settings.state_dir}/demo.log\n"
            "Ctrl-C ends it.",
            soft_wrap=True,
            markup=False,
        )
        running = asyncio.create_task(daemon.run_tasks(parts, stop))
        watching = asyncio.create_task(_watch(parts, stop, out, began))
        if options.seconds:
            bounded = asyncio.get_running_loop().call_later(options.seconds, stop.asked.set)
        interrupted = await _until_stopped(running, stop, began, options.seconds)
        if options.seconds:
            bounded.cancel()
        await watching
        await running
        compared = None if interrupted else await _compare(parts, options, cloud)
        written = parts.writer.counters.written
    took = time.monotonic() - began
    result = {
        **(asdict(compared) if compared else {"measurements": written}),
        "store_uri": uri,
        "state_dir": str(options.state_dir) if options.state_dir else None,
        "real_seconds": round(took, 1),
        "simulated_days": round(took * options.speed / 86400, 2),
    }
    _conclude(compared, result, out)
    if options.json:
        print(json.dumps(result))  # noqa: T201
    return 0 if compared is None or compared.clean else 1


async def _until_stopped(
    running: asyncio.Task[None], stop: Stop, began: float, seconds: float
) -> bool:
    """True when a person, not the clock, ended it."""
    asked = asyncio.ensure_future(stop.asked.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    return not seconds or time.monotonic() - began < seconds


def _folder(options: Options, stack: AsyncExitStack) -> Path:
    if options.state_dir is None:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="netatmo-ingestd-demo-"))
        return Path(name)
    try:
        options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--state-dir: {options.state_dir} cannot be made ({error.strerror}); name another"
        ) from error
    if (options.state_dir / "spool.db").exists():
        raise ConfigError(
            f"--state-dir: {options.state_dir} holds an earlier run; each demo has a cloud and a "
            "time of its own: name an empty folder"
        )
    return options.state_dir.resolve()


@asynccontextmanager
async def _simulator(options: Options) -> AsyncIterator[dict[str, Any]]:
    """The simulated cloud as a process of its own, and what it says at its start."""
    command = [
        *(sys.executable, "-m", "netatmo_ingestd", "simulator", "--port", "0"),
        *("--speed", str(options.speed), "--seed", str(options.seed)),
        *("--stations", str(options.stations), "--coaches", str(COACHES)),
        *("--products", ",".join(HOUSEHOLD)),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        if process.stdout is None or process.stderr is None:
            raise AssertionError("both are pipes")
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        if not line:
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise ConfigError(f"the simulator ended at once: {said.splitlines()[-1:]}")
        yield json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()  # it keeps nothing; a graceful end would wait for open connections
            await process.wait()


def _settings(folder: Path, cloud: dict[str, Any]) -> Settings:
    return Settings(
        state_dir=folder,
        store=StoreSettings(uri=SecretStr("embedded")),
        accounts=(
            AccountSettings(
                name="demo",
                client_id=cloud["client_id"],
                client_secret=SecretStr(cloud["client_secret"]),
                products=PRODUCTS,
            ),
        ),
        netatmo=NetatmoSettings(api_url=cloud["url"], auth_url=cloud["url"]),
        clock=ClockSettings(origin=cloud["origin"], speed=cloud["speed"]),
        security=SecuritySettings(pictures=True, picture_hosts=("127.0.0.1",)),
        writer=WriterSettings(max_bulks_per_second=1000),
        log=LogSettings(level="warning"),
    )


# --- what one sees ------------------------------------------------------------------------------


async def _watch(parts: build.Parts, stop: Stop, out: Console, began: float) -> None:
    """The newest readings as the store has them, again and again."""
    live = Live(console=out, auto_refresh=False, transient=False) if out.is_terminal else None
    if live:
        live.start()
    try:
        while not stop.asked.is_set():
            try:
                modules = await parts.store.find("modules", {})
            except IngestError:
                modules = []
            table = _table(parts, modules)
            if live:
                live.update(table, refresh=True)
            elif modules:
                took = time.monotonic() - began
                out.print(
                    f"{took:5.1f} s  {parts.clock.now():%Y-%m-%d %H:%M}  "
                    f"{len(modules)} modules in the store, "
                    f"{parts.writer.counters.written} records confirmed, "
                    f"{parts.spool.records} on the way",
                    soft_wrap=True,
                )
            try:
                await asyncio.wait_for(
                    stop.asked.wait(), SHOW_EVERY_S if live else 5.0 if modules else 0.5
                )
            except TimeoutError:
                continue
    finally:
        if live:
            live.stop()


def _table(parts: build.Parts, modules: list[dict[str, Any]]) -> Table:
    counters, spool = parts.writer.counters, parts.spool
    table = Table(
        title=f"{parts.clock.now():%A %Y-%m-%d %H:%M} UTC, simulated",
        caption=f"{counters.written} records confirmed in the store, {spool.records} on the way",
        title_justify="left",
        caption_justify="left",
    )
    for title in ("module", "home", "time", "newest reading in the store"):
        table.add_column(title)
    for module in sorted(modules, key=lambda each: (each.get("home_name", ""), each["_id"])):
        latest = module.get("latest") or {}
        values = latest.get("values", {})
        told = [f"{name} {values[name]:g}" for name in UNITS if name in values]
        told += [f"{name} {_word(module[name])}" for name in WORDS if name in module]
        text = "  ".join(told)
        at = f"{latest['time']:%H:%M:%S}" if latest else "-"
        names = (escape(str(module.get(key, ""))) for key in ("name", "home_name"))
        table.add_row(*names, at, text)
    return table


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _conclude(compared: Comparison | None, result: dict[str, Any], out: Console) -> None:
    if compared is None:
        out.print(
            f"Ended after {result['real_seconds']} s; {result['measurements']} records confirmed."
        )
        return
    out.print(
        f"The cloud had shown {compared.expected} rows when the last read began: "
        f"{compared.missing} of them missing in the store, {compared.duplicates} there twice, "
        f"{compared.different} different, {compared.unexpected} never shown. "
        f"Stored in all: {compared.measurements}.",
        soft_wrap=True,
    )


# --- the comparison -----------------------------------------------------------------------------


async def _compare(parts: build.Parts, options: Options, cloud: dict[str, Any]) -> Comparison:
    """One last round, then each row that was visible before it must be there, once, and equal."""
    visible_at = parts.clock.time()
    await parts.poller.once()
    await parts.writer.drain(time.monotonic() + 60)
    asked_until = parts.clock.time()
    world = World(options.seed, options.stations, origin=cloud["origin"], coaches=COACHES)
    covered = {
        each.entity_id: each.covered
        for each in await parts.store.coverage()
        if each.scale == "max" and each.covered
    }
    # A module that was never read must not look complete: it is held against the others' window.
    last = max((spans[-1][0] for spans in covered.values()), default=None)
    begin = last or datetime.fromtimestamp(visible_at - 3600, UTC)
    total = Comparison()
    for module in world.modules():
        spans = covered.get(module.id, ((begin, begin),))
        one = await _compare_module(parts.store, world, module.id, spans, visible_at, asked_until)
        total = Comparison(
            **{name: getattr(total, name) + getattr(one, name) for name in asdict(total)}
        )
    return total


async def _compare_module(
    store: Store,
    world: World,
    module_id: str,
    spans: Sequence[Interval],
    visible_at: float,
    asked_until: float,
) -> Comparison:
    """What the ledger covers has to be there, and everything since the last hole in it."""
    begin, end = spans[0][0], datetime.fromtimestamp(asked_until, UTC) + timedelta(days=1)
    stored: dict[int, list[dict[str, Any]]] = {}
    day = begin
    while day < end:
        for row in await store.rows(module_id, "max", day, min(end, day + timedelta(days=7))):
            stored.setdefault(int(row["time"].timestamp()), []).append(row["values"])
        day += timedelta(days=7)
    due = [(first.timestamp(), last.timestamp() - 1) for first, last in spans[:-1]]
    due.append((spans[-1][0].timestamp(), visible_at))
    visible = {
        epoch
        for first, last in due
        for epoch, _ in world.samples(module_id, first, last, visible_at=visible_at)
    }
    shown = dict(world.samples(module_id, begin.timestamp(), asked_until, visible_at=asked_until))
    types = MODULE_TYPES[world.by_id[module_id].type].history
    return Comparison(
        measurements=sum(len(rows) for rows in stored.values()),
        expected=len(visible),
        missing=sum(epoch not in stored for epoch in visible),
        duplicates=sum(len(rows) - 1 for rows in stored.values()),
        different=sum(
            not _equal(rows[0], shown[epoch], types)
            for epoch, rows in stored.items()
            if epoch in shown
        ),
        unexpected=sum(epoch not in shown for epoch in stored if epoch >= begin.timestamp()),
    )


def _equal(stored: dict[str, float], shown: dict[str, Any], types: tuple[str, ...]) -> bool:
    """Every history quantity of the cloud is stored with that value; calm wind has no angle."""
    for name in types:
        value = shown.get(name)
        if value is None or (name == "WindAngle" and value < 0):
            continue
        if stored.get(UPSTREAM[name.lower()]) != float(value):
            return False
    return True
