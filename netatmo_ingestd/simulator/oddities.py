"""World faults that change what is said of a device; the rows stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.faults import Fault

Thing = dict[str, Any]
"""A device or a module as the answer shows it."""

GHOST: Thing = {
    "_id": "02:00:00:ff:ff:fe",
    "type": "NAModule1",
    "last_setup": 0,
    "data_type": ["Temperature", "Humidity"],
    "battery_percent": 100,
    "reachable": False,
    "firmware": 255,
    "last_message": 0,
    "last_seen": 0,
    "rf_status": 255,
    "battery_vp": 65535,
}
INJECTED: Mapping[str, Json] = {"$where": "1 == 1", "a.b": 3, "__proto__": {"admin": True}, "": 0}
DEPTH = 500
BIG = 17 * 1024 * 1024


def applied(devices: list[Thing], faults: list[Fault], now: float) -> list[Thing]:
    """`devices` (changed in place) with every fault that concerns them."""
    for fault in faults:
        if fault.kind in _WHOLE:
            devices = _WHOLE[fault.kind](devices, fault)
        elif fault.kind in _EACH:
            for thing in _touched(devices, fault):
                _EACH[fault.kind](thing, fault, now)
    return devices


def _touched(devices: list[Thing], fault: Fault) -> Iterator[Thing]:
    for device in devices:
        if fault.touches(device["_id"], device["_id"]):
            yield device
        for module in device.get("modules", ()):
            if fault.touches(module["_id"], device["_id"]):
                yield module


# --- the list of devices -----------------------------------------------------------------------


def _vanished(devices: list[Thing], fault: Fault) -> list[Thing]:
    """Gone from the answer; with no module named, everything is."""
    left = [d for d in devices if fault.params["module"] not in (None, d["_id"])]
    for device in filter(_has_modules, left):
        device["modules"] = [m for m in device["modules"] if m["_id"] != fault.params["module"]]
    return left


def _ghost(devices: list[Thing], fault: Fault) -> list[Thing]:
    """A module that was never paired, behind the named station or the first one."""
    for device in filter(_has_modules, devices):
        if fault.touches(device["_id"], device["_id"]):
            device["modules"].append(dict(GHOST))
            break
    return devices


def _twice(devices: list[Thing], fault: Fault) -> list[Thing]:
    """One module under a second station too, there without its dashboard."""
    for position, device in enumerate(filter(_has_modules, devices)):
        for module in device["modules"]:
            if fault.params["module"] in (None, module["_id"]):
                other = devices[(position + 1) % len(devices)]
                bare = {k: v for k, v in module.items() if k != "dashboard_data"}
                other["modules"].insert(0, bare | {"reachable": False})
                return devices
    return devices


def _has_modules(device: Thing) -> bool:
    return "modules" in device  # a coach has none


# --- one device or module ------------------------------------------------------------------------


def _no_name(thing: Thing, _fault: Fault, _now: float) -> None:
    thing.pop("module_name", None)
    if thing["type"] == "NHC":
        thing.pop("station_name", None)


def _missing(thing: Thing, fault: Fault, _now: float) -> None:
    """Drop `keys`; "dashboard_data.min_temp" reaches inside."""
    for key in fault.params["keys"]:
        *path, last = key.split(".")
        inner = thing
        for step in path:
            inner = inner.get(step, {})
        inner.pop(last, None)


def _unknown_type(thing: Thing, fault: Fault, _now: float) -> None:
    if thing["type"] != "NAMain" or fault.params["module"] == thing["_id"]:
        thing["type"] = fault.params["type"]


def _unknown_field(thing: Thing, fault: Fault, _now: float) -> None:
    if "dashboard_data" in thing:
        thing["dashboard_data"][fault.params["field"]] = fault.params["value"]


def _wrong_type(thing: Thing, fault: Fault, _now: float) -> None:
    field, where = fault.params["field"], fault.params["where"]
    if where in ("dashboard", "both") and field in thing.get("dashboard_data", {}):
        thing["dashboard_data"][field] = fault.params["value"]


def _key_injection(thing: Thing, _fault: Fault, _now: float) -> None:
    thing.update(INJECTED)
    if "dashboard_data" in thing:
        thing["dashboard_data"].update(INJECTED)


def _read_only(thing: Thing, _fault: Fault, _now: float) -> None:
    if thing["type"] in ("NAMain", "NHC"):
        thing["read_only"] = True


def _future(thing: Thing, fault: Fault, now: float) -> None:
    if fault.params["where"] in ("dashboard", "both") and "dashboard_data" in thing:
        thing["dashboard_data"]["time_utc"] = int(now + fault.params["ahead_s"])


def _poison(thing: Thing, fault: Fault, _now: float) -> None:
    """Values that a store cannot take: variant surrogate, int64, nul_key, deep or big."""
    match fault.params["variant"]:
        case "surrogate":
            thing["module_name"] = "half a pair \ud800"
        case "int64":
            thing["battery_vp"] = 2**63
        case "nul_key":
            thing.setdefault("dashboard_data", {})["NUL\x00"] = 1
        case "deep":
            thing["nested"] = _nested(DEPTH)
        case _:
            thing["module_name"] = "x" * BIG


def _nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = {"in": value}
    return value


_WHOLE: Mapping[str, Callable[[list[Thing], Fault], list[Thing]]] = {
    "vanished": _vanished,
    "ghost": _ghost,
    "twice": _twice,
}
_EACH: Mapping[str, Callable[[Thing, Fault, float], None]] = {
    "no_name": _no_name,
    "missing": _missing,
    "unknown_type": _unknown_type,
    "unknown_field": _unknown_field,
    "wrong_type": _wrong_type,
    "key_injection": _key_injection,
    "read_only": _read_only,
    "future": _future,
    "poison": _poison,
}
