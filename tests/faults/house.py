"""A house of real processes: a simulated cloud, the daemon, a store; and what must hold in the end.

    with opened(tmp_path, speed=2000) as house:
        house.start()
        house.kill()
        house.start()
        invariant(house)

The world of the simulator is a function of its seed, so every row is computed again here and
compared with the store value by value. Each process is ended by its own pid when the block ends,
failed or not. Everything here blocks; each wait is for a condition and has a limit.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from netatmo_ingestd.clock import Clock
from netatmo_ingestd.embedded import running_uri
from netatmo_ingestd.simulator.household import Wanted
from netatmo_ingestd.simulator.scenario import read_scenario
from netatmo_ingestd.simulator.world import World
from netatmo_ingestd.sources.quantities import UPSTREAM
from tests.stores import alive, require_extra

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST_REACH_S = 3.5 * 86_400  # of the first trailing read after a start
SLOW = 3.0 if os.environ.get("CI") else 1.0  # limits are for a machine that has two cores idle

Config = dict[str, Any]


def until(
    condition: Callable[[], object],
    *,
    within: float,
    what: str,
    house: House | None = None,
    every: float = 0.05,
) -> None:
    """Wait until `condition()` is true; fail after `within` seconds, with the log of `house`."""
    limit = time.monotonic() + within * SLOW
    while not condition():
        if time.monotonic() > limit:
            log = f"\n{house.counted()}\n{house.tail()}" if house else ""
            pytest.fail(f"not within {within:g} s: {what}{log}")
        time.sleep(every)


def tell(text: str) -> None:
    """Figures of a run; pytest shows them with -s or -rP, and when the test fails."""
    sys.stdout.write(f"{text}\n")


# --- processes ----------------------------------------------------------------------------------


def command(*arguments: str, module: str = "netatmo_ingestd") -> list[str]:
    """The command line of a child; when coverage is measured here, it is measured there too."""
    measured: list[str] = []
    if "coverage" in sys.modules:
        current = sys.modules["coverage"].Coverage.current()
        if current is not None:
            data = str(Path(str(current.get_option("run:data_file"))).resolve())
            rc = str(CHECKOUT / "pyproject.toml")
            measured = ["-m", "coverage", "run", "-p", f"--rcfile={rc}", f"--data-file={data}"]
    return [sys.executable, *measured, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Ours without the daemon's own variables, so that only the written settings count."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("NETATMO_")}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


class Child:
    """A process of ours with its output in a file, or on a pipe (`lines`)."""

    def __init__(self, arguments: Sequence[str], said: Path, *, piped: bool = False) -> None:
        with said.open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                env=environment(),
                cwd=CHECKOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within: float) -> int:
        """Its exit code; fails when it runs on."""
        try:
            return self.process.wait(within * SLOW)
        except subprocess.TimeoutExpired:
            pytest.fail(f"process {self.pid} still runs after {within:g} s")

    def first_line(self, within: float = 30.0) -> str:
        """What it prints first on its pipe."""
        out = self.process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], within * SLOW)
        return out.readline().decode() if ready else ""

    def end(self) -> None:
        """By its pid, at once; also when it is frozen."""
        if self.alive:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def memory_mib(self) -> float:
        """Resident memory."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def _usual(flags: Sequence[str]) -> tuple[Wanted, ...]:
    """What `--products` puts into the home of the first station."""
    named = dict(pairwise(flags)).get("--products")
    return (Wanted(tuple(named.split(","))),) if named else ()


class Cloud:
    """The simulator as a process of its own, and its control routes."""

    def __init__(self, folder: Path, *flags: str, days: int) -> None:
        arguments = command(
            *("--port", "0", "--days", str(days), *flags), module="netatmo_ingestd.simulator"
        )
        self.child = Child(arguments, folder / "simulator.log", piped=True)
        try:
            self.greeting: dict[str, Any] = json.loads(self.child.first_line())
        except ValueError:
            self.child.end()
            pytest.fail(f"the simulator said: {(folder / 'simulator.log').read_text()[-2000:]}")
        self.url: str = self.greeting["url"]
        self.clock = Clock(self.greeting["origin"], self.greeting["speed"])
        self.accounts: list[dict[str, Any]] = self.greeting["accounts"]
        scenario = dict(pairwise(flags)).get("--scenario")
        self.world = World(
            self.greeting["seed"],
            self.greeting["stations"],
            origin=self.greeting["origin"],
            days=days,
            coaches=sum(len(account["coaches"]) for account in self.accounts),
            households=read_scenario(Path(scenario)) if scenario else _usual(flags),
        )

    def ask(self, method: str, route: str, body: Any = None) -> Any:
        """A control route; returns its JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/simulator/{route}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "stats")
        return found

    def calls(self) -> int:
        """Data calls so far; token calls and the consent page aside."""
        counts = self.stats()["by_endpoint"]
        return sum(count for name, count in counts.items() if name not in ("token", "authorize"))

    def refreshes(self) -> int:
        return int(self.stats()["token"]["refreshes"])

    def arm(self, kind: str, **more: Any) -> None:
        self.ask("POST", "faults", {"kind": kind, **more})

    def disarm(self) -> None:
        self.ask("DELETE", "faults")

    def hits(self, kind: str) -> int:
        """How many requests met the armed faults of `kind`."""
        armed = self.ask("GET", "faults")["armed"]
        return sum(fault["hits"] for fault in armed if fault["kind"] == kind)

    def redirect_of(self, page: str) -> str:
        """Where the consent page sends the browser."""
        address = urllib.parse.urlsplit(page)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.request("GET", f"{address.path}?{address.query}")
            return str(connection.getresponse().headers["Location"])
        finally:
            connection.close()

    def accepts(self, refresh_token: str) -> bool:
        query = urllib.parse.urlencode({"refresh_token": refresh_token})
        return bool(self.ask("GET", f"token?{query}")["accepted"])

    def current_token(self, account: int = 0) -> str:
        """A refresh token of this account that is good now, as the portal would make one."""
        everyone = self.ask("GET", "world")["accounts"]
        return str(everyone[account]["current"][-1])


# --- the house ----------------------------------------------------------------------------------


@dataclass
class Comparison:
    """The store against the world, row by row; each list names rows.

    expected    rows that had to be there, `stored` those that are (from `begin` on)
    unexpected  stored, never measured by the world
    """

    expected: int = 0
    stored: int = 0
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What is wrong, at most ten rows of each kind; empty when all is well."""
        kinds = ("missing", "twice", "different", "unexpected")
        found = {kind: getattr(self, kind) for kind in kinds}
        return {kind: [f"{len(rows)} in all", *rows[:10]] for kind, rows in found.items() if rows}


class House:
    """See the module's text. `since`: every row from then on has to be in the store."""

    def __init__(
        self, folder: Path, cloud: Cloud, config: Config, *, accounts: Sequence[Config]
    ) -> None:
        self.folder = folder
        self.cloud = cloud
        self.state = folder / "state"
        self.log = folder / "daemon.log"
        self.config = folder / "config.toml"
        self.settings = config
        self.accounts = [dict(each) for each in accounts]
        self.daemon: Child | None = None
        self.since = 0.0
        self._starts = 0
        self.others: list[Child] = []
        self.canaries: set[str] = set()
        self.write_config()

    @property
    def now(self) -> float:
        """Simulated epoch seconds."""
        return self.cloud.clock.time()

    @property
    def running(self) -> Child:
        assert self.daemon is not None
        return self.daemon

    def write_config(self, **sections: Config) -> None:
        """The settings file; `sections` change what the house was opened with."""
        for name, section in sections.items():
            self.settings[name] = {**self.settings.get(name, {}), **section}
        lines = [f"state_dir = {json.dumps(str(self.state))}"]
        for name, section in self.settings.items():
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
        for account in self.accounts:
            lines += ["", "[[accounts]]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in account.items()]
        self.config.touch(mode=0o600)
        self.config.write_text("\n".join(lines) + "\n")

    # --- commands -------------------------------------------------------------------------------

    def run(
        self, *arguments: str, feed: str = "", within: float = 40.0
    ) -> subprocess.CompletedProcess[str]:
        """One command with our settings, to its end."""
        return subprocess.run(
            command(*arguments, "--config", str(self.config)),
            input=feed,
            capture_output=True,
            text=True,
            timeout=within * SLOW,
            env=environment(),
            cwd=CHECKOUT,
            check=False,
        )

    def login(self, number: int = 0, token: str | None = None) -> None:
        """Log an account in with a refresh token, as a person would."""
        name = self.accounts[number]["name"]
        feed = token or self.cloud.accounts[number]["refresh_token"]
        done = self.run("login", "--account", name, "--refresh-token-stdin", feed=f"{feed}\n")
        assert done.returncode == 0, done.stderr
        assert "Logged in" in done.stdout

    def login_by_consent(self, number: int = 0) -> None:
        """Log an account in through the consent page, pasting the address it leads to."""
        name, user = self.accounts[number]["name"], self.cloud.accounts[number]["user"]
        self.cloud.ask("POST", "settings", {"auto_consent": True})
        said = self.folder / "login.log"
        arguments = command("login", "--account", name, "--paste", "--config", str(self.config))
        with said.open("wb") as out:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=environment(),
                cwd=CHECKOUT,
            )
        try:
            shown = re.compile(rf"^{re.escape(self.cloud.url)}\S+$", re.MULTILINE)
            until(
                lambda: shown.search(said.read_text()),
                within=30,
                what="the command prints where to log in",
                house=self,
            )
            page = shown.findall(said.read_text())[0]
            address = self.cloud.redirect_of(f"{page}&user={urllib.parse.quote(user)}")
            process.communicate(f"{address}\n".encode(), timeout=30 * SLOW)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        assert process.returncode == 0, said.read_text()

    def start(self, *, ready: bool = True) -> Child:
        """Start the daemon; `ready`: return when it says that it runs."""
        self._starts = len(self.events("daemon.started"))
        self.daemon = Child(command("run", "--config", str(self.config)), self.log)
        if ready:
            until(self.ready, within=30, what="the daemon starts")
        return self.daemon

    def ready(self) -> bool:
        """Whether the daemon said that it runs since its last start; fails when it ended."""
        assert self.running.alive, self.tail()
        return len(self.events("daemon.started")) > self._starts

    def kill(self) -> None:
        """As a power supply would: nothing of it runs afterwards, its store neither."""
        daemon, store = self.running, self.store_pid()
        daemon.process.kill()
        daemon.process.wait()
        if store:
            self._see_off(store)

    def stop(self, within: float = 55.0) -> int:
        """SIGTERM; its exit code."""
        self.running.signal(signal.SIGTERM)
        return self.running.wait(within)

    def close(self) -> None:
        """End whatever runs, by its pid."""
        for child in (self.daemon, *self.others, self.cloud.child):
            if child is None:
                continue
            store = self.store_pid() if child is self.daemon else 0
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
            child.end()
            if store:
                self._see_off(store)

    def _see_off(self, store: int) -> None:
        """The embedded store ends by itself with its owner, or is made to."""
        limit = time.monotonic() + 20
        while alive(store) and time.monotonic() < limit:
            time.sleep(0.02)
        if alive(store):
            os.kill(store, signal.SIGKILL)

    # --- looking --------------------------------------------------------------------------------

    def store_pid(self) -> int:
        """The embedded store's process, 0 when none runs."""
        try:
            note = json.loads((self.state / "store" / "running.json").read_text())
        except (OSError, ValueError):
            return 0
        pid = int(note["pid"])
        mine = self.daemon is not None and note["owner"] == self.daemon.pid
        return pid if mine and alive(pid) else 0

    def status(self) -> dict[str, Any]:
        """The daemon's own report, at most some seconds old."""
        try:
            found: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if self.daemon and found.get("pid") == self.daemon.pid else {}

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The daemon's log lines, all of them or those of one event."""
        found = []
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and name in ("", event.get("event")):
                    found.append(event)
        return found

    def counted(self) -> dict[str, int]:
        """How often each event stands in the log."""
        return dict(Counter(str(event.get("event")) for event in self.events()))

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def token(self, number: int = 0) -> dict[str, Any]:
        """The login on disk."""
        file = self.state / "tokens" / self.accounts[number]["name"] / "token.json"
        token: dict[str, Any] = json.loads(file.read_text())["token"]
        self.canaries |= {token["access"], token["refresh"], token["previous_refresh"]}
        return token

    def login_left(self, number: int = 0) -> bool:
        """Of a daemon that was killed: whether what is on disk holds a token that is good.

        A save that was cut off between fsync and rename counts: the next start finishes it.
        """
        file = self.state / "tokens" / self.accounts[number]["name"] / "token.json"
        tokens = []
        for path in (file, file.with_name("token.json.next")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                text = path.read_bytes().partition(b"\n")[0]
                tokens.append(str(json.loads(text)["token"]["refresh"]))
        return any(self.cloud.accepts(token) for token in tokens)

    def login_lives(self) -> bool:
        """Whether the cloud accepts the refresh token on disk, of every account."""
        numbers = range(len(self.accounts))
        return all(self.cloud.accepts(self.token(number)["refresh"]) for number in numbers)

    # --- the store ------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        uri = str(self.settings["store"]["uri"])
        return (running_uri(self.state / "store") or "") if uri == "embedded" else uri

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        """The daemon's database through a client of our own; PyMongoError while it is down."""
        uri = self.uri
        if not uri:
            raise PyMongoError("the embedded store does not run")
        client: Any = pymongo.MongoClient(
            uri,
            tz_aware=True,
            tzinfo=UTC,
            serverSelectionTimeoutMS=3000,
            connectTimeoutMS=3000,
            socketTimeoutMS=30_000,
        )
        try:
            yield client[self.settings["store"].get("database", "netatmo")]
        finally:
            client.close()

    def coverage(self, scale: str = "max") -> dict[str, dict[str, Any]]:
        """The ledger's documents by module; empty while the store is down."""
        with contextlib.suppress(PyMongoError), self.database() as database:
            found = database["coverage"].find({"_id": {"$ne": "_barrier"}})
            return {each["entity_id"]: each for each in found if each["scale"] == scale}
        return {}

    def modules(self) -> list[str]:
        """Ids of the modules that have to be in the store: all, or those that `include` names."""
        names = set(self.accounts[0].get("include", ()))
        world = self.cloud.world
        return [
            module.id
            for module in world.modules()
            if not names or {module.name, world.station_of(module).home_name} & names
        ]

    def covered_since(self, moment: float, modules: Sequence[str] | None = None) -> bool:
        """Whether every module (of `modules`) was read, and that stored, after `moment`."""
        asked = {
            module: document["asked"].timestamp() for module, document in self.coverage().items()
        }
        return all(asked.get(module, 0.0) > moment for module in modules or self.modules())

    def settle(self, within: float = 60.0, modules: Sequence[str] | None = None) -> float:
        """Wait until whatever is visible now must be stored; that moment (simulated)."""
        moment = self.now
        until(
            lambda: self.covered_since(moment, modules),
            within=within,
            what=f"each module's rows up to {iso(moment)} are stored",
            house=self,
            every=0.2,
        )
        return moment

    def mark(self, within: float = 60.0) -> None:
        """Each module was read once by now: from its reach on, every row has to be stored."""
        self.settle(within)
        self.since = self.now - FIRST_REACH_S

    def compare(self, until_moment: float) -> Comparison:
        """Everything visible at `until_moment` is in the store, once, with each of its values."""
        result = Comparison()
        world = self.cloud.world
        with self.database() as database:
            for module_id in self.modules():
                stored: dict[int, list[dict[str, Any]]] = {}
                rows = database["measurements"].find({"module_id": module_id})
                for row in rows:
                    stored.setdefault(int(row["time"].timestamp()), []).append(row)
                begin = min([self.since, *stored])
                shown = dict(world.samples(module_id, begin, self.now, visible_at=self.now))
                due = world.samples(module_id, self.since, until_moment, visible_at=until_moment)
                _compare_rows(result, module_id, stored, shown, [at for at, _ in due])
        return result

    def check_secrets(self) -> None:
        """No token, client secret, password or mail address in any output or document."""
        for number, account in enumerate(self.cloud.accounts):
            self.canaries |= {account[key] for key in ("client_secret", "password", "user")}
            self.canaries.add(account["refresh_token"])
            with contextlib.suppress(OSError, ValueError):
                self.token(number)
        password = self.state / "store" / "password"
        if password.exists():
            self.canaries.add(password.read_text())
        self.canaries.discard("")
        for file in (self.log, self.state / "status.json"):
            if file.exists():
                assert_clean(file.read_text(errors="replace"), self.canaries, str(file.name))


def _compare_rows(
    result: Comparison,
    module_id: str,
    stored: Mapping[int, Sequence[Mapping[str, Any]]],
    shown: Mapping[int, Mapping[str, Any]],
    due: Sequence[int],
) -> None:
    result.expected += len(due)
    # A dashboard may have told a part of a younger row; the next read brings the rest.
    horizon = max(due, default=0)
    for at, rows in stored.items():
        result.stored += len(rows)
        name = f"{module_id}|{at}"
        if len(rows) > 1:
            result.twice.append(name)
        if at not in shown:
            result.unexpected.append(name)
        elif at <= horizon and (wrong := _differences(rows[0]["values"], shown[at])):
            result.different.append(f"{name}: {wrong}")
    result.missing += [f"{module_id}|{at}" for at in due if at not in stored]


def _differences(stored: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Each value of the world is there, and nothing else; calm wind has no angle."""
    wanted = {
        UPSTREAM[name.lower()]: float(value)
        for name, value in shown.items()
        if not (name == "WindAngle" and value < 0)
    }
    # Only a dashboard tells these; of the index it has to be the one of that moment.
    found = {name: value for name, value in stored.items() if name != "absolute_pressure"}
    index = wanted.pop("health_index", None)
    if found.get("health_index") == index:
        found.pop("health_index", None)
    return "" if found == wanted else f"stored {found}, shown {wanted}"


TOKEN = re.compile(r"[0-9a-f]{24}(?:\||%7C)[0-9a-f]{32}", re.IGNORECASE)
"""What every token of the simulator looks like, and of the real cloud."""


def assert_clean(text: str, canaries: set[str], where: str) -> None:
    """No canary in `text`, and nothing that has the form of a token."""
    for canary in canaries:
        assert canary not in text, f"{where}: holds the secret {canary[:6]}…"
    found = TOKEN.search(text)
    assert found is None, f"{where}: holds a token at {found.start() if found else 0}"


@contextlib.contextmanager
def opened(
    folder: Path,
    *,
    speed: float,
    stations: int = 1,
    accounts: int = 1,
    days: int = 30,
    cloud_flags: Sequence[str] = (),
    uri: str = "embedded",
    login: bool = True,
    account: Config | None = None,
    **sections: Config,
) -> Iterator[House]:
    """Cloud and settings, logged in; the daemon is started by the test. Ends all processes.

    days      history before the start; a start reads at most 3.5 days of it
    account   further keys of each [[accounts]] section
    sections  further sections of the settings; without `history` older rows are left alone
    """
    require_extra()
    cloud = Cloud(
        folder,
        *("--speed", str(speed), "--stations", str(stations), "--accounts", str(accounts)),
        *cloud_flags,
        days=days,
    )
    config: Config = {
        "store": {"uri": uri},
        "netatmo": {"api_url": cloud.url, "auth_url": cloud.url},
        "clock": {"origin": cloud.clock.origin, "speed": cloud.clock.speed},
        "log": {"level": "info", "format": "json"},
        "history": {"since": "never"},
        **sections,
    }
    logins = [
        {
            "name": f"home{number + 1}",
            "client_id": each["client_id"],
            "client_secret": each["client_secret"],
            **(account or {}),
        }
        for number, each in enumerate(cloud.accounts)
    ]
    house = House(folder, cloud, config, accounts=logins)
    try:
        if login:
            for number in range(accounts):
                house.login(number)
        yield house
    finally:
        house.close()


def invariant(
    house: House,
    *,
    dead_letters: int = 0,
    over_limit: int = 0,
    within: float = 60.0,
    settled: float | None = None,
) -> Comparison:
    """What must hold once the faults are over, whatever they were; the daemon runs.

    settled  what `house.settle` gave before; without it that is waited for, up to `within`

    Each row the cloud showed since `house.since` is stored once, value by value, and nothing
    else; the ledger has no gap; the login on disk is one the cloud accepts; no limit was
    exceeded, no token went elsewhere, no secret was told.
    """
    assert house.running.alive, house.tail()
    moment = house.settle(within) if settled is None else settled
    compared = house.compare(moment)
    assert not compared.faults, compared.faults
    assert compared.expected > 0
    for module_id, document in house.coverage().items():
        spans = [[each.timestamp() for each in span] for span in document["covered"]]
        gaps = [span for span in spans if span[1] > house.since]
        assert len(gaps) == 1, f"{module_id} is covered in pieces: {document['covered']}"
        assert gaps[0][0] <= house.since, f"{module_id} is covered from {document['covered']}"
    with house.database() as database:
        assert database["dead_letters"].count_documents({}) == dead_letters
    # A token may be replaced between the two looks.
    until(house.login_lives, within=10, what="the cloud accepts each refresh token on disk")
    stats = house.cloud.stats()
    assert stats["over_limit"] == over_limit, stats["windows"]
    assert stats["tokens_leaked"] == 0
    assert stats["redirects_followed"] == 0
    house.check_secrets()
    return compared


def iso(moment: float) -> str:
    """Simulated epoch seconds, for people."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
