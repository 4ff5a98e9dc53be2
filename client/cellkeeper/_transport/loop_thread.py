"""An event loop in a thread of its own, for the blocking client."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar
from weakref import finalize

from .._session.blocking_answer import BlockingAnswer
from ..errors import CellkeeperError, Closed, ForkedProcess, WrongThread
from .forks import INHERITED, disown_after_fork

T = TypeVar("T")
W = TypeVar("W")

_OWN_THREAD = (
    "{call}: called in the thread of the client itself, which runs its token callable and other callbacks, and would "
    "wait for itself there; use another Client in a callback, or an AsyncClient in an event loop of your own"
)
_CLOSED = "the client was closed"
END_SECONDS = 1.0  # for tasks that still run when a client closes


class LoopThread:
    """Runs the asyncio client of one Client, and the calls of its sessions. Safe to use from several threads.

    at_end: a coroutine function that runs last, when the thread is closed. A LoopThread that is garbage-collected
    without being closed ends its thread with a ResourceWarning.
    """

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop, at_end), name="cellkeeper-client", daemon=True)
        self._thread.start()
        # Reentrant: while it is held, a signal handler or the garbage collector (of an abandoned stream) may use it.
        self._lock = threading.RLock()
        self._closed: CellkeeperError | None = None
        self._finalizer = finalize(self, _left_open, self._loop)
        self._finalizer.atexit = False
        disown_after_fork(self)

    @property
    def closed(self) -> bool:
        """True once it was closed, or in a process that was forked from its own."""
        return self._closed is not None

    def check(self) -> None:
        """Raises Closed and ForkedProcess."""
        if self._closed is None and not self._finalizer.alive:  # used by a finalizer of the same garbage
            self._closed = Closed(_CLOSED)
        if self._closed is not None:
            raise copy(self._closed)

    def run(self, work: Coroutine[Any, Any, T], call: str = "", unread: Callable[[T], object] | None = None) -> T:
        """Runs a coroutine in the thread and waits for its result.

        call: as in `wait`; empty: the coroutine's name. unread: called in the thread with a result that came just when
        its caller stopped waiting. Raises what the coroutine raises, and what `wait` raises.
        """
        answer: BlockingAnswer[T, asyncio.Task[None]] = BlockingAnswer()

        def submit() -> asyncio.Task[None]:
            return self._loop.create_task(_answered(work, answer))

        def give_up(task: asyncio.Task[None]) -> None:
            task.cancel()
            if unread is not None and (result := answer.unread) is not None:
                unread(result)

        try:
            return self.wait(call or work.__name__, answer, submit, give_up)  # type: ignore[attr-defined]
        except CellkeeperError:
            if not answer.told:  # it was not submitted
                work.close()
            raise

    def wait(
        self, call: str, answer: BlockingAnswer[T, W], submit: Callable[[], W], give_up: Callable[[W], object]
    ) -> T:
        """Submits work in the thread, and waits for its answer.

        call: the name of the public call, for errors. submit: starts the work, which sets the answer. give_up: tells
        the work that its caller has stopped waiting: Ctrl-C, or an exception from another signal handler. Raises what
        the work raises, Closed, ForkedProcess and WrongThread.
        """
        self._check_caller(call)
        try:
            self.soon(answer.start, submit)
            return answer.wait()
        except BaseException:
            if not answer.told:
                with suppress(Closed, ForkedProcess):
                    self.soon(answer.give_up, give_up)
            raise

    def read(self, call: str, value: Callable[[], T]) -> T:
        """Returns `value()`, called in the thread while there is one, after what was scheduled there.

        call: as in `wait`. Raises WrongThread.
        """
        with suppress(Closed, ForkedProcess):
            return self.run(_called(value), call)
        return value()

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Schedules `work` to be called in the thread, without waiting for it. Raises Closed."""
        with self._lock:
            self.check()
            try:
                self._loop.call_soon_threadsafe(work, *arguments)
            except RuntimeError:  # a signal handler has closed the client since the check, and with it the loop
                self.check()
                raise

    def close(self) -> None:
        """Ends the loop and waits for the thread; every later use raises Closed. Raises WrongThread."""
        self._check_caller("close")
        with self._lock:
            if self._closed is not None:
                return
            self._closed = Closed(_CLOSED)
            if self._finalizer.detach() is None:  # it has stopped the loop, which is ending
                return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _check_caller(self, call: str) -> None:
        """Raises WrongThread in the thread itself, where a call that waits for it would wait for ever."""
        if threading.current_thread() is self._thread:  # not by its number, which a later thread may have
            raise WrongThread(_OWN_THREAD.format(call=call))

    def disown(self) -> None:
        """Called in a forked process: every use raises ForkedProcess from now on."""
        self._lock = threading.RLock()  # another thread may have held the old one
        self._closed = ForkedProcess(INHERITED)


async def _called(value: Callable[[], T]) -> T:
    return value()


async def _answered(work: Coroutine[Any, Any, T], answer: BlockingAnswer[T, asyncio.Task[None]]) -> None:
    """Passes the outcome of the work to the answer."""
    try:
        result = await work
    except asyncio.CancelledError:  # the caller has stopped waiting, or the loop is ending
        answer.set_exception(Closed(_CLOSED))
        raise
    except BaseException as error:
        answer.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        answer.set_result(result)


def _serve(loop: asyncio.AbstractEventLoop, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs the loop until it is stopped."""
    loop.run_forever()
    try:
        loop.run_until_complete(at_end())
        loop.run_until_complete(_end_tasks())
    finally:
        loop.close()


def _left_open(loop: asyncio.AbstractEventLoop) -> None:
    """Warns of a client that was garbage-collected without being closed, and stops its loop.

    Runs in any thread, maybe the loop's own, so it waits for nothing.
    """
    loop.call_soon_threadsafe(loop.stop)  # first: the warning may be an error
    warnings.warn("a Client was not closed: use `with`, or call its close()", ResourceWarning, stacklevel=2)


async def _end_tasks() -> None:
    """Waits for callers that were just told that the client is closed, and for gRPC's own tasks.

    An event loop must not be closed while it has tasks.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=END_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
