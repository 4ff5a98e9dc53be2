"""Hides harmless errors that gRPC's poller causes in event loops.

gRPC has one poller for all event loops of a process, and each event wakes every loop that ever used gRPC. A loop that
finds the event already taken raises BlockingIOError; a loop that finds an event of a loop that has been closed (the end
of a cancelled call, after asyncio.run) raises RuntimeError. Nothing is lost by either, but asyncio logs a traceback for
both.
"""

from __future__ import annotations

import asyncio
from traceback import walk_tb
from types import TracebackType
from typing import Any

_POLLER = "completion_queue.pyx.pxi"  # the source file of PollerCompletionQueue in its tracebacks


def ignore_poller_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the loop's exception handler ignore the poller's errors.

    All other errors go to the previous handler, or to asyncio's own.
    """
    before = loop.get_exception_handler()
    if isinstance(before, _ExceptionHandler):
        return
    loop.set_exception_handler(_ExceptionHandler(before))


class _ExceptionHandler:
    """Ignores the poller's errors. before: the previous handler, if any."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, (BlockingIOError, RuntimeError)) and _is_of_poller(error.__traceback__):
            return
        if self._before is None:
            loop.default_exception_handler(context)
        else:
            self._before(loop, context)


def _is_of_poller(trace: TracebackType | None) -> bool:
    return any(frame.f_code.co_filename.endswith(_POLLER) for frame, _ in walk_tb(trace))
