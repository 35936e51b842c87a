"""Waiting with a limit, in real time. Every wait of this program has one or ends with a task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any


async def is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, at most so long; whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def first(*waits: Coroutine[Any, Any, Any], limit: float | None) -> None:
    """Return when one of `waits` is done, or after `limit` seconds; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def finish(task: asyncio.Future[Any], seconds: float, hurry: asyncio.Event) -> bool:
    """Let `task` end by itself; cancel it after `seconds` or when hurried. Whether it ended."""
    hurried = asyncio.ensure_future(hurry.wait())
    limit = max(0.0, seconds)
    await asyncio.wait({task, hurried}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if task.done():
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


async def beside(
    works: Iterable[Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    seconds: float,
    hurry: asyncio.Event | None,
) -> None:
    """Run `works` beside each other until `stop`; then each has `seconds` to end, see `finish`."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in works]
        await stop.wait()
        hurry = hurry or asyncio.Event()
        await asyncio.gather(*(finish(task, seconds, hurry) for task in tasks))


async def to_the_end(task: asyncio.Task[Any]) -> None:
    """Wait for `task` even when we are cancelled meanwhile; the cancellation comes after it."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation tells enough
        raise cancelled
