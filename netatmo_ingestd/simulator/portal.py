"""Legrand's developer portal, simulated: keys, quotas, emergency lighting, Smarther, notifications.

Another login than Netatmo's on the same port; bodies of APIM, of which the texts of a quota were
not seen for Legrand. A user has a subscription key and 500 calls a day from 00:00 UTC on, refused
ones included. Notifications are sent when a test asks for one. Source: netatmo-api 8.2 to 8.4.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.simulator import mishaps
from netatmo_ingestd.simulator.answers import Answer, CallError, as_json
from netatmo_ingestd.simulator.building import DAY, TOLD_S, Building, decoded
from netatmo_ingestd.simulator.curves import hexed
from netatmo_ingestd.simulator.faults import PORTAL, Switchboard
from netatmo_ingestd.simulator.jwt import as_jwt, inner
from netatmo_ingestd.simulator.logins import Consents, Logins
from netatmo_ingestd.simulator.oauth import Authority
from netatmo_ingestd.simulator.sessions import Account, App

LIGHTING, SMARTHER = "/emergency-lighting/v1.0", "/smarther/v2.0"
BASES = (LIGHTING, SMARTHER)
SCOPES = ("safety.read", "comfort.read")
KEY = "ocp-apim-subscription-key"
PER_DAY = 500
CALLED_S = 5.0  # real time that a notification may take
_MODULE = (
    "/chronothermostat/thermoregulation/addressLocation/plants/{plant}/modules/parameter/id/value/"
    "{module}"
)
Handler = Callable[[Building, Request, float], Any]


class Refused(Exception):
    """A call that ends in {"statusCode", "message"}."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Portal:
    """All users of the portal; `authority` is Netatmo's, for its way to rotate tokens."""

    def __init__(
        self,
        seed: int,
        users: int,
        clock: Clock,
        faults: Switchboard,
        switches: Consents,
        authority: Authority,
    ) -> None:
        self._clock = clock
        self._faults = faults
        names = [f"legrand{number + 1}@example.org" for number in range(users)]
        self.buildings = {name: Building(seed, name) for name in names}
        self.keys = {name: hexed(seed, 32, "key", name) for name in names}
        app = App(hexed(seed, 32, "portal app"), hexed(seed, 32, "portal secret"))
        accounts = [
            Account(name, hexed(seed, 16, "portal password", name), hexed(seed, 24, name), ())
            for name in names
        ]
        self.authority = Authority([app], accounts, rotation=authority.sessions.rotation)
        self.tokens = {each.user: self.authority.ready_made(app, each, seed) for each in accounts}
        self._logins = Logins(self.authority, clock, faults, switches, shape=as_jwt, scopes=SCOPES)
        self.calls: Counter[tuple[str, str]] = Counter()
        self.by_endpoint: Counter[str] = Counter()
        self.decoded: Counter[str] = Counter()
        self.over_quota = 0
        self.served: list[tuple[str, int, dict[str, Any]]] = []
        self.subscriptions: dict[str, dict[str, str]] = {}

    def routes(self) -> list[Route]:
        calls: tuple[tuple[str, str, Handler, tuple[str, ...]], ...] = (
            (f"{LIGHTING}/siteControllers", "siteControllers", self._controllers, ("GET",)),
            (f"{LIGHTING}/sites/{{site}}/siteControllers", "siteControllers", self._controllers,
             ("GET",)),
            (f"{LIGHTING}/decodeFailureFlag", "decodeFailureFlag", self._decode, ("GET",)),
            (f"{SMARTHER}/plants", "plants", self._plants, ("GET",)),
            (f"{SMARTHER}/plants/{{plant}}/topology", "topology", self._topology, ("GET",)),
            (f"{SMARTHER}{_MODULE}", "status", self._status, ("GET",)),
            (f"{SMARTHER}{_MODULE}/measures", "measures", self._measures, ("GET",)),
            (f"{SMARTHER}{_MODULE}/programlist", "programlist", self._programs, ("GET",)),
            (f"{SMARTHER}/subscription", "subscription", self._listed, ("GET",)),
            (f"{SMARTHER}/plants/{{plant}}/subscription", "subscription", self._subscribe,
             ("POST",)),
            (f"{SMARTHER}/plants/{{plant}}/subscription/{{id}}", "subscription",
             self._unsubscribe, ("DELETE",)),
        )  # fmt: skip
        return [
            Route("/authorize", self._logins.authorize, methods=["GET", "POST"]),
            Route("/token", self._logins.token, methods=["POST"]),
            Route("/simulator/portal", self._report, methods=["GET"]),
            Route("/simulator/portal/notify", self._notify, methods=["POST"]),
            *(
                Route(path, self._answered(name, handler), methods=list(verbs))
                for path, name, handler, verbs in calls
            ),
        ]

    def greeting(self, url: str) -> dict[str, Any]:
        """What a client needs to start."""
        (app,) = self.authority.apps.values()
        return {
            "api_url": url,
            "auth_url": url,
            "accounts": [
                {
                    "user": user,
                    "password": self.authority.accounts[user].password,
                    "client_id": app.client_id,
                    "client_secret": app.client_secret,
                    "subscription_key": self.keys[user],
                    "refresh_token": self.tokens[user],
                    "sites": [building.site],
                    "plants": [building.plant],
                }
                for user, building in self.buildings.items()
            ],
        }

    # --- a call -----------------------------------------------------------------------------------

    def _answered(self, name: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            now = self._clock.time()
            self.by_endpoint[name] += 1
            await request.body()
            try:
                user = self._admit(request, now)
                fault = self._faults.spoiler(f"{PORTAL}{name}", user, now)
                if fault:
                    return mishaps.spoil(fault, Answer(200, b""))
                told = handler(self.buildings[user], request, now)
                status, body = told if isinstance(told, tuple) else (200, told)
                answer = Answer(status, b"") if body is None else as_json(body, status)
            except Refused as refused:
                told = {"statusCode": refused.status, "message": str(refused)}
                answer = as_json(told, refused.status)
            response = mishaps.plain(answer)
            response.headers["Date"] = formatdate(now, usegmt=True)
            return response

        return answered

    def _admit(self, request: Request, now: float) -> str:
        """The user of key and token, counted; raises Refused as APIM does."""
        given = request.headers.get(KEY, "")
        user = next((name for name, key in self.keys.items() if key == given), "")
        if not given:
            raise Refused(
                401,
                "Access denied due to missing subscription key. Make sure to include subscription "
                "key when making requests to an API.",
            )
        if not user:
            raise Refused(
                401,
                "Access denied due to invalid subscription key. Make sure to provide a valid key "
                "for an active subscription.",
            )
        day = f"{datetime.fromtimestamp(now, UTC):%F}"
        self.calls[user, day] += 1
        if self.calls[user, day] > PER_DAY:
            self.over_quota += 1
            left = DAY - int(now) % DAY
            wait = f"{left // 3600:02d}:{left % 3600 // 60:02d}:{left % 60:02d}"
            raise Refused(403, f"Out of call volume quota. Quota will be replenished in {wait}.")
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            own = inner(token) if kind.lower() == "bearer" else ""
            session = self.authority.sessions.by_access(own, now)
        except CallError as error:
            raise Refused(401, f"Unauthorized. {error.message}") from error
        if session.account.user != user:
            raise Refused(401, "Unauthorized. The token is of another user")
        return user

    # --- emergency lighting -----------------------------------------------------------------------

    def _controllers(self, building: Building, request: Request, now: float) -> Any:
        site = request.path_params.get("site") or request.query_params.get("siteId")
        if site != building.site:
            raise Refused(400, "siteId is missing or unknown")
        return building.site_controllers(now)

    def _decode(self, _building: Building, request: Request, _now: float) -> Any:
        reference = request.query_params.get("reference", "")
        try:
            flag = int(request.query_params.get("failureFlag", ""), 0)
        except ValueError:
            raise Refused(400, "failureFlag is no number") from None
        if not reference:
            raise Refused(400, "reference is missing")
        self.decoded[f"{reference}|{flag}"] += 1
        return decoded(reference, flag)

    # --- Smarther ---------------------------------------------------------------------------------

    def _plants(self, building: Building, _request: Request, _now: float) -> Any:
        return {"plants": [{"id": building.plant, "name": "Old house"}]}

    def _topology(self, building: Building, request: Request, _now: float) -> Any:
        _same(request, building.plant)
        modules = [
            {"device": "chronothermostat", "id": each, "name": f"Thermostat {number + 1}"}
            for number, each in enumerate(building.thermostats)
        ]
        return {"plant": {"id": building.plant, "name": "Old house", "modules": modules}}

    def _status(self, building: Building, request: Request, now: float) -> Any:
        number = _number(building, request)
        self.served.append((building.thermostats[number], int(now), building.state(number, now)))
        return {"chronothermostats": [building.chronothermostat(number, now)]}

    def _measures(self, building: Building, request: Request, now: float) -> Any:
        return building.lists(_number(building, request), now - TOLD_S, now)

    def _programs(self, building: Building, request: Request, _now: float) -> Any:
        _number(building, request)
        programs = [{"number": 1, "name": "Week"}, {"number": 2, "name": "Holidays"}]
        return {"chronothermostats": [{"programs": programs}]}

    def _listed(self, building: Building, _request: Request, _now: float) -> Any:
        mine = [
            {"subscriptionId": key, **each}
            for key, each in self.subscriptions.items()
            if each["plantId"] == building.plant
        ]
        return mine or (204, None)

    def _subscribe(self, building: Building, request: Request, _now: float) -> Any:
        _same(request, building.plant)
        try:
            url = json.loads(request._body)["EndPointUrl"]  # noqa: SLF001  read before
        except (ValueError, TypeError, KeyError):
            raise Refused(400, "EndPointUrl is missing") from None
        wanted = {"plantId": building.plant, "EndPointUrl": str(url)}
        if wanted in self.subscriptions.values():
            raise Refused(409, "A subscription with this EndPointUrl exists")
        key = secrets.token_hex(8)
        self.subscriptions[key] = wanted
        return 201, {"subscriptionId": key}

    def _unsubscribe(self, building: Building, request: Request, _now: float) -> Any:
        _same(request, building.plant)
        if self.subscriptions.pop(request.path_params["id"], None) is None:
            raise Refused(404, "No such subscription")
        return 200, None

    # --- for tests --------------------------------------------------------------------------------

    async def _notify(self, request: Request) -> Response:
        """Call each subscriber on this machine for one thermostat; `list`: inside an array."""
        query, now = request.query_params, self._clock.time()
        statuses = []
        for building in self.buildings.values():
            if query["module"] not in building.thermostats:
                continue
            number = building.thermostats.index(query["module"])
            notice: Any = {
                "id": secrets.token_hex(8),
                "eventType": "Smarther.ChronothermostatStatus",
                "subject": building.plant,
                "eventTime": formatdate(now, usegmt=True),
                "data": {"chronothermostats": [building.chronothermostat(number, now)]},
            }
            for each in list(self.subscriptions.values()):
                host = urlsplit(each["EndPointUrl"]).hostname
                if each["plantId"] == building.plant and host in ("127.0.0.1", "localhost", "::1"):
                    async with httpx.AsyncClient(timeout=CALLED_S, trust_env=False) as http:
                        told = [notice] if "list" in query else notice
                        answer = await http.post(each["EndPointUrl"], json=told)
                        statuses.append(answer.status_code)
        return JSONResponse({"statuses": statuses})

    async def _report(self, request: Request) -> Response:
        """What happened in [begin, end), and how often what was called."""
        query = request.query_params
        begin = float(query.get("begin", 0)) or self._clock.time() - DAY
        end = float(query.get("end", 0)) or self._clock.time()
        return JSONResponse(
            {
                "failures": [
                    {**asdict(each), "types": [one["failureType"] for one in decoded(
                        each.reference, each.flag)]}
                    for building in self.buildings.values()
                    for each in building.failures(begin, end)
                ],
                "measures": {
                    one: list(building.measures(number, begin, end))
                    for building in self.buildings.values()
                    for number, one in enumerate(building.thermostats)
                },
                "served": [each for each in self.served if begin <= each[1] < end],
                "calls": {f"{user} {day}": count for (user, day), count in self.calls.items()},
                "by_endpoint": dict(self.by_endpoint),
                "decoded": dict(self.decoded),
                "over_quota": self.over_quota,
                "subscriptions": list(self.subscriptions.values()),
                "now": self._clock.time(),
            }
        )  # fmt: skip


def _number(building: Building, request: Request) -> int:
    _same(request, building.plant)
    if request.path_params["module"] not in building.thermostats:
        raise Refused(404, "Resource not found")
    return building.thermostats.index(request.path_params["module"])


def _same(request: Request, plant: str) -> None:
    if request.path_params["plant"] != plant:
        raise Refused(404, "Resource not found")
