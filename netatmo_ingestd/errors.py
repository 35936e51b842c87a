"""The exception tree. One question sorts it: would the same call succeed later, unchanged?

IngestError
├── ConfigError          the operator edits the settings or the machine; exit 2
├── LoginRequired        the operator logs in; exit 3 from a command, the daemon waits
├── Busy                 another process holds what this one needs; exit 4
├── OAuthError           the token endpoint or the consent page refused; carries `code` and `cure`
├── ApiError             carries endpoint, HTTP status, Netatmo code
│   ├── ApiUnavailable   later, yes: timeout, refused connection, 5xx, an answer that is no JSON
│   ├── ApiThrottled     later, after `retry_after`
│   └── ApiRefused       no: missing scope, unknown device, a bad argument
├── PayloadError         nothing in the answer has the shape we know; carries endpoint and JSON path
├── StoreUnavailable     MongoDB takes no writes now; keep, back off
└── SpoolError           the disk is full or damaged: stop polling, say so; history asks again later
"""

from __future__ import annotations


class IngestError(Exception):
    """Root of everything this program raises on purpose; the message is one line."""

    exit_code = 1


class ConfigError(IngestError):
    """Settings or surroundings that only the operator can change."""

    exit_code = 2


class LoginRequired(IngestError):
    """No usable login for `account`; the message names the command that makes one.

    refused  True when a call was refused for it, False when there was no token to call with
    """

    exit_code = 3

    def __init__(self, message: str, *, account: str, refused: bool = False) -> None:
        super().__init__(message)
        self.account = account
        self.refused = refused


class Busy(IngestError):
    """Another process holds the lock, the port or the store."""

    exit_code = 4


# A login changes nothing about these: the settings, or the app's page, are wrong.
_CONFIGURATION = {
    "invalid_client",
    "invalid_scope",
    "redirect_uri_mismatch",
    "unsupported_response_type",
}


class OAuthError(IngestError):
    """A refusal by the authorization server (netatmo-api 1.4).

    code    the OAuth error, e.g. "invalid_grant"
    status  HTTP status, 0 when the refusal came through the browser
    cure    what the operator does about it
    final   False when the same call may succeed later
    """

    exit_code = 3

    def __init__(self, message: str, *, code: str, status: int, cure: str, final: bool) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.cure = cure
        self.final = final
        if code in _CONFIGURATION:
            self.exit_code = ConfigError.exit_code


class ApiError(IngestError):
    """A call of the cloud that gave no body.

    endpoint  method name, e.g. "getstationsdata"
    status    HTTP status; 0 when no answer arrived
    code      error code of the body: a number or, on /webhooks/v1, a text; None when unreadable
    """

    def __init__(
        self, message: str, *, endpoint: str, status: int = 0, code: int | str | None = None
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.status = status
        self.code = code


class ApiUnavailable(ApiError):
    """Worth trying again later, unchanged."""


class ApiThrottled(ApiError):
    """A quota is used up; nothing is sent for `retry_after` seconds."""

    def __init__(
        self,
        message: str,
        *,
        endpoint: str,
        status: int,
        code: int | str | None,
        retry_after: float,
    ) -> None:
        super().__init__(message, endpoint=endpoint, status=status, code=code)
        self.retry_after = retry_after


class ApiRefused(ApiError):
    """The same call would be refused again.

    reaction  "scope" (missing scope or retired method), "target" (unknown or foreign id), "key"
              (subscription key) or "bug"
    """

    def __init__(
        self,
        message: str,
        *,
        endpoint: str,
        status: int,
        code: int | str | None,
        reaction: str,
    ) -> None:
        super().__init__(message, endpoint=endpoint, status=status, code=code)
        self.reaction = reaction


class PayloadError(IngestError):
    """An answer without the shape we know; `path` is the JSON path of what is missing."""

    def __init__(self, message: str, *, endpoint: str, path: str) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.path = path


class StoreUnavailable(IngestError):
    """MongoDB takes no writes now. Nothing is lost: the batch stays on the spool.

    reason  "down" (unreachable, stepping down, shutting down), "timeout" (it accepted and never
            answered), "denied" (authentication or rights), "full" (out of space), "refused"
            (it refuses every operation), "unconfirmed" (write concern not met)
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SpoolError(IngestError):
    """The spool cannot take a batch; `full` tells a full disk or bound from damage."""

    def __init__(self, message: str, *, full: bool) -> None:
        super().__init__(message)
        self.full = full
