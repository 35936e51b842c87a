"""The product lines as a whole: what settings, providers and sources say of them agrees."""

from __future__ import annotations

import pytest

from netatmo_ingestd.polls import Source
from netatmo_ingestd.providers import SCOPES
from netatmo_ingestd.settings import PollSettings
from netatmo_ingestd.sources import MODULE_TYPES, SOURCES, for_products

NAMES = tuple(source.name for source in SOURCES)


def test_every_product_that_can_be_named_has_a_source() -> None:
    """`products` accepts exactly the lines there are, and asks the scopes that they need."""
    assert {source.name: source.scopes for source in SOURCES} == dict(SCOPES)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_source_is_consistent(source: Source) -> None:
    """Each endpoint has a cadence and a scope of its line; each type says whose it is."""
    assert all(hasattr(PollSettings(), each.cadence) for each in source.endpoints)
    assert all(each.scope in ("", *source.scopes) for each in source.endpoints)
    # Public stations are told of in one answer, whatever their types.
    assert bool(source.module_types) == (source.name != "public")
    assert {kind.product for kind in source.module_types.values()} <= {source.name}


def test_a_type_belongs_to_one_line() -> None:
    """No type is claimed twice."""
    assert len(MODULE_TYPES) == sum(len(source.module_types) for source in SOURCES)


def test_products_come_in_our_order() -> None:
    """Whatever the order in which an account names them, and one alone stays alone."""
    assert for_products(NAMES[::-1]) == SOURCES
    assert [for_products((name,)) for name in NAMES] == [(source,) for source in SOURCES]
    assert for_products(()) == ()
