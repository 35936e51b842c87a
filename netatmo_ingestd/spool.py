"""The durable queue between cloud and store, on SQLite, and the last known answer of each endpoint.

Promise: when `append` returns, the batch is on disk; it leaves only by `settle`. One row is one
batch, so a batch costs one flush to disk. WAL with synchronous=FULL lost nothing in power cuts;
NORMAL lost half. Exactly one connection, locked exclusively: two that checkpoint a WAL can corrupt
it in SQLite before 3.51.3.

On a full disk even DELETE fails in WAL mode: a ballast file is given up so that settling goes on,
and made again when there is room.

Everything here blocks; callers use `Spool`'s coroutines, which run on one thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from netatmo_ingestd import records
from netatmo_ingestd.errors import Busy, ConfigError, IngestError, SpoolError
from netatmo_ingestd.models import Batch

BALLAST_BYTES = 8 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created REAL NOT NULL, records INTEGER NOT NULL,
    size INTEGER NOT NULL, checksum BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS last (
    endpoint TEXT NOT NULL, entity TEXT NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (endpoint, entity)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_DAMAGE = ("malformed", "not a database", "encrypted", "corrupt", "no such")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spooled:
    """A batch as it lies on the spool; `damaged` when its checksum does not fit its body."""

    id: int
    body: bytes
    damaged: bool


LastKey = tuple[str, str]
"""(endpoint, entity) of a row in the table `last`."""


class Spool:
    """FIFO of batches plus the tables `last` and `meta`.

    folder     the state folder; the file is `spool.db`
    max_bytes  bound of what waits; `fill` tells how much of it is used
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.path = folder / "spool.db"
        self.max_bytes = max_bytes
        self.batches = 0
        self.records = 0
        self.bytes = 0
        self.appended = 0
        self.oldest: float | None = None
        self.damaged: Path | None = None
        self.arrived = asyncio.Event()
        self._ballast = folder / "spool.ballast"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._db: sqlite3.Connection | None = None

    @property
    def fill(self) -> float:
        """Waiting bytes as a share of the bound; 1.0 and above: full."""
        return self.bytes / self.max_bytes

    async def open(self) -> None:
        """Open or make the file; a damaged one is set aside (`damaged`) and a new one begun."""
        await self._run(self._open)

    async def append(self, batch: Batch, last: Mapping[LastKey, Mapping[str, Any] | None]) -> None:
        """Put `batch` and its rows of `last` on disk in one transaction; None deletes a row.

        A record that cannot be BSON is set aside there, alone, as a dead letter.
        Raises SpoolError(full=True) when disk or bound leave no room.
        """
        body, count = records.pack(batch)
        if self.bytes + len(body) > self.max_bytes:
            raise SpoolError(
                f"{self.path}: {self.bytes} of {self.max_bytes} bytes wait for MongoDB; "
                "raise [spool] max_bytes or bring the store back",
                full=True,
            )
        rows = [
            (endpoint, entity, _checksum(text), text)
            for (endpoint, entity), value in last.items()
            if value is not None
            for text in (records.to_json(value).encode(),)
        ]
        gone = [key for key, value in last.items() if value is None]
        await self._run(lambda: self._append(body, count, rows, gone))
        self.arrived.set()

    async def oldest_batches(self, most: int, most_bytes: int) -> list[Spooled]:
        """The oldest batches, at least one if there is one, in order."""
        return await self._run(lambda: self._oldest(most, most_bytes))

    async def settle(self, ids: Sequence[int], meta: Mapping[str, str]) -> None:
        """Remove what the store has confirmed, and note what the store said, in one transaction."""
        await self._run(lambda: self._settle(ids, meta))

    async def last(self) -> dict[LastKey, dict[str, Any]]:
        """The whole table of last answers; rows whose hash does not fit are left out."""
        return await self._run(self._last)

    async def forget_last(self, meta: Mapping[str, str]) -> None:
        """Drop the last answers (the store was replaced), and note `meta`."""
        await self._run(lambda: self._forget_last(meta))

    async def meta(self) -> dict[str, str]:
        return await self._run(
            lambda: dict(self._connection().execute("SELECT key, value FROM meta").fetchall())
        )

    async def note(self, meta: Mapping[str, str]) -> None:
        """Keep small facts about the store: its id, its revision, whole indexes."""
        await self.settle((), meta)

    async def close(self) -> None:
        """Checkpoint and close."""
        await self._run(self._close)
        self._thread.shutdown()

    # --- on the thread ------------------------------------------------------------------------

    async def _run(self, work: Callable[[], _T]) -> _T:
        def translated() -> _T:
            try:
                return work()
            except sqlite3.Error as error:
                raise self._translate(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise SpoolError(f"{self.path}: is not open", full=False)
        return self._db

    def _open(self) -> None:
        try:
            self._db = self._connect()
        except (sqlite3.OperationalError, OSError) as error:
            if not _is_damage(error):
                raise self._unusable(error) from error
            self._set_aside()
        except sqlite3.DatabaseError:
            self._set_aside()
        self._restore_ballast()
        self._count()

    def _connect(self) -> sqlite3.Connection:
        # SQLite gives its log the rights of the file, so they are set before it is there.
        self.path.touch(mode=0o600)
        self.path.chmod(0o600)
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1.0)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            if self.path.stat().st_size == 0:
                # Space freed after an outage is given back to the file system. Without effect once
                # there is a first page, which journal_mode writes; later only a write to no end.
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA mmap_size=0")
            db.executescript(_SCHEMA)
            row = db.execute("PRAGMA quick_check(1)").fetchone()
            if row[0] != "ok":
                raise sqlite3.DatabaseError(f"malformed: {row[0]}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _set_aside(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.damaged = self.path.with_name(f"spool.db.damaged-{stamp}")
        for number in itertools.count(2):
            if not self.damaged.exists():
                break
            self.damaged = self.path.with_name(f"spool.db.damaged-{stamp}-{number}")
        try:
            for suffix in ("", "-wal", "-shm"):
                old = self.path.with_name(self.path.name + suffix)
                with contextlib.suppress(FileNotFoundError):
                    old.rename(self.damaged.with_name(self.damaged.name + suffix))
            self._db = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _count(self) -> None:
        row = self._connection().execute(
            "SELECT count(*), coalesce(sum(records), 0), coalesce(sum(size), 0), min(created) "
            "FROM batches"
        )
        self.batches, self.records, self.bytes, self.oldest = row.fetchone()

    def _append(
        self,
        body: bytes,
        count: int,
        rows: list[tuple[str, str, bytes, bytes]],
        gone: list[LastKey],
    ) -> None:
        now = time.time()
        self._transact(
            [
                (
                    "INSERT INTO batches VALUES (NULL, ?, ?, ?, ?, ?)",
                    [(now, count, len(body), _checksum(body), body)],
                ),
                ("INSERT OR REPLACE INTO last VALUES (?, ?, ?, ?)", rows),
                ("DELETE FROM last WHERE endpoint = ? AND entity = ?", gone),
            ]
        )
        self.batches += 1
        self.records += count
        self.bytes += len(body)
        self.appended += 1
        self.oldest = now if self.oldest is None else self.oldest

    def _oldest(self, most: int, most_bytes: int) -> list[Spooled]:
        chosen: list[Spooled] = []
        total = 0
        cursor = self._connection().execute(
            "SELECT id, size, checksum, body FROM batches ORDER BY id LIMIT ?", (most,)
        )
        for number, size, checksum, body in cursor:
            total += size
            if chosen and total > most_bytes:
                break
            chosen.append(Spooled(number, bytes(body), _checksum(body) != checksum))
        cursor.close()
        return chosen

    def _settle(self, ids: Sequence[int], meta: Mapping[str, str]) -> None:
        work: list[tuple[str, Iterable[Any]]] = [
            ("DELETE FROM batches WHERE id = ?", [(number,) for number in ids]),
            ("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items())),
        ]
        try:
            self._transact(work)
        except SpoolError as error:
            if not error.full or not self._give_up_ballast():
                raise
            self._transact(work)
        if ids:
            self._count()
        # The batches are gone; giving room back is tried again at the next settle.
        with contextlib.suppress(sqlite3.Error):
            if ids:
                # As a script: `execute` takes one step, and so gives back one page.
                self._connection().executescript("PRAGMA incremental_vacuum(256)")
            if not self._ballast.exists():
                self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not self._ballast.exists():
            self._restore_ballast()

    def _last(self) -> dict[LastKey, dict[str, Any]]:
        cursor = self._connection().execute("SELECT endpoint, entity, hash, body FROM last")
        return {
            (endpoint, entity): records.from_json(bytes(body).decode())
            for endpoint, entity, checksum, body in cursor.fetchall()
            if _checksum(body) == checksum
        }

    def _forget_last(self, meta: Mapping[str, str]) -> None:
        self._transact(
            [
                ("DELETE FROM last WHERE ?", [(1,)]),
                ("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items())),
            ]
        )

    def _transact(self, work: Sequence[tuple[str, Iterable[Any]]]) -> None:
        db = self._connection()
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement, rows in work:
                db.executemany(statement, rows)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._translate(error) from error
        finally:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _give_up_ballast(self) -> bool:
        """Whether that made room; from a read-only disk it cannot be removed."""
        with contextlib.suppress(OSError):
            self._ballast.unlink()
            return True
        return False

    def _restore_ballast(self) -> None:
        """Bytes that are really written: a sparse file would hold no room."""
        try:
            if self._ballast.exists() and self._ballast.stat().st_size == BALLAST_BYTES:
                return
            with self._ballast.open("wb") as file:
                for _ in range(BALLAST_BYTES >> 20):
                    file.write(os.urandom(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Still no room, or read-only; tried again at the next settle.
            self._give_up_ballast()

    def _unusable(self, error: Exception) -> IngestError:
        if isinstance(error, sqlite3.Error) and "locked" in str(error):
            return Busy(f"{self.path}: another daemon uses it; stop that one first")
        if isinstance(error, sqlite3.Error) and self._translate(error).full:
            return self._translate(error)  # passes by itself: the supervisor starts it again
        # An OSError names the path by itself.
        told = error.strerror if isinstance(error, OSError) else _named(error)
        return ConfigError(
            f"{self.path}: {told}; check owner, rights and free space of the state folder, "
            "and that no other daemon uses it"
        )

    def _translate(self, error: sqlite3.Error) -> SpoolError:
        text = _named(error)
        # A disk that was remounted read-only is waited for like a full one.
        full = any(word in text for word in ("full", "disk I/O error", "readonly"))
        cure = "make that disk writable" if full else "restart the daemon; it sets the file aside"
        return SpoolError(f"{self.path}: {text}; {cure}", full=full)

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.close()
            self._db = None


def _is_damage(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and any(word in str(error) for word in _DAMAGE)


def _named(error: Exception) -> str:
    """What SQLite says, with the name of its error: "disk I/O error" alone has thirty causes."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).digest()
