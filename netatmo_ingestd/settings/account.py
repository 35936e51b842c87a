"""The settings of one login: its app, its products and scopes, what it leaves out, its area."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from netatmo_ingestd.area import TILE_DEGREES, tiles
from netatmo_ingestd.providers import (
    ACCESS_SCOPES,
    LEGRAND,
    PROVIDERS,
    READ_SCOPES,
    SCOPES,
    not_granted,
)
from netatmo_ingestd.settings.section import Section, nearest

_SITE = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MOST_DEGREES = 1.0


class AppSettings(Section):
    """A client id and its secret, as the app's page at the cloud's portal shows them."""

    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None


class PublicArea(Section):
    """Corners in degrees, north and east positive: ne is the one further north and east."""

    lat_ne: float = Field(ge=-85, le=85)
    lon_ne: float = Field(ge=-180, le=180)
    lat_sw: float = Field(ge=-85, le=85)
    lon_sw: float = Field(ge=-180, le=180)

    @model_validator(mode="after")
    def _an_area(self) -> Self:
        for axis, ne, sw in (("lat", self.lat_ne, self.lat_sw), ("lon", self.lon_ne, self.lon_sw)):
            if not ne > sw:
                raise ValueError(f"{axis}_ne ({ne:g}) is not above {axis}_sw ({sw:g})")
            # As written: from -64.9 to -63.9 it is no more than a degree.
            if round(ne - sw, 6) > MOST_DEGREES:
                raise ValueError(
                    f"{axis}_ne ({ne:g}) is more than {MOST_DEGREES:g} degree above {axis}_sw "
                    f"({sw:g}); each {TILE_DEGREES:g} degrees a side are a request at every turn"
                )
        return self

    @property
    def tiles(self) -> tuple[str, ...]:
        return tiles(self.lat_ne, self.lon_ne, self.lat_sw, self.lon_sw)

    def __str__(self) -> str:
        return f"{self.lat_sw:g},{self.lon_sw:g} to {self.lat_ne:g},{self.lon_ne:g}"


class AccountSettings(AppSettings):
    """One login; `app` names the [apps.NAME] whose client id it shares.

    subscription_key, sites  of Legrand's portal: the key of its API, and the ids of the sites
                             whose emergency lighting is read
    """

    name: str = "home"
    provider: str = "netatmo"
    app: str = ""
    products: tuple[str, ...] = ("weather",)
    subscription_key: SecretStr = SecretStr("")
    subscription_key_file: Path | None = None
    sites: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    public_area: PublicArea | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("needs 1 to 64 letters, digits, dots, dashes or underscores")
        return value

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, value: str) -> str:
        if value not in PROVIDERS:
            raise ValueError(f"is none of {', '.join(PROVIDERS)}{nearest(value, PROVIDERS)}")
        return value

    @field_validator("products")
    @classmethod
    def _known_products(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        provider = PROVIDERS.get(info.data.get("provider", ""))
        known = provider.scopes if provider else SCOPES
        for product in value:
            if product not in known:
                whose = f" of {provider.name}" if provider and product in SCOPES else ""
                raise ValueError(f'has "{product}"; known{whose}: {", ".join(known)}')
        return value

    @field_validator("sites")
    @classmethod
    def _plain_sites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for site in value:
            if not _SITE.fullmatch(site):
                raise ValueError(f'has "{site[:64]}", no site id of letters, digits, dots, dashes')
        return value

    @field_validator("scopes")
    @classmethod
    def _reading_scopes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for place, scope in enumerate(value):
            if scope in READ_SCOPES | ACCESS_SCOPES:
                continue
            if scope.startswith("write_"):
                raise ValueError(f'has "{scope}": this program only reads, and asks for no more')
            # Not as it stands: somebody may have put a secret into the wrong line.
            raise ValueError(f"has an unknown one at {place}{nearest(scope, READ_SCOPES)}")
        return value

    @model_validator(mode="after")
    def _of_its_provider(self) -> Self:
        of_legrand = self.provider == LEGRAND.name
        if of_legrand and not set(self.products) & set(LEGRAND.scopes):
            # Left out, it has Netatmo's default.
            raise ValueError(f"products: name those to read: {', '.join(LEGRAND.scopes)}")
        if "emergency" in self.products and not self.sites:
            raise ValueError('products has "emergency", which needs the ids of your sites: sites')
        if self.sites and not of_legrand:
            raise ValueError('sites is for provider = "legrand"')
        if self.sites and "emergency" not in self.products:
            raise ValueError('sites is for the product "emergency"; add that to products')
        key = self.subscription_key.get_secret_value() or self.subscription_key_file
        if key and not of_legrand:
            raise ValueError('subscription_key is for provider = "legrand"')
        if self.scopes and of_legrand:
            raise ValueError("scopes: those of Legrand are set on the app's page at its portal")
        return self

    @model_validator(mode="after")
    def _area_for_public(self) -> Self:
        if "public" in self.products and self.public_area is None:
            raise ValueError(
                'products has "public", which needs the corners of an area: '
                "public_area = { lat_ne = …, lon_ne = …, lat_sw = …, lon_sw = … }"
            )
        if self.public_area is not None and "public" not in self.products:
            raise ValueError('public_area is for the product "public"; add that to products')
        return self

    def scopes_for(self, *more: str) -> tuple[str, ...]:
        """What a login asks for: `scopes`, or those of the products; and those of products `more`.

        A product's scopes come in the order of the products; each once.
        """
        own = self.scopes or _of(self.products)
        return tuple(dict.fromkeys((*own, *_of(more))))

    def not_granted(self, granted: Sequence[str], *more: str) -> dict[str, tuple[str, ...]]:
        """Of each product what was asked for it and is not among `granted`, if anything is."""
        return not_granted((*self.products, *more), self.scopes_for(*more), granted)


def _of(products: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(scope for product in products for scope in SCOPES[product])
