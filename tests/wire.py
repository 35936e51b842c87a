"""A scripted MongoDB server for tests: the wire protocol on loopback, documents in a dictionary.

    async with WireServer() as server:
        store = Store(server.uri("socketTimeoutMS=300"), "netatmo")
        server.rule = lambda name, command: MUTE if name == "update" else None
        ...
        server.rule = None          # healed

A rule sees each command and says what becomes of it: None (answered as by a real server), MUTE
(never answered), CLOSE (the connection is closed), a float (answered after so many seconds), a
document with `ok` (the whole answer) or without (added to the ordinary answer). It knows the few
operators that we use, and no authentication. `Documents` alone is the store of test doubles.
"""

from __future__ import annotations

import asyncio
import copy
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import bson
from bson.codec_options import CodecOptions

Document = dict[str, Any]
_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True)
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class Silence(Enum):
    MUTE = "never answers"
    CLOSE = "closes the connection"


MUTE, CLOSE = Silence.MUTE, Silence.CLOSE
Rule = Callable[[str, Document], Silence | float | Document | None]


class Documents(dict[str, dict[Any, Document]]):
    """Collections of documents by `_id`, with the update and query operators that we use."""

    def update(  # type: ignore[override]  # nobody merges two of them
        self, collection: str, where: Document, change: Document, *, upsert: bool
    ) -> tuple[int, int, Any]:
        """(matched, modified, `_id` of what was inserted or None)."""
        documents = self.setdefault(collection, {})
        named = documents.get(where["_id"])
        for found in [named] if named else []:
            if matches(found, where):
                before = bson.encode(found)
                _apply(found, change, insert=False)
                return 1, int(bson.encode(found) != before), None
        if not upsert:
            return 0, 0, None
        new = {"_id": where["_id"]}
        _apply(new, change, insert=True)
        documents[new["_id"]] = new
        return 0, 0, new["_id"]

    def find(self, collection: str, where: Document) -> list[Document]:
        documents = self.get(collection, {}).values()
        return [copy.deepcopy(each) for each in documents if matches(each, where)]

    def delete(self, collection: str, where: Document) -> int:
        gone = [each["_id"] for each in self.find(collection, where)]
        for key in gone:
            del self[collection][key]
        return len(gone)


def matches(document: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(_fits(_at(document, path), wanted) for path, wanted in where.items())


def _fits(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping) or not any(key.startswith("$") for key in wanted):
        return bool(value == wanted)
    tests: dict[str, Callable[[Any], bool]] = {
        "$gte": lambda limit: value is not None and value >= limit,
        "$lt": lambda limit: value is not None and value < limit,
        "$not": lambda inner: not _fits(value, inner),
    }
    return all(tests[operator](operand) for operator, operand in wanted.items())


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _apply(document: Document, change: Mapping[str, Mapping[str, Any]], *, insert: bool) -> None:
    for operator, fields in change.items():
        for path, value in fields.items():
            before, new = _at(document, path), copy.deepcopy(value)
            if operator == "$setOnInsert" and not insert:
                continue
            if operator == "$max" and before is not None and before >= new:
                continue
            if operator == "$inc":
                new += before or 0
            elif operator == "$addToSet":
                new = [
                    *(before or ()),
                    *(each for each in new["$each"] if each not in (before or ())),
                ]
            elif operator not in {"$set", "$setOnInsert", "$max", "$unset"}:
                raise NotImplementedError(operator)
            _put(document, path, new, gone=operator == "$unset")


def _put(document: Document, path: str, value: Any, *, gone: bool) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    if gone:
        document.pop(name, None)
    else:
        document[name] = value


class WireServer:
    """Listens while the block lasts.

    commands     what was asked, in order, as (name, command), without hello
    incarnation  named in hello; another one looks like a restart
    """

    def __init__(self) -> None:
        self.documents = Documents()
        self.indexes: dict[str, dict[str, Document]] = {}
        self.rule: Rule | None = None
        self.commands: list[tuple[str, Document]] = []
        self.incarnation = bson.ObjectId()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._port = 0

    def uri(self, options: str = "") -> str:
        # Polling: a streamed hello would have to be held back until something changes.
        common = "directConnection=true&serverMonitoringMode=poll"
        return f"mongodb://127.0.0.1:{self._port}/?{common}&{options}".rstrip("&")

    async def __aenter__(self) -> WireServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Close every connection."""
        for task in self._connections:
            task.cancel()

    def asked(self, name: str) -> list[Document]:
        """The commands of one name so far."""
        return [command for each, command in self.commands if each == name]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        length, request, _, opcode = struct.unpack("<iiii", await reader.readexactly(16))
        command = _decoded(opcode, await reader.readexactly(length - 16))
        name = next(iter(command))
        said = self.rule(name, command) if self.rule else None
        if name.lower() not in {"hello", "ismaster"}:
            self.commands.append((name, command))
        if said is CLOSE:
            return False
        if said is MUTE:
            await reader.read()  # until the other side gives up
            return False
        if isinstance(said, (int, float)):
            await asyncio.sleep(said)
        answer = said if isinstance(said, dict) and "ok" in said else self._answer(name, command)
        if isinstance(said, dict):
            answer |= said
        writer.write(_encoded(opcode, request, answer))
        await writer.drain()
        return True

    def _answer(self, name: str, command: Document) -> Document:
        if name.lower() in {"hello", "ismaster"}:
            return {
                "isWritablePrimary": True,
                "ismaster": True,
                "helloOk": True,
                "topologyVersion": {"processId": self.incarnation, "counter": bson.Int64(0)},
                "maxBsonObjectSize": 16 << 20,
                "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000,
                "minWireVersion": 0,
                "maxWireVersion": 25,
                "ok": 1.0,
            }
        answers: dict[str, Callable[[], Document]] = {
            "ping": dict,
            "update": lambda: self._update(command),
            "delete": lambda: self._delete(command),
            "find": lambda: self._find(command),
            "createIndexes": lambda: self._create_indexes(command),
            "listIndexes": lambda: self._list_indexes(command),
            "dropIndexes": lambda: self._drop_indexes(command),
            "endSessions": dict,
        }
        if name not in answers:
            return {"ok": 0.0, "code": 59, "errmsg": f"no such command: '{name}'"}
        return {**answers[name](), "ok": 1.0}

    def _update(self, command: Document) -> Document:
        matched, modified, upserted = 0, 0, []
        for place, each in enumerate(command["updates"]):
            one = self.documents.update(
                command["update"], each["q"], each["u"], upsert=each.get("upsert", False)
            )
            matched, modified = matched + one[0], modified + one[1]
            if one[2] is not None:
                upserted.append({"index": place, "_id": one[2]})
        result: Document = {"n": matched + len(upserted), "nModified": modified}
        return {**result, "upserted": upserted} if upserted else result

    def _delete(self, command: Document) -> Document:
        return {
            "n": sum(self.documents.delete(command["delete"], d["q"]) for d in command["deletes"])
        }

    def _find(self, command: Document) -> Document:
        found = self.documents.find(command["find"], command.get("filter", {}))
        fields = {name for name, shown in command.get("projection", {}).items() if shown}
        if fields:
            found = [{name: each[name] for name in fields & each.keys()} for each in found]
        return _cursor(command, command["find"], found[: command.get("limit") or None])

    def _create_indexes(self, command: Document) -> Document:
        for index in command["indexes"]:
            self.indexes.setdefault(command["createIndexes"], {})[index["name"]] = index
        return {}

    def _drop_indexes(self, command: Document) -> Document:
        self.indexes.pop(command["dropIndexes"], None)
        return {}

    def _list_indexes(self, command: Document) -> Document:
        name = command["listIndexes"]
        return _cursor(
            command, name, [{"v": 2, **each} for each in self.indexes.get(name, {}).values()]
        )


def _cursor(command: Document, collection: str, batch: list[Document]) -> Document:
    namespace = f"{command['$db']}.{collection}"
    return {"cursor": {"id": bson.Int64(0), "ns": namespace, "firstBatch": batch}}


def _decoded(opcode: int, body: bytes) -> Document:
    if opcode == _OP_QUERY:  # only the very first hello of a connection
        end = body.index(b"\0", 4) + 1
        return bson.decode(body[end + 8 :], _CODEC)
    assert opcode == _OP_MSG, opcode
    (flags,) = struct.unpack_from("<I", body)
    at, end = 4, len(body) - 4 * (flags & 1)
    command: Document = {}
    while at < end:
        kind, at = body[at], at + 1
        (size,) = struct.unpack_from("<i", body, at)
        if kind == 0:
            command = {**bson.decode(body[at : at + size], _CODEC), **command}
        else:
            stop = body.index(b"\0", at + 4)
            name = body[at + 4 : stop].decode()
            command[name] = bson.decode_all(body[stop + 1 : at + size], _CODEC)
        at += size
    return command


def _encoded(opcode: int, request: int, answer: Document) -> bytes:
    document = bson.encode(answer)
    if opcode == _OP_QUERY:
        body, code = struct.pack("<iqii", 8, 0, 0, 1) + document, _OP_REPLY
    else:
        body, code = struct.pack("<IB", 0, 0) + document, _OP_MSG
    return struct.pack("<iiii", 16 + len(body), 1, request, code) + body
