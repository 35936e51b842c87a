"""What the driver raises, as what the writer does about it (faults, section 3); and the URI."""

from __future__ import annotations

import inspect
from typing import Any

import pymongo.errors as driver
import pytest
from bson.errors import InvalidBSON
from pymongo import ReadPreference

from netatmo_ingestd import mongo
from netatmo_ingestd.errors import ConfigError, StoreUnavailable
from netatmo_ingestd.models import Outcome
from netatmo_ingestd.mongo import Store

AT_FAULT = [2, 9, 52, 57, 66, 121, 10334]
RACES = [112, 262, 11000]
DENIED = [13, 18, 8000]
PASSING = [6, 7, 64, 89, 91, 189, 10107, 11600, 11602, 13435, 13436]
UNKNOWN = [1, 14, 28, 40, 54321]


def details(*codes: int, modified: int = 0, unconfirmed: bool = False) -> dict[str, Any]:
    """What BulkWriteError carries: operations 10, 11, … failed with `codes`."""
    errors = [{"index": 10 + n, "code": code, "errmsg": "no"} for n, code in enumerate(codes)]
    concern = [{"code": 64, "errmsg": "waiting for replication timed out"}] if unconfirmed else []
    return {"writeErrors": errors, "writeConcernErrors": concern, "nModified": modified}


@pytest.mark.parametrize("code", AT_FAULT)
def test_document_at_fault_is_rejected_alone(code: int) -> None:
    """A code that speaks of the document rejects it; the others of the bulk are written."""
    assert mongo._sort_out(details(code, code, modified=3), 500) == Outcome(
        498, 3, [(10, f"{code}: no"), (11, f"{code}: no")], []
    )


@pytest.mark.parametrize("code", [*RACES, *UNKNOWN])
def test_other_codes_are_sent_again(code: int) -> None:
    """A race, and any code we do not know, is for another try, and the others are written."""
    assert mongo._sort_out(details(code), 500) == Outcome(499, 0, [], [(10, f"{code}: no")])


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        *(([121, code], "denied") for code in DENIED),
        *(([code, 121], "down") for code in PASSING),
        ([121, 14031], "full"),
    ],
)
def test_server_at_fault_rejects_nothing(codes: list[int], reason: str) -> None:
    """Rights, space, or a shard in an election: nothing of that bulk is called rejected."""
    with pytest.raises(StoreUnavailable) as caught:
        mongo._sort_out(details(*codes), 500)

    assert caught.value.reason == reason


@pytest.mark.parametrize("codes", [(), (121,), (112,)])
def test_unconfirmed_is_not_written(codes: tuple[int, ...]) -> None:
    """A write concern error, alone or beside others, means the bulk is repeated."""
    with pytest.raises(StoreUnavailable) as caught:
        mongo._sort_out(details(*codes, unconfirmed=True), 500)

    assert caught.value.reason == "unconfirmed"


# Each error class of the driver: what an operation says that raises it. None: never by a server.
CLASSES: dict[str, str | None] = {
    "PyMongoError": "down",
    "ProtocolError": "down",
    "ConnectionFailure": "down",
    "WaitQueueTimeoutError": "down",
    "AutoReconnect": "down",
    "NetworkTimeout": "timeout",
    "NotPrimaryError": "down",
    "ServerSelectionTimeoutError": "down",
    "_OperationCancelled": "down",
    "ConfigurationError": "down",
    "InvalidURI": "down",
    "InvalidOperation": "down",
    "InvalidName": "down",
    "CollectionInvalid": "down",
    "EncryptionError": "down",
    "EncryptedCollectionError": "down",
    "OperationFailure": "refused for good",
    "WriteError": "refused for good",
    "CursorNotFound": "refused for good",  # its code, 43, is passing
    "DuplicateKeyError": "refused for good",  # its code, 11000, is passing
    "ExecutionTimeout": "timeout",
    "WriteConcernError": "unconfirmed",
    "WTimeoutError": "unconfirmed",
    "BulkWriteError": None,  # sorted out by operation
    "ClientBulkWriteException": None,  # we never call the client's bulk_write
}
NOT_OURS = {"InvalidDocument", "DocumentTooLarge", "_CertificateError"}
"""BSON errors keep a bulk from being sent; a certificate error reaches us as AutoReconnect."""


def raised(name: str, code: int | None = None) -> driver.PyMongoError:
    kind = getattr(driver, name)
    if name == "EncryptedCollectionError":
        return driver.EncryptedCollectionError(Exception("no"), {})
    if name == "EncryptionError":
        return driver.EncryptionError(Exception("no"))
    error = kind("no", code) if issubclass(kind, driver.OperationFailure) else kind("no")
    assert isinstance(error, driver.PyMongoError)
    return error


def reaction(error: driver.PyMongoError) -> str:
    found = mongo._translate(error)
    return found.reason if isinstance(found, StoreUnavailable) else "refused for good"


def test_each_error_class_of_the_driver_is_mapped() -> None:
    """The driver has no error class that this table does not know."""
    there = {
        name
        for name, each in vars(driver).items()
        if inspect.isclass(each) and issubclass(each, Exception)
    }

    assert there == set(CLASSES) | NOT_OURS


@pytest.mark.parametrize("name", [name for name, said in CLASSES.items() if said])
def test_error_class_has_its_reaction(name: str) -> None:
    """Without a code that says more, the class decides."""
    error = raised(name, 54321)

    assert reaction(error) == CLASSES[name]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        *(("OperationFailure", code, "denied") for code in DENIED),
        *(("OperationFailure", code, "down") for code in [*PASSING, *RACES]),
        ("OperationFailure", 1, "full"),
        ("OperationFailure", 14031, "full"),
        ("OperationFailure", 59, "refused for good"),
        ("OperationFailure", None, "refused for good"),
        ("CursorNotFound", 43, "down"),
        ("DuplicateKeyError", 11000, "down"),
        ("ExecutionTimeout", 50, "timeout"),
        ("WriteConcernError", 13, "unconfirmed"),
    ],
)
def test_code_decides_among_refusals(name: str, code: int, reason: str) -> None:
    """A refused command is for good only if its code does not speak of this moment."""
    assert reaction(raised(name, code)) == reason


def test_label_of_the_server_is_believed() -> None:
    """What the server itself calls retryable is not for good, whatever its code."""
    error = driver.OperationFailure("no", 54321, {"errorLabels": ["RetryableWriteError"]})

    assert reaction(error) == "down"


def test_garbled_answer_is_waited_out() -> None:
    """Bytes that are no BSON, from whatever listens there, do not end the daemon."""
    found = mongo._translate(InvalidBSON("not enough data"))

    assert isinstance(found, StoreUnavailable)
    assert found.reason == "down"


def test_message_is_one_line() -> None:
    """The driver's description of its topology, of many hundred characters, stays out."""
    error = driver.ServerSelectionTimeoutError(
        "a:1: refused, Timeout: 5.0s, Topology Description: <…>\nmore"
    )

    assert str(mongo._translate(error)) == "a:1: refused"


# --- the URI --------------------------------------------------------------------------------------


async def options(uri: str) -> Any:
    store = Store(uri, "netatmo")
    found = store._client.delegate.options
    await store.close()
    return found


async def test_limits_are_set_unless_the_uri_says_otherwise() -> None:
    """No wait is without limit: ours hold, the URI's win, and a 0 (none) does not."""
    ours = (await options("mongodb://127.0.0.1:1/")).pool_options
    theirs = (await options("mongodb://127.0.0.1:1/?sockettimeoutms=300")).pool_options
    none = (await options("mongodb://127.0.0.1:1/?socketTimeoutMS=0")).pool_options

    assert (ours.socket_timeout, ours.connect_timeout, ours.wait_queue_timeout) == (20.0, 5.0, 20.0)
    assert theirs.socket_timeout == 0.3
    assert none.socket_timeout == 20.0


async def test_barrier_alone_is_journaled_and_nothing_is_read_elsewhere() -> None:
    """Bulks ask for a majority within a limit, the barrier for the journal too; of the primary."""
    store = Store("mongodb://127.0.0.1:1/?readPreference=secondary&w=0", "netatmo")
    rows, barrier = store._collection("measurements"), store._collection("coverage", journal=True)
    await store.close()

    assert rows.write_concern.document == {"w": "majority", "wtimeout": 10_000}
    assert barrier.write_concern.document == {"w": "majority", "wtimeout": 10_000, "j": True}
    assert rows.read_preference == barrier.read_preference == ReadPreference.PRIMARY


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://me:geh/eim@host/",
        "mongodb://me:geh:eim@host/",
        "mongodb://me:geh@eim@host/",
        "mongodb://me:geh%zzeim@host/",
        "mongodb://me:geh[eim@host:1/",
        "http://me:geheim@host/",
    ],
)
def test_bad_uri_is_told_without_its_password(uri: str) -> None:
    """An address that cannot be read is the operator's to edit; no piece of it is printed."""
    with pytest.raises(ConfigError, match=r"store\.uri") as caught:
        Store(uri, "netatmo")

    assert "geh" not in str(caught.value)
    assert "eim" not in str(caught.value)
    assert caught.value.__cause__ is None
