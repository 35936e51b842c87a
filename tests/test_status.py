"""Health: judged by values, written atomically, stale when the daemon hangs."""

from __future__ import annotations

import copy
import io
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from rich.console import Console

from netatmo_ingestd import __version__, build, logs, spool, status, terminal
from netatmo_ingestd.account import Failing
from netatmo_ingestd.errors import IngestError
from netatmo_ingestd.models import Token
from netatmo_ingestd.settings import AccountSettings, Settings, StoreSettings
from netatmo_ingestd.sources import for_products
from netatmo_ingestd.tokenfile import TokenFile, make_folder, token_folder
from tests.living import living

SECRET = "canary-client-secret"
PASSWORD = "canary-p4ssword"


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that each spool holds back is small here: writing it would take most of the time."""
    monkeypatch.setattr(spool, "BALLAST_BYTES", 1 << 20)


def healthy() -> dict[str, Any]:
    """A report with nothing wrong in it."""
    return {
        "version": __version__, "pid": 1, "written": time.time(), "started": time.time(),
        "time": "2026-03-14T12:00:00+00:00", "drift": {}, "problems": {},
        "accounts": {"home": {
            "login": {"state": "ok", "error": None, "cure": ""},
            "budget": {"hour": 12, "target": 400.0, "paused_for": 0, "error": ""},
            "failing": {}, "refused": {}, "late": [],
        }},
        "modules": [{
            "id": "02:00:00:00:00:01", "account": "home", "name": "Garden", "home": "Home",
            "type": "NAModule1", "reachable": True, "vanished": False,
            "newest": "2026-03-14T11:55:00+00:00",
            "history": {"since": "2024-03-14T00:00:00+00:00", "covered": 0.98765, "rows": 9000,
                        "requests": 9, "eta_s": 90},
        }],
        "spool": {"records": 0, "fill": 0.0, "polling_paused": False, "error": "", "damaged": None},
        "store": {"name": "mongo", "state": "writing", "reason": "", "written": 5, "rejected": 0,
                  "revised": 2, "bytes": 12_300_000, "bytes_per_day": None,
                  "warnings": {}},
    }  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    report = copy.deepcopy(healthy())
    *parents, last = path.split("/")
    place = report
    for name in parents:
        place = place[name]
    place[last] = value
    return report


# --- judged by values ---------------------------------------------------------------------------


def test_nothing_wrong_is_healthy() -> None:
    """A daemon that works has neither troubles nor hints."""
    assert status.troubles(healthy()) == []
    assert status.hints(healthy()) == []


@pytest.mark.parametrize("state", ["ok", "stale"])
def test_a_login_that_still_works_is_no_trouble(state: str) -> None:
    """A refresh that is due or failed once, with hours of life left, alarms nobody."""
    assert status.troubles(changed("accounts/home/login/state", state)) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (
            "accounts/home/login",
            {"state": "dead", "error": "refused", "cure": ""},
            "login of home is lost: log in: netatmo-ingestd login --account home",
        ),
        (
            "accounts/home/login",
            {"state": "none", "error": "", "cure": "token.json: mode 0644; chmod 600 token.json"},
            "login of home is lost: token.json: mode 0644; chmod 600 token.json",
        ),
        (
            "accounts/home/login",
            {"state": "suspect", "error": "HTTP 400", "cure": ""},
            "login of home is suspect; it is tried again by itself (HTTP 400)",
        ),
        (
            "accounts/home/login",
            {"state": "expired", "error": None, "cure": ""},
            "login of home is expired; it is tried again by itself",
        ),
        (
            "accounts/home/failing",
            {"getstationsdata": {"count": 3, "error": "HTTP 500"}},
            "home: getstationsdata fails (HTTP 500)",
        ),
        (
            "accounts/home/failing",
            {f"getmeasure|{n}": {"count": 1, "error": f"E{n}"} for n in range(3)},
            "home: getmeasure fails (E0), and for 2 more modules",
        ),
        ("accounts/home/late", ["homesdata"], "home: no good answer of homesdata lately"),
        ("spool/damaged", "spool.db.damaged", "a damaged spool was set aside as spool.db.damaged"),
        ("spool/fill", 1.0, "polling waits until there is room on the spool (it is full)"),
    ],
)  # fmt: skip
def test_each_trouble_is_one_line_with_its_cure(path: str, value: Any, told: str) -> None:
    """Each thing that is wrong makes exactly one line, which names what and where."""
    assert status.troubles(changed(path, value)) == [told]


def test_a_store_that_is_down_is_told_with_what_waits() -> None:
    """The reason and the number of records that wait stand in the line."""
    report = changed("store/state", "down")
    report["store"]["reason"] = "down: connection refused"
    report["spool"]["records"] = 1204

    assert status.troubles(report) == [
        "store is down (down: connection refused); 1204 records wait"
    ]


def test_a_lost_login_is_told_once() -> None:
    """The failing polls of an account without login are not told besides its login."""
    report = changed("accounts/home/login/state", "none")
    report["accounts"]["home"]["failing"] = {"login": {"count": 9, "error": "no login"}}

    assert len(status.troubles(report)) == 1


def test_a_login_that_the_cloud_refuses_is_told_though_it_looks_well() -> None:
    """A call was refused for the login, e.g. new terms wait: the reason is told, with its cure."""
    report = changed("accounts/home/failing", {"login": {"count": 2, "error": "accept the terms"}})

    assert status.troubles(report) == ["home: login fails (accept the terms)"]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("store/warnings", {"index a(b)": "refused; slow"}, "store: index a(b): refused; slow"),
        (
            "accounts/home/stretch",
            3.75,
            "home: the cadences do not fit the budget; each is stretched 3.75×",
        ),
        (
            "accounts/home/not_granted",
            {"energy": ["read_smarther"]},
            "home: energy was not granted (read_smarther); if it is yours, log in again and accept",
        ),
        (
            "webhook",
            {"accounts": {"home": {"error": "no answer", "registered": False}}},
            "home: the webhook is not registered, polls go on (no answer)",
        ),
        ("accounts/home/budget/error", "disk full", "the budget is not kept on disk (disk full)"),
        ("accounts/home/budget/paused_for", 60.0, "a quota is used up; paused for 60 s"),
    ],
)
def test_what_works_another_way_is_a_hint_and_no_trouble(path: str, value: Any, told: str) -> None:
    """A refused index or a stretched cadence is told, and does not make the daemon unhealthy."""
    report = changed(path, value)

    assert status.troubles(report) == []
    (hint,) = status.hints(report)
    assert told in hint


# --- the file -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[build.Parts]:
    """A daemon that was built and does not run, with a login and a store that is not there."""
    settings = Settings(
        state_dir=tmp_path / "state",
        store=StoreSettings(uri=SecretStr(f"mongodb://u:{PASSWORD}@127.0.0.1:1/")),
        accounts=(AccountSettings(client_id="app", client_secret=SecretStr(SECRET)),),
    )
    folder = token_folder(settings.state_dir, "home")
    make_folder(folder)
    token = Token(
        "canary-access", "canary-refresh", time.time() + 9000, 10800.0, ("read_station",), 1
    )
    TokenFile(folder / "token.json").save(token)
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(build.opened(settings))


async def test_a_product_that_was_refused_at_consent_is_told(parts: build.Parts) -> None:
    """What the login asked for and did not get, by product; nothing while there is no login."""
    account = parts.poller.accounts["home"]
    account.sources = for_products(("weather", "energy"))
    account.asked = ("read_station", "read_thermostat", "read_smarther")

    told = parts.reporter.snapshot()

    assert told["accounts"]["home"]["not_granted"] == {
        "energy": ("read_thermostat", "read_smarther")
    }
    assert any("energy was not granted" in each for each in told["hints"])
    assert told["healthy"]
    TokenFile(token_folder(parts.settings.state_dir, "home") / "token.json").remove()
    assert parts.reporter.snapshot()["accounts"]["home"]["not_granted"] == {}


async def test_the_report_of_a_fresh_daemon(parts: build.Parts, tmp_path: Path) -> None:
    """Before anything was polled the report is complete, healthy, and names this process."""
    parts.reporter.write()

    report = status.read(tmp_path / "state")

    assert report is not None
    assert report["running"]
    assert report["healthy"]
    assert report["pid"] == os.getpid()
    assert report["accounts"]["home"]["login"]["state"] == "ok"
    assert report["store"]["name"] == "127.0.0.1"
    assert 0 <= report["age_s"] < 30


async def test_no_secret_stands_in_the_report(parts: build.Parts, tmp_path: Path) -> None:
    """Neither tokens nor passwords reach the file, even if an error quotes them."""
    home = parts.poller.accounts["home"]
    home.failing["getstationsdata"] = Failing(1, "refused: canary-access, canary%2Dp4ssword")

    parts.reporter.write()

    text = (tmp_path / "state" / "status.json").read_text()
    assert "refused: ***" in text
    assert "canary" not in text


async def test_the_report_is_replaced_in_one_step(parts: build.Parts, tmp_path: Path) -> None:
    """A reader at any moment sees a whole report, and no fragment is left behind."""
    parts.reporter.write()
    broken = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if status.read(tmp_path / "state") is None:
                broken.append("missing")

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        parts.reporter.write()
    done.set()
    reader.join()

    assert broken == []
    assert not list((tmp_path / "state").glob("status.json.*"))


async def test_a_full_disk_costs_the_report_alone(parts: build.Parts, tmp_path: Path) -> None:
    """When the file cannot be written the daemon goes on."""
    (tmp_path / "state" / "status.json.next").mkdir()

    parts.reporter.write()

    assert status.read(tmp_path / "state") is None


async def test_a_disk_that_turned_read_only_costs_the_report_alone(parts: build.Parts) -> None:
    """Where not even a fragment can be removed, the daemon goes on as well."""
    reporter = replace(parts.reporter, path=Path("/proc/self/status.json"))

    reporter.write()

    assert not reporter.path.exists()


async def test_the_summary_names_the_oldest_module(parts: build.Parts, tmp_path: Path) -> None:
    """The hourly line has rows, requests, spool, coverage, logins, and the most silent module."""
    summary = parts.reporter.summary()

    assert summary["logins"] == {"home": "ok"}
    assert (summary["requests_last_hour"], summary["requests_allowed"]) == (0, 400)
    assert summary["healthy"] is True
    assert summary["oldest_module"] is None
    assert summary["oldest_module_age_s"] is None
    assert {"rows_written", "rejected", "spool_records", "coverage_documents"} <= set(summary)


def write(folder: Path, **changes: Any) -> None:
    report = {**healthy(), "ended": False, **changes}
    (folder / "status.json").write_text(json.dumps(report))


def test_a_report_goes_stale(tmp_path: Path) -> None:
    """A report older than a minute, or from the future, or a last one, means: not running."""
    with living(tmp_path):
        write(tmp_path)
        assert running(tmp_path)

        for changes in (
            {"written": time.time() - 61},
            {"written": time.time() + 3600},
            {"ended": True},
        ):
            write(tmp_path, **changes)
            assert not running(tmp_path)


def test_a_killed_daemon_does_not_run(tmp_path: Path) -> None:
    """However fresh its report is, nobody holds its lock any more."""
    with living(tmp_path):
        write(tmp_path)

    assert not running(tmp_path)


def running(folder: Path) -> bool:
    report = status.read(folder)
    assert report is not None
    return bool(report["running"])


def test_no_report_and_a_damaged_one(tmp_path: Path) -> None:
    """No report is None; one that is cut, foreign or a folder is one line, never a traceback."""
    assert status.read(tmp_path) is None
    assert status.read(tmp_path / "absent") is None

    for text in ('{"writ', "[]", "{}", "3", '{"written": "soon"}'):
        (tmp_path / "status.json").write_text(text)
        with pytest.raises(IngestError, match=r"status\.json: is no report of ours"):
            status.read(tmp_path)
    (tmp_path / "status.json").unlink()
    (tmp_path / "status.json").mkdir()
    with pytest.raises(IngestError, match="cannot be read"):
        status.read(tmp_path)


# --- on a terminal ------------------------------------------------------------------------------


def shown(report: dict[str, Any], width: int = 80) -> str:
    out = io.StringIO()
    report = {"running": True, "age_s": 1.0, **report}
    report["troubles"], report["hints"] = status.troubles(report), status.hints(report)
    report["healthy"] = not report["troubles"]
    terminal.show_status(report, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def test_an_operator_sees_what_matters() -> None:
    """Login, requests and allowance, spool, store, each module with its newest row and age."""
    text = shown(healthy())

    for part in (
        f"daemon {__version__} runs",
        "home",
        "ok",
        "12",
        "400",
        "0 records wait",
        "mongo writing",
    ):
        assert part in text
    assert "Garden" in text
    assert "300 s" in text or "5 min" in text
    assert "all is well" in text


def test_a_pipe_gets_whole_cells() -> None:
    """Piped into a file nothing is cut or wrapped, whatever the width of a terminal."""
    report = healthy()
    report["modules"][0]["name"] = "A very long name of a module " * 3

    lines = shown(report, width=40).splitlines()

    assert any("A very long name" in line and "02:00:00:00:00:01" in line for line in lines)


@pytest.mark.parametrize("name", ["[/]", "[red]x[/foo]", "\x1b[2Jgone", "a\nb", "[bold"])
def test_names_of_modules_cannot_draw(name: str) -> None:
    """A name from the cloud is shown as text: no markup, no escape sequence, no line break."""
    report = healthy()
    report["modules"][0]["name"] = name
    report["drift"] = {f"getstationsdata: {name}": 1}

    text = shown(report)

    assert name.replace("\x1b", "�").replace("\n", "�") in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (True, "is not running (last report 2 h ago). Run: netatmo-ingestd run"),
        (False, "is not running, or cannot write its report (last report 2 h ago). Run: netatmo-"),
    ],
)
def test_a_dead_daemon_is_said_first(ended: bool, told: str) -> None:
    """When no daemon runs, the first line says so and names the command; all is not well."""
    text = shown({**healthy(), "running": False, "ended": ended, "age_s": 7200.0})

    assert text.startswith(f"daemon {told}")
    assert "all is well" not in text


def test_troubles_stand_last_where_one_looks() -> None:
    """The last line on the screen is a trouble, with its cure."""
    text = shown(changed("accounts/home/login/state", "dead"))

    assert text.rstrip().splitlines()[-1].startswith("! login of home is lost: log in: netatmo")


def test_the_redactor_is_used_here_too() -> None:
    """The report passes the same redactor as every log line."""
    logs.REDACTOR.protect("x", ["canary-one"])

    assert logs.REDACTOR(None, "", {"a": ["canary-one"]}) == {"a": ["***"]}
