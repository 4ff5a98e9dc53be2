"""Admission control: bounds what the server holds, and refuses requests that would miss their deadlines.

It asks three questions. Does the server hold too much? Does the session? Would the request probably miss its deadline?
For the last one it measures the rate at which requests finish while others wait, and the shortest recent latency of a
call. See docs/adr/009-admission.md, 010-unread-refusals.md and 455-holding-back.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellkeeper_service.domain.record import Record
from cellkeeper_service.errors import Reason, Rejection

from .generation_requests import CarryOver, Fork, Open, SetState
from .limits import Limits
from .models import Models
from .requests import Request, Step

RATE_WINDOW_SECONDS = 0.25  # one measurement of the rate takes this much uninterrupted work
STALL_SECONDS = 1.0  # if nothing finishes for this long during work, that is a measurement too
SMOOTHING = 0.5  # weight of the earlier measurements
FEW_REQUESTS = 32
"""This many may always wait: they show when a slow server has recovered."""

FREE_REQUESTS = 256
"""This many may wait if the rate was measured with far fewer. A batch computes many steps in nearly the time of one, so
the rate grows with the number that wait, up to about what one tick takes."""

FAR_FEWER = 2
"""The rate says nothing about more than this many times the requests that waited while it was measured."""

HEADROOM = 2.0
"""A request is admitted if it would finish in 1/HEADROOM of its time left: the rate is of the recent past, and the
reply still has to travel."""

MOST_CHOICES = 1024
"""For so many choices of outputs, their bytes are remembered; a client may choose any of 2^64."""

LATENCY_WINDOW_SECONDS = 0.25  # the shortest latency is that of this window and the previous one
UNKNOWN = float("inf")

DROPPED = frozenset({Reason.QUEUE_FULL, Reason.DEADLINE_PASSED, Reason.CALLER_GONE})
"""Rejections that take no work, so their number does not measure the server's capacity."""


class AdmissionControl:
    """Counts unanswered requests and the bytes that they and their replies hold. Times are seconds of the monotonic
    clock.

    requests_per_second: how many finish while others wait; 0 before the first measurement. Requests finish many at a
    time, at the end of a commit, so the rate is measured when the next one arrives, never in between.
    """

    def __init__(self, models: Mapping[str, Models], limits: Limits) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self.arrivals = 0
        self.requests_per_second = 0.0
        self._models = models
        self._limits = limits
        self._output_bytes: dict[tuple[str, frozenset[str]], int] = {}  # of one time step
        self._most_unanswered = 0  # in the rate's window
        self._measured_with = 0  # as many in the window that the rate is of
        self._since = 0.0  # begin of the rate's window
        self._finished = 0  # in it
        self._last_finished = 0.0
        self._shortest = UNKNOWN  # latency in the latency's window
        self._shortest_before = UNKNOWN  # in the one before
        self._latency_since = 0.0

    def enter(self, first: Request, queued: int, now: float, count: int = 1) -> Rejection | None:
        """Numbers and counts the request, or `count` steps of the same size and deadline as the first, which gets the
        last number of them. Returns why they may not all enter; none is counted then.

        queued: how many requests of its session wait.
        """
        limits, held_bytes = self._limits, self._weigh(first)
        unanswered, unanswered_bytes = self.unanswered + count, self.unanswered_bytes + count * held_bytes
        if unanswered > limits.max_requests:
            return self._full("the server's", f"{limits.max_requests} requests")
        if unanswered_bytes > limits.max_request_bytes:
            return self._full("the server's", f"{limits.max_request_bytes} bytes of requests")
        if queued >= limits.max_session_requests:
            return self.session_is_full()
        self._come(unanswered, now)
        if self._misses(unanswered, first.deadline - now):
            return self._too_late()
        self.unanswered, self.unanswered_bytes = unanswered, unanswered_bytes
        self.arrivals = first.number = self.arrivals + count
        first.held_bytes = held_bytes
        return None

    def leave(self, request: Request, result: Any, now: float) -> None:
        """Counts a request that has its result."""
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes
        if not isinstance(result, Rejection) or result.reason not in DROPPED:
            self._finished += 1
            self._last_finished = now

    def release(self, request: Request) -> None:
        """Counts a request that leaves unfinished, to enter again."""
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes

    def refuse(self, deadline: float, now: float) -> Rejection | None:
        """Returns why a request with that deadline would be refused now, or None.

        It is asked before a message is read, and under overload far more often than requests are admitted, so it looks
        at no request and counts none.
        """
        left = deadline - now - self._shortest_latency(now)
        if left <= 0:
            return self._too_late()
        if self.unanswered:  # otherwise the server was idle
            self._measure_rate(now)
        return self._too_late() if self._misses(self.unanswered + 1, left) else None

    def answered(self, came: float, now: float) -> None:
        """Notes that a call with steps, which arrived at that time, was answered: a call with less time left than the
        fastest one took cannot be answered in time."""
        self._turn_latency(now)
        self._shortest = min(self._shortest, now - came)

    def session_is_full(self) -> Rejection:
        """Returns the refusal of a request whose session has too many. Its field tells clients that the server has room
        for their other sessions."""
        return self._full("this session's", f"{self._limits.max_session_requests} requests", "session")

    def _misses(self, unanswered: int, seconds: float) -> bool:
        """Returns whether the last of this many requests would probably not finish in that time."""
        if unanswered <= FEW_REQUESTS or FAR_FEWER * self._measured_with < unanswered <= FREE_REQUESTS:
            return False
        return self.requests_per_second > 0 and HEADROOM * unanswered > self.requests_per_second * seconds

    def _come(self, unanswered: int, now: float) -> None:
        """Notes that requests arrive. unanswered: how many are with them."""
        worked_until = now if self.unanswered else self._last_finished
        if worked_until - self._since >= RATE_WINDOW_SECONDS:
            self._measure_rate(worked_until)
        if not self.unanswered:  # the server was idle before these
            self._since, self._finished, self._most_unanswered = now, 0, unanswered
        elif unanswered > self._most_unanswered:
            self._most_unanswered = unanswered

    def _measure_rate(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed < (RATE_WINDOW_SECONDS if self._finished else STALL_SECONDS):
            return
        measured = self._finished / elapsed
        before = self.requests_per_second or measured
        self.requests_per_second = SMOOTHING * before + (1 - SMOOTHING) * measured
        self._measured_with, self._most_unanswered = self._most_unanswered, self.unanswered
        self._since, self._finished = now, 0

    def _shortest_latency(self, now: float) -> float:
        """Returns 0 if no call was answered lately: every call is tried then, which shows when a slow server has
        recovered."""
        self._turn_latency(now)
        shortest = min(self._shortest, self._shortest_before)
        return 0.0 if shortest == UNKNOWN else shortest

    def _turn_latency(self, now: float) -> None:
        elapsed = now - self._latency_since
        if elapsed >= LATENCY_WINDOW_SECONDS:
            self._shortest_before = self._shortest if elapsed < 2 * LATENCY_WINDOW_SECONDS else UNKNOWN
            self._shortest, self._latency_since = UNKNOWN, now

    def _weigh(self, request: Request) -> int:
        """Returns the bytes that the request and its reply hold until it has its result."""
        if isinstance(request, Step):
            held = len(request.data) + request.all_steps * self._bytes_of(request.key.model, request.wanted)
            return held if request.rollout is None else held + 2 * request.rollout.known.nbytes
        if isinstance(request, CarryOver):
            return len(request.data)
        if isinstance(request, Open):
            return 0 if request.initial_state is None else len(request.initial_state)
        if isinstance(request, SetState):
            return len(request.state)
        if isinstance(request, Fork) and isinstance(request.source, Record):
            return len(request.source.checkpoint) + len(request.source.log)
        return 0

    def _bytes_of(self, model: str, wanted: frozenset[str]) -> int:
        """Returns the bytes of these outputs at one time step."""
        found = self._output_bytes.get((model, wanted))
        if found is None:
            if len(self._output_bytes) >= MOST_CHOICES:
                self._output_bytes.clear()
            outputs = self._models[model].default.spec.outputs
            found = sum(output.nbytes for output in outputs if output.name in wanted)
            self._output_bytes[model, wanted] = found
        return found

    def _too_late(self) -> Rejection:
        return self._queue_full("the server's queue is full: the request would probably miss its deadline")

    def _full(self, whose: str, limit: str, field: str = "") -> Rejection:
        return self._queue_full(f"{whose} queue is full ({limit} unanswered)", field)

    def _queue_full(self, text: str, field: str = "") -> Rejection:
        return Rejection(Reason.QUEUE_FULL, text, field=field, retry_delay_ms=self._limits.retry_delay_ms)
