"""World faults that a client of the whole history meets: holes, late rows, replaced modules."""

from __future__ import annotations

from typing import Any

import pytest

from netatmo_ingestd.simulator import dashboard, measure
from netatmo_ingestd.simulator.faults import Fault, Switchboard
from netatmo_ingestd.simulator.server import Plan
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import DAY, Module, Station, World
from tests.clocks import START
from tests.labs import Lab, error

NOW = int(START)
HOUR = 3_600


@pytest.fixture
def world() -> World:
    return World(7, 1, origin=NOW, days=60)


@pytest.fixture
def station(world: World) -> Station:
    return next(iter(world.stations.values()))


def armed(at: float = NOW, **spec: object) -> Fault:
    return Switchboard(0).arm(spec, at)


def stamps(view: View, module: Module, begin: float = 0) -> list[int]:
    return [at for at, _ in view.rows(module, begin, view.now)]


def measured(world: World, module: Module, begin: float, end: float) -> list[int]:
    """Stamps in [begin, end] of the plain world, seen or not."""
    return [at for at, _ in world.rows(module, begin, end)]


def thing(view: View, station: Station, module: Module) -> Any:
    """What getstationsdata says of a module or of the station itself."""
    body = dashboard.device(view, station)
    return next(each for each in (body, *body["modules"]) if each["_id"] == module.id)


def buckets(view: View, station: Station, module: Module, scale: str, **more: Any) -> list[int]:
    """Stamps that getmeasure gives, real_time=true, `last` by date_end."""
    params = {"device_id": station.id, "module_id": module.id, "scale": scale}
    params |= {"type": module.fields[0], "real_time": "true", **more}
    query = measure.read_query([(name, str(value)) for name, value in params.items()])
    return [at for at, _ in measure.points(query, module, station.zone, view)]


# --- gap -----------------------------------------------------------------------------------------


def test_a_gap_is_absent_at_every_scale(world: World, station: Station) -> None:
    """Rows of [begin, end) are nowhere, their neighbours are, and a bucket inside is missing."""
    module, begin, end = station.modules[0], NOW - 9 * DAY, NOW - 6 * DAY
    view = View(world, NOW, [armed(kind="gap", module=module.id, begin=begin, end=end)])

    seen = stamps(view, module, NOW - 12 * DAY)

    plain = stamps(View(world, NOW), module, NOW - 12 * DAY)
    assert seen == [at for at in plain if not begin <= at < end]
    assert len(seen) < len(plain) - 800
    window: dict[str, Any] = {"date_begin": NOW // DAY * DAY - 12 * DAY}
    days = buckets(view, station, module, "1day", **window)
    halves = buckets(view, station, module, "30min", **window)
    assert len(days) == len(buckets(View(world, NOW), station, module, "1day", **window)) - 2
    assert not [at for at in halves if begin <= at < end - 1_800]
    assert stamps(view, station.main) == stamps(View(world, NOW), station.main)


def test_a_gap_of_a_station_is_one_of_all_its_modules(world: World, station: Station) -> None:
    """Named by the station's id, the gap is in every series of it, and begins where told."""
    view = View(world, NOW, [armed(kind="gap", module=station.id, end=NOW - DAY)])

    first = {stamps(view, module)[0] for module in station.all}

    assert all(NOW - DAY <= at <= NOW - DAY + 320 for at in first)


def test_a_gap_until_now_freezes_the_dashboard_and_then_takes_it(
    world: World, station: Station
) -> None:
    """last_seen is the last row before the gap; after 75 minutes without news nothing is shown."""
    module = station.modules[0]
    fault = armed(kind="gap", module=module.id, begin=NOW)
    last = measured(world, module, NOW - HOUR, NOW - 1)[-1]
    moments = (NOW + 1_200, NOW + 3 * HOUR, NOW + 400 * DAY)

    shown = [thing(View(world, now, [fault]), station, module) for now in moments]

    assert [each["last_seen"] for each in shown] == [last] * 3
    assert len({each["last_message"] for each in shown}) == 1
    assert [each["reachable"] for each in shown] == [True, False, False]
    assert shown[0]["dashboard_data"]["time_utc"] == last
    assert "dashboard_data" not in shown[1]
    view = View(world, moments[2], [fault])
    assert buckets(view, station, module, "max", date_end="last") == [last]
    assert dashboard.device(view, station)["last_status_store"] > moments[2] - 700


def test_a_station_in_a_gap_stores_no_status(world: World, station: Station) -> None:
    """last_status_store is the upload that brought the last row of before."""
    fault = armed(kind="gap", module=station.id, begin=NOW)

    body = dashboard.device(View(world, NOW + DAY, [fault]), station)

    last = measured(world, station.main, NOW - HOUR, NOW - 1)[-1]
    assert body["last_status_store"] == world.next_upload(station, last)
    assert not body["reachable"]
    assert not [module for module in body["modules"] if module["reachable"]]


def test_a_gap_that_is_over_shows_nothing_until_the_first_row_behind_it(
    world: World, station: Station
) -> None:
    """The next upload after the end brings the module back."""
    module = station.modules[0]
    fault = armed(kind="gap", module=module.id, begin=NOW - DAY, end=NOW)
    back = world.next_upload(station, measured(world, module, NOW, NOW + HOUR)[0])

    before, after = (thing(View(world, at, [fault]), station, module) for at in (back - 1, back))

    assert (before["reachable"], after["reachable"]) == (False, True)
    assert before["last_seen"] < NOW - DAY <= NOW <= after["last_seen"]


def test_a_module_that_never_reported_has_nothing_to_show(world: World, station: Station) -> None:
    """Without begin and end: no rows at any scale, and what a never-paired module shows."""
    module = station.modules[0]
    view = View(world, NOW, [armed(kind="gap", module=module.id)])

    found = [
        buckets(view, station, module, scale, **window)
        for scale in ("max", "30min", "1day", "1month")
        for window in ({}, {"date_begin": 0}, {"date_end": "last"})
    ]

    assert found == [[]] * 12
    silent = thing(view, station, module)
    zeros = [silent[name] for name in ("last_seen", "last_message")]
    unknown = [silent[name] for name in ("firmware", "rf_status", "battery_vp")]
    assert (zeros, unknown) == ([0, 0], [255, 255, 65_535])
    assert not silent["reachable"]
    assert "dashboard_data" not in silent


# --- offline -------------------------------------------------------------------------------------


def test_offline_freezes_everything_at_the_last_upload(world: World, station: Station) -> None:
    """Rows, dashboard and last_status_store stay those of the last upload before `begin`."""
    fault = armed(kind="offline", module=station.id, begin=NOW, end=NOW + DAY)
    last = world.uploaded(station, NOW - 1)

    view = View(world, NOW + 2 * HOUR, [fault])

    body = dashboard.device(view, station)
    assert body["last_status_store"] == last
    assert body["dashboard_data"] == dashboard.device(View(world, last), station)["dashboard_data"]
    for module in station.all:
        assert stamps(view, module) == stamps(View(world, last), module)
    late = dashboard.device(View(world, NOW + 5 * HOUR, [fault]), station)
    assert "dashboard_data" not in late
    assert late["last_status_store"] == last


@pytest.mark.parametrize("buffered", [True, False])
def test_after_offline_rows_are_there_or_lost(
    world: World, station: Station, *, buffered: bool
) -> None:
    """The first upload after `end` brings all of it, or [begin, end) is absent for ever."""
    module, begin, end = station.modules[0], NOW, NOW + 6 * HOUR
    fault = armed(kind="offline", module=station.id, begin=begin, end=end, buffered=buffered)
    back = world.next_upload(station, end)

    before = stamps(View(world, back - 1, [fault]), module, NOW - DAY)
    after = stamps(View(world, back, [fault]), module, NOW - DAY)
    much_later = stamps(View(world, back + 90 * DAY, [fault]), module, NOW - DAY)

    assert before == measured(world, module, NOW - DAY, world.uploaded(station, NOW - 1))
    due = measured(world, module, NOW - DAY, back)
    assert after == [at for at in due if buffered or not begin <= at < end]
    assert much_later[: len(after)] == after


def test_buffered_rows_may_come_after_the_fresh_ones(world: World, station: Station) -> None:
    """With newest_first_s a client sees a row behind a hole before the hole fills."""
    module, end = station.modules[0], NOW + 6 * HOUR
    spec: dict[str, Any] = {"kind": "offline", "module": station.id, "begin": NOW, "end": end}
    fault = armed(**spec, newest_first_s=2 * HOUR)
    last, filled = world.uploaded(station, NOW - 1), world.next_upload(station, end + 2 * HOUR)

    hole = stamps(View(world, filled - 1, [fault]), module, NOW - DAY)
    whole = stamps(View(world, filled, [fault]), module, NOW - DAY)

    assert whole == measured(world, module, NOW - DAY, filled)
    assert hole == [at for at in whole if at <= last or end <= at <= hole[-1]]
    assert hole[-1] > end + HOUR
    view = View(world, world.next_upload(station, end), [fault])
    assert thing(view, station, module)["last_seen"] >= end


def test_an_outage_without_end_lasts_and_begins_when_armed(world: World, station: Station) -> None:
    """begin defaults to the arming, end to never; a module alone may be cut off."""
    module = station.modules[2]
    view = View(world, NOW + 90 * DAY, [armed(kind="offline", module=module.id)])

    seen = stamps(view, module, NOW - DAY)

    assert seen == measured(world, module, NOW - DAY, world.uploaded(station, NOW - 1))
    assert dashboard.device(view, station)["reachable"]


def test_overlapping_outages_are_one(world: World, station: Station) -> None:
    """No upload happens while either lasts, and what came before both stays visible."""
    windows = [(NOW, NOW + HOUR), (NOW + HOUR // 2, NOW + 3 * HOUR)]
    faults = [armed(kind="offline", begin=begin, end=end) for begin, end in windows]

    view = View(world, NOW + 2 * HOUR, faults)

    assert view.uploaded(station.main) == world.uploaded(station, NOW - 1)


# --- revised -------------------------------------------------------------------------------------


def test_a_value_is_revised_once_it_is_old_enough(world: World, station: Station) -> None:
    """With after_s a row shows its first value until now - after_s has passed its stamp."""
    module, now = station.modules[0], NOW + 600
    fault = armed(kind="revised", module=module.id, delta=2, after_s=3 * HOUR, begin=NOW - DAY)

    rows = View(world, now, [fault]).rows(module, NOW - 2 * DAY, now)

    plain = View(world, now).rows(module, NOW - 2 * DAY, now)
    changed = [a[0] for a, b in zip(plain, rows, strict=True) if a != b]
    assert changed == [at for at, _ in plain if NOW - DAY <= at <= now - 3 * HOUR]
    later = View(world, now + 3 * HOUR, [fault]).rows(module, NOW - DAY, now)
    assert all(
        b[1][0] == pytest.approx(a[1][0] + 2)
        for a, b in zip(world.rows(module, NOW - DAY, now), later, strict=False)
    )


# --- replaced and vanished -----------------------------------------------------------------------


@pytest.fixture
async def lab() -> Any:
    lab = Lab(Plan(seed=7, stations=2, days=30, origin=START))
    async with lab.http:
        await lab.login()
        yield lab


async def history(lab: Lab, module: Module) -> Any:
    query = {"device_id": module.station, "module_id": module.id, "type": module.fields[0]}
    return await lab.get("getmeasure", **query, scale="max", optimize="false")


async def expected(lab: Lab, module: Module) -> list[int]:
    answer = await lab.http.get("/simulator/expected", params={"module": module.id})
    return [at for at, _ in answer.json()["rows"]]


async def test_a_replaced_module_is_another_one_from_then_on(lab: Lab) -> None:
    """The old id is 404/9, the new one has the world's rows of its own from `at` on."""
    old, at = lab.station.modules[1], NOW - DAY
    new = lab.world.successor(old, at)
    await lab.arm("replaced", module=old.id, at=at)

    gone, rows = await history(lab, old), (await history(lab, new)).json()["body"]

    assert error(gone) == (404, 9)
    due = lab.world.samples(new, at, NOW, NOW)
    assert {int(stamp): value[0] for stamp, value in rows.items()} == {
        stamp: values[new.fields[0]] for stamp, values in due
    }
    assert 0 <= due[0][0] - at <= 320
    assert await expected(lab, new) == [stamp for stamp, _ in due]
    assert (await expected(lab, old))[-1] <= at
    [station, _] = await lab.devices()
    ids = [module["_id"] for module in station["modules"]]
    assert ids == [new.id if m is old else m.id for m in lab.station.modules]
    shown = station["modules"][1]
    assert (shown["type"], shown["module_name"], shown["last_setup"]) == (old.type, old.name, at)
    assert new.id[:8] == old.id[:8]


async def test_a_module_can_be_replaced_later_and_again(lab: Lab) -> None:
    """Before `at` nothing is different; a successor may be replaced in its turn."""
    old = lab.station.modules[0]
    first = lab.world.successor(old, NOW + HOUR)
    second = lab.world.successor(first, NOW + 2 * HOUR)
    await lab.arm("replaced", module=old.id, at=NOW + HOUR)
    await lab.arm("replaced", module=first.id, at=NOW + 2 * HOUR)

    seen = []
    for _ in range(3):
        seen.append((await lab.devices())[0]["modules"][0]["_id"])
        lab.clock.advance(HOUR)

    assert seen == [old.id, first.id, second.id]
    assert len({old.id, first.id, second.id}) == 3


async def test_a_vanished_module_has_no_history_either(lab: Lab) -> None:
    """Removed from the account, it is in no list and getmeasure does not know it."""
    [module, other] = lab.station.modules[:2]
    await lab.arm("vanished", module=module.id)

    answers = [await history(lab, each) for each in (module, other, lab.station.main)]

    assert error(answers[0]) == (404, 9)
    assert [answer.status_code for answer in answers[1:]] == [200, 200]
