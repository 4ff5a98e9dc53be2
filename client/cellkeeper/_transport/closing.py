"""The end of a client: calls that wait for an answer, or for their next attempt, raise Closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar

import grpc.aio

from .._session.time_limit import ended, within
from ..errors import CellkeeperError, Unavailable

T = TypeVar("T")

_TASKS_TELL = hasattr(asyncio.Task, "cancelling")
"""A task says whether somebody has cancelled it: from Python 3.11 on."""


class _ChannelClosed(Exception):
    """The call has ended with its channel."""


class Closing:
    """Tells the calls of one client that it was closed."""

    def __init__(self) -> None:
        self._error: CellkeeperError | None = None
        self._closed = asyncio.Event()

    def close(self, error: CellkeeperError) -> None:
        """Ends what waits with `error`. Call it before the channels are closed."""
        self._error = error
        self._closed.set()

    async def sleep(self, seconds: float) -> None:
        """Waits, but not beyond the end. Raises the error of `close`."""
        with suppress(asyncio.TimeoutError):
            await within(seconds, self._closed.wait())
        if self._error is not None:
            raise copy(self._error)

    async def answer(self, call: Coroutine[Any, Any, T]) -> T:
        """Returns or raises what the call does, or the error of `close`, or Unavailable if its channel was replaced.

        gRPC cancels a call whose channel is closed, as if somebody had cancelled the task, and refuses further calls.
        """
        try:
            return await (_told(call) if _TASKS_TELL else _apart(call))
        except (_ChannelClosed, grpc.aio.UsageError) as error:
            if self._error is not None:
                raise copy(self._error) from None
            if isinstance(error, _ChannelClosed):
                raise Unavailable("its connection was replaced by another one", reason="LOST") from None
            raise


async def _told(call: Coroutine[Any, Any, T]) -> T:
    """Raises _ChannelClosed if the call is cancelled, and the task is not."""
    try:
        return await call
    except asyncio.CancelledError:
        task: Any = asyncio.current_task()
        if task.cancelling():
            raise
        raise _ChannelClosed from None


async def _apart(call: Coroutine[Any, Any, T]) -> T:
    """The same for Python 3.10, in a task of the call's own, which takes some turns of the event loop longer."""
    done = await ended(call)
    if done.cancelled():
        raise _ChannelClosed
    return done.result()
