"""The end of a client: calls that wait for an answer, or for their next attempt, raise Closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy

import grpc.aio

from .._session.time_limit import within
from ..errors import CellkeeperError, Unavailable


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
        """Raises the error of `close` from what waits inside, and Unavailable if its channel was replaced.

        gRPC cancels a call whose channel is closed, as if somebody had cancelled the task, and refuses further calls.
        """
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            if self._error is not None and not _is_cancelled(unknown=False):
                raise copy(self._error) from None
            if isinstance(error, asyncio.CancelledError) and not _is_cancelled(unknown=True):
                raise Unavailable("its connection was replaced by another one", reason="LOST") from None
            raise


def _is_cancelled(*, unknown: bool) -> bool:
    """Returns True if somebody cancelled the current task. unknown: what to return in Python 3.10, which cannot say."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return unknown if cancelling is None else bool(cancelling())
