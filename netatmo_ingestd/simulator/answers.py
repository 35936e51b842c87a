"""What the cloud says: the envelopes of good and refused calls, as bytes with a status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any

NO_BODY: Json = object()
"""What a method answers that has no `body` at all."""
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer before it goes on the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON


class CallError(Exception):
    """A call that ends in the error envelope (netatmo-api 5.1); a code of webhooks may be text."""

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def missing_arguments(what: str) -> CallError:
    return CallError(400, 10, f"Missing {what}")


def invalid_argument(message: str) -> CallError:
    return CallError(400, 21, message)


def no_scope() -> CallError:
    return CallError(403, 13, "Application does not have the good scope rights")


def as_json(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), headers or {})


def good(body: Json, *, took_s: float, now: float) -> Answer:
    """The success envelope."""
    told = {} if body is NO_BODY else {"body": body}
    return as_json({**told, "status": "ok", "time_exec": round(took_s, 4), "time_server": int(now)})


def bad(refused: CallError, headers: Mapping[str, str] | None = None) -> Answer:
    """The error envelope."""
    error = {"code": refused.code, "message": refused.message}
    return as_json({"error": error}, refused.status, headers)
