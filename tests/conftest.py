"""Shared fixtures. A connection to anything but loopback fails the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from netatmo_ingestd import logs


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test does, it talks to this machine alone."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family != socket.AF_UNIX and not str(host).startswith(("127.", "::1")):
            raise AssertionError(f"a test connects to {host!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Each test starts with unconfigured logs and no secrets to hide."""
    yield
    structlog.reset_defaults()
    logs.REDACTOR.forget()
