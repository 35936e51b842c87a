"""Which homes to simulate: a TOML file of homes, products and counts, like EXAMPLE."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator.household import HEATING, LINES, PRODUCTS, Wanted

EXAMPLE = """\
[[homes]]                                # the home of the first station
products = ["energy", "security", "control"]
heating = ["thermostat", "smarther"]     # also "modulating", "air"
valves = 5
cameras = 3
meters = 20
lines = 9                                # of the Ecometer
persons = 2
strangers = 1                            # faces without a name

[[homes]]                                # of the second: every product, in usual counts
"""
MOST = 200
_NAMES: Mapping[str, Sequence[str]] = {"products": PRODUCTS, "heating": HEATING}


def read_scenario(path: Path) -> tuple[Wanted, ...]:
    """The homes of a scenario file, in the order of the stations.

    Raises  ConfigError when it cannot be read, or names what there is not
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; write [[homes]] sections in TOML") from error
    homes = told.pop("homes", None)
    if told or not isinstance(homes, list) or not all(isinstance(each, dict) for each in homes):
        raise ConfigError(f"{path}: expected [[homes]] sections and nothing else")
    return tuple(_wanted(f"{path}: homes[{place}]", each) for place, each in enumerate(homes))


def products(names: str) -> tuple[str, ...]:
    """`energy,security` as product names; raises ConfigError for one that is none of them."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    return _known("products", found, PRODUCTS)


def _wanted(where: str, told: Mapping[str, Any]) -> Wanted:
    options = [each.name for each in fields(Wanted)]
    read: dict[str, Any] = {}
    for name, value in told.items():
        _known(where, [name], options)
        if name in _NAMES:
            if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                raise ConfigError(f"{where}: {name} = {value!r} is no list of names")
            read[name] = _known(f"{where}: {name}", value, _NAMES[name])
        else:
            read[name] = _count(f"{where}: {name}", value, LINES if name == "lines" else MOST)
    return replace(Wanted(), **read)


def _count(where: str, value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ConfigError(f"{where} = {value!r} is no number from 0 to {most}")
    return value


def _known(where: str, names: Iterable[str], among: Sequence[str]) -> tuple[str, ...]:
    """The names, each once; the nearest known one helps who mistyped."""
    for name in names:
        if name not in among:
            near = difflib.get_close_matches(name, among, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}: {name!r} is none of {', '.join(among)}{hint}")
    return tuple(dict.fromkeys(names))
