"""The host of the pictures: signed addresses that are good for ten minutes, and small images.

An address is handed out with an event, and opens without a token, as the signed addresses of the
cloud's blob store do (netatmo-api 3.7).
"""

from __future__ import annotations

import random
import secrets
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from netatmo_ingestd.simulator.answers import Answer
from netatmo_ingestd.simulator.curves import hashed

LIFE_S = 600
_PNG = b"\x89PNG\r\n\x1a\n"
_REFUSED = (
    b'<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code>'
    b"<Message>Server failed to authenticate the request.</Message></Error>"
)


@dataclass(slots=True)
class Counts:
    """Requests for pictures since the start.

    fetched  given whole; `spoiled` are those that met a fault
    refused  too late or wrongly signed
    leaked   came with a bearer token
    """

    fetched: int = 0
    refused: int = 0
    leaked: int = 0
    spoiled: int = 0


class Studio:
    """Signs addresses and opens them; `seed` is its key."""

    def __init__(self, seed: int) -> None:
        self.counts = Counts()
        self._seed = seed

    def address(self, base: str, name: str, now: float) -> dict[str, Any]:
        """A new address of a picture.

        base   scheme and host
        """
        expires, salt = int(now) + LIFE_S, secrets.token_hex(4)
        signature = f"{salt}{self._seal(name, expires, salt)}"
        url = f"{base}/pictures/{name}?se={expires}&sig={signature}"
        return {"url": url, "expires_at": expires}

    def answer(self, name: str, query: Mapping[str, str], now: float) -> Answer:
        """The picture, or 403 when its address is too old or was not given out."""
        expires, signature = query.get("se", ""), query.get("sig", "")
        good = expires.isdecimal() and signature[8:] == self._seal(name, expires, signature[:8])
        if not good or now > int(expires):
            return Answer(403, _REFUSED, {}, "application/xml")
        return Answer(200, image(int(name[:16], 16)), {}, "image/png")

    def _seal(self, name: str, expires: int | str, salt: str) -> str:
        return f"{hashed(self._seed, 'picture', name, expires, salt):016x}"


@lru_cache(maxsize=256)
def image(art: int) -> bytes:
    """A PNG of grey noise, 1 to 4 KB, the same for the same `art`."""
    width, height = 36 + art % 25, 36 + (art >> 8) % 25
    noise = random.Random(art)  # noqa: S311 - repeatable on purpose
    rows = b"".join(b"\0" + noise.randbytes(width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return _PNG + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check
