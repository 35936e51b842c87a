"""Reads environment, TOML and secret files into Settings; one line for each mistake.

Order of precedence: environment (`NETATMO_INGESTD_…`), then `config.toml` with `accounts.d/*.toml`
beside it, then the defaults of `settings`. Unknown keys are refused with the nearest known one; no
message prints a secret value.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.settings import (
    ENV_PREFIX,
    AccountSettings,
    AppSettings,
    Section,
    Settings,
    nearest,
)

# Read by the test suite and by the packaging, not by the daemon.
_ENV_OTHERS = {
    "NETATMO_INGESTD_TEST_MONGODB",
    "NETATMO_INGESTD_TEST_DAYS",
    "NETATMO_INGESTD_CONFIG",
}
_PLAIN = {
    "tuple_type": 'is no list; write ["…", "…"]',
    "path_type": "is no path",
    "string_type": "is no text; put it in quotes",
}


class _Environment(EnvSettingsSource):
    """Lists also as `a,b`: nobody writes JSON into a unit file."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return [part.strip() for part in str(value).split(",") if part.strip()]


class _WithEnvironment(Settings):
    """The same with `NETATMO_INGESTD_…` on top."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Environment(settings_cls), init_settings)


def load(path: Path | None) -> Settings:
    """Read `path` (TOML), `accounts.d/*.toml` beside it, and the environment.

    Raises ConfigError, one line: what, where, what to do; never with a secret value.
    """
    where = str(path) if path else "environment"
    _refuse_unknown_environment(os.environ)
    raw = _read_toml(path) if path else {}
    _refuse_unknown_keys(raw, where)
    if path is not None:
        _add_account_files(raw, path.parent / "accounts.d")
    try:
        settings: Settings = _WithEnvironment(**raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None
    except SettingsError:
        raise ConfigError(f"environment: a {ENV_PREFIX}… variable cannot be read") from None
    if settings.account is not None:
        # The one-account container: NETATMO_INGESTD_ACCOUNT_CLIENT_ID and its like.
        settings = settings.model_copy(
            update={"accounts": (*settings.accounts, settings.account), "account": None}
        )
    return settings


def effective(settings: Settings, path: Path | None) -> list[tuple[str, str, str]]:
    """(key, value, where it comes from) of every option; secrets show only whether they are set."""
    raw = _read_toml(path) if path else {}
    found = []
    for key in Settings.model_fields:
        section = getattr(settings, key)
        if key in ("account", "accounts", "apps"):
            continue
        names = type(section).model_fields if isinstance(section, Section) else ("",)
        for name in names:
            option = f"{key}.{name}" if name else key
            value = getattr(section, name) if name else section
            table = raw.get(key, {}) if name else raw
            if f"{ENV_PREFIX}{option.replace('.', '_').upper()}" in os.environ:
                origin = "environment"
            else:
                origin = str(path) if (name or key) in table else "default"
            found.append((option, _shown(value), origin))
    for account in settings.accounts:
        for name in AccountSettings.model_fields:
            value = getattr(account, name)
            found.append((f"accounts.{account.name}.{name}", _shown(value), "accounts"))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        told = value.get_secret_value()
        return told if told == "embedded" else "(set)" if told else "(not set)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; copy config.example.toml there and fill it in"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _add_account_files(raw: dict[str, Any], folder: Path) -> None:
    for path in sorted(folder.glob("*.toml")):
        more = _read_toml(path)
        unknown = set(more) - {"accounts"}
        if unknown:
            raise ConfigError(f"{path}: only [[accounts]] belongs here, not {min(unknown)}")
        _refuse_unknown_keys(more, str(path))
        raw["accounts"] = [*raw.get("accounts", []), *more.get("accounts", [])]


# --- one line for each mistake ------------------------------------------------------------------


def _refuse_unknown_environment(environ: Mapping[str, str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in _environment_names()}
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in known | _ENV_OTHERS:
            raise ConfigError(f"environment: {name} is unknown{nearest(name, known)}")


def _environment_names() -> Iterator[str]:
    for key, field in Settings.model_fields.items():
        section = AccountSettings if key == "account" else field.annotation
        if key in ("accounts", "apps"):
            continue
        if isinstance(section, type) and issubclass(section, Section):
            yield from (f"{key}_{name}" for name in section.model_fields)
        else:
            yield key


def _refuse_unknown_keys(raw: Mapping[str, Any], where: str) -> None:
    tables: list[tuple[str, object, type[BaseModel]]] = [("", raw, Settings)]
    for key, value in raw.items():
        field = Settings.model_fields.get(key)
        section = field.annotation if field else None
        if isinstance(section, type) and issubclass(section, Section):
            tables.append((f"{key}.", value, section))
    accounts = raw.get("accounts", [])
    if not isinstance(accounts, list):
        raise ConfigError(f"{where}: accounts is no list; begin each with [[accounts]]")
    for number, account in enumerate(accounts, 1):
        name = account.get("name") if isinstance(account, dict) else None
        label = name if isinstance(name, str) else number
        tables.append((f"accounts.{label}.", account, AccountSettings))
    apps = raw.get("apps", {})
    if not isinstance(apps, dict):
        raise ConfigError(f"{where}: apps is no table; write [apps.NAME]")
    tables += [(f"apps.{name}.", app, AppSettings) for name, app in apps.items()]
    for prefix, table, model in tables:
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: {prefix[:-1]} is no table; write it in brackets")
        known = [name for name in model.model_fields if (prefix, name) != ("", "account")]
        for key in table:
            if key not in known:
                raise ConfigError(f"{where}: {prefix}{key} is unknown{nearest(key, known)}")


def _explain(error: ValidationError) -> str:
    """The first mistake, without its value: pydantic would print secrets."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # Lists are counted from 1, as in the other messages.
    place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    text = _PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {text}{more}" if place else f"{text}{more}"
