"""A cloud that throttles, flaps, lies and stalls: afterwards nothing is missing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, invariant, opened, tell, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

HOUR = 3600.0
FEW = {"include": ["Living room", "Garden", "Roof wind"]}
OFTEN = {"weather": "60s", "trailing": "60s"}


class Watch:
    """The cloud's counts, looked at again and again: when calls were made, when refused.

    calls     (simulated time of the look that saw them first, how many)
    refusals  answers 429 and 403 with code 26: (when the look before began, the first that saw it);
              it happened between the two. The call behind it is never seen after it.
    """

    def __init__(self, house: House) -> None:
        self.house = house
        self.calls: list[tuple[float, int]] = []
        self.refusals: list[tuple[float, float]] = []
        self._began, _, *self._seen = self._read()

    def look(self) -> None:
        began, now, calls, refusals = self._read()
        if calls > self._seen[0]:
            self.calls.append((now, calls - self._seen[0]))
        if refusals > self._seen[1]:
            self.refusals.append((self._began, now))
        self._began, self._seen = began, [calls, refusals]

    def until(self, condition: Any, within: float, what: str) -> None:
        def looked() -> bool:
            self.look()
            return bool(condition())

        until(looked, within=within, what=what, house=self.house, every=0.01)

    def between(self, begin: float, end: float) -> int:
        """Calls seen after `begin` and before `end`."""
        return sum(count for at, count in self.calls if begin < at < end)

    def _read(self) -> tuple[float, float, int, int]:
        # Refusals first: whatever they hold by now, the calls that are read next hold as well.
        began, refusals = self.house.now, self.house.cloud.hits("throttle")
        stats = self.house.cloud.stats()
        counts = stats["by_endpoint"]
        calls = sum(counts.values()) - counts.get("token", 0)
        return began, stats["now"], calls, refusals


@pytest.mark.parametrize("status", [429, 403])
def test_throttled_without_a_time(tmp_path: Path, status: int) -> None:
    """Refused for its quota thrice, the account pauses 60, 120 and 240 s, without one call."""
    with opened(tmp_path, speed=60, days=1, account=FEW, poll=OFTEN) as house:
        house.start()
        house.mark()
        watch = Watch(house)
        house.cloud.arm("throttle", status=status, message="User usage reached")
        for number in range(1, 4):
            watch.until(lambda: len(watch.refusals) >= number, 20, "a refusal")  # noqa: B023
        house.cloud.disarm()
        watch.until(lambda: watch.calls[-1][0] > watch.refusals[-1][1], 20, "a call")

        told = [event["for_s"] for event in house.events("budget.paused") if "for_s" in event]
        earliest = [after for after, _ in watch.refusals]
        moments = [*(seen for _, seen in watch.refusals[1:]), watch.calls[-1][0]]
        quiet = [seen - after for after, seen in zip(earliest, moments, strict=True)]
        tell(f"paused for {told}; quiet for {[round(each, 1) for each in quiet]}")
        assert told == pytest.approx([60, 120, 240], abs=1)
        for (after, seen), pause, lasted in zip(watch.refusals, told, quiet, strict=True):
            assert lasted >= pause - 3
            assert watch.between(seen, after + pause - 3) == 0
        invariant(house)


def test_throttled_with_a_time_and_restarted(tmp_path: Path) -> None:
    """With `Retry-After: 1200` no call is made for 1,200 s, although the daemon is killed twice."""
    with opened(tmp_path, speed=120, days=1, account=FEW, poll=OFTEN) as house:
        house.start()
        house.mark()
        watch = Watch(house)
        house.cloud.arm("throttle", count=1, retry_after=1200)
        watch.until(lambda: house.events("budget.paused"), 20, "the refusal is told")
        watch.look()
        refused, seen = watch.refusals[0]
        for _ in range(2):
            house.kill()
            house.start()
        assert house.now < refused + 1100, "this machine is too slow for the test"
        watch.until(lambda: watch.calls[-1][0] > seen, 40, "a call")

        resumed = watch.calls[-1][0]
        tell(f"quiet for {resumed - refused:.0f} s")
        assert resumed - refused >= 1200 - 3
        until(lambda: not house.cloud.stats()["running"], within=20, what="calls end")
        invariant(house)


def test_flapping(tmp_path: Path) -> None:
    """After hours in which half of all answers are 5xx or cut off, no row is missing."""
    with opened(tmp_path, speed=1000, days=1, account=FEW) as house:
        house.start()
        house.mark()
        before = house.cloud.calls()
        house.cloud.arm("http", status=503, probability=0.2)
        house.cloud.arm("http", status=500, body="json", probability=0.12)
        house.cloud.arm("cut", probability=0.15)
        house.cloud.arm("cut", after=0, probability=0.15)
        began = house.now
        until(lambda: house.now > began + 5 * HOUR, within=60, what="five hours", house=house)
        hits = house.cloud.hits("http") + house.cloud.hits("cut")
        calls, hours = house.cloud.calls() - before, (house.now - began) / HOUR
        house.cloud.disarm()
        healed = house.now
        house.settle()
        took = house.now - healed
        compared = invariant(house)
        tell(
            f"{hits} of {calls} answers spoiled in {hours:.1f} h; all modules read again "
            f"{took / 60:.0f} min later; {compared.expected} rows; {house.counted()}"
        )
        assert 0.35 < hits / calls < 0.65
        # Each of 12 polls an hour is tried four times at most.
        assert calls <= 4 * 12 * hours + 12
        assert took < 2 * HOUR


def test_rows_of_the_future(tmp_path: Path) -> None:
    """Rows stamped ten years ahead are set aside, and the ledger does not follow them."""
    with opened(tmp_path, speed=1000, days=1, account=FEW) as house:
        house.start()
        house.mark()
        house.cloud.arm("future", where="both")
        began = house.now
        until(lambda: house.now > began + 3 * HOUR, within=60, what="three hours", house=house)
        # The newest place in the ledger is the cloud's own now, not that of the stray row.
        ends = [document["asked"].timestamp() for document in house.coverage().values()]
        newest = [document["newest"].timestamp() for document in house.coverage().values()]
        assert max(*ends, *newest) <= house.now
        with house.database() as database:
            kept = database["answers"].count_documents({"problems": {"$ne": []}})
        until(lambda: house.status()["problems"], within=15, what="it is counted", house=house)
        house.cloud.disarm()
        compared = invariant(house)
        tell(f"{compared.expected} rows; {kept} answers kept; {house.status()['problems']}")
        assert kept > 0


def test_drifting_schema(tmp_path: Path) -> None:
    """New fields, changed types and missing keys cost no row of what is still there."""
    with opened(tmp_path, speed=1000, days=1, account={}) as house:
        house.start()
        house.mark()
        bedroom = next(m.id for m in house.cloud.world.modules() if m.name == "Bedroom")
        house.cloud.arm("unknown_field")
        house.cloud.arm("unknown_type", module=bedroom)
        house.cloud.arm("wrong_type")
        house.cloud.arm("missing")
        house.cloud.arm("no_name")
        house.cloud.arm("key_injection")
        house.cloud.arm("twice")
        began = house.now
        until(lambda: house.now > began + 3 * HOUR, within=60, what="three hours", house=house)
        compared = invariant(house)
        until(lambda: house.status()["drift"], within=15, what="it is counted", house=house)
        report = house.status()
        tell(f"{compared.expected} rows; drift {report['drift']}; problems {report['problems']}")
        assert "parse.failed" not in house.counted()
        house.cloud.disarm()
        invariant(house)


def test_token_refused_early(tmp_path: Path) -> None:
    """A token refused before its time costs one refresh and one repeated call, five times."""
    with opened(tmp_path, speed=60, days=1, account=FEW, poll=OFTEN) as house:
        house.start()
        house.mark()
        for number in range(1, 6):
            before = house.cloud.stats()
            house.cloud.arm("expire_access")
            until(
                lambda: house.cloud.stats()["refused"].get("403/3", 0) == number,  # noqa: B023
                within=20,
                what="the call is refused",
                house=house,
            )
            until(
                lambda: house.cloud.stats()["by_status"]["200"] > before["by_status"]["200"] + 3,  # noqa: B023
                within=20,
                what="calls go on",
                house=house,
            )
            after = house.cloud.stats()
            assert after["token"]["refreshes"] == before["token"]["refreshes"] + 1
            assert after["refused"] == {"403/3": number}
        invariant(house)
        assert not {"poll.failed", "login.failing"} & set(house.counted())


def test_hanging_and_slow_answers(tmp_path: Path) -> None:
    """An answer that never comes and bodies that trickle cost their time, and nothing else."""
    with opened(tmp_path, speed=150, days=1, account=FEW) as house:
        house.start()
        house.mark()
        house.cloud.arm("slow", count=6, chunk=256, pause=0.02)
        house.cloud.arm("stall", count=1, real_seconds=40.0)
        until(lambda: house.cloud.hits("stall") == 1, within=60, what="one hangs", house=house)
        began = time.monotonic()
        compared = invariant(house)
        took = time.monotonic() - began
        tell(f"all there {took:.0f} s after the answer that hung; {compared.expected} rows")
        assert house.cloud.hits("slow") == 6
        assert 15 < took < 60


def test_bad_bodies(tmp_path: Path) -> None:
    """Bombs, endless bodies, pages and broken JSON are no data; memory does not follow them."""
    with opened(tmp_path, speed=500, days=1, account=FEW) as house:
        house.start()
        house.mark()
        memory = house.running.memory_mib
        kinds = ("gzip_bomb", "huge", "not_json", "bad_json", "empty", "no_body", "redirect")
        for kind in kinds:
            house.cloud.arm(kind, count=3)
        until(
            lambda: all(house.cloud.hits(kind) == 3 for kind in kinds),
            within=90,
            what="each was met thrice",
            house=house,
        )
        compared = invariant(house)
        grown = house.running.memory_mib
        tell(f"{memory:.0f} MiB, later {grown:.0f}; {compared.expected} rows; {house.counted()}")
        assert grown < memory + 60
