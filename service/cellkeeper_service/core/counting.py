"""What the meter is told of requests that have their results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Rejection

from .requests import Request, Step

WAY = attrgetter("version", "steps", "arrived", "started_at", "computed_at", "load_seconds", "replayed")


def count_finished(requests: Sequence[Request], now: float, meter: Meter) -> None:
    """now: when they got their results, monotonic seconds. Neighbours that took the same way in the same time, as most
    steps of a frame do, are counted together: comparing a step costs less than counting it."""
    steps = [request for request in requests if request.result is None and isinstance(request, Step)]
    for _, alike in groupby(steps, WAY):
        first, *others = alike
        meter.steps_done(first.key.model, first.steps, first.times(now), first.replayed, 1 + len(others))
    if len(steps) < len(requests):
        for request in requests:
            if isinstance(request.result, Rejection):
                meter.rejected(request.result.reason.value)
