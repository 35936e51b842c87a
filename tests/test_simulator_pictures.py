"""Pictures of the simulator's events: signed addresses, what they give, and their faults."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.clocks import START
from tests.filmed import addresses, expected, filmed, only, page, pictures
from tests.labs import Lab

NOW = int(START)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with filmed() as found:
        yield found


# --- pictures ------------------------------------------------------------------------------------


def is_png(content: bytes) -> bool:
    """Header, and a sum that holds for its pixels."""
    header, place = content[:8] == b"\x89PNG\r\n\x1a\n", 8
    kinds = []
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + size]
        kinds.append(body[:4])
        if int.from_bytes(content[place + 8 + size : place + 12 + size], "big") != zlib.crc32(body):
            return False
        if body[:4] == b"IHDR":
            width, height = (int.from_bytes(body[i : i + 4], "big") for i in (4, 8))
        if body[:4] == b"IDAT" and len(zlib.decompress(body[4:])) != (width + 1) * height:
            return False
        place += 12 + size
    return header and kinds == [b"IHDR", b"IDAT", b"IEND"]


async def test_addresses_give_the_pictures_that_are_expected(lab: Lab) -> None:
    """Byte for byte; some have only a name on the card, and some are equal to another."""
    told = {each["id"]: pictures(each) for each in await expected(lab)}
    sums: list[str] = []
    named = 0
    for event in await page(lab, size=200):
        for place, picture in pictures(event).items():
            wanted = told[event["id"]][place]
            assert wanted["address"] == ("url" in picture)
            if "url" not in picture:
                named += picture["filename"].startswith("vod/")
                continue
            assert picture["url"].startswith("http://simulator/pictures/")
            assert picture["expires_at"] == NOW + 600
            answer = await lab.http.get(picture["url"])
            assert answer.headers["content-type"] == "image/png"
            assert 1_000 <= len(answer.content) <= 4_096
            assert is_png(answer.content)
            assert hashlib.sha256(answer.content).hexdigest() == wanted["sha256"]
            sums.append(wanted["sha256"])

    assert len(sums) > 100
    assert named > 10
    assert len(sums) / 2 < len(set(sums)) < len(sums)
    stats = await lab.stats()
    assert stats["pictures"] == {"fetched": len(sums), "refused": 0, "leaked": 0, "spoiled": 0}
    assert set(stats["by_endpoint"]) == {"token", "getevents"}
    assert stats["requests"] == sum(stats["by_endpoint"].values()) < 10


async def test_each_answer_signs_anew_and_for_ten_minutes(lab: Lab) -> None:
    """The same picture at another address; the old one is good until its time is up."""
    first, second = await addresses(lab), await addresses(lab)

    assert [url.split("?")[0] for url in first] == [url.split("?")[0] for url in second]
    assert set(first) & set(second) == set()
    lab.clock.advance(600)
    assert (await lab.http.get(first[0])).status_code == 200
    lab.clock.advance(1)
    assert (await lab.http.get(first[0])).status_code == 403
    assert (await lab.stats())["pictures"]["refused"] == 1


async def test_an_address_that_was_not_given_out_is_refused(lab: Lab) -> None:
    """Another time, another signature, another picture's, or none."""
    one, other = (await addresses(lab))[:2]
    path, query = one.split("?")
    late = query.replace(str(NOW + 600), str(NOW + 6_000))

    for url in (
        path,
        f"{path}?{late}",
        f"{one[:-1]}{'0' if one[-1] != '0' else '1'}",
        f"{path}?{other.split('?')[1]}",
        f"{path}?se=soon&sig=x",
    ):
        assert (await lab.http.get(url)).status_code == 403, url


async def test_a_token_brought_along_is_counted(lab: Lab) -> None:
    """The picture is given all the same, as nobody would be warned there."""
    (url, *_) = await addresses(lab)

    answer = await lab.http.get(url, headers={"Authorization": f"Bearer {lab.access}"})

    stats = await lab.stats()
    assert answer.status_code == 200
    assert stats["pictures"]["leaked"] == stats["tokens_leaked"] == 1


async def test_pictures_cost_no_quota(lab: Lab) -> None:
    """Nor are they met by faults of the API."""
    lab.cloud.quotas.limits.account_10s = 3
    urls = await addresses(lab)
    await lab.arm("http", status=503)

    statuses = {(await lab.http.get(url)).status_code for url in urls}

    assert len(urls) > 10
    assert statuses == {200}
    assert (await lab.stats())["over_limit"] == 0


# --- faults --------------------------------------------------------------------------------------


async def spoiled(lab: Lab, kind: str, **spec: Any) -> httpx.Response:
    """A picture under a fault that strikes once; the next one is whole again."""
    url = (await addresses(lab))[0]
    await lab.arm(kind, count=1, **spec)
    answer = await lab.http.get(url)
    assert is_png((await lab.http.get(url)).content)
    assert (await lab.stats())["pictures"]["spoiled"] == 1
    return answer


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_picture_status(lab: Lab, status: int) -> None:
    """The host of the pictures answers with another status."""
    assert (await spoiled(lab, "picture_status", status=status)).status_code == status


async def test_picture_html(lab: Lab) -> None:
    """A page in place of a picture."""
    answer = await spoiled(lab, "picture_html")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")


async def test_picture_huge(lab: Lab) -> None:
    """A picture that does not end for megabytes, of which nothing tells before."""
    answer = await spoiled(lab, "picture_huge", size=1 << 20)

    assert len(answer.content) > 1 << 20
    assert "content-length" not in answer.headers


async def test_picture_slow(lab: Lab) -> None:
    """It comes in small parts, and whole in the end."""
    answer = await spoiled(lab, "picture_slow", chunk=512, pause=0.01)

    assert is_png(answer.content)
    assert answer.elapsed.total_seconds() > 0.02


async def test_picture_stall(lab: Lab) -> None:
    """Nothing for a while, then all of it."""
    begun = time.monotonic()
    answer = await spoiled(lab, "picture_stall", real_seconds=0.3)

    assert is_png(answer.content)
    assert time.monotonic() - begun >= 0.3


async def test_picture_redirect(lab: Lab) -> None:
    """Whoever follows it is counted elsewhere."""
    answer = await spoiled(lab, "picture_redirect")

    assert (answer.status_code, answer.headers["location"]) == (302, "/elsewhere")


async def test_picture_foreign_host(lab: Lab) -> None:
    """Addresses lead to a host that is not the cloud's, for one device or for all."""
    camera = only(lab, "NOC")
    await lab.arm("picture_foreign_host", module=camera.id, host="elsewhere.example")

    hosts: dict[bool, set[str]] = {True: set(), False: set()}
    for event in await page(lab, size=100):
        urls = [each["url"] for each in pictures(event).values() if "url" in each]
        hosts[event["module_id"] == camera.id] |= {httpx.URL(url).host for url in urls}

    assert hosts == {True: {"elsewhere.example"}, False: {"simulator"}}
