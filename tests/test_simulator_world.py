"""The simulated world and its history, by values: nothing listens, nothing waits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netatmo_ingestd.simulator import dashboard, measure
from netatmo_ingestd.simulator.answers import CallError
from netatmo_ingestd.simulator.faults import Fault, Switchboard
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import DAY, Module, Station, World

NOW = 1_760_000_000  # 2025-10-09 08:53:20 UTC
PARIS = ZoneInfo("Europe/Paris")


def a_world(**options: Any) -> World:
    return World(7, **{"stations": 2, "origin": NOW, "days": 60, **options})


def the_station(world: World) -> Station:
    return next(iter(world.stations.values()))


def of_type(world: World, kind: str) -> Module:
    return next(m for m in the_station(world).all if m.type == kind)


def ask(world: World, module: Module, now: int = NOW, **arguments: Any) -> object:
    """The body that getmeasure gives, with optimize=false and real_time=true unless told."""
    plain = {"device_id": module.station, "module_id": module.id, "scale": "max"}
    plain |= {"type": "temperature", "optimize": "false", "real_time": "true"}
    params = {**plain, **arguments}
    query = measure.read_query([(name, str(value)) for name, value in params.items()])
    return measure.shape(measure.points(query, module, PARIS, View(world, now)), query)


def rows_of(body: object) -> dict[int, list[object]]:
    assert isinstance(body, dict)
    return {int(at): values for at, values in body.items()}


def seen(world: World, module: Module, begin: float, end: float) -> list[tuple[int, object]]:
    """(stamp, first value) of the samples visible at NOW."""
    first = module.fields[0]
    return [(at, values[first]) for at, values in world.samples(module.id, begin, end, NOW)]


# --- the world ---------------------------------------------------------------------------------


def test_same_seed_gives_the_same_samples_in_any_order() -> None:
    """A value depends on seed, module and time only, not on what was asked before."""
    one, two = a_world(), a_world()
    module = of_type(one, "NAModule4")
    one.samples(module.id, NOW - 9 * DAY, NOW)

    late = one.samples(module.id, NOW - DAY, NOW)

    assert late == two.samples(module.id, NOW - DAY, NOW)


def test_another_seed_gives_other_values() -> None:
    """Two seeds never describe the same home."""
    one, two = World(1, origin=NOW), World(2, origin=NOW)

    values = [[v for _, v in w.samples(the_station(w).id, NOW - DAY, NOW)] for w in (one, two)]

    assert values[0] != values[1]


def test_a_station_has_seven_modules_with_the_prefixes_of_their_types() -> None:
    """Ids follow section 4.6 and are unique over all stations."""
    world = a_world(stations=300)

    modules = world.modules()

    prefixes = {"NAMain": "70:ee:50", "NAModule1": "02:00:00", "NAModule2": "06:00:00"}
    prefixes |= {"NAModule3": "05:00:00", "NAModule4": "03:00:00"}
    assert len({m.id for m in modules}) == 300 * 7
    assert all(m.id.startswith(prefixes[m.type]) for m in modules)


@given(seed=st.integers(0, 2**31), start=st.integers(0, 4_000_000))
def test_stamps_ascend_with_jitter_of_ten_seconds(seed: int, start: int) -> None:
    """Neighbouring samples are 280 to 320 seconds apart, for any seed at any time."""
    world = World(seed, origin=NOW)
    module = world.modules()[seed % 7]

    stamps = [world.stamp(module, k) for k in range(start, start + 50)]

    assert all(280 <= b - a <= 320 for a, b in itertools.pairwise(stamps))


def test_samples_are_complete_over_the_edges_of_days() -> None:
    """Asking day by day brings the same rows as asking at once, none twice."""
    world = a_world()
    module = of_type(world, "NAModule1")
    edges = range(NOW - 5 * DAY, NOW, 7_777)

    parts = [world.samples(module.id, a, b - 1) for a, b in itertools.pairwise(edges)]

    whole = world.samples(module.id, edges[0], edges[-1] - 1)
    assert list(itertools.chain.from_iterable(parts)) == whole
    assert len(whole) == pytest.approx((edges[-1] - edges[0]) / 300, abs=2)


def test_nothing_exists_before_setup() -> None:
    """History begins at the setup date of each module."""
    world = a_world(days=3)
    module = of_type(world, "NAModule3")

    first = world.samples(module.id, 0, NOW)[0][0]

    assert 0 <= first - module.setup <= 320


def test_samples_wait_for_the_upload() -> None:
    """A sample is visible from its station's next upload on, ten minutes apart, and not before."""
    world = a_world()
    station = the_station(world)
    uploads = sorted({world.uploaded(station, NOW + s) for s in range(0, 7_200, 5)})

    before = world.samples(station.id, NOW - DAY, NOW + DAY, visible_at=uploads[3] - 1)
    after = world.samples(station.id, NOW - DAY, NOW + DAY, visible_at=uploads[3])

    assert all(570 <= b - a <= 630 for a, b in itertools.pairwise(uploads))
    assert len(after) - len(before) == 2
    assert after[-1][0] <= uploads[3] < after[-1][0] + 15


def test_values_stay_in_the_ranges_of_the_sensors() -> None:
    """Sixty days of every type stay plausible; calm wind has angle -1, rain comes in tips."""
    world = a_world()
    ranges = {"Temperature": (-25, 40), "CO2": (350, 3000), "Humidity": (5, 100)}
    ranges |= {"Noise": (30, 80), "Pressure": (960, 1060), "Rain": (0, 2)}
    ranges |= {"WindStrength": (0, 80), "GustStrength": (0, 120), "GustAngle": (0, 359)}

    for module in the_station(world).all:
        for _, values in world.samples(module.id, 0, NOW):
            for name, value in values.items():
                low, high = ranges.get(name, (-1, 359))
                assert low <= value <= high
            assert values.get("WindStrength", 1) != 0 or values["WindAngle"] == -1
            tips = values.get("Rain", 0) / 0.101
            assert tips == pytest.approx(round(tips))


# --- getmeasure --------------------------------------------------------------------------------


def test_max_gives_the_rows_of_the_window_both_ends_included() -> None:
    """At scale max each row is a sample, and date_begin and date_end belong to the window."""
    world = a_world()
    module = of_type(world, "NAModule1")
    expected = seen(world, module, NOW - DAY, NOW)
    begin, end = expected[10][0], expected[20][0]

    body = rows_of(ask(world, module, date_begin=begin, date_end=end))

    assert body == {at: [value] for at, value in expected[10:21]}


def test_columns_follow_the_order_asked_whatever_the_case() -> None:
    """Types are case-insensitive, comma lists or repeated, and keep their order."""
    world = a_world()
    main = the_station(world).main
    params = [("device_id", main.id), ("scale", "max"), ("type", "PRESSURE,co2")]
    query = measure.read_query([*params, ("type", "Temperature"), ("date_end", "last")])

    [(at, values)] = measure.points(query, main, PARIS, View(world, NOW))

    sample = dict(world.samples(main.id, at, at))[at]
    assert values == [sample["Pressure"], sample["CO2"], sample["Temperature"]]


def test_a_page_holds_the_oldest_1024_rows() -> None:
    """The limit is 1024 whatever is asked, oldest first; a smaller one is honoured."""
    world = a_world()
    module = of_type(world, "NAModule1")
    stamps = [at for at, _ in seen(world, module, 0, NOW)]

    pages = [list(rows_of(ask(world, module, limit=n))) for n in (5000, 3)]

    assert pages == [stamps[:1024], stamps[:3]]


def test_paging_by_last_stamp_plus_one_brings_every_row_once() -> None:
    """The documented paging at scale max is lossless."""
    world = a_world(days=12)
    module = of_type(world, "NAModule2")
    got: list[int] = []
    begin = 0

    while body := ask(world, module, type="windangle", date_begin=begin):
        got += rows_of(body)
        begin = got[-1] + 1

    assert got == [at for at, _ in seen(world, module, 0, NOW)]


@pytest.mark.parametrize("optimize", ["true", "false"])
@pytest.mark.parametrize(
    "window",
    [
        {"date_begin": NOW + 50_000},
        {"date_begin": NOW - 100, "date_end": NOW - 200},
        {"date_begin": 1, "date_end": 2},
        {"type": "rain"},
    ],
)
def test_nothing_found_is_an_empty_list(optimize: str, window: dict[str, Any]) -> None:
    """Future, reversed or empty windows and inapplicable types give [] in both modes."""
    world = a_world()

    body = ask(world, of_type(world, "NAModule1"), optimize=optimize, **window)

    assert body == []


def test_a_type_of_other_modules_is_a_null_column() -> None:
    """CO2 of an outdoor module, or energy of a thermometer, is null beside its neighbours."""
    world = a_world()
    module = of_type(world, "NAModule1")
    types = "co2,humidity,sum_energy_elec$1,min_temp"

    body = rows_of(ask(world, module, type=types, date_end="last"))

    [values] = body.values()
    assert [value is None for value in values] == [True, False, True, True]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"scale": ""}, 400, 10),
        ({"type": ""}, 400, 10),
        ({"device_id": ""}, 400, 10),
        ({"scale": "2hours"}, 400, 21),
        ({"type": "temperature,ozone"}, 400, 21),
        ({"limit": "many"}, 400, 21),
        ({"date_begin": "yesterday"}, 400, 25),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], status: int, code: int) -> None:
    """Missing arguments are code 10, unknown names 21, unreadable dates 25."""
    world = a_world()

    with pytest.raises(CallError) as refused:
        ask(world, of_type(world, "NAModule1"), **change)

    assert (refused.value.status, refused.value.code) == (status, code)


def test_half_hours_are_counted_from_date_begin() -> None:
    """date_begin sets the grid; a bucket holds the mean of its samples, in tenths."""
    world = a_world()
    module = of_type(world, "NAModule1")
    begin = NOW - DAY + 17

    body = rows_of(ask(world, module, scale="30min", date_begin=begin, date_end=begin + 3_600))

    assert list(body) == [begin, begin + 1_800, begin + 3_600]
    inside = [value for _, value in seen(world, module, begin, begin + 1_799)]
    assert len(inside) in (5, 6, 7)
    assert body[begin] == [pytest.approx(sum(inside) / len(inside), abs=0.0501)]  # type: ignore[arg-type]


def test_without_date_begin_the_grid_is_utc() -> None:
    """An open window begins with the oldest bucket, aligned to UTC."""
    world = a_world()
    module = of_type(world, "NAModule1")

    stamps = list(rows_of(ask(world, module, scale="3hours", limit=5)))

    assert stamps[0] <= module.setup + 320 < stamps[0] + 10_800 + 320
    assert all(at % 10_800 == 0 for at in stamps)


def test_default_stamps_are_the_middle_of_the_bucket() -> None:
    """real_time=false shifts after filtering, so a stamp may lie behind date_end."""
    world = a_world()
    module = of_type(world, "NAModule1")
    window: dict[str, Any] = {"scale": "1hour", "date_begin": NOW - 7_200, "date_end": NOW - 3_600}

    plain = rows_of(ask(world, module, **window))
    shifted = rows_of(ask(world, module, real_time="false", **window))

    assert [at + 1_800 for at in plain] == list(shifted)
    assert max(shifted) > NOW - 3_600
    assert list(plain.values()) == list(shifted.values())


def test_day_buckets_lie_between_local_midnights_over_a_clock_change() -> None:
    """On the day summer time ends a bucket has 25 hours; starts are local midnights."""
    world = World(7, 1, origin=1_762_000_000, days=20)
    module = of_type(world, "NAModule1")
    begin = datetime(2025, 10, 25, tzinfo=PARIS).timestamp()

    body = rows_of(ask(world, module, 1_762_000_000, scale="1day", date_begin=int(begin), limit=3))

    starts = list(body)
    assert [b - a for a, b in itertools.pairwise(starts)] == [DAY, 25 * 3_600]
    assert all(datetime.fromtimestamp(at, PARIS).hour == 0 for at in starts)


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """Weeks and months follow the local calendar; a default week stamp is Thursday noon."""
    world = a_world()
    module = of_type(world, "NAModule4")

    weeks = rows_of(ask(world, module, scale="1week", real_time="false"))
    months = rows_of(ask(world, module, scale="1month"))

    days = [datetime.fromtimestamp(at, PARIS) for at in weeks]
    assert {(d.weekday(), d.hour) for d in days} == {(3, 12)}
    assert [datetime.fromtimestamp(at, PARIS).day for at in months] == [1] * len(months)
    assert len(months) == 3


def test_extremes_of_a_day_come_with_their_times() -> None:
    """min, max and their dates agree with the samples of the day, sums with the rain."""
    world = a_world()
    module, rain = of_type(world, "NAModule1"), of_type(world, "NAModule3")
    day = int(datetime(2025, 10, 1, tzinfo=PARIS).timestamp())
    types = "min_temp,max_temp,date_min_temp,date_max_temp"

    [values] = rows_of(
        ask(world, module, scale="1day", type=types, date_begin=day, date_end=day)
    ).values()
    [total] = rows_of(
        ask(world, rain, scale="1day", type="sum_rain", date_begin=day, date_end=day)
    ).values()

    samples = seen(world, module, day, day + DAY - 1)
    lowest = min(samples, key=lambda s: (s[1], s[0]))
    highest = max(samples, key=lambda s: (s[1], -s[0]))
    assert values == [lowest[1], highest[1], lowest[0], highest[0]]
    drops = [value for _, value in seen(world, rain, day, day + DAY - 1)]
    assert total == [pytest.approx(sum(drops))]  # type: ignore[arg-type]


def test_the_last_point_is_the_newest_visible_one() -> None:
    """date_end=last gives one point, whatever else is asked."""
    world = a_world()
    module = of_type(world, "NAModule1")
    newest = seen(world, module, NOW - DAY, NOW)[-1]

    body = rows_of(ask(world, module, date_begin=5, date_end="last"))

    assert body == {newest[0]: [newest[1]]}


def unrolled(body: object) -> dict[int, Sequence[object]]:
    """Optimized segments as stamps and values."""
    assert isinstance(body, list)
    return {
        segment["beg_time"] + i * segment.get("step_time", 0): values
        for segment in body
        for i, values in enumerate(segment["value"])
    }


@pytest.mark.parametrize("scale", ["max", "30min", "1day", "1month"])
def test_segments_unroll_to_the_plain_rows(scale: str) -> None:
    """optimize=true says the same as optimize=false; only longer segments have a step_time."""
    world = a_world()
    module = of_type(world, "NAModule4")

    segments = ask(world, module, scale=scale, type="co2", optimize="true")
    plain = rows_of(ask(world, module, scale=scale, type="co2"))

    assert unrolled(segments) == plain
    assert isinstance(segments, list)
    assert all(("step_time" in s) == (len(s["value"]) > 1) for s in segments)


def test_a_gap_ends_a_segment() -> None:
    """Buckets without samples are missing, and the run begins anew behind them."""
    query = measure.read_query([("device_id", "x"), ("scale", "1hour"), ("type", "co2")])
    found: list[measure.Point] = [(0, [1]), (3_600, [2]), (14_400, [3]), (21_600, [4])]

    body = measure.shape(found, query)

    assert body == [
        {"beg_time": 0, "step_time": 3_600, "value": [[1], [2]]},
        {"beg_time": 14_400, "value": [[3]]},
        {"beg_time": 21_600, "value": [[4]]},
    ]


# --- the dashboard -------------------------------------------------------------------------------


def test_the_dashboard_shows_the_newest_uploaded_sample() -> None:
    """Each module shows its last visible row, stamped as in the history."""
    world = a_world()
    station = the_station(world)

    body = dashboard.device(View(world, NOW), station)

    for thing in (body, *body["modules"]):
        at, values = world.samples(thing["_id"], NOW - DAY, NOW, NOW)[-1]
        assert thing["dashboard_data"]["time_utc"] == at
        assert values.items() <= thing["dashboard_data"].items()


def test_extremes_and_rain_count_from_local_midnight() -> None:
    """Seven minutes after midnight the day's extremes are those of seven minutes."""
    world = a_world()
    station = the_station(world)
    rain, outdoor = of_type(world, "NAModule3"), of_type(world, "NAModule1")
    midnight = int(datetime(2025, 10, 3, tzinfo=station.zone).timestamp())

    for now in (midnight + 420, midnight + 80_000):
        view = View(world, now)
        board = dashboard.dashboard(view, station, outdoor)
        fall = dashboard.dashboard(view, station, rain)

        assert board is not None
        assert fall is not None
        start = datetime.fromtimestamp(board["time_utc"], station.zone)
        start = start.replace(hour=0, minute=0, second=0)
        today = world.samples(outdoor.id, start.timestamp(), now, now)
        assert board["min_temp"] == min(v["Temperature"] for _, v in today)
        assert dict(today)[board["date_max_temp"]]["Temperature"] == board["max_temp"]
        hour = [v["Rain"] for _, v in world.samples(rain.id, fall["time_utc"] - 3_599, now, now)]
        assert fall["sum_rain_1"] == pytest.approx(sum(hour), abs=0.001)


@pytest.mark.parametrize(
    ("kind", "millivolt", "percent"),
    [
        # recorded pairs of netatmo-api 9 that fit the formula, and values out of range
        ("NAModule4", 5687, 83),
        ("NAModule4", 4112, 0),
        ("NAModule2", 5947, 97),
        ("NAModule1", 6198, 100),
        ("NAModule1", 65535, 100),
    ],
)
def test_battery_percent_follows_the_formula(kind: str, millivolt: int, percent: int) -> None:
    """Percent is the rounded share of the type's range, held between 0 and 100."""
    assert dashboard.battery_percent(kind, millivolt) == percent


# --- world faults and what is visible -----------------------------------------------------------


def armed(**spec: object) -> Fault:
    return Switchboard(0).arm(spec, NOW)


def test_late_rows_appear_hours_after_their_neighbours() -> None:
    """A late window is missing at first and complete once the delay is over."""
    world = a_world()
    module = of_type(world, "NAModule1")
    window: dict[str, Any] = {"begin": NOW - 7_200, "end": NOW - 3_600}
    fault = armed(kind="late", module=module.id, hours=6, **window)

    early = View(world, NOW, [fault]).rows(module, NOW - DAY, NOW)
    later = View(world, NOW + 6 * 3_600, [fault]).rows(module, NOW - DAY, NOW)

    assert not [at for at, _ in early if NOW - 7_200 <= at < NOW - 3_600]
    assert early[-1][0] > NOW - 1_200
    assert later == world.rows(module, NOW - DAY, NOW)


def test_a_revised_value_is_seen_everywhere_in_its_window_only() -> None:
    """A correction changes one quantity inside its window and leaves the rest."""
    world = a_world()
    module = of_type(world, "NAModule4")
    fault = armed(kind="revised", module=module.id, type="CO2", delta=100, begin=NOW - 3_600)

    plain = View(world, NOW).rows(module, NOW - 7_200, NOW)
    revised = View(world, NOW, [fault]).rows(module, NOW - 7_200, NOW)

    changed = [a[0] for a, b in zip(plain, revised, strict=True) if a != b]
    assert changed == [at for at, _ in plain if at >= NOW - 3_600]
    assert revised[-1][1] == (plain[-1][1][0], plain[-1][1][1] + 100, plain[-1][1][2])


def test_an_unreachable_module_is_silent_from_the_moment_on() -> None:
    """No dashboard, reachable false, last_seen stands still, and no newer rows."""
    world = a_world()
    station = the_station(world)
    module = station.modules[1]
    fault = armed(kind="unreachable", module=module.id)
    view = View(world, NOW + DAY, [fault])

    body = dashboard.device(view, station)

    silent = next(m for m in body["modules"] if m["_id"] == module.id)
    assert "dashboard_data" not in silent
    assert not silent["reachable"]
    assert NOW - 1_000 < silent["last_seen"] <= NOW
    assert view.newest(module) == View(world, NOW).newest(module)
    assert body["reachable"]
