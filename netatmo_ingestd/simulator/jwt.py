"""Tokens that look like those of Azure: JSON Web Tokens around ours, signed by nobody."""

from __future__ import annotations

import base64
import json
from typing import Any

from netatmo_ingestd.simulator.sessions import ACCESS_LIFE_S

REFRESH_LIFE_S = 90 * 86_400


def as_jwt(told: dict[str, Any], now: float) -> dict[str, Any]:
    """The token answer: a JSON Web Token around ours, lifetimes in three ways, no scope."""
    claims = {
        "exp": int(now) + ACCESS_LIFE_S,
        "iat": int(now),
        "sub": told["access_token"].partition("|")[0],
        "jti": told["access_token"],
        "padding": "x" * 600,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    head, body = (_packed(json.dumps(part).encode()) for part in parts)
    return {
        "access_token": f"{head}.{body}.{_packed(bytes(128))}",
        "token_type": "Bearer",
        "expires_in": str(ACCESS_LIFE_S),
        "expires_on": str(int(now) + ACCESS_LIFE_S),
        "not_before": str(int(now)),
        "refresh_token": told["refresh_token"],
        "refresh_token_expires_in": str(REFRESH_LIFE_S),
    }


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def inner(token: str) -> str:
    """Our token inside a JSON Web Token; "" when it is none."""
    try:
        body = token.split(".")[1]
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return str(json.loads(raw)["jti"])
    except (ValueError, LookupError, TypeError):
        return token
