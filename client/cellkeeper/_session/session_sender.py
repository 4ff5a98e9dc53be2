"""One session's way to the servers: its history, its waiting callers, its pauses."""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from math import frexp
from typing import Any, Protocol

from ..errors import CellkeeperError, Closed, ForkedProcess, InvalidArgument, QuotaExceeded, StepGap, error_of_reason
from ..late_step import LateStep
from ..position import Position
from ..types import Backoff, Counters, StepReply
from .chunk import Chunk, ChunkState
from .deadlines import Deadlines
from .event_loop import check_loop
from .frame_format import Kind, Kinds, Layout
from .history import History
from .late_steps import LateSteps
from .retry import out_of_time, worth_retrying
from .step_call import Answer, StepCall, behind, translated
from .verdict import DELIVER, LOST, Action, Verdict

UNSETTLED = "it was not sent, as it is not known yet whether an earlier step of the session counts"
_FAIL = Action.FAIL
_LEAST_SECONDS = 0.001
_FOREIGN_SECONDS = 2.0


# What goes into one frame together: the kind, the magnitude of the time left.
GroupKey = tuple[Kind, int]


class Place(Protocol):
    """An endpoint, for messages. trouble: why nothing is heard of it."""

    target: str
    trouble: CellkeeperError | None


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
        kinds: Kinds,
        step_bytes: int,
        dispatch: Dispatch,
        deadlines: Deadlines,
        counters: Counters,
        backoff: Backoff,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.session = session
        self.history = history
        self.loop = loop
        self.deadlines = deadlines
        self.watched = False  # by the deadlines
        self.queued = False  # in an endpoint's queue
        self.endpoint: Place | None = None  # where its flying chunks are
        self.ranked: list[Any] = []  # the endpoints in its order of preference; empty while that was not asked for
        self._foreign: dict[
            object, float
        ] = {}  # endpoints that do not serve its version, and until when that is believed
        self._layout = layout
        self._kinds = kinds
        self._replays = kinds.of(layout, ())  # nobody reads their outputs
        self._kind = self._replays  # of the latest call
        self._step_bytes = step_bytes
        self._dispatch = dispatch
        self._counters = counters
        self._backoff = backoff
        self._attempt = 0
        self._paused: asyncio.TimerHandle | None = None
        self._waiting: deque[StepCall] = deque()  # beyond the window
        self._idle_waiters: list[asyncio.Future[None]] = []
        self.late_steps = LateSteps(step_bytes)
        self._closed: CellkeeperError | None = None

    # ------------------------------------------------------------------------------------------ callers

    def check_loop(self) -> None:
        """Raises WrongEventLoop where it is used from another event loop. What is closed says that itself."""
        if self._closed is None:
            check_loop(self.loop)

    def submit(self, inputs: bytes, single: bool, outputs: tuple[str, ...], timeout: float, answer: Answer) -> StepCall:
        """Takes a chunk; what comes of it is told to `answer`."""
        if self._closed is not None:
            raise copy(self._closed)
        if outputs is not self._kind.outputs:
            self._kind = self._kinds.of(self._layout, outputs)
        history, deadlines = self.history, self.deadlines
        deadline = self.loop.time() + timeout
        call = StepCall(inputs, single, self._kind, timeout, deadline, answer)
        if not self.watched or deadline < deadlines.armed_for:
            deadlines.add(self, deadline)
        busy = history.queued or history.flying
        if self._waiting or (busy and not history.room(len(inputs) // self._step_bytes)):
            self._waiting.append(call)
        else:
            call.chunk = history.append(inputs, call)
        if not self.queued and self._paused is None:
            self._dispatch(self)
        return call

    def expire(self, now: float) -> float:
        """Ends the calls whose time is over; the next deadline, infinity where nobody waits."""
        calls = [chunk.tag for chunk in self.history.unanswered if chunk.tag is not None]
        calls += self._waiting
        for call in calls:
            if call.deadline <= now and not call.answer.done():
                held_back = call.chunk is None and self.history.late > 0
                self.give_up(call, self._out_of_time(call, now, UNSETTLED if held_back else ""))
        return min((call.deadline for call in calls if not call.answer.done()), default=float("inf"))

    def give_up(self, call: StepCall, error: CellkeeperError) -> None:
        """The call waits no longer. Where it was not sent, those behind it are not either."""
        chunk = call.chunk
        if chunk is not None:
            verdict = self.history.abandon(chunk, error.reason)
            if chunk.state is ChunkState.DROPPED:
                self._tell(verdict, error)
            elif verdict.action is Action.FAIL:
                self._call_of(chunk, error)
        elif call in self._waiting:
            at = self._waiting.index(call)
            others = behind(error)
            while len(self._waiting) > at + 1:
                self._waiting.pop().fail(others)
            self._waiting.pop()
        elif call.answer.done():
            if call.reply is not None:  # it was answered, and its caller went away without looking
                self.late_steps.answered(call, call.reply)
                call.reply = None
            return
        call.fail(error)
        self.go_on()

    def take_settled(self) -> tuple[LateStep, ...]:
        """The late steps whose outcome became known since the last call, or the last reply."""
        return self.late_steps.take_settled()

    def close(self, error: CellkeeperError) -> None:
        self._closed = Closed(f"session {self.session!r} was closed")
        self.deadlines.remove(self)
        if self._paused is not None:
            self._paused.cancel()
        for waiting in self._waiting:
            waiting.fail(error)
        self._waiting.clear()
        for chunk in self.history.end():
            self.late_steps.ended(chunk, error)
        self._wake_idle()

    def disown(self, error: CellkeeperError) -> None:
        """It belongs to another process, whose event loop is not touched."""
        self._closed = error

    async def drained(self, timeout: float) -> None:
        """Waits until nothing is unanswered. Raises DeadlineExceeded, and what keeps a late step from being settled."""
        if isinstance(self._closed, ForkedProcess):
            raise copy(self._closed)
        self.check_loop()
        if self.history.idle and not self._waiting:
            return
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._idle_waiters.append(waiter)
        self.go_on()  # a late step is sent again only while somebody waits
        try:
            await asyncio.wait_for(waiter, timeout)
        except asyncio.TimeoutError:
            place = self.endpoint
            raise out_of_time(
                timeout,
                timeout,
                place.target if place is not None else "the server",
                place.trouble if place is not None else None,
                "steps given before are still unanswered",
            ) from None

    def rewind(self, error: CellkeeperError, position: Position) -> None:
        """Another call found the server behind: send again what it lacks. Raises HistoryChanged, HistoryLost."""
        verdict = self.history.rewind(position)
        if verdict.action is Action.FAIL:
            raise translated(verdict.reason, error)
        self._counters.replayed_steps += verdict.replayed_steps
        self.go_on()

    # ------------------------------------------------------------------------------------------ the sender

    def group(self, now: float, default_seconds: float) -> GroupKey | None:
        """Where its next chunk belongs; None while it has none."""
        chunk = self.history.upcoming
        if chunk is None or (self.history.late and not self._wanted()):
            return None
        call: StepCall | None = chunk.tag
        if call is None or call.late is not None:
            return (self._replays if call is None else call.kind, frexp(default_seconds)[1])
        left = call.deadline - now
        return (call.kind, frexp(left if left > _LEAST_SECONDS else _LEAST_SECONDS)[1])

    def take(self, kind: Kind) -> Chunk | None:
        """Its next chunk, to be sent now; None where there is none of that kind any more."""
        history = self.history
        chunk = history.upcoming
        if chunk is None or kind is not (self._replays if chunk.tag is None else chunk.tag.kind):
            return None
        history.launch(chunk)
        return chunk

    def replied(self, chunk: Chunk, reply: StepReply) -> None:
        history = self.history
        verdict = history.on_reply(chunk, reply.position)
        if verdict is DELIVER:
            call: StepCall = chunk.tag
            chunk.tag = call.chunk = None
            self._attempt = 0
            if call.late is not None or call.answer.done():
                self.late_steps.answered(call, reply)
            else:
                reply.late_steps = self.late_steps.take_settled()
                call.reply = reply
                call.answer.set_result(reply)
        elif verdict.action is _FAIL:
            text = f"the server stands at {Position(*reply.position)}, where {chunk.end} was expected"
            self._tell(verdict, error_of_reason(verdict.reason, text, reply.position))
        if history.queued or self._waiting or self._idle_waiters:
            self.go_on()

    def refused(self, chunk: Chunk, error: CellkeeperError) -> None:
        reason = error.reason or (LOST if worth_retrying(error) else "")
        if reason == "MODEL_CHANGED" and self._goes_elsewhere():
            reason = LOST
        if isinstance(error, QuotaExceeded) and worth_retrying(error):
            reason = "QUEUE_FULL"
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
            self._tell(verdict, translated(verdict.reason, error))
        elif verdict is DELIVER:
            self.late_steps.applied_without_reply(chunk, error)
        self.go_on()

    def is_foreign_at(self, endpoint: object) -> bool:
        """Its version was not served there a moment ago."""
        until = self._foreign.get(endpoint)
        return until is not None and until > self.loop.time()

    # ------------------------------------------------------------------------------------------ inside

    def _out_of_time(self, call: StepCall, now: float, why: str) -> CellkeeperError:
        place = self.endpoint or next(iter(self.ranked), None)
        last = call.last_error or (place.trouble if place is not None else None)
        spent = now - (call.deadline - call.timeout)
        return out_of_time(call.timeout, spent, place.target if place is not None else "the server", last, why)

    def _wanted(self) -> bool:
        """Somebody waits: late steps alone are not sent again."""
        return bool(self._waiting or self._idle_waiters or self.history.awaited)

    def _goes_elsewhere(self) -> bool:
        """While servers are exchanged or reloaded one after another, some serve a version that others do not. False:
        all of them have said so."""
        now = self.loop.time()
        self._foreign = {endpoint: until for endpoint, until in self._foreign.items() if until > now}
        if self.endpoint is not None:
            self._foreign[self.endpoint] = now + _FOREIGN_SECONDS
        return len(self._foreign) < len(self.ranked)

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
        sends = history.queued and not self.queued and self._paused is None and self._closed is None and history.ready
        if sends and (not history.late or self._wanted()):
            self._dispatch(self)
        if self._idle_waiters and history.idle and not self._waiting:
            self._wake_idle()

    def _wake_idle(self) -> None:
        for waiter in self._idle_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._idle_waiters.clear()

    def _tell(self, verdict: Verdict, error: CellkeeperError) -> None:
        """The first caller gets the error itself, the others that they were built on it."""
        told = False
        for chunk in verdict.failed:
            told = self._call_of(chunk, behind(error) if told else error) or told
        if not verdict.failed or (not told and isinstance(error, InvalidArgument)):
            return  # a late step was refused for what it is; what waits is not built on it
        while self._waiting:
            self._waiting.popleft().fail(behind(error) if told else error)
            told = True
        if self.history.late:
            self._fail_idle(error)

    def _call_of(self, chunk: Chunk, error: CellkeeperError) -> bool:
        """Tells the chunk's caller. False: nobody waits for it."""
        call: StepCall | None = chunk.tag
        if call is None:
            return False
        dropped = chunk.state is ChunkState.DROPPED
        waits = call.late is None
        if waits:
            call.fail(error if dropped else self.late_steps.abandoned(call, chunk, error))
        elif call.late is not None and dropped:
            self.late_steps.settle(call.late, False, error)
        elif call.late is not None:
            call.late.error = error
        if chunk.state is not ChunkState.QUEUED and chunk.state is not ChunkState.FLYING:
            chunk.tag = call.chunk = None
        return waits

    def _fail_idle(self, error: CellkeeperError) -> None:
        for waiter in self._idle_waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._idle_waiters.clear()
