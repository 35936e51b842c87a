"""The demo's comparison: a store against what the simulated cloud had shown."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from netatmo_ingestd import demo
from netatmo_ingestd.demo import Comparison
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.process import Stop
from netatmo_ingestd.simulator.world import World
from netatmo_ingestd.sources import MODULE_TYPES
from netatmo_ingestd.sources.quantities import UPSTREAM
from tests.stores import embedded_store

ORIGIN = 1_760_000_000.0
BEGIN = ORIGIN - 2 * 86_400


@dataclass
class Rows:
    """As much of a store as the comparison reads."""

    documents: list[dict[str, Any]]

    async def rows(
        self, module_id: str, scale: str, begin: datetime, end: datetime
    ) -> list[dict[str, Any]]:
        return [
            each
            for each in self.documents
            if each["module_id"] == module_id
            and each["scale"] == scale
            and begin <= each["time"] < end
        ]


@pytest.fixture(scope="module")
def world() -> World:
    return World(1, 1, origin=ORIGIN, coaches=1)


def module_of(world: World, kind: str) -> str:
    return next(each.id for each in world.modules() if each.type == kind)


def documents(world: World, module_id: str) -> list[dict[str, Any]]:
    """What a perfect daemon would have stored by ORIGIN."""
    kind = world.by_id[module_id].type
    return [
        {
            "_id": f"{module_id}|max|{epoch}",
            "module_id": module_id,
            "scale": "max",
            "time": datetime.fromtimestamp(epoch, UTC),
            "values": {
                UPSTREAM[name.lower()]: float(values[name])
                for name in MODULE_TYPES[kind].history
                if values.get(name) is not None and not (name == "WindAngle" and values[name] < 0)
            },
        }
        for epoch, values in world.samples(module_id, BEGIN, ORIGIN, visible_at=ORIGIN)
    ]


async def compare(store: Any, world: World, module_id: str) -> Comparison:
    covered = (datetime.fromtimestamp(BEGIN, UTC), datetime.fromtimestamp(ORIGIN, UTC))
    return await demo._compare_module(
        cast("Store", store), world, module_id, (covered,), ORIGIN, ORIGIN + 600
    )


@pytest.mark.parametrize(
    "kind",
    [kind for kind, each in MODULE_TYPES.items() if each.product in ("weather", "aircare")],
)
async def test_a_perfect_store_has_no_difference(world: World, kind: str) -> None:
    """For every type of module, exactly what was shown counts as nothing wrong."""
    module_id = module_of(world, kind)
    rows = documents(world, module_id)

    found = await compare(Rows(rows), world, module_id)

    assert found == Comparison(measurements=len(rows), expected=len(rows))
    assert len(rows) > 500


def delete(rows: list[dict[str, Any]]) -> None:
    del rows[len(rows) // 2]


def delete_first(rows: list[dict[str, Any]]) -> None:
    del rows[0]


def delete_last(rows: list[dict[str, Any]]) -> None:
    del rows[-1]


def alter(rows: list[dict[str, Any]]) -> None:
    rows[7]["values"]["temperature"] += 0.1


def drop_a_value(rows: list[dict[str, Any]]) -> None:
    del rows[7]["values"]["humidity"]


def double(rows: list[dict[str, Any]]) -> None:
    rows.append({**copy.deepcopy(rows[3]), "_id": "another"})


def invent(rows: list[dict[str, Any]]) -> None:
    other = copy.deepcopy(rows[3])
    other["time"] = datetime.fromtimestamp(int(other["time"].timestamp()) + 77, UTC)
    rows.append({**other, "_id": "another"})


def move(rows: list[dict[str, Any]]) -> None:
    rows[3]["time"] = datetime.fromtimestamp(int(rows[3]["time"].timestamp()) + 1, UTC)


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (delete, {"missing": 1, "measurements": -1}),
        (delete_first, {"missing": 1, "measurements": -1}),
        (delete_last, {"missing": 1, "measurements": -1}),
        (alter, {"different": 1}),
        (drop_a_value, {"different": 1}),
        (double, {"duplicates": 1, "measurements": 1}),
        (invent, {"unexpected": 1, "measurements": 1}),
        (move, {"unexpected": 1, "missing": 1}),
    ],
)
async def test_each_damage_is_found(
    world: World, damage: Callable[[list[dict[str, Any]]], None], seen: dict[str, int]
) -> None:
    """One row deleted, altered, doubled, invented or moved is counted as exactly that."""
    module_id = module_of(world, "NAModule1")
    rows = documents(world, module_id)
    size = len(rows)
    damage(rows)

    found = await compare(Rows(rows), world, module_id)

    expected = {"measurements": size + seen.pop("measurements", 0), "expected": size, **seen}
    assert found == Comparison(**expected)


async def test_an_empty_store_lacks_everything(world: World) -> None:
    """With no row at all, each one that was shown is missing."""
    module_id = module_of(world, "NAModule3")

    found = await compare(Rows([]), world, module_id)

    assert found.missing == found.expected == len(documents(world, module_id))


# --- the same on the embedded store -------------------------------------------------------------


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with embedded_store(tmp_path) as running:
        opened = Store(running.uri, "netatmo")
        await opened.make_indexes(anew=True)
        yield opened
        await opened.close()


@pytest.mark.contract
@pytest.mark.parametrize("damage", [delete, alter, double, invent])
async def test_each_damage_is_found_on_a_real_server(
    world: World, store: Store, damage: Callable[[list[dict[str, Any]]], None]
) -> None:
    """The comparison reads a real server as it reads the double."""
    module_id = module_of(world, "NAModule1")
    rows = documents(world, module_id)
    rows_at = store._collection("measurements")
    await rows_at.insert_many(copy.deepcopy(rows))
    whole = await compare(store, world, module_id)
    assert whole == Comparison(measurements=len(rows), expected=len(rows))

    damage(rows)
    await rows_at.delete_many({})
    await rows_at.insert_many(rows)

    assert await compare(store, world, module_id) == await compare(Rows(rows), world, module_id)


# --- how it ends --------------------------------------------------------------------------------


async def test_a_bounded_run_is_not_an_interrupted_one() -> None:
    """Only a run that ends before its time was ended by a person."""
    stop = Stop()
    running = asyncio.ensure_future(asyncio.sleep(3600))
    stop.asked.set()

    now = asyncio.get_running_loop().time()

    assert await demo._until_stopped(running, stop, now, 3600)
    assert await demo._until_stopped(running, stop, now, 0)
    assert not await demo._until_stopped(running, stop, now - 10, 5)
    running.cancel()
