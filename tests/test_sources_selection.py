"""Which homes and modules an account stores."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from netatmo_ingestd.models import DeadLetter, Entity, Measurement, Record
from netatmo_ingestd.polls import Parsed, Problem
from netatmo_ingestd.sources.selection import select, wanted

NOW = datetime(2025, 11, 1, tzinfo=UTC)


def home(home_id: str, name: str, *, read_only: bool = False) -> Entity:
    return Entity("me", "home", home_id, home_id, "", "home", {"name": name}, read_only=read_only)


def module(module_id: str, name: str, home: str, device: str, *, read_only: bool = False) -> Entity:
    described = {"name": name, "home_name": {"h1": "Cottage", "h2": "Barn"}[home]}
    return Entity(
        "me", "module", module_id, home, device, "NAModule1", described, read_only=read_only
    )


def row(module_id: str) -> Measurement:
    return Measurement("me", "h", "d", module_id, "NAModule1", "max", NOW, {"rain": 1.0}, "test")


RECORDS: list[Record] = [
    home("h1", "Cottage"),
    module("s1", "Parlour", "h1", "s1"),
    module("m1", "Garden", "h1", "s1"),
    home("h2", "Barn", read_only=True),
    module("s2", "Stable", "h2", "s2", read_only=True),
    row("s1"),
    row("m1"),
    row("s2"),
]


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        ((), (), {"h1", "s1", "m1"}),
        ((), ("Garden",), {"h1", "s1"}),
        ((), ("m1",), {"h1", "s1"}),
        ((), ("Cottage",), set()),
        ((), ("h1",), set()),
        ((), ("s1",), {"h1"}),
        (("Barn",), (), {"h2", "s2"}),
        (("s2",), (), {"s2"}),
        (("Garden",), (), {"m1"}),
        (("Barn", "Cottage"), ("Garden",), {"h1", "s1", "h2", "s2"}),
        (("garden",), (), set()),
        (("",), (), set()),
    ],
)
def test_select(include: tuple[str, ...], exclude: tuple[str, ...], kept: set[str]) -> None:
    """Names and ids choose; guests need to be included; exclude has the last word; rows follow."""
    chosen = select(Parsed(RECORDS), lambda each: wanted(each, include, exclude))

    entities = [each.entity_id for each in chosen.records if isinstance(each, Entity)]
    rows = {each.module_id for each in chosen.records if isinstance(each, Measurement)}
    assert set(entities) == kept
    assert len(entities) == len(kept)
    assert rows == kept - {"h1", "h2"}


def test_only_some_ids_may_be_told() -> None:
    """What may not be told goes with its rows, however much it is wanted."""
    chosen = select(Parsed(RECORDS), lambda _: True, lambda entity_id: entity_id.startswith("m"))

    assert chosen.records == [module("m1", "Garden", "h1", "s1"), row("m1")]


def test_rows_without_description_stay() -> None:
    """History rows come without entities: they were asked for, so they are wanted."""
    parsed = Parsed([row("anything")], problems=[Problem("p", "t")])

    assert select(parsed, lambda _: False) == parsed


def test_other_records_stay() -> None:
    """Selection never drops a record that is neither description nor row."""
    letter = DeadLetter("r", "{}", NOW)

    assert list(select(Parsed([letter]), lambda _: False).records) == [letter]


def test_wanted_ignores_what_is_not_told() -> None:
    """An entity without home and name is not chosen by an empty entry."""
    nameless = Entity("me", "module", "m9", "", "s9", "NAModule1", {})

    assert wanted(nameless, (), ("",))
    assert not wanted(nameless, ("",), ())
