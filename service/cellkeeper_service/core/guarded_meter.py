"""A meter that fails is nobody's error: requests are answered, and the loop goes on, whatever becomes of a metric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from cellkeeper_service.domain.meter import Meter, StepTimes

log = logging.getLogger(__name__)
Counted = ParamSpec("Counted")
Method = Callable[Concatenate["GuardedMeter", Counted], None]


def _logs_errors(method: Method[Counted]) -> Method[Counted]:
    @wraps(method)
    def guarded_method(self: GuardedMeter, /, *args: Counted.args, **kwargs: Counted.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            log.exception("internal error: a metric could not be counted")

    return guarded_method


class GuardedMeter:
    """Counts with `meter`, and logs what that raises instead of raising it. Implements domain.meter.Meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @_logs_errors
    def steps_done(self, model: str, steps: int, times: StepTimes, replayed: bool, count: int) -> None:
        self._meter.steps_done(model, steps, times, replayed, count)

    @_logs_errors
    def rejected(self, reason: str) -> None:
        self._meter.rejected(reason)

    @_logs_errors
    def tick(self, model: str, batch: int, steps: int) -> None:
        self._meter.tick(model, batch, steps)

    @_logs_errors
    def loaded(self, model: str, hot: bool) -> None:
        self._meter.loaded(model, hot)

    @_logs_errors
    def rebuilt(self, model: str, steps: int) -> None:
        self._meter.rebuilt(model, steps)

    @_logs_errors
    def committed(self, outcome: str, count: int) -> None:
        self._meter.committed(outcome, count)

    @_logs_errors
    def checkpointed(self, model: str) -> None:
        self._meter.checkpointed(model)

    @_logs_errors
    def evicted(self, model: str, reason: str) -> None:
        self._meter.evicted(model, reason)

    @_logs_errors
    def non_finite(self, model: str) -> None:
        self._meter.non_finite(model)

    @_logs_errors
    def store_call(self, call: str, items: int, seconds: float, failed: bool) -> None:
        self._meter.store_call(call, items, seconds, failed)

    @_logs_errors
    def state_change(self, model: str, norm: float, relative_change: float) -> None:
        self._meter.state_change(model, norm, relative_change)

    @_logs_errors
    def frame(self, direction: str, items: int) -> None:
        self._meter.frame(direction, items)


def guarded(meter: Meter) -> Meter:
    """The meter, if it is guarded already; otherwise a guard around it."""
    return meter if isinstance(meter, GuardedMeter) else GuardedMeter(meter)
