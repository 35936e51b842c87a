"""Every option: type, default, meaning; the one reader of environment, TOML and secret files.

Order of precedence: environment (`NETATMO_INGESTD_…`), then `config.toml`, then the defaults here.
Unknown keys are refused with the nearest known one; no message prints a secret value.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.providers import NETATMO, Provider, is_loopback

ENV_PREFIX = "NETATMO_INGESTD_"
# Read by the test suite and by the packaging, not by the daemon.
_ENV_OTHERS = {"NETATMO_INGESTD_TEST_MONGODB", "NETATMO_INGESTD_CONFIG"}
NO_ACCOUNT = "accounts: none is configured; add an [[accounts]] section to config.toml (--config)"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_MOST_S = 1e9
# Each host of a mongodb:// address: name or number, or [IPv6], and a port; or a socket's path.
_HOST = re.compile(r"[^\s:@/\[\]]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?|(?i:%2F)\S+")
_PLAIN = {
    "tuple_type": 'is no list; write ["…", "…"]',
    "path_type": "is no path",
    "string_type": "is no text; put it in quotes",
}


def read_duration(value: object) -> object:
    """`"90s"`, `"10m"`, `"1.5h"`, `"7d"`, or a number of seconds."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError('is no duration; write e.g. "90s", "10m", "1.5h" or "7d"')
        value = float(match[1]) * _UNIT_S[match[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= _MOST_S:
            raise ValueError("is out of range")
        return timedelta(seconds=value)
    return value


Duration = Annotated[timedelta, BeforeValidator(read_duration)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class StoreSettings(Section):
    """uri is "embedded" or a mongodb:// address; there is no default: the owner chooses."""

    uri: SecretStr = SecretStr("")
    database: str = Field("netatmo", pattern=r"^[A-Za-z0-9_-]{1,63}$")

    @property
    def embedded(self) -> bool:
        return self.uri.get_secret_value() == "embedded"

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text in ("", "embedded"):
            return value
        if not re.match(r"mongodb(\+srv)?://", text):
            raise ValueError('is neither "embedded" nor a mongodb:// address')
        # The driver, and urlsplit, would quote a part of the password in their complaints.
        match = re.fullmatch(r"[^:]+://([^/?#]*)/?[^?#@]*(\?[^#]*)?", text)
        hosts = match[1].rpartition("@")[2].split(",") if match else [""]
        if not all(map(_HOST.fullmatch, hosts)) or not _readable(text):
            raise ValueError(
                "is no proper mongodb://user:password@host:port/ address; "
                "percent-encode characters like / ? # @ : % of the password"
            )
        return value


def _readable(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


class AppSettings(Section):
    """A client id and its secret, as the app's page at dev.netatmo.com shows them."""

    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None


class AccountSettings(AppSettings):
    """One login; `app` names the [apps.NAME] whose client id it shares."""

    name: str = "home"
    app: str = ""
    products: tuple[str, ...] = ("weather",)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("needs 1 to 64 letters, digits, dots, dashes or underscores")
        return value

    @field_validator("products")
    @classmethod
    def _known_products(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for product in value:
            if product not in NETATMO.scopes:
                raise ValueError(f'has "{product}"; known: {", ".join(NETATMO.scopes)}')
        return value


class NetatmoSettings(Section):
    api_url: str = NETATMO.api_url
    auth_url: str = NETATMO.auth_url

    @field_validator("api_url", "auth_url")
    @classmethod
    def _safe_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or parts.username or parts.query or parts.fragment or parts.port == 0:
            raise ValueError("is no plain address like https://api.netatmo.com")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("must be https (plain http only on loopback, for the simulator)")
        return value.rstrip("/")


class ClockSettings(Section):
    """Time of a simulated cloud; the simulator prints both values at its start."""

    origin: float = Field(0.0, allow_inf_nan=False)
    speed: float = Field(1.0, gt=0, le=100_000)


class PollSettings(Section):
    """How often each scope's endpoints are asked, and the trailing read of each module."""

    weather: Duration = timedelta(minutes=10)
    trailing: Duration = timedelta(minutes=30)

    @field_validator("weather", "trailing")
    @classmethod
    def _not_too_fast(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1):
            raise ValueError("is under 1 min; stations report every 5 to 10 min")
        if value > timedelta(days=1):
            raise ValueError("is over 1 day; readings would arrive late for no gain")
        return value


class BudgetSettings(Section):
    """Calls that the daemon allows itself for one account (the cloud's limits: 500 and 50)."""

    per_hour: int = Field(400, ge=10, le=490)
    per_10s: int = Field(50, ge=1, le=50)


class SpoolSettings(Section):
    max_bytes: int = Field(1 << 30, ge=1 << 20)


class WriterSettings(Section):
    bulk_size: int = Field(500, ge=1, le=500)
    max_bulks_per_second: float = Field(20.0, gt=0, le=1000)


class LoginSettings(Section):
    """Where the login command listens for the browser to come back."""

    port: int = Field(8735, ge=1, le=65535)

    @property
    def redirect_uri(self) -> str:
        return f"http://localhost:{self.port}/callback"


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(BaseSettings):
    """The whole configuration; frozen. Made from its arguments alone; `load` adds environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    state_dir: Path = Path("/var/lib/netatmo-ingestd")
    store: StoreSettings = StoreSettings()
    account: AccountSettings | None = None
    accounts: tuple[AccountSettings, ...] = ()
    apps: dict[str, AppSettings] = Field(default_factory=dict)
    netatmo: NetatmoSettings = NetatmoSettings()
    clock: ClockSettings = ClockSettings()
    poll: PollSettings = PollSettings()
    budget: BudgetSettings = BudgetSettings()
    spool: SpoolSettings = SpoolSettings()
    writer: WriterSettings = WriterSettings()
    login: LoginSettings = LoginSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        loopback = all(
            is_loopback(urlsplit(url).hostname or "")
            for url in (self.netatmo.api_url, self.netatmo.auth_url)
        )
        if self.clock.speed != 1.0 and not loopback:
            raise ValueError(
                "clock.speed: a fast clock is for a simulated cloud; "
                "point [netatmo] api_url and auth_url at loopback, or drop [clock]"
            )
        accounts = (*self.accounts, *((self.account,) if self.account else ()))
        names = [account.name for account in accounts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f'accounts: the name "{name}" is used twice; rename one'
                    + (f" ({ENV_PREFIX}ACCOUNT_NAME)" if self.account else "")
                )
        for account in accounts:
            if account.app and account.app not in self.apps:
                raise ValueError(
                    f"accounts.{account.name}.app: there is no [apps.{account.app}]"
                    + _nearest(account.app, self.apps)
                )
        return self

    @property
    def provider(self) -> Provider:
        """Netatmo, at the addresses of [netatmo]."""
        return Provider(
            name=NETATMO.name,
            api_url=self.netatmo.api_url,
            auth_url=self.netatmo.auth_url,
            account_per_10s=NETATMO.account_per_10s,
            account_per_hour=NETATMO.account_per_hour,
            app_per_hour=NETATMO.app_per_hour,
            scopes=NETATMO.scopes,
        )

    def find_account(self, name: str | None) -> AccountSettings:
        """The account `name`, or the only one; ConfigError otherwise."""
        if not self.accounts:
            raise ConfigError(NO_ACCOUNT)
        if name is None and len(self.accounts) == 1:
            return self.accounts[0]
        known = [account.name for account in self.accounts]
        if name is None:
            raise ConfigError(f"several accounts are configured; add --account {'|'.join(known)}")
        for account in self.accounts:
            if account.name == name:
                return account
        raise ConfigError(f'--account: there is no "{name}"{_nearest(name, known)}')

    def app_of(self, account: AccountSettings) -> AppSettings:
        """The client id and secret that `account` uses; ConfigError when one is missing."""
        app = self.apps[account.app] if account.app else account
        where = f"apps.{account.app}" if account.app else f"accounts.{account.name}"
        secret = app.client_secret.get_secret_value() or _secret_from_file(app, account, where)
        for key, value in (("client_id", app.client_id), ("client_secret", secret)):
            if not value:
                raise ConfigError(
                    f"{where}.{key}: missing; copy it from the app's page at dev.netatmo.com"
                )
        return AppSettings(client_id=app.client_id, client_secret=SecretStr(secret))


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


def _secret_from_file(app: AppSettings, account: AccountSettings, where: str) -> str:
    path = app.client_secret_file
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if path is None and folder:
        given = Path(folder) / f"{account.name}.client_secret"
        path = given if given.exists() else None
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}.client_secret_file: {path} cannot be read ({type(error).__name__})"
        ) from None


# --- one line for each mistake ------------------------------------------------------------------


def _refuse_unknown_environment(environ: Mapping[str, str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in _environment_names()}
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in known | _ENV_OTHERS:
            raise ConfigError(f"environment: {name} is unknown{_nearest(name, known)}")


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
                raise ConfigError(f"{where}: {prefix}{key} is unknown{_nearest(key, known)}")


def _nearest(name: str, known: object) -> str:
    names = list(known) if isinstance(known, (list, dict, set)) else []
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def _explain(error: ValidationError) -> str:
    """The first mistake, without its value: pydantic would print secrets."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # Lists are counted from 1, as in the other messages.
    place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    text = _PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {text}{more}" if place else f"{text}{more}"
