"""What the token endpoint is asked, and what its answers mean.

Authlib words the requests, httpx carries them; the answer is validated here, field by field: a
generic library accepts null tokens and does not know `expire_in`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass, field

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from netatmo_ingestd.bodies import read_body
from netatmo_ingestd.errors import (
    ApiUnavailable,
    OAuthError,
)
from netatmo_ingestd.models import Token
from netatmo_ingestd.providers import NETATMO, OAUTH_CURES, OAuthCure, Provider

ENDPOINT = "oauth2/token"
ANSWER_MAX = 64 * 1024
REQUEST_LIMIT_S = 20.0
_TOKEN = re.compile(r"[\x21-\x7e]{6,8192}")  # those of Legrand are JSON Web Tokens


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


def parse_token_answer(
    status: int, body: bytes, *, account: str, portal: str = NETATMO.portal
) -> Grant:
    """Read an answer of the token endpoint; pure.

    body    {"access_token", "refresh_token", "expires_in" or "expire_in", "scope": [..] or "a b"}
            or {"error": "invalid_grant"}; no `token_type` needed, a missing life means 3600 s
    Raises  OAuthError for a refusal, ApiUnavailable for everything else that is no pair of tokens
    Source  netatmo-api.md 1.2, 1.4 and 8.2
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
        raise oauth_error(error, status=status, account=account, portal=portal)
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


def oauth_error(
    code: str, *, status: int, account: str, portal: str = NETATMO.portal
) -> OAuthError:
    """The typed error for an OAuth `code`, known or not, with its cure."""
    known = OAUTH_CURES.get(code)
    name = re.sub(r"[^\w.-]", "?", code)[:64]
    cure = known or OAuthCure(
        "unknown to us; if it lasts, log in again: netatmo-ingestd login --account {account}",
        final=False,
    )
    text = cure.cure.format(account=account, portal=portal)
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
    try:
        async with asyncio.timeout(REQUEST_LIMIT_S):  # httpx only limits each read
            request = http.build_request(
                "POST", provider.token_url, content=form, headers=headers, timeout=REQUEST_LIMIT_S
            )
            response = await http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                body = await read_body(response, ANSWER_MAX)
            finally:
                await response.aclose()
    except ValueError as error:
        raise ApiUnavailable(
            f"{ENDPOINT}: the answer is not readable: {error}",
            endpoint=ENDPOINT,
            status=response.status_code,
        ) from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise ApiUnavailable(
            f"{ENDPOINT}: no answer from {provider.token_url} ({type(error).__name__})",
            endpoint=ENDPOINT,
        ) from error
    return parse_token_answer(response.status_code, body, account=account, portal=provider.portal)
