"""The webhook from end to end: the simulated cloud, the daemon and its store are real processes."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, opened, until
from tests.faults.past import journal

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]

PATH = "a-path-that-nobody-knows"
ACCOUNT = {"products": ["energy", "security"]}
FLAGS = ("--products", "energy,security")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A daemon in real time whose first round is over, registered and called once."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    with opened(
        tmp_path,
        speed=1,
        days=1,
        account=ACCOUNT,
        cloud_flags=FLAGS,
        web={"listen": address},
        webhook={"url": f"http://{address}", "path": PATH},
    ) as house:
        house.cloud.ask("POST", "settings", {"pushes": []})  # only what a test sends
        house.start()
        until(
            lambda: _calls(house, "webhook_activation") == [200],
            within=30,
            what="the cloud is let call, and its first call is taken",
            house=house,
        )
        until(
            lambda: _asked(house, "homestatus") and _asked(house, "getevents"),
            within=30,
            what="the home is polled",
            house=house,
        )
        _quiet(house)
        yield house


def test_a_push_of_the_cloud_leads_to_a_poll(house: House) -> None:
    """Two seconds after it at most; what is forged, huge or cut is refused and asks for nothing."""
    before = {name: _asked(house, name) for name in ("homestatus", "getevents", "homesdata")}

    assert _push(house, "NSD-smoke") == [200]
    until(
        lambda: (
            _asked(house, "homestatus") == before["homestatus"] + 1
            and _asked(house, "getevents") > before["getevents"]
        ),
        within=2,
        what="its poll",
        every=0.02,
        house=house,
    )
    _quiet(house)
    asked = len(journal(house))
    statuses = {}
    for kind in ("push_forged", "push_huge", "push_not_json"):
        house.cloud.arm(kind, count=1)
        statuses[kind] = _push(house, "NSD-smoke")
    time.sleep(11)

    assert statuses == {"push_forged": [403], "push_huge": [413], "push_not_json": [400]}
    assert _asked(house, "homesdata") == before["homesdata"]
    assert len(journal(house)) == asked
    until(
        lambda: house.status()["webhook"]["counters"]["malformed"] == 1,
        within=12,
        what="status counts them",
    )
    counters = house.status()["webhook"]["counters"]
    assert (counters["good"], counters["refused"], counters["oversized"]) == (2, 1, 1)
    assert counters["last"] >= counters["activated"]
    assert PATH not in house.log.read_text() + json.dumps(house.status())


def test_a_replayed_push_leads_to_no_second_poll(house: House) -> None:
    """The same bytes and signature again: 200, and for more than ten seconds nothing is asked."""
    body = {"push_type": "display_change", "home_id": _home(house), "event_id": "once"}
    before = _asked(house, "homestatus")

    assert _signed(house, body) == 200
    until(
        lambda: _asked(house, "homestatus") == before + 1,
        within=2,
        what="its poll",
        every=0.02,
        house=house,
    )
    _quiet(house)
    asked = len(journal(house))
    assert [_signed(house, body) for _ in range(5)] == [200] * 5
    time.sleep(12)

    assert len(journal(house)) == asked
    assert _signed(house, body | {"event_id": "another"}) == 200
    until(lambda: _asked(house, "homestatus") == before + 2, within=2, what="that of a new one")


def test_logout_takes_the_webhook_away(house: House) -> None:
    """The cloud has no address of ours any more, and the login's files are gone; a stop does not.

    Registered by the running daemon, still there when it is down, removed by the command.
    """
    assert [each["url"] for each in _registered(house)] == [
        f"{house.settings['webhook']['url']}/webhook/{PATH}"
    ]

    assert house.stop() == 0
    kept = _registered(house)
    refused = house.run("logout")
    done = house.run("logout", "--yes")

    assert len(kept) == 1
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert _registered(house) == []
    folder = house.state / "tokens" / house.accounts[0]["name"]
    assert [each.name for each in folder.iterdir()] == ["token.lock"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _asked(house: House, endpoint: str) -> int:
    return sum(each["endpoint"] == endpoint for each in journal(house))


def _quiet(house: House) -> None:
    """Nothing was asked for three seconds: the round is over."""
    seen, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        if (count := len(journal(house))) != seen:
            seen, since = count, time.monotonic()
        return time.monotonic() - since > 3

    until(still, within=60, what="the first round is over", every=0.2, house=house)


def _calls(house: House, push_type: str) -> list[int]:
    """The statuses of all calls of that type so far."""
    calls = house.cloud.ask("GET", "webhooks")["calls"]
    return [each["status"] for each in calls if each["push_type"] == push_type]


def _registered(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.cloud.ask("GET", "webhooks")["registered"]
    return found


def _push(house: House, push_type: str) -> list[int]:
    """The cloud calls now; what it was answered."""
    wanted = {"push_type": push_type, "home_id": _home(house)}
    statuses: list[int] = house.cloud.ask("POST", "push", wanted)["statuses"]
    return statuses


def _home(house: House) -> str:
    return next(iter(house.cloud.world.households))


def _signed(house: House, body: dict[str, Any]) -> int:
    """A call with the right signature that is not the cloud's own; its status."""
    raw = json.dumps(body).encode()
    secret = str(house.accounts[0]["client_secret"]).encode()
    request = urllib.request.Request(
        f"{house.settings['webhook']['url']}/webhook/{PATH}",
        data=raw,
        headers={"X-Netatmo-secret": hmac.new(secret, raw, hashlib.sha256).hexdigest()},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
