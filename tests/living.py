"""A state folder that looks as if a daemon ran in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def living(folder: Path) -> Iterator[None]:
    """The lock of `folder` is held, as by a daemon that lives."""
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / "daemon.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
