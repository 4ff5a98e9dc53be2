"""The end of a client: calls that wait for an answer, or for their next attempt, raise Closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy

import grpc.aio

from .._session.time_limit import within
from ..errors import CellkeeperError


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

    @contextmanager
    def ends(self) -> Iterator[None]:
        """Raises the error of `close` from what waits inside.

        gRPC cancels a call whose channel is closed, as if somebody had cancelled the task, and refuses further calls.
        """
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if self._error is None or _is_cancelled():
                raise
            raise copy(self._error) from None


def _is_cancelled() -> bool:
    """Returns True if somebody cancelled the current task. Python 3.10 cannot say."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
