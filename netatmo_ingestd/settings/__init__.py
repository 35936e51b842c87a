"""Every option: type, default, meaning, and how they must fit together. Read by `config`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.providers import PROVIDERS, Provider
from netatmo_ingestd.settings.account import NAME as NAME
from netatmo_ingestd.settings.account import AccountSettings as AccountSettings
from netatmo_ingestd.settings.account import AppSettings as AppSettings
from netatmo_ingestd.settings.account import PublicArea as PublicArea
from netatmo_ingestd.settings.cloud import LegrandSettings as LegrandSettings
from netatmo_ingestd.settings.cloud import NetatmoSettings as NetatmoSettings
from netatmo_ingestd.settings.section import Duration as Duration
from netatmo_ingestd.settings.section import Section as Section
from netatmo_ingestd.settings.section import nearest as nearest
from netatmo_ingestd.settings.section import read_duration as read_duration
from netatmo_ingestd.settings.web import WebhookSettings as WebhookSettings
from netatmo_ingestd.settings.web import WebSettings as WebSettings

ENV_PREFIX = "NETATMO_INGESTD_"
NO_ACCOUNT = "accounts: none is configured; add an [[accounts]] section to config.toml (--config)"
# Each host of a mongodb:// address: name or number, or [IPv6], and a port; or a socket's path.
_HOST = re.compile(r"[^\s:@/\[\]]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?|(?i:%2F)\S+")


_PICTURE_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")


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


class ClockSettings(Section):
    """Time of a simulated cloud; the simulator prints both values at its start."""

    origin: float = Field(0.0, allow_inf_nan=False)
    speed: float = Field(1.0, gt=0, le=100_000)


class PollSettings(Section):
    """How often each scope's endpoints are asked, and the trailing read of each module."""

    weather: Duration = timedelta(minutes=10)
    aircare: Duration = timedelta(minutes=10)
    topology: Duration = timedelta(hours=3)
    status: Duration = timedelta(minutes=5)
    public: Duration = timedelta(minutes=10)
    events: Duration = timedelta(minutes=10)
    emergency: Duration = timedelta(minutes=15)
    smarther: Duration = timedelta(minutes=15)
    measures: Duration = timedelta(hours=1)
    plants: Duration = timedelta(hours=12)
    trailing: Duration = timedelta(minutes=30)
    buckets: Duration = timedelta(hours=1)

    @field_validator("*")
    @classmethod
    def _not_too_fast(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1):
            raise ValueError("is under 1 min; stations report every 5 to 10 min")
        if value > timedelta(days=1):
            raise ValueError("is over 1 day; readings would arrive late for no gain")
        return value


class HistorySettings(Section):
    """How far back history is fetched: "all", a date, or "never" (then only holes are filled)."""

    since: Literal["all", "never"] | date = "all"

    @field_validator("since", mode="before")
    @classmethod
    def _readable_date(cls, value: object) -> object:
        if value in ("all", "never"):
            return value
        try:
            day = value if type(value) is date else date.fromisoformat(str(value))
        except ValueError:
            raise ValueError('is neither "all" nor "never" nor a date like "2020-01-31"') from None
        if day > datetime.now(UTC).date():
            raise ValueError(f"is {day}, which lies in the future")
        return day


class SecuritySettings(Section):
    """Whether the pictures of events are fetched, and hosts allowed beside the provider's."""

    pictures: bool = False
    picture_hosts: tuple[str, ...] = ()

    @field_validator("picture_hosts")
    @classmethod
    def _plain_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _PICTURE_HOST.fullmatch(host):
                raise ValueError(f'has "{host[:100]}", no plain host name like images.example.com')
        return tuple(host.lower() for host in value)


class RetentionSettings(Section):
    """How long and how much is kept; the oldest goes first."""

    pictures_days: int = Field(90, ge=1, le=36_500)
    pictures_bytes: int = Field(5 << 30, ge=1 << 20)
    live_days: int = Field(400, ge=1, le=36_500)
    dead_letters_days: int = Field(90, ge=1, le=36_500)


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
    legrand: LegrandSettings = LegrandSettings()
    clock: ClockSettings = ClockSettings()
    poll: PollSettings = PollSettings()
    history: HistorySettings = HistorySettings()
    security: SecuritySettings = SecuritySettings()
    retention: RetentionSettings = RetentionSettings()
    budget: BudgetSettings = BudgetSettings()
    spool: SpoolSettings = SpoolSettings()
    writer: WriterSettings = WriterSettings()
    login: LoginSettings = LoginSettings()
    web: WebSettings = WebSettings()
    webhook: WebhookSettings = WebhookSettings()
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
        accounts = (*self.accounts, *((self.account,) if self.account else ()))
        for name in sorted({each.provider for each in accounts} or {"netatmo"}):
            if self.clock.speed != 1.0 and not self.provider(name).loopback:
                raise ValueError(
                    "clock.speed: a fast clock is for a simulated cloud; "
                    f"point [{name}] api_url and auth_url at loopback, or drop [clock]"
                )
        if self.webhook.url and not self.web.listen:
            raise ValueError("webhook.url: nothing would answer there; set [web] listen too")
        if self.webhook.path.get_secret_value() and not self.webhook.url:
            raise ValueError("webhook.path: is of no use without [webhook] url")
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
                    + nearest(account.app, self.apps)
                )
            clouds = {each.provider for each in accounts if account.app and each.app == account.app}
            if len(clouds) > 1:
                raise ValueError(f"apps.{account.app}: an app is of one cloud, not of two")
        return self

    def provider(self, name: str) -> Provider:
        """A cloud, at the addresses and with the paths and quota of its section."""
        known = PROVIDERS[name]
        if name == "legrand":
            own: LegrandSettings = self.legrand
            return replace(
                known,
                api_url=own.api_url,
                auth_url=own.auth_url,
                per_day=own.per_day,
                paths=own.paths,
            )
        return replace(
            known,
            api_url=self.netatmo.api_url,
            auth_url=self.netatmo.auth_url,
            picture_hosts=(*known.picture_hosts, *self.security.picture_hosts),
        )

    def subscription_key(self, account: AccountSettings) -> str:
        """The key of Legrand's portal; "" where none is wanted. ConfigError when it is missing."""
        provider = PROVIDERS[account.provider]
        if not provider.key_header:
            return ""
        where = f"accounts.{account.name}"
        key = account.subscription_key.get_secret_value() or _secret_from_file(
            account.subscription_key_file, account, where, "subscription_key"
        )
        if not re.fullmatch(r"[\x21-\x7e]{1,256}", key):
            what = "is none: it has blanks or odd characters" if key else "missing"
            raise ConfigError(
                f"{where}.subscription_key: {what}; copy it from your subscription at "
                f"{provider.portal}"
            )
        return key

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
        raise ConfigError(f'--account: there is no "{name}"{nearest(name, known)}')

    def app_of(self, account: AccountSettings) -> AppSettings:
        """The client id and secret that `account` uses; ConfigError when one is missing."""
        app = self.apps[account.app] if account.app else account
        where = f"apps.{account.app}" if account.app else f"accounts.{account.name}"
        secret = app.client_secret.get_secret_value() or _secret_from_file(
            app.client_secret_file, account, where, "client_secret"
        )
        for key, value in (("client_id", app.client_id), ("client_secret", secret)):
            if not value:
                portal = PROVIDERS[account.provider].portal
                raise ConfigError(
                    f"{where}.{key}: missing; copy it from the app's page at {portal}"
                )
        return AppSettings(client_id=app.client_id, client_secret=SecretStr(secret))


def _secret_from_file(path: Path | None, account: AccountSettings, where: str, key: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if path is None and folder:
        given = Path(folder) / f"{account.name}.{key}"
        path = given if given.exists() else None
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}.{key}_file: {path} cannot be read ({type(error).__name__})"
        ) from None
