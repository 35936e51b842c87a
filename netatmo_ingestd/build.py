"""The composition root: builds and opens everything, in order, and closes it in reverse."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from netatmo_ingestd import logs
from netatmo_ingestd.account import AccountPolls, Room
from netatmo_ingestd.client import Client, open_http
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.embedded import EmbeddedStore, disk_bytes, running_uri
from netatmo_ingestd.embedded import opened as opened_store
from netatmo_ingestd.errors import ConfigError, IngestError
from netatmo_ingestd.events import EventWalker
from netatmo_ingestd.events.gallery import Gallery
from netatmo_ingestd.events.pictures import Pictures
from netatmo_ingestd.failures import Failures
from netatmo_ingestd.history import Historian
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.limits import Backoff, Budget
from netatmo_ingestd.login import LoginRequest
from netatmo_ingestd.memory import Memory
from netatmo_ingestd.models import Priority
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.poller import Poller
from netatmo_ingestd.process import state_folder
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.retention import Retention
from netatmo_ingestd.settings import NO_ACCOUNT, AccountSettings, Settings
from netatmo_ingestd.sources import for_products
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.status import Growth, Reporter
from netatmo_ingestd.tokenfile import token_folder
from netatmo_ingestd.writer import Writer

SANE_CLOCK = 1_704_067_200  # 2024: a board without a battery clock starts in 1970
NO_STORE = (
    'store.uri: missing; write "embedded" for a store that needs no server, '
    "or mongodb://user:password@host/"
)


@dataclass
class Parts:
    """Everything built and open."""

    settings: Settings
    clock: Clock
    spool: Spool
    store: Store
    embedded: EmbeddedStore | None
    ledger: Ledger
    writer: Writer
    poller: Poller
    historian: Historian
    walker: EventWalker
    retention: Retention
    reporter: Reporter

    async def store_bytes(self) -> int:
        """What the store takes on disk; raises StoreUnavailable, or ConfigError if refused."""
        if self.embedded:
            return await asyncio.to_thread(disk_bytes, self.embedded.folder)
        return await self.store.size()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Parts]:
    """Open everything in order; close it in reverse."""
    log = logs.logger()
    if not settings.accounts:
        raise ConfigError(NO_ACCOUNT)
    if time.time() < SANE_CLOCK:
        # Exit 1, not 2: the supervisor starts it again until NTP has set the clock.
        raise IngestError("clock: this machine's date is before 2024; set it, or start NTP")
    async with AsyncExitStack() as stack:
        stack.enter_context(state_folder(settings.state_dir))
        spool = Spool(settings.state_dir, settings.spool.max_bytes)
        await spool.open()
        stack.push_async_callback(spool.close)
        if spool.damaged:
            log.error("spool.damaged", kept=str(spool.damaged))
        clock = Clock(settings.clock.origin, settings.clock.speed)
        http = await stack.enter_async_context(open_http())
        memory, ledger = Memory(), Ledger()
        await memory.load(spool)
        room = Room(spool, clock, log)
        shared = Shared(clock, http, spool, room, memory, ledger)
        accounts, tokens = await _accounts(settings, stack, shared)
        walker = EventWalker(
            accounts=accounts,
            ledger=ledger,
            gallery=_gallery(settings, shared),
            settings=settings.history,
            clock=clock,
        )
        failures, last = Failures(), await spool.last()
        walker.load(last)
        failures.load(last)
        poller = Poller(
            accounts=accounts,
            room=room,
            ledger=ledger,
            settings=settings.poll,
            events=walker,
            failures=failures,
            clock=clock,
            log=log,
        )
        historian = Historian(
            accounts=accounts,
            ledger=ledger,
            settings=settings.history,
            clock=clock,
            log=log,
        )
        store, embedded, name = await _open_store(settings, stack)
        writer = Writer(
            spool=spool,
            store=store,
            ledger=ledger,
            settings=settings.writer,
            backoff=Backoff(0.2, 15.0, rng=random.Random()),  # noqa: S311
            log=log,
            anew=embedded is not None,
            on_broken=embedded.report_broken if embedded else None,
            on_replaced=poller.start_over,
        )
        reporter = Reporter(
            path=settings.state_dir / "status.json",
            poller=poller,
            historian=historian,
            writer=writer,
            spool=spool,
            store=store,
            ledger=ledger,
            memory=memory,
            walker=walker,
            tokens=tokens,
            clock=clock,
            store_name=name,
            started=time.time(),
            growth=Growth(),
        )
        yield Parts(
            settings=settings,
            clock=clock,
            spool=spool,
            store=store,
            embedded=embedded,
            ledger=ledger,
            writer=writer,
            poller=poller,
            historian=historian,
            walker=walker,
            retention=Retention(shelf=store, ledger=ledger, settings=settings.retention, log=log),
            reporter=reporter,
        )


@dataclass(frozen=True)
class Shared:
    """What all accounts of a daemon share."""

    clock: Clock
    http: httpx.AsyncClient
    spool: Spool
    room: Room
    memory: Memory
    ledger: Ledger


def _gallery(settings: Settings, shared: Shared) -> Gallery | None:
    if not settings.security.pictures:
        return None
    log = logs.logger()
    return Gallery(
        pictures=Pictures(shared.http, settings.provider(NETATMO.name).picture_hosts, log),
        spool=shared.spool,
        room=shared.room,
        kept=timedelta(days=settings.retention.pictures_days),
        clock=shared.clock,
        log=log,
    )


async def _accounts(
    settings: Settings, stack: AsyncExitStack, shared: Shared
) -> tuple[dict[str, AccountPolls], dict[str, TokenManager]]:
    log = logs.logger()
    budgets: dict[str, Budget] = {}
    accounts: dict[str, AccountPolls] = {}
    managers: dict[str, TokenManager] = {}
    for account in settings.accounts:
        client_id = settings.app_of(account).client_id
        budget = budgets.setdefault(client_id, open_budget(settings, account, shared.clock))
        tokens, client = open_login(settings, account, shared.http, shared.clock, budget)
        await stack.enter_async_context(tokens)
        managers[account.name] = tokens
        accounts[account.name] = AccountPolls(
            name=account.name,
            sources=for_products(account.products),
            client=client,
            budget=budget,
            intake=Intake(
                settings=account,
                spool=shared.spool,
                memory=shared.memory,
                ledger=shared.ledger,
                log=log,
            ),
            room=shared.room,
            clock=shared.clock,
            log=log,
            login=_login_of(tokens),
            logins=partial(getattr, tokens, "adopted"),
            asked=account.scopes_for(),
            tiles=account.public_area.tiles if account.public_area else (),
            sites=account.sites,
        )
    return accounts, managers


def open_login(
    settings: Settings,
    account: AccountSettings,
    http: httpx.AsyncClient,
    clock: Clock,
    budget: Budget,
) -> tuple[TokenManager, Client]:
    """The login of `account` and its API client; close the manager. ConfigError without an app."""
    app = settings.app_of(account)
    secret = app.client_secret.get_secret_value()
    key = settings.subscription_key(account)
    logs.REDACTOR.protect(f"app:{app.client_id}", [secret])
    if key:
        logs.REDACTOR.protect(f"key:{account.name}", [key])
    provider = settings.provider(account.provider)
    tokens = TokenManager(
        account=account.name,
        folder=token_folder(settings.state_dir, account.name),
        provider=provider,
        client_id=app.client_id,
        client_secret=secret,
        http=http,
        clock=clock,
        reserve=_reserve_token_call(budget, account.name),
        log=logs.logger(),
    )
    client = Client(
        account=account.name,
        provider=provider,
        http=http,
        tokens=tokens,
        budget=budget,
        clock=clock,
        key=key,
    )
    return tokens, client


def _login_of(tokens: TokenManager) -> Callable[[], tuple[str, ...] | None]:
    def scopes() -> tuple[str, ...] | None:
        status = tokens.status()
        return None if status["state"] in ("none", "dead") else tuple(status["scopes"])

    return scopes


def open_budget(settings: Settings, account: AccountSettings, clock: Clock) -> Budget:
    """The purse of its client id; every command of this program spends from the same one."""
    provider = settings.provider(account.provider)
    return Budget(
        settings.state_dir / "budget",
        settings.app_of(account).client_id,
        per_hour=settings.budget.per_hour,
        per_10s=settings.budget.per_10s,
        app_per_hour=provider.app_per_hour,
        per_day=provider.per_day,
        clock=clock,
    )


def login_request(
    settings: Settings, account: AccountSettings, http: httpx.AsyncClient, *more: str
) -> LoginRequest:
    """What a login of `account` needs, for its products and those of `more`.

    Raises ConfigError when its client id is missing
    """
    app = settings.app_of(account)
    clock = Clock(settings.clock.origin, settings.clock.speed)
    provider = settings.provider(account.provider)
    with state_folder(settings.state_dir, exclusive=False):
        budget = open_budget(settings, account, clock)
    return LoginRequest(
        account=account.name,
        folder=token_folder(settings.state_dir, account.name),
        provider=provider,
        client_id=app.client_id,
        client_secret=app.client_secret.get_secret_value(),
        scopes=account.scopes_for(*more),
        redirect_uri=settings.login.redirect_uri,
        http=http,
        clock=clock,
        reserve=_reserve_token_call(budget, account.name),
        log=logs.logger(),
    )


def _reserve_token_call(budget: Budget, account: str) -> Any:
    async def reserve() -> None:
        await budget.reserve(account, Priority.TOKEN)

    return reserve


async def _open_store(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Store, EmbeddedStore | None, str]:
    log = logs.logger()
    uri = settings.store.uri.get_secret_value()
    if not uri:
        raise ConfigError(NO_STORE)
    embedded: EmbeddedStore | None = None
    name = "embedded"
    if settings.store.embedded:
        store_of: list[Store] = []

        def on_event(event: str, fields: Any) -> None:
            if event == "store.restarted" and embedded and store_of:
                store_of[0].connect(embedded.uri)
            log.warning(event, **fields)

        embedded = EmbeddedStore(settings.state_dir / "store", on_event=on_event)
        uri = await embedded.start()
        stack.push_async_callback(embedded.stop)
        store = Store(uri, settings.store.database)
        store_of.append(store)
    else:
        name = urlsplit(uri).hostname or "mongodb"
        store = Store(uri, settings.store.database)
    logs.REDACTOR.protect("store", [uri, urlsplit(uri).password or ""])
    stack.push_async_callback(store.close)
    return store, embedded, name


@asynccontextmanager
async def store_beside(settings: Settings) -> AsyncIterator[Store]:
    """The store for a command beside the daemon; an embedded one that nobody runs is started."""
    uri = settings.store.uri.get_secret_value()
    if not uri:
        raise ConfigError(NO_STORE)
    async with AsyncExitStack() as stack:
        if settings.store.embedded:
            uri = await stack.enter_async_context(opened_store(settings.state_dir / "store"))
        store = Store(uri, settings.store.database)
        logs.REDACTOR.protect("store", [uri, urlsplit(uri).password or ""])
        stack.push_async_callback(store.close)
        yield store


def store_uri(settings: Settings) -> str:
    """The address of the store, password included; IngestError when the embedded one is down."""
    uri = settings.store.uri.get_secret_value()
    if not uri:
        raise ConfigError(NO_STORE)
    if not settings.store.embedded:
        return uri
    folder = settings.state_dir / "store"
    try:
        running = running_uri(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be read ({error.strerror}); run this as the daemon's user"
        ) from error
    if running is None:
        raise IngestError("store: the embedded store is not running. Run: netatmo-ingestd run")
    return running
