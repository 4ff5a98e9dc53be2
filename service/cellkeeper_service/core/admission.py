"""Which requests are taken: what the server holds until they have their results stays bounded."""

from __future__ import annotations

from collections.abc import Mapping

from cellkeeper_service.errors import Reason, Rejection

from .limits import Limits
from .models import Models
from .requests import CarryOver, CopyInto, Request, Step


class Admission:
    """Counts requests, and the bytes that they and their replies hold."""

    def __init__(self, models: Mapping[str, Models], limits: Limits) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self.arrivals = 0
        self._models = models
        self._limits = limits
        self._output_bytes: dict[tuple[str, frozenset[str]], int] = {}  # of one time step

    def enter(self, request: Request, queued: int) -> Rejection | None:
        """Numbers and counts the request, which leaves again in any case. queued: how many of its session wait.

        Returns why there is no room for it, if so.
        """
        self.arrivals += 1
        request.number = self.arrivals
        request.held_bytes = self._weigh(request)
        self.unanswered += 1
        self.unanswered_bytes += request.held_bytes
        limits = self._limits
        if self.unanswered > limits.max_requests:
            return self._full("the server's", f"{limits.max_requests} requests")
        if self.unanswered_bytes > limits.max_request_bytes:
            return self._full("the server's", f"{limits.max_request_bytes} bytes of requests")
        if queued >= limits.max_session_requests:
            return self._full("this session's", f"{limits.max_session_requests} requests")
        return None

    def leave(self, request: Request) -> None:
        self.unanswered -= 1
        self.unanswered_bytes -= request.held_bytes

    def _weigh(self, request: Request) -> int:
        """Bytes that the request and its reply hold until it has its result."""
        if isinstance(request, Step):
            held = len(request.data) + request.all_steps * self._bytes_of(request.key.model, request.wanted)
            return held if request.rollout is None else held + 2 * request.rollout.known.nbytes
        if isinstance(request, CarryOver):
            return len(request.data)
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

    def _full(self, whose: str, limit: str) -> Rejection:
        text = f"{whose} queue is full ({limit} unanswered)"
        return Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=self._limits.retry_delay_ms)
