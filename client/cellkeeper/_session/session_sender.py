"""Sends the steps of one session: its history, its waiting calls, its pauses between retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from math import frexp
from typing import Any

from ..errors import CellkeeperError, Closed, InvalidArgument, QuotaExceeded, error_of_reason
from ..position import Position
from ..types import Backoff, Counters, StepReply
from .chunk import Chunk, ChunkState
from .frame_format import FrameFormat
from .history import History
from .hold import Hold
from .late_steps import LateSteps
from .not_serving import NotServing
from .retry import EndpointStatus, RetryPause, no_answer_from, worth_retrying
from .sender import NEVER, Sender
from .step_call import Answer, StepCall, error_of_later_steps, translated
from .verdict import DELIVER, FINAL, LOST, Action, Verdict
from .waiting import WaitingCalls

UNSETTLED = "it was not sent: the outcome of an earlier step is not known yet"
_FAIL = Action.FAIL
_LEAST_SECONDS = 0.001


# Chunks with the same key share a frame. The key is the format and the binary exponent of the seconds left.
FrameKey = tuple[FrameFormat, int]


Dispatch = Callable[["SessionSender"], None]
"""Puts a sender with something to send into the queue of an endpoint."""


class SessionSender(Sender):
    """Sends the steps of one session; see the module. Use it from one event loop only.

    frame_format: returns the format of frames with these outputs. step_bytes: bytes of one time step's input.
    """

    def __init__(
        self,
        session: str,
        history: History,
        *,
        frame_format: Callable[[tuple[str, ...]], FrameFormat],
        step_bytes: int,
        dispatch: Dispatch,
        counters: Counters,
        backoff: Backoff,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop)
        self.session = session
        self.history = history
        self.queued = False  # in an endpoint's queue
        self.endpoint: EndpointStatus | None = None  # where its chunks are in flight
        self.ranked: list[Any] = []  # endpoints in order of preference; empty until the first look-up
        self.not_serving = NotServing(loop)
        self._format_of = frame_format
        self._replays = frame_format(())  # their outputs are not needed
        self._frame_format = self._replays  # that of the latest call
        self._step_bytes = step_bytes
        self._dispatch = dispatch
        self._counters = counters
        self._pause = RetryPause(loop, backoff)
        self._waiting = WaitingCalls()
        self.late_steps = LateSteps(history.position.generation)

    # ------------------------------------------------------------------------------------------ callers

    def submit(self, inputs: bytes, single: bool, outputs: tuple[str, ...], timeout: float, answer: Answer) -> StepCall:
        """Appends a chunk, or queues it until the window has room; `answer` receives its reply or error.

        inputs: raw bytes. single: given without a time axis. timeout: seconds.
        """
        if self._closed is not None:
            raise copy(self._closed)
        if outputs is not self._frame_format.outputs:
            self._frame_format = self._format_of(outputs)
        history = self.history
        deadline = self.loop.time() + timeout
        call = StepCall(inputs, single, self._frame_format, timeout, deadline, answer)
        if deadline < self.next_deadline:
            self.expire_at(deadline)
        busy = history.queued or history.in_flight
        if self._waiting or (busy and not history.room(len(inputs) // self._step_bytes)):
            self._waiting.append(call)
        else:
            call.chunk = history.append(inputs, call)
        if not self.queued and not self._pause.active:
            self._dispatch(self)
        return call

    def expire(self, now: float) -> float:
        calls = [chunk.call for chunk in self.history.unanswered if chunk.call is not None]
        calls += self._waiting.steps
        for call in calls:
            if call.deadline <= now and not call.answer.done():
                self.give_up(call, self.out_of_time(call, now))
        return min((call.deadline for call in calls if not call.answer.done()), default=NEVER)

    def out_of_time(self, call: StepCall, now: float) -> CellkeeperError:
        """Returns the error of a call whose deadline has passed."""
        endpoint = self.endpoint or next(iter(self.ranked), None)
        spent = now - (call.deadline - call.timeout)
        why = UNSETTLED if call.chunk is None and self.history.late > 0 else ""
        sent = call.chunk is not None and call.chunk.state is ChunkState.IN_FLIGHT
        return no_answer_from(endpoint, call.timeout, spent, call.last_error, why, sent)

    def give_up(self, call: StepCall, error: CellkeeperError, unread_steps: int | None = None) -> None:
        """Ends the call with `error`. If it was not sent, the calls after it end too, since they build on it.

        unread_steps: how many of the chunk's last time steps the caller has got no answer to; None: all.
        """
        chunk = call.chunk
        if chunk is not None:
            verdict = self.history.abandon(chunk, error.reason)
            if chunk.state is ChunkState.DROPPED:
                self._fail_calls(verdict, error)
            elif verdict.action is Action.FAIL:
                self._fail_call(chunk, error)
        elif call in self._waiting:
            others = error_of_later_steps(error)
            for other in reversed(self._waiting.take_steps(self._waiting.index(call) + 1)):
                other.fail(others)
            self._waiting.remove(call)
        elif call.answer.done():
            reply, call.reply = call.reply, None
            if reply is not None:
                self.late_steps.unread(call, reply, unread_steps)  # it was answered after its caller had gone
            return
        call.fail(error)
        self.go_on()

    @property
    def is_at_rest(self) -> bool:
        """True if it has nothing to do and no endpoint to avoid."""
        return not (self._waiting or self._pause.active or not self.history.idle or self.not_serving)

    def close(self, error: CellkeeperError, superseded: bool = False) -> None:
        """Ends every call with `error`; every later use raises Closed, with the same reason if `error` is one.

        superseded: another sender continues the session, so that those who wait for earlier steps go on.
        """
        self._closed = error if isinstance(error, Closed) else Closed(f"session {self.session!r} was closed")
        self.expire_never()
        self._pause.cancel()
        waiting, self._waiting = self._waiting, WaitingCalls()
        for call in waiting:
            if superseded and isinstance(call, Hold):
                call.grant()
            else:
                call.fail(error)
        for chunk in self.history.end():
            self.late_steps.ended(chunk, error)

    async def drained(self, timeout: float) -> None:
        """Waits until every earlier step is answered. Raises DeadlineExceeded, or why a late one cannot be settled."""
        async with self.held(timeout):
            pass

    @asynccontextmanager
    async def held(self, timeout: float, first: bool = False) -> AsyncIterator[None]:
        """Waits as `drained` does, and holds later steps back while the caller is inside.

        first: before all steps that wait, of which none is earlier than the call.
        """
        self.check()
        hold = Hold(self.loop)
        if first:
            self._waiting.appendleft(hold)
        else:
            self._waiting.append(hold)
        self.go_on()  # a late step is sent again only while a caller waits
        try:
            await hold.wait(timeout, lambda: self.endpoint)
            yield
        finally:
            if hold in self._waiting:
                self._waiting.remove(hold)
            self.go_on()

    def rewind(self, error: CellkeeperError, position: Position) -> None:
        """Replays the steps that another call found missing at the server. Raises HistoryChanged, HistoryLost."""
        verdict = self.history.rewind(position)
        if verdict.action is Action.FAIL:
            raise translated(verdict.reason, error)
        self._counters.replayed_steps += verdict.replayed_steps
        self.go_on()

    # ------------------------------------------------------------------------------------------ frames

    def frame_key(self, now: float, default_seconds: float) -> FrameKey | None:
        """Returns the key of its next chunk; None if there is nothing to send. default_seconds: for a replay."""
        chunk = self.history.upcoming
        if chunk is None or (self.history.late and not self._is_awaited()):
            return None
        call: StepCall | None = chunk.call
        if call is None or call.late is not None:
            return (self._replays if call is None else call.frame_format, frexp(default_seconds)[1])
        left = call.deadline - now
        return (call.frame_format, frexp(left if left > _LEAST_SECONDS else _LEAST_SECONDS)[1])

    def seconds_left(self, now: float) -> float:
        """Returns the time until the deadline of its next chunk; infinity where nobody waits for it."""
        chunk = self.history.upcoming
        call: StepCall | None = None if chunk is None else chunk.call
        return NEVER if call is None or call.late is not None else call.deadline - now

    def take(self, frame_format: FrameFormat) -> Chunk | None:
        """Returns its next chunk and marks it as in flight; None if it has none of that format."""
        history = self.history
        chunk = history.upcoming
        if chunk is None or frame_format is not (self._replays if chunk.call is None else chunk.call.frame_format):
            return None
        history.launch(chunk)
        return chunk

    def replied(self, chunk: Chunk, reply: StepReply) -> None:
        """Records the reply to a chunk that the server applied."""
        history = self.history
        verdict = history.on_reply(chunk, reply.position)
        if verdict is DELIVER:
            call: StepCall = chunk.call
            chunk.call = call.chunk = None
            self._pause.succeeded()
            if call.late is not None or call.answer.done():
                self.late_steps.answered(call, reply)
            else:
                reply.late_steps = self.late_steps.take_settled()
                call.reply = reply
                call.answer.set_result(reply)
        elif verdict.action is _FAIL:
            text = f"the server is at {reply.position}, where {chunk.end} was expected"
            self._fail_calls(verdict, error_of_reason(verdict.reason, text, reply.position))
        if history.queued or self._waiting:
            self.go_on()

    def refused(self, chunk: Chunk, error: CellkeeperError) -> None:
        """Records that the server refused the chunk."""
        self._ended(chunk, error, error.reason)

    def lost(self, chunk: Chunk, error: CellkeeperError) -> None:
        """Records that the chunk's stream ended with `error` before the chunk was answered.

        Whatever ended it says nothing of the chunk, which may have been applied.
        """
        chunk.uncertain = True
        self.not_read(chunk, error)

    def not_read(self, chunk: Chunk, error: CellkeeperError) -> None:
        """Records that the chunk's stream was refused before the server read the chunk.

        The reason says nothing of the chunk, which an earlier attempt may have applied.
        """
        self._ended(chunk, error, "" if error.reason in FINAL else error.reason)

    def _ended(self, chunk: Chunk, error: CellkeeperError, reason: str) -> None:
        reason = reason or (LOST if worth_retrying(error) else "")
        if reason == "MODEL_CHANGED":
            if self.endpoint is not None:
                self.not_serving.add(self.endpoint)
            if len(self.not_serving) < len(self.ranked):  # another may serve it
                reason = LOST
        if isinstance(error, QuotaExceeded) and worth_retrying(error):
            reason = "QUEUE_FULL"
        call: StepCall | None = chunk.call
        if call is not None:
            call.last_error = error
        verdict = self.history.on_error(chunk, reason, error.position)
        if verdict.action is Action.RESEND or verdict.action is Action.REPLAY:
            self._counters.retries += 1
            self._counters.replayed_steps += verdict.replayed_steps
            if reason != LOST:  # the endpoint itself pauses after a lost stream
                self._pause.begin(error, self.go_on)
        elif verdict.action is Action.FAIL:
            self._fail_calls(verdict, translated(verdict.reason, error))
        elif verdict is DELIVER:
            self.late_steps.applied_without_reply(chunk, error)
        self.go_on()

    # ------------------------------------------------------------------------------------------ inside

    def _is_awaited(self) -> bool:
        """Returns True if a call waits; late steps alone are not sent again."""
        return bool(self._waiting or self.history.awaited)

    def go_on(self) -> None:
        """Appends the waiting calls that fit into the window, and joins the endpoint's queue if needed."""
        history = self.history
        while (call := self._waiting.next_step) is not None and history.room(len(call.inputs) // self._step_bytes):
            call.chunk = history.append(call.inputs, call)
            self._waiting.popleft()
        may_send = not self.queued and not self._pause.active and self._closed is None
        sends = history.queued and may_send and history.ready
        if sends and (not history.late or self._is_awaited()):
            self._dispatch(self)
        if self._waiting and history.idle:
            self._waiting.grant_holds()

    def _fail_calls(self, verdict: Verdict, error: CellkeeperError) -> None:
        """Fails the calls of these chunks: the first with the error, the others with one that says they build on it."""
        told = False
        for chunk in verdict.failed:
            told = self._fail_call(chunk, error_of_later_steps(error) if told else error) or told
        dropped = all(chunk.state is ChunkState.DROPPED for chunk in verdict.failed)
        if dropped and not told and isinstance(error, InvalidArgument):
            return  # late steps were rejected as invalid; the waiting calls do not build on them
        for call in self._waiting.take_steps():
            call.fail(error_of_later_steps(error) if told else error)
            told = True
        if self.history.late and not dropped:  # those before a dropped chunk are still settled
            self._waiting.fail_holds(error)
            self._waiting.clear()

    def _fail_call(self, chunk: Chunk, error: CellkeeperError) -> bool:
        """Ends the chunk's call with `error`. Returns False if no caller waits for it."""
        call: StepCall | None = chunk.call
        if call is None:
            return False
        dropped, late = chunk.state is ChunkState.DROPPED, call.late
        if late is None:
            call.fail(error if dropped else self.late_steps.abandoned(call, chunk, error))
        elif dropped or chunk.state is ChunkState.DONE:  # a later answer has proved that it was applied
            self.late_steps.settle(late, not dropped, error)
        else:
            late.error = error
        if dropped or chunk.state is ChunkState.DONE:
            chunk.call = call.chunk = None
        return late is None
