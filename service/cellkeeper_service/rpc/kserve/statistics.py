"""What ModelStatistics reports: requests of this protocol since the server started, and the engine's calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.core.requests import StepReply
from cellkeeper_service.domain.clock import unix_ms

from .signature import VERSION


@dataclass(slots=True)
class Counts:
    """Requests, and their seconds."""

    succeeded: int = 0
    failed: int = 0
    success_seconds: float = 0.0
    fail_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    last_inference_ms: int = 0  # unix time; 0: none yet


class Statistics:
    def __init__(self, models: Sequence[str], engine_calls: Callable[[str], int]) -> None:
        """engine_calls: returns how often the engine has computed for a model, over all protocols."""
        self._counts = {model: Counts() for model in models}
        self._engine_calls = engine_calls

    def succeeded(self, model: str, seconds: float, reply: StepReply) -> None:
        """Counts a success. seconds: from the request's arrival to its reply."""
        counts = self._counts[model]
        counts.succeeded += 1
        counts.success_seconds += seconds
        counts.queue_seconds += reply.queued_seconds
        counts.compute_seconds += reply.computed_seconds
        counts.last_inference_ms = unix_ms()

    def failed(self, model: str, seconds: float) -> None:
        """Counts a failed request; ignores models that are not served."""
        if (counts := self._counts.get(model)) is not None:
            counts.failed += 1
            counts.fail_seconds += seconds

    def of(self, model: str) -> pb.ModelStatistics:
        counts = self._counts[model]
        done = counts.succeeded
        return pb.ModelStatistics(
            name=model,
            version=VERSION,
            last_inference=counts.last_inference_ms,
            inference_count=done,
            execution_count=self._engine_calls(model),
            inference_stats=pb.InferStatistics(
                success=_duration(done, counts.success_seconds),
                fail=_duration(counts.failed, counts.fail_seconds),
                queue=_duration(done, counts.queue_seconds),
                compute_input=_duration(done, 0.0),
                compute_infer=_duration(done, counts.compute_seconds),
                compute_output=_duration(done, 0.0),
                cache_hit=_duration(0, 0.0),
                cache_miss=_duration(0, 0.0),
            ),
        )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
