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
        self._waiting: dict[int, tuple[PendingCommit, Ended]] = {}  # by descriptor
        self._timer: asyncio.TimerHandle | None = None  # one for all calls: most end long before their deadline
        self._attempts = Attempts()  # to poll: in vain where the store is further away

    def watch(self, pending: PendingCommit, ended: Ended, *, at_once: bool = False) -> None:
        """at_once: the answer is expected at once."""
        try:
            if pending.stage is Stage.WAITING and not (at_once and self._poll(pending)):
                descriptor, deadline = pending.fileno(), pending.deadline
                asyncio.get_running_loop().add_reader(descriptor, self._advance, descriptor)
                self._waiting[descriptor] = pending, ended
                if self._timer is None:
                    self._wait_until(deadline)
                return
        except (OSError, ValueError):
            pass  # closed already, or the loop cannot watch one more
        except Exception:
            log.exception("the store failed where it should not")
        ended(pending)

    def close(self) -> None:
        """Gives up what is under way, without telling anybody."""
        if self._timer is not None:
            self._timer.cancel()
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
        pending, _ = self._waiting[descriptor]
        if _advanced(pending):
            self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        pending, ended = self._leave(descriptor)
        ended(pending)

    def _leave(self, descriptor: int) -> tuple[PendingCommit, Ended]:
        """Must precede `finish`: after that, the descriptor may be another call's."""
        asyncio.get_running_loop().remove_reader(descriptor)
        return self._waiting.pop(descriptor)

    def _wait_until(self, deadline: float) -> None:
        delay = max(0.0, deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._look_for_late)

    def _look_for_late(self) -> None:
        now = time.monotonic()
        try:
            for descriptor, (pending, _) in tuple(self._waiting.items()):
                if pending.deadline <= now:
                    self._advance(descriptor)  # if the loop itself was late, the replies may be there
                    if descriptor in self._waiting and pending.deadline <= now:
                        self._end(descriptor)
        finally:
            self._timer = None
            if self._waiting:
                self._wait_until(min(pending.deadline for pending, _ in self._waiting.values()))


def _advanced(pending: PendingCommit) -> bool:
    """Reads what has arrived. Returns whether there is nothing more to wait for."""
    try:
        return pending.advance() is not Stage.WAITING
    except Exception:
        log.exception("the store failed where it should not")
        return True
