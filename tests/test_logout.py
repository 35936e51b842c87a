"""Another product for a login, and the end of one."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from pydantic import SecretStr
from rich.console import Console

from netatmo_ingestd import build, login, logout, terminal
from netatmo_ingestd.client import open_http
from netatmo_ingestd.errors import ConfigError, OAuthError
from netatmo_ingestd.models import Token
from netatmo_ingestd.settings import AccountSettings, Settings
from netatmo_ingestd.tokenfile import TokenFile, make_folder, token_folder
from netatmo_ingestd.web.register import Registered

SECRET, URL = "canary-client-secret", "https://home.example/webhook/canary-path-of-ours"


@pytest.fixture
async def router() -> AsyncIterator[respx.Router]:
    with respx.mock(assert_all_called=False) as router:
        yield router


class Place:
    """The settings of one account, its token file, and what is printed."""

    def __init__(self, folder: Path, **account: Any) -> None:
        self.account = AccountSettings(client_id="app", client_secret=SecretStr(SECRET), **account)
        self.settings = Settings(state_dir=folder / "state", accounts=(self.account,))
        self.folder = token_folder(self.settings.state_dir, "home")
        self.file = TokenFile(self.folder / "token.json")
        self.printed = io.StringIO()
        self.out = Console(file=self.printed, highlight=False, width=500)

    def logged_in(self, *scopes: str) -> Place:
        make_folder(self.folder)
        self.file.save(Token("access-1", "refresh-1", 4e9, 10_800.0, scopes, 1))
        return self

    @property
    def text(self) -> str:
        return self.printed.getvalue()


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def grants(router: respx.Router, *scopes: str) -> None:
    answer = {
        "access_token": "access-2", "refresh_token": "refresh-2", "scope": list(scopes),
        "expires_in": 10800,
    }  # fmt: skip
    router.post("https://api.netatmo.com/oauth2/token").mock(
        return_value=httpx.Response(200, json=answer)
    )


# --- login --add ----------------------------------------------------------------------------------


async def test_the_consent_page_is_asked_for_what_is_added(tmp_path: Path) -> None:
    """The scopes of the configured products come first, then those of the new one, each once."""
    place = Place(tmp_path, products=("weather", "aircare"))
    async with open_http() as http:
        request = build.login_request(place.settings, place.account, http, "energy", "weather")

        url = login.authorization_url(request).url

    assert request.scopes == (
        "read_station", "read_homecoach", "read_thermostat", "read_smarther",
    )  # fmt: skip
    assert "scope=read_station+read_homecoach+read_thermostat+read_smarther&" in url


async def test_a_wider_login_replaces_the_old_one_and_tells_the_line(
    tmp_path: Path, router: respx.Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not granted is named with its product; the settings lack a line, which is shown."""
    place = Place(tmp_path).logged_in("read_station")
    grants(router, "read_station", "read_thermostat")
    piped(monkeypatch, "refresh-token-of-the-portal\n")

    code = await terminal.log_in(place.settings, "home", "token", place.out, ("energy",))

    token = place.file.load()
    assert code == 0
    assert token is not None
    assert (token.generation, token.scopes) == (2, ("read_station", "read_thermostat"))
    assert place.text.splitlines()[1:] == [
        "Not granted: energy (read_smarther); what needs it stays empty.",
        'Now write this under [[accounts]] name = "home" in the settings, and restart the daemon:',
        '  products = ["weather", "energy"]',
    ]


async def test_a_wider_login_that_fails_keeps_the_old_one(
    tmp_path: Path, router: respx.Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal changes nothing on disk."""
    place = Place(tmp_path).logged_in("read_station")
    before = place.file.path.read_bytes()
    router.post("https://api.netatmo.com/oauth2/token").mock(
        return_value=httpx.Response(400, json={"error": "invalid_grant"})
    )
    piped(monkeypatch, "refresh-token-of-the-portal\n")

    with pytest.raises(OAuthError, match="invalid_grant"):
        await terminal.log_in(place.settings, "home", "token", place.out, ("energy",))

    assert place.file.path.read_bytes() == before
    assert place.text == ""


@pytest.mark.parametrize(
    ("account", "add", "lines"),
    [
        ({"products": ("weather", "energy")}, ("energy",), []),
        ({}, (), []),
        ({}, ("energy", "energy"), ['  products = ["weather", "energy"]']),
        (
            {"scopes": ("read_station",)},
            ("aircare",),
            [
                '  products = ["weather", "aircare"]',
                '  scopes = ["read_station", "read_homecoach"]',
            ],
        ),
        (
            {},
            ("public",),
            [
                '  products = ["weather", "public"]',
                "  public_area = { lat_ne = …, lon_ne = …, lat_sw = …, lon_sw = … }",
            ],
        ),
    ],
)
def test_the_lines_that_the_settings_lack(
    account: dict[str, Any], add: tuple[str, ...], lines: list[str]
) -> None:
    """Exactly as they should stand there; none when nothing is missing."""
    told = terminal.to_configure(AccountSettings(**account), add)

    assert told[1:] == lines
    assert bool(told) == bool(lines)


# --- logout ---------------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A terminal on which somebody answers."""

    def answer(text: str) -> None:
        typed = io.StringIO(text)
        monkeypatch.setattr(typed, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", typed)

    return answer


async def test_logout_asks_and_then_forgets(tmp_path: Path, answers: Callable[[str], None]) -> None:
    """No leaves everything; yes removes the login with every copy of it, and nothing else."""
    place = Place(tmp_path).logged_in("read_station")
    (place.folder / "token.json.damaged-1").write_text("canary-older")
    place.file.reserve({"generation": 1})
    other = place.settings.state_dir / "status.json"
    other.write_text("{}")

    answers("n\n")
    assert await logout.log_out(place.settings, place.account, place.out) == 1
    assert place.file.load() is not None
    answers("y\n")
    assert await logout.log_out(place.settings, place.account, place.out) == 0

    assert [each.name for each in place.folder.iterdir()] == ["token.lock"]
    assert other.exists()
    assert "is logged out here" in place.text
    assert await logout.log_out(place.settings, place.account, place.out) == 0
    assert "is not logged in" in place.text


async def test_logout_that_nobody_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script must say so: nothing is removed for want of a terminal."""
    place = Place(tmp_path).logged_in("read_station")
    piped(monkeypatch, "y\n")

    with pytest.raises(ConfigError, match="add --yes"):
        await logout.log_out(place.settings, place.account, place.out)

    assert place.file.load() is not None


async def test_logout_removes_the_webhook_first(tmp_path: Path, router: respx.Router) -> None:
    """While there is a token that may; then the file goes."""
    place = Place(tmp_path).logged_in("read_station")
    Registered(place.folder).note(URL)
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, place.file.path.exists()))
        return httpx.Response(200, json={"status": "ok"})

    router.route().mock(side_effect=answer)

    assert await logout.log_out(place.settings, place.account, place.out, sure=True) == 0

    assert seen == [("DELETE", "/webhooks/v1", True)]
    assert [each.name for each in place.folder.iterdir()] == ["token.lock"]
    assert "The webhook is removed." in place.text


async def test_a_webhook_that_stays_is_no_reason_to_stay(
    tmp_path: Path, router: respx.Router
) -> None:
    """A refusal is told, and the login is forgotten all the same."""
    place = Place(tmp_path).logged_in("read_station")
    Registered(place.folder).note(URL)
    router.route().mock(
        return_value=httpx.Response(400, json={"error": {"code": 21, "message": f"no {URL}"}})
    )

    assert await logout.log_out(place.settings, place.account, place.out, sure=True) == 0

    assert place.file.load() is None
    assert "could not be removed" in place.text
    assert "canary" not in place.text


def test_what_is_removed_does_not_come_back(tmp_path: Path) -> None:
    """A daemon sees that the file is gone, and finds nothing to finish; twice is no error."""
    place = Place(tmp_path).logged_in("read_station")
    stamp = place.file.stamp()

    place.file.remove()

    assert stamp is not None
    assert place.file.stamp() is None
    assert place.file.recover() is None
    place.file.remove()
