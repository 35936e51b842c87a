"""The database is emptied or replaced by an older copy: exactly what it lacks is fetched again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, opened, tell, until
from tests.faults.past import DAY, differences, filled, holes, journal, least_calls
from tests.stores import RunningStore, embedded_store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FEW = {"include": ["Garden", "Rain"]}
Copy = dict[str, list[dict[str, Any]]]


@contextmanager
def frozen(house: House, *, running: bool) -> Iterator[None]:
    """The daemon writes nothing meanwhile: it stands still, or does not run."""
    if running:
        os.kill(house.running.pid, signal.SIGSTOP)
        yield
        os.kill(house.running.pid, signal.SIGCONT)
    else:
        assert house.stop() == 0
        yield
        house.start()


def dump(house: House) -> Copy:
    """Everything in the database, the ledger first."""
    with house.database() as database:
        names = sorted(database.list_collection_names(), key=lambda name: name != "coverage")
        return {name: list(database[name].find({})) for name in names}


def replace_database(house: House, copy: Copy) -> None:
    """As somebody does who restores a dump."""
    with house.database() as database:
        for name in database.list_collection_names():
            database[name].delete_many({})
        for name, documents in copy.items():
            if documents:
                database[name].insert_many(documents)


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
async def test_emptied(tmp_path: Path, running: bool) -> None:
    """An emptied database is filled again from the set-up on, with no call too many."""
    async with embedded_store(tmp_path / "mongod") as store:
        with _filled_house(tmp_path, store) as house:
            before = len(journal(house, "history"))
            with frozen(house, running=running):
                replace_database(house, {})

            _noticed_and_filled(house)

            again = len(journal(house, "history")) - before
            least = least_calls(house, house.modules())
            _complete(house)
    tell(f"{again} calls of history again, {least} hold everything")
    assert least - 2 * len(FEW["include"]) <= again <= least + len(FEW["include"])


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
async def test_older_copy(tmp_path: Path, running: bool) -> None:
    """Of an older copy only what it lacks is fetched: the half that was not there yet."""
    async with embedded_store(tmp_path / "mongod") as store:
        with opened(tmp_path, **_SETTINGS, uri=store.uri) as house:
            house.start()
            half = least_calls(house, house.modules()) // 2
            until(
                lambda: len(journal(house, "history")) >= half,
                within=120,
                what="half of history is fetched",
                house=house,
            )
            until(lambda: house.coverage("1day"), within=30, what="some is stored", house=house)
            with frozen(house, running=True):
                copy = dump(house)
            filled(house, within=200)
            whole = len(journal(house, "history"))
            had = len(copy["measurements"])

            with frozen(house, running=running):
                replace_database(house, copy)
            _noticed_and_filled(house)

            again = len(journal(house, "history")) - whole
            with house.database() as database:
                rows = database["measurements"].count_documents({})
            _complete(house)
    tell(f"the copy had {had} of {rows} rows; {again} calls of history again, {whole} at first")
    # Each module's last page before the copy may have been on its way.
    assert again <= (rows - had) / 1024 + 2 * len(FEW["include"])


_SETTINGS: dict[str, Any] = {
    "speed": 60,
    "days": 40,
    "history": {"since": "all"},
    "account": FEW,
}


@contextmanager
def _filled_house(folder: Path, store: RunningStore) -> Iterator[House]:
    with opened(folder, **_SETTINGS, uri=store.uri) as house:
        house.start()
        filled(house, within=200)
        yield house


def _noticed_and_filled(house: House) -> None:
    until(lambda: house.events("store.replaced"), within=60, what="it is noticed", house=house)
    house.settle(within=120)
    filled(house, within=200)


def _complete(house: House) -> None:
    end = house.now - DAY / 24
    wrong = {
        module: found for module in house.modules() if (found := differences(house, module, 0, end))
    }
    assert not wrong
    assert not holes(house)
