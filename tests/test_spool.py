"""The spool: order, bounds, what survives a kill, a full disk and a damaged file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.errors import Busy, ConfigError, SpoolError
from netatmo_ingestd.models import Batch, DeadLetter, Fact
from netatmo_ingestd.spool import BALLAST_BYTES, Spool

NOW = datetime(2025, 11, 1, 12, tzinfo=UTC)
MIB = 1 << 20


def batch(text: str, size: int = 0, facts: tuple[Fact, ...] = ()) -> Batch:
    return Batch("home", "test", [DeadLetter(text, "x" * size, NOW)], facts)


def name_of(body: bytes) -> str:
    (document,), *_ = records.unpack(body)
    return str(document["reason"])


async def names(spool: Spool) -> list[str]:
    return [name_of(each.body) for each in await spool.oldest_batches(10_000, 1 << 40)]


def sparse_ballast(folder: Path) -> None:
    """Taken for a real one: eight MiB less to write for each test that does not need it."""
    if not folder.is_mount():
        with (folder / "spool.ballast").open("ab") as file:
            file.truncate(BALLAST_BYTES)


@contextlib.asynccontextmanager
async def opened(folder: Path, max_bytes: int = 64 * MIB) -> AsyncIterator[Spool]:
    spool = Spool(folder, max_bytes)
    sparse_ballast(folder)
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with opened(tmp_path) as it:
        yield it


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- a queue --------------------------------------------------------------------------------------


async def test_first_in_first_out(spool: Spool) -> None:
    """Batches come out in the order they went in, however they are settled between."""
    for text in "abcde":
        await spool.append(batch(text), {})

    first, second, third, *_ = await spool.oldest_batches(9, MIB)
    await spool.settle([second.id], {})
    await spool.append(batch("f"), {})

    assert [name_of(each.body) for each in (first, third)] == ["a", "c"]
    assert await names(spool) == ["a", "c", "d", "e", "f"]


async def test_parallel_appends_are_all_there(spool: Spool) -> None:
    """Accounts that append at the same time lose nothing and mix nothing."""
    await asyncio.gather(*(spool.append(batch(f"{place:02}"), {}) for place in range(40)))

    assert sorted(await names(spool)) == [f"{place:02}" for place in range(40)]
    assert (spool.batches, spool.records, spool.appended) == (40, 40, 40)


async def test_oldest_batches_respects_both_limits(spool: Spool) -> None:
    """At most so many batches and bytes are taken, but one at least."""
    for text in "abc":
        await spool.append(batch(text, 1000), {})

    assert len(await spool.oldest_batches(2, MIB)) == 2
    assert len(await spool.oldest_batches(9, 2500)) == 2
    assert len(await spool.oldest_batches(9, 1)) == 1


async def test_counts_follow_what_waits(spool: Spool) -> None:
    """Batches, records, bytes, fill and oldest describe what waits, and zero when nothing does."""
    assert (spool.batches, spool.records, spool.bytes, spool.oldest) == (0, 0, 0, None)
    letters = [DeadLetter("a", "x" * 5000, NOW)] * 3
    await spool.append(Batch("home", "test", letters), {})
    oldest = spool.oldest
    await spool.append(batch("b"), {})

    (first, second) = await spool.oldest_batches(9, MIB)
    assert (spool.batches, spool.records) == (2, 4)
    assert spool.bytes == len(first.body) + len(second.body)
    assert spool.fill == spool.bytes / spool.max_bytes
    assert spool.oldest == oldest

    await spool.settle([first.id, second.id, 999], {})
    assert (spool.batches, spool.records, spool.bytes, spool.oldest) == (0, 0, 0, None)


async def test_append_wakes_the_writer(spool: Spool) -> None:
    """`arrived` is set by an append and by nothing else."""
    await spool.note({"a": "1"})
    assert not spool.arrived.is_set()

    await spool.append(batch("a"), {})

    assert spool.arrived.is_set()


async def test_bound(tmp_path: Path) -> None:
    """What would exceed the bound is refused as full and leaves no trace; settling makes room."""
    async with opened(tmp_path, max_bytes=3000) as spool:
        await spool.append(batch("a", 1500), {("e", "x"): {"v": 1}})

        with pytest.raises(SpoolError, match="raise \\[spool\\] max_bytes") as caught:
            await spool.append(batch("b", 1500), {("e", "x"): {"v": 2}})
        assert caught.value.full
        assert await names(spool) == ["a"]
        assert await spool.last() == {("e", "x"): {"v": 1}}

        await spool.settle([1], {})
        await spool.append(batch("b", 1500), {})
        assert await names(spool) == ["b"]


async def test_facts_survive(spool: Spool) -> None:
    """The facts of a batch come back equal."""
    types, later = ("Temperature", "CO2"), NOW.replace(hour=13)
    fact = Fact("m", "max", types, NOW, later, 7, NOW, "home", later, ((NOW, later),), True, NOW)
    await spool.append(batch("a", facts=(fact,)), {})

    (waiting,) = await spool.oldest_batches(9, MIB)

    assert records.unpack(waiting.body)[1] == [fact]


# --- last and meta --------------------------------------------------------------------------------


async def test_last_and_batch_are_one_transaction(spool: Spool) -> None:
    """When the rows of `last` cannot be written, the batch is not there either, nor in the way."""
    with pytest.raises(UnicodeEncodeError):
        await spool.append(batch("a"), {("fine", "x"): {"v": 1}, ("\ud800", "x"): {"v": 1}})

    assert (await names(spool), await spool.last(), spool.batches) == ([], {}, 0)
    await spool.append(batch("b"), {("fine", "x"): {"v": 2}})
    assert (await names(spool), await spool.last()) == (["b"], {("fine", "x"): {"v": 2}})


async def test_last_keeps_types(spool: Spool) -> None:
    """Values of `last` come back with their types, dates included; the newest one counts."""
    value = {"at": NOW, "n": None, "f": 21.0, "i": 21, "t": [True, "ü\ud800"], "m": {"$date": NOW}}
    await spool.append(batch("a"), {("e", "x"): {"old": 1}, ("e", "y"): {"kept": 1}})
    await spool.append(batch("b"), {("e", "x"): value})

    found = await spool.last()

    assert found == {("e", "x"): value, ("e", "y"): {"kept": 1}}
    assert type(found["e", "x"]["f"]) is float


async def test_forget_last_keeps_the_queue(spool: Spool) -> None:
    """Forgetting the last answers drops all of them, notes the meta and leaves the batches."""
    await spool.append(batch("a"), {("e", "x"): {"v": 1}, ("f", ""): {"v": 1}})

    await spool.forget_last({"store_id": "s2"})

    assert (await spool.last(), await names(spool)) == ({}, ["a"])
    assert await spool.meta() == {"store_id": "s2"}


async def test_settle_notes_meta_in_the_same_step(spool: Spool) -> None:
    """Meta is replaced key by key."""
    await spool.append(batch("a"), {})
    await spool.note({"rev": "1", "indexes": "1"})

    await spool.settle([1], {"rev": "2"})

    assert await spool.meta() == {"rev": "2", "indexes": "1"}
    assert spool.batches == 0


# --- on disk --------------------------------------------------------------------------------------


async def test_reopened_after_close(tmp_path: Path) -> None:
    """A closed spool opens with its batches, counts, last answers and meta."""
    async with opened(tmp_path) as spool:
        await spool.append(batch("a", 100), {("e", "x"): {"at": NOW}})
        await spool.append(batch("b"), {})
        await spool.note({"k": "v"})
        before = (spool.batches, spool.records, spool.bytes, spool.oldest)

    async with opened(tmp_path) as spool:
        assert (spool.batches, spool.records, spool.bytes, spool.oldest) == before
        assert await names(spool) == ["a", "b"]
        assert await spool.last() == {("e", "x"): {"at": NOW}}
        assert await spool.meta() == {"k": "v"}
        assert spool.damaged is None


_APPENDER = textwrap.dedent("""
    import asyncio, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from netatmo_ingestd.models import Batch, DeadLetter
    from netatmo_ingestd.spool import Spool

    async def main():
        spool = Spool(Path(sys.argv[1]), 1 << 30)
        await spool.open()
        for place in range(100_000):
            letter = DeadLetter(str(place), "x" * (place * 997 % 30_000), datetime.now(UTC))
            await spool.append(Batch("a", "e", [letter]), {("e", "x"): {"place": place}})
            print(place, flush=True)

    asyncio.run(main())
""")


@pytest.mark.parametrize("acknowledged", [1, 60])
async def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path: Path, acknowledged: int) -> None:
    """After SIGKILL amid appends every acknowledged batch is there, once, with its `last`."""
    child = subprocess.Popen(  # noqa: ASYNC220  its lines are what we wait for
        [sys.executable, "-c", _APPENDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(acknowledged)]

    child.kill()
    told += [int(line) for line in child.stdout.read().splitlines(keepends=True) if "\n" in line]
    child.stdout.close()
    child.wait()

    async with opened(tmp_path, 1 << 30) as spool:
        found = [int(name) for name in await names(spool)]
        last = await spool.last()
        assert not any(each.damaged for each in await spool.oldest_batches(10_000, 1 << 40))
    assert found == list(range(len(found)))
    assert len(told) <= len(found) <= len(told) + 1
    assert last["e", "x"]["place"] == found[-1]


async def test_how_it_is_opened(spool: Spool) -> None:
    """The file is opened as power cuts demand: WAL, full sync, one locked connection."""
    pragmas = ("journal_mode", "synchronous", "locking_mode", "mmap_size", "auto_vacuum")

    def read() -> dict[str, object]:
        db = spool._connection()
        found = {name: db.execute(f"PRAGMA {name}").fetchone() for name in pragmas}
        return {name: row[0] if row else None for name, row in found.items()}

    assert await spool._run(read) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "mmap_size": 0,
        "auto_vacuum": 2,
    }


async def test_only_the_owner_reads_it(spool: Spool, tmp_path: Path) -> None:
    """Neither the file nor its log is open to others."""
    await spool.append(batch("a"), {})

    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in listed(tmp_path)}

    assert modes.pop("spool.ballast")
    assert modes == {"spool.db": 0o600, "spool.db-wal": 0o600}


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """A spool restored with wide rights is private again before anything is written to it."""
    async with opened(tmp_path) as spool:
        await spool.append(batch("a"), {})
    spool.path.chmod(0o644)

    async with opened(tmp_path) as again:
        await again.append(batch("b"), {})
        assert (tmp_path / "spool.db-wal").stat().st_mode & 0o777 == 0o600
        assert again.path.stat().st_mode & 0o777 == 0o600


async def test_disk_is_given_back(tmp_path: Path) -> None:
    """After an outage has drained, the file is small again."""
    async with opened(tmp_path) as spool:
        for place in range(12):
            await spool.append(batch(str(place), MIB // 2), {})
        await spool._run(lambda: spool._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        large = spool.path.stat().st_size
        for waiting in await spool.oldest_batches(99, 1 << 40):
            await spool.settle([waiting.id], {})

    assert large > 6 * MIB
    assert spool.path.stat().st_size < MIB


async def test_second_opener_is_told(tmp_path: Path) -> None:
    """A second opener of the same folder gets one line for the operator, the first is untouched."""
    async with opened(tmp_path) as first:
        await first.append(batch("a"), {})

        second = Spool(tmp_path, MIB)
        with pytest.raises(Busy, match=r"another daemon uses it; stop") as caught:
            await second.open()

        assert "\n" not in str(caught.value)
        assert second.damaged is None
        await first.append(batch("b"), {})
        assert await names(first) == ["a", "b"]


@pytest.mark.parametrize("obstacle", ["no folder", "folder is a file", "file is a folder"])
async def test_unusable_folder_is_told(tmp_path: Path, obstacle: str) -> None:
    """A state folder that cannot be used is one line that names the file."""
    folder = tmp_path / "state"
    if obstacle == "folder is a file":
        folder.write_text("")
    elif obstacle == "file is a folder":
        (folder / "spool.db").mkdir(parents=True)

    with pytest.raises(ConfigError, match="check owner, rights and free space") as caught:
        await Spool(folder, MIB).open()

    assert str(caught.value).startswith(str(folder / "spool.db"))
    assert "\n" not in str(caught.value)


async def test_use_before_open_is_told() -> None:
    """A spool that is not open says so instead of failing deep inside."""
    with pytest.raises(SpoolError, match="is not open"):
        await Spool(Path("nowhere"), MIB).append(batch("a"), {})


# --- damage ---------------------------------------------------------------------------------------


async def filled(folder: Path) -> bytes:
    async with opened(folder) as spool:
        for text in "abc":
            await spool.append(batch(text, 20_000), {})
    return spool.path.read_bytes()


@pytest.mark.parametrize("pages", ["first", "others"])
async def test_damaged_file_is_kept_and_a_new_one_begun(tmp_path: Path, pages: str) -> None:
    """A file with overwritten pages is set aside byte for byte and the daemon starts anew."""
    body = await filled(tmp_path)
    junk = os.urandom(4096) + body[4096:] if pages == "first" else body[:4096] + b"\xa5" * 40_960
    (tmp_path / "spool.db").write_bytes(junk)

    async with opened(tmp_path) as spool:
        assert spool.damaged is not None
        assert spool.damaged.read_bytes() == junk
        assert (spool.batches, await names(spool)) == (0, [])
        await spool.append(batch("d"), {})

    async with opened(tmp_path) as again:
        assert again.damaged is None
        assert await names(again) == ["d"]


async def test_damaged_files_are_all_kept(tmp_path: Path) -> None:
    """A second damaged file, even in the same second, does not replace the first."""
    kept = {}
    for junk in (b"first" * 2000, b"second" * 2000):
        (tmp_path / "spool.db").write_bytes(junk)
        async with opened(tmp_path) as spool:
            assert spool.damaged is not None
            kept[spool.damaged] = junk

    assert {path: path.read_bytes() for path in kept} == kept
    assert sum("damaged" in name for name in listed(tmp_path)) == 2


async def test_row_with_a_bad_checksum_is_marked(tmp_path: Path) -> None:
    """A changed body is marked damaged and still handed out; its neighbours are untouched."""
    await filled(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "spool.db")) as db, db:
        db.execute("UPDATE batches SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE id = 2")
        db.execute("INSERT INTO last VALUES ('e', 'x', x'00', x'7b7d')")

    async with opened(tmp_path) as spool:
        waiting = await spool.oldest_batches(9, MIB)
        last = await spool.last()

    assert [each.damaged for each in waiting] == [False, True, False]
    assert waiting[1].body[:1] == b"\x00"
    assert [name_of(each.body) for each in (waiting[0], waiting[2])] == ["a", "c"]
    assert last == {}


async def test_damage_while_open_is_a_spool_error(spool: Spool) -> None:
    """What SQLite says about a broken file reaches callers as SpoolError that is not `full`."""
    await spool._run(lambda: spool._connection().execute("DROP TABLE batches"))

    for call in (spool.oldest_batches(1, 1), spool.append(batch("a"), {}), spool.settle([1], {})):
        with pytest.raises(SpoolError, match="restart the daemon") as caught:
            await call
        assert not caught.value.full


# --- a full or read-only disk ---------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 14 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=14m,mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a tmpfs: {error}")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all room that is left."""
    file = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = MIB
    while size:
        try:
            os.write(file, b"x" * size)
        except OSError:
            size //= 2
    os.close(file)


async def append_until_full(spool: Spool) -> int:
    """How many batches of 100 kB the disk took."""
    for place in range(200):
        try:
            await spool.append(batch(f"{place:03}", 100_000), {("e", "x"): {"place": place}})
        except SpoolError:
            return place
    raise AssertionError("the disk is not tiny")


async def test_full_disk_refuses_and_keeps(tiny_disk: Path) -> None:
    """On a full disk an append is refused as full; all that was acknowledged stays, in step."""
    async with opened(tiny_disk) as spool:
        taken = await append_until_full(spool)
        fill(tiny_disk)

        with pytest.raises(SpoolError, match="make that disk writable") as caught:
            await spool.append(batch("one more", 100_000), {("e", "x"): {"place": -1}})

        assert caught.value.full
        assert await names(spool) == [f"{place:03}" for place in range(taken)]
        assert await spool.last() == {("e", "x"): {"place": taken - 1}}
        assert spool.batches == taken


async def test_settling_goes_on_by_ballast(tiny_disk: Path) -> None:
    """On a full disk everything can be settled; with room again the ballast is back and appends
    go on.
    """
    ballast = tiny_disk / "spool.ballast"
    async with opened(tiny_disk) as spool:
        assert ballast.stat().st_size == BALLAST_BYTES
        taken = await append_until_full(spool)
        fill(tiny_disk)

        while waiting := await spool.oldest_batches(6, 1 << 40):
            await spool.settle([each.id for each in waiting], {"rev": str(waiting[-1].id)})
            fill(tiny_disk)
        assert taken > 10
        assert (spool.batches, await names(spool)) == (0, [])
        assert await spool.meta() == {"rev": str(taken)}

        (tiny_disk / "filler").unlink()
        await spool.append(batch("again", 100_000), {})
        await spool.settle((), {})
        assert await names(spool) == ["again"]
        assert ballast.stat().st_size == BALLAST_BYTES


async def test_without_ballast_settling_fails(tiny_disk: Path) -> None:
    """The ballast is what settling lives on: without it a full disk refuses even DELETE."""
    async with opened(tiny_disk) as spool:
        (tiny_disk / "spool.ballast").unlink()
        await append_until_full(spool)
        fill(tiny_disk)
        refused = 0

        for waiting in await spool.oldest_batches(999, 1 << 40):
            try:
                await spool.settle([waiting.id], {})
            except SpoolError as error:
                refused += error.full

        assert refused


async def test_full_disk_at_start(tiny_disk: Path) -> None:
    """A spool opens on a full disk, without ballast, and hands out what it has."""
    async with opened(tiny_disk) as spool:
        taken = await append_until_full(spool)
    (tiny_disk / "spool.ballast").unlink()
    fill(tiny_disk)

    async with opened(tiny_disk) as spool:
        assert spool.damaged is None
        assert len(await names(spool)) == taken
        assert not (tiny_disk / "spool.ballast").exists()


async def test_read_only_disk_at_start(tiny_disk: Path) -> None:
    """A disk mounted read-only is one line for the operator, and nothing is set aside."""
    async with opened(tiny_disk) as spool:
        await spool.append(batch("a"), {})
    make_read_only(tiny_disk)

    again = Spool(tiny_disk, MIB)
    with pytest.raises(ConfigError, match="check owner, rights") as caught:
        await again.open()

    assert "\n" not in str(caught.value)
    assert listed(tiny_disk) == ["spool.ballast", "spool.db"]


async def test_disk_that_turns_read_only_is_waited_for(spool: Spool) -> None:
    """A file that takes no writes for a while is `full`, and taken up again when it does."""
    await spool.append(batch("a"), {})
    await spool._run(lambda: spool._connection().execute("PRAGMA query_only=1"))

    with pytest.raises(SpoolError, match="readonly") as caught:
        await spool.append(batch("b"), {})
    await spool._run(lambda: spool._connection().execute("PRAGMA query_only=0"))
    await spool.append(batch("c"), {})

    assert caught.value.full
    assert await names(spool) == ["a", "c"]


async def test_ballast_that_cannot_be_removed(tmp_path: Path) -> None:
    """On a read-only disk settling is refused as full, whatever the ballast; later all goes on."""
    spool = Spool(tmp_path, MIB)
    # A folder in its place is neither removed nor written, as nothing is on a read-only disk.
    (tmp_path / "spool.ballast").mkdir()
    await spool.open()
    await spool.append(batch("a"), {})
    await spool._run(lambda: spool._connection().execute("PRAGMA query_only=1"))

    with pytest.raises(SpoolError, match="readonly") as caught:
        await spool.settle([1], {"rev": "1"})
    kept = (spool.batches, await names(spool), await spool.meta())
    await spool._run(lambda: spool._connection().execute("PRAGMA query_only=0"))
    await spool.settle([1], {"rev": "1"})

    assert caught.value.full
    assert kept == (1, ["a"], {})
    assert (spool.batches, await names(spool), await spool.meta()) == (0, [], {"rev": "1"})
    await spool.close()


async def test_a_row_of_last_can_be_deleted(tmp_path: Path) -> None:
    """None deletes a row, with the batch or not at all; one that is not there is no error."""
    async with opened(tmp_path) as spool:
        await spool.append(batch("a"), {("e", "x"): {"v": 1}, ("e", "y"): {"v": 2}})

        await spool.append(batch("b"), {("e", "x"): None, ("e", "z"): None, ("f", "y"): {"v": 3}})

        assert await spool.last() == {("e", "y"): {"v": 2}, ("f", "y"): {"v": 3}}
