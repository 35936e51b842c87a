"""The simulator beside the real cloud: recorded answers, and a client that others wrote.

It is trusted because its answers have the fields and types of recorded ones, and because pyatmo,
which knows nothing of it, logs in and reads everything. The recordings lie beside the checkout;
small cases of our own in the same shapes are always checked.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pyatmo
import pytest

from netatmo_ingestd.errors import Busy, ConfigError
from netatmo_ingestd.simulator.dashboard import battery_percent
from netatmo_ingestd.simulator.server import Plan, Running, running

pytestmark = pytest.mark.contract

RECORDED = Path(__file__).parents[2].parent / "shared" / "recorded"
Json = Any

OWN_CASE: Json = {
    "_id": "70:ee:50:01:02:03",
    "station_name": "Harbour House (Living room)",
    "date_setup": 1702900000,
    "last_setup": 1702900000,
    "type": "NAMain",
    "last_status_store": 1759999873,
    "module_name": "Living room",
    "firmware": 204,
    "last_upgrade": 1702900042,
    "wifi_status": 52,
    "reachable": True,
    "co2_calibrating": False,
    "data_type": ["Temperature", "CO2", "Humidity", "Noise", "Pressure"],
    "place": {
        "altitude": 31,
        "city": "Nantes",
        "country": "FR",
        "timezone": "Europe/Paris",
        "location": [-1.5536, 47.2184],
    },
    "home_id": "65800c1a7b2f4e0012ab34c1",
    "home_name": "Harbour House",
    "dashboard_data": {
        "time_utc": 1759999865,
        "Temperature": 21.4,
        "CO2": 689,
        "Humidity": 54,
        "Noise": 37,
        "Pressure": 1019.6,
        "AbsolutePressure": 1015.9,
        "min_temp": 19.8,
        "max_temp": 21.6,
        "date_max_temp": 1759997460,
        "date_min_temp": 1759984015,
        "temp_trend": "stable",
        "pressure_trend": "down",
    },
    "modules": [
        {
            "_id": "02:00:00:01:02:04",
            "type": "NAModule1",
            "module_name": "Garden",
            "last_setup": 1702900100,
            "data_type": ["Temperature", "Humidity"],
            "battery_percent": 76,
            "reachable": True,
            "firmware": 53,
            "last_message": 1759999869,
            "last_seen": 1759999856,
            "rf_status": 68,
            "battery_vp": 5420,
            "dashboard_data": {
                "time_utc": 1759999856,
                "Temperature": 13.2,
                "Humidity": 79,
                "min_temp": 9.6,
                "max_temp": 13.4,
                "date_max_temp": 1759999242,
                "date_min_temp": 1759987001,
                "temp_trend": "up",
            },
        },
    ],
}
OWN_COACH: Json = {
    "_id": "70:ee:50:01:02:13",
    "station_name": "Nursery",
    "date_setup": 1702901500,
    "last_setup": 1702901500,
    "type": "NHC",
    "last_status_store": 1759999912,
    "module_name": "Indoor",
    "firmware": 59,
    "wifi_status": 45,
    "reachable": True,
    "co2_calibrating": False,
    "data_type": ["Temperature", "CO2", "Humidity", "Noise", "Pressure", "health_idx"],
    "place": OWN_CASE["place"],
    "dashboard_data": {
        "time_utc": 1759999911,
        "Temperature": 20.8,
        "CO2": 856,
        "Humidity": 59,
        "Noise": 36,
        "Pressure": 1019.4,
        "AbsolutePressure": 1015.7,
        "health_idx": 0,
        "min_temp": 19.4,
        "max_temp": 20.9,
        "date_max_temp": 1759998710,
        "date_min_temp": 1759985102,
    },
}
# Netatmo's older recordings carry these; newer ones and the simulator do not.
RETIRED = {"cipher_id", "WindHistoric", "main_device"}
# Missing in some recordings: a name, the home, the first firmware date, a trend after a restart.
OPTIONAL = {"station_name", "module_name", "home_id", "home_name", "last_upgrade", "cipher_id"}
OPTIONAL |= {"temp_trend", "pressure_trend"}
# Coaches show extremes in some years' recordings and not in others.
EXTREMES = {f"{part}_temp" for part in ("min", "max", "date_min", "date_max")}


def recorded(path: str) -> Json:
    file = RECORDED / path
    if not file.exists():
        pytest.skip(f"no recordings beside the checkout: {path}")
    return json.loads(file.read_text())


@pytest.fixture
async def cloud() -> AsyncIterator[Running]:
    async with running(Plan(seed=7, stations=2, days=30, coaches=1)) as cloud:
        yield cloud


class Client:
    """A logged-in httpx client."""

    def __init__(self, cloud: Running, http: httpx.AsyncClient) -> None:
        self.greeting, self.http = cloud.greeting, http

    async def login(self) -> Json:
        names = ("client_id", "client_secret", "refresh_token")
        form = {name: self.greeting[name] for name in names}
        answer = await self.http.post("/oauth2/token", data={"grant_type": "refresh_token", **form})
        token = answer.json()
        self.http.headers["Authorization"] = f"Bearer {token['access_token']}"
        return token

    async def body(self, name: str, **params: Any) -> Json:
        answer = await self.http.get(f"/api/{name}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["body"]

    async def arm(self, kind: str, **spec: Any) -> None:
        answer = await self.http.post("/simulator/faults", json={"kind": kind, **spec})
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def client(cloud: Running) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=cloud.url, timeout=10) as http:
        client = Client(cloud, http)
        await client.login()
        yield client


# --- field by field ------------------------------------------------------------------------------


def kind_of(value: Json) -> str:
    """JSON type, with integers and floats as one: Netatmo mixes them freely."""
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def parts(device: Json) -> Iterator[tuple[str, Json]]:
    """Each object of a device under the name of its shape."""
    slow = {k: v for k, v in device.items() if k not in ("modules", "dashboard_data")}
    yield device["type"], slow
    yield "place", device["place"]
    for thing in (device, *device.get("modules", ())):
        if "dashboard_data" in thing:
            yield f"{thing['type']} dashboard", thing["dashboard_data"]
    for module in device.get("modules", ()):
        yield module["type"], {k: v for k, v in module.items() if k != "dashboard_data"}


def differences(ours: list[Json], theirs: list[Json]) -> list[str]:
    """What tells our devices from recorded ones: fields and types, not values."""
    found = []
    shapes = [(name, part) for device in ours for name, part in parts(device)]
    for name, real in (shape for device in theirs for shape in parts(device)):
        for mine in (part for other, part in shapes if other == name):
            found += [f"{name}: {k} unknown" for k in set(mine) - set(real) - OPTIONAL]
            found += [f"{name}: {k} missing" for k in set(real) - set(mine) - RETIRED]
            both = set(real) & set(mine)
            found += [f"{name}: {k} type" for k in both if kind_of(real[k]) != kind_of(mine[k])]
    return sorted(set(found))


def ordinary(devices: list[Json]) -> list[Json]:
    """Owned, reachable stations: what the simulator shows when no fault is armed."""
    return [
        {**d, "modules": [m for m in d.get("modules", ()) if m["reachable"]]}
        for d in devices
        if d["type"] == "NAMain" and d["reachable"] and not d.get("read_only")
    ]


def test_the_comparison_sees_what_differs() -> None:
    """A field that is missing, new or of another type is named."""
    bent = {**OWN_CASE, "firmware": "204", "voltage": 5}
    del bent["wifi_status"]

    found = differences([bent], [OWN_CASE])

    assert found == [
        "NAMain: firmware type",
        "NAMain: voltage unknown",
        "NAMain: wifi_status missing",
    ]


async def test_stations_have_the_fields_of_our_own_case(client: Client) -> None:
    """getstationsdata has every field of the documented example, with its type."""
    body = await client.body("getstationsdata")

    assert differences(body["devices"], [OWN_CASE]) == []


@pytest.mark.parametrize(
    "path", ["gladys/getstationsdata.json", "pyatmo/weatherstation_data_simple.json"]
)
async def test_stations_have_the_fields_of_recorded_answers(client: Client, path: str) -> None:
    """getstationsdata has the fields and types of every recorded, reachable device."""
    real = recorded(path)["body"]

    body = await client.body("getstationsdata")

    assert differences(body["devices"], ordinary(real["devices"])) == []
    assert set(body["user"]) == set(real["user"])
    assert set(body["user"]["administrative"]) == set(real["user"]["administrative"])


async def test_coaches_have_the_fields_of_our_own_case(client: Client) -> None:
    """gethomecoachsdata has every field of the documented example, with its type."""
    body = await client.body("gethomecoachsdata")

    assert differences(body["devices"], [OWN_COACH]) == []


async def test_coaches_have_the_fields_of_recorded_answers(client: Client) -> None:
    """gethomecoachsdata has the fields and types of the recorded coach, and maybe extremes."""
    real = recorded("gladys/gethomecoachsdata.json")["body"]
    empty = recorded("pyatmo/home_coach_no_devices.json")["body"]

    body = await client.body("gethomecoachsdata")

    found = differences(body["devices"], real["devices"])
    assert set(found) <= {f"NHC dashboard: {name} unknown" for name in EXTREMES}
    assert list(body["devices"][0]["data_type"]) == real["devices"][0]["data_type"]
    assert set(body) == set(empty)
    assert set(body["user"]["administrative"]) == set(empty["user"]["administrative"])


async def test_the_envelope_is_the_recorded_one(client: Client) -> None:
    """body, status, time_exec and time_server, as JSON in UTF-8."""
    answer = await client.http.get("/api/getstationsdata")

    real = recorded("gladys/getstationsdata.json")
    assert {k: kind_of(v) for k, v in answer.json().items()} == {
        k: kind_of(v) for k, v in real.items()
    }
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_recorded_values_lie_where_the_simulated_ones_do(client: Client) -> None:
    """Recorded upload delays, whole and broken numbers and rain tips are of the same kind."""
    ours = (await client.body("getstationsdata"))["devices"]
    theirs = recorded("gladys/getstationsdata.json")["body"]["devices"]

    for device in (*ours, *ordinary(theirs)):
        lag = device["last_status_store"] - device["dashboard_data"]["time_utc"]
        assert 0 <= lag <= 620
        for module in device["modules"]:
            board = module["dashboard_data"]
            assert board["time_utc"] <= module["last_message"]
            tips = board.get("Rain", 0) / 0.101
            assert tips == pytest.approx(round(tips))


@pytest.mark.parametrize(
    "path", ["gladys/getstationsdata.json", "pyatmo/weatherstation_data_simple.json"]
)
def test_recorded_batteries_fit_the_formula(path: str) -> None:
    """The percent we compute is within two points of what Netatmo sent."""
    modules = [m for d in recorded(path)["body"]["devices"] for m in d.get("modules", ())]

    off = [
        (m["type"], m["battery_vp"], m["battery_percent"])
        for m in modules
        if abs(battery_percent(m["type"], m["battery_vp"]) - m["battery_percent"]) > 2
    ]

    assert off == []


async def test_history_has_the_recorded_shape(client: Client) -> None:
    """optimize=false at scale max: epoch strings, ascending, lists of numbers."""
    real = recorded("pyatmo/weatherstation_measure.json")["body"]
    station = (await client.body("getstationsdata"))["devices"][0]["_id"]
    params = {"device_id": station, "scale": "max", "type": "temperature", "optimize": "false"}

    ours = await client.body("getmeasure", **params)

    for body in (real, ours):
        assert list(body) == sorted(body)
        assert all(isinstance(key, str) and key.isdigit() for key in body)
        assert {(len(v), kind_of(v[0])) for v in body.values()} == {(1, "number")}


async def test_tokens_and_refusals_have_the_recorded_shape(client: Client) -> None:
    """The token answer, invalid_grant and a missing scope look like the recorded ones."""
    real = recorded("pyatmo/oauth2_token.json")
    form = {"grant_type": "refresh_token", "refresh_token": client.greeting["refresh_token"]}
    form |= {name: client.greeting[name] for name in ("client_id", "client_secret")}

    used = await client.http.post("/oauth2/token", data=form)
    await client.http.post("/simulator/rotation", json={"mode": "never"})
    current = (await client.http.get("/simulator/world")).json()["accounts"][0]["current"]
    fresh = await client.http.post("/oauth2/token", data={**form, "refresh_token": current[0]})
    await client.arm("no_scope", count=1)
    client.http.headers["Authorization"] = f"Bearer {fresh.json()['access_token']}"
    scope = await client.http.get("/api/getstationsdata")

    assert used.json() == recorded("pyatmo/invalid_grant.json")
    assert {k: kind_of(v) for k, v in fresh.json().items()} == {
        k: kind_of(v) for k, v in real.items()
    }
    lengths = [[len(half) for half in t["access_token"].split("|")] for t in (fresh.json(), real)]
    assert lengths == [[24, 32], [24, 32]]
    assert scope.json() == recorded("pyatmo/error_scope.json")


# --- a client that others wrote ------------------------------------------------------------------


class PyatmoLogin(pyatmo.AbstractAsyncAuth):
    """pyatmo with the access token of the simulator."""

    def __init__(self, session: aiohttp.ClientSession, url: str, access: str) -> None:
        super().__init__(session, base_url=f"{url}/")
        self.access = access

    async def async_get_access_token(self) -> str:
        return self.access


async def pyatmo_token(session: aiohttp.ClientSession, cloud: Running) -> str:
    """Through the consent page, as a user would."""
    back = "http://localhost:8475/callback"
    names = ("client_id", "user", "password")
    form = {name: cloud.greeting[name] for name in names}
    scope = "read_station read_homecoach"
    form |= {"redirect_uri": back, "scope": scope, "state": "s", "decision": "allow"}
    url = f"{cloud.url}/oauth2/authorize"
    async with session.post(url, data=form, allow_redirects=False) as answer:
        code = answer.headers["Location"].split("code=")[1].split("&")[0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
    form |= {name: cloud.greeting[name] for name in ("client_id", "client_secret")}
    async with session.post(f"{cloud.url}/oauth2/token", data=form) as answer:
        token: str = (await answer.json())["access_token"]
        return token


async def test_pyatmo_logs_in_and_reads_every_station(cloud: Running) -> None:
    """A client that others wrote sees each module, by type, with the newest visible values."""
    async with aiohttp.ClientSession() as session:
        token = await pyatmo_token(session, cloud)
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, token))
        await account.async_update_weather_stations()

    seen = {
        module.entity_id: module
        for home in account.homes.values()
        for module in home.modules.values()
    } or dict(account.modules)
    world, now = cloud.cloud.world, cloud.cloud.clock.time()
    assert set(seen) == set(world.by_id) - set(world.coaches)
    for module_id, module in seen.items():
        sample = world.samples(module_id, now - 7_200, now, now)[-1][1]
        assert module.device_type.value == world.by_id[module_id].type
        for field, name in (("Temperature", "temperature"), ("CO2", "co2"), ("Rain", "rain")):
            if field in sample:
                assert getattr(module, name) == sample[field]


async def test_pyatmo_reads_every_coach(cloud: Running) -> None:
    """A client that others wrote sees each coach by its name, with the newest visible values."""
    async with aiohttp.ClientSession() as session:
        token = await pyatmo_token(session, cloud)
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, token))
        await account.async_update_air_care()

    world, now = cloud.cloud.world, cloud.cloud.clock.time()
    assert set(account.modules) == set(world.coaches)
    for coach_id, module in account.modules.items():
        sample = world.samples(coach_id, now - 7_200, now, now)[-1][1]
        assert (module.device_type.value, module.name) == ("NHC", world.by_id[coach_id].name)
        for field in ("temperature", "co2", "humidity", "noise", "pressure", "health_idx"):
            given = {name.lower(): value for name, value in sample.items()}
            assert getattr(module, field) == given[field]


async def test_pyatmo_takes_a_refusal_for_what_it_is(cloud: Running) -> None:
    """A wrong token is an ApiError with the message of the cloud."""
    async with aiohttp.ClientSession() as session:
        account = pyatmo.AsyncAccount(PyatmoLogin(session, cloud.url, "nonsense"))

        with pytest.raises(pyatmo.ApiError, match="Invalid access token"):
            await account.async_update_weather_stations()


# --- the wire ------------------------------------------------------------------------------------


async def test_a_cut_answer_breaks_in_mid_body(client: Client) -> None:
    """The connection closes before the announced length; the next call is whole."""
    await client.arm("cut", count=1)

    with pytest.raises(httpx.RemoteProtocolError):
        await client.http.get("/api/getstationsdata")

    assert await client.body("getstationsdata")


async def test_a_stalled_answer_arrives_after_the_patience_of_the_client(client: Client) -> None:
    """A stall runs into a read timeout and leaves other calls alone."""
    await client.arm("stall", real_seconds=30, count=1)

    with pytest.raises(httpx.ReadTimeout):
        await client.http.get("/api/getstationsdata", timeout=0.2)

    assert await client.body("getstationsdata")


async def test_a_slow_answer_trickles(client: Client) -> None:
    """Bytes come in small pieces with pauses, and are complete in the end."""
    await client.arm("slow", chunk=4_000, pause=0.01, count=1)

    async with client.http.stream("GET", "/api/getstationsdata") as answer:
        pieces = [piece async for piece in answer.aiter_raw()]

    assert len(pieces) > 1
    assert json.loads(b"".join(pieces))["status"] == "ok"


async def test_a_huge_answer_is_as_long_as_asked(client: Client) -> None:
    """More than 8 MiB come without a Content-Length; a bomb is small until it is unpacked."""
    await client.arm("huge", count=1)
    await client.arm("gzip_bomb", size=20_000_000, count=1)

    huge = await client.http.get("/api/getstationsdata")
    async with client.http.stream("GET", "/api/getstationsdata") as bomb:
        packed = b"".join([piece async for piece in bomb.aiter_raw()])

    assert len(huge.content) > 8 * 1024 * 1024
    assert bomb.headers["content-encoding"] == "gzip"
    assert len(packed) < 100_000


async def test_concurrent_calls_are_seen_as_such(client: Client) -> None:
    """The high-water mark counts calls until their last byte; a limit refuses the excess."""
    await client.http.post("/simulator/settings", json={"limits": {"parallel": 2}})
    await client.arm("stall", real_seconds=0.3)

    calls = [client.http.get("/api/getstationsdata") for _ in range(4)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*calls))

    assert statuses == [200, 200, 429, 429]
    stats = (await client.http.get("/simulator/stats")).json()
    assert stats["high_water"] >= 3


# --- the process ---------------------------------------------------------------------------------


async def start(*flags: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    module = "netatmo_ingestd.simulator"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *flags, stdout=pipe, stderr=pipe
    )


async def test_the_process_greets_answers_and_ends(cloud: Running) -> None:
    """One JSON line tells all a client needs; the time runs fast; SIGTERM ends it with 0."""
    del cloud
    process = await start("--seed", "3", "--speed", "3600", "--accounts", "2", "--stations", "2")
    assert process.stdout is not None
    greeting = json.loads(await process.stdout.readline())

    async with httpx.AsyncClient(base_url=greeting["url"]) as http:
        first = (await http.get("/simulator/stats")).json()["now"]
        await asyncio.sleep(0.05)
        second = (await http.get("/simulator/stats")).json()["now"]
    process.send_signal(signal.SIGTERM)
    await process.communicate()

    wanted = {"url", "client_id", "client_secret", "refresh_token", "user", "password"}
    assert wanted | {"origin", "speed", "seed", "stations", "accounts"} == set(greeting)
    assert len(greeting["accounts"]) == 2
    assert second - first > 100
    assert process.returncode == 0


async def test_a_restarted_cloud_goes_on_in_the_same_time() -> None:
    """With the origin of the former start, clock and samples are those of before."""
    plan = Plan(seed=7, speed=1_000, origin=1_700_000_000.0)
    async with running(plan) as cloud:
        module = cloud.cloud.world.modules()[2].id
        before, now = cloud.cloud.world, cloud.cloud.clock.time()

    async with running(plan) as cloud:
        later = cloud.cloud.clock.time()

        assert now < later < now + 60_000
        rows = cloud.cloud.world.samples(module, now - 10_000, now)
        assert rows == before.samples(module, now - 10_000, now)


async def test_a_port_in_use_is_busy(cloud: Running) -> None:
    """One clear line and exit code 4."""
    port = cloud.url.rsplit(":", 1)[1]

    process = await start("--port", port)
    out, err = await process.communicate()

    assert (process.returncode, out) == (4, b"")
    assert err.decode().count("\n") == 1
    assert port in err.decode()
    with pytest.raises(Busy):
        async with running(Plan(port=int(port))):
            pass


async def test_only_loopback_is_listened_on() -> None:
    """Any other host is refused before a socket is opened."""
    with pytest.raises(ConfigError, match="not loopback"):
        async with running(Plan(host=socket.gethostname())):
            pass
