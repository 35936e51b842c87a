"""Modules of which nothing is heard: they are not read again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.test_poller import DAY, GARDEN, RAIN, STATION, Cloud, House, opened, small_ballast

__all__ = ["small_ballast"]  # a fixture


class Quiet(Cloud):
    """A cloud that tells when each module was last heard.

    seen  module id to its `last_seen`; others were heard just now
    """

    seen: dict[str, int]

    def stations(self) -> dict[str, Any]:
        body = super().stations()
        (station,) = body["devices"]
        for each in (station, *station["modules"]):
            each["last_seen"] = self.seen.get(each["_id"], int(self.clock.time()))
        return body


def quiet(house: House) -> Quiet:
    cloud = house.cloud
    cloud.__class__ = Quiet
    assert isinstance(cloud, Quiet)
    cloud.seen = {GARDEN: int(house.clock.time()) - 4000}
    return cloud


async def rounds(house: House, count: int, apart_s: float = 1800) -> None:
    for _ in range(count):
        house.clock.advance(apart_s)
        await house.poller.once()


async def test_a_silent_module_costs_one_call_a_month(tmp_path: Path) -> None:
    """Not heard since its last read, it is not read for 30 days; the others are as always."""
    async with opened(tmp_path) as house:
        cloud = quiet(house)
        await house.poller.once()
        await rounds(house, 9)
        assert [cloud.count(each) for each in (GARDEN, RAIN, STATION)] == [1, 10, 10]

        await rounds(house, 29, DAY)
        assert cloud.count(GARDEN) == 1

        first = cloud.reads(GARDEN)[0].at
        await rounds(house, 30, DAY)

        assert cloud.count(GARDEN) == 2
        # It covers all of the silence, so that history has no hole to fill.
        assert cloud.reads(GARDEN)[-1].begin <= first


async def test_a_module_that_is_heard_again_is_read_at_once(tmp_path: Path) -> None:
    """Its next trailing read takes place as soon as a description shows a later sign of life."""
    async with opened(tmp_path) as house:
        cloud = quiet(house)
        await house.poller.once()
        await rounds(house, 3)
        assert cloud.count(GARDEN) == 1

        cloud.seen[GARDEN] = int(house.clock.time())
        await rounds(house, 3)

        assert cloud.count(GARDEN) == 2


async def test_a_module_without_a_sign_of_life_is_read(tmp_path: Path) -> None:
    """Where the cloud tells nothing of when it was heard, no silence is concluded."""
    async with opened(tmp_path) as house:
        await house.poller.once()
        await rounds(house, 3)

        assert house.cloud.count(GARDEN) == 4


async def test_a_read_that_failed_is_repeated(tmp_path: Path) -> None:
    """Only a good answer shows that there is nothing new."""
    async with opened(tmp_path) as house:
        cloud = quiet(house)
        cloud.answers["home", GARDEN] = [httpx.Response(500) for _ in range(4)]
        await house.poller.once()
        tried = cloud.count(GARDEN)

        await rounds(house, 3)

        assert cloud.answers["home", GARDEN] == []
        assert cloud.count(GARDEN) == tried + 1


@pytest.mark.parametrize("what", ["store replaced", "restart"])
async def test_silence_is_not_remembered_for_good(what: str, tmp_path: Path) -> None:
    """After a start, or when the store was replaced, each module is read once."""
    async with opened(tmp_path) as house:
        cloud = quiet(house)
        await house.poller.once()
        await rounds(house, 2)
        assert cloud.count(GARDEN) == 1

        if what == "restart":
            house.home.read_at.clear()
        else:
            house.poller.start_over()
        await rounds(house, 2)

        assert cloud.count(GARDEN) == 2
