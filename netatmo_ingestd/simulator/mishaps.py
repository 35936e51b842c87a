"""Request faults: an answer that is refused, mangled, cut off or late."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from netatmo_ingestd.simulator.answers import Answer, CallError, as_json, bad
from netatmo_ingestd.simulator.faults import Fault

_HTML = "text/html"
_XML = "application/xml"
_BLOCK = b" " * 65_536


def plain(answer: Answer) -> Response:
    return Response(
        answer.body,
        answer.status,
        headers=dict(answer.headers),
        media_type=answer.content_type,
    )


def needs_answer(fault: Fault) -> bool:
    """Whether the call is carried out before its answer is spoiled (`commit`)."""
    return bool(fault.params["commit"])


def spoil(fault: Fault, answer: Answer) -> Response:
    """The response a fault makes of `answer`, which is empty where nothing was carried out."""
    return _KINDS[fault.kind](fault.params, answer)


Params = Mapping[str, Any]


# --- refusals ---------------------------------------------------------------------------------


def _refusal(status: int, code: int, message: str) -> Callable[[Params, Answer], Response]:
    return lambda p, _answer: plain(bad(CallError(status, code, message), _retry_after(p)))


def _retry_after(params: Params) -> dict[str, str]:
    seconds = params.get("retry_after")
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _http(p: Params, _answer: Answer) -> Response:
    status, title = p["status"], f"{p['status']} Service Temporarily Unavailable"
    if p["body"] == "json":
        # Made by the gateway: pretty-printed with CRLF.
        text = json.dumps({"error": {"code": 11, "message": "Internal error"}}, indent=2)
        return plain(Answer(status, text.replace("\n", "\r\n").encode(), _retry_after(p)))
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>"
    )
    body = b"" if p["body"] == "empty" else page.encode()
    return plain(Answer(status, body, _retry_after(p), _HTML))


def _throttle(p: Params, _answer: Answer) -> Response:
    return plain(bad(CallError(p["status"], 26, p["message"]), _retry_after(p)))


def _error(p: Params, _answer: Answer) -> Response:
    return plain(bad(CallError(p["status"], p["code"], p["message"])))


def _public_upstream(p: Params, _answer: Answer) -> Response:
    message = "failed to connect to server [weathermap:27017] on first connect"
    return plain(as_json({"error": {"message": message, "code": 0}}, p["status"]))


def _portal(p: Params, _answer: Answer) -> Response:
    told = {"statusCode": p["status"], "message": p["message"]}
    return plain(as_json(told, p["status"], _retry_after(p)))


# --- the wire ---------------------------------------------------------------------------------


class _Cut(Response):
    """Announces a whole answer, sends `after` bytes of it and closes the connection."""

    def __init__(self, answer: Answer, after: int | None) -> None:
        super().__init__(answer.body, answer.status, media_type=answer.content_type)
        self._part = answer.body[: len(answer.body) // 2 if after is None else after]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shortened(message: Message) -> None:
            # A body that is never finished makes the server drop the connection.
            rest = {"body": self._part, "more_body": True} if "body" in message else {}
            await send({**message, **rest})

        await super().__call__(scope, receive, shortened)


class _Stall(Response):
    """Says nothing for a while, then answers."""

    def __init__(self, answer: Answer, real_seconds: float) -> None:
        super().__init__(answer.body, answer.status, media_type=answer.content_type)
        self._real_seconds = real_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(self._real_seconds)
        await super().__call__(scope, receive, send)


def _slow(p: Params, answer: Answer) -> Response:
    async def trickle() -> AsyncIterator[bytes]:
        for start in range(0, len(answer.body), p["chunk"]):
            yield answer.body[start : start + p["chunk"]]
            await asyncio.sleep(p["pause"])

    return StreamingResponse(trickle(), answer.status, media_type=answer.content_type)


# --- bodies -----------------------------------------------------------------------------------


def _huge(p: Params, _answer: Answer) -> Response:
    async def spaces() -> AsyncIterator[bytes]:
        yield b'{"body": {"devices": []}, "status": "ok"'
        for _ in range(p["size"] // len(_BLOCK)):
            yield _BLOCK
        yield b"}"

    return StreamingResponse(spaces(), 200, media_type="application/json; charset=utf-8")


def _gzip_bomb(p: Params, _answer: Answer) -> Response:
    return plain(Answer(200, _bomb(p["size"]), {"Content-Encoding": "gzip"}))


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    press = zlib.compressobj(wbits=31)
    parts = [press.compress(_BLOCK) for _ in range(size // len(_BLOCK))]
    return b"".join((*parts, press.compress(b"{}"), press.flush()))


def _not_json(_p: Params, _answer: Answer) -> Response:
    return plain(Answer(200, b"<!DOCTYPE html><p>Maintenance</p>", {}, _HTML))


def _bad_json(p: Params, _answer: Answer) -> Response:
    """JSON that a strict reader refuses or a lenient one misreads: nan, big, deep, truncated."""
    inner = {
        "nan": '{"devices": NaN}',
        "big": '{"devices": [], "n": 1e999}',
        "deep": "[" * 100_000 + "]" * 100_000,
        "truncated": '{"devices": [',
    }[p["variant"]]
    return plain(Answer(200, f'{{"body": {inner}, "status": "ok", "time_server": 1}}'.encode()))


def _redirect(p: Params, _answer: Answer) -> Response:
    return plain(Answer(p["status"], b"", {"Location": p["location"]}, _HTML))


def _no_body(p: Params, answer: Answer) -> Response:
    """The envelope without `body`, or with the given value."""
    envelope = json.loads(answer.body)
    envelope.pop("body", None)
    if p["value"] is not None:
        envelope["body"] = p["value"]
    return plain(as_json(envelope, answer.status))


# --- the token endpoint -----------------------------------------------------------------------


def _pair(answer: Answer) -> dict[str, Any]:
    """The pair of a carried-out call, else one that nobody knows."""
    if answer.status == 200 and answer.body:
        pair: dict[str, Any] = json.loads(answer.body)
        return pair
    tokens = {f"{name}_token": f"{'0' * 24}|{'f' * 32}" for name in ("access", "refresh")}
    return {**tokens, "scope": ["read_station"], "expires_in": 10_800, "expire_in": 10_800}


def _token(change: Callable[[dict[str, Any], Params], Any]) -> Callable[[Params, Answer], Response]:
    return lambda p, answer: plain(as_json(change(_pair(answer), p)))


def _without(pair: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in pair.items() if name not in names}


def _token_error(p: Params, _answer: Answer) -> Response:
    return plain(as_json({"error": p["error"]}, p["status"]))


# --- the host of pictures ----------------------------------------------------------------------


def _picture_status(p: Params, _answer: Answer) -> Response:
    return plain(Answer(p["status"], b"<Error><Code>Simulated</Code></Error>", {}, _XML))


def _picture_huge(p: Params, answer: Answer) -> Response:
    """The picture, and behind it zeros up to `size`, in an answer that names no length."""

    async def padded() -> AsyncIterator[bytes]:
        yield answer.body
        for _ in range(p["size"] // len(_BLOCK)):
            yield bytes(len(_BLOCK))

    return StreamingResponse(padded(), 200, media_type=answer.content_type)


_KINDS: Mapping[str, Callable[[Params, Answer], Response]] = {
    "http": _http,
    "throttle": _throttle,
    "concurrency": _refusal(429, 11, "Failed to enter concurrency limited section"),
    "error": _error,
    "expired_token": _refusal(403, 3, "Access token expired"),
    "invalid_token": _refusal(403, 2, "Invalid access token"),
    "no_scope": _refusal(403, 13, "Application does not have the good scope rights"),
    "public_upstream": _public_upstream,
    "portal": _portal,
    "cut": lambda p, answer: _Cut(answer, p["after"]),
    "stall": lambda p, answer: _Stall(answer, p["real_seconds"]),
    "slow": _slow,
    "huge": _huge,
    "gzip_bomb": _gzip_bomb,
    "not_json": _not_json,
    "bad_json": _bad_json,
    "empty": lambda _p, _answer: plain(Answer(200, b"")),
    "redirect": _redirect,
    "no_body": _no_body,
    "picture_status": _picture_status,
    "picture_slow": _slow,
    "picture_huge": _picture_huge,
    "picture_html": _not_json,
    "picture_stall": lambda p, answer: _Stall(answer, p["real_seconds"]),
    "picture_redirect": _redirect,
    "token_error": _token_error,
    "token_html": _not_json,
    "token_list": _token(lambda pair, _p: [pair]),
    "token_nulls": _token(lambda pair, _p: pair | {"access_token": None, "refresh_token": None}),
    "token_missing": _token(lambda pair, p: _without(pair, *p["fields"])),
    "token_soon": _token(lambda pair, _p: _without(pair, "expire_in") | {"expires_in": "soon"}),
    "token_expire_in_only": _token(lambda pair, _p: _without(pair, "expires_in")),
    "token_huge": _token(lambda pair, p: pair | {"padding": "x" * p["size"]}),
}
