"""What `status` tells of each product: the login's scopes, and what the cloud refuses."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from netatmo_ingestd import build, status
from netatmo_ingestd.account import REFUSED_FOR
from netatmo_ingestd.changes import Known
from netatmo_ingestd.errors import ApiRefused
from netatmo_ingestd.models import Entity, Token
from netatmo_ingestd.polls import Poll
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.settings import AccountSettings, PublicArea, Settings, StoreSettings
from netatmo_ingestd.sources.weather import WEATHER
from netatmo_ingestd.standing import standing
from netatmo_ingestd.tokenfile import TokenFile, make_folder, token_folder
from tests.test_status import changed, shown, small_ballast

__all__ = ["small_ballast"]  # a fixture

AREA = PublicArea(lat_ne=47.3, lon_ne=-1.4, lat_sw=47.1, lon_sw=-1.7)
GRANTED: dict[str, Any] = {"state": "granted", "missing": [], "refused": {}}


@asynccontextmanager
async def built(
    folder: Path, granted: tuple[str, ...] | None, **account: Any
) -> AsyncIterator[build.Parts]:
    """A daemon with a login of these scopes (None: without one)."""
    settings = Settings(
        state_dir=folder / "state",
        store=StoreSettings(uri=SecretStr("mongodb://127.0.0.1:1/")),
        accounts=(AccountSettings(client_id="app", client_secret=SecretStr("s3cret"), **account),),
    )
    tokens = token_folder(settings.state_dir, "home")
    make_folder(tokens)
    if granted is not None:
        token = Token("canary-access", "canary-refresh", time.time() + 9000, 10800.0, granted, 1)
        TokenFile(tokens / "token.json").save(token)
    async with build.opened(settings) as parts:
        yield parts


def products(parts: build.Parts) -> Any:
    return parts.reporter.snapshot()["accounts"]["home"]["products"]


async def test_live_state_says_nothing_of_a_scope_but_status_does(tmp_path: Path) -> None:
    """The scopes of the login are compared with those of each product, in the report itself."""
    wanted = ("weather", "energy", "security", "public")
    scopes = ("read_station", "read_thermostat")
    async with built(tmp_path, scopes, products=wanted, public_area=AREA) as parts:
        found = products(parts)

        assert found["weather"] == found["public"] == GRANTED
        assert found["energy"] == {**GRANTED, "state": "partly", "missing": ["read_smarther"]}
        assert found["security"]["state"] == "refused"
        assert "read_camera" in found["security"]["missing"]
        report = parts.reporter.snapshot()
        assert report["healthy"]
        assert [hint.partition(" was not")[0] for hint in report["hints"]] == [
            "home: energy",
            "home: security",
        ]


async def test_scopes_that_the_owner_leaves_out_are_no_hint(tmp_path: Path) -> None:
    """Missing is missing, but nobody is told to log in again for what a login does not ask."""
    own = ("read_camera", "read_presence")
    async with built(tmp_path, own, products=("security",), scopes=own) as parts:
        found = products(parts)["security"]

        assert found["state"] == "partly"
        assert "read_doorbell" in found["missing"]
        assert parts.reporter.snapshot()["hints"] == []


@pytest.mark.parametrize("granted", [None, ()])
async def test_nothing_is_known_without_scopes(
    tmp_path: Path, granted: tuple[str, ...] | None
) -> None:
    """Without a login, or with one that names none, a product is neither granted nor refused."""
    async with built(tmp_path, granted, products=("weather",)) as parts:
        assert products(parts)["weather"] == {**GRANTED, "state": "unknown"}


async def test_public_stations_take_any_login(tmp_path: Path) -> None:
    """A login for something else shows them as well, so nothing of them is refused."""
    wanted = ("energy", "public")
    async with built(
        tmp_path, NETATMO.scopes["energy"], products=wanted, public_area=AREA
    ) as parts:
        assert products(parts) == {"energy": GRANTED, "public": GRANTED}


async def test_a_refusal_counts_until_it_is_tried_again(tmp_path: Path) -> None:
    """A scope that the cloud refuses is asked again after a day; so long it shows with the time."""
    async with built(tmp_path, ("read_station",), products=("weather",)) as parts:
        account = parts.poller.accounts["home"]
        poll, now = Poll(WEATHER.endpoints[0], "home"), datetime.now(UTC)
        why = ApiRefused("no", endpoint="getstationsdata", status=403, code=13, reaction="scope")

        account.refuse(poll, why, now)

        until = (now + timedelta(days=1)).isoformat(timespec="seconds")
        assert products(parts)["weather"] == {
            **GRANTED,
            "state": "refused",
            "refused": {"getstationsdata": until},
        }
        assert account.is_refused(poll, now + REFUSED_FOR - timedelta(seconds=1))
        assert not account.is_refused(poll, now + REFUSED_FOR)

        account.refused["getstationsdata"] = now - timedelta(seconds=1)
        assert products(parts)["weather"] == GRANTED
        account.went_well(poll, now)
        account.refused["getmeasure|02:00:00:00:00:01"] = now + timedelta(days=1)
        assert products(parts)["weather"] == GRANTED


async def test_history_that_is_refused_is_a_part(tmp_path: Path) -> None:
    """Of calls that products share each has its part: one refused leaves the other whole."""
    wanted = ("weather", "aircare")
    async with built(tmp_path, ("read_station", "read_homecoach"), products=wanted) as parts:
        until = datetime.now(UTC) + timedelta(days=1)
        parts.poller.accounts["home"].refused["getmeasure aircare"] = until

        found = products(parts)

        assert found["weather"] == GRANTED
        assert found["aircare"]["state"] == "partly"
        assert list(found["aircare"]["refused"]) == ["getmeasure aircare"]


async def test_strangers_are_no_modules_of_the_table(tmp_path: Path) -> None:
    """Neither a station of the map, nor what the map says of an own one that has vanished."""
    station, own = "70:ee:50:aa:00:01", "70:ee:50:00:00:01"
    async with built(tmp_path, ("read_station",)) as parts:
        now = datetime.now(UTC)

        def known(entity_id: str, kind: str, *, vanished: bool = False) -> Known:
            entity = Entity("home", kind, entity_id, "", entity_id, "NAMain", {"name": "Garden"})
            return Known(entity, now, now, vanished=vanished)

        memory = parts.reporter.memory
        memory.learn("getpublicdata", {each: known(each, "station") for each in (station, own)})
        memory.learn("getstationsdata", {own: known(own, "module", vanished=True)})

        modules = parts.reporter._modules({own: None})

        assert [(each["id"], each["vanished"]) for each in modules] == [(own, True)]


async def test_the_tiles_of_an_area_are_asked(tmp_path: Path) -> None:
    """What the settings say reaches the poller: two tiles, every ten minutes."""
    async with built(tmp_path, ("read_station",), products=("public",), public_area=AREA) as parts:
        account = parts.poller.accounts["home"]

        jobs = list(account.jobs())

        assert [(endpoint.name, tile) for endpoint, tile in jobs] == [
            ("getpublicdata", "47.1,-1.7,47.3,-1.55"),
            ("getpublicdata", "47.1,-1.55,47.3,-1.4"),
        ]
        assert {parts.poller.interval(account, job) for job in jobs} == {timedelta(minutes=10)}
        assert status.troubles(parts.reporter.snapshot()) == []


SECURITY = NETATMO.scopes["security"]


@pytest.mark.parametrize(
    ("granted", "state", "missing"),
    [
        (SECURITY, "granted", ()),
        ((*SECURITY, "read_station"), "granted", ()),
        (SECURITY[:1], "partly", SECURITY[1:]),
        (("read_station",), "refused", SECURITY),
        ((), "unknown", ()),
        (None, "unknown", ()),
    ],
)
def test_a_product_stands_by_the_scopes_of_the_login(
    granted: tuple[str, ...] | None, state: str, missing: tuple[str, ...]
) -> None:
    """All, some or none of a product's scopes; without a login, or when it tells none: unknown."""
    found = standing(SECURITY, granted, ("homesdata", "getevents"), {})

    assert (found.state, found.missing) == (state, missing)


def test_a_product_without_a_scope_takes_any_login() -> None:
    """Public stations are there for every login, but not without one."""
    calls = ("getpublicdata",)

    assert standing((), ("read_mx",), calls, {}).state == "granted"
    assert standing((), (), calls, {}).state == "granted"
    assert standing((), None, calls, {}).state == "unknown"


def test_an_operator_sees_how_each_product_stands() -> None:
    """Granted; or what is missing or refused, and until when; nothing of it is cut in a pipe."""
    partly = {
        "state": "partly", "missing": ["read_doorbell", "read_presence"],
        "refused": {"getevents": "2026-03-15T12:00:00+00:00"},
    }  # fmt: skip
    text = shown(changed("accounts/home/products", {"weather": GRANTED, "security": partly}), 40)

    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "home weather granted" in lines
    assert (
        "home security partly: read_doorbell, read_presence missing; "
        "getevents refused until 2026-03-15T12:00:00+00:00"
    ) in lines
