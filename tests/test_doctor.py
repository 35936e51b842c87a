"""Doctor: every precondition is tried for real, and each failure comes with its cure."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from netatmo_ingestd import __version__, doctor, logs, terminal
from netatmo_ingestd.doctor import Finding
from netatmo_ingestd.models import Token
from netatmo_ingestd.settings import (
    AccountSettings,
    NetatmoSettings,
    PublicArea,
    Settings,
    StoreSettings,
)
from netatmo_ingestd.tokenfile import TokenFile, make_folder, token_folder
from tests.living import living
from tests.wire import WireServer

NOWHERE = "mongodb://u:canary-p4ssword@127.0.0.1:1/?serverSelectionTimeoutMS=100"


@contextlib.asynccontextmanager
async def an_open_port() -> AsyncIterator[str]:
    """A cloud with no stations, which answers every request alike."""
    body = b'{"body": {"devices": []}, "status": "ok", "time_server": 1760000000}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def settings_for(folder: Path, **changes: Any) -> Settings:
    account = AccountSettings(client_id="app", client_secret=SecretStr("canary-client-secret"))
    return Settings(
        **{
            "state_dir": folder / "state",
            "accounts": (account,),
            "store": StoreSettings(uri=SecretStr(NOWHERE)),
            "netatmo": NetatmoSettings(api_url="http://127.0.0.1:9", auth_url="http://127.0.0.1:9"),
            **changes,
        }
    )


def save_login(folder: Path, *scopes: str) -> Path:
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    place = token_folder(folder / "state", "home")
    make_folder(place)
    token = Token("canary-access", "canary-refresh", time.time() + 9000, 10800.0, scopes, 3)
    TokenFile(place / "token.json").save(token)
    return place / "token.json"


async def findings(settings: Settings) -> dict[str, Finding]:
    """By name; whatever is not good has a text and a cure."""
    found = await doctor.examine(settings)
    for each in found:
        assert each.text
        assert "\n" not in each.text + each.cure
        assert "canary" not in each.text + each.cure
        assert each.cure or each.verdict == "good"
    return {each.name: each for each in found}


async def test_everything_in_order_is_good(tmp_path: Path) -> None:
    """With login, cloud and store in place the only thing left to do is to start the daemon."""
    save_login(tmp_path, "read_station")
    async with an_open_port() as url, WireServer() as mongo:
        settings = settings_for(
            tmp_path,
            store=StoreSettings(uri=SecretStr(mongo.uri())),
            netatmo=NetatmoSettings(api_url=url, auth_url=url),
        )
        found = await findings(settings)

    assert {each.name for each in found.values() if each.verdict == "bad"} == set()
    assert {"clock", "state_dir", "cloud", "login home", "store"} <= {
        name for name, each in found.items() if each.verdict == "good"
    }
    assert found["daemon"].verdict == "warn"
    assert found["daemon"].cure == "run: netatmo-ingestd run"
    assert mongo.documents.get("measurements", {}) == {}, "the sample documents are removed again"


async def test_everything_wrong_at_once(tmp_path: Path) -> None:
    """Each failure is found although the others are there, and each has its own cure."""
    found = await findings(settings_for(tmp_path))

    assert found["cloud"].verdict == found["store"].verdict == "bad"
    assert "127.0.0.1:9" in found["cloud"].text
    assert found["cloud"].cure == "check network, DNS and firewall of this machine"
    assert found["login home"].text == "never logged in"
    assert found["login home"].cure == "run: netatmo-ingestd login --account home"
    assert "127.0.0.1:1" in found["store"].text
    assert found["store"].cure.startswith("start MongoDB, or correct [store] uri")


async def test_an_unusable_state_folder(tmp_path: Path) -> None:
    """A folder that cannot be written is found with the system's reason; nothing else breaks."""
    (tmp_path / "file").write_text("")
    found = await findings(settings_for(tmp_path / "file"))

    assert found["state_dir"].verdict == "bad"
    assert "Not a directory" in found["state_dir"].text
    assert f"user {os.getuid()}" in found["state_dir"].cure
    assert found["login home"].verdict == "bad"


async def test_a_state_folder_that_others_may_read(tmp_path: Path) -> None:
    """Its mode is told, with the command that mends it."""
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)

    found = await findings(settings_for(tmp_path))

    assert found["state_dir"].verdict == "warn"
    assert found["state_dir"].cure == f"chmod 700 {tmp_path / 'state'}"


async def test_no_account(tmp_path: Path) -> None:
    """Without an account the doctor says so and looks at the rest."""
    found = await findings(settings_for(tmp_path, accounts=()))

    assert found["accounts"].verdict == "bad"
    assert found["accounts"].cure == "add an [[accounts]] section"
    assert "store" in found


async def test_an_account_without_client_id(tmp_path: Path) -> None:
    """A missing client id is told as such, and logging in is not the cure."""
    found = await findings(settings_for(tmp_path, accounts=(AccountSettings(),)))

    assert "client_id: missing" in found["login home"].text
    assert "login" not in found["login home"].cure


async def test_a_login_without_a_scope(tmp_path: Path) -> None:
    """Scopes that the products need and the login lacks are named."""
    save_login(tmp_path, "read_thermostat")

    found = await findings(settings_for(tmp_path))

    assert found["login home"].verdict == "warn"
    assert found["login home"].text == "scopes not granted: read_station"


async def test_a_login_file_that_is_not_private_or_damaged(tmp_path: Path) -> None:
    """A token file that others may read, or that is cut, is bad, and says why."""
    token = save_login(tmp_path, "read_station")
    token.chmod(0o644)
    found = await findings(settings_for(tmp_path))
    assert "lets others read the login" in found["login home"].text

    token.write_text("{")
    token.chmod(0o600)
    found = await findings(settings_for(tmp_path))

    assert found["login home"].verdict == "bad"
    assert "is damaged" in found["login home"].text


@pytest.mark.parametrize(
    ("uri", "text", "cure"),
    [
        ("", 'store.uri: missing; write "embedded"', ""),
        ("mongodb://u:s@cret@h/", "store.uri: ", ""),
    ],
)
async def test_a_store_address_that_cannot_work(
    tmp_path: Path, uri: str, text: str, cure: str
) -> None:
    """A missing or wrong address is told without advice to start a server."""
    found = await findings(settings_for(tmp_path, store=StoreSettings(uri=SecretStr(uri))))

    assert found["store"].verdict == "bad"
    assert text in found["store"].text
    assert "cret" not in found["store"].text
    assert "start MongoDB" not in found["store"].cure


async def test_a_store_that_refuses_the_user(tmp_path: Path) -> None:
    """Wrong rights are told as such: user, password, authSource."""
    async with WireServer() as mongo:
        refused = {"ok": 0.0, "code": 13, "errmsg": "not authorized on netatmo"}
        mongo.rule = lambda name, _: refused if name == "update" else None
        settings = settings_for(tmp_path, store=StoreSettings(uri=SecretStr(mongo.uri())))
        found = await doctor.examine(settings)

    (bad,) = [each for each in found if each.name == "store" and each.verdict == "bad"]
    assert "grant readWrite" in bad.cure


async def test_a_store_that_refuses_one_collection(tmp_path: Path) -> None:
    """A collection that takes no known-good document is named."""

    def rule(name: str, command: dict[str, Any]) -> dict[str, Any] | None:
        if name == "update" and command["update"] == "states":
            error = {"index": 0, "code": 121, "errmsg": "validation"}
            return {"ok": 1.0, "n": 0, "nModified": 0, "writeErrors": [error]}
        return None

    async with WireServer() as mongo:
        mongo.rule = rule
        settings = settings_for(tmp_path, store=StoreSettings(uri=SecretStr(mongo.uri())))
        found = await findings(settings)

    assert found["store states"].verdict == "bad"
    assert "validator" in found["store states"].cure


def report(folder: Path, **changes: Any) -> None:
    (folder / "state").mkdir(exist_ok=True, mode=0o700)
    text = {
        "version": __version__, "pid": 7, "written": time.time(),
        "troubles": [], "hints": [], "healthy": True,
        **changes,
    }  # fmt: skip
    (folder / "state" / "status.json").write_text(json.dumps(text))


async def test_what_the_daemon_found_out_is_repeated(tmp_path: Path) -> None:
    """Troubles and hints of the running daemon stand among the findings."""
    report(tmp_path, troubles=["login of home is lost"], hints=["stretched 3×"])

    with living(tmp_path / "state"):
        found = await doctor.examine(settings_for(tmp_path))

    said = [(each.verdict, each.text) for each in found if each.name.startswith("daemon")]
    assert said == [
        ("good", "running, pid 7"),
        ("bad", "login of home is lost"),
        ("warn", "stretched 3×"),
    ]


async def test_a_damaged_report_is_a_finding(tmp_path: Path) -> None:
    """A status.json that is no report is told, not raised."""
    report(tmp_path)
    (tmp_path / "state" / "status.json").write_text("{")

    assert (await findings(settings_for(tmp_path)))["daemon"].verdict == "bad"


async def test_both_addresses_of_the_cloud_are_tried(tmp_path: Path) -> None:
    """When data and login have different hosts, each is connected to."""
    async with an_open_port() as url:
        netatmo = NetatmoSettings(api_url=url, auth_url="http://127.0.0.1:9")
        found = await doctor.examine(settings_for(tmp_path, netatmo=netatmo))

    assert [each.verdict for each in found if each.name == "cloud"] == ["good", "bad"]


@contextlib.asynccontextmanager
async def a_map() -> AsyncIterator[tuple[str, list[str]]]:
    """A cloud that keeps the first line of each request, and refuses a map without corners."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked.append(head.partition("\r\n")[0])
            good = "lat_ne=" in asked[-1]
            body = b'{"body": [], "status": "ok", "time_server": 1760000000}'
            if not good:
                body = b'{"error": {"code": 10, "message": "Missing lat_ne"}}'
            status = "200 OK" if good else "400 Bad Request"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_public_stations_are_tried_with_corners(tmp_path: Path) -> None:
    """An account that has nothing else is tried by a call that the cloud can answer."""
    area = PublicArea(lat_ne=47.5, lon_ne=-1.4, lat_sw=47.1, lon_sw=-1.5)
    account = AccountSettings(
        client_id="app", client_secret=SecretStr("x"), products=("public",), public_area=area
    )
    save_login(tmp_path, "read_station")
    async with a_map() as (url, asked):
        netatmo = NetatmoSettings(api_url=url, auth_url=url)
        found = await findings(settings_for(tmp_path, netatmo=netatmo, accounts=(account,)))

    assert found["login home"].verdict == "good", found["login home"]
    assert found["login home"].text.startswith("getpublicdata answers")
    (line,) = [each for each in asked if "getpublicdata" in each]
    assert "lat_sw=47.1" in line
    assert "lat_ne=47.3" in line


async def test_scopes_that_nobody_asked_for_are_not_missing(tmp_path: Path) -> None:
    """With `scopes` in the settings only those count."""
    account = AccountSettings(
        client_id="app",
        client_secret=SecretStr("x"),
        products=("weather", "energy"),
        scopes=("read_station",),
    )
    save_login(tmp_path, "read_station")
    async with an_open_port() as url:
        netatmo = NetatmoSettings(api_url=url, auth_url=url)
        found = await findings(settings_for(tmp_path, netatmo=netatmo, accounts=(account,)))

    assert found["login home"].verdict == "good", found["login home"]


async def test_no_secret_in_any_finding(tmp_path: Path) -> None:
    """What is protected is redacted in texts and cures, whoever wrote them."""
    logs.REDACTOR.protect("x", ["never logged in"])

    found = await doctor.examine(settings_for(tmp_path))

    assert "***" in [each.text for each in found]


def test_findings_as_json_and_on_a_terminal() -> None:
    """`--json` has name, verdict, text and cure; the terminal shows the cure below what fails."""
    finding = Finding("store", "bad", "[red]nothing answers\x1b[2J", "start it")
    out = io.StringIO()

    terminal.show_findings([finding, Finding("clock", "good", "now")], Console(file=out, width=40))

    assert finding.as_dict() == {
        "name": "store",
        "verdict": "bad",
        "text": "[red]nothing answers\x1b[2J",
        "cure": "start it",
    }
    assert out.getvalue().splitlines() == [
        "FAIL store: [red]nothing answers�[2J",
        "     → start it",
        "ok   clock: now",
    ]
