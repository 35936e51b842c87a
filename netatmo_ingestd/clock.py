"""Time as the daemon sees it: real, or faster in step with a simulated cloud.

Passed to poller, limits, oauth and history, so that a test or a demonstration runs a week in
minutes. Socket limits, the watchdog and retention always use real time.

A fast clock needs one number besides its speed: at the real moment `origin` both clocks agree,
and from then on simulated time runs `speed` times as fast. Every process that knows the two
numbers, restarted or not, so reads the same simulated time.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """Wall and monotonic time in seconds; `speed` 1.0 is real time.

    origin  epoch seconds (real) at which simulated and real time agree
    speed   simulated seconds per real second, above 0
    """

    def __init__(self, origin: float = 0.0, speed: float = 1.0) -> None:
        self.origin = origin
        self.speed = speed

    def time(self) -> float:
        """Epoch seconds."""
        now = time.time()
        return now if self.speed == 1.0 else self.origin + (now - self.origin) * self.speed

    def now(self) -> datetime:
        """The same as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def monotonic(self) -> float:
        """Seconds that never go back; shared by all processes since the machine started."""
        return time.monotonic() * self.speed

    def real_seconds(self, seconds: float) -> float:
        """How long `seconds` of this clock last for a socket or a scheduler."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock."""
        await asyncio.sleep(max(0.0, seconds) / self.speed)


REAL = Clock()
