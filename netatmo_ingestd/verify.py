"""`verify`: asks the cloud again for random stored windows, and compares value by value.

Works beside a running daemon: it spends from the same budget and only reads, unless it repairs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from netatmo_ingestd import records
from netatmo_ingestd.build import open_budget, open_login, store_beside
from netatmo_ingestd.bulks import BulkSize
from netatmo_ingestd.client import Client, open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ConfigError, IngestError, LoginRequired, StoreUnavailable
from netatmo_ingestd.intervals import covers, intersect, subtract
from netatmo_ingestd.models import Coverage, Entity, Interval, Measurement, Priority, Summary
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.plan import coverage_report
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.process import state_folder
from netatmo_ingestd.records import Document
from netatmo_ingestd.settings import Settings
from netatmo_ingestd.sources.days import days_poll
from netatmo_ingestd.sources.measure import PAGE_ROWS, WIDTHS, rows_poll
from netatmo_ingestd.terminal import plain, show_table
from netatmo_ingestd.upserts import operations

WINDOW = timedelta(days=3.5)  # one page of five-minute rows
DAYS_WINDOW = timedelta(days=1000)  # one page of day rows
SECOND = timedelta(seconds=1)
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Options:
    """windows: how many to ask; account, module: None for all; seed: which ones are drawn."""

    windows: int = 10
    account: str | None = None
    module: str | None = None
    repair: bool = False
    json: bool = False
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One row: `what` is "missing" (here), "altered", or "unknown" (to the cloud)."""

    module_id: str
    scale: str
    time: datetime
    what: str
    stored: Mapping[str, Any]
    cloud: Mapping[str, Any]


@dataclass(slots=True)
class Result:
    """What was compared and found."""

    windows: int = 0
    rows: int = 0
    differences: list[Difference] = field(default_factory=list)
    repaired: int = 0
    failed: list[str] = field(default_factory=list)


async def run(settings: Settings, options: Options, out: Console) -> int:
    """0 when all that was compared is equal (or was repaired), else 1."""
    async with AsyncExitStack() as stack:
        stack.enter_context(state_folder(settings.state_dir, exclusive=False))
        store = await stack.enter_async_context(store_beside(settings))
        entities = {each["_id"]: _entity(each) for each in await store.find("modules", {})}
        known = await store.coverage()
        coverage = [each for each in known if _chosen(each, entities, options)]
        if not known:
            raise IngestError("verify: nothing is stored yet. Run: netatmo-ingestd status")
        if not coverage:
            raise ConfigError(
                "verify: --module or --account names nothing that is stored. "
                "Run: netatmo-ingestd status"
            )
        drawn = _draw(coverage, entities, options)
        checker = _Checker(store, await _clients(settings, stack), repairs=options.repair)
        bars = stack.enter_context(
            Progress(console=out, disable=options.json or not out.is_terminal)
        )
        for each, begin in bars.track(drawn, description="comparing"):
            await checker.check(entities[each.entity_id], each, begin)
    report = coverage_report(coverage, entities)
    result = checker.result
    if options.json:
        told = {**asdict(result), "coverage": report}
        print(json.dumps(told, default=_iso))  # noqa: T201
    else:
        _show(result, report, options, out)
    wrong = len(result.differences) - result.repaired
    return 1 if wrong or result.failed else 0


async def _clients(settings: Settings, stack: AsyncExitStack) -> dict[str, Client]:
    http = await stack.enter_async_context(open_http())
    clock = Clock(settings.clock.origin, settings.clock.speed)
    clients = {}
    for account in settings.accounts:
        budget = open_budget(settings, account, clock)
        tokens, client = open_login(settings, account, http, clock, budget)
        await stack.enter_async_context(tokens)
        clients[account.name] = client
    return clients


def _chosen(coverage: Coverage, entities: Mapping[str, Entity], options: Options) -> bool:
    entity = entities.get(coverage.entity_id)
    names = {None, coverage.entity_id, entity.description["name"] if entity else None}
    return options.account in (None, coverage.owner) and options.module in names


def _entity(document: Mapping[str, Any]) -> Entity:
    return Entity(
        account=document.get("account", ""),
        kind=document.get("kind", "module"),
        entity_id=document["_id"],
        home_id=document.get("home_id", ""),
        device_id=document.get("device_id", ""),
        type=document.get("type", ""),
        description={"name": document.get("name", ""), "timezone": document.get("timezone")},
        setup=document.get("setup"),
    )


def _draw(
    coverage: Sequence[Coverage], entities: Mapping[str, Entity], options: Options
) -> list[tuple[Coverage, datetime]]:
    """Random windows, none twice: all of them when there are no more than asked for."""
    windows = [
        (each, begin)
        for each in coverage
        if each.entity_id in entities and each.scale in (*WIDTHS, "1day")
        for stretch in each.filled
        for begin in _begins(stretch, _window(each))
    ]
    chance = random.Random(options.seed)  # noqa: S311
    return chance.sample(windows, min(options.windows, len(windows)))


def _begins(stretch: Interval, window: timedelta) -> Iterator[datetime]:
    begin, end = stretch
    while begin < end:
        yield begin
        begin += window


def _window(coverage: Coverage) -> timedelta:
    """A page of rows, or a little less."""
    if coverage.scale == "1day":
        return DAYS_WINDOW
    return WINDOW if coverage.scale == "max" else (PAGE_ROWS - 1) * WIDTHS[coverage.scale]


def _poll(entity: Entity, coverage: Coverage, begin: datetime) -> Poll:
    if coverage.scale == "1day":
        return days_poll(
            coverage.owner, entity, (), begin, priority=Priority.REREAD, asked=coverage.types
        )
    return rows_poll(
        coverage.owner,
        entity,
        coverage.types,
        begin,
        scale=coverage.scale,
        priority=Priority.REREAD,
    )


class _Checker:
    """Compares windows one by one, and repairs each at once if it is to."""

    def __init__(self, store: Store, clients: Mapping[str, Client], *, repairs: bool) -> None:
        self.result = Result()
        self._store = store
        self._clients = clients
        self._repairs = repairs

    async def check(self, entity: Entity, coverage: Coverage, begin: datetime) -> None:
        """One window: at most a page of rows from `begin` on."""
        client = self._clients.get(coverage.owner)
        if client is None:
            self.result.failed.append(f"{coverage.entity_id}: its account is not configured")
            return
        poll = _poll(entity, coverage, begin)
        try:
            reply = await client.call(
                poll.endpoint.name, poll.params, priority=Priority.REREAD, purpose="reread"
            )
        except LoginRequired:
            raise
        except IngestError as error:
            self.result.failed.append(f"{coverage.entity_id}: {error}")
            return
        parsed = poll.endpoint.parse(reply, poll)
        if not parsed.facts:
            return
        end = min(parsed.facts[0].end, begin + _window(coverage))
        # Of what is not covered yet nothing can be missing.
        spans = subtract(intersect(coverage.covered, ((begin, end),)), coverage.forgotten)
        rows = [each for each in parsed.records if isinstance(each, (Measurement, Summary))]
        told = {each.time: each for each in rows if covers(spans, each.time, each.time + SECOND)}
        stored = {
            row["time"]: row["values"]
            for row in await self._stored(coverage, begin, end)
            if covers(spans, row["time"], row["time"] + SECOND)
        }
        self.result.windows += 1
        self.result.rows += len(told)
        wrong = self._compare(coverage, told, stored)
        if self._repairs:
            await self._repair(wrong)

    def _compare(
        self,
        coverage: Coverage,
        told: Mapping[datetime, Measurement | Summary],
        stored: Mapping[datetime, Mapping[str, Any]],
    ) -> list[Measurement | Summary]:
        """Note what differs; what the cloud says of it."""
        found: list[Measurement | Summary] = []
        for at in sorted({*told, *stored}):
            cloud, here = told.get(at), stored.get(at)
            if cloud is None:
                what = "unknown"
            elif here is None:
                what = "missing"
            elif any(here.get(name) != value for name, value in cloud.values.items()):
                what = "altered"
            else:
                continue
            if cloud:
                found.append(cloud)
            values = cloud.values if cloud else {}
            self.result.differences.append(
                Difference(coverage.entity_id, coverage.scale, at, what, here or {}, values)
            )
        return found

    async def _stored(self, coverage: Coverage, begin: datetime, end: datetime) -> list[Document]:
        if coverage.scale == "1day":
            return await self._store.summaries(coverage.entity_id, begin, end)
        return await self._store.rows(coverage.entity_id, coverage.scale, begin, end)

    async def _repair(self, rows: Sequence[Measurement | Summary]) -> None:
        """Write what the cloud says; a row that it does not know is kept."""
        wanted = [operation for row in rows for operation in operations(records.as_document(row))]
        for bulk in BulkSize(500).cut(wanted):
            outcome = await self._store.write(bulk)
            if outcome.written < len(bulk):
                reason = [*outcome.rejected, *outcome.retry][0][1]
                raise StoreUnavailable(f"verify: a row is refused: {reason}", reason="refused")
            self.result.repaired += outcome.written
        if wanted:
            await self._store.barrier()


# --- what one sees ------------------------------------------------------------------------------


def _iso(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def _show(
    result: Result, report: Sequence[Mapping[str, Any]], options: Options, out: Console
) -> None:
    for each in result.differences[:SHOWN]:
        out.print(
            plain(
                f"{each.what}: {each.module_id} {each.scale} at {_iso(each.time)}: "
                f"stored {dict(each.stored)}, the cloud says {dict(each.cloud)}"
            ),
            soft_wrap=True,
        )
    if (more := len(result.differences) - SHOWN) > 0:
        out.print(f"… and {more} more (--json lists all)")
    for text in result.failed:
        out.print(plain(f"not compared: {text}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for title in ("module", "name", "scale", "covered", "holes", "empty, final"):
        table.add_column(title)
    for row in report:
        table.add_row(
            plain(row["module"]),
            plain(str(row["name"])),
            row["scale"],
            "  ".join(f"{year} {share:g} %" for year, share in row["percent"].items()),
            "; ".join(f"{_iso(begin)} to {_iso(end)}" for begin, end in row["holes"][:5]) or "none",
            f"{len(row['empty'])}, {len(row['empty_final'])}",
        )
    show_table(table, out)
    count = len(result.differences)
    out.print(f"{result.windows} windows with {result.rows} rows compared, {count} differ.")
    if count and options.repair:
        kept = count - result.repaired
        out.print(
            f"{result.repaired} repaired."
            + (f" {kept} are unknown to the cloud, and kept." if kept else "")
        )
    elif count:
        out.print("netatmo-ingestd verify --repair writes what the cloud says.")
