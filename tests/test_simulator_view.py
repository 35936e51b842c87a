"""What can be seen of the world, against a slow definition row by row, for any mix of faults."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.simulator.faults import Fault, Switchboard
from netatmo_ingestd.simulator.view import View
from netatmo_ingestd.simulator.world import DAY, Module, World
from tests.clocks import START

NOW = int(START)
HOUR = 3_600
WORLD = World(7, 1, origin=NOW, days=3)
STATION = next(iter(WORLD.stations.values()))
UPLOADS = sorted({WORLD.uploaded(STATION, NOW - 2 * DAY + s) for s in range(0, 3 * DAY, 60)})


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """One that hides rows somewhere around NOW, armed a day before."""
    kind = draw(st.sampled_from(["gap", "offline", "offline", "late"]))
    begin = draw(st.integers(NOW - 6 * HOUR, NOW + 2 * HOUR))
    spec: dict[str, Any] = {"begin": begin, "end": begin + draw(st.integers(0, 4 * HOUR))}
    for name in draw(st.sampled_from([(), (), (), ("end",), ("begin",), ("begin", "end")])):
        spec[name] = None
    if kind == "offline":
        spec["buffered"] = draw(st.sampled_from([True, True, False]))
        spec["newest_first_s"] = draw(st.sampled_from([0, 900, 2 * HOUR, 5 * HOUR]))
    if kind == "late":
        spec["hours"] = draw(st.sampled_from([0.2, 3]))
    return Switchboard(0).arm({"kind": kind, **spec}, NOW - DAY)


def inside(fault: Fault, at: int) -> bool:
    begin, end = fault.params["begin"], fault.params["end"]
    if begin is None:
        begin = 0 if fault.kind == "gap" else fault.armed
    return bool(begin <= at and (end is None or at < end))


def carried(at: int, upload: int, uploads: list[int], armed: list[Fault]) -> bool:
    """Whether an upload that took place has brought the row stamped `at`."""
    if upload < at:
        return False
    for fault in armed:
        p = fault.params
        if fault.kind == "late" and inside(fault, at) and at + p["hours"] * HOUR > upload:
            return False
        if fault.kind == "offline" and p["end"] is not None:
            begin = fault.armed if p["begin"] is None else p["begin"]
            before = max((u for u in uploads if u < begin), default=0)
            waited = p["buffered"] and before < at < p["end"] and begin < p["end"]
            if waited and upload < p["end"] + p["newest_first_s"]:
                return False
    return True


def slowly(module: Module, now: int, armed: list[Fault]) -> list[int]:
    """Stamps of the last two days that can be seen at `now`, by the words of the documentation."""
    outages = [fault for fault in armed if fault.kind == "offline"]
    uploads = [u for u in UPLOADS if u <= now and not any(inside(o, u) for o in outages)]
    lost = [f for f in armed if f.kind == "gap" or (f in outages and not f.params["buffered"])]
    return [
        at
        for at, _ in WORLD.rows(module, NOW - DAY - HOUR, now)
        if not any(inside(fault, at) for fault in lost)
        and any(carried(at, upload, uploads, armed) for upload in uploads)
    ]


@settings(max_examples=150, deadline=None)
@given(armed=st.lists(faults(), max_size=3), late_s=st.integers(-2 * HOUR, 4 * HOUR))
def test_what_is_seen_is_what_the_faults_say(armed: list[Fault], late_s: int) -> None:
    """Rows, parts of them and the newest one follow from uploads, holes and delays alone."""
    module, now = STATION.modules[0], NOW + late_s
    view = View(WORLD, now, armed)

    seen = view.rows(module, NOW - DAY - HOUR, now)

    assert [at for at, _ in seen] == slowly(module, now, armed)
    middle = NOW - HOUR
    parts = view.rows(module, NOW - DAY - HOUR, middle) + view.rows(module, middle + 1, now)
    assert parts == seen
    if seen:
        assert view.newest(module) == seen[-1]
