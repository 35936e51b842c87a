"""The time zones of the simulated stations."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator import dashboard, measure
from netatmo_ingestd.simulator.__main__ import main
from netatmo_ingestd.simulator.server import Plan, build
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import DAY, World

NOW = 1_760_000_000  # 2025-10-09 08:53:20 UTC
ZONES = ("America/St_Johns", "Australia/Lord_Howe")


def a_world(**options: Any) -> World:
    return World(7, **{"stations": 1, "origin": NOW, "days": 60, **options})


def test_stations_live_by_the_given_time_zones_in_turn() -> None:
    """Station k has the k-th name; ids, places and values are those of the plain world."""
    plain, world = a_world(stations=3), a_world(stations=3, timezones=ZONES)

    zones = [station.place.timezone for station in world.stations.values()]

    assert zones == [ZONES[0], ZONES[1], ZONES[0]]
    assert [s.place.city for s in world.stations.values()] == ["Nantes", "Frankfurt", "Lisboa"]
    for module in world.modules():
        rows = world.samples(module.id, NOW - 7_200, NOW)
        assert rows == plain.samples(module.id, NOW - 7_200, NOW)


def test_a_plan_hands_its_time_zones_to_the_world() -> None:
    """The dashboard names the zone, and day buckets begin at its midnights."""
    world = build(Plan(seed=7, stations=2, origin=NOW, days=60, timezones=ZONES)).world
    station = list(world.stations.values())[1]
    params = [("device_id", station.id), ("scale", "1day"), ("type", "co2"), ("real_time", "true")]
    query = measure.read_query([*params, ("date_begin", str(NOW - 30 * DAY))])

    found = measure.points(query, station.main, station.zone, View(world, NOW))

    shown = dashboard.device(View(world, NOW), station)
    assert shown["place"]["timezone"] == "Australia/Lord_Howe"
    starts = [datetime.fromtimestamp(at, ZoneInfo("Australia/Lord_Howe")) for at, _ in found]
    assert {(t.hour, t.minute) for t in starts} == {(0, 0)}
    # There, summer time moves the clock by half an hour.
    widths = {b - a for (a, _), (b, _) in itertools.pairwise(found)}
    assert widths == {DAY, DAY - 1_800}


@pytest.mark.parametrize(
    ("names", "cure"),
    [
        (("Europe/Berlin", "Europe/Pariss"), "'Europe/Pariss' is unknown. Take .* Europe/Paris"),
        (("",), "'' is unknown. Take an IANA name such as Europe/Paris"),
        (("../passwd",), "is unknown"),
    ],
)
def test_an_unknown_time_zone_is_a_configuration_error(names: tuple[str, ...], cure: str) -> None:
    """One line names it and a name that would do."""
    with pytest.raises(ConfigError, match=cure):
        build(Plan(timezones=names))


def test_the_command_line_splits_time_zones_at_commas(capsys: pytest.CaptureFixture[str]) -> None:
    """--timezones A,B is two names; the unknown one is told on one line, with exit code 2."""
    code = main(["--timezones", "Asia/Kathmandu, Mars/Olympus"])

    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert "'Mars/Olympus' is unknown" in said
