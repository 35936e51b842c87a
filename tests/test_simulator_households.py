"""Simulated households: who stands in a home, and the scenario file that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator.__main__ import main
from netatmo_ingestd.simulator.household import HEATING, PRODUCTS, Household, Wanted, build
from netatmo_ingestd.simulator.scenario import EXAMPLE, products, read_scenario
from netatmo_ingestd.simulator.server import Plan
from netatmo_ingestd.simulator.server import build as cloud_of
from tests.clocks import START

BIG = Wanted(heating=HEATING, valves=5, cameras=3, meters=20, lines=9, persons=3, strangers=1)


def house(wanted: Wanted) -> Household:
    return build(7, "65800c1a7b2f4e0012ab34c1", "Europe/Paris", 1_700_000_000, wanted)


def kinds(household: Household) -> list[str]:
    return [each.type for each in household.devices]


def every_id(home: Household) -> list[str]:
    parts = [[r.id for r in home.rooms], [d.id for d in home.devices], [p.id for p in home.persons]]
    return [each for part in parts for each in part]


def written(folder: Path, text: str) -> Path:
    file = folder / "scenario.toml"
    file.write_text(text)
    return file


def test_a_usual_home_has_every_product() -> None:
    """Relay, thermostat and valves; cameras with tag and siren, alarms; wiring and shutters."""
    found = set(kinds(house(Wanted())))

    assert {"NAPlug", "NATherm1", "NRV"} <= found
    assert {"NACamera", "NACamDoorTag", "NIS", "NOC", "NSD", "NCO"} <= found
    assert {"NLG", "NLPC", "NLP", "NLPM", "NLPO", "NLY", "NLV", "NLLF", "NLT", "NLE"} <= found
    assert {"NBG", "NBR", "NBO"} <= found


def test_counts_are_those_that_are_wanted() -> None:
    """Valves, cameras, lines, persons; a meter is whatever of the gateway measures."""
    home = house(BIG)

    assert len(home.of_type("NRV")) == 5
    assert len(home.of_type("NACamera", "NOC", "NDB")) == 3
    assert [each.id.partition("#")[2] for each in home.of_type("NLE")] == ["", *"012345678"]
    meters = home.of_type("NLPC", "NLP", "NLPM", "NLPO", "NLPT", "NLF", "NLL", "NLM", "NLC")
    assert len(meters) == 20
    assert [each.name for each in home.persons] == ["Ana", "Bruno", "Clara", ""]


def test_each_heating_beside_the_thermostat_has_a_room_of_its_own() -> None:
    """OTM behind its relay, Smarther and air conditioning without one; all rooms are measured."""
    home = house(BIG)

    rooms = [each.room_id for each in home.of_type("NATherm1", "NRV", "OTM", "BNS", "NAC")]
    assert len(set(rooms)) == len(rooms) == 9
    assert {each.id for each in home.warmed()} == set(rooms)
    (modulating,) = home.of_type("OTM")
    assert modulating.bridge == home.of_type("OTH")[0].id
    assert [each.bridge for each in home.of_type("BNS", "NAC")] == [None, None]
    assert {"read_thermostat", "read_smarther"} <= set(home.scopes)


def test_a_home_without_thermostat_has_no_valves() -> None:
    home = house(Wanted(("energy",), heating=("smarther",)))

    assert kinds(home) == ["BNS"]
    assert home.scopes == ("read_smarther",)


def test_more_of_one_kind_leaves_the_others_as_they_are() -> None:
    """A second heating does not change which devices a home had."""
    plain, more = house(Wanted(("energy",))), house(Wanted(("energy",), heating=HEATING))

    assert more.devices[: len(plain.devices)] == plain.devices
    assert more.rooms[: len(plain.rooms)] == plain.rooms


def test_ids_are_unique_and_follow_from_seed_and_home() -> None:
    home, other = house(BIG), build(7, "65800c1a7b2f4e0012ab34c2", "Europe/Paris", 0, BIG)

    ids = every_id(home)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(every_id(other))
    assert house(BIG) == home


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_alone_brings_its_own_devices(product: str) -> None:
    """No relay in a home of cameras, no camera in one of meters; persons come with cameras."""
    home = house(Wanted((product,)))

    first = {"energy": "NAPlug", "security": "NACamera", "control": "NLG"}
    assert [kind for kind in first.values() if kind in kinds(home)] == [first[product]]
    assert bool(home.persons) == (product == "security")


# --- the scenario file ---------------------------------------------------------------------------


def test_a_scenario_tells_each_home_in_turn(tmp_path: Path) -> None:
    """Counts and names of the first, the usual ones of the second; more stations have nothing."""
    text = '[[homes]]\nproducts = ["energy"]\nheating = ["air"]\nvalves = 5\n[[homes]]\n'
    file = written(tmp_path, text)

    assert read_scenario(file) == (Wanted(("energy",), heating=("air",), valves=5), Wanted())
    world = cloud_of(Plan(stations=3, days=2, origin=START, scenario=file)).world
    stations = [each.home_id for each in world.stations.values()]
    assert list(world.households) == stations[:2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[homes]\n", "write [[homes]] sections"),
        ("homes = 3\n", "expected [[homes]] sections and nothing else"),
        ("[[homes]]\n[other]\n", "expected [[homes]] sections and nothing else"),
        ("[[homes]]\nvalve = 3\n", "'valve' is none of"),
        ("[[homes]]\nvalve = 3\n", "did you mean valves?"),
        ("[[homes]]\nvalves = -1\n", "homes[0]: valves = -1 is no number from 0 to 200"),
        ("[[homes]]\nvalves = true\n", "valves = True is no number"),
        ("[[homes]]\n[[homes]]\nlines = 10\n", "homes[1]: lines = 10 is no number from 0 to 9"),
        ('[[homes]]\nproducts = "energy"\n', "products = 'energy' is no list of names"),
        ('[[homes]]\nproducts = ["enrgy"]\n', "did you mean energy?"),
        ('[[homes]]\nheating = ["gas"]\n', "heating: 'gas' is none of thermostat"),
    ],
)
def test_a_bad_scenario_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    """It names the file, the home, what was read and what there is."""
    file = written(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        read_scenario(file)

    assert problem in str(refused.value)
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)


def test_a_home_without_a_station_is_refused(tmp_path: Path) -> None:
    """More homes than stations: none is dropped in silence."""
    file = written(tmp_path, "[[homes]]\n[[homes]]\n")

    with pytest.raises(ConfigError, match="2 homes, but --stations 1"):
        cloud_of(Plan(stations=1, days=2, origin=START, scenario=file))


def test_the_help_shows_a_scenario_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --help prints as an example is read without an objection."""
    with pytest.raises(SystemExit):
        main(["--help"])

    shown = capsys.readouterr().out
    assert EXAMPLE in shown
    assert read_scenario(written(tmp_path, EXAMPLE))[0].strangers == 1


def test_products_of_the_command_line() -> None:
    assert products("energy, control,") == ("energy", "control")
    with pytest.raises(ConfigError, match="did you mean security"):
        products("securty")


def test_the_process_refuses_an_unknown_product(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr and the exit code of a bad setting; nothing is served."""
    code = main(["--products", "lighting"])

    captured = capsys.readouterr()
    assert code == ConfigError.exit_code
    assert captured.err.startswith("products: 'lighting' is none of energy")
    assert captured.out == ""
