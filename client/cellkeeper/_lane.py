"""One session's way to the servers: its history, its waiting callers, its pauses."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any, NamedTuple, Protocol

from ._chunk import Action, Chunk, Outgoing, Verdict
from ._deadlines import Deadlines
from ._errors import (
    CellkeeperError,
    Closed,
    DeadlineExceeded,
    HistoryError,
    ModelError,
    StepGap,
)
from ._history import LOST, History
from ._position import Position
from ._reply import Counters, StepReply
from ._retry import Backoff, out_of_time, worth_retrying
from ._wire import made_here


class Layout(NamedTuple):
    """What all inputs of one frame have in common: the model, the wire's number of the dtype, a time step's shape."""

    model: str
    dtype: Any
    shape: tuple[int, ...]


# What goes into one frame together: the layout, the outputs, the magnitude of the time left.
GroupKey = tuple[Layout, tuple[str, ...], int]

_FOUND_HERE = {
    "GENERATION_CHANGED": "another life of the session stands at the server; open it anew to go on with that one",
    "HISTORY_CHANGED": "the server's record of this session has other inputs than those sent from here",
    "HISTORY_LOST": (
        "the server lost more steps of this session than the inputs kept here reach back; "
        "open it anew and send what is missing"
    ),
}


class StepCall:
    """Someone waits for the answer to one chunk."""

    __slots__ = ("chunk", "deadline", "future", "inputs", "lane", "last_error", "outputs", "single", "timeout")

    def __init__(
        self, lane: Lane, inputs: bytes, single: bool, outputs: tuple[str, ...], timeout: float, deadline: float
    ) -> None:
        self.lane = lane
        self.inputs = inputs
        self.single = single
        self.outputs = outputs
        self.timeout = timeout
        self.deadline = deadline
        self.chunk: Chunk | None = None
        self.last_error: CellkeeperError | None = None
        self.future: asyncio.Future[StepReply] = lane.loop.create_future()

    def expire(self) -> None:
        self.lane.give_up(self, out_of_time(self.timeout, self.last_error))

    def succeed(self, reply: StepReply) -> None:
        self.lane.deadlines.remove(self)
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: CellkeeperError) -> None:
        self.lane.deadlines.remove(self)
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a caller that went away is no reason for a warning


class Dispatch(Protocol):
    """Puts a lane that has something to send into the queue of an endpoint."""

    def __call__(self, lane: Lane) -> None: ...


class Lane:
    """See the module. Used from one event loop only."""

    def __init__(
        self,
        session: str,
        layout: Layout,
        history: History,
        *,
        step_bytes: int,
        dispatch: Dispatch,
        deadlines: Deadlines,
        counters: Counters,
        backoff: Backoff,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.session = session
        self.layout = layout
        self.history = history
        self.loop = loop
        self.deadlines = deadlines
        self.queued = False  # in an endpoint's queue
        self.endpoint: object | None = None  # where its flying chunks are
        self._step_bytes = step_bytes
        self._dispatch = dispatch
        self._counters = counters
        self._backoff = backoff
        self._attempt = 0
        self._paused: asyncio.TimerHandle | None = None
        self._waiting: deque[StepCall] = deque()  # beyond the window
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._closed = False

    # ------------------------------------------------------------------------------------------ callers

    def submit(self, inputs: bytes, single: bool, outputs: tuple[str, ...], timeout: float) -> StepCall:
        """Takes a chunk; its answer comes to the call's future."""
        if self._closed:
            raise Closed(f"session {self.session!r} was closed")
        call = StepCall(self, inputs, single, outputs, timeout, self.loop.time() + timeout)
        self.deadlines.add(call)
        self._waiting.append(call)
        self.go_on()
        return call

    def give_up(self, call: StepCall, error: CellkeeperError) -> None:
        """The call waits no longer, nor do those behind it."""
        if call.chunk is not None:
            verdict = self.history.abandon(call.chunk, error.reason)
            if verdict.action is Action.FAIL:
                self._tell(verdict, error)
        elif call in self._waiting:
            at = self._waiting.index(call)
            others = _behind(error)
            while len(self._waiting) > at + 1:
                self._waiting.pop().fail(others)
            self._waiting.pop()
        elif call.future.done():
            return
        call.fail(error)
        self.go_on()

    def withdraw(self) -> None:
        """Takes back what was never sent."""
        error = Closed("taken back before it was sent")
        waiting, self._waiting = self._waiting, deque()
        for chunk in self.history.withdraw():
            self._call_of(chunk, error)
        for call in waiting:
            call.fail(error)
        self.go_on()

    def close(self, error: CellkeeperError) -> None:
        self._closed = True
        if self._paused is not None:
            self._paused.cancel()
        for call in list(self._waiting):
            call.fail(error)
        self._waiting.clear()
        while (chunk := self.history.oldest_open) is not None:
            verdict = self.history.abandon(chunk, "")
            if verdict.action is not Action.FAIL:
                break
            self._tell(verdict, error)
            if not verdict.failed:
                break
        self._wake_idle()

    async def drained(self, timeout: float) -> None:
        """Waits until nothing is unanswered. Raises DeadlineExceeded."""
        if self.history.idle and not self._waiting:
            return
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._idle_waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, timeout)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"steps of this session are still unanswered after {timeout:g} s", reason="DEADLINE_PASSED"
            ) from None

    def rewind(self, error: CellkeeperError, position: Position) -> None:
        """Another call found the server behind: send again what it lacks. Raises HistoryChanged, HistoryLost."""
        verdict = self.history.rewind(position)
        if verdict.action is Action.FAIL:
            raise self._translated(verdict.reason, error)
        self._counters.replayed_steps += verdict.replayed_steps
        self.go_on()

    # ------------------------------------------------------------------------------------------ the sender

    def group(self, default_ms: int) -> GroupKey | None:
        """Where its next chunk belongs; None while it has none."""
        chunk = self.history.upcoming
        if chunk is None:
            return None
        call: StepCall | None = chunk.tag
        if call is None:  # a replay: nobody reads its outputs
            return (self.layout, (), default_ms.bit_length())
        left_ms = max(1, math.ceil((call.deadline - self.loop.time()) * 1000))
        return (self.layout, call.outputs, left_ms.bit_length())

    @property
    def outputs_wanted(self) -> tuple[str, ...] | None:
        """Of its next chunk; None while it has none."""
        chunk = self.history.upcoming
        if chunk is None:
            return None
        call: StepCall | None = chunk.tag
        return () if call is None else call.outputs

    def take(self) -> Outgoing | None:
        """Its next chunk, to be sent now."""
        return self.history.next_chunk()

    def replied(self, chunk: Chunk, reply: StepReply) -> None:
        verdict = self.history.on_reply(chunk, reply.position)
        if verdict.action is Action.DELIVER:
            call: StepCall = chunk.tag
            chunk.tag = None
            call.chunk = None
            self._attempt = 0
            call.succeed(reply)
        elif verdict.action is Action.FAIL:
            text = f"the server stands at {reply.position}, where {chunk.end} was expected"
            self._tell(verdict, made_here(verdict.reason, text, reply.position))
        self.go_on()

    def refused(self, chunk: Chunk, error: CellkeeperError) -> None:
        reason = error.reason or (LOST if worth_retrying(error) else "")
        call: StepCall | None = chunk.tag
        if call is not None:
            call.last_error = error
        verdict = self.history.on_error(chunk, reason, error.position)
        if verdict.action is Action.RESEND or verdict.action is Action.REPLAY:
            self._counters.retries += 1
            self._counters.replayed_steps += verdict.replayed_steps
            if reason != LOST:  # a lost stream is paused for by the endpoint
                self._pause(error)
        elif verdict.action is Action.FAIL:
            self._tell(verdict, self._translated(verdict.reason, error))
        self.go_on()

    # ------------------------------------------------------------------------------------------ inside

    def _pause(self, error: CellkeeperError) -> None:
        if self._paused is not None:
            return
        if isinstance(error, StepGap) and self._attempt == 0:
            self._attempt = 1  # the first replay need not wait
            return
        seconds = self._backoff.wait_seconds(self._attempt, error.retry_delay_ms)
        self._attempt += 1
        self._paused = self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self.go_on()

    def go_on(self) -> None:
        """Moves what fits into the window, and queues up for sending if there is something to send."""
        history = self.history
        while self._waiting and history.room(len(self._waiting[0].inputs) // self._step_bytes):
            call = self._waiting.popleft()
            call.chunk = history.append(call.inputs, call)
        if history.ready and not self.queued and self._paused is None and not self._closed:
            self._dispatch(self)
        if self._idle_waiters and history.idle and not self._waiting:
            self._wake_idle()

    def _wake_idle(self) -> None:
        for waiter in self._idle_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._idle_waiters.clear()

    def _translated(self, reason: str, error: CellkeeperError) -> CellkeeperError:
        """The server's error, or what this client made of it."""
        if reason == error.reason or reason not in _FOUND_HERE:
            return error
        found = made_here(reason, _FOUND_HERE[reason], error.position)
        found.__cause__ = error
        return found

    def _tell(self, verdict: Verdict, error: CellkeeperError) -> None:
        """The first gets the error itself, the others that they were built on it."""
        others: CellkeeperError = error
        for index, chunk in enumerate(verdict.failed):
            if index == 1:
                others = _behind(error)
            self._call_of(chunk, others)
        if verdict.failed and self._waiting:
            others = _behind(error)
            for call in self._waiting:
                call.fail(others)
            self._waiting.clear()

    def _call_of(self, chunk: Chunk, error: CellkeeperError) -> None:
        call: StepCall | None = chunk.tag
        chunk.tag = None
        if call is not None:
            call.chunk = None
            call.fail(error)


def _behind(error: CellkeeperError) -> CellkeeperError:
    text = f"the step before it failed: {error.message}"
    if isinstance(error, (HistoryError, ModelError, DeadlineExceeded, Closed)):
        other = type(error)(text, reason=error.reason, position=error.position)
    else:
        other = StepGap(f"not applied, {text}", reason="STEP_GAP", position=error.position)
    other.__cause__ = error
    return other
