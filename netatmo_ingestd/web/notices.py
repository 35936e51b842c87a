"""Notifications of Legrand's portal: `POST /legrand/<path>`, and their subscriptions.

They carry no signature, so the secret path is all that tells them from anybody's; and which shape
they have is not certain. Hence a notification is a hint like a push of Netatmo, never data: the
thermostat that it names is asked at once, if the quota of the day has room. Source: netatmo-api
8.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netatmo_ingestd.bodies import read_json
from netatmo_ingestd.client import Client
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import ApiError
from netatmo_ingestd.models import Json, Priority
from netatmo_ingestd.sources.smarther import PLANTS, STATUS
from netatmo_ingestd.web.pushes import Hints, Homes
from netatmo_ingestd.web.register import Calls
from netatmo_ingestd.web.webhook import Counters, received

APART = timedelta(minutes=5)  # of two hints for one thermostat: calls are few


@dataclass(kw_only=True)
class Notices:
    """Answers the notifications.

    path   the secret part of the address
    homes  of each account at the portal what it knows
    """

    path: str = field(repr=False)
    homes: Mapping[str, Callable[[], Homes]]
    hints: Hints
    clock: Clock
    counters: Counters = field(default_factory=Counters)

    def route(self) -> Route:
        return Route("/legrand/{path}", self.answer, methods=["POST"])

    async def answer(self, request: Request) -> Response:
        """One call: 404 elsewhere, 413 too large, 400 no JSON, else 200."""
        body = await received(request, self.path, self.counters)
        if isinstance(body, Response):
            self.counters.refused += body.status_code == 404
            return body
        try:
            told = read_json(body)
        except ValueError:
            self.counters.malformed += 1
            return Response(status_code=400)
        self.counters.good += 1
        self.counters.last = self.clock.time()
        for module_id in set(modules_of(told)):
            for account, homes in self.homes.items():
                if module_id in homes().home_of:
                    self.hints.take(account, STATUS.name, module_id, APART)
        return Response(status_code=200)


def modules_of(told: Json) -> Iterator[str]:
    """Ids of the thermostats that a notification names: an object, or a list of them."""
    for each in told if isinstance(told, list) else [told]:
        found: Json = each
        data = found.get("data") if isinstance(found, dict) else None
        states = data.get("chronothermostats") if isinstance(data, dict) else None
        for state in states if isinstance(states, list) else ():
            found = state
            for key in ("sender", "plant", "module", "id"):
                found = found.get(key) if isinstance(found, dict) else None
            if isinstance(found, str):
                yield found


# --- the subscriptions ----------------------------------------------------------------------------


async def _subscriptions(client: Client) -> list[dict[str, str]]:
    body = await _call(client, "subscriptions")
    listed = body if isinstance(body, list) else []
    return [
        {name: each[name] for name in ("plantId", "subscriptionId", "EndPointUrl")}
        for each in listed
        if isinstance(each, dict)
        and all(
            isinstance(each.get(name), str) for name in ("plantId", "subscriptionId", "EndPointUrl")
        )
    ]


async def registered(client: Client) -> tuple[str, ...]:
    """The addresses that the portal calls for each plant of this login."""
    plants = set(await _plants(client))
    of_url: dict[str, set[str]] = {}
    for each in await _subscriptions(client):
        of_url.setdefault(each["EndPointUrl"], set()).add(each["plantId"])
    return tuple(url for url, subscribed in of_url.items() if plants <= subscribed)


async def register(client: Client, url: str) -> None:
    """Let the portal call `url` for each plant. Raises ApiError, LoginRequired."""
    for plant_id in await _plants(client):
        try:
            await _call(client, "subscribe", "POST", plant_id=plant_id, EndPointUrl=url)
        except ApiError as error:
            if error.status != 409:  # it is there already
                raise


async def remove(client: Client, url: str) -> None:
    """Let the portal call `url` no more. Raises as `register`."""
    for each in await _subscriptions(client):
        if each["EndPointUrl"] == url:
            ids = {"plant_id": each["plantId"], "subscription_id": each["subscriptionId"]}
            await _call(client, "unsubscribe", "DELETE", **ids)


async def _plants(client: Client) -> list[str]:
    body = await _call(client, PLANTS.name)
    plants = body.get("plants") if isinstance(body, dict) else None
    listed = plants if isinstance(plants, list) else []
    told = [each.get("id") for each in listed if isinstance(each, dict)]
    return [each for each in told if isinstance(each, str)]


async def _call(client: Client, method: str, verb: str = "GET", **params: str) -> Json:
    priority = Priority.EVENTS
    reply = await client.call(
        method, params, priority=priority, purpose=priority.purpose, verb=verb
    )
    return reply.body


PORTAL_CALLS = Calls(registered, register, remove, alone=False, every=timedelta(hours=12))
