"""Ratios measured side by side in one run; a command, not a timed test.

python tests/benchmarks/ratios.py

Each figure is the median of some rounds in which both sides take turns, so a machine whose speed
drifts moves both. What is kept in view: one spool row for a batch against one for each record; a
re-delivered batch against a new one; an answer parsed against the same answer merely decoded.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from netatmo_ingestd import records
from netatmo_ingestd.embedded import EmbeddedStore
from netatmo_ingestd.models import Batch, Entity, Measurement
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.polls import Reply
from netatmo_ingestd.sources.measure import parse_rows, rows_poll
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.upserts import operations

ROUNDS = 7
BEGIN = datetime(2025, 10, 9, tzinfo=UTC)
TYPES = ("Temperature", "CO2", "Humidity")


def _rows(count: int, module: str) -> list[Measurement]:
    return [
        Measurement(
            account="home",
            home_id="h",
            device_id="d",
            module_id=module,
            module_type="NAModule4",
            scale="max",
            time=BEGIN + timedelta(minutes=5 * number),
            values={"temperature": 20.0 + number % 7, "co2": 600.0, "humidity": 50.0},
            source="getmeasure",
        )
        for number in range(count)
    ]


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _compare(
    name: str, first: Callable[[], Awaitable[object]], second: Callable[[], Awaitable[object]]
) -> None:
    pairs = [(await _timed(first), await _timed(second)) for _ in range(ROUNDS)]
    ratio = statistics.median(one / other for one, other in pairs)
    ms = [1000 * statistics.median(side) for side in zip(*pairs, strict=True)]
    sys.stdout.write(f"{name}: {ratio:.2f} ({ms[0]:.1f} ms / {ms[1]:.1f} ms)\n")


async def spool(folder: Path) -> None:
    """128 records as one batch against 128 batches of one."""
    queue = Spool(folder, 1 << 30)
    await queue.open()
    rows = _rows(128, "m")

    async def together() -> None:
        await queue.append(Batch("home", "getmeasure", rows), {})

    async def apart() -> None:
        for row in rows:
            await queue.append(Batch("home", "getmeasure", [row]), {})

    await _compare("spool, one row a batch / one row a record", together, apart)
    await queue.close()


async def store(folder: Path) -> None:
    """500 new rows against the same 500 again."""
    server = EmbeddedStore(folder)
    database = Store(await server.start(), "bench")
    await database.make_indexes(anew=True)
    names = iter(range(1000))
    last: list[Measurement] = []

    def bulk(rows: list[Measurement]) -> list[object]:
        return [each for row in rows for each in operations(records.as_document(row))]

    async def fresh() -> None:
        last[:] = _rows(500, f"m{next(names)}")
        await database.write(bulk(last))  # type: ignore[arg-type]

    async def again() -> None:
        await database.write(bulk(last))  # type: ignore[arg-type]

    await _compare("store, new rows / the same again", fresh, again)
    await database.close()
    await server.stop()


async def parse() -> None:
    """A full page of rows: parsed against merely decoded."""
    stamps = [int((BEGIN + timedelta(minutes=5 * number)).timestamp()) for number in range(1024)]
    raw = json.dumps({str(stamp): [20.5, 600, 50] for stamp in stamps})
    target = Entity("home", "module", "m", "h", "d", "NAModule4", {})
    poll = rows_poll("home", target, TYPES, BEGIN)
    now = BEGIN + timedelta(days=4)

    async def parsed() -> None:
        parse_rows(Reply(json.loads(raw), now, now, raw.encode()), poll)

    async def decoded() -> None:
        json.loads(raw)

    await _compare("getmeasure page, parsed / decoded", parsed, decoded)


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        await spool(Path(name))
        await store(Path(name) / "store")
    await parse()


if __name__ == "__main__":
    asyncio.run(main())
