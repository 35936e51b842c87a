"""A clock that a test moves by hand.

The same methods as `netatmo_ingestd.clock.Clock`, so it goes wherever a clock is passed in. Time
stands still until `advance`; a sleeper wakes when its moment has come. With `auto=True` a sleep
moves the time itself and returns at once: for code whose waits do not matter to the test.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from netatmo_ingestd.clock import Clock

START = 1_760_000_000.0


class HandClock(Clock):
    """Wall and monotonic time that only the test moves.

    slept  every wait that was asked for, in seconds, in order
    """

    def __init__(self, start: float = START, *, auto: bool = False) -> None:
        super().__init__()
        self.auto = auto
        self.slept: list[float] = []
        self._wall = start
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def time(self) -> float:
        return self._wall

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._wall, UTC)

    def monotonic(self) -> float:
        return self._monotonic

    def real_seconds(self, seconds: float) -> float:
        return seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.auto or seconds <= 0:
            self.advance(max(0.0, seconds))
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks and wake the sleepers whose moment has come."""
        self._wall += seconds
        self._monotonic += seconds
        due = [entry for entry in self._sleepers if entry[0] <= self._monotonic]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._monotonic]
        for _, future in sorted(due, key=lambda entry: entry[0]):
            if not future.done():
                future.set_result(None)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP does; monotonic time goes on as before."""
        self._wall += seconds

    @property
    def sleepers(self) -> int:
        """How many coroutines wait for time to pass."""
        return sum(not future.done() for _, future in self._sleepers)
