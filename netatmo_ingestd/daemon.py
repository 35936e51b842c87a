"""A run of the daemon: open, run, drain, close.

Downstream starts first and stops last: on a signal no new poll begins, the poll in flight ends,
the writer drains until empty or its deadline, what remains stays on the spool. A second signal
skips the drain. MongoDB being down, or a lost login, is no reason not to start.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from netatmo_ingestd import __version__, logs, status
from netatmo_ingestd.build import Parts, opened
from netatmo_ingestd.errors import ConfigError, SpoolError, StoreUnavailable
from netatmo_ingestd.process import Stop, forbid_dumps, notify
from netatmo_ingestd.settings import Settings
from netatmo_ingestd.waits import finish, is_set
from netatmo_ingestd.web.site import Site, open_site

MEASURE_S = 3600.0


async def run(settings: Settings, stop: Stop) -> None:
    """Until `stop`; raises ConfigError or Busy before anything is polled."""
    log = logs.logger()
    forbid_dumps()
    async with opened(settings) as parts, open_site(parts) as site:
        log.info(
            "daemon.started",
            version=__version__,
            accounts=sorted(parts.poller.accounts),
            store=parts.reporter.store_name,
            state_dir=str(settings.state_dir),
        )
        notify("READY=1")
        await run_tasks(parts, stop, site)
        log.info("daemon.stopped", left_on_spool=parts.spool.records)


async def run_once(settings: Settings, stop: Stop) -> list[str]:
    """Poll everything due, drain, end; what failed, in words."""
    async with opened(settings) as parts:
        polling = asyncio.create_task(parts.poller.once())
        asked = asyncio.create_task(stop.asked.wait())
        await asyncio.wait({polling, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not polling.done():
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            problems = ["interrupted"]
        else:
            problems = polling.result()
        if parts.spool.batches:
            limit_s = stop.drain_s if stop.asked.is_set() else 3 * stop.drain_s
            drain = asyncio.create_task(parts.writer.drain(time.monotonic() + limit_s))
            await finish(drain, limit_s + 1, stop.hurry)
        if parts.spool.batches:
            reason = parts.writer.counters.reason
            problems.append(f"store: {parts.spool.records} records wait on the spool ({reason})")
        parts.reporter.write(ended=True)
    return problems


async def run_tasks(parts: Parts, stop: Stop, site: Site | None = None) -> None:
    """Everything that runs, until `stop`; then in order: polls end, the spool drains."""
    log = logs.logger()
    writing, rest = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if parts.embedded:
            group.create_task(parts.embedded.supervise(rest))
        writer = group.create_task(parts.writer.run(writing))
        poller = group.create_task(parts.poller.run(stop.asked, stop.poll_s, stop.hurry))
        historian = group.create_task(parts.historian.run(stop.asked, stop.poll_s, stop.hurry))
        walker = group.create_task(parts.walker.run(stop.asked, stop.poll_s, stop.hurry))
        group.create_task(parts.retention.run(stop.asked))
        if site:
            group.create_task(site.run(stop.asked))
        group.create_task(_report(parts, rest))
        group.create_task(_summarize(parts, rest, log))
        group.create_task(_measure(parts, rest))
        await stop.asked.wait()
        log.info("daemon.stopping", records_waiting=parts.spool.records)
        notify("STOPPING=1")
        await poller
        await historian
        await walker
        deadline = time.monotonic() + stop.drain_s
        writing.set()
        await finish(writer, deadline - time.monotonic(), stop.hurry)
        if parts.spool.batches:
            drain = group.create_task(parts.writer.drain(deadline))
            await finish(drain, deadline + 1 - time.monotonic(), stop.hurry)
        rest.set()


async def _report(parts: Parts, rest: asyncio.Event) -> None:
    """Write `status.json` now and then; feed the watchdog only while the parts progress."""
    while not rest.is_set():
        parts.reporter.write()
        if await _progresses(parts):
            notify("WATCHDOG=1")
        await is_set(rest, status.EVERY_S)
    parts.reporter.write(ended=True)


async def _progresses(parts: Parts) -> bool:
    """This loop runs, or nobody asked; scheduler and spool must have moved as well."""
    try:
        await asyncio.wait_for(parts.spool.meta(), status.WATCHDOG_S)
    except (TimeoutError, SpoolError):
        return False
    return time.monotonic() - parts.poller.progressed < status.WATCHDOG_S


async def _measure(parts: Parts, rest: asyncio.Event) -> None:
    """Look once an hour how much the store takes."""
    while not rest.is_set():
        with suppress(StoreUnavailable, ConfigError):  # told elsewhere; or it may not be asked
            size = await parts.store_bytes()
            parts.reporter.growth.note(size, time.monotonic())
        await is_set(rest, MEASURE_S)


async def _summarize(parts: Parts, rest: asyncio.Event, log: Any) -> None:
    while not await is_set(rest, max(60.0, parts.clock.real_seconds(3600))):
        log.info("daemon.summary", **parts.reporter.summary())
