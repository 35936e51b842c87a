"""The rules of the house: who imports whom, documents that match the code."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from netatmo_ingestd import cli, config, logs
from netatmo_ingestd.sources.quantities import UNITS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "netatmo_ingestd"

# Downwards only: a file imports from lines below its own.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"cli_login"},
    {"startup"},
    {"demo", "backfill", "verify", "logout"},
    {"terminal"},
    {"doctor"},
    {"daemon"},
    {"web"},
    {"build"},
    {"status", "process"},
    {"poller", "retention"},
    {"events", "failures", "history", "writer", "login"},
    {"account"},
    {"intake", "client"},
    {"memory"},
    {"embedded_server"},
    {"plan"},
    {"changes", "embedded", "mongo", "spool", "answers", "bulks"},
    {"sources"},
    {"oauth"},
    {"tokenfile", "grants", "limits", "ledger", "upserts", "coverages"},
    {"bodies", "purse"},
    {"config"},
    {"records", "settings", "intervals", "polls"},
    {"providers", "standing", "logs", "clock", "waits", "area"},
    {"models", "errors", "__init__"},
)
ROOMS = ("web", "settings", "events")
FILES = sorted(PACKAGE.glob("*.py")) + [
    path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py"))
]
# One library, one file.
HOMES = {
    "motor": {"mongo"},
    "apscheduler": {"poller"},
    "sqlite3": {"spool", "doctor"},
    "authlib": {"grants", "login"},
    "httpx": {"bodies", "client", "grants", "oauth", "login", "build", "pictures"},
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def test_imports_point_downwards() -> None:
    """No file of the package imports one that stands above it."""
    wrong = []
    for path in FILES:
        name = path.stem if path.parent == PACKAGE else path.parent.name
        for module in _imports(path):
            parts = module.split(".")
            if parts[0] != "netatmo_ingestd" or len(parts) < 2:
                continue
            other = parts[1]
            if not (PACKAGE / f"{other}.py").exists() and other not in ("sources", *ROOMS):
                continue
            if other != name and _level(other) < _level(name):
                wrong.append(f"{name} imports {other}")

    assert wrong == []


def test_daemon_and_simulator_know_nothing_of_each_other() -> None:
    """The simulator uses only clock and errors; of the daemon's files only demo and cli know it."""
    allowed = {"clock", "errors", "simulator", "__version__"}
    inside = {
        module.split(".")[1]
        for path in (PACKAGE / "simulator").glob("*.py")
        for module in _imports(path)
        if module.startswith("netatmo_ingestd.")
    }
    outside = {
        path.stem
        for path in [*FILES, *(PACKAGE / "sources").glob("*.py")]
        if any("simulator" in module for module in _imports(path))
    }

    assert inside <= allowed
    assert outside <= {"demo", "cli"}


@pytest.mark.parametrize("library", HOMES)
def test_one_library_one_file(library: str) -> None:
    """Each foreign library stays behind the files that own it."""
    users = {
        path.stem
        for path in FILES
        if any(module.split(".")[0] == library for module in _imports(path))
    }

    assert users <= HOMES[library]


def test_secantus_is_imported_by_its_own_process_alone() -> None:
    """The GPL program stays behind its socket: only the child's code names it."""
    users = {path.stem for path in PACKAGE.rglob("*.py") if "secantus" in " ".join(_imports(path))}

    assert users <= {"embedded_server"}


def test_example_loads(tmp_path: Path) -> None:
    """config.example.toml is valid as it stands."""
    copy = tmp_path / "config.toml"
    copy.write_text((ROOT / "config.example.toml").read_text())

    loaded = config.load(copy)

    assert loaded.store.embedded
    assert [account.name for account in loaded.accounts] == ["home"]


def test_example_shows_the_defaults(tmp_path: Path) -> None:
    """Each commented `# key = value` of config.example.toml is the default of that key."""
    lines = []
    for line in (ROOT / "config.example.toml").read_text().splitlines():
        if re.match(r"# (\[|[a-z_0-9]+ = )", line) and "PASSWORD" not in line:
            lines.append(line[2:])
        elif re.match(r"\[\w+\]", line):
            lines.append(line)
    shown = tomllib.loads(
        "\n".join(
            line
            for line in lines
            if not re.match(
                r"(client_|app =|products|scopes|public_area|include|exclude|name|provider|sites)"
                "|subscription_key",
                line,
            )
        )
    )
    shown.pop("apps")
    shown.pop("accounts")
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    defaults = config.load(empty)

    for section, value in shown.items():
        for key, text in value.items() if isinstance(value, dict) else ((None, value),):
            model = getattr(defaults, section) if key else defaults
            name = key or section
            given = type(model).model_validate({name: text})
            assert getattr(given, name) == getattr(model, name), f"{section}.{name}"


def test_readme_names_every_command_and_option() -> None:
    """Nothing that the command line takes is missing from the README."""
    readme = (ROOT / "README.md").read_text()
    group = typer.main.get_command(cli.app)
    missing = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if f"`{name}`" not in readme:
            missing.append(name)
        for parameter in command.params:
            missing += [
                f"{name} {option}"
                for option in parameter.opts
                if option.startswith("--") and option != "--help" and option not in readme
            ]

    assert missing == []


def test_readme_lists_events_and_units() -> None:
    """The tables of the README are those of logs.EVENTS and quantities.UNITS."""
    readme = (ROOT / "README.md").read_text()

    assert [n for n, text in logs.EVENTS.items() if f"| `{n}` | {text} |" not in readme] == []
    assert [n for n, unit in UNITS.items() if f"| `{n}` | {unit} |" not in readme] == []


def test_every_logged_event_is_documented() -> None:
    """Each event name in the code is a name of logs.EVENTS, and none there is unused."""
    source = "\n".join(path.read_text() for path in FILES if path.stem != "logs")
    used = set(
        re.findall(
            r'"((?:daemon|clock|login|poll|history|budget|parse|picture|retention|spool|store|webhook)'
            r'\.[a-z_]+)"',
            source,
        )
    )
    used |= {f"module.{what}" for what in ("added", "changed", "vanished", "returned")}
    used -= {
        "daemon.lock",
        "store.log",
        "store.uri",
        "spool.db",
        "spool.ballast",
        "webhook.path",
        "webhook.url",
    }

    assert used - set(logs.EVENTS) == set()
    assert set(logs.EVENTS) - used == set()


def test_no_file_is_long() -> None:
    """A reader finds each file readable in one sitting: some 350 lines, 400 at most."""
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    }

    assert long == {}
