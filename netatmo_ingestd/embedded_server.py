"""The embedded store's own process: `python -m netatmo_ingestd.embedded_server OPTIONS`.

Builds the SecantusDB server by a few lines of ours instead of `secantusd-py`: no `secantusd.toml`
is read, the user is made before the socket opens, and the session that start-up leaves behind is
released. Started by `embedded`, which describes the folder; OPTIONS is one JSON object.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netatmo_ingestd.embedded import CLOSE_S, CURE, PORTS, USER, read_password, write_private
from netatmo_ingestd.errors import ConfigError

ROLES = ("readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor")

log = logging.getLogger(__name__)


def serve(options: Mapping[str, Any]) -> int:
    """Run the store until SIGTERM, or the end of `owner`; the exit code is the process's."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != options["owner"]:  # it died before we asked to be told
        return 0
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread exists
    os.umask(0o077)
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(options["folder"])
    try:
        server = _build(options, read_password(folder))
        if (folder / "unfinished").exists():
            _make_tables(server)
            (folder / "unfinished").unlink()  # flushed with the note below
    except (ImportError, AttributeError, TypeError) as error:
        log.exception("start")
        sys.stderr.write(f"this SecantusDB is not the version we know ({error}). {CURE}\n")
        return ConfigError.exit_code
    _listen(server, folder / "port")
    note = {**options, "pid": os.getpid(), "port": server.port}
    write_private(folder / "running.json", json.dumps(note))
    while signal.sigtimedwait(ends, 2) is None:
        if "secantus-accept" not in {thread.name for thread in threading.enumerate()}:
            sys.stderr.write("nothing accepts connections any more (out of descriptors?)\n")
            return 1  # it ends at the first error of accept(), and the rest would live on, deaf
    signal.alarm(CLOSE_S)
    with contextlib.suppress(Exception):
        server._socket.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  `stop` waits 2 s for accept()
        server.storage.checkpoint()  # opens the session of this thread, which `stop` wants
    server.stop()
    return 0


def _build(options: Mapping[str, Any], password: str) -> Any:
    """The server, not yet listening, with our one user in it and no session left open.

    Without `_reset_thread_session`, this thread's cursor would pin history after a clean restart:
    0.9 KB of disk for each update, as long as the process lives.
    """
    commands = importlib.import_module("secantus.commands")
    server = importlib.import_module("secantus.server").SecantusDBServer(
        storage_path=str(Path(options["folder"]) / "data"),
        replica_set_name=None if options["standalone"] else "secantus",
        require_auth=options["auth"],
        enable_test_commands=options["enable_test_commands"],
        ttl_sweep_seconds=0,  # we have no such indexes, and a sweep walks all collections
        oplog_max_entries=options["oplog_max_entries"],
        cache_size=options["cache_size"],
        durable=True,
        tls_cert_file=options["tls_pem"],
        tls_key_file=options["tls_pem"],
    )
    if options["auth"]:
        context = commands.CommandContext(0, server.storage, server.cursors)
        roles = [*ROLES, *(["root"] if options["enable_test_commands"] else [])]
        rest = {"pwd": password, "roles": roles, "$db": "admin"}
        answer = commands.dispatch({"createUser": USER, **rest}, context)
        if answer.get("code") == 51003:  # it exists
            answer = commands.dispatch({"updateUser": USER, **rest}, context)
        if not answer.get("ok"):
            raise RuntimeError(answer)
    server.storage._reset_thread_session()  # noqa: SLF001  the version is pinned for its sake
    return server


def _make_tables(server: Any) -> None:
    """Make the tables of all documents, at first start: else a kill while one is made spoils it."""
    storage = importlib.import_module("secantus.storage")
    session = server.storage._conn.open_session()  # noqa: SLF001  the version is pinned
    for number in range(storage._DOC_SHARDS):  # noqa: SLF001
        session.create(storage._doc_shard_name(number), storage._DOC_SHARD_CFG)  # noqa: SLF001
    session.close()


def _listen(server: Any, note: Path) -> None:
    """On the port of last time if it is free, else on another one, noted for the next time."""
    with contextlib.suppress(OSError, ValueError):
        server.port = int(note.read_text())
        server.start()
        return
    for _attempt in range(50):
        with contextlib.suppress(OSError):
            server.port = secrets.choice(PORTS)
            server.start()
            break
    write_private(note, str(server.address[1]))


if __name__ == "__main__":
    sys.exit(serve(json.loads(sys.argv[1])))
