"""What the meter is told of requests that have their results."""

from __future__ import annotations

from collections.abc import Sequence

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Rejection

from .requests import Request, Step


def count_finished(requests: Sequence[Request], now: float, meter: Meter) -> None:
    """now: when they got their results, monotonic seconds. Neighbours of one model that took the same way in the same
    time, as most of a frame do, are counted together: to note each costs more than to compare it."""
    same: tuple[object, ...] | None = None
    first: Step | None = None
    count = 0
    for request in requests:
        result = request.result
        if isinstance(request, Step) and result is None:
            way = (
                request.key.model,
                request.steps,
                request.arrived,
                request.started_at,
                request.computed_at,
                request.load_seconds,
                request.replayed,
            )
            if way == same:
                count += 1
                continue
            if first is not None:
                meter.steps_done(first.key.model, first.steps, first.times(now), first.replayed, count)
            same, first, count = way, request, 1
        elif isinstance(result, Rejection):
            meter.rejected(result.reason.value)
    if first is not None:
        meter.steps_done(first.key.model, first.steps, first.times(now), first.replayed, count)
