"""The table of module types: every type of the reference is in it, each with what it keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netatmo_ingestd.models import Entity
from netatmo_ingestd.sources import MODULE_TYPES, SOURCES
from netatmo_ingestd.sources.control import CONTROL, ECOMETER, METER
from netatmo_ingestd.sources.energy import ENERGY, THERMOSTAT
from netatmo_ingestd.sources.measure import ROOM, history_of
from netatmo_ingestd.sources.quantities import UNITS, UPSTREAM, day_types
from netatmo_ingestd.sources.security import SECURITY

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "netatmo-api.md"
# netatmo-api 4.1 to 4.5; NBD and NADoorTag are other spellings.
WEATHER_AND_AIR = "NAMain NAModule1 NAModule2 NAModule3 NAModule4 NHC"
HEATING = "NAPlug NATherm1 NRV OTH OTM NAC BNS NAVaillant NAThermVaillant EBU"
WATCHING = "NACamera NPC NOC NDB NACamDoorTag NIS NSD NCO NDL NBD NADoorTag"
WIRING = """
    NLG NLGS NLP NLPM NLPBS NLPO NLPT NLPC NLPS NLY NLPD NLE NLC NLL NLF NLFN NLFE NLM NLIS NLUI
    NLUP NLUO NLUF NLLF NLV NLLV NLLM NLIV NLJ NLT NLD NLDD NLDP NLAO NLAS NLAV NLTS
"""
OTHERS = """
    BNCX BNEU BNDL BNSL BNMH BNTH BNFC BNTR BNIL BNLD BN3L BNMS BNAS BNAB BNCS BNXM BNCU BNSE BFII
    BFIC BFIO BFIS NBG NBR NBO NBS TPSRS Z3L Z3V NXG NXO NXS NXD
"""
CODES = {
    *WEATHER_AND_AIR.split(),
    *HEATING.split(),
    *WATCHING.split(),
    *WIRING.split(),
    *OTHERS.split(),
}
OF_LEGRAND = {"emergency_controller", "chronothermostat"}  # of its own portal: sections 8.3, 8.4
PSEUDO = {"public", "NLunknown"}  # of a client, never sent
UNSCOPED = {"NAVaillant", "NAThermVaillant", "NDL", "NXG", "NXO", "NXS", "NXD"}


def test_every_type_is_in_the_table() -> None:
    """No type of the reference is unknown to us, and we made none up."""
    assert set(MODULE_TYPES) == CODES | OF_LEGRAND


def test_the_reference_lists_no_other() -> None:
    """The reference itself, where it lies beside the checkout, names these types and no others."""
    if not REFERENCE.exists():
        pytest.skip("no shared/netatmo-api.md beside the checkout")
    section = REFERENCE.read_text().split("\n## 4. ")[1].split("\n### 4.6")[0]
    tables = re.findall(r"^\| type \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", section, re.MULTILINE)
    codes = {
        code.strip()
        for table in tables
        for row in table.splitlines()
        for code in row.split("|")[1].split("/")
    }

    assert len(tables) == 5
    assert codes - PSEUDO == CODES - {"NBD", "NADoorTag"}


@pytest.mark.parametrize("name", sorted(MODULE_TYPES))
def test_a_type_is_consistent(name: str) -> None:
    """Its scope is one of its product, and each type of its history has a quantity and a day."""
    kind = MODULE_TYPES[name]
    source = next(each for each in SOURCES if name in each.module_types)

    assert kind.product == source.name
    assert (kind.scope in source.scopes) is (name not in UNSCOPED)
    assert kind.scope == "" or name not in UNSCOPED
    assert all(UPSTREAM[each.lower()] in UNITS for each in kind.history)
    assert bool(day_types(kind.history)) is bool(kind.history)
    assert kind.scale in ("max", "30min")


def test_each_scope_of_a_product_shows_something() -> None:
    """No scope is asked for without a type that needs it, and none that writes or streams."""
    for source in SOURCES:
        if not source.module_types:
            continue  # public stations, which any login may ask for
        assert {kind.scope for kind in source.module_types.values()} - {""} == set(source.scopes)
        assert all(re.fullmatch(r"read_\w+|\w+\.read", each) for each in source.scopes)


def kept(kind: str, entity_id: str = "m", **description: object) -> tuple[tuple[str, ...], str]:
    """(types, scale) of its history."""
    found = history_of(MODULE_TYPES, Entity("a", "module", entity_id, "h", "d", kind, description))
    return (found.history, found.scale) if found else ((), "")


NONE: tuple[tuple[str, ...], str] = ((), "")


@pytest.mark.parametrize(
    ("names", "history"),
    [
        ("NATherm1 OTM", (THERMOSTAT, "max")),
        ("NAPlug NRV OTH NAC BNS NAVaillant EBU", NONE),
        (" ".join(SECURITY.module_types), NONE),
        ("NLP NLPM NLPBS NLPO NLPT NLPC NLPS NLY NLC NLL NLF NLFN NLFE NLM NLIS NLLF NLPD",
         (METER, "30min")),
        ("NLE", (ECOMETER, "30min")),
        ("NLG NLGS NLV NLLV NLJ NLT NLTS NBR TPSRS Z3L BNIL BNCX BFII NXO", NONE),
    ],
)  # fmt: skip
def test_what_the_cloud_keeps(names: str, history: tuple[tuple[str, ...], str]) -> None:
    """Thermostats have samples, what measures power half hours, all others nothing."""
    assert {kept(name) for name in names.split()} == {history}


@pytest.mark.parametrize(
    ("kind", "entity_id", "history"),
    [
        ("NLY", "98:76:54:32:10:00:00:70", (METER, "30min")),
        *(("NLY", f"98:76:54:32:10:00:00:70#{phase}", NONE) for phase in (1, 2, 3)),
        ("NLIS", "98:76:54:32:10:00:00:71#1", (METER, "30min")),
        ("NLE", "00:04:74:3c:60:01", (ECOMETER, "30min")),
        *(("NLE", f"00:04:74:3c:60:01#{line}", (ECOMETER, "30min")) for line in range(6)),
        *(("NLE", f"00:04:74:3c:60:01#{line}", NONE) for line in (6, 7, 8)),
    ],
)
def test_phases_and_lines(kind: str, entity_id: str, history: tuple[tuple[str, ...], str]) -> None:
    """Of three phases the sum alone, of an ecometer the lines of electricity."""
    assert kept(kind, entity_id) == history


@pytest.mark.parametrize(
    ("description", "has"),
    [
        ({"module_types": ["NAMain", "NRV"]}, True),
        ({"module_types": ["BNS"]}, True),
        ({"module_types": ["NLP", "NACamera", "unknown"]}, False),
        ({"module_types": []}, False),
        ({"data_types": ["Temperature"]}, False),
        ({}, False),
    ],
)
def test_which_rooms_have_a_history(description: dict[str, object], has: bool) -> None:
    """Those in which a module of such a type stands."""
    room = Entity("a", "room", "17", "h", "", "room", description)

    assert history_of(MODULE_TYPES, room) is (ROOM if has else None)
    assert (ROOM.product, ROOM.scale) == ("energy", "30min")


def test_which_modules_give_a_room_its_history() -> None:
    """Thermostats, valves, Smarther and air conditioning."""
    given = {name for name, kind in MODULE_TYPES.items() if kind.room}

    assert given == {"NATherm1", "NRV", "OTM", "BNS", "NAC"}
    assert given <= set(ENERGY.module_types)


@pytest.mark.parametrize("kind", ["home", "person"])
def test_homes_and_persons_have_none(kind: str) -> None:
    """Whatever stands in their description."""
    assert history_of(MODULE_TYPES, Entity("a", kind, "x", "h", "", kind, {})) is None


def test_an_unknown_type_is_asked_by_its_data_types() -> None:
    """All that a `data_type` can name are instants, so it is asked for samples."""
    told = kept("NAModule9", data_types=["Rain", "Illuminance"])

    assert told == (("Rain",), "max")
    assert kept("NLX", data_types=["Illuminance"]) == NONE
    assert kept("NLX") == NONE
    assert "NLX" not in CONTROL.module_types
