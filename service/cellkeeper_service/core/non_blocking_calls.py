"""Store calls that the event loop itself waits for: it watches their descriptors and deadlines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from cellkeeper_service.domain.non_blocking import PendingCommit, Stage

from .attempts import Attempts

Ended = Callable[[PendingCommit], None]

log = logging.getLogger(__name__)

BUSY_SECONDS = 0.0001
"""An answer that is expected at once is polled for this long before the event loop watches for it. Redis on the same
machine commits a record in half of that, while putting this thread to sleep and waking it takes as long again."""


class NonBlockingCalls:
    """Calls `ended` on the loop's thread when there is nothing more to wait for, or the deadline has passed. `ended`
    finishes the call."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[PendingCommit, Ended, asyncio.TimerHandle]] = {}  # by descriptor
        self._attempts = Attempts()  # to poll: in vain where the store is further away

    def watch(self, pending: PendingCommit, ended: Ended, *, at_once: bool = False) -> None:
        """at_once: the answer is expected at once."""
        try:
            if pending.stage is Stage.WAITING and not (at_once and self._poll(pending)):
                loop, descriptor = asyncio.get_running_loop(), pending.fileno()
                left = max(0.0, pending.deadline - time.monotonic())
                loop.add_reader(descriptor, self._advance, descriptor)
                self._waiting[descriptor] = pending, ended, loop.call_later(left, self._advance, descriptor)
                return
        except (OSError, ValueError):
            pass  # closed already, or the loop cannot watch one more
        except Exception:
            log.exception("the store failed where it should not")
        ended(pending)

    def close(self) -> None:
        """Gives up what is under way, without telling anybody."""
        for descriptor in tuple(self._waiting):
            pending, _ = self._leave(descriptor)
            pending.finish()

    def _poll(self, pending: PendingCommit) -> bool:
        """Waits for up to BUSY_SECONDS, without sleeping. Returns whether there is nothing more to wait for."""
        if self._attempts.skip():
            return False
        until = time.monotonic() + BUSY_SECONDS
        while not (done := _advanced(pending)) and time.monotonic() < until:
            pass
        self._attempts.ended(success=done)
        return done

    def _advance(self, descriptor: int) -> None:
        """Bytes have arrived, or it is the deadline; if the loop itself was late, then, too, replies may be there."""
        pending, ended = self._leave(descriptor)
        if _advanced(pending):
            ended(pending)
        else:  # not all has arrived, which has moved the deadline
            self.watch(pending, ended)

    def _leave(self, descriptor: int) -> tuple[PendingCommit, Ended]:
        """Must precede `finish`: after that, the descriptor may be another call's."""
        asyncio.get_running_loop().remove_reader(descriptor)
        pending, ended, timer = self._waiting.pop(descriptor)
        timer.cancel()
        return pending, ended


def _advanced(pending: PendingCommit) -> bool:
    """Reads what has arrived. Returns whether there is nothing more to wait for, or the deadline has passed."""
    try:
        return pending.advance() is not Stage.WAITING or pending.deadline <= time.monotonic()
    except Exception:
        log.exception("the store failed where it should not")
        return True
