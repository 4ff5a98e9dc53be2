"""Admission control: which requests are taken, so that what the server holds stays bounded and what it begins is still
wanted when it is done. See docs/adr/009-admission.md and 010-unread-refusals.md.

Three questions: does the server hold too much, does the session, and would the request probably miss its deadline? For
the last one it measures the rate at which requests are finished while some are unanswered, and the shortest time in
which a call was answered lately.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellkeeper_service.errors import Reason, Rejection

from .generation_requests import CarryOver, CopyInto, Open, SetState
from .limits import Limits
from .models import Models
from .requests import Request, Step

RATE_WINDOW_SECONDS = 0.25  # of work without a pause that one measurement of the rate takes
STALL_SECONDS = 1.0  # of work in which nothing was finished are a measurement too
SMOOTHING = 0.5  # weight of the earlier measurements
FREE_REQUESTS = 256
"""So many may always wait: about what one tick takes, and enough to find out anew how fast the server is."""

HEADROOM = 2.0
"""A request is taken if it would be finished in 1/HEADROOM of the time it has: the rate is of the recent past, and the
replies still have to travel."""

LATENCY_WINDOW_SECONDS = 0.25  # the shortest latency is that of this window and the last one
UNKNOWN = float("inf")

DROPPED = frozenset({Reason.QUEUE_FULL, Reason.DEADLINE_PASSED, Reason.CALLER_GONE})
"""Rejections without work: how many of these are made is no measure of what can be done."""


class AdmissionControl:
    """Counts unanswered requests, and the bytes that they and their replies hold. Times are seconds of the monotonic
    clock.

    requests_per_second: finished while some were unanswered; 0: not measured yet. Requests are finished many at a time,
    at the end of a commit, so it is measured when the next one comes, never in the middle of those.
    """

    def __init__(self, models: Mapping[str, Models], limits: Limits) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self.arrivals = 0
        self.requests_per_second = 0.0
        self._models = models
        self._limits = limits
        self._output_bytes: dict[tuple[str, frozenset[str]], int] = {}  # of one time step
        self._since = 0.0  # begin of the rate's window
        self._finished = 0  # in it
        self._last_finished = 0.0
        self._shortest = UNKNOWN  # latency in the latency's window
        self._shortest_before = UNKNOWN  # in the one before
        self._latency_since = 0.0

    def enter(self, request: Request, queued: int, now: float) -> Rejection | None:
        """Numbers and counts the request, which leaves again in any case. queued: how many of its session wait.

        Returns why it is not taken, if so.
        """
        self.arrivals = request.number = self.arrivals + 1
        request.held_bytes = held_bytes = self._weigh(request)
        self.unanswered_bytes += held_bytes
        self.unanswered = unanswered = self.unanswered + 1
        worked_until = self._last_finished if unanswered == 1 else now
        if worked_until - self._since >= RATE_WINDOW_SECONDS:
            self._measure_rate(worked_until)
        if unanswered == 1:  # the time from the last one to this was without work, and says nothing
            self._since, self._finished = now, 0
        limits = self._limits
        if unanswered > limits.max_requests:
            return self._full("the server's", f"{limits.max_requests} requests")
        if self.unanswered_bytes > limits.max_request_bytes:
            return self._full("the server's", f"{limits.max_request_bytes} bytes of requests")
        if queued >= limits.max_session_requests:
            return self.session_is_full()
        if unanswered > FREE_REQUESTS and self._misses(unanswered, request.deadline - now):
            return self._too_late()
        return None

    def enter_alike(self, first: Step, count: int, now: float) -> int | None:
        """Counts `count` steps of the same size and deadline, which find their sessions' queues empty or not full; the
        first is one of them. Returns the number before their first one's. None: some find no room; none is counted."""
        limits, held_bytes = self._limits, self._weigh(first)
        unanswered, number = self.unanswered + count, self.arrivals
        if unanswered > limits.max_requests or self.unanswered_bytes + count * held_bytes > limits.max_request_bytes:
            return None
        idle = self.unanswered == 0
        worked_until = self._last_finished if idle else now
        if worked_until - self._since >= RATE_WINDOW_SECONDS:
            self._measure_rate(worked_until)
        if idle:
            self._since, self._finished = now, 0
        if unanswered > FREE_REQUESTS and self._misses(unanswered, first.deadline - now):
            return None
        self.unanswered, self.arrivals = unanswered, number + count
        self.unanswered_bytes += count * held_bytes
        first.held_bytes = held_bytes
        return number

    def leave(self, request: Request, result: Any, now: float) -> None:
        """The request has its result."""
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes
        if not isinstance(result, Rejection) or result.reason not in DROPPED:
            self._finished += 1
            self._last_finished = now

    def release(self, request: Request) -> None:
        """The request goes on as another, which enters: it leaves, but is not finished."""
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes

    def refuse(self, deadline: float, now: float) -> Rejection | None:
        """Why a request with that deadline would not be taken as things are, if so. Asked before a message is read, and
        under overload far more often than requests are taken: it looks at no request, and counts none."""
        left = deadline - now - self._shortest_latency(now)
        if left <= 0:
            return self._too_late()
        unanswered = self.unanswered + 1
        if unanswered > FREE_REQUESTS:  # else nothing is measured: the time until now may have been without work
            self._measure_rate(now)
            if self._misses(unanswered, left):
                return self._too_late()
        return None

    def answered(self, came: float, now: float) -> None:
        """A call with steps, which came at that time, has its answer: who has less time left than the fastest call
        took would be served for nothing."""
        self._turn_latency(now)
        self._shortest = min(self._shortest, now - came)

    def session_is_full(self) -> Rejection:
        return self._full("this session's", f"{self._limits.max_session_requests} requests")

    def _misses(self, unanswered: int, seconds: float) -> bool:
        """Whether the last of so many requests would probably not be finished in that time."""
        return self.requests_per_second > 0 and HEADROOM * unanswered > self.requests_per_second * seconds

    def _measure_rate(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed < (RATE_WINDOW_SECONDS if self._finished else STALL_SECONDS):
            return
        measured = self._finished / elapsed
        before = self.requests_per_second or measured
        self.requests_per_second = SMOOTHING * before + (1 - SMOOTHING) * measured
        self._since, self._finished = now, 0

    def _shortest_latency(self, now: float) -> float:
        """0 where no call was answered lately: every call is tried then, so that it is found out when what was slow no
        longer is."""
        self._turn_latency(now)
        shortest = min(self._shortest, self._shortest_before)
        return 0.0 if shortest == UNKNOWN else shortest

    def _turn_latency(self, now: float) -> None:
        elapsed = now - self._latency_since
        if elapsed >= LATENCY_WINDOW_SECONDS:
            self._shortest_before = self._shortest if elapsed < 2 * LATENCY_WINDOW_SECONDS else UNKNOWN
            self._shortest, self._latency_since = UNKNOWN, now

    def _weigh(self, request: Request) -> int:
        """Bytes that the request and its reply hold until it has its result."""
        if isinstance(request, Step):
            held = len(request.data) + request.all_steps * self._bytes_of(request.key.model, request.wanted)
            return held if request.rollout is None else held + 2 * request.rollout.known.nbytes
        if isinstance(request, CarryOver):
            return len(request.data)
        if isinstance(request, Open):
            return 0 if request.initial_state is None else len(request.initial_state)
        if isinstance(request, SetState):
            return len(request.state)
        if isinstance(request, CopyInto) and request.copy is not None:
            return len(request.copy.checkpoint) + len(request.copy.log)
        return 0

    def _bytes_of(self, model: str, wanted: frozenset[str]) -> int:
        """Of these outputs at one time step."""
        found = self._output_bytes.get((model, wanted))
        if found is None:
            outputs = self._models[model].default.spec.outputs
            found = sum(output.nbytes for output in outputs if output.name in wanted)
            self._output_bytes[model, wanted] = found
        return found

    def _too_late(self) -> Rejection:
        return self._full("the server's", "too many to come to this one before its deadline")

    def _full(self, whose: str, limit: str) -> Rejection:
        text = f"{whose} queue is full ({limit} unanswered)"
        return Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=self._limits.retry_delay_ms)
