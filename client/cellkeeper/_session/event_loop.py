"""Checks that a client is used in its own event loop."""

from __future__ import annotations

import asyncio

from ..errors import WrongEventLoop

_ADVICE = "create one in each asyncio.run (async with AsyncClient(...)), or use Client, which works in every thread"
_CLOSED = f"this client belongs to an event loop that is closed, and cannot be used in another one; {_ADVICE}"
_OTHER = (
    "this client belongs to the event loop in which it was first used; await it there "
    f"(asyncio.run_coroutine_threadsafe does so from another thread), or {_ADVICE}"
)


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raises WrongEventLoop if the running loop is not `loop`."""
    if asyncio.get_running_loop() is not loop:
        raise WrongEventLoop(_CLOSED if loop.is_closed() else _OTHER)
