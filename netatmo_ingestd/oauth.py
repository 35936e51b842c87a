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
import math
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import (
    ApiUnavailable,
    Busy,
    ConfigError,
    IngestError,
    LoginRequired,
    OAuthError,
)
from netatmo_ingestd.grants import ENDPOINT, request_token
from netatmo_ingestd.logs import REDACTOR
from netatmo_ingestd.models import Token
from netatmo_ingestd.providers import Provider
from netatmo_ingestd.tokenfile import (
    TokenFile,
    TokenFileError,
    digest,
    recover_if_free,
    token_lock,
)
from netatmo_ingestd.waits import to_the_end

State = Literal["ok", "stale", "expired", "suspect", "dead", "none"]

# One invalid_grant is not death: the cloud fails several times a day. After these the previous
# refresh token is tried once, last, as some servers revoke a login whose old token comes back.
SUSPECT_AFTER_S = (30.0, 300.0, 3600.0)
PROBE_EVERY_S = 6 * 3600.0
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 3600.0
BACKOFF_LOCAL_MAX_S = 300.0  # a full disk or a held lock costs the cloud nothing
# A broken rotation has been seen as HTTP 500 for months, cured only by a new login.
RELOGIN_HINT_AFTER_S = 6 * 3600.0


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
    adopted  counts the logins that others put on disk since the start
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
        self.adopted = 0
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
            self._take(recover_if_free(self._file) if first else self._file.load(), first=first)
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
        self.adopted += not first
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


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
