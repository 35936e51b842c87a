"""Product knowledge as data and pure functions; one file for each product line."""

from __future__ import annotations

from netatmo_ingestd.polls import ModuleType, Source
from netatmo_ingestd.sources.aircare import AIRCARE
from netatmo_ingestd.sources.weather import WEATHER

SOURCES: tuple[Source, ...] = (WEATHER, AIRCARE)

MODULE_TYPES: dict[str, ModuleType] = {
    name: kind for source in SOURCES for name, kind in source.module_types.items()
}


def for_products(products: tuple[str, ...]) -> tuple[Source, ...]:
    """The sources of the product lines that an account names, in our order."""
    return tuple(source for source in SOURCES if source.name in products)
