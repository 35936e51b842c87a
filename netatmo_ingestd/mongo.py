"""The only user of Motor: indexes, bulks, the barrier, the ledger's documents, errors as outcomes.

No TTL, no find_one_and_*: each query is equality on the leading index fields with a half-open
range on the last, a shape that every server gets right.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bson
import pymongo.errors as driver
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ASCENDING, UpdateOne, WriteConcern

from netatmo_ingestd.errors import ConfigError, StoreUnavailable
from netatmo_ingestd.models import Coverage, Outcome
from netatmo_ingestd.records import Document
from netatmo_ingestd.upserts import SAMPLES, Operation, operations

INDEXES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "measurements": (("module_id", "scale", "time"), ("home_id", "time")),
    "states": (("entity_id", "time"),),
    "homes": (),
    "modules": (("home_id",),),
    "changes": (("entity_id", "time"),),
    "coverage": (),
    "answers": (("time",),),
    "dead_letters": (("time",),),
}
MERGE_TRIES = 20
# Real time. Without a socket limit a server that accepts and never answers wedges Motor for good.
_LIMITS: Mapping[str, Any] = {
    "socketTimeoutMS": 20_000,
    "connectTimeoutMS": 5_000,
    "serverSelectionTimeoutMS": 5_000,
    "maxPoolSize": 4,
    "appname": "netatmo-ingestd",
}
# Server codes that speak of the document, not of the server (faults, section 3).
_AT_FAULT = {2, 9, 52, 57, 66, 121, 10334}
_AGAIN = {112, 262}
_DENIED = {13, 18, 8000}
_FULL = {14031}
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
        given = {key.lower() for key in parse_qs(urlsplit(uri).query)}
        limits = {key: value for key, value in _LIMITS.items() if key.lower() not in given}
        try:
            client: Any = AsyncIOMotorClient(uri, tz_aware=True, tzinfo=UTC, **limits)
        except (driver.PyMongoError, ValueError) as error:
            raise ConfigError(f"store.uri: {error}; write mongodb://user:password@host/") from error
        if self._client is not None:
            self._client.close()
        self._client = client
        self._database: Any = client[self._name]

    async def close(self) -> None:
        """Give the sockets back; limited, as a mute server would hold a plain close."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self._client.close), 5.0)
        except TimeoutError:
            self.warnings["close"] = "the server did not let go of the connection"

    def _collection(self, name: str, *, journal: bool = False) -> AsyncIOMotorCollection[Document]:
        concern = WriteConcern(w="majority", j=True) if journal else WriteConcern(w="majority")
        found: AsyncIOMotorCollection[Document] = self._database.get_collection(
            name, codec_options=_CODEC, write_concern=concern
        )
        return found

    async def ping(self) -> Document:
        """What the server says of itself; raises StoreUnavailable."""
        hello: Document = await self._guard(self._client.admin.command("hello"))
        return hello

    async def make_indexes(self, *, anew: bool) -> None:
        """Make every collection and index; one that the server refuses becomes a warning.

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

        Raises StoreUnavailable when it is not known to be applied; repeating it is safe.
        """
        collection = self._collection(bulk[0].collection)
        try:
            result = await collection.bulk_write(
                [UpdateOne(each.where, each.change, upsert=each.upsert) for each in bulk],
                ordered=False,
            )
        except driver.BulkWriteError as error:
            return _sort_out(error.details, len(bulk))
        except (driver.PyMongoError, bson.errors.BSONError) as error:
            raise _unavailable(error) from error
        return Outcome(len(bulk), result.modified_count)

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
        document = await self._guard(self._collection("coverage").find_one({"_id": "_barrier"}))
        if document is None:
            raise StoreUnavailable("the barrier document is gone; written again", reason="down")
        return str(document.get("store_id", "")), int(document["rev"])

    async def coverage(self) -> list[Coverage]:
        """The whole ledger."""
        cursor = self._collection("coverage").find({})
        documents: list[Document] = await self._guard(cursor.to_list(length=None))
        return [_to_coverage(each) for each in documents if each["_id"] != "_barrier"]

    async def merge(
        self, entity_id: str, scale: str, merge: Callable[[Coverage | None], Coverage]
    ) -> Coverage:
        """Read a coverage document, `merge` it, replace it if its `rev` is as read; else again."""
        collection = self._collection("coverage")
        key = f"{entity_id}|{scale}"
        for _ in range(MERGE_TRIES):
            found = await self._guard(collection.find_one({"_id": key}))
            merged = merge(_to_coverage(found) if found else None)
            if found and merged == _to_coverage(found):
                return merged
            document = _from_coverage(merged, merged.rev + 1)
            if found is None:
                result = await self._guard(
                    collection.update_one({"_id": key}, {"$setOnInsert": document}, upsert=True)
                )
                done = result.upserted_id is not None
            else:
                result = await self._guard(
                    collection.update_one({"_id": key, "rev": merged.rev}, {"$set": document})
                )
                done = result.matched_count == 1
            if done:
                return _to_coverage({"_id": key, **document})
        raise StoreUnavailable(f"coverage {key}: changed by others at each try", reason="down")

    async def modules(self) -> list[Document]:
        """What is known of every module now, `latest` included."""
        cursor = self._collection("modules").find({})
        return list(await self._guard(cursor.to_list(length=None)))

    async def rows(
        self, module_id: str, scale: str, begin: datetime, end: datetime
    ) -> list[Document]:
        """Measurements of a module in [begin, end), oldest first."""
        wanted = {"module_id": module_id, "scale": scale, "time": {"$gte": begin, "$lt": end}}
        cursor = self._collection("measurements").find(wanted)
        found: list[Document] = await self._guard(cursor.to_list(length=None))
        return sorted(found, key=lambda row: row["time"])

    async def count(self, collection: str) -> int:
        """Estimated number of documents, for status."""
        return int(await self._guard(self._collection(collection).estimated_document_count()))

    async def _guard(self, call: Any) -> Any:
        try:
            return await call
        except driver.PyMongoError as error:
            raise _translate(error) from error


def _to_coverage(document: Document) -> Coverage:
    owner = document.get("owner") or {}
    return Coverage(
        entity_id=document["entity_id"],
        scale=document["scale"],
        types=tuple(document["types"]),
        covered=tuple((begin, end) for begin, end in document["covered"]),
        newest=document.get("newest"),
        owner=owner.get("account", ""),
        owned=owner.get("time") or datetime.fromtimestamp(0, UTC),
        rev=document["rev"],
    )


def _from_coverage(coverage: Coverage, rev: int) -> Document:
    return {
        "entity_id": coverage.entity_id,
        "scale": coverage.scale,
        "types": list(coverage.types),
        "covered": [list(each) for each in coverage.covered],
        "newest": coverage.newest,
        "owner": {"account": coverage.owner, "time": coverage.owned},
        "rev": rev,
    }


def _sort_out(details: Mapping[str, Any], size: int) -> Outcome:
    """A BulkWriteError as an Outcome (faults, section 3)."""
    errors = details.get("writeErrors", [])
    if not errors:
        concern = details.get("writeConcernErrors") or [{}]
        raise StoreUnavailable(
            f"applied but not confirmed: {concern[0].get('errmsg', 'write concern')}",
            reason="unconfirmed",
        )
    rejected: list[tuple[int, str]] = []
    retry: list[tuple[int, str]] = []
    for each in errors:
        reason = f"{each.get('code')}: {str(each.get('errmsg', ''))[:300]}"
        target = rejected if each.get("code") in _AT_FAULT else retry
        target.append((int(each["index"]), reason))
    if details.get("writeConcernErrors"):
        raise StoreUnavailable("applied in part and not confirmed", reason="unconfirmed")
    return Outcome(size - len(errors), int(details.get("nModified", 0)), rejected, retry)


def _translate(error: driver.PyMongoError) -> StoreUnavailable | ConfigError:
    """For commands other than bulks: what a server refuses for good is a ConfigError."""
    if isinstance(error, driver.OperationFailure) and not isinstance(error, _PASSING):
        if error.code in _DENIED:
            return _unavailable(error)
        if not error.has_error_label("RetryableWriteError") and error.code != 1:
            return ConfigError(f"{_first_line(error)}")
    return _unavailable(error)


_PASSING = (driver.ExecutionTimeout, driver.WriteConcernError, driver.WTimeoutError)


def _unavailable(error: Exception) -> StoreUnavailable:
    code = getattr(error, "code", None)
    if isinstance(error, driver.NetworkTimeout) or "timed out" in str(error):
        reason = "timeout"
    elif code in _DENIED:
        reason = "denied"
    elif code in _FULL or code == 1:
        reason = "full"
    elif isinstance(error, driver.WriteConcernError):
        reason = "unconfirmed"
    else:
        reason = "down"
    return StoreUnavailable(_first_line(error), reason=reason)


def _first_line(error: Exception) -> str:
    # The driver appends a topology description of several hundred characters.
    return str(error).split(", Timeout:")[0].split(", full error:")[0].splitlines()[0][:300]
