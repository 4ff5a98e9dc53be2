"""What the parts of the heart share: the lines, and how a request enters and leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason, Rejection

from .limits import Clock, Limits
from .line import Line
from .requests import Request, Step, StepReply
from .served import Models, Served


class Desk:
    """`advance` is called for a line whenever something it waited for has happened."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes],
        advance: Callable[[Line], None],
    ) -> None:
        self.models = models
        self.limits = limits
        self.clock = clock
        self.meter = meter
        self.mint = mint
        self.advance = advance
        self.lines: dict[SessionKey, Line] = {}
        self.waiting: dict[Line, None] = {}  # lines with requests that nothing was started for
        self.unanswered = 0
        self.arrivals = 0

    def now(self) -> float:
        return self.clock.monotonic()

    def enter(self, request: Request) -> Line:
        """Puts the request into its line, or answers it with QUEUE_FULL."""
        request.arrived = self.now()
        self.arrivals += 1
        request.number = self.arrivals
        self.unanswered += 1
        line = self.lines.get(request.key)
        if line is None:
            line = self.lines[request.key] = Line(request.key)
        if self.unanswered > self.limits.max_requests:
            self.answer(request, self._full("the server's", self.limits.max_requests))
        elif len(line.queue) >= self.limits.max_session_requests:
            self.answer(request, self._full("this session's", self.limits.max_session_requests))
        else:
            line.queue.append(request)
        return line

    def answer(self, request: Request, result: Any) -> None:
        """Sends the request's one reply."""
        self.unanswered -= 1
        if isinstance(result, Rejection):
            self.meter.rejected(result.reason.value)
        elif isinstance(result, StepReply) and isinstance(request, Step):
            times = request.times(self.now())
            self.meter.step_done(request.key.model, request.steps, times, result.replayed)
        request.done(result)

    def requeue(self, line: Line, requests: Iterable[Request]) -> None:
        """Puts requests back to the line's front, in their order: they are decided again."""
        line.queue.extendleft(reversed(list(requests)))

    def dead(self, request: Request, now: float) -> Rejection | None:
        """Why nobody waits for this request any more, if so."""
        if request.gone:
            return Rejection(Reason.CALLER_GONE, "the caller went away before the request was begun")
        return self.late(request, now)

    def late(self, request: Request, now: float) -> Rejection | None:
        if now >= request.deadline:
            return Rejection(Reason.DEADLINE_PASSED, "the deadline passed before the request was committed")
        return None

    def expire(self) -> None:
        """Answers the waiting requests that nobody waits for any more."""
        now = self.now()
        for line in list(self.waiting):
            dead = [(request, why) for request in line.queue if (why := self.dead(request, now))]
            for request, why in dead:
                line.queue.remove(request)
                self.answer(request, why)
            if dead:
                self.advance(line)

    def rest(self, line: Line) -> None:
        """Keeps account of a line that nothing more can be started for: it waits, or it is forgotten."""
        if line.queue:
            self.waiting[line] = None
        else:
            self.waiting.pop(line, None)
            if line.hot is None and line.idle:
                self.lines.pop(line.key, None)

    def store_unavailable(self, why: str) -> Rejection:
        text = f"the store is not available: {why}"
        return Rejection(Reason.STORE_UNAVAILABLE, text, retry_delay_ms=self.limits.retry_delay_ms)

    def served(self) -> Iterable[Served]:
        """Every version of every model."""
        for models in self.models.values():
            yield from models

    def _full(self, whose: str, limit: int) -> Rejection:
        text = f"{whose} queue is full ({limit} requests unanswered)"
        return Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=self.limits.retry_delay_ms)
