"""Runs a simulated cloud on a loopback port: in a process of its own, or inside another loop."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import ipaddress
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import uvicorn

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import Busy, ConfigError
from netatmo_ingestd.simulator import control
from netatmo_ingestd.simulator.cloud import Cloud, Switches
from netatmo_ingestd.simulator.curves import hexed
from netatmo_ingestd.simulator.household import Wanted
from netatmo_ingestd.simulator.oauth import Authority
from netatmo_ingestd.simulator.scenario import read_scenario
from netatmo_ingestd.simulator.sessions import Account, App
from netatmo_ingestd.simulator.traffic import Limits
from netatmo_ingestd.simulator.world import World

_STOP_S = 1
MOST_STATIONS = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate.

    port       0 lets the system choose
    stations   in total; they are dealt to the accounts in turn
    coaches    air quality monitors in total; dealt likewise
    days       length of the history before `origin`
    timezones  IANA names for the stations in turn; none: those of their places
    origin     real epoch at which both clocks agree; None is now. Give the same one after a restart
    products   of PRODUCTS: what each home has beside its station
    portal     users of Legrand's portal
    contract   epoch at which peak and off-peak tariffs begin; None is 20 days before `origin`
    scenario   file that says so for each home (scenario.read_scenario); instead of `products`
    shared     each account is also invited to the first station of the next
    """

    port: int = 0
    speed: float = 1.0
    seed: int = 1
    stations: int = 1
    host: str = "127.0.0.1"
    days: int = 365
    timezones: tuple[str, ...] = ()
    origin: float | None = None
    accounts: int = 1
    apps: int = 1
    shared: bool = False
    rotation: str = "strict"
    auto_consent: bool = False
    password_grant: bool = False
    app_burst: bool = False
    coaches: int = 0
    products: tuple[str, ...] = ()
    scenario: Path | None = None
    contract: float | None = None
    portal: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A cloud that answers at `url`."""

    url: str
    cloud: Cloud
    greeting: dict[str, Any]


def build(plan: Plan, clock: Clock | None = None) -> Cloud:
    """World, accounts and a ready-made login for each; nothing listens yet.

    clock   instead of the one of `plan`, for tests that move time by hand
    Raises  ConfigError when `plan` cannot be simulated
    """
    _checked(plan)
    origin = time.time() if plan.origin is None else plan.origin
    world = World(
        plan.seed,
        plan.stations,
        origin=origin,
        days=plan.days,
        timezones=plan.timezones,
        coaches=plan.coaches,
        households=_households(plan),
        contract=plan.contract,
    )
    apps = [_app(plan.seed, number) for number in range(plan.apps)]
    accounts = _accounts(plan, world)
    try:
        authority = Authority(
            apps, accounts, rotation=plan.rotation, password_grant=plan.password_grant
        )
    except ValueError as error:
        raise ConfigError(f"simulator: {error}") from error
    switches = Switches(auto_consent=plan.auto_consent)
    limits = Limits(app_burst=plan.app_burst)
    ticking = clock or Clock(origin, plan.speed)
    cloud = Cloud(world, authority, ticking, limits, switches, portal_users=plan.portal)
    for number, account in enumerate(accounts):
        app = apps[number % len(apps)]
        cloud.ready_made[account.user] = authority.ready_made(app, account, plan.seed)
    return cloud


def serve(plan: Plan) -> None:
    """Run until SIGTERM or SIGINT; the first line on stdout is one JSON object, the greeting.

    Raises  Busy when the port is taken, ConfigError when `plan` cannot be simulated
    """
    asyncio.run(_serve(plan))


@contextlib.asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[Running]:
    """A cloud inside this event loop, ready to answer; signals stay the caller's."""
    cloud = build(plan)
    listener = _listen(plan.host, plan.port)
    server = _Server(_config(cloud))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await server.ready.wait()
        url = f"http://{_bracketed(plan.host)}:{listener.getsockname()[1]}"
        yield Running(url, cloud, _greeting(cloud, url))
    finally:
        await cloud.webhooks.close()
        server.should_exit = True
        await task
        listener.close()


async def _serve(plan: Plan) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(plan) as cloud:
        sys.stdout.write(json.dumps(cloud.greeting) + "\n")
        sys.stdout.flush()
        await stop.wait()


class _Server(uvicorn.Server):
    """Leaves the signals alone: `serve` or the surrounding program takes them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _config(cloud: Cloud) -> uvicorn.Config:
    # Connections that a fault cuts are no news: uvicorn says nothing below "critical".
    return uvicorn.Config(
        cloud.app,
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        date_header=False,  # the portal tells simulated time
        timeout_graceful_shutdown=_STOP_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio switches Nagle's algorithm off: 40 ms per answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(
                f"simulator: cannot listen on {host}:{port}: {error.strerror}"
            ) from error
        raise Busy(
            f"simulator: port {port} on {host} is in use. Stop what listens there, or take --port 0"
        ) from error
    return listener


def _checked(plan: Plan) -> None:
    """One line about the first thing that cannot be simulated."""
    if not _is_loopback(plan.host):
        raise ConfigError(
            f"simulator: host {plan.host!r} is not loopback. It serves this machine only: 127.0.0.1"
        )
    if not plan.speed > 0:
        raise ConfigError(f"simulator: speed {plan.speed} is not above 0")
    if not 1 <= plan.stations <= MOST_STATIONS:
        raise ConfigError(f"simulator: stations {plan.stations} is not in 1…{MOST_STATIONS}")
    if not 0 <= plan.coaches <= MOST_STATIONS:
        raise ConfigError(f"simulator: coaches {plan.coaches} is not in 0…{MOST_STATIONS}")
    if not 0 <= plan.portal <= MOST_STATIONS:
        raise ConfigError(f"simulator: portal {plan.portal} is not in 0…{MOST_STATIONS}")
    if plan.accounts < 1 or plan.apps < 1 or plan.days < 0:
        raise ConfigError("simulator: it needs an account, an app, and days of 0 or more")
    unknown = sorted(set(plan.timezones) - available_timezones()) if plan.timezones else []
    if unknown:
        near = difflib.get_close_matches(unknown[0], available_timezones(), 1)
        raise ConfigError(
            f"simulator: timezone {unknown[0]!r} is unknown. Take an IANA name such as "
            f"{near[0] if near else 'Europe/Paris'}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _app(seed: int, number: int) -> App:
    return App(hexed(seed, 24, "app", number), hexed(seed, 32, "secret", number))


def _households(plan: Plan) -> tuple[Wanted, ...]:
    if plan.scenario:
        homes = read_scenario(plan.scenario)
        if len(homes) > plan.stations:
            raise ConfigError(
                f"{plan.scenario}: {len(homes)} homes, but --stations {plan.stations}; "
                "each home is that of a station"
            )
        return homes
    return (Wanted(plan.products),) * plan.stations if plan.products else ()


def _scopes(world: World, owned: Sequence[str]) -> tuple[str, ...]:
    """Of all devices in the homes of these stations."""
    homes = [world.households.get(world.stations[each].home_id) for each in owned]
    return tuple(dict.fromkeys(scope for home in homes if home for scope in home.scopes))


def _accounts(plan: Plan, world: World) -> list[Account]:
    stations, coaches = tuple(world.stations), tuple(world.coaches)
    owned = [stations[number :: plan.accounts] for number in range(plan.accounts)]
    return [
        Account(
            user="ana@example.org" if number == 0 else f"user{number + 1}@example.org",
            password=hexed(plan.seed, 16, "password", number),
            user_id=hexed(plan.seed, 24, "user", number),
            owns=owned[number],
            invited=owned[(number + 1) % plan.accounts][:1] if plan.shared else (),
            coaches=coaches[number :: plan.accounts],
            scopes=_scopes(world, owned[number]),
        )
        for number in range(plan.accounts)
    ]


def _greeting(cloud: Cloud, url: str) -> dict[str, Any]:
    """What a client needs to start: the first account in full, and the list of all."""
    everyone = control.accounts(cloud)
    first = {
        key: everyone[0][key]
        for key in ("client_id", "client_secret", "refresh_token", "user", "password")
    }
    return {
        "url": url,
        **first,
        "origin": cloud.clock.origin,
        "speed": cloud.clock.speed,
        "seed": cloud.world.seed,
        "stations": len(cloud.world.stations),
        "accounts": everyone,
        **({"portal": cloud.portal.greeting(url)} if cloud.portal else {}),
    }
