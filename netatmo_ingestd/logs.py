"""structlog set-up, event names, redaction.

Redaction has three layers: our code never passes a secret to a logger; a processor replaces every
live secret string, as it is, percent-encoded, escaped as in JSON, or inside a base64 text (at each
of its three alignments); foreign loggers stay at WARNING (httpx logs whole addresses at INFO).
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

EVENTS: Mapping[str, str] = {
    "daemon.started": "the daemon runs: version, accounts, store, state folder",
    "daemon.stopping": "a signal asked it to end; it drains",
    "daemon.stopped": "it ended; what is left stays on the spool",
    "daemon.summary": "once an hour: rows, requests used and allowed, spool, coverage, login",
    "clock.stepped": "wall and monotonic clock parted (suspend, NTP); polls are placed anew",
    "login.saved": "a login was stored by a login command",
    "login.refreshed": "a new token pair is on disk (debug)",
    "login.failing": "a refresh failed; when it is tried again",
    "login.recovered": "a refresh works again, after how many failures",
    "login.required": "the login is lost; the message names the command that cures it",
    "login.found": "a new login appeared on disk; polling goes on",
    "login.file": "the token file is damaged or readable by others",
    "history.begun": "missing history is being fetched: how many modules and requests",
    "history.blocked": "what is still missing is refused or settles nothing; tried again later",
    "history.filled": "nothing is missing any more that the cloud shows",
    "poll.failed": "a call failed; the first of a series, then a reminder now and then",
    "poll.recovered": "it works again, after how many failures",
    "poll.refused": "the cloud refuses this call (scope or device); tried again once a day",
    "poll.slow": "a call overran its interval",
    "poll.stretched": "the cadences do not fit the budget and are stretched evenly",
    "budget.paused": "a quota is used up: who, for how long, the new hourly target",
    "budget.damaged": "the file of the request budget was unreadable and begun anew",
    "parse.failed": "an answer was set aside whole for a later replay",
    "parse.problem": "parts of an answer were set aside (first time for each path)",
    "parse.drift": "a field or type we do not know (first time for each)",
    "picture.failing": "pictures cannot be fetched; tried again with their next address",
    "picture.recovered": "they can be fetched again",
    "picture.refused_host": "an event names a picture at a host that is not allowed (once each)",
    "retention.deleted": "what was beyond [retention] is deleted: how many, until when",
    "module.added": "a module appeared",
    "module.changed": "a description changed: name, room, firmware",
    "module.vanished": "absent from good answers for a day",
    "module.returned": "a vanished module is there again",
    "spool.full": "the spool is at its bound or the disk is full; what is paused",
    "spool.room": "there is room again",
    "spool.damaged": "the spool file was set aside and a new one begun",
    "spool.row_damaged": "a row failed its checksum and went to the dead letters",
    "webhook.registered": "the cloud calls us when something happens: for which account",
    "webhook.removed": "the cloud was told to call us no more",
    "webhook.replaced": "another address was called until now, of which hosts; ours is now",
    "webhook.activated": "its first call arrived: the address is reachable",
    "webhook.failed": "the webhook could not be registered or removed; it is tried again",
    "webhook.refused": "somebody called the webhook without a valid signature (the first time)",
    "store.down": "MongoDB takes no writes: reason and how many records wait",
    "store.up": "it takes writes again, after how many failures",
    "store.replaced": "the database is an older copy or empty; it is filled again",
    "store.rejected": "a document was refused and is in dead_letters",
    "store.degraded": "the server refuses an index or a large bulk; done another way",
    "store.ended": "the embedded store ended or refused everything; when it is started again",
    "store.moved": "the embedded store listens on another port now",
    "store.password": "the embedded store's password file was lost; a new one was made",
    "store.restarted": "the embedded store was started again",
}


class Redactor:
    """Replaces live secrets in everything that is logged or printed."""

    def __init__(self) -> None:
        self._secrets: dict[str, frozenset[str]] = {}
        self._forms: tuple[str, ...] = ()
        self._encoded: tuple[re.Pattern[str], ...] = ()

    def protect(self, name: str, values: Iterable[str]) -> None:
        """Hide `values` from now on; a later call with the same name replaces them.

        What is shorter than six characters is no secret worth the name, and would garble the log.
        """
        secrets = frozenset(value for value in values if len(value) >= 6)
        if self._secrets.get(name) == secrets:
            return
        self._secrets[name] = secrets
        every = frozenset().union(*self._secrets.values())
        # The longest first: one secret may be the beginning of another.
        forms = {form for secret in every for form in _forms(secret)}
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        odd = (secret for secret in every if not secret.isascii() or not secret.isalnum())
        self._encoded = tuple(map(_percent_encoded, sorted(odd, key=len, reverse=True)))

    def forget(self) -> None:
        """Hide nothing any more."""
        self._secrets, self._forms, self._encoded = {}, (), ()

    def clean(self, text: str) -> str:
        if "%" in text or "+" in text:
            for pattern in self._encoded:
                text = pattern.sub("***", text)
        for form in self._forms:
            if form in text:
                text = text.replace(form, "***")
        return text

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        return {key: self._clean_value(value) for key, value in event.items()}

    def _clean_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return {self.clean(str(key)): self._clean_value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean_value(item) for item in value]
        return self.clean(str(value))


def _forms(value: str) -> set[str]:
    """`value` as it is, as a JSON text has it, and as parts of longer base64 texts."""
    raw = value.encode("utf-8", "surrogatepass")
    forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    for before in range(3):
        # Characters that also hold bits of a neighbour differ with it; those between do not.
        first, last = math.ceil(before * 8 / 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(bytes(before) + raw).decode()[first:last])
    return forms


def _percent_encoded(value: str) -> re.Pattern[str]:
    """Matches `value` whichever of its characters are percent-encoded, a blank also as plus."""
    parts = []
    for letter in value:
        encoded = "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
        plus = r"|\+" if letter == " " else ""
        parts.append(f"(?:(?i:{encoded})|{re.escape(letter)}{plus})")
    return re.compile("".join(parts))


REDACTOR = Redactor()


def _plain_traceback(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Tracebacks as text: structlog's dict form would print local variables."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["traceback"] = "".join(traceback.format_exception(error))
    return event


def setup(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send events to `stream` (stderr): JSON lines, or coloured text on a terminal.

    Source of names: EVENTS, printed in the README.
    """
    out = stream or sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if console
        else structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _plain_traceback,
            REDACTOR,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, level.upper()),
        ),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(message)s", force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_ForeignFormatter())


class _ForeignFormatter(logging.Formatter):
    """Lines of libraries, redacted and in the same shape as ours."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "event": "library",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": REDACTOR.clean(super().format(record)),
        }
        rendered = structlog.processors.JSONRenderer(ensure_ascii=False)(None, "", event)
        return rendered if isinstance(rendered, str) else rendered.decode()


def logger() -> Any:
    """The structured logger; events are the names of EVENTS."""
    return structlog.get_logger()


def last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """For sys.excepthook: the traceback of a defect, redacted."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(REDACTOR.clean(text))
