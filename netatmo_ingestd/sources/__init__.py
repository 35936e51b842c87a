"""Product knowledge as data and pure functions; one file for each product line."""

from __future__ import annotations

from netatmo_ingestd.models import Entity
from netatmo_ingestd.polls import Endpoint, ModuleType, Source
from netatmo_ingestd.sources.aircare import AIRCARE
from netatmo_ingestd.sources.control import CONTROL
from netatmo_ingestd.sources.emergency import EMERGENCY
from netatmo_ingestd.sources.energy import ENERGY
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.public import PUBLIC
from netatmo_ingestd.sources.security import SECURITY
from netatmo_ingestd.sources.smarther import SMARTHER
from netatmo_ingestd.sources.weather import WEATHER

SOURCES: tuple[Source, ...] = (
    *(WEATHER, AIRCARE, ENERGY, SECURITY, CONTROL, PUBLIC),
    *(EMERGENCY, SMARTHER),
)

MODULE_TYPES: dict[str, ModuleType] = {
    name: kind for source in SOURCES for name, kind in source.module_types.items()
}


def for_products(products: tuple[str, ...]) -> tuple[Source, ...]:
    """The sources of the product lines that an account names, in our order."""
    return tuple(source for source in SOURCES if source.name in products)


def product_of(entity: Entity) -> str:
    """The product line of a module; a room is of energy; "" for a type that nobody knows."""
    if entity.kind == "room":
        return "energy"
    kind = MODULE_TYPES.get(entity.type)
    return kind.product if kind else ""


def serves(endpoint: Endpoint, module: Entity) -> bool:
    """Whether a home is asked by `endpoint` for the sake of `module`.

    Live state is asked also for a type that is not known; events are not.
    """
    product = product_of(module)
    if not product:
        return endpoint.name == HOMESTATUS.name
    return any(each.name == endpoint.name for each in _BY_NAME[product].endpoints)


_BY_NAME = {source.name: source for source in SOURCES}
