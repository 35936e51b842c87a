"""The writer and history: rows that a re-read revised, facts that a damaged spool row had."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd.errors import StoreUnavailable
from netatmo_ingestd.models import Batch, Fact
from netatmo_ingestd.spool import Spool
from tests.test_writer import Bench, bench, entity, fact, once, row

__all__ = ["bench"]  # a fixture


async def append(bench: Bench, *of: Any, reread: bool = True, facts: tuple[Fact, ...] = ()) -> None:
    await bench.spool.append(Batch("home", "getmeasure", of, facts, reread), {})


async def test_rows_that_a_reread_changed_are_revised(bench: Bench) -> None:
    """Changed rows of a re-read count; new ones, equal ones and those of other reads do not."""
    await bench.append(*(row(n, temperature=1.0) for n in range(6)), entity(1))
    await bench.steps()
    assert bench.writer.counters.revised == 0

    await append(bench, row(0, temperature=1.0), row(1, temperature=2.0), row(9), entity(2))
    await append(bench, row(2, temperature=3.0), reread=False)
    await bench.steps()

    assert bench.writer.counters.modified == 3
    assert bench.writer.counters.revised == 1


@pytest.mark.parametrize("on", ["measurements", "merge", "barrier", "coverage"])
async def test_a_repeated_round_revises_once(bench: Bench, on: str) -> None:
    """Whatever fails behind the write, a row that changed is counted once."""
    await bench.append(row(1, temperature=1.0))
    await bench.steps()
    bench.store.fault = once(
        StoreUnavailable("as asked", reason="down"), StoreUnavailable("again", reason="down"), on=on
    )

    await append(bench, row(1, temperature=2.0), facts=(fact(0, 3),))
    await bench.steps()

    assert bench.writer.counters.revised == 1


async def test_revised_rows_are_counted_over_restarts(bench: Bench) -> None:
    """The count lies on the spool: it is that of all runs since the spool was made."""
    await bench.append(row(1, temperature=1.0))
    await append(bench, row(1, temperature=2.0))
    await bench.steps()

    bench.begin()
    await append(bench, row(1, temperature=3.0))
    await bench.steps()

    assert bench.writer.counters.revised == 2


async def test_what_a_damaged_row_had_covered_is_missing_again(tmp_path: Path) -> None:
    """The ledger in memory forgets what it took from it, and keeps what is in the store."""
    lost, kept = fact(5, 8), fact(10, 13)
    bench = Bench(Spool(tmp_path, 1 << 28))
    await bench.spool.open()
    await bench.append(row(0), facts=(fact(0, 3),))
    await bench.steps()
    await bench.append(row(5), facts=(lost,))
    await bench.spool.close()
    with closing(sqlite3.connect(bench.spool.path)) as file:
        file.execute("UPDATE batches SET body = x'00'")
        file.commit()

    bench.spool = Spool(tmp_path, 1 << 28)
    await bench.spool.open()
    bench.begin()
    bench.ledger.note([lost, kept])
    await bench.append(row(10), facts=(kept,))
    await bench.steps()
    await bench.spool.close()

    found = bench.ledger.find("m", "max")
    assert found is not None
    assert bench.ledger.loaded
    assert found.covered == tuple((each.begin, each.end) for each in (fact(0, 3), kept))
    assert [fields["row"] for fields in bench.log.named("spool.row_damaged")] == [2]


async def test_the_copy_in_memory_and_the_store_agree(bench: Bench) -> None:
    """After facts in several batches, of several modules and scales, both say the same."""
    facts = [fact(0, 3), fact(3, 8), fact(20, 30), replace(fact(0, 9), scale="1day"),
             fact(4, 5, "n"), fact(1, 3)]  # fmt: skip
    for place, each in enumerate(facts):
        await bench.append(row(place), facts=(each,))
        bench.ledger.note([each])

    await bench.steps()

    stored = {(each.entity_id, each.scale): each for each in await bench.store.coverage()}
    assert len(stored) == len(bench.ledger) == 3
    for known in bench.ledger.all():
        assert known == stored[known.entity_id, known.scale]
