"""The only user of Motor: indexes, bulks, the barrier, the ledger's documents, errors as outcomes.

No TTL, no find_one_and_*: each query is equality on the leading index fields with a half-open
range on the last, a shape that every server gets right.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bson
import pymongo.errors as driver
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ASCENDING, ReadPreference, UpdateOne, WriteConcern

from netatmo_ingestd.coverages import from_coverage, to_coverage
from netatmo_ingestd.errors import ConfigError, StoreUnavailable
from netatmo_ingestd.models import Coverage, Outcome
from netatmo_ingestd.records import Document
from netatmo_ingestd.upserts import INDEXES, SAMPLES, Operation, operations

__all__ = ["INDEXES", "Store"]
MERGE_TRIES = 20
CLOSE_S = 5.0
# Real time. Without a socket limit a server that accepts and never answers wedges Motor for good.
_LIMITS: Mapping[str, Any] = {
    "socketTimeoutMS": 20_000,
    "connectTimeoutMS": 5_000,
    "serverSelectionTimeoutMS": 5_000,
    "waitQueueTimeoutMS": 20_000,
    # How soon a healed server is found; by itself the driver looks every 10 s.
    "heartbeatFrequencyMS": 2_000,
    "maxPoolSize": 4,
    "appname": "netatmo-ingestd",
}
# Below the socket limit: a set without a majority says "unconfirmed" instead of nothing.
_WTIMEOUT_MS = 10_000
# Server codes that speak of the document, not of the server (faults, section 3).
_AT_FAULT = {2, 9, 52, 57, 66, 121, 10334}
_DENIED = {13, 18, 8000}
_FULL = {14031}
# The server or its network at this moment: elections, shutdowns, shards that moved or are away.
_PASSING = {
    6, 7, 43, 50, 63, 64, 89, 91, 133, 134, 150, 175, 189, 234, 9001, 10058, 10107, 11600, 11601,
    11602, 13388, 13435, 13436,
}  # fmt: skip
_RACES = {112, 262, 11000}  # sent again as they are, they pass
_BROKEN = {1}  # InternalError: what the embedded store says to everything once its disk was full
_DAY = timedelta(days=1)
_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


class Store:
    """One MongoDB database.

    uri       mongodb://…; timeouts in it win over ours
    warnings  what the server refused, in words for doctor and status
    """

    def __init__(self, uri: str, database: str) -> None:
        self._name = database
        self._client: Any = None
        self.warnings: dict[str, str] = {}
        self.connect(uri)

    def connect(self, uri: str) -> None:
        """Use `uri` from now on; the embedded store may come back on another port."""
        try:
            query = parse_qs(urlsplit(uri).query)
            # A limit of 0 would be none at all.
            given = {key.lower() for key, value in query.items() if value[-1] != "0"}
            limits = {key: value for key, value in _LIMITS.items() if key.lower() not in given}
            with warnings.catch_warnings():
                # An option it does not understand would be left out with a warning: also `tls=…`.
                warnings.simplefilter("error", UserWarning)
                client: Any = AsyncIOMotorClient(uri, tz_aware=True, tzinfo=UTC, **limits)
        except (driver.PyMongoError, ValueError, UserWarning) as error:
            # The driver's own words may quote a piece of the password.
            unread = isinstance(error, (driver.InvalidURI, ValueError))
            what = "cannot be read" if unread else _first_line(error)
            if isinstance(error, UserWarning):
                what = "has an option that the driver does not understand"
            raise ConfigError(
                f"store.uri: {what}; write mongodb://user:password@host/, "
                'in user and password "%2F" for "/", "%3A" for ":", "%40" for "@"'
            ) from None
        if self._client is not None:
            _close(self._client)
        self._client = client
        self._database: Any = client[self._name]

    async def close(self) -> None:
        """Give the sockets back; limited, as a mute server would hold a plain close."""
        closing, limit = _close(self._client), time.monotonic() + CLOSE_S
        while closing.is_alive():
            if time.monotonic() > limit:
                self.warnings["close"] = "the server did not let go of the connection"
                return
            await asyncio.sleep(0.01)

    def _collection(self, name: str, *, journal: bool = False) -> AsyncIOMotorCollection[Document]:
        concern = WriteConcern(w="majority", wtimeout=_WTIMEOUT_MS, j=True if journal else None)
        # The primary, whatever the URI prefers: a barrier read from a secondary looks like an
        # older copy of the database.
        found: AsyncIOMotorCollection[Document] = self._database.get_collection(
            name,
            codec_options=_CODEC,
            write_concern=concern,
            read_preference=ReadPreference.PRIMARY,
        )
        return found

    async def ping(self) -> Document:
        """What the server says of itself; raises StoreUnavailable."""
        hello: Document = await self._guard(self._client.admin.command("hello"))
        return hello

    async def incarnation(self) -> str:
        """Which start of the server answers; the same before and after: no restart between.

        A crash takes what was not synced, and no error need tell: the driver connects again by
        itself. The shards of a mongos confirm by majority; a server that does not say is trusted.
        """
        hello = await self.ping()
        if hello.get("msg") == "isdbgrid":
            return "mongos"
        return str((hello.get("topologyVersion") or {}).get("processId", ""))

    async def make_indexes(self, *, anew: bool) -> None:
        """Make every index; one that the server refuses becomes a warning.

        anew  drop them first: on the embedded store an index whose making was interrupted stays
              incomplete for good, and making it again does nothing
        """
        for name, wanted in INDEXES.items():
            collection = self._collection(name)
            if anew:
                try:
                    await self._guard(collection.drop_indexes())
                except ConfigError:
                    self.warnings.pop(f"index {name}", None)  # no such collection yet
            for keys in wanted:
                label = f"index {name}({', '.join(keys)})"
                try:
                    await self._guard(collection.create_index([(key, ASCENDING) for key in keys]))
                except ConfigError as error:
                    self.warnings[label] = f"refused: {error}; queries by it are slow"
                else:
                    self.warnings.pop(label, None)

    async def missing_indexes(self) -> list[str]:
        """Indexes that should be there and are not."""
        missing = []
        for name, wanted in INDEXES.items():
            try:
                there = await self._guard(self._collection(name).index_information())
            except ConfigError:
                there = {}
            made = {tuple(key for key, _ in index["key"]) for index in there.values()}
            missing += [f"{name}({', '.join(keys)})" for keys in wanted if keys not in made]
        return missing

    async def write(self, bulk: Sequence[Operation]) -> Outcome:
        """One unordered bulk_write on one collection.

        Raises StoreUnavailable when it is not known to be applied; repeating it is safe. Its
        reason is "timeout" only if the server answers other things meanwhile: the bulk is too much.
        """
        collection = self._collection(bulk[0].collection)
        try:
            result = await collection.bulk_write(
                [UpdateOne(each.where, each.change, upsert=each.upsert) for each in bulk],
                ordered=False,
            )
        except driver.BulkWriteError as error:
            return _sort_out(error.details, len(bulk))
        except (bson.errors.BSONError, OverflowError, UnicodeError) as error:
            return await self._apart(bulk, error)
        except driver.PyMongoError as error:
            failure = _translate(error)
            if isinstance(failure, ConfigError):
                return await self._apart(bulk, error)
            if failure.reason == "timeout":
                await self._alive(failure)
            raise failure from error
        return Outcome(len(bulk), result.modified_count)

    async def _alive(self, failure: StoreUnavailable) -> None:
        try:
            await self.ping()
        except (StoreUnavailable, ConfigError) as mute:
            raise StoreUnavailable(f"answers nothing: {failure}", reason="down") from mute

    async def _apart(self, bulk: Sequence[Operation], error: Exception) -> Outcome:
        """One operation made driver or server refuse the whole bulk: find it, write the others."""
        if len(bulk) == 1:
            code = getattr(error, "code", 2)
            said = [(0, _said({"code": code, "errmsg": f"{type(error).__name__}: {error}"}))]
            return Outcome(0, 0, said) if code in _AT_FAULT else Outcome(0, 0, retry=said)
        if not await self.accepts(bulk[0].collection):
            raise StoreUnavailable(_first_line(error), reason="refused") from error
        half = len(bulk) // 2
        first, second = await self.write(bulk[:half]), await self.write(bulk[half:])
        return Outcome(
            first.written + second.written,
            first.modified + second.modified,
            [*first.rejected, *((half + place, reason) for place, reason in second.rejected)],
            [*first.retry, *((half + place, reason) for place, reason in second.retry)],
        )

    async def accepts(self, collection: str) -> bool:
        """True when a known-good document of this collection is taken; it is removed again."""
        sample = SAMPLES[collection]
        for operation in operations(sample):
            outcome = await self.write([operation])
            if outcome.rejected or outcome.retry:
                return False
        where = operations(sample)[0].where
        await self._guard(self._collection(collection).delete_one(where))
        return True

    async def barrier(self) -> tuple[str, int]:
        """(store id, revision) after everything before it is on the server's disk.

        It must change something, or nothing is synced: hence the counter.
        """
        collection = self._collection("coverage", journal=True)
        await self._guard(
            collection.update_one(
                {"_id": "_barrier"},
                {"$inc": {"rev": 1}, "$setOnInsert": {"store_id": secrets.token_hex(12)}},
                upsert=True,
            )
        )
        found = await self.identity()
        if found is None:
            raise StoreUnavailable("the barrier document is gone; written again", reason="down")
        return found

    async def identity(self) -> tuple[str, int] | None:
        """(store id, revision) as they stand; None before the first barrier."""
        document = await self._guard(self._collection("coverage").find_one({"_id": "_barrier"}))
        if document is None:
            return None
        return str(document.get("store_id", "")), int(document.get("rev", 0))

    async def rename(self, store_id: str) -> str:
        """Give the database another store id; every process that knows the old one notices."""
        collection = self._collection("coverage")
        change = {"$set": {"store_id": secrets.token_hex(12)}}
        await self._guard(collection.update_one({"_id": "_barrier", "store_id": store_id}, change))
        found = await self.identity()
        return found[0] if found else ""

    async def coverage(self) -> list[Coverage]:
        """The whole ledger; a document that is none (edited by hand) counts as missing."""
        return [found for found in map(to_coverage, await self.find("coverage", {})) if found]

    async def merge(
        self, entity_id: str, scale: str, merge: Callable[[Coverage | None], Coverage]
    ) -> Coverage:
        """Read a coverage document, `merge` it, replace it if its `rev` is as read; else again."""
        collection = self._collection("coverage")
        key = f"{entity_id}|{scale}"
        for _ in range(MERGE_TRIES):
            found = await self._guard(collection.find_one({"_id": key}))
            before = to_coverage(found) if found else None
            merged = merge(before)
            if merged == before:
                return merged
            where = {"_id": key} if found is None else {"_id": key, "rev": found.get("rev")}
            document = from_coverage(merged, merged.rev + 1)
            change = {"$setOnInsert" if found is None else "$set": document}
            try:
                result = await collection.update_one(where, change, upsert=found is None)
            except driver.DuplicateKeyError:
                continue  # somebody else was first
            except driver.PyMongoError as error:
                raise _translate(error) from error
            if result.upserted_id is not None or (found and result.matched_count):
                return replace(merged, rev=merged.rev + 1)
        raise StoreUnavailable(f"coverage {key}: changed by others at each try", reason="down")

    async def size(self) -> int:
        """Bytes of all collections and indexes on the server's disk."""
        told = await self._guard(self._database.command("dbStats"))
        return int(told.get("storageSize", 0)) + int(told.get("indexSize", 0))

    async def rows(
        self, module_id: str, scale: str, begin: datetime, end: datetime
    ) -> list[Document]:
        """Measurements of a module in [begin, end), oldest first."""
        wanted = {"module_id": module_id, "scale": scale, "time": {"$gte": begin, "$lt": end}}
        return sorted(await self.find("measurements", wanted), key=lambda row: row["time"])

    async def summaries(self, module_id: str, begin: datetime, end: datetime) -> list[Document]:
        """Day rows of a module that begin in [begin, end), oldest first."""
        # By date, which the index has; a local date lies within a day of the moment's.
        days = {"$gte": f"{begin - _DAY:%F}", "$lt": f"{end + 2 * _DAY:%F}"}
        found = await self.find("summaries", {"module_id": module_id, "day": days})
        return sorted((row for row in found if begin <= row["time"] < end), key=lambda r: r["day"])

    async def delete(
        self, collection: str, begin: datetime, end: datetime, where: Document | None = None
    ) -> int:
        """Delete what is of [begin, end), and fits `where`; how many there were."""
        chosen = {**(where or {}), "time": {"$gte": begin, "$lt": end}}
        result = await self._guard(self._collection(collection).delete_many(chosen))
        return int(result.deleted_count)

    async def find(
        self, collection: str, where: Document, fields: Document | None = None
    ) -> list[Document]:
        """The documents that fit, or these fields of them, in no order."""
        cursor = self._collection(collection).find(where, fields)
        return list(await self._guard(cursor.to_list(length=None)))

    async def _guard(self, call: Any) -> Any:
        try:
            return await call
        except (driver.PyMongoError, bson.errors.BSONError) as error:
            raise _translate(error) from error


def _close(client: Any) -> threading.Thread:
    # It asks the server to end its sessions. Not on the loop; and a thread of the pool that hangs
    # would keep the process from ending.
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    return closing


def _sort_out(details: Mapping[str, Any], size: int) -> Outcome:
    """A BulkWriteError as an Outcome (faults, section 3)."""
    errors = details.get("writeErrors", [])
    for each in errors:
        passing = _reason(each.get("code"))
        if passing and each.get("code") not in _BROKEN:
            raise StoreUnavailable(f"refused in part: {_said(each)}", reason=passing)
    if concerns := details.get("writeConcernErrors"):
        raise StoreUnavailable(f"not confirmed: {_said(concerns[0])}", reason="unconfirmed")
    rejected: list[tuple[int, str]] = []
    retry: list[tuple[int, str]] = []
    for each in errors:
        target = rejected if each.get("code") in _AT_FAULT else retry
        target.append((int(each["index"]), _said(each)))
    return Outcome(size - len(errors), int(details.get("nModified", 0)), rejected, retry)


def _said(error: Mapping[str, Any]) -> str:
    return f"{error.get('code')}: {str(error.get('errmsg', ''))[:300]}"


def _reason(code: int | None) -> str:
    """Why a code is the server's fault, "" when it is not known to be."""
    if code in _DENIED:
        return "denied"
    if code in _FULL | _BROKEN:
        return "full"
    return "down" if code in _PASSING else ""


def _translate(error: Exception) -> StoreUnavailable | ConfigError:
    """For commands other than bulks: what a server refuses for good is a ConfigError."""
    lasting = (
        isinstance(error, driver.OperationFailure)
        and not isinstance(error, (driver.WriteConcernError, driver.ExecutionTimeout))
        and not error.has_error_label("RetryableWriteError")
        and not _reason(error.code)
        and error.code not in _RACES
    )
    return ConfigError(_first_line(error)) if lasting else _unavailable(error)


def _unavailable(error: Exception) -> StoreUnavailable:
    code = error.code if isinstance(error, driver.OperationFailure) else None
    if isinstance(error, (driver.NetworkTimeout, driver.ExecutionTimeout)):
        reason = "timeout"
    elif isinstance(error, driver.WriteConcernError):
        reason = "unconfirmed"
    else:
        reason = _reason(code) or "down"
    return StoreUnavailable(_first_line(error), reason=reason)


def _first_line(error: Exception) -> str:
    # The driver appends a topology description of several hundred characters.
    return str(error).split(", Timeout:")[0].split(", full error:")[0].splitlines()[0][:300]
