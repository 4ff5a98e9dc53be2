"""Time limits: for what a task waits for, and for a call that makes several."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class TimeLeft:
    """The seconds that are left of a timeout, for a call that waits for steps or makes several calls one by one.

    At least a millisecond: what begins too late fails by its own deadline.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def __call__(self) -> float:
        return max(0.001, self._until - time.monotonic())


async def within(seconds: float, wanted: Awaitable[T]) -> T:
    """Returns or raises what `wanted` does. After `seconds`, cancels it and raises asyncio.TimeoutError.

    Unlike asyncio.wait_for of Python 3.10 and 3.11, it never loses a cancellation of the task that waits, even if that
    comes in the same turn of the event loop as the result.
    """
    return (await ended(wanted, seconds)).result()


async def ended(wanted: Awaitable[T], seconds: float | None = None) -> asyncio.Future[T]:
    """Waits for `wanted` as `within` does, and returns it as a future that is done, maybe because it was cancelled.

    A CancelledError that this raises is for the task that waits.
    """
    waited = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([waited], timeout=seconds)
        if not waited.done():
            raise asyncio.TimeoutError
        return waited
    finally:
        if not waited.done():
            waited.cancel()
            await asyncio.wait([waited])
        if not waited.cancelled():
            waited.exception()  # asyncio would log one that nobody has asked for
