"""The login on disk: one private file for each account, and the lock around each exchange.

Room is reserved before a request and the new pair is on disk before its first use: without the
fsync of the folder the newest token was lost in 8 of 8 power cuts.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netatmo_ingestd.errors import (
    Busy,
    ConfigError,
)
from netatmo_ingestd.models import Token

PADDING = 16 * 1024
LOCK_LIMIT_S = 40.0
FILE_MAX = 64 * 1024


class TokenFileError(ConfigError):
    """A token file that is left as it is.

    kind  "damaged", "open" (readable by others), "symlink", "owner", "unreadable", "full"
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def token_folder(state_dir: Path, account: str) -> Path:
    return state_dir / "tokens" / account


def digest(secret: str) -> str:
    """Names a secret without telling it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


class TokenFile:
    """One login: `token.json`, and beside it `token.json.next` while one is being made.

    Only `load` and `stamp` may be called without `token_lock`. All of it blocks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = path.with_name(path.name + ".next")

    def stamp(self) -> tuple[int, ...] | None:
        """Changes whenever the file does; None when there is none."""
        try:
            seen = self.path.lstat()
        except OSError:
            return None
        return (seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size)

    def load(self) -> Token | None:
        """The saved login, None if there is none; TokenFileError if it must not be used."""
        text = _read_private(self.path)
        return None if text is None else _decode(text, self.path)

    def recover(self) -> Token | None:
        """`load`, after finishing a save that was cut off between its fsync and its rename."""
        with suppress(TokenFileError):
            # Up to the newline: a kill before the truncation leaves the note after the token.
            waiting = _decode((_read_private(self.next) or b"").partition(b"\n")[0], self.next)
            with suppress(TokenFileError):
                saved = self.load()
                if saved is None or waiting.generation > saved.generation:
                    self.save(waiting)
        return self.load()

    def unanswered(self, refresh: str) -> float | None:
        """When a refresh with this very token began whose answer was never saved, else None."""
        with suppress(TokenFileError, ValueError, AttributeError, TypeError):
            note = json.loads((_read_private(self.next) or b"").rpartition(b"\n")[2])
            if note.get("sent") == digest(refresh):
                return float(note.get("time"))
        return None

    def reserve(self, note: Mapping[str, object]) -> None:
        """Claim the room for a token before it is asked for; `note` behind it outlives a crash."""
        self._write(b" " * PADDING + b"\n" + json.dumps(dict(note)).encode())
        with _writing(self.path):
            _sync_folder(self.path.parent)

    def release(self) -> None:
        """Give the room back: the answer was a refusal, nothing is on its way."""
        with suppress(OSError):
            self.next.unlink(missing_ok=True)

    def save(self, token: Token) -> None:
        """Put `token` on disk for good: overwrite the room, fsync, rename, fsync of the folder."""
        content = asdict(token)
        self._write(json.dumps({"checksum": _checksum(content), "token": content}).encode())
        self._rename()

    def is_there(self) -> bool:
        """True when there is a login, or what is left of one."""
        return any(True for _ in self._all())

    def remove(self) -> None:
        """Take away the login, and every copy that was set aside; first what could revive it."""
        with _writing(self.path):
            for each in self._all():
                each.unlink(missing_ok=True)
            _sync_folder(self.path.parent)

    def _all(self) -> Iterator[Path]:
        yield from (each for each in (self.next, self.path) if os.path.lexists(each))
        yield from self.path.parent.glob(f"{self.path.name}.damaged-*")

    def set_aside(self) -> Path:
        """Keep a damaged file under another name, before `save` replaces it."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        with _writing(self.path):
            try:  # a second name, so that no reader finds nothing meanwhile
                os.link(self.path, aside, follow_symlinks=False)
            except OSError:  # a file system without links
                self.path.replace(aside)
        return aside

    def _write(self, content: bytes) -> None:
        with _writing(self.next):
            fd = os.open(self.next, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(fd, 0o600)
                left = memoryview(content)
                while left:  # on a full disk a write may be short without an error
                    written = os.write(fd, left)
                    if written == 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    left = left[written:]
                os.ftruncate(fd, len(content))
                os.fsync(fd)
            finally:
                os.close(fd)

    def _rename(self) -> None:
        with _writing(self.path):
            self.next.replace(self.path)
            _sync_folder(self.path.parent)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TokenFileError(
            f"{path}: cannot be written ({error.strerror}). Make room, or make the folder writable",
            kind="full",
        ) from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_private(path: Path) -> bytes | None:
    """The content of a file that is ours alone, None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TokenFileError(
                f"{path}: is a symbolic link and is not followed; put the file itself there",
                kind="symlink",
            ) from None
        raise TokenFileError(
            f"{path}: cannot be read ({error.strerror}); it must belong to the daemon's user",
            kind="unreadable",
        ) from error
    try:
        about = os.fstat(fd)
        if about.st_uid != os.geteuid():
            raise TokenFileError(
                f"{path}: belongs to user {about.st_uid}, we are {os.geteuid()}; run this as the "
                "daemon's user, or chown the file",
                kind="owner",
            )
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise TokenFileError(
                f"{path}: mode {stat.S_IMODE(about.st_mode):04o} lets others read the login; "
                f"chmod 600 {path}, and log in again if others use this machine",
                kind="open",
            )
        return os.read(fd, FILE_MAX) if stat.S_ISREG(about.st_mode) else b""
    except OSError as error:
        raise TokenFileError(
            f"{path}: cannot be read ({error.strerror})", kind="unreadable"
        ) from error
    finally:
        os.close(fd)


def _decode(text: bytes, path: Path) -> Token:
    try:
        content = json.loads(text)
        fields = content["token"]
        if content["checksum"] == _checksum(fields):
            known = {key: fields[key] for key in Token.__dataclass_fields__ if key in fields}
            return Token(**{**known, "scopes": tuple(fields["scopes"])})
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise TokenFileError(
        f"{path}: is damaged ({len(text)} bytes, checksum does not match); "
        f"log in again: netatmo-ingestd login --account {path.parent.name}",
        kind="damaged",
    )


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# --- one exchange at a time ---------------------------------------------------------------------


@asynccontextmanager
async def token_lock(folder: Path, limit_s: float = LOCK_LIMIT_S) -> AsyncIterator[None]:
    """Hold the login of `folder` against every other process; Busy after `limit_s` (real time)."""
    with _writing(folder):
        make_folder(folder)
        fd = os.open(folder / "token.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + limit_s
        while not _try_flock(fd):
            if time.monotonic() > deadline:
                raise Busy(
                    f"{folder / 'token.lock'}: held by another process for {limit_s:.0f} s; "
                    "end the other login or daemon of this account, then try again"
                )
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """The account's folder, 0700, on disk."""
    for path in (folder.parent, folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(path.parent)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def recover_if_free(file: TokenFile) -> Token | None:
    """At start: finish a save that was cut off, unless another process is at work there."""
    try:
        fd = os.open(file.path.parent / "token.lock", os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return file.load()
    try:
        return file.recover() if _try_flock(fd) else file.load()
    finally:
        os.close(fd)
