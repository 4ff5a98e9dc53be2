"""What gRPC's poller does to event loops.

gRPC has one poller for all event loops of a process, and each of its events wakes every loop that ever used gRPC. A
loop that finds the event taken by another one raises BlockingIOError; a loop that finds an event of a loop that is
closed by now (the end of a cancelled call, after asyncio.run) raises RuntimeError. Nothing is lost by either, but
asyncio logs both as tracebacks.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

_POLLER = "completion_queue.pyx.pxi"  # the source of PollerCompletionQueue, as its tracebacks name it


def ignore_poller_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Has the loop's exception handler pass over the poller's errors. Everything else goes to the handler that was set
    before, or to asyncio's own."""
    before = loop.get_exception_handler()
    if isinstance(before, _ExceptionHandler):
        return
    loop.set_exception_handler(_ExceptionHandler(before))


class _ExceptionHandler:
    """before: the handler that was set before, if any."""

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
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(_POLLER):
            return True
        trace = trace.tb_next
    return False
