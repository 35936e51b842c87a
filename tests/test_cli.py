"""The command line: what it says, its exit codes, and one line for each thing that is wrong.

In this process through `main`; as real processes where the process itself is the claim.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from netatmo_ingestd import __version__, cli, logs, startup
from netatmo_ingestd.errors import Busy, ConfigError, IngestError, LoginRequired, StoreUnavailable
from netatmo_ingestd.process import state_folder
from tests.living import living
from tests.stores import require_extra, until

ROOT = Path(__file__).parents[1]
SECRET = "canary-client-secret"
PASSWORD = "canary-p4ssword"
NOWHERE = f"mongodb://u:{PASSWORD}@127.0.0.1:1/?serverSelectionTimeoutMS=100"
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
COMMAND = (sys.executable, "-m", "netatmo_ingestd")


class Result:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def line(self) -> str:
        """Its one line on standard error, without a traceback and without a secret."""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        assert "canary" not in self.err + self.out
        assert self.err.startswith("netatmo-ingestd: ")
        return self.err.removeprefix("netatmo-ingestd: ").rstrip("\n")


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, configuration or umask of this machine reaches a test."""
    for name in os.environ:
        if name.startswith("NETATMO_INGESTD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "_PLACES", (Path("config.toml"),))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def call(*arguments: str, text: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["netatmo-ingestd", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        hook, umask = sys.excepthook, os.umask(0o022)
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            sys.excepthook = hook
            os.umask(umask)
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return call


def process(*arguments: str, text: str = "", **environment: str) -> Result:
    """The command line as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def config(
    folder: Path,
    *,
    uri: str = NOWHERE,
    url: str = "http://127.0.0.1:9",
    accounts: tuple[str, ...] = ("home",),
    secret: str = SECRET,
    client_id: str = "app",
    more: str = "",
) -> str:
    """Write config.toml and give its path."""
    sections = "".join(
        f'[[accounts]]\nname = "{name}"\nclient_id = "{client_id}"\nclient_secret = "{secret}"\n'
        for name in accounts
    )
    path = folder / "config.toml"
    path.write_text(
        f'state_dir = "{folder / "state"}"\n[store]\nuri = "{uri}"\n'
        f'[netatmo]\napi_url = "{url}"\nauth_url = "{url}"\n{more}\n{sections}'
    )
    return str(path)


# --- help and misuse ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_with_an_example(command: str, run: Run) -> None:
    """Each command explains itself: a sentence, an example that begins with its name, options."""
    result = run(command, "--help")

    assert result.code == 0
    assert result.err == ""
    assert re.search(r"\n\n  [A-Z].*[.:]", result.out)
    assert re.search(rf"Examples?:\n +(mongosh .*)?netatmo-ingestd {command}", result.out)
    assert "--config FILE" in result.out
    options = re.findall(r"^  (--[a-z-]+)[^\n]*?(?:  +\S|\n {20,}\S)", result.out, re.MULTILINE)
    assert set(options) == set(re.findall(r"^  (--[a-z-]+)", result.out, re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_real(command: str, run: Run) -> None:
    """Every option that an example shows is one that the command takes."""
    text = run(command, "--help").out
    examples = re.findall(rf"netatmo-ingestd {command}(.*)", text.partition("Example")[2])
    given = {option for line in examples for option in re.findall(r"--[a-z-]+", line)}

    assert given <= set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE))
    assert examples


def test_without_arguments_the_commands_are_shown(run: Run) -> None:
    """Nothing given is a question, not a mistake."""
    result = run()

    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)


def test_the_version(run: Run) -> None:
    """--version prints name and version."""
    assert run("--version").out == f"netatmo-ingestd {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bogus",), "No such command 'bogus'. Try: netatmo-ingestd --help"),
        (("run", "--bogus"), "No such option: --bogus"),
        (("run", "extra"), "unexpected extra argument"),
        (("simulator", "--port", "99999"), "'--port'"),
        (("demo", "--speed", "fast"), "'--speed'"),
        (("demo", "--stations", "0"), "'--stations'"),
        (("login", "--account"), "--account"),
        (("login", "--add", "heating"), '--add "heating" is no product; known: weather'),
        (("login", "--paste", "--password"), "choose one of --paste, --refresh-token-stdin"),
    ],
)
def test_misuse_is_one_line_and_exit_2(run: Run, arguments: tuple[str, ...], told: str) -> None:
    """An unknown command, option or value is named, with where to look."""
    result = run(*arguments)

    assert result.code == 2
    assert told in result.line()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IngestError("x"), 1),
        (StoreUnavailable("x", reason="down"), 1),
        (ConfigError("x"), 2),
        (LoginRequired("x", account="home"), 3),
        (Busy("x"), 4),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [Busy("x")])]), 4),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """Whatever raises it, also inside a group of tasks: one line and the code of design.md 11."""

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)

    result = run("status")

    assert (result.code, result.line()) == (code, "x")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not ours is not dressed up as a message."""

    def fail(**_: Any) -> None:
        raise ExceptionGroup("tasks", [Busy("x"), ZeroDivisionError()])

    monkeypatch.setattr(cli, "app", fail)
    hook = sys.excepthook

    with pytest.raises(ExceptionGroup):
        cli.main()

    sys.excepthook = hook


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_ctrl_c_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Ctrl-C ends with 130, as shells expect, and prints nothing."""

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    result = run("run")

    assert (result.code, result.err) == (130, "")


def test_a_message_of_many_lines_becomes_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a line break in it cannot forge a second line, and no secret passes."""

    def fail(**_: Any) -> None:
        raise ConfigError(f"a\nb: {SECRET}")

    logs.REDACTOR.protect("x", [SECRET])
    monkeypatch.setattr(cli, "app", fail)

    assert run("status").line() == "a b: ***"


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["login", "run", "status", "doctor"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[store\n", "is not valid TOML"),
        (f'[[accounts]]\nclient_secrt = "{SECRET}"', 'did you mean "client_secret"'),
        (f'[[accounts]]\nclient_secret = ["{SECRET}"]', "accounts.1.client_secret: is no text"),
        ("accounts = 3", "begin each with [[accounts]]"),
        (f'[store]\nuri = "mongodb://u:{PASSWORD}/x@h"', "percent-encode"),
        ("[clock]\nspeed = 60", "a fast clock is for a simulated cloud"),
    ],
)
def test_a_mistake_in_the_settings(
    run: Run, tmp_path: Path, command: str, text: str, told: str
) -> None:
    """Every command refuses it alike: one line with the file, the place and the cure; exit 2."""
    (tmp_path / "config.toml").write_text(text)

    result = run(command)

    assert result.code == 2
    assert result.line().startswith("config.toml: ")
    assert told in result.line()


@pytest.mark.parametrize("command", ["login", "run", "status", "doctor"])
def test_a_file_that_is_not_there(run: Run, command: str) -> None:
    """A named file that is missing is told, with what to do."""
    result = run(command, "--config", "absent.toml")

    assert result.code == 2
    assert result.line() == (
        "absent.toml: no such file; copy config.example.toml there and fill it in"
    )


def test_a_file_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """$NETATMO_INGESTD_CONFIG names the file, and --config wins over it."""
    monkeypatch.setenv("NETATMO_INGESTD_CONFIG", "of-environment.toml")

    assert run("status").line().startswith("of-environment.toml: no such file")
    assert run("status", "--config", "other.toml").line().startswith("other.toml: no such file")


@pytest.mark.contract
@pytest.mark.skipif(os.getuid() != 0, reason="another user's folder needs root")
def test_a_settings_file_that_may_not_be_read(tmp_path: Path) -> None:
    """For another user, a file in a closed folder is told as such, not overlooked."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from netatmo_ingestd import cli, startup\n"
        "startup._PLACES = (Path('closed/config.toml'),)\n"
        "os.setuid(65534)\n"
        "sys.argv = ['netatmo-ingestd', 'status']\n"
        "cli.main()\n"
    )
    (tmp_path / "closed").mkdir(mode=0o700)
    config(tmp_path / "closed")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    result = Result(done.returncode, done.stdout, done.stderr)

    assert result.code == 2
    assert result.line() == "closed/config.toml: cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("command", "code"), [(("run",), 2), (("run", "--once"), 2), (("login",), 2)]
)
def test_no_accounts(run: Run, tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    """Without an account there is nothing to do, and the line says what to add."""
    path = config(tmp_path, accounts=())

    result = run(*command, "--config", path)

    assert result.code == code
    assert "accounts: none is configured; add an [[accounts]] section" in result.line()


def test_two_accounts_and_none_named(run: Run, tmp_path: Path) -> None:
    """`login` asks which one; an unknown one is told with the nearest."""
    path = config(tmp_path, accounts=("home", "garden"))

    assert "add --account home|garden" in run("login", "--config", path).line()
    unknown = run("login", "--config", path, "--account", "gardn")
    assert unknown.code == 2
    assert 'there is no "gardn"; did you mean "garden"' in unknown.line()


@pytest.mark.parametrize("command", [("run",), ("run", "--once"), ("status", "--store-uri")])
def test_no_store(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """There is no default store: the line shows both ways to write one."""
    result = run(*command, "--config", config(tmp_path, uri=""))

    assert result.code == 2
    assert result.line().startswith('store.uri: missing; write "embedded" for a store that')


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://u:{PASSWORD}@h:99999/",
        f"mongodb://u:{PASSWORD}%zz@h/",
        f"mongodb://u:{PASSWORD}:x@h/",
        f"mongodb://u:{PASSWORD}@h/?tls",
    ],
)
def test_a_store_address_that_the_driver_refuses(run: Run, tmp_path: Path, uri: str) -> None:
    """The driver's complaint becomes one line, without the password."""
    result = run("run", "--config", config(tmp_path, uri=uri))

    assert result.code == 2
    assert result.line().startswith("store.uri: ")


# --- the state folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("run",), ("run", "--once"), ("login", "--paste")])
def test_a_state_folder_that_cannot_be_written(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A path below a regular file: one line with the path, the reason and the cure; exit 2."""
    (tmp_path / "state").write_text("a file")

    result = run(*command, "--config", config(tmp_path))

    assert result.code == 2
    assert f"{tmp_path / 'state'} is not usable" in result.line()
    assert "make it writable for user" in result.line()


def test_doctor_and_status_without_a_usable_state_folder(run: Run, tmp_path: Path) -> None:
    """Doctor lists it among its findings, status says that no daemon has run: both exit 1."""
    (tmp_path / "state").write_text("a file")
    path = config(tmp_path)

    doctor = run("doctor", "--config", path)
    status = run("status", "--config", path)

    assert (doctor.code, doctor.err) == (1, "")
    assert "FAIL state_dir: " in doctor.out
    assert status.code == 1
    assert "no daemon has run here. Run: netatmo-ingestd run" in status.line()
    assert run("status", "--config", config(tmp_path, uri="embedded"), "--store-uri").code == 2


def test_a_second_daemon(run: Run, tmp_path: Path) -> None:
    """The state folder is one daemon's: the second ends with 4 and names the first."""
    path = config(tmp_path)

    with state_folder(tmp_path / "state"):
        result = run("run", "--config", path)

    assert result.code == 4
    assert f"in use by a running daemon (pid {os.getpid()}); stop it first" in result.line()


# --- status and doctor --------------------------------------------------------------------------


def report(folder: Path, **changes: Any) -> None:
    login = {"state": "ok", "error": None, "cure": ""}
    budget = {"hour": 1, "target": 400.0, "paused_for": 0, "error": ""}
    found = {
        "version": __version__, "pid": 7, "written": time.time(), "ended": False,
        "time": "2026-03-14T12:00:00+00:00", "drift": {}, "problems": {}, "modules": [],
        "accounts": {"home": {"login": login, "budget": budget, "failing": {}, "late": []}},
        "spool": {"records": 0, "fill": 0.0, "polling_paused": False, "damaged": None},
        "store": {
            "name": "h", "state": "writing", "written": 1, "rejected": 0, "revised": 0,
            "warnings": {}, "bytes": None, "bytes_per_day": None,
        },
        "troubles": [], "hints": [], "healthy": True,
    }  # fmt: skip
    (folder / "state").mkdir(exist_ok=True, mode=0o700)
    (folder / "state" / "status.json").write_text(json.dumps(found | changes))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({}, 0, "all is well"),
        ({"hints": ["store: index refused"]}, 0, "store: index refused"),
        ({"healthy": False, "troubles": ["login of home is lost"]}, 1, "login of home is lost"),
        ({"ended": True}, 1, "not running"),
        ({"written": 0}, 1, "not running"),
    ],
)
def test_status_exits_1_unless_all_is_well(
    run: Run, tmp_path: Path, changes: dict[str, Any], code: int, told: str, as_json: bool
) -> None:
    """Healthy is 0; in trouble, ended or stale is 1; in tables and in JSON alike."""
    report(tmp_path, **changes)

    with living(tmp_path / "state"):
        result = run("status", "--config", config(tmp_path), *(["--json"] if as_json else []))

    assert result.code == code
    assert result.err == ""
    if as_json:
        assert json.loads(result.out)["healthy"] is changes.get("healthy", True)
    else:
        assert told in result.out


def test_status_prints_the_address_of_the_store(run: Run, tmp_path: Path) -> None:
    """--store-uri prints it, password included, and nothing else."""
    result = run("status", "--store-uri", "--config", config(tmp_path))

    assert (result.code, result.out) == (0, f"{NOWHERE}\n")


def test_the_address_of_an_embedded_store_that_does_not_run(run: Run, tmp_path: Path) -> None:
    """It has none then: one line, with the command that starts it."""
    result = run("status", "--store-uri", "--config", config(tmp_path, uri="embedded"))

    assert result.code == 1
    assert result.line() == "store: the embedded store is not running. Run: netatmo-ingestd run"


def test_doctor_prints_the_settings(run: Run, tmp_path: Path) -> None:
    """Every option with its origin, as a table and as JSON, and nothing is tried."""
    config(tmp_path)

    table, lines = run("doctor", "--settings"), run("doctor", "--settings", "--json")

    assert (table.code, lines.code) == (0, 0)
    assert "history.since" in table.out
    assert {"key": "history.since", "value": "all", "from": "default"} in json.loads(lines.out)


@pytest.mark.parametrize("as_json", [False, True])
def test_doctor_exits_1_when_something_fails(run: Run, tmp_path: Path, as_json: bool) -> None:
    """An unreachable MongoDB is a finding with a cure, without the password."""
    path = config(tmp_path)

    result = run("doctor", "--config", path, *(["--json"] if as_json else []))

    assert result.code == 1
    assert result.err == ""
    assert "canary" not in result.out
    if as_json:
        found = json.loads(result.out)
        assert all(set(each) == {"name", "verdict", "text", "cure"} for each in found)
        (store,) = [each for each in found if each["name"] == "store"]
        assert store["verdict"] == "bad"
        assert store["cure"].startswith("start MongoDB")
    else:
        assert re.search(r"FAIL store: 127\.0\.0\.1:1.*\n +→ start MongoDB", result.out)


# --- login --------------------------------------------------------------------------------------


def taken_port() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def test_login_with_a_port_in_use(run: Run, tmp_path: Path) -> None:
    """The line names the port and the setting; exit 4."""
    with taken_port() as taken:
        port = taken.getsockname()[1]
        path = config(tmp_path, more=f"[login]\nport = {port}")

        result = run("login", "--config", path)

    assert result.code == 4
    assert f"login.port: port {port} of 127.0.0.1 cannot be opened" in result.line()


def test_a_simulator_with_a_port_in_use(run: Run) -> None:
    """The line names the port and what to do; exit 4."""
    with taken_port() as taken:
        port = taken.getsockname()[1]

        result = run("simulator", "--port", str(port))

    assert result.code == 4
    assert result.line().startswith(f"simulator: port {port} on 127.0.0.1 is in use")
    assert "--port 0" in result.line()


@pytest.mark.parametrize("way", ["--paste", "--password"])
def test_login_without_a_terminal(run: Run, tmp_path: Path, way: str) -> None:
    """When standard input ends before an answer, the line says so."""
    result = run("login", way, "--config", config(tmp_path))

    assert result.code == 2
    assert "login: standard input ended before an answer" in result.err
    assert "Traceback" not in result.err


def test_login_without_a_client_id(run: Run, tmp_path: Path) -> None:
    """The key that is missing is named before anything is asked."""
    result = run("login", "--config", config(tmp_path, client_id=""))

    assert result.code == 2
    assert result.line().startswith("accounts.home.client_id: missing; copy it from")


def test_login_while_the_cloud_is_away(run: Run, tmp_path: Path) -> None:
    """No answer is no refusal: exit 1, and no token in the line."""
    path = config(tmp_path)

    result = run("login", "--refresh-token-stdin", "--config", path, text="canary|refresh\n")

    assert result.code == 1
    assert "http://127.0.0.1:9" in result.line()


@pytest.mark.parametrize("text", ["", "\n", "abc\n", "two words\n"])
def test_a_refresh_token_that_is_none(run: Run, tmp_path: Path, text: str) -> None:
    """What cannot be a token is refused before it is sent."""
    result = run("login", "--refresh-token-stdin", "--config", config(tmp_path), text=text)

    assert result.code == 2
    assert result.line().startswith("refresh token: ")


# --- with a simulated cloud ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud() -> Iterator[dict[str, Any]]:
    """What a simulator said at its start; it runs while the module's tests do."""
    simulator = subprocess.Popen(
        [*COMMAND, "simulator", "--port", "0", "--speed", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert simulator.stdout is not None
    assert simulator.stderr is not None
    try:
        assert select.select([simulator.stdout], [], [], 30)[0], "the simulator says nothing"
        yield json.loads(simulator.stdout.readline())
    finally:
        simulator.terminate()
        simulator.wait(10)
        simulator.stdout.close()
        simulator.stderr.close()


def config_of(folder: Path, cloud: dict[str, Any], **changes: Any) -> str:
    more = f"[clock]\norigin = {cloud['origin']!r}\nspeed = {cloud['speed']!r}"
    return config(
        folder,
        **{
            "url": cloud["url"],
            "client_id": cloud["client_id"],
            "secret": cloud["client_secret"],
            "more": more,
            **changes,
        },
    )


def fresh_token(cloud: dict[str, Any]) -> str:
    """A refresh token of a login of its own: the ready-made one works once."""
    consent = f"{cloud['url']}/oauth2/authorize"
    callback = "http://localhost:8735/callback"
    asked = {
        "client_id": cloud["client_id"], "response_type": "code", "redirect_uri": callback,
        "scope": "read_station", "state": "x", "user": cloud["user"],
        "password": cloud["password"], "decision": "allow",
    }  # fmt: skip
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(_redirected(consent, asked)).query)["code"]
    form = {
        "grant_type": "authorization_code", "code": code[0], "redirect_uri": callback,
        "client_id": cloud["client_id"], "client_secret": cloud["client_secret"],
        "scope": "read_station",
    }  # fmt: skip
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"{cloud['url']}/oauth2/token", data) as answer:
        return str(json.load(answer)["refresh_token"])


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _redirected(url: str, form: dict[str, str]) -> str:
    """Where the consent page sends the browser."""
    opener = urllib.request.build_opener(_Stay)
    try:
        opener.open(url, urllib.parse.urlencode(form).encode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers["Location"])
    raise AssertionError("no redirect")


@pytest.mark.contract
def test_a_login_and_its_second_use(run: Run, tmp_path: Path, cloud: dict[str, Any]) -> None:
    """A good refresh token logs in; a token that the cloud refuses is exit 3 with the cure."""
    path = config_of(tmp_path, cloud)
    done = run("login", "--refresh-token-stdin", "--config", path, text=f"{fresh_token(cloud)}\n")
    assert (done.code, done.err.count("\n")) == (0, 1)  # one log line, login.saved
    assert "Logged in as account home; scopes: read_station." in done.out

    refused = run("login", "--refresh-token-stdin", "--config", path, text="canary|refused\n")

    assert refused.code == 3
    assert 'refused with "invalid_grant"' in refused.line()
    assert "netatmo-ingestd login --account home" in refused.line()


def test_a_wrong_client_secret(run: Run, tmp_path: Path, cloud: dict[str, Any]) -> None:
    """The line says to compare id and secret with the app's page; exit 2; it shows neither."""
    path = config_of(tmp_path, cloud, secret=SECRET)

    result = run("login", "--refresh-token-stdin", "--config", path, text="canary|refresh\n")

    assert result.code == 2
    assert 'refused with "invalid_client"' in result.line()
    assert "check client_id and client_secret against the app's page" in result.line()


class Terminal:
    """`login --paste` as a process; `address` is the consent page it shows."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "login", "--paste", "--config", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.address = self._process.stdout.readline().strip()

    @property
    def asked(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.address).query))

    def answer(self, text: str) -> Result:
        out, err = self._process.communicate(f"{text}\n", timeout=30)
        return Result(self._process.returncode, out, err)

    def interrupt(self) -> Result:
        assert self._process.stdout is not None
        shown = ""
        while not shown.endswith("Address: "):
            shown += self._process.stdout.read(1)
        code = None
        for _ in range(4):  # one that comes just before the read begins is only seen after it
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(3)
                break
        assert code is not None, "it still waits for an answer"
        assert self._process.stderr is not None
        err = self._process.stderr.read()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return Result(code, "", err)


@pytest.mark.contract
def test_pasting_the_address_logs_in(tmp_path: Path, cloud: dict[str, Any]) -> None:
    """The address of the page that failed to load is enough."""
    terminal = Terminal(config_of(tmp_path, cloud))
    accepted = {
        **terminal.asked,
        "user": cloud["user"],
        "password": cloud["password"],
        "decision": "allow",
    }

    result = terminal.answer(_redirected(f"{cloud['url']}/oauth2/authorize", accepted))

    assert result.code == 0
    assert "Logged in as account home" in result.out
    assert "code=" not in result.err


@pytest.mark.contract
def test_a_denied_consent(tmp_path: Path, cloud: dict[str, Any]) -> None:
    """“No” on the consent page: one line that says what to press; exit 3."""
    terminal = Terminal(config_of(tmp_path, cloud))
    denied = {**terminal.asked, "decision": "deny"}

    result = terminal.answer(_redirected(f"{cloud['url']}/oauth2/authorize", denied))

    assert result.code == 3
    assert 'refused with "access_denied"' in result.line()
    assert "Yes, I accept" in result.line()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://localhost:8735/callback?state=other&code=canary", "belongs to another login"),
        ("http://localhost:8735/callback?code=canary", "belongs to another login"),
        ("http://localhost:8735/callback", "there is no code in this address"),
        ("", "there is no code in this address"),
    ],
)
def test_a_wrong_state(
    run: Run, tmp_path: Path, cloud: dict[str, Any], address: str, told: str
) -> None:
    """An address of another login, or none at all, is refused before anything is sent; exit 3."""
    path = config_of(tmp_path, cloud)

    result = run("login", "--paste", "--config", path, text=f"{address}\n")

    assert result.code == 3
    assert told in result.line()


@pytest.mark.contract
def test_ctrl_c_ends_the_waiting_for_an_answer(tmp_path: Path, cloud: dict[str, Any]) -> None:
    """At the prompt Ctrl-C ends it, no Enter is needed: with 130 and without a traceback."""
    result = Terminal(config_of(tmp_path, cloud)).interrupt()

    assert result.code == 130
    assert result.err.strip() == ""


def test_once_without_a_login(run: Run, tmp_path: Path, cloud: dict[str, Any]) -> None:
    """`run --once` ends with 3 when a login is all that is missing, and names the command."""
    result = run("run", "--once", "--config", config_of(tmp_path, cloud))

    assert result.code == 3
    told = [line for line in result.err.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert "netatmo-ingestd login --account home" in told[0]


def text_of(folder: Path) -> str:
    """The daemon's last report, "" before the first."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "state" / "status.json").read_text()
    return ""


@pytest.mark.faults
def test_a_daemon_without_mongodb(tmp_path: Path, cloud: dict[str, Any]) -> None:
    """It starts and polls; log, status and doctor say what is wrong; SIGTERM ends it with 0."""
    path = config_of(tmp_path, cloud)
    token = f"{fresh_token(cloud)}\n"
    assert process("login", "--refresh-token-stdin", "--config", path, text=token).code == 0
    daemon = subprocess.Popen(
        [*COMMAND, "run", "--config", path],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        asyncio.run(until(lambda: '"state": "down"' in text_of(tmp_path), within=30))
        said = process("status", "--config", path).out
        status = process("status", "--config", path, "--json")
        second = process("run", "--config", path)
        doctor = process("doctor", "--config", path, "--json")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.send_signal(signal.SIGINT)
        out, err = daemon.communicate(timeout=60)

    assert "! store is down (down: 127.0.0.1:1" in said
    assert status.code == 1
    assert json.loads(status.out)["spool"]["records"] > 0
    assert second.code == 4
    assert f"pid {daemon.pid}" in second.line()
    (store,) = [
        each["text"]
        for each in json.loads(doctor.out)
        if each["name"] == "daemon says" and "store" in each["text"]
    ]
    assert "records wait" in store
    assert (daemon.returncode, out) == (0, "")
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "daemon.started"
    assert events[-1] == "daemon.stopped"
    for text in (err, said, status.out, doctor.out):
        assert "canary" not in text
        assert cloud["client_secret"] not in text


# --- without the extra --------------------------------------------------------------------------


@pytest.fixture
def without_extra(tmp_path: Path) -> dict[str, str]:
    """An interpreter in which `secantus` is not installed."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['secantus'] = None\n"
    )
    return {"PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{ROOT}"}


@pytest.mark.contract
@pytest.mark.parametrize("command", [("run",), ("demo", "--seconds", "5")])
def test_the_extra_is_not_installed(
    tmp_path: Path, without_extra: dict[str, str], command: tuple[str, ...]
) -> None:
    """The line names the very command that installs it; exit 2."""
    config(tmp_path, uri="embedded")

    result = process(*command, **without_extra)

    assert result.code == 2
    assert result.line() == (
        'store.uri: "embedded" needs a package that is not installed. '
        "Run: pip install 'netatmo-ingestd[embedded]'"
    )


@pytest.mark.contract
def test_doctor_without_the_extra(tmp_path: Path, without_extra: dict[str, str]) -> None:
    """Doctor says what is missing, and does not advise to start a MongoDB."""
    config(tmp_path, uri="embedded")

    found = json.loads(process("doctor", "--json", **without_extra).out)

    (store,) = [each for each in found if each["name"] == "store"]
    assert "pip install 'netatmo-ingestd[embedded]'" in store["text"]
    assert "start MongoDB" not in store["cure"]


# --- processes ----------------------------------------------------------------------------------


@pytest.mark.contract
def test_a_closed_pipe_is_no_traceback(run: Run, tmp_path: Path) -> None:
    """`status --json | head -0` ends quietly."""
    report(tmp_path, drift={f"kind {n}": 1 for n in range(20_000)})
    config(tmp_path)
    asked = subprocess.Popen(
        [*COMMAND, "status", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert asked.stdout is not None
    assert asked.stderr is not None

    asked.stdout.close()
    with asked.stderr as stream:
        err = stream.read()

    assert asked.wait(30) == 1
    assert "Traceback" not in err


@pytest.mark.contract
def test_what_the_daemon_writes_is_its_own(tmp_path: Path, cloud: dict[str, Any]) -> None:
    """Every file in the state folder is closed to others, whatever the umask of the caller."""
    path = config_of(tmp_path, cloud)
    process("login", "--refresh-token-stdin", "--config", path, text=f"{fresh_token(cloud)}\n")

    places = [tmp_path / "state", *(tmp_path / "state").rglob("*")]

    assert len(places) > 4
    assert [each for each in places if each.stat().st_mode & 0o077] == []


@pytest.mark.contract
def test_a_demo_of_some_seconds(tmp_path: Path) -> None:
    """The demo stores rows, compares them with the cloud, and ends with 0 and one JSON line."""
    require_extra()

    result = process("demo", "--seconds", "4", "--json")

    assert result.code == 0, result.err
    told = json.loads(result.out.splitlines()[-1])
    assert told["measurements"] > 1000
    assert (told["missing"], told["duplicates"], told["different"], told["unexpected"]) == (
        0, 0, 0, 0,
    )  # fmt: skip
    assert result.err == ""


def test_a_demo_whose_folder_cannot_be(tmp_path: Path, run: Run) -> None:
    """--state-dir below a regular file is one line; exit 2."""
    (tmp_path / "file").write_text("")

    result = run("demo", "--seconds", "5", "--state-dir", str(tmp_path / "file" / "demo"))

    assert result.code == 2
    assert result.line().startswith("--state-dir: ")
    assert os.strerror(errno.ENOTDIR) in result.line()


def test_no_command_leaves_a_loop_behind(run: Run, tmp_path: Path) -> None:
    """After a command in this process no event loop is set or running."""
    run("doctor", "--config", config(tmp_path))

    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
