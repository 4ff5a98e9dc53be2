"""Runs work on another thread at a chosen line of this one, to prove that two threads do not disturb each other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, RLock, Thread
from types import TracebackType

PATIENCE_S = 30.0


class TellingLock:
    """A lock that tells when a thread has to wait for it. Put it in the place of an object's own."""

    def __init__(self) -> None:
        self.is_awaited = Event()
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.is_awaited.set()
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class Meanwhile:
    """Work for another thread, which begins at the line that calls `begin`.

    `begin` returns once the work has ended, or waits for `lock`, which the calling thread holds. So the lines after it
    run as late as the lock permits, and no test depends on when threads switch.
    """

    def __init__(self, work: Callable[[], object], lock: TellingLock) -> None:
        self._work = work
        self._lock = lock
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self.is_started = False

    def begin(self) -> None:
        """Begins the work, the first time."""
        if self.is_started:
            return
        self.is_started = True
        self._thread.start()
        assert self._lock.is_awaited.wait(PATIENCE_S), "the other thread neither ended nor waits for the lock"

    def end(self) -> None:
        """Waits for the end of the work, and raises what it raised."""
        assert self.is_started, "the line that should begin the work was not reached"
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the other thread does not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - `end` raises it
            self._error = error
        finally:
            self._lock.is_awaited.set()
