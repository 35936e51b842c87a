"""The control routes under /simulator: counts, faults, and what must be in a store by now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from netatmo_ingestd.simulator import conditions, events, kept, measure, pushes
from netatmo_ingestd.simulator.faults import Fault
from netatmo_ingestd.simulator.household import Household
from netatmo_ingestd.simulator.traffic import Limits
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import Module

if TYPE_CHECKING:
    from netatmo_ingestd.simulator.cloud import Cloud

Handler = Callable[[Request], Awaitable[Response]]


def routes(cloud: Cloud) -> list[Route]:
    """All control routes of one cloud."""
    desk = Desk(cloud)
    table: dict[str, dict[str, Handler]] = {
        "stats": {"GET": desk.stats},
        "requests": {"GET": desk.requests},
        "faults": {"GET": desk.armed, "POST": desk.arm, "DELETE": desk.disarm},
        "expected": {"GET": desk.expected},
        "world": {"GET": desk.world},
        "home": {"GET": desk.home},
        "rotation": {"POST": desk.rotation},
        "token": {"GET": desk.token},
        "settings": {"GET": desk.settings, "POST": desk.change},
        "push": {"POST": desk.push},
        "webhooks": {"GET": desk.webhooks},
    }
    return [
        Route(f"/simulator/{name}", _plainly(handler), methods=[verb])
        for name, verbs in table.items()
        for verb, handler in verbs.items()
    ]


def _plainly(handler: Handler) -> Handler:
    """A request that is not understood gets 400 and one line."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except (ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": str(error.args[0] if error.args else error)}, 400)

    return answered


class Desk:
    """One method per route."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def stats(self, _request: Request) -> Response:
        cloud = self._cloud
        return JSONResponse(
            cloud.traffic.as_json()
            | {
                "over_limit": cloud.quotas.over_limit,
                "windows": cloud.quotas.as_json(),
                "token": dict(cloud.authority.counts),
                "pictures": asdict(cloud.studio.counts),
                "now": cloud.clock.time(),
            }
        )

    async def requests(self, request: Request) -> Response:
        """The last data calls, from index `since` on, of one `purpose` or of all."""
        query = request.query_params
        found = self._cloud.journal.since(int(query.get("since", 0)), query.get("purpose"))
        return JSONResponse(found)

    async def armed(self, _request: Request) -> Response:
        return JSONResponse({"armed": [fault.as_json() for fault in self._cloud.faults.armed()]})

    async def arm(self, request: Request) -> Response:
        """One fault or a list of them."""
        specs = json.loads(await request.body())
        faults = [self._arm(spec) for spec in (specs if isinstance(specs, list) else [specs])]
        return JSONResponse({"armed": [fault.as_json() for fault in faults]})

    def _arm(self, spec: dict[str, Any]) -> Fault:
        cloud, now = self._cloud, self._cloud.clock.time()
        fault = cloud.faults.arm(spec, now)
        if fault.kind == "expire_access":
            cloud.authority.sessions.expire_access(fault.account, now)
        if fault.kind == "revoke":
            cloud.authority.sessions.revoke(fault.account)
        cloud.webhooks.changed(fault.kind, fault.params.get("module"))
        return fault

    async def disarm(self, request: Request) -> Response:
        fault_id = request.query_params.get("id")
        kind = request.query_params.get("kind")
        faults = self._cloud.faults
        before = faults.armed()
        count = faults.disarm(int(fault_id) if fault_id else None, kind)
        for fault in before:
            if fault not in faults.armed():
                self._cloud.webhooks.changed(fault.kind, fault.params.get("module"))
        return JSONResponse({"disarmed": count})

    async def expected(self, request: Request) -> Response:
        """Rows of a module visible now, faults included; `begin` and `end` are inclusive.

        With a `scale` above max: the buckets that getmeasure gives for all types of the module,
        with real_time=true and on the grid of `begin`, however many. With `events`, the id of a
        home, its events instead, as `events.expected` tells them.
        """
        cloud, query = self._cloud, request.query_params
        now = cloud.clock.time()
        if "events" in query:
            days = cloud.switches.event_days
            told = events.expected(cloud.world, query["events"], now, days)
            return JSONResponse({"now": now, "count": len(told), "events": told})
        view = View(cloud.world, now, cloud.faults.peek(now))
        module = view.find(query.get("module", ""))
        if module is None and (found := kept.find(cloud.world, query.get("module", ""))):
            return JSONResponse(_expected_of(found, now, query))
        if module is None:
            raise ValueError(f"module: {query.get('module')!r} is not of this world")
        begin, end = int(query.get("begin", module.setup)), int(query.get("end", int(now)))
        scale = query.get("scale", "max")
        if scale == "max":
            rows = view.samples(module, begin, end)
        else:
            rows = measure.every(view, module, scale, begin, end)
        return JSONResponse({"module": module.id, "now": now, "count": len(rows), "rows": rows})

    async def world(self, _request: Request) -> Response:
        cloud = self._cloud
        return JSONResponse(
            {
                "seed": cloud.world.seed,
                "setup": cloud.world.setup,
                "timezones": list(cloud.world.timezones),
                "origin": cloud.clock.origin,
                "speed": cloud.clock.speed,
                "now": cloud.clock.time(),
                "rotation": cloud.authority.sessions.rotation,
                "modules": [_described(module) for module in cloud.world.modules()],
                "contract": cloud.world.contract,
                "households": [_household(each) for each in cloud.world.households.values()],
                "accounts": accounts(cloud),
            }
        )

    async def home(self, request: Request) -> Response:
        """What homestatus says of everything in the home `id` at `at` (default: now), no fault."""
        query = request.query_params
        household = self._cloud.world.households.get(query.get("id", ""))
        if household is None:
            raise ValueError(f"id: {query.get('id')!r} is no home with anything but weather")
        at = float(query.get("at", self._cloud.clock.time()))
        return JSONResponse({"at": at, **conditions.everything(household, at)})

    async def rotation(self, request: Request) -> Response:
        sessions = self._cloud.authority.sessions
        sessions.rotate(json.loads(await request.body())["mode"])
        return JSONResponse({"mode": sessions.rotation})

    async def token(self, request: Request) -> Response:
        token = request.query_params.get("refresh_token", "")
        accepted = self._cloud.authority.sessions.accepted(token, self._cloud.clock.time())
        return JSONResponse({"accepted": accepted})

    async def push(self, request: Request) -> Response:
        """Send one push now: `push_type`, of `home_id` or the first home of each registration.

        fields   of the body besides, or instead; null takes one away
        Returns  what was `sent`, and the `statuses` of the calls: 0 when no answer came; none of
                 one that is lost on the way or suspended
        """
        wanted: dict[str, Any] = json.loads(await request.body())
        home_id = wanted.get("home_id", wanted.get("home"))
        sent = self._cloud.webhooks.push(
            str(wanted["push_type"]), home_id, wanted.get("fields", {})
        )
        if sent:
            await asyncio.wait([each.task for each in sent])
        ended = [each.task for each in sent if not each.task.cancelled()]
        statuses = [status for task in ended for status in task.result()]
        return JSONResponse({"sent": [each.body for each in sent], "statuses": statuses})

    async def webhooks(self, _request: Request) -> Response:
        """Who is registered, and the last calls with what became of them."""
        return JSONResponse(self._cloud.webhooks.as_json())

    async def settings(self, _request: Request) -> Response:
        cloud = self._cloud
        return JSONResponse(
            asdict(cloud.switches)
            | {
                "password_grant": cloud.authority.password_grant,
                "limits": asdict(cloud.quotas.limits),
            }
        )

    async def change(self, request: Request) -> Response:
        """Any of the settings that GET shows; the others stay."""
        wanted: dict[str, Any] = json.loads(await request.body())
        for name, value in wanted.items():
            self._change(name, value)
        return await self.settings(request)

    def _change(self, name: str, value: Any) -> None:
        cloud = self._cloud
        if name == "limits":
            unknown = sorted(set(value) - {field.name for field in fields(Limits)})
            if unknown:
                raise ValueError(f"limits: {unknown[0]!r} is no limit")
            for limit, number in value.items():
                setattr(cloud.quotas.limits, limit, number)
        elif name == "password_grant":
            cloud.authority.password_grant = bool(value)
        elif name in ("auto_consent", "show_invited", "any_port"):
            setattr(cloud.switches, name, bool(value))
        elif name == "event_days":
            cloud.switches.event_days = float(value)
        elif name == "pushes":
            if unknown := sorted(set(value) - set(pushes.KINDS)):
                raise ValueError(f"pushes: {unknown[0]!r} is none of {', '.join(pushes.KINDS)}")
            cloud.switches.pushes = tuple(value)
        else:
            raise ValueError(f"{name!r} is no setting")


def _expected_of(found: kept.Kept, now: float, query: Mapping[str, str]) -> dict[str, Any]:
    """The same of a device or a room of a household."""
    begin, end = int(query.get("begin", found.setup)), int(query.get("end", int(now)))
    scale = query.get("scale", "max" if "boileron" in found.fields else "30min")
    view = kept.KeptView(now)
    rows = measure.buckets_of(view, found, found.id, found.zone, scale, begin, end)
    return {"module": found.id, "now": now, "count": len(rows), "rows": rows}


def accounts(cloud: Cloud) -> list[dict[str, Any]]:
    """What a client needs to log in as each account, and what its tokens are worth now."""
    now, sessions = cloud.clock.time(), cloud.authority.sessions
    apps = list(cloud.authority.apps.values())
    return [
        {
            "user": account.user,
            "password": account.password,
            "client_id": apps[position % len(apps)].client_id,
            "client_secret": apps[position % len(apps)].client_secret,
            "refresh_token": cloud.ready_made.get(account.user, ""),
            "accepted": sessions.accepted(cloud.ready_made.get(account.user, ""), now),
            "current": sessions.current(account.user, now),
            "stations": list(account.owns),
            "invited": list(account.invited),
            "coaches": list(account.coaches),
        }
        for position, account in enumerate(cloud.authority.accounts.values())
    ]


def _household(household: Household) -> dict[str, Any]:
    return {
        "home_id": household.home_id,
        "rooms": [asdict(each) for each in household.rooms],
        "devices": [asdict(each) | {"scope": each.scope} for each in household.devices],
        "persons": [asdict(each) for each in household.persons],
    }


def _described(module: Module) -> dict[str, Any]:
    return {
        "id": module.id,
        "type": module.type,
        "station": module.station,
        "name": module.name,
        "setup": module.setup,
        "fields": list(module.fields),
    }
