"""One address gives bytes, or the reason why not; and nothing else is asked, or told."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import respx

from netatmo_ingestd.client import open_http
from netatmo_ingestd.events import pictures
from netatmo_ingestd.events.pictures import AT_ONCE, PICTURE_MAX, Image, NoImage, Pictures
from netatmo_ingestd.logs import EVENTS
from netatmo_ingestd.providers import NETATMO

HOST = NETATMO.picture_hosts[0]
URL = f"https://{HOST}/production/a1?sv=2019-02-02&sig=Canary%2F77"
JPEG = b"\xff\xd8 a picture \xff\xd9"
GOOD = httpx.Response(200, content=JPEG, headers={"Content-Type": "image/jpeg"})


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        assert event in EVENTS
        assert "Canary" not in str(fields)
        self.events.append((event, fields))


@dataclass
class Rig:
    pictures: Pictures
    router: respx.Router
    log: Log
    places: dict[str, Collection[str]]
    requests: list[httpx.Request] = field(default_factory=list)

    async def get(self, answer: Any, url: str = URL) -> Image | NoImage:
        def answers(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            if isinstance(answer, Exception):
                raise answer
            found: httpx.Response = answer
            return httpx.Response(found.status_code, headers=found.headers, content=found.content)

        self.router.route().mock(side_effect=answers)
        found = await self.pictures.fetch(url)
        assert "Canary" not in repr(found)
        return found


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    log = Log()
    places: dict[str, Collection[str]] = {HOST: {"20.60.1.1"}}

    async def resolve(host: str) -> Collection[str]:
        if host not in places:
            raise OSError("no such name")
        return places[host]

    async with open_http() as http:
        with respx.mock(assert_all_called=False) as router:
            hosts = (HOST, "127.0.0.1", "localhost", "images.example.com")
            yield Rig(Pictures(http, hosts, log, resolve), router, log, places)


async def test_a_picture(rig: Rig) -> None:
    """Bytes and type come back; the request carries no token, no cookie and nothing of ours."""
    found = await rig.get(GOOD)

    assert found == Image(JPEG, "image/jpeg")
    (request,) = rig.requests
    assert str(request.url) == URL
    assert set(request.headers) == {
        "host", "user-agent", "accept", "accept-encoding", "connection",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reason", "final", "expired"),
    [
        (httpx.Response(403), "HTTP 403", True, True),
        (httpx.Response(404), "HTTP 404", True, True),
        (httpx.Response(400), "HTTP 400", True, False),
        (httpx.Response(302, headers={"Location": URL}), "HTTP 302", True, False),
        (httpx.Response(204), "HTTP 204", True, False),
        (httpx.Response(206, content=JPEG), "HTTP 206", True, False),
        (httpx.Response(429), "HTTP 429", False, False),
        (httpx.Response(408), "HTTP 408", False, False),
        (httpx.Response(503), "HTTP 503", False, False),
        (httpx.Response(200, html="<p>no</p>"), "no image but text/html", True, False),
        (httpx.Response(200, content=JPEG), "no image but nothing named", True, False),
        (httpx.Response(200, headers={"Content-Type": "image/png"}), "empty", False, False),
        (httpx.ConnectTimeout("Canary"), "no connection in time", False, False),
        (httpx.ReadTimeout("Canary"), "the answer stopped", False, False),
        (httpx.ConnectError("Canary"), "no connection", False, False),
        (httpx.RemoteProtocolError("Canary"), "the answer was cut or is no HTTP", False, False),
    ],
)  # fmt: skip
async def test_what_is_no_picture(
    rig: Rig, answer: Any, reason: str, final: bool, expired: bool
) -> None:
    """Each answer says whether the same may be tried again, in words without the address."""
    assert await rig.get(answer) == NoImage(reason, final, expired)
    assert len(rig.requests) == 1


@pytest.mark.parametrize("told", [True, False])
async def test_a_large_picture_is_not_read(rig: Rig, told: bool) -> None:
    """Over 8 MiB, announced or not, it is lost; and one of exactly so much is taken."""
    headers = {"Content-Type": "image/jpeg", **({} if told else {"Transfer-Encoding": "chunked"})}
    large = httpx.Response(200, content=bytes(PICTURE_MAX + 1), headers=headers)
    fits = httpx.Response(200, content=bytes(PICTURE_MAX), headers=headers)

    assert await rig.get(large) == NoImage("too large", final=True)
    assert await rig.get(fits) == Image(bytes(PICTURE_MAX), "image/jpeg")


async def test_a_zipped_bomb_is_not_unpacked(rig: Rig) -> None:
    """What unpacks to more than 8 MiB is too large, however little was sent."""
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(64 << 20))

    def answers(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(bomb))

    rig.router.route().mock(side_effect=answers)

    assert await rig.pictures.fetch(URL) == NoImage("too large", final=True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://evil.example/a", "host not allowed"),
        (f"https://{HOST}.evil.example/a", "host not allowed"),
        (f"https://evil.example/{HOST}", "host not allowed"),
        (f"https://{HOST}@evil.example/a", "host not allowed"),
        (f"https://sub.{HOST}/a", "host not allowed"),
        ("https://169.254.169.254/latest/meta-data", "host not allowed"),
        ("https://[::1]/a", "host not allowed"),
        (f"http://{HOST}/a", "address not allowed"),
        (f"https://{HOST}:8443/a", "address not allowed"),
        (f"https://me:pw@{HOST}/a", "address not allowed"),
        (f"ftp://{HOST}/a", "address not allowed"),
        ("file:///etc/passwd", "no address"),
        ("//no", "host not allowed"),
        ("", "no address"),
        ("https://[bad", "host not allowed"),
        ("https://a\x00b/", "no address"),
    ],
)
async def test_an_address_that_is_not_asked(rig: Rig, url: str, reason: str) -> None:
    """Only hosts that are named, exactly these, by https: anything else is lost unasked."""
    assert await rig.get(GOOD, url) == NoImage(reason, final=True)
    assert rig.requests == []


async def test_a_refused_host_is_told_once(rig: Rig) -> None:
    """One warning for each host, with its name and not the address."""
    for _ in range(3):
        await rig.get(GOOD, "https://evil.example/a?sig=Canary")
    await rig.get(GOOD, "https://EVIL.example/b")
    await rig.get(GOOD, "https://other.example/a")

    assert rig.log.events == [
        ("picture.refused_host", {"host": "evil.example"}),
        ("picture.refused_host", {"host": "other.example"}),
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a", "https://localhost/a"])
async def test_a_loopback_host_that_is_named(rig: Rig, url: str) -> None:
    """This machine may be asked in plain http, when the owner named it."""
    assert await rig.get(GOOD, url) == Image(JPEG, "image/jpeg")


@pytest.mark.parametrize(
    "found", [{"10.0.0.5"}, {"20.60.1.1", "127.0.0.1"}, {"fe80::1%eth0"}, {"169.254.1.1"}, set()]
)
async def test_a_host_that_leads_inside(rig: Rig, found: Collection[str]) -> None:
    """A name that leads to a private address is not asked; it may be mended."""
    rig.places[HOST] = found

    assert await rig.get(GOOD) == NoImage("host is not public", final=False)
    assert rig.requests == []


async def test_a_name_that_nobody_knows(rig: Rig) -> None:
    """Without name service a picture is tried again later."""
    found = await rig.get(GOOD, "https://images.example.com/a")

    assert found == NoImage("the connection broke", final=False)


async def test_a_trickle_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not hold a place for ever."""
    monkeypatch.setattr(pictures, "LIMIT_S", 0.2)

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    class Trickle(httpx.AsyncByteStream):
        def __aiter__(self) -> AsyncIterator[bytes]:
            return slowly()

    def answers(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": "image/jpeg"}, stream=Trickle())

    rig.router.route().mock(side_effect=answers)

    found = await rig.pictures.fetch(URL)

    assert found == NoImage("no whole picture within 0.2 s", final=False)


async def test_four_at_a_time(rig: Rig) -> None:
    """However many are wanted, four are under way."""
    under_way, most = 0, 0
    gate = asyncio.Event()

    async def answers(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return httpx.Response(200, content=JPEG, headers={"Content-Type": "image/jpeg"})

    handler: Callable[..., Any] = answers
    rig.router.route().mock(side_effect=handler)
    tasks = [asyncio.create_task(rig.pictures.fetch(f"{URL}&n={n}")) for n in range(10)]
    for _ in range(50):
        await asyncio.sleep(0)
    gate.set()

    assert await asyncio.gather(*tasks) == [Image(JPEG, "image/jpeg")] * 10
    assert most == AT_ONCE == 4
