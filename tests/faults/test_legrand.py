"""Accounts of both clouds side by side: a week of them, and one's trouble is its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, tell
from tests.faults.offices import office, stored, told, waits

pytestmark = pytest.mark.faults
HOUR, DAY = 3600, 86_400
PER_DAY = 450
POLL = 15 * 60


@pytest.mark.timeout(600)
def test_a_week_of_both_clouds(tmp_path: Path) -> None:
    """More is asked than a day allows: stretched, never more; all complete; each code once."""
    with office(tmp_path, speed=4000, poll={"smarther": "5m"}) as house:
        house.start()
        waits(house, "the portal is read", lambda: len(told(house)["by_endpoint"]) >= 6)
        house.mark()
        begin = house.now
        while house.now < begin + 7 * DAY:
            assert house.running.alive, house.tail()
            time.sleep(0.5)
        end = house.now
        waits(house, "the last measures are there", lambda: house.now > end + 3 * HOUR)
        moment = house.settle()
        compared = house.compare(moment)
        report = told(house, begin, end)
        # A poll that is on its way has its place in the store yet to come.
        measures = check_measures(house, report["measures"])
        states = check_states(house, report["served"])
        events = check_failures(house, report["failures"], begin, end)
        check_codes(house, told(house, begin - DAY, house.now))
        status = house.status()
        house.check_secrets()
    tell(f"{report['calls']}, {report['by_endpoint']}; {measures} measures, {states} states, "
         f"{events} events, {len(report['decoded'])} codes; {compared.expected} rows")  # fmt: skip
    assert not compared.faults, compared.faults
    days = sorted(report["calls"].values())
    assert 380 <= days[-2] <= days[-1] <= PER_DAY
    assert 1.6 < status["accounts"]["building"]["stretch"] < 1.9
    assert report["over_quota"] == 0
    assert status["accounts"]["building"]["budget"]["per_day"] == PER_DAY
    assert set(status["accounts"]["building"]["products"]) == {"emergency", "smarther"}


def check_measures(house: House, expected: Mapping[str, list[list[float]]]) -> int:
    """Each measure of the thermostats is stored once with its values."""
    count = 0
    for module_id, rows in expected.items():
        found = {
            row["time"].timestamp(): row["values"]
            for row in stored(house, "measurements", module_id=module_id, scale="max")
        }
        for at, warmth, humidity in rows:
            values = found[at]
            assert values["temperature"] == pytest.approx(warmth, abs=0.01)
            assert values["humidity"] == humidity
            count += 1
    return count


def check_states(house: House, served: list[tuple[str, int, dict[str, Any]]]) -> int:
    """At each moment at which a state was told, the store has it."""
    documents: dict[str, list[dict[str, Any]]] = {}
    for each in stored(house, "states"):
        documents.setdefault(each["entity_id"], []).append(each)
    assert len(served) > 500
    for module_id, at, state in served:
        values = next(
            each["values"]
            for each in documents[module_id]
            if each["time"].timestamp() - 2 <= at <= each["until"].timestamp() + 2
            and each["values"]["mode"] == state["mode"].lower()
        )
        assert values["setpoint_temperature"] == pytest.approx(state["set_point"], abs=0.01)
        assert values["program"] == state["program"]
        assert values["boiler"] is state["load"]
        assert values["reachable"] is state["online"]
    return sum(map(len, documents.values()))


def check_failures(house: House, expected: list[dict[str, Any]], begin: float, end: float) -> int:
    """Of each failure an event when it appeared, and one when it cleared, within a poll."""
    found = [
        (each["module_id"], each["type"], each["meaning"], each["time"].timestamp())
        for each in stored(house, "events")
    ]
    assert len(expected) > 20
    wanted = 0
    late = 3 * POLL  # polls are stretched, and may wait behind others
    for each in expected:
        for kind, at in (("failure_appeared", each["begin"]), ("failure_cleared", each["end"])):
            if not begin + HOUR < at < end - HOUR:
                continue
            for meaning in each["types"]:
                fits = [
                    one
                    for one in found
                    if one[:3] == (each["controller"], kind, meaning) and 0 <= one[3] - at <= late
                ]
                assert len(fits) == 1, (kind, meaning, at, fits)
                wanted += 1
    inside = [one for one in found if begin + HOUR + late < one[3] < end - HOUR]
    assert len(inside) <= wanted
    return wanted


def check_codes(house: House, report: Mapping[str, Any]) -> None:
    """Each (reference, flag) was decoded by one call, and what it means is kept."""
    codes = {f"{each['reference']}|{each['flag']}": each["types"] for each in report["failures"]}
    kept = {
        each["_id"]: [one["type"] for one in each["failures"]]
        for each in stored(house, "failure_codes")
    }
    assert set(report["decoded"].values()) == {1}, report["decoded"]
    assert set(report["decoded"]) == set(kept)
    assert all(kept[code] == codes[code] for code in kept.keys() & codes.keys())
    assert len(kept) > 4


@pytest.mark.timeout(240)
def test_the_trouble_of_one_is_not_the_other_s(tmp_path: Path) -> None:
    """A used-up quota, a refused key and a dead login, of either cloud: the other is polled on."""
    with office(tmp_path, speed=2000) as house:
        house.start()
        house.mark()
        waits(house, "the portal is read", lambda: len(told(house)["by_endpoint"]) >= 6)

        def netatmo() -> int:
            return int(house.cloud.stats()["by_endpoint"]["getstationsdata"])

        def portal() -> int:
            return int(told(house)["by_endpoint"]["status"])

        def goes_on(count: Any, more: int = 5) -> None:
            before = count()
            waits(house, "the other one is polled on", lambda: count() >= before + more)

        quota = "Out of call volume quota. Quota will be replenished in 02:00:00."
        house.cloud.arm("portal", status=403, message=quota)
        waits(house, "the quota is used up", lambda: _budget(house, "building")["paused_for"] > 0)
        refused = house.cloud.hits("portal")
        goes_on(netatmo)
        assert house.cloud.hits("portal") <= refused + 1
        assert _budget(house, "home1")["paused_for"] == 0
        house.cloud.disarm()
        goes_on(portal)  # once the two hours are over, by itself

        house.cloud.arm("portal", status=469, message="Official application password expired")
        waits(house, "its login is refused", lambda: "login" in _failing(house, "building"))
        goes_on(netatmo)
        assert _failing(house, "home1") == {}
        house.cloud.disarm()
        goes_on(portal)
        waits(house, "it is well again", lambda: _failing(house, "building") == {})

        house.cloud.arm("throttle", retry_after=7200)
        waits(house, "the quota is used up", lambda: _budget(house, "home1")["paused_for"] > 0)
        goes_on(portal)
        assert _budget(house, "building")["paused_for"] == 0
        house.cloud.disarm()
        goes_on(netatmo)

        user = house.cloud.accounts[0]["user"]
        house.cloud.arm("revoke", account=user)
        house.cloud.arm("token_error", account=user)
        waits(house, "the login of home1 is lost", lambda: house.events("login.required"))
        goes_on(portal)
        assert house.status()["accounts"]["building"]["login"]["state"] in ("ok", "stale")
        house.cloud.disarm()
        assert "building" not in {each["account"] for each in house.events("login.required")}
        house.check_secrets()


def _budget(house: House, account: str) -> dict[str, Any]:
    found: dict[str, Any] = house.status()["accounts"][account]["budget"]
    return found


def _failing(house: House, account: str) -> dict[str, Any]:
    found: dict[str, Any] = house.status()["accounts"][account]["failing"]
    return found
