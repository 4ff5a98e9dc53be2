"""A time limit for what a task waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, wanted: Awaitable[T]) -> T:
    """Returns or raises what `wanted` does. After `seconds`, cancels it and raises asyncio.TimeoutError.

    Unlike asyncio.wait_for of Python 3.10 and 3.11, it never loses a cancellation of the task that waits, even if that
    comes in the same turn of the event loop as the result.
    """
    waited = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([waited], timeout=seconds)
        if not waited.done():
            raise asyncio.TimeoutError
        return waited.result()
    finally:
        if not waited.done():
            waited.cancel()
            await asyncio.wait([waited])
        if not waited.cancelled():
            waited.exception()  # asyncio would log one that nobody has asked for
