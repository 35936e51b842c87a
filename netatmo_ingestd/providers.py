"""The clouds as data: hosts, OAuth URLs, scopes of each product, quotas, and how a refusal is read.

Source: netatmo-api.md sections 1, 2, 5, 6 and 8.2 to 8.4.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote, urlsplit


class Reaction(Enum):
    """What a refusal asks of the caller (netatmo-api 5.2)."""

    RENEW = "renew"  # refresh the token once, repeat the call once
    RELOGIN = "relogin"  # the refresh token itself is refused
    SCOPE = "scope"  # missing scope or a retired method: tried again once a day
    CROWDED = "crowded"  # too many calls at once: again within seconds, no lesson for the budget
    PAUSE = "pause"  # a quota is used up
    TARGET = "target"  # unknown or foreign device: read the topology again
    BUG = "bug"  # the request itself is wrong: never repeated
    RETRY = "retry"  # a passing failure
    KEY = "key"  # the subscription key is missing, wrong or not active
    TERMS = "terms"  # the owner has to accept the cloud's terms anew


@dataclass(frozen=True, slots=True)
class OAuthCure:
    """What an OAuth error means to the operator; `final` False when time may cure it."""

    cure: str
    final: bool = True


Refusal = Callable[[int, "int | str | None", str], Reaction]
"""Reads (status, code, message) of a failed data call."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One cloud.

    api_url    base of the data methods, `auth_url` base of the authorization server
    app_per_hour  calls that one application may make in an hour for all of its accounts together
    per_day    calls that one account may make in any 24 h; 0: it has no such quota
    refusal    what a failed call asks for
    portal     where its apps are made
    picture_hosts  where the pictures of events are: the only other hosts that requests go to, and
                   never with a token
    paths      of methods that do not lie under /api/; "{name}" is a parameter of that name
    key_header the header of the subscription key, "" where there is none
    wrong      what to do about a request that is wrong itself
    bare       answers are the body itself, in no envelope with a status and a time
    sends_scope  whether a login names its scopes; else they are those of the app
    retries    how often a passing failure is tried again at once
    """

    name: str
    api_url: str
    auth_url: str
    app_per_hour: int
    scopes: Mapping[str, tuple[str, ...]]
    refusal: Refusal
    portal: str
    picture_hosts: tuple[str, ...] = ()
    per_day: int = 0
    authorize_path: str = "/oauth2/authorize"
    token_path: str = "/oauth2/token"  # noqa: S105
    paths: Mapping[str, str] = field(default_factory=dict)
    key_header: str = ""
    wrong: str = "the request itself is wrong; please report it"
    bare: bool = False
    sends_scope: bool = True
    retries: int = 3

    @property
    def token_url(self) -> str:
        return f"{self.auth_url}{self.token_path}"

    @property
    def authorize_url(self) -> str:
        return f"{self.auth_url}{self.authorize_path}"

    def address(self, method: str, params: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The URL of a data method, and which of `params` are not in it."""
        path = self.paths.get(method, f"/api/{method}")
        rest = dict(params)
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", quote(rest.pop(name, ""), safe=""))
        return f"{self.api_url}{path}", rest

    @property
    def hosts(self) -> frozenset[str]:
        """The only hosts that requests with a token go to."""
        return frozenset(
            name for url in (self.api_url, self.auth_url) if (name := urlsplit(url).hostname)
        )

    @property
    def loopback(self) -> bool:
        """True when the cloud is a simulator on this machine."""
        return all(is_loopback(host) for host in self.hosts)


def is_loopback(host: str) -> bool:
    """True for this machine; "127.0.0.1.example.com" is another one."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


WEBHOOK_PORTS = (443, 80, 88, 9443)
"""On which Netatmo calls a webhook (netatmo-api 3.12)."""

# Codes of the error envelope. A refusal is read by (status, code), never by status alone:
# a 403 has at least four meanings, a 429 two.
_BY_CODE: Mapping[int | str, Reaction] = {
    1: Reaction.RENEW,
    2: Reaction.RENEW,
    3: Reaction.RENEW,
    9: Reaction.TARGET,
    13: Reaction.SCOPE,
    15: Reaction.TARGET,
    23: Reaction.RENEW,
    26: Reaction.PAUSE,
    27: Reaction.PAUSE,
    28: Reaction.PAUSE,
    29: Reaction.PAUSE,
    30: Reaction.RELOGIN,
    41: Reaction.TARGET,
    # Of RFC 6750, should the front end speak plain OAuth.
    "invalid_token": Reaction.RENEW,
    "insufficient_scope": Reaction.SCOPE,
}
_NAMES_AN_ID = re.compile(r"(home|room|device|module)[_ ]id|invalid id", re.IGNORECASE)


def read_refusal(  # noqa: PLR0911  # a table of cases reads best as one
    status: int, code: int | str | None, message: str
) -> Reaction:
    """Map (status, code) of a failed data call to a reaction.

    code     of the error envelope (a number, or a text); None when there is no readable one
    message  of the envelope; only tells a foreign id (400/21) from a wrong argument
    """
    if status == 429:
        return Reaction.CROWDED if code == 11 else Reaction.PAUSE
    if status >= 500 or code in (0, 11):
        return Reaction.RETRY
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code]
    if status == 401:
        return Reaction.RENEW
    if code is None:
        return Reaction.RETRY  # not of the API, but of something before it
    if status == 400 and code == 21 and _NAMES_AN_ID.search(message):
        return Reaction.TARGET
    if status in (400, 404, 405, 406, 409):
        return Reaction.BUG
    if status == 403:
        return Reaction.SCOPE
    return Reaction.RETRY


def names_application(message: str) -> bool:
    """True when a quota refusal speaks of the application, not of the account."""
    return "application" in message.lower()


OAUTH_CURES: Mapping[str, OAuthCure] = {
    "invalid_request": OAuthCure(
        "compare redirect URI and scopes with the app's page at {portal}, then log in again"
    ),
    "invalid_client": OAuthCure(
        "check client_id and client_secret against the app's page at {portal}"
    ),
    "invalid_grant": OAuthCure("log in again: netatmo-ingestd login --account {account}"),
    "unauthorized_client": OAuthCure(
        "this app may not log in that way; use: netatmo-ingestd login --account {account}"
    ),
    "redirect_uri_mismatch": OAuthCure(
        "enter the redirect URI shown by `netatmo-ingestd login` on the app's page"
    ),
    "access_denied": OAuthCure("log in again and press “Yes, I accept” on the consent page"),
    "unsupported_response_type": OAuthCure(
        "check auth_url in the settings: it is not this cloud's"
    ),
    "invalid_scope": OAuthCure("take products out of `products` until the cloud knows all scopes"),
    "too_many_connections": OAuthCure("wait; it is tried again by itself", final=False),
}


# --- Legrand's developer portal -------------------------------------------------------------------

_PORTAL_BY_STATUS: Mapping[int, Reaction] = {
    401: Reaction.RENEW,
    403: Reaction.SCOPE,
    404: Reaction.TARGET,
    408: Reaction.RETRY,  # the device did not answer the cloud
    429: Reaction.PAUSE,
    469: Reaction.RELOGIN,
    470: Reaction.TERMS,
    486: Reaction.RETRY,  # somebody uses its panel
}
_WAIT = re.compile(
    r"try again in (\d{1,6}) seconds?|replenished in (\d{1,3}):(\d\d):(\d\d)", re.IGNORECASE
)


def read_portal_refusal(status: int, _code: int | str | None, message: str) -> Reaction:
    """The same for Legrand's portal, whose bodies are {"statusCode", "message"} (8.2 to 8.4)."""
    words = message.lower()
    if "subscription key" in words:
        return Reaction.KEY
    if status == 403 and "quota" in words:
        return Reaction.PAUSE
    if "expired" in words and status in (400, 401, 403):
        return Reaction.RENEW
    if not words and status in (400, 403, 404):
        return Reaction.RETRY  # not of the API, but of something before it
    if status in _PORTAL_BY_STATUS:
        return _PORTAL_BY_STATUS[status]
    return Reaction.BUG if 400 <= status < 500 else Reaction.RETRY


def told_wait(message: str) -> float | None:
    """Seconds that a refusal of a quota says in words; None when it says nothing."""
    found = _WAIT.search(message)
    if not found:
        return None
    seconds, hours, minutes, rest = (int(each or 0) for each in found.groups())
    return float(seconds + 3600 * hours + 60 * minutes + rest)


# --- the two --------------------------------------------------------------------------------------

NETATMO = Provider(
    name="netatmo",
    api_url="https://api.netatmo.com",
    auth_url="https://api.netatmo.com",
    app_per_hour=2000,
    refusal=read_refusal,
    portal="dev.netatmo.com (My apps)",
    paths={"webhooks": "/webhooks/v1"},
    # Of each product what reads it, and nothing more: the consent page breaks when all are asked.
    scopes={
        "weather": ("read_station",),
        "aircare": ("read_homecoach",),
        "energy": ("read_thermostat", "read_smarther"),
        "security": (
            "read_camera",
            "read_camerapro",
            "read_presence",
            "read_doorbell",
            "read_smokedetector",
            "read_carbonmonoxidedetector",
        ),
        "control": (
            "read_magellan",
            "read_bubendorff",
            "read_mx",
            "read_mhs1",
            "read_bfi",
        ),
        # Any valid token reads them; this scope is the one that every app may ask for.
        "public": ("read_station",),
    },
    picture_hosts=("netatmocameraimage.blob.core.windows.net",),
)

LEGRAND = Provider(
    name="legrand",
    api_url="https://api.developer.legrand.com",
    auth_url="https://partners-login.eliotbylegrand.com",
    app_per_hour=1000,  # no such limit is known; each account has its own quota
    # The portal gives 500 a day; a tenth stays free for calls by hand.
    per_day=450,
    refusal=read_portal_refusal,
    portal="the Legrand developer portal (My applications)",
    authorize_path="/authorize",
    token_path="/token",  # noqa: S106
    scopes={"emergency": ("safety.read",), "smarther": ("comfort.read",)},
    key_header="Ocp-Apim-Subscription-Key",
    wrong="compare `sites` of the account and the paths of [legrand] with the portal",
    bare=True,
    sends_scope=False,
    retries=0,  # each try is one of the few calls of a day; the next poll is soon enough
)

PROVIDERS: Mapping[str, Provider] = {each.name: each for each in (NETATMO, LEGRAND)}

SCOPES: Mapping[str, tuple[str, ...]] = {**NETATMO.scopes, **LEGRAND.scopes}
"""Scopes of each product, whosever it is."""

READ_SCOPES = frozenset(
    {*(each for scopes in NETATMO.scopes.values() for each in scopes), "read_june"}
)
"""Every scope of Netatmo that only reads (netatmo-api 2)."""

ACCESS_SCOPES = frozenset(
    f"access_{name}" for name in ("camera", "camerapro", "presence", "doorbell")
)
"""Those to live pictures and videos: of no use to us, granted by Netatmo to single apps."""


def not_granted(
    products: Iterable[str], asked: Iterable[str], granted: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Of each product which of its scopes were asked for and not granted, if there are any."""
    missing = set(asked) - set(granted)
    found = {
        product: tuple(scope for scope in SCOPES[product] if scope in missing)
        for product in products
    }
    return {product: scopes for product, scopes in found.items() if scopes}
