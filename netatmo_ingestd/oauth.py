"""The login on disk, and its refresh.

Netatmo may replace the refresh token at each use; one that is not saved is a lockout. So: one
refresh at a time (one task for all callers, one file lock for all processes), room reserved on
disk before the request, the new pair on disk before its first use. What remains is a kill between
the cloud's commit and our fsync, some milliseconds per refresh; it is noticed and announced.

Authlib words the requests, httpx carries them. The consent flow is in `login`; setting the header
and repeating a refused call is the work of `client`.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import resource
import stat
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import (
    ApiUnavailable,
    Busy,
    ConfigError,
    IngestError,
    LoginRequired,
    OAuthError,
)
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.providers import OAUTH_CURES, OAuthCure, Provider

State = Literal["ok", "stale", "expired", "suspect", "dead", "none"]

ENDPOINT = "oauth2/token"
PADDING = 16 * 1024
ANSWER_MAX = 64 * 1024
REQUEST_LIMIT_S = 20.0
LOCK_LIMIT_S = 40.0
# One invalid_grant is not death: the cloud fails several times a day. After these the previous
# refresh token is tried once, last, as some servers revoke a login whose old token comes back.
SUSPECT_AFTER_S = (30.0, 300.0, 3600.0)
PROBE_EVERY_S = 6 * 3600.0
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 3600.0
BACKOFF_LOCAL_MAX_S = 300.0  # a full disk or a held lock costs the cloud nothing
# A broken rotation has been seen as HTTP 500 for months, cured only by a new login.
RELOGIN_HINT_AFTER_S = 6 * 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{6,2048}")


# --- the answer of the token endpoint -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """A valid token answer; `scopes` None when it names none."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    lifetime: float
    scopes: tuple[str, ...] | None

    def token(self, *, asked: float, generation: int, old: Token | None = None) -> Token:
        """The login to save; `asked` is when the request was made, on the daemon's clock."""
        return Token(
            access=self.access,
            refresh=self.refresh,
            expires=asked + self.lifetime,
            lifetime=self.lifetime,
            scopes=self.scopes if self.scopes is not None else old.scopes if old else (),
            generation=generation,
            previous_refresh=(
                ""
                if old is None
                else old.refresh
                if old.refresh != self.refresh
                else old.previous_refresh
            ),
        )


def parse_token_answer(status: int, body: bytes, *, account: str) -> Grant:
    """Read an answer of the token endpoint; pure.

    body    {"access_token", "refresh_token", "expires_in" or "expire_in", "scope": [..] or "a b"}
            or {"error": "invalid_grant"}; no `token_type` needed, a missing life means 3600 s
    Raises  OAuthError for a refusal, ApiUnavailable for everything else that is no pair of tokens
    Source  netatmo-api.md 1.2 and 1.4
    """
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    answer = data if isinstance(data, dict) else {}
    error = answer.get("error")
    if isinstance(error, dict) and error.get("code") == 30:  # "invalid refresh token"
        error = "invalid_grant"
    if isinstance(error, str) and 200 <= status < 500:
        raise oauth_error(error, status=status, account=account)
    if not 200 <= status < 300:
        raise ApiUnavailable(
            f"{ENDPOINT}: answered HTTP {status}", endpoint=ENDPOINT, status=status
        )
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not (is_token(access) and is_token(refresh)):
        saw = f"keys {sorted(map(str, answer))[:8]}" if answer else f"{len(body)} bytes"
        raise ApiUnavailable(
            f"{ENDPOINT}: HTTP {status} without a usable pair of tokens ({saw})",
            endpoint=ENDPOINT,
            status=status,
        )
    life = answer.get("expires_in", answer.get("expire_in"))
    return Grant(str(access), str(refresh), _lifetime(life), _scopes(answer.get("scope")))


def is_token(value: object) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _lifetime(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 3600.0
    return float(value) if math.isfinite(value) and 0 < value < 1e9 else 3600.0


def _scopes(value: object) -> tuple[str, ...] | None:
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list):
        return None
    return tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= 64)[:64]


def oauth_error(code: str, *, status: int, account: str) -> OAuthError:
    """The typed error for an OAuth `code`, known or not, with its cure."""
    known = OAUTH_CURES.get(code)
    name = re.sub(r"[^\w.-]", "?", code)[:64]
    cure = known or OAuthCure(
        "unknown to us; if it lasts, log in again: netatmo-ingestd login --account {account}",
        final=False,
    )
    text = cure.cure.format(account=account)
    where = f"HTTP {status}" if status else "on the consent page"
    return OAuthError(
        f'account {account}: refused with "{name}" ({where}); {text}',
        code=name,
        status=status,
        cure=text,
        final=cure.final,
    )


async def request_token(
    http: httpx.AsyncClient, provider: Provider, account: str, grant_type: str, **fields: object
) -> Grant:
    """One call of the token endpoint. Raises OAuthError or ApiUnavailable (status 0: no answer)."""
    form = prepare_token_request(grant_type, **fields)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    body = b""
    try:
        async with asyncio.timeout(REQUEST_LIMIT_S):  # httpx only limits each read
            request = http.build_request(
                "POST", provider.token_url, content=form, headers=headers, timeout=REQUEST_LIMIT_S
            )
            response = await http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_MAX:
                        break
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise ApiUnavailable(
            f"{ENDPOINT}: no answer from {provider.token_url} ({type(error).__name__})",
            endpoint=ENDPOINT,
        ) from error
    if len(body) > ANSWER_MAX:
        raise ApiUnavailable(
            f"{ENDPOINT}: the answer is over {ANSWER_MAX} bytes",
            endpoint=ENDPOINT,
            status=response.status_code,
        )
    return parse_token_answer(response.status_code, body, account=account)


# --- the file -----------------------------------------------------------------------------------


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
        return os.read(fd, ANSWER_MAX) if stat.S_ISREG(about.st_mode) else b""
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


async def to_the_end(task: asyncio.Task[Any]) -> None:
    """Wait for `task` even when we are cancelled meanwhile; the cancellation comes after it."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation tells enough
        raise cancelled


def forbid_dumps() -> None:
    """No core dump and no debugger of another process: the login is in our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(AttributeError, OSError):  # Linux only; a dump through a pipe ignores the limit
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


# --- the manager --------------------------------------------------------------------------------


@dataclass
class _Trouble:
    """A series of failed refreshes.

    denied  how many of them were invalid_grant
    since   when it began, until when nothing is sent (monotonic)
    lost    when a refresh began whose answer never reached the disk
    """

    failures: int = 0
    denied: int = 0
    since: float = 0.0
    until: float = -math.inf
    error: IngestError | None = None
    lost: float | None = None


class TokenManager:
    """Gives callers a usable token of one account, and keeps it so.

    reserve  waits for one call of the budget, before each token call
    """

    def __init__(
        self,
        *,
        account: str,
        folder: Path,
        provider: Provider,
        client_id: str,
        client_secret: str,
        http: httpx.AsyncClient,
        clock: Clock,
        reserve: Callable[[], Awaitable[None]],
        log: Any,
    ) -> None:
        self.account = account
        self._file = TokenFile(folder / "token.json")
        self._provider = provider
        self._client = {"client_id": client_id, "client_secret": client_secret}
        self._http = http
        self._clock = clock
        self._reserve = reserve
        self._log = log
        self._token: Token | None = None
        self._unsaved: Token | None = None
        self._refused = -1
        self._seen: tuple[int, ...] | None = ()  # of TokenFile.stamp; () before the first look
        self._problem: TokenFileError | None = None
        self._trouble = _Trouble()
        self._task: asyncio.Task[None] | None = None
        self._exchanging = False
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def current(self) -> Token:
        """A token good for a minute or more.

        Waits for a refresh only if there is no usable token; a refresh that is merely due runs in
        the background. Raises LoginRequired (none or dead) or ApiUnavailable (between two tries).
        """
        self._look()
        if self._token is None:
            raise self._reason()
        if not self._usable(self._token):
            task = self._start()
            if task is not None:
                await asyncio.wait({task})  # our cancellation leaves it running
                self._collect()
        elif self._due(self._token):
            self._start()
        if self._token is None or not self._usable(self._token):
            raise self._reason()
        return self._token

    async def renew(self, refused: int) -> Token:
        """A token of another generation than `refused`, which the cloud called invalid."""
        self._look()
        if self._token is not None and self._token.generation == refused:
            self._refused = refused
        return await self.current()

    async def close(self) -> None:
        """Wait for an exchange on its way; a refresh that has not asked yet is dropped."""
        if self._unsaved is not None:
            self._trouble.until = -math.inf
            self._start()
        self._closing = True
        task = self._task
        if task is None:
            return
        if not self._exchanging and self._unsaved is None:
            task.cancel()
        await to_the_end(task)
        self._collect()

    @property
    def state(self) -> State:
        self._look()
        if self._token is None:
            return "none"
        if self._dead:
            return "dead"
        if self._trouble.denied:
            return "suspect"
        if not self._usable(self._token):
            return "expired"
        return "stale" if self._trouble.failures or self._due(self._token) else "ok"

    def status(self) -> dict[str, Any]:
        """For `status`: no secret in it; times in ISO 8601, UTC."""
        state, token, trouble = self.state, self._token, self._trouble
        wait = trouble.until - self._clock.monotonic()
        return {
            "account": self.account,
            "state": state,
            "expires": _iso(token.expires) if token else None,
            "scopes": list(token.scopes) if token else [],
            "generation": token.generation if token else 0,
            "failures": trouble.failures,
            "error": self._what_failed() or None,
            "next_attempt": _iso(self._clock.time() + wait) if wait > 0 else None,
            "cure": self._cure(),
        }

    # --- what we have

    def _look(self) -> None:
        """Notice a login that appeared, changed or vanished on disk."""
        if self._exchanging:
            return  # the lock is ours; what we rename is not used before it is safe
        stamp = self._file.stamp()
        if stamp == self._seen and self._problem is None:
            return
        first, self._seen = self._seen == (), stamp
        try:
            self._take(_recover_if_free(self._file) if first else self._file.load(), first=first)
            if self._problem is not None:
                self._problem, self._trouble.until = None, -math.inf
        except TokenFileError as error:
            if str(error) != str(self._problem):
                self._log.error("login.file", account=self.account, error=str(error))
            self._problem = error  # what is in memory is used as long as it lives

    def _take(self, token: Token | None, *, first: bool = False) -> None:
        """Make what is on disk ours."""
        before, trouble = self._token, self._trouble
        if token == before and not first:
            return
        self._token, self._unsaved, self._refused, self._trouble = token, None, -1, _Trouble()
        self._protect()
        if token is None:
            self._log.error("login.required", account=self.account, cure=self._cure())
        elif not first and (before is None or trouble.failures):
            self._log.info("login.found", account=self.account, generation=token.generation)

    def _protect(self, *more: str) -> None:
        token = self._token
        kept = (token.access, token.refresh, token.previous_refresh) if token else ()
        secrets = (self._client["client_secret"], *kept, *more)
        REDACTOR.protect(f"token:{self.account}", [secret for secret in secrets if secret])

    def _usable(self, token: Token) -> bool:
        left = token.expires - self._clock.time()
        return token.generation != self._refused and left >= min(60.0, token.lifetime / 3)

    def _due(self, token: Token) -> bool:
        """A third of the life is left, or more than all of it: the clock was set back."""
        left = token.expires - self._clock.time()
        return not token.lifetime / 3 < left <= token.lifetime + 60

    @property
    def _dead(self) -> bool:
        return self._trouble.denied > self._suspect_steps

    @property
    def _suspect_steps(self) -> int:
        return len(SUSPECT_AFTER_S) + bool(self._token and self._token.previous_refresh)

    def _cure(self) -> str:
        login = f"netatmo-ingestd login --account {self.account}"
        trouble = self._trouble
        if self._problem is not None:
            return str(self._problem)
        if self._token is None or self._dead:
            return f"log in: {login}"
        if trouble.error is None:
            return ""
        cure = getattr(trouble.error, "cure", "wait; it is tried again by itself")
        if self._clock.monotonic() - trouble.since > RELOGIN_HINT_AFTER_S:
            cure += f"; it fails for hours, so log in again: {login}"
        return str(cure)

    def _reason(self) -> IngestError:
        """Why there is no token now."""
        state, trouble = self.state, self._trouble
        if state in ("none", "dead"):
            what = str(
                self._problem or f"account {self.account}: {self._what_failed()}; {self._cure()}"
            )
            return LoginRequired(what, account=self.account)
        wait = max(0.0, trouble.until - self._clock.monotonic())
        return ApiUnavailable(
            f"{ENDPOINT}: no usable token ({trouble.error or 'we are stopping'}); "
            f"tried again in {wait:.0f} s",
            endpoint=ENDPOINT,
            status=getattr(trouble.error, "status", 0),
        )

    def _what_failed(self) -> str:
        if self._token is None:
            return "there is no login"
        text = str(self._problem or self._trouble.error or "")
        if self._trouble.denied and self._trouble.lost is not None:
            text += f"; the answer to the refresh of {_iso(self._trouble.lost)} was never saved"
        return text

    # --- the refresh

    def _start(self) -> asyncio.Task[None] | None:
        """The refresh in flight, or a new one if it is time for one."""
        self._collect()
        if self._task is None and not self._closing:
            if self._clock.monotonic() < self._trouble.until:
                return None
            self._task = asyncio.create_task(self._refresh(), name=f"refresh:{self.account}")
        return self._task

    def _collect(self) -> None:
        """Let go of a finished refresh; a surprise inside it is raised here, once."""
        task = self._task
        if task is not None and task.done():
            self._task = None
            if not task.cancelled():
                task.result()

    async def _refresh(self) -> None:
        try:
            if self._unsaved is None:
                await self._reserve()
            async with token_lock(self._file.path.parent):
                self._exchanging = True
                await self._exchange()
        except IngestError as error:
            self._failed(error)
        finally:
            self._exchanging = False

    async def _exchange(self) -> None:
        """Under the lock: adopt a newer login, else ask for one, save it, then use it."""
        self._take(await asyncio.to_thread(self._file.recover))
        old = self._token
        if old is None or (self._usable(old) and not self._due(old)):
            return
        if self._unsaved is None:
            self._unsaved = await self._ask(old)
        new = self._unsaved
        await asyncio.to_thread(self._file.save, new)
        self._seen, self._problem = self._file.stamp(), None
        failures = self._trouble.failures
        self._token, self._unsaved, self._refused, self._trouble = new, None, -1, _Trouble()
        self._protect(old.access)  # requests with the old one may still be on their way
        if failures:
            self._log.info("login.recovered", account=self.account, failures=failures)
        self._log.debug("login.refreshed", account=self.account, generation=new.generation)

    async def _ask(self, old: Token) -> Token:
        last_step = self._trouble.denied == len(SUSPECT_AFTER_S) + 1
        refresh = (old.previous_refresh if last_step else "") or old.refresh
        lost = await asyncio.to_thread(self._file.unanswered, old.refresh)
        if lost is not None:
            self._trouble.lost = lost
        asked = self._clock.time()
        note = {"generation": old.generation, "sent": digest(refresh), "time": lost or asked}
        await asyncio.to_thread(self._file.reserve, note)
        try:
            grant = await request_token(
                self._http,
                self._provider,
                self.account,
                "refresh_token",
                refresh_token=refresh,
                **self._client,
            )
        except OAuthError:
            self._file.release()
            raise
        self._protect(grant.access, grant.refresh)
        return grant.token(asked=asked, generation=old.generation + 1, old=old)

    def _failed(self, error: IngestError) -> None:
        """Count it, plan the next try, tell of the first and now and then of a later one."""
        trouble, now = self._trouble, self._clock.monotonic()
        was_dead = self._dead
        trouble.since = trouble.since if trouble.failures else now
        trouble.failures += 1
        trouble.error = error
        denied = isinstance(error, OAuthError) and error.code == "invalid_grant"
        trouble.denied += denied
        if self._dead:
            wait = PROBE_EVERY_S
        elif denied:
            wait = (*SUSPECT_AFTER_S, SUSPECT_AFTER_S[0])[trouble.denied - 1]
        else:
            doublings = min(trouble.failures - trouble.denied - 1, 20)
            # Spread by account: a fleet does not come back as one.
            spread = 1 + zlib.crc32(self.account.encode()) / 2**32 / 5
            local = isinstance(error, (ConfigError, Busy))
            longest = BACKOFF_LOCAL_MAX_S if local else BACKOFF_MAX_S
            wait = min(BACKOFF_FIRST_S * 2**doublings * spread, longest)
        trouble.until = now + wait
        if self._dead and not was_dead:
            self._log.error(
                "login.required", account=self.account, error=self._what_failed(), cure=self._cure()
            )
        elif trouble.failures & (trouble.failures - 1) == 0:
            self._log.warning(
                "login.failing",
                account=self.account,
                error=self._what_failed(),
                failures=trouble.failures,
                retry_in_s=round(wait),
            )


def _recover_if_free(file: TokenFile) -> Token | None:
    """At start: finish a save that was cut off, unless another process is at work there."""
    try:
        fd = os.open(file.path.parent / "token.lock", os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return file.load()
    try:
        return file.recover() if _try_flock(fd) else file.load()
    finally:
        os.close(fd)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
