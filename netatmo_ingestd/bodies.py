"""Reads what came over HTTP: bodies under a cap, strict JSON, error envelopes.

httpx unpacks gzip without a limit: 113 KiB became 120 MB.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from netatmo_ingestd.models import Json

BODY_MAX = 8 << 20  # bytes after decompression; the largest answer seen is some hundred KiB
SANE_TIMES = (946_684_800, 4_102_444_800)  # the years 2000 to 2100


class TooLarge(ValueError):
    """A body over its bound."""


async def read_body(response: httpx.Response, most: int = BODY_MAX) -> bytes:
    """The decoded body; TooLarge over `most`, ValueError when cut, or encoded as nobody asked."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise ValueError("its encoding is none that was asked for")
    unzip = None if encoding == "identity" else zlib.decompressobj(wbits=31)
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += unzip.decompress(chunk, most + 1 - len(body)) if unzip else chunk
        except zlib.error as error:
            raise ValueError("it is no gzip") from error
        if len(body) > most:
            raise TooLarge(f"it has more than {most} bytes")
    if unzip and not unzip.eof:
        raise ValueError("its gzip is cut short")
    return bytes(body)


def read_json(raw: bytes) -> Json:
    """Strict JSON in UTF-8.

    Raises ValueError, one line without the content, also for NaN, numbers that no float can hold,
    duplicate keys, and nesting too deep to read.
    """
    try:
        return _JSON.decode(raw.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg} at {error.pos})") from error


def read_error(envelope: Json) -> tuple[int | str | None, str]:
    """Code and message of a refusal; (None, "") when it has none.

    envelope  {"error": {"code": 26, "message": "…"}}, a code may be a text ("WH009");
              or of OAuth: {"error": "invalid_grant", "error_description": "…"};
              or of Legrand's portal, which has no code: {"statusCode": 429, "message": "…"}
    """
    error = envelope.get("error") if isinstance(envelope, dict) else None
    if error is None and isinstance(envelope, dict) and "statusCode" in envelope:
        error = {"message": envelope.get("message")}
    if isinstance(error, str):
        error = {"code": error, "message": envelope.get("error_description")}
    if not isinstance(error, dict):
        return None, ""
    code, message = error.get("code"), error.get("message")
    if isinstance(code, str) and re.fullmatch(r"[0-9]{1,9}", code):
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, (int, str)) or code == "":
        code = None
    return code, message if isinstance(message, str) else ""


def read_time(value: Json) -> datetime | None:
    """`time_server` (epoch seconds) as a datetime; None when it is no time of this century."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return datetime.fromtimestamp(value, UTC) if SANE_TIMES[0] <= value < SANE_TIMES[1] else None


def read_date(text: str) -> datetime | None:
    """A date of a header (RFC 9110); None when it is no time of this century."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return read_time(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it has the number {one_line(text[:12])}…")
    return number


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


_JSON = json.JSONDecoder(
    parse_constant=_finite, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique
)


def one_line(text: str) -> str:
    """A piece of an answer as part of a message."""
    # Without control characters, line separators, direction marks and lone surrogates.
    text = re.sub(r"[^\x20-\x7e\xa0-\u2027\u202f-\ud7ff\ue000-\U0010ffff]+", " ", text).strip()
    return text if len(text) <= 120 else text[:119] + "…"
