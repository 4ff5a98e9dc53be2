"""What the parts of the heart share: the lines, and how a request enters and leaves them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason, Rejection, internal_error

from .limits import Clock, Limits
from .line import Line
from .pace import Pace
from .requests import CarryOver, CopyInto, Request, Step, StepReply
from .served import Models, Served

DROPPED = {Reason.QUEUE_FULL, Reason.DEADLINE_PASSED, Reason.CALLER_GONE}


class Desk:
    """`advance` is called for a line whenever something it waited for has happened; `owe` with a tenant and the time
    steps that were computed for it beyond those it asked for."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes],
        advance: Callable[[Line], None],
        owe: Callable[[str, int], None],
    ) -> None:
        self.models = models
        self.limits = limits
        self.clock = clock
        self.meter = meter
        self.mint = mint
        self.advance = advance
        self.owe = owe
        self.lines: dict[SessionKey, Line] = {}
        self.waiting: dict[Line, None] = {}  # lines with requests that nothing was started for
        self.unanswered = 0
        self.unanswered_bytes = 0
        self.arrivals = 0
        self.pace = Pace()
        self._output_bytes: dict[tuple[str, frozenset[str]], int] = {}  # of one time step

    def now(self) -> float:
        return self.clock.monotonic()

    def enter(self, request: Request) -> Line:
        """Puts the request into its line, or answers it with QUEUE_FULL: where it, or its deadline, finds no room."""
        request.arrived = self.now()
        self.arrivals += 1
        request.number = self.arrivals
        request.held_bytes = self._weigh(request)
        self.unanswered += 1
        self.unanswered_bytes += request.held_bytes
        self.pace.entered(request.arrived, self.unanswered)
        line = self.lines.get(request.key)
        if line is None:
            line = self.lines[request.key] = Line(request.key)
        if self.unanswered > self.limits.max_requests:
            self.answer(request, self._full("the server's", f"{self.limits.max_requests} requests"))
        elif self.unanswered_bytes > self.limits.max_request_bytes:
            self.answer(request, self._full("the server's", f"{self.limits.max_request_bytes} bytes of requests"))
        elif len(line.queue) >= self.limits.max_session_requests:
            self.answer(request, self._full("this session's", f"{self.limits.max_session_requests} requests"))
        elif self.pace.too_late(self.unanswered, request.arrived, request.deadline):
            self.answer(request, self._too_late())
        else:
            line.queue.append(request)
        return line

    def refuse_many(self, count: int, deadline: float) -> Rejection | None:
        """Why none of `count` requests, to be begun by that deadline, would be taken, if so. Under overload this is
        asked far more often than requests are taken: it looks at no single one."""
        now = self.now()
        if now >= deadline or self.pace.too_late(self.unanswered + 1, now, deadline):
            self.arrivals += count
            for _ in range(count):
                self.meter.rejected(Reason.QUEUE_FULL.value)
            return self._too_late()
        return None

    def has_room(self, count: int, held_bytes: int) -> bool:
        """Whether `count` more requests, of `held_bytes` each, stay within what the server may hold."""
        limits = self.limits
        return (
            self.unanswered + count <= limits.max_requests
            and self.unanswered_bytes + count * held_bytes <= limits.max_request_bytes
        )

    def enter_many(self, count: int, held_bytes: int) -> None:
        """Counts items that go the short way: see cohorts.py."""
        if count:
            was_idle = self.unanswered == 0
            self.arrivals += count
            self.unanswered += count
            self.unanswered_bytes += count * held_bytes
            self.pace.entered(self.now(), 1 if was_idle else self.unanswered)

    def leave_many(self, count: int, held_bytes: int, now: float) -> None:
        """Counts the same items as done."""
        self.leave_some(count, held_bytes)
        self.pace.finished(now, count)

    def leave_refused(self, held_bytes: int, why: Rejection) -> None:
        """Counts one of them as refused."""
        self.leave_some(1, held_bytes)
        self.meter.rejected(why.reason.value)
        if why.reason not in DROPPED:
            self.pace.finished(self.now())

    def leave_some(self, count: int, held_bytes: int) -> None:
        self.unanswered -= count
        self.unanswered_bytes -= count * held_bytes

    def enter_first(self, line: Line, request: Request, arrived: float) -> None:
        """Puts a request, which was taken at `arrived` in another form, at its line's front."""
        self.arrivals += 1
        request.arrived, request.number, request.held_bytes = arrived, self.arrivals, self._weigh(request)
        self.unanswered += 1
        self.unanswered_bytes += request.held_bytes
        line.queue.appendleft(request)

    def answer(self, request: Request, result: Any) -> None:
        """Sends the request's one reply."""
        self.leave(request)
        now = self.now()
        if not isinstance(result, Rejection) or result.reason not in DROPPED:
            self.pace.finished(now)
        if isinstance(result, Rejection):
            self.meter.rejected(result.reason.value)
        elif isinstance(result, StepReply) and isinstance(request, Step):
            times = request.times(now)
            self.meter.step_done(request.key.model, request.steps, times, result.replayed)
        request.done(result)

    def answer_broken(self, requests: Iterable[Request]) -> None:
        """Answers those of the requests that an exception kept from their reply."""
        for request in requests:
            if not request.answered:
                self.answer(request, internal_error())

    def leave(self, request: Request) -> None:
        """The request counts no more: it is answered, or goes on as another."""
        request.answered = True
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes

    def requeue(self, line: Line, requests: Iterable[Request]) -> None:
        """Puts requests back to the line's front, in their order: they are decided again."""
        line.queue.extendleft(reversed(list(requests)))

    def dead(self, request: Request, now: float) -> Rejection | None:
        """Why nobody waits for this request any more, if so."""
        if request.gone:
            return caller_gone()
        return self.late(request.deadline, now)

    def late(self, deadline: float, now: float) -> Rejection | None:
        if now >= deadline:
            return Rejection(Reason.DEADLINE_PASSED, "the deadline passed before the request was committed")
        return None

    def expire(self) -> None:
        """Answers the waiting requests that nobody waits for any more."""
        now = self.now()
        for line in list(self.waiting):
            dead = [(request, why) for request in line.queue if (why := self.dead(request, now))]
            if not dead:
                continue
            answered = {request for request, _ in dead}
            line.queue = deque(request for request in line.queue if request not in answered)
            for request, why in dead:
                self.answer(request, why)
            self.advance(line)

    def rest(self, line: Line) -> None:
        """Keeps account of a line that nothing more can be started for: it waits, or it is forgotten."""
        if line.queue:
            self.waiting[line] = None
        else:
            self.waiting.pop(line, None)
            if line.hot is None and line.idle and not line.starved:
                self.lines.pop(line.key, None)

    def store_unavailable(self, why: str) -> Rejection:
        text = f"the store is not available: {why}"
        return Rejection(Reason.STORE_UNAVAILABLE, text, retry_delay_ms=self.limits.retry_delay_ms)

    def served(self) -> list[Served]:
        """Every version of every model, and those that retire."""
        found: list[Served] = []
        for models in self.models.values():
            found += models
            found += models.retiring
        return found

    def output_bytes(self, model: str, wanted: frozenset[str]) -> int:
        """Bytes of these outputs at one time step."""
        found = self._output_bytes.get((model, wanted))
        if found is None:
            outputs = self.models[model].default.spec.outputs
            found = sum(output.nbytes for output in outputs if output.name in wanted)
            self._output_bytes[model, wanted] = found
        return found

    def single_bytes(self, model: str, wanted: frozenset[str]) -> int:
        """Bytes that a single step and its reply hold."""
        return self.models[model].default.spec.step_bytes + self.output_bytes(model, wanted)

    def _weigh(self, request: Request) -> int:
        """Bytes that the request and its reply hold until it is answered."""
        if isinstance(request, Step):
            held = len(request.data) + request.all_steps * self.output_bytes(request.key.model, request.wanted)
            return held if request.rollout is None else held + 2 * request.rollout.known.nbytes
        if isinstance(request, CarryOver):
            return len(request.data)
        if isinstance(request, CopyInto) and request.copy is not None:
            return len(request.copy.checkpoint) + len(request.copy.log)
        return 0

    def _too_late(self) -> Rejection:
        return self._full("the server's", "too many to come to this one before its deadline")

    def _full(self, whose: str, limit: str) -> Rejection:
        text = f"{whose} queue is full ({limit} unanswered)"
        return Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=self.limits.retry_delay_ms)


def caller_gone() -> Rejection:
    return Rejection(Reason.CALLER_GONE, "the caller went away before the request was begun")
