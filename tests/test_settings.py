"""Settings: where a value comes from, and one line for each mistake, without a secret in it."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd import config
from netatmo_ingestd.config import load
from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.providers import ACCESS_SCOPES, NETATMO, READ_SCOPES
from netatmo_ingestd.settings import AccountSettings, Settings, read_duration

OF_LEGRAND = '[[accounts]]\nprovider = "legrand"\n{}'
AREA = "[[accounts]]\npublic_area = {{ lat_ne = {}, lon_ne = {}, lat_sw = {}, lon_sw = {} }}"
CANARY = "canary-c0ffee-secret"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine reaches a test."""
    for name in os.environ:
        if name.startswith("NETATMO_INGESTD_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


def written(folder: Path, text: str, name: str = "config.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    """The one line with which this file is refused."""
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message.removeprefix(f"{folder / 'config.toml'}: ")


# --- where a value comes from -------------------------------------------------------------------


def test_picture_hosts_stand_beside_netatmo_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts of the settings are added, in lower case; requests with a token do not go there."""
    monkeypatch.setenv("NETATMO_INGESTD_SECURITY_PICTURE_HOSTS", "Images.example.com,127.0.0.1")

    found = load(written(tmp_path, "[security]\npictures = true\n"))

    assert found.security.pictures
    assert found.provider("netatmo").picture_hosts == (
        *NETATMO.picture_hosts,
        "images.example.com",
        "127.0.0.1",
    )
    assert found.provider("netatmo").hosts == NETATMO.hosts


def test_environment_wins_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key is taken from the environment first, then from the file, then from its default."""
    monkeypatch.setenv("NETATMO_INGESTD_POLL_WEATHER", "20m")
    monkeypatch.setenv("NETATMO_INGESTD_STATE_DIR", "/elsewhere")
    path = written(
        tmp_path, 'state_dir = "/file"\n[poll]\nweather = "15m"\n[store]\ndatabase = "fromfile"\n'
    )

    found = load(path)

    assert found.poll.weather == timedelta(minutes=20)
    assert found.state_dir == Path("/elsewhere")
    assert found.store.database == "fromfile"
    assert found.poll.trailing == timedelta(minutes=30)


def test_environment_adds_to_a_section_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable replaces one key of a section and leaves its neighbours from the file."""
    monkeypatch.setenv("NETATMO_INGESTD_BUDGET_PER_HOUR", "100")

    found = load(written(tmp_path, "[budget]\nper_hour = 200\nper_10s = 7\n"))

    assert (found.budget.per_hour, found.budget.per_10s) == (100, 7)


def test_settings_made_in_code_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `load` looks at the environment: a demo is not moved by it."""
    monkeypatch.setenv("NETATMO_INGESTD_STATE_DIR", "/elsewhere")

    assert Settings().state_dir == Path("/var/lib/netatmo-ingestd")


def test_settings_are_frozen() -> None:
    """No code can change a setting after it was read."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().poll.weather = timedelta(minutes=1)  # type: ignore[misc]


def test_there_is_no_default_store() -> None:
    """The owner chooses where data goes: an empty configuration names no store."""
    assert Settings().store.uri.get_secret_value() == ""
    assert not Settings().store.embedded


def test_one_account_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one-account container needs no file: variables define the account."""
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_CLIENT_ID", "abc")
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_CLIENT_SECRET", CANARY)
    monkeypatch.setenv("NETATMO_INGESTD_STORE_URI", "mongodb://mongo/")

    found = load(None)

    (account,) = found.accounts
    assert account.name == "home"
    assert found.app_of(account).client_id == "abc"
    assert found.app_of(account).client_secret.get_secret_value() == CANARY


@pytest.mark.parametrize("text", ["Harbour House,Garden", ' ["Harbour House", "Garden"] '])
def test_lists_in_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is written into a variable with commas, or as JSON."""
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_INCLUDE", text)
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_PRODUCTS", "weather")

    (account,) = load(None).accounts

    assert account.include == ("Harbour House", "Garden")
    assert account.products == ("weather",)


def test_accounts_d_adds_accounts(tmp_path: Path) -> None:
    """Files in accounts.d beside the configuration add their accounts, in order of their names."""
    written(tmp_path / "accounts.d", '[[accounts]]\nname = "c"\n', "20.toml")
    written(tmp_path / "accounts.d", '[[accounts]]\nname = "b"\n', "10.toml")
    written(tmp_path / "accounts.d", "not read", "README")

    found = load(written(tmp_path, '[[accounts]]\nname = "a"\n'))

    assert [account.name for account in found.accounts] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("accounts = 3", "accounts is no list"),
        ("[accounts]\nname = 'x'", "accounts is no list"),
        ("[poll]\nweather = '10m'", "only [[accounts]] belongs here, not poll"),
        ("[[accounts]]\nclient_idd = 'x'", 'did you mean "client_id"?'),
        ("[[accounts", "is not valid TOML"),
    ],
)
def test_a_mistake_in_accounts_d_names_its_file(tmp_path: Path, text: str, told: str) -> None:
    """What is wrong in accounts.d is told with the name of that very file."""
    path = written(tmp_path / "accounts.d", text, "10.toml")

    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "[[accounts]]\n"))

    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_each_option_tells_its_value_and_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment, file or default; of a secret only whether it is set."""
    monkeypatch.setenv("NETATMO_INGESTD_POLL_WEATHER", "5m")
    path = written(
        tmp_path,
        '[store]\nuri = "embedded"\n[[accounts]]\n'
        f'client_id = "a"\nclient_secret = "{CANARY}"\ninclude = ["x", "y"]\n',
    )

    found = {key: (value, origin) for key, value, origin in config.effective(load(path), path)}

    assert found["store.uri"] == ("embedded", str(path))
    assert found["poll.weather"] == ("0:05:00", "environment")
    assert found["history.since"] == ("all", "default")
    assert found["accounts.home.client_secret"][0] == "(set)"
    assert found["accounts.home.include"][0] == "x, y"
    assert CANARY not in str(found)


# --- secrets and apps ---------------------------------------------------------------------------


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    """client_secret_file holds the secret; blanks and the line end around it do not count."""
    secret = written(tmp_path, f"  {CANARY}\n", "secret")
    found = load(
        written(tmp_path, f'[[accounts]]\nclient_id = "a"\nclient_secret_file = "{secret}"\n')
    )

    assert found.app_of(found.accounts[0]).client_secret.get_secret_value() == CANARY


def test_a_secret_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$CREDENTIALS_DIRECTORY/<account>.client_secret is found without a setting."""
    written(tmp_path, CANARY, "garden.client_secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = load(written(tmp_path, '[[accounts]]\nname = "garden"\nclient_id = "a"\n'))

    assert found.app_of(found.accounts[0]).client_secret.get_secret_value() == CANARY


def test_accounts_share_an_app(tmp_path: Path) -> None:
    """`app` gives an account the client id and secret of [apps.NAME]."""
    found = load(
        written(
            tmp_path,
            f'[apps.fleet]\nclient_id = "shared"\nclient_secret = "{CANARY}"\n'
            '[[accounts]]\nname = "a"\napp = "fleet"\n[[accounts]]\nname = "b"\napp = "fleet"\n',
        )
    )

    assert {found.app_of(account).client_id for account in found.accounts} == {"shared"}
    assert found.app_of(found.accounts[1]).client_secret.get_secret_value() == CANARY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "accounts.home.client_id: missing"),
        ('client_id = "a"', "accounts.home.client_secret: missing"),
        ('client_id = "a"\nclient_secret_file = "absent"', "client_secret_file: absent cannot be"),
        ('client_id = "a"\nclient_secret_file = "."', "client_secret_file: . cannot be read"),
    ],
)
def test_an_incomplete_app_is_told(tmp_path: Path, text: str, told: str) -> None:
    """A missing client id or secret is one line that names the key."""
    found = load(written(tmp_path, f"[[accounts]]\n{text}\n"))

    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        found.app_of(found.accounts[0])


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    """Neither printed settings nor their JSON hold the client secret or the store's password."""
    found = load(
        written(
            tmp_path,
            f'[store]\nuri = "mongodb://u:{CANARY}@h/"\n'
            f'[[accounts]]\nclient_id = "a"\nclient_secret = "{CANARY}"\n',
        )
    )

    assert CANARY not in repr(found) + str(found) + found.model_dump_json()


# --- unknown keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("state_dri = '/x'", 'state_dri is unknown; did you mean "state_dir"?'),
        ("[stor]\nuri = 'embedded'", 'stor is unknown; did you mean "store"?'),
        ("[store]\nurl = 'embedded'", 'store.url is unknown; did you mean "uri"?'),
        ("[poll]\nwether = '10m'", 'poll.wether is unknown; did you mean "weather"?'),
        (
            "[[accounts]]\nname = 'a'\n[[accounts]]\nname = 'b'\nprodukts = []",
            'accounts.b.produkts is unknown; did you mean "products"?',
        ),
        ("[[accounts]]\nnonsense = 1", "accounts.1.nonsense is unknown"),
        (
            "[apps.fleet]\nclientid = 'x'",
            'apps.fleet.clientid is unknown; did you mean "client_id"?',
        ),
        ("[account]\nname = 'x'", 'account is unknown; did you mean "accounts"?'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path, text: str, told: str) -> None:
    """At every level a key that we do not know is named with the one that was probably meant."""
    assert refusal(tmp_path, text) == told


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NETATMO_INGESTD_STORE_URL", "NETATMO_INGESTD_STORE_URI"),
        ("NETATMO_INGESTD_STORE", "NETATMO_INGESTD_STORE_URI"),
        ("NETATMO_INGESTD_ACCOUNT_CLIENTID", "NETATMO_INGESTD_ACCOUNT_CLIENT_ID"),
        ("NETATMO_INGESTD_STATEDIR", "NETATMO_INGESTD_STATE_DIR"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt variable of ours ends with one line, never with a silent default."""
    monkeypatch.setenv(name, CANARY)

    with pytest.raises(ConfigError) as caught:
        load(None)

    assert str(caught.value) == f'environment: {name} is unknown; did you mean "{nearest}"?'


# --- wrong values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("accounts = 3", "accounts is no list"),
        ("accounts = [3]", "accounts.1 is no table"),
        ("[accounts]\nname = 'x'", "begin each with [[accounts]]"),
        ("apps = 3", "apps is no table; write [apps.NAME]"),
        ("[apps]\nx = 3", "apps.x is no table"),
        ('poll = "x"', "poll is no table"),
        ("store = []", "store is no table"),
        ("state_dir = 3", "state_dir: is no path"),
        ("[store]\nuri = 3", "store.uri: is no text"),
        ('[[accounts]]\nproducts = "weather"', "accounts.1.products: is no list"),
        ('[login]\nport = "x"', "login.port: "),
        ('[log]\nlevel = "loud"', "log.level: "),
    ],
)
def test_a_wrong_type_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    """A value of a wrong type ends with one line that names the place."""
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[poll]\nweather = "30s"', "poll.weather: is under 1 min"),
        ("[poll]\nweather = 0", "poll.weather: is under 1 min"),
        ("[poll]\nweather = -600", "poll.weather: is under 1 min"),
        ('[poll]\ntrailing = "2d"', "poll.trailing: is over 1 day"),
        ('[poll]\nweather = "ten minutes"', "poll.weather: is no duration"),
        ('[poll]\nweather = "10"', "poll.weather: is no duration"),
        ("[poll]\nweather = inf", "poll.weather: is out of range"),
        ("[poll]\nweather = nan", "poll.weather: is out of range"),
        ('[poll]\nweather = "999999999999999999d"', "poll.weather: is out of range"),
        ("[poll]\nweather = true", "poll.weather: "),
        ('[poll]\naircare = "59s"', "poll.aircare: is under 1 min"),
        ('[poll]\naircare = "25h"', "poll.aircare: is over 1 day"),
        ("[budget]\nper_hour = 491", "budget.per_hour: "),
        ("[retention]\npictures_days = 0", "retention.pictures_days: "),
        ("[retention]\npictures_bytes = 1000", "retention.pictures_bytes: "),
        ('[security]\npicture_hosts = ["https://a.example/"]', "security.picture_hosts: "),
        ('[security]\npicture_hosts = ["*.example"]', "security.picture_hosts: "),
        ('[security]\npicture_hosts = ["me@a.example"]', "security.picture_hosts: "),
        ("[budget]\nper_10s = 0", "budget.per_10s: "),
        ("[spool]\nmax_bytes = 1000", "spool.max_bytes: "),
        ("[writer]\nbulk_size = 501", "writer.bulk_size: "),
        ("[writer]\nmax_bulks_per_second = 0", "writer.max_bulks_per_second: "),
        ("[writer]\nmax_bulks_per_second = nan", "writer.max_bulks_per_second: "),
        ("[login]\nport = 65536", "login.port: "),
        ("[clock]\nspeed = 0", "clock.speed: "),
        ("[clock]\norigin = inf", "clock.origin: "),
        ('[store]\ndatabase = "a b"', "store.database: "),
        ('[[accounts]]\nname = "a/b"', "accounts.1.name: needs 1 to 64 letters"),
        ('[[accounts]]\nproducts = ["heating"]', 'accounts.1.products: has "heating"; known: '),
        ('[[accounts]]\nproducts = ["public"]', 'accounts.1: products has "public", which needs'),
        ('[[accounts]]\nprovider = "legrnd"', "accounts.1.provider: is none of netatmo, legrand"),
        (OF_LEGRAND.format(""), "accounts.1: products: name those to read: emergency, smarther"),
        (OF_LEGRAND.format('products = ["energy"]'), 'accounts.1.products: has "energy"; known of'),
        ('[[accounts]]\nproducts = ["smarther"]', 'accounts.1.products: has "smarther"; known of'),
        (OF_LEGRAND.format('products = ["emergency"]'), "needs the ids of your sites: sites"),
        (
            OF_LEGRAND.format('products = ["smarther"]\nsites = ["x"]'),
            "sites is for the product",
        ),
        (
            OF_LEGRAND.format('products = ["emergency"]\nsites = ["a/b"]'),
            'accounts.1.sites: has "a/b", no site id',
        ),
        (
            OF_LEGRAND.format('products = ["smarther"]\nscopes = ["read_camera"]'),
            "accounts.1: scopes: those of Legrand are set on the app's page",
        ),
        ('[[accounts]]\nsubscription_key = "x"', "accounts.1: subscription_key is for provider"),
        ("[legrand]\nper_day = 501", "legrand.per_day: "),
        ('[legrand]\nsmarther_path = "x"', "legrand.smarther_path: is no path like"),
        (
            '[legrand]\nsite_controllers_path = "/x"',
            "path: needs a place for each",
        ),
        ('[legrand]\nfailure_flag_path = "/x/{flag}"', "path: needs a place for each"),
        ('[legrand]\napi_url = "http://a.example"', "legrand.api_url: must be https"),
        (AREA.format(1, 1, 1, 0), "accounts.1.public_area: lat_ne (1) is not above lat_sw (1)"),
        (AREA.format(1, 0, 0, 1), "accounts.1.public_area: lon_ne (0) is not above lon_sw (1)"),
        (AREA.format(86, 1, 0, 0), "accounts.1.public_area.lat_ne: "),
        (AREA.format(1, 181, 0, 0), "accounts.1.public_area.lon_ne: "),
        (AREA.format(1.2, 1, 0, 0), "accounts.1.public_area: lat_ne (1.2) is more than 1 degree"),
        (AREA.format(1, 9, 0, 7.9), "accounts.1.public_area: lon_ne (9) is more than 1 degree"),
        (AREA.format(1, 1, 0, 0), 'accounts.1: public_area is for the product "public"; add that'),
        (AREA.format("inf", 1, 0, 0), "accounts.1.public_area.lat_ne: "),
        (AREA.format(1, "nan", 0, 0), "accounts.1.public_area.lon_ne: "),
        ("[[accounts]]\npublic_area = { lat_ne = 1 }", "accounts.1.public_area.lon_ne: "),
        ('[[accounts]]\nscopes = ["write_camera"]', "this program only reads"),
        ('[[accounts]]\nscopes = ["access_station"]', "accounts.1.scopes: has an unknown one at 0"),
        ('[[accounts]]\nscopes = ["all_scopes"]', "accounts.1.scopes: has an unknown one at 0"),
        ('[[accounts]]\nscopes = ["read_statoin"]', 'did you mean "read_station"?'),
        ('[web]\nlisten = "8736"', "web.listen: is no address like"),
        ('[web]\nlisten = "127.0.0.1:65536"', "web.listen: is no address like"),
        ('[webhook]\nurl = "https://a.example"', "webhook.url: nothing would answer there"),
        ('[webhook]\nurl = "http://a.example"', "webhook.url: must be https"),
        ('[webhook]\nurl = "https://a.example:8443"', "webhook.url: has port 8443; Netatmo calls"),
        ('[webhook]\nurl = "https://a.example?x=1"', "webhook.url: is no plain address"),
        ('[webhook]\npath = "short"', "webhook.path: needs 16 to 128"),
        ('[webhook]\npath = "0123456789abcdef"', "webhook.path: is of no use without"),
        ('[netatmo]\napi_url = "http://api.netatmo.com"', "netatmo.api_url: must be https"),
        ('[netatmo]\napi_url = "http://127.0.0.1:abc"', "netatmo.api_url: "),
        ('[netatmo]\napi_url = "https://u:p@api.netatmo.com"', "netatmo.api_url: is no plain"),
        ('[netatmo]\napi_url = "http://[::1"', "netatmo.api_url: "),
        ("x = ", "is not valid TOML: Invalid value (at "),
    ],
)
def test_a_value_out_of_bounds_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    """A value that cannot work is refused before anything is opened."""
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10 min", 600),
        ("1.5h", 5400),
        ("7d", 604_800),
        (600, 600),
        (0.5, 0.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """A duration is a number with a unit, or a number of seconds."""
    assert read_duration(text) == timedelta(seconds=seconds)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.booleans()))
def test_no_value_breaks_the_reading_of_a_duration(value: object) -> None:
    """Whatever stands there is a duration, is left to the type check, or is a ValueError."""
    try:
        found = read_duration(value)
    except ValueError:
        return

    assert isinstance(found, timedelta) or found is value


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text end with one line each."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")

    for path, told in (
        (tmp_path / "absent.toml", "no such file; copy config.example.toml there"),
        (tmp_path, "cannot be read (Is a directory)"),
        (binary, "is not valid TOML"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: {told}")


# --- relations ----------------------------------------------------------------------------------


def test_a_fast_clock_needs_a_simulated_cloud(tmp_path: Path) -> None:
    """[clock] speed is refused unless both addresses are loopback."""
    loopback = 'api_url = "http://127.0.0.1:8700"'

    assert "clock.speed: a fast clock is for" in refusal(tmp_path, "[clock]\nspeed = 600")
    assert "clock.speed" in refusal(tmp_path, f"[clock]\nspeed = 600\n[netatmo]\n{loopback}")
    both = f'[clock]\nspeed = 600\n[netatmo]\n{loopback}\nauth_url = "http://localhost:8700"'
    assert load(written(tmp_path, both)).clock.speed == 600


def test_two_accounts_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is used twice is refused, also when the second comes from the environment."""
    twice = '[[accounts]]\nname = "a"\n'
    assert 'the name "a" is used twice' in refusal(tmp_path, twice * 2)

    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_NAME", "a")
    told = refusal(tmp_path, twice)

    assert 'the name "a" is used twice' in told
    assert "NETATMO_INGESTD_ACCOUNT_NAME" in told


def test_an_app_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`app` must name an [apps.NAME], also for the account of the environment."""
    text = '[apps.fleet]\nclient_id = "a"\n'
    told = refusal(tmp_path, f'{text}[[accounts]]\napp = "fleat"')
    assert told == 'accounts.home.app: there is no [apps.fleat]; did you mean "fleet"?'

    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_APP", "nowhere")

    assert "there is no [apps.nowhere]" in refusal(tmp_path, text)


def test_which_account_is_meant(tmp_path: Path) -> None:
    """Without a name the only account is taken; among several one must be named."""
    two = load(written(tmp_path, '[[accounts]]\nname = "home"\n[[accounts]]\nname = "garden"\n'))
    one = load(written(tmp_path, '[[accounts]]\nname = "garden"\n'))

    assert one.find_account(None).name == "garden"
    assert two.find_account("home").name == "home"
    with pytest.raises(ConfigError, match=r"add --account home\|garden"):
        two.find_account(None)
    with pytest.raises(ConfigError, match='no "gardn"; did you mean "garden"'):
        two.find_account("gardn")
    with pytest.raises(ConfigError, match=r"none is configured; add an \[\[accounts\]\]"):
        load(None).find_account(None)


# --- no message tells a secret ------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://h/",
        "mongodb://u:p@h:27017/?authSource=admin&replicaSet=rs",
        "mongodb://u:p%40ss@a:1,b:2,c/db",
        "mongodb+srv://u:p@cluster.example.org/",
        "mongodb://u:p@[::1]:27017/",
        "mongodb://h?tls=true",
        "embedded",
    ],
)
def test_store_addresses_that_are_taken(uri: str, tmp_path: Path) -> None:
    """Every form of address that the driver knows is taken as it is."""
    found = load(written(tmp_path, f"[store]\nuri = {json.dumps(uri)}\n"))

    assert found.store.uri.get_secret_value() == uri


@pytest.mark.parametrize(
    "uri",
    [
        f"postgres://u:{CANARY}@h/",
        f"mongodb://u:{CANARY}/rest@h/",
        f"mongodb://u:1234/{CANARY}@h/",
        f"mongodb://u:{CANARY}?rest@h/",
        f"mongodb://u:{CANARY}#[rest@h/",
        f"mongodb://u:{CANARY}@[h/",
        f"mongodb://u:{CANARY}\u2100@h/",
        f"mongodb://u:{CANARY}@",
        f"mongodb://u:{CANARY}@h:port/",
        CANARY,
    ],
)
def test_a_wrong_store_address_is_refused_without_its_password(uri: str, tmp_path: Path) -> None:
    """An address with a password that was not percent-encoded is refused and not quoted."""
    told = refusal(tmp_path, f"[store]\nuri = {json.dumps(uri)}\n")

    assert told.startswith("store.uri: ")
    assert "canary" not in told


@pytest.mark.parametrize(
    "text",
    [
        f'[[accounts]]\nclient_secrt = "{CANARY}"',
        f'[[accounts]]\nclient_secret = ["{CANARY}"]',
        f'[[accounts]]\nclient_secret = {{value = "{CANARY}"}}',
        f'[[accounts]]\nclient_id = ["{CANARY}"]',
        f'[apps.a]\nclient_secret = ["{CANARY}"]',
        f'[store]\nuri = ["mongodb://u:{CANARY}@h"]',
        f'[store]\npassword = "{CANARY}"',
        f'client_secret = "{CANARY}"',
        f'[[accounts]]\nclient_secret = "{CANARY}',
        f'[[accounts]]\nclient_secret = "{CANARY}" x',
        f'[[accounts]]\nclient_secret = "{CANARY}"\nclient_secret = "{CANARY}"',
        f'store = "mongodb://u:{CANARY}@h"',
    ],
)
def test_no_message_prints_a_secret(text: str, tmp_path: Path) -> None:
    """A misspelt key, a wrong type or broken TOML around a secret is told without the secret."""
    told = refusal(tmp_path, text)

    assert "canary" not in told


def test_no_variable_of_a_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the environment that is refused is not quoted."""
    monkeypatch.setenv("NETATMO_INGESTD_STORE_URI", f"mongo://u:{CANARY}@h")

    with pytest.raises(ConfigError) as caught:
        load(None)

    assert str(caught.value).startswith("environment: store.uri: ")
    assert "canary" not in str(caught.value)


_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.just(CANARY), st.just(float("inf"))),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.just("x"), inner)),
    max_leaves=4,
)


@given(
    st.sampled_from(
        [
            (section, key)
            for section, field in Settings.model_fields.items()
            for key in getattr(field.annotation, "model_fields", {None: None})
            if section not in ("account", "apps", "accounts")
        ]
        + [("accounts", key) for key in AccountSettings.model_fields]
    ),
    _VALUES,
)
def test_whatever_stands_in_a_key_is_taken_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str | None], value: Any
) -> None:
    """No value of any key ends in anything but settings or a ConfigError of one line."""
    section, key = place
    inner = {key: value} if key else value
    raw = {section: [inner] if section == "accounts" else inner}
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("".join(f"{name} = {_toml(each)}\n" for name, each in raw.items()))

    try:
        load(path)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
        if key not in ("name", "app", "products", "client_secret_file"):
            assert CANARY not in str(error)  # noqa: PT017


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return "inf" if value == float("inf") else json.dumps(value)


def test_every_variable_name_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that is not refused does something: none is accepted and ignored."""
    values = {
        "uri": "embedded", "database": "other", "name": "other", "app": "", "products": "weather",
        "scopes": "read_station", "public": "11m", "include": "x", "exclude": "x",
        "listen": "127.0.0.1:8736", "client_id": "x", "client_secret": "x",
        "client_secret_file": "/x", "api_url": "https://other.example", "level": "debug",
        "auth_url": "https://other.example", "origin": "5", "speed": "1", "weather": "11m",
        "aircare": "9m", "trailing": "31m", "topology": "2h", "status": "6m",
        "events": "11m", "pictures": "true", "picture_hosts": "x.example", "pictures_days": "30",
        "emergency": "20m", "smarther": "20m", "measures": "2h", "plants": "6h", "per_day": "400",
        "smarther_path": "/x", "live_days": "30", "dead_letters_days": "30",
        "pictures_bytes": "2000000", "buckets": "2h", "per_hour": "399", "per_10s": "49",
        "max_bytes": "2000000",
        "bulk_size": "499", "max_bulks_per_second": "3", "port": "8736", "format": "json",
        "state_dir": "/x", "since": "2020-01-01",
    }  # fmt: skip
    ignored = []
    for name in config._environment_names():
        section, _, key = name.partition("_")
        key = key if section in Settings.model_fields else name
        if key in (
            "app",
            "speed",
            "products",
            "public_area",
            "url",
            "path",
            "provider",
            "sites",
            "site_controllers_path",
            "failure_flag_path",
            "subscription_key",
            "subscription_key_file",
        ):  # their other values need further settings
            continue
        with monkeypatch.context() as patch:
            patch.setenv(f"NETATMO_INGESTD_{name.upper()}", values[key])
            if load(None) == Settings():
                ignored.append(name)

    assert ignored == []


def test_scopes_of_a_login() -> None:
    """Those of the products, each once, or those named instead; and of more products."""
    plain = AccountSettings(products=("energy", "weather"))
    named = AccountSettings(products=("security",), scopes=("read_camera", "read_presence"))

    assert plain.scopes_for() == ("read_thermostat", "read_smarther", "read_station")
    assert plain.scopes_for("aircare", "weather") == (*plain.scopes_for(), "read_homecoach")
    assert named.scopes_for() == ("read_camera", "read_presence")
    assert named.scopes_for("weather") == ("read_camera", "read_presence", "read_station")


def test_every_scope_of_the_reference_that_does_not_write(tmp_path: Path) -> None:
    """All that read, and those to live pictures, may be asked for; none of the others."""
    reference = Path(__file__).resolve().parents[2] / "shared" / "netatmo-api.md"
    if not reference.exists():
        pytest.skip("no shared/netatmo-api.md beside the checkout")
    section = reference.read_text().split("\n## 2. ")[1].split("\n## 3. ")[0]
    named = set(re.findall(r"`((?:read|access|write)_[a-z0-9]+)`", section))
    allowed = {each for each in named if not each.startswith("write_")}

    assert allowed == READ_SCOPES | ACCESS_SCOPES
    text = f"[[accounts]]\nscopes = {json.dumps(sorted(allowed))}"
    assert set(load(written(tmp_path, text)).accounts[0].scopes_for()) == allowed
    assert len(named) > len(allowed)


def test_what_was_not_granted_is_told_by_product() -> None:
    """Only what was asked for counts, so scopes that the settings leave out are not missing."""
    plain = AccountSettings(products=("weather", "energy"))
    named = AccountSettings(products=("energy",), scopes=("read_thermostat",))

    assert plain.not_granted(("read_station", "read_thermostat")) == {"energy": ("read_smarther",)}
    assert plain.not_granted(()) == {
        "weather": ("read_station",),
        "energy": ("read_thermostat", "read_smarther"),
    }
    assert plain.not_granted(plain.scopes_for()) == {}
    assert named.not_granted(("read_thermostat",)) == {}


def test_a_degree_is_not_more_than_one(tmp_path: Path) -> None:
    """From 64.9 to 63.9 west is a degree, though the doubles are further apart."""
    assert -63.9 - -64.9 > 1

    text = AREA.format(1, -63.9, 0, -64.9) + '\nproducts = ["public"]'
    (account,) = load(written(tmp_path, text)).accounts

    assert account.public_area is not None
    assert len(account.public_area.tiles) == 16


def test_an_area_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has it as JSON, beside the product."""
    monkeypatch.setenv("NETATMO_INGESTD_ACCOUNT_PRODUCTS", "weather,public")
    monkeypatch.setenv(
        "NETATMO_INGESTD_ACCOUNT_PUBLIC_AREA",
        '{"lat_ne": 47.3, "lon_ne": -1.4, "lat_sw": 47.1, "lon_sw": -1.6}',
    )

    (account,) = load(None).accounts

    assert account.public_area is not None
    assert account.public_area.tiles == ("47.1,-1.6,47.3,-1.4",)


def test_an_area_of_public_stations(tmp_path: Path) -> None:
    """It is cut into tiles, and shown in one line among the settings."""
    text = AREA.format(1, 0.5, 0, 0) + '\nproducts = ["public"]'
    path = written(tmp_path, text)

    found = load(path)

    area = found.accounts[0].public_area
    assert area is not None
    assert area.tiles[:3] == ("0,0,0.25,0.25", "0,0.25,0.25,0.5", "0.25,0,0.5,0.25")
    assert len(area.tiles) == 8
    shown = {key: value for key, value, _ in config.effective(found, path)}
    assert shown["accounts.home.public_area"] == "0,0 to 1,0.5"


def test_an_account_of_legrand(tmp_path: Path) -> None:
    """Its key comes from the settings, a file or systemd's folder; its paths and quota are set."""
    text = f"""
[clock]
speed = 10
[legrand]
api_url = "http://127.0.0.1:9"
auth_url = "http://127.0.0.1:9"
smarther_path = "/other/v3/"
per_day = 90
[[accounts]]
provider = "legrand"
products = ["smarther", "emergency"]
sites = ["site-1"]
subscription_key = "{CANARY}"
"""
    found = load(written(tmp_path, text))
    (account,) = found.accounts
    provider = found.provider("legrand")

    assert found.subscription_key(account) == CANARY
    assert CANARY not in repr(found)
    assert account.scopes_for() == ("comfort.read", "safety.read")
    assert (provider.per_day, provider.loopback) == (90, True)
    assert provider.address("plant_topology", {"plant_id": "p 1"}) == (
        "http://127.0.0.1:9/other/v3/plants/p%201/topology", {}
    )  # fmt: skip
    (tmp_path / "key").write_text(f"{CANARY}-file\n")
    changed = text.replace(f'subscription_key = "{CANARY}"',
                           f'subscription_key_file = "{tmp_path / "key"}"')  # fmt: skip
    found = load(written(tmp_path, changed))
    assert found.subscription_key(found.accounts[0]) == f"{CANARY}-file"
    missing = load(written(tmp_path, text.replace(CANARY, "")))
    with pytest.raises(ConfigError, match=r"accounts.home.subscription_key: missing; copy it from"):
        missing.subscription_key(missing.accounts[0])


def test_an_app_is_of_one_cloud(tmp_path: Path) -> None:
    """Two accounts at two clouds cannot share a client id."""
    text = """
[apps.one]
client_id = "x"
[[accounts]]
app = "one"
[[accounts]]
name = "b"
app = "one"
provider = "legrand"
products = ["smarther"]
"""
    assert "apps.one: an app is of one cloud" in refusal(tmp_path, text)
