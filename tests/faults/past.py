"""For tests of history: the journal of calls, and the store against what the cloud shows."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from netatmo_ingestd.coverages import to_coverage
from netatmo_ingestd.ledger import missing
from netatmo_ingestd.sources.quantities import UPSTREAM
from tests.faults.house import House, until

DAY = 86_400.0
PAGE = 1024
Call = dict[str, Any]


def journal(house: House, *purposes: str) -> list[Call]:
    """The data calls of these purposes, in order; of all without one."""
    calls: list[Call] = house.cloud.ask("GET", "requests")
    return [call for call in calls if not purposes or call["purpose"] in purposes]


def left(house: House) -> int | None:
    """Requests that history still needs, as `status` says; None before it knows."""
    report = house.status()
    if not report or not report["ledger"]["loaded"]:
        return None
    told = [each["history"] for each in report["modules"] if each["history"]]
    return sum(each["requests"] for each in told) if told else None


def filled(house: House, within: float) -> None:
    """Wait until nothing is missing, neither for the daemon nor in the ledger that is stored."""
    until(
        lambda: house.running.alive and left(house) == 0 and _is_stored(house),
        within=within,
        what=f"history is complete ({left(house)} requests left at first)",
        house=house,
        every=0.5,
    )


def _is_stored(house: House) -> bool:
    ledger = {**house.coverage("30min"), **house.coverage()}
    begins = {
        each["id"]: datetime.fromisoformat(each["history"]["since"])
        for each in house.status()["modules"]
        if each["history"] and each["history"]["since"]
    }
    return all(
        module in ledger
        and (coverage := to_coverage(ledger[module])) is not None
        and not missing(coverage, begin)
        for module, begin in begins.items()
    )


def holes(house: House, scale: str = "max") -> dict[str, list[Any]]:
    """What each module's stored ledger says is missing between its first and last answer."""
    found = {}
    for module, document in house.coverage(scale).items():
        coverage = to_coverage(document)
        assert coverage is not None
        if coverage.covered and (gaps := missing(coverage, coverage.covered[0][0])):
            found[module] = list(gaps)
    return found


def shown(house: House, module: str, begin: float, end: float) -> dict[int, dict[str, Any]]:
    """What the cloud shows of a module now in [begin, end], faults and all."""
    route = f"expected?module={module}&begin={int(begin)}&end={int(end)}"
    return dict(house.cloud.ask("GET", route)["rows"])


def stored(house: House, module: str) -> dict[int, dict[str, float]]:
    """The finest rows of a module in the store; none of them twice."""
    with house.database() as database:
        rows = list(database["measurements"].find({"module_id": module, "scale": "max"}))
    by_time = {int(row["time"].timestamp()): row["values"] for row in rows}
    assert len(by_time) == len(rows), f"{module} has rows twice"
    return by_time


def differences(house: House, module: str, begin: float, end: float) -> Counter[str]:
    """Rows in [begin, end] that are missing in the store, different, or were never shown."""
    cloud, here = shown(house, module, begin, end), stored(house, module)
    found: Counter[str] = Counter()
    for at, values in cloud.items():
        if at not in here:
            found["missing"] += 1
        elif any(
            here[at].get(UPSTREAM[name.lower()]) != float(value)
            for name, value in values.items()
            if name != "health_idx" and not (name == "WindAngle" and value < 0)
        ):
            found["different"] += 1
    found["unexpected"] += sum(begin <= at <= end and at not in cloud for at in here)
    return +found


def repeated(calls: list[Call]) -> dict[tuple[Any, ...], int]:
    """Windows that were answered more than once."""
    asked = Counter(
        (call["module"], call["scale"], call["begin"]) for call in calls if call["status"] == 200
    )
    return {window: count for window, count in asked.items() if count > 1}


def least_calls(house: House, modules: list[str]) -> int:
    """The fewest calls that hold all rows and day rows from the set-up up to now."""
    calls = 0
    for module in modules:
        rows = len(house.cloud.world.samples(module, 0, house.now, visible_at=house.now))
        days = (house.now - house.cloud.world.by_id[module].setup) / DAY
        calls += -(-rows // PAGE) + -(-int(days + 1) // PAGE)
    return calls
