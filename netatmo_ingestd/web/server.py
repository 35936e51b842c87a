"""A small web server inside the daemon's loop: some routes on one address, nothing more.

Whoever has something to show hands its routes in. It leaves signals alone, writes no log of visits
(addresses may hold secrets), and ends within a second when it is told to.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from netatmo_ingestd.errors import Busy, ConfigError

STOP_S = 1
MOST_VISITS = 64  # at a time; further ones are told to come later


@asynccontextmanager
async def serving(address: tuple[str, int], routes: Sequence[BaseRoute]) -> AsyncIterator[int]:
    """Answer `routes` at (host, port) meanwhile; gives the port (0 lets the system choose).

    Raises Busy when the port is taken, ConfigError when the address is none of this machine
    """
    listener = _listen(*address)
    config = uvicorn.Config(
        Starlette(routes=list(routes)),
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_VISITS,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    try:
        await server.ready.wait()
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon, and tells when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise ConfigError(f"web.listen: {host} is no host that is known here") from None
    family, _, _, _, place = found[0]
    # The protocol is named so that asyncio switches Nagle's algorithm off: 40 ms per answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EADDRINUSE:
            raise Busy(
                f"web.listen: port {port} of {host} is in use; end what holds it, or set [web] "
                "listen to another one"
            ) from error
        raise ConfigError(
            f"web.listen: {host}:{port} cannot be opened ({reason}); name an address of this "
            "machine, and a port above 1023"
        ) from error
    listener.setblocking(False)
    return listener
