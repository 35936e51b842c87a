"""Notifications of Legrand's portal from end to end: cloud, daemon and store are real processes."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House
from tests.faults.offices import office, told, waits

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]
PATH = "a-path-that-nobody-knows"


def test_notifications(tmp_path: Path) -> None:
    """The daemon subscribes; a notification leads to a poll of its thermostat, garbage to none.

    One that comes soon after has to wait; logout takes the subscription away.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    hook: dict[str, Any] = {"url": f"http://{address}", "path": PATH}
    with office(tmp_path, 1, web={"listen": address}, webhook=hook) as house:
        house.start()
        waits(house, "it subscribes", lambda: told(house)["subscriptions"])
        waits(house, "both thermostats are polled", lambda: _polls(house) == 2)
        (plant,) = house.cloud.greeting["portal"]["accounts"][0]["plants"]
        url = f"http://{address}/legrand/{PATH}"
        assert told(house)["subscriptions"] == [{"plantId": plant, "EndPointUrl": url}]

        module = next(iter(told(house)["measures"]))
        assert _notify(house, module) == [200]
        waits(house, "its poll", lambda: _polls(house) == 3, within=5)
        assert told(house)["served"][-1][0] == module
        assert _notify(house, f"{module}&list") == [200]  # too soon for another poll
        assert [_send(url, body) for body in (b"no JSON", b"[" + b"0" * 70_000, b"[]", b"7")] == [
            400, 413, 200, 200
        ]  # fmt: skip
        assert _send(f"http://{address}/legrand/another-path-somebody-guesses", b"{}") == 404
        waits(house, "status counts them", lambda: _counted(house).get("malformed") == 1)
        assert _polls(house) == 3
        assert (_counted(house)["good"], _counted(house)["refused"]) == (4, 1)
        assert PATH not in house.log.read_text() + json.dumps(house.status())

        assert house.stop() == 0
        done = house.run("logout", "--account", "building", "--yes")
        assert done.returncode == 0, done.stderr
        assert told(house)["subscriptions"] == []


def _polls(house: House) -> int:
    return int(told(house)["by_endpoint"].get("status", 0))


def _counted(house: House) -> dict[str, Any]:
    webhook = house.status().get("webhook") or {}
    found: dict[str, Any] = webhook.get("notices", {})
    return found


def _notify(house: House, query: str) -> list[int]:
    """Let the portal call whoever subscribed."""
    found: list[int] = house.cloud.ask("POST", f"portal/notify?module={query}")["statuses"]
    return found


def _send(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
