"""Where the clouds are: the addresses of Netatmo and of Legrand's developer portal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from netatmo_ingestd.providers import LEGRAND, NETATMO, is_loopback
from netatmo_ingestd.settings.section import Section

_THERMOSTAT = (
    "{smarther}/chronothermostat/thermoregulation/addressLocation/plants/{plant_id}/modules/"
    "parameter/id/value/{module_id}"
)
_SMARTHER: Mapping[str, str] = {
    "plants": "{smarther}/plants",
    "plant_topology": "{smarther}/plants/{plant_id}/topology",
    "thermostat": _THERMOSTAT,
    "thermostat_measures": f"{_THERMOSTAT}/measures",
    "thermostat_programs": f"{_THERMOSTAT}/programlist",
    "subscriptions": "{smarther}/subscription",
    "subscribe": "{smarther}/plants/{plant_id}/subscription",
    "unsubscribe": "{smarther}/plants/{plant_id}/subscription/{subscription_id}",
}


def plain_url(value: str) -> str:
    """An address without anything behind the path; https, or http on loopback."""
    parts = urlsplit(value)
    if not parts.hostname or parts.username or parts.query or parts.fragment or parts.port == 0:
        raise ValueError("is no plain address like https://api.example.com")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("must be https (plain http only on loopback, for the simulator)")
    return value.rstrip("/")


class NetatmoSettings(Section):
    api_url: str = NETATMO.api_url
    auth_url: str = NETATMO.auth_url

    _safe_url = field_validator("api_url", "auth_url")(plain_url)


class LegrandSettings(Section):
    """Legrand's portal. Its emergency lighting API is not described in public: the two paths are
    a guess, to be compared with the portal's page of the API (netatmo-api 8.3).

    per_day  calls of one account in any 24 h, of the 500 a day that the portal gives
    """

    api_url: str = LEGRAND.api_url
    auth_url: str = LEGRAND.auth_url
    per_day: int = Field(LEGRAND.per_day, ge=48, le=500)
    smarther_path: str = "/smarther/v2.0"
    site_controllers_path: str = "/emergency-lighting/v1.0/siteControllers?siteId={site_id}"
    failure_flag_path: str = (
        "/emergency-lighting/v1.0/decodeFailureFlag?reference={reference}&failureFlag={flag}"
    )

    _safe_url = field_validator("api_url", "auth_url")(plain_url)

    @field_validator("smarther_path", "site_controllers_path", "failure_flag_path")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        if not re.fullmatch(r"/[A-Za-z0-9/._~{}?&=-]{1,300}", value):
            raise ValueError("is no path like /smarther/v2.0")
        return value.rstrip("/")

    @field_validator("site_controllers_path")
    @classmethod
    def _with_site(cls, value: str) -> str:
        return _with_places(value, "site_id")

    @field_validator("failure_flag_path")
    @classmethod
    def _with_flag(cls, value: str) -> str:
        return _with_places(value, "reference", "flag")

    @property
    def paths(self) -> Mapping[str, str]:
        """The path of each method, with places for its parameters."""
        return {
            **{
                name: path.replace("{smarther}", self.smarther_path)
                for name, path in _SMARTHER.items()
            },
            "site_controllers": self.site_controllers_path,
            "failure_flag": self.failure_flag_path,
        }


def _with_places(path: str, *names: str) -> str:
    if sorted(re.findall(r"\{(.*?)\}", path)) != sorted(names):
        raise ValueError(f"needs a place for each of {', '.join(f'{{{name}}}' for name in names)}")
    return path
