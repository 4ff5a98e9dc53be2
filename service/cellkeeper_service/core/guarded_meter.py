"""A meter that fails is nobody's error: requests are answered, and the loop goes on, whatever becomes of a metric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

from cellkeeper_service.domain.meter import Meter

log = logging.getLogger(__name__)
Counted = ParamSpec("Counted")


def _logs_errors(method: Callable[Counted, None]) -> Callable[Counted, None]:
    def guarded_method(*args: Counted.args, **kwargs: Counted.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            log.exception("internal error: a metric could not be counted")

    return guarded_method


class GuardedMeter:
    """Counts with `meter`, and logs what that raises instead of raising it. Implements domain.meter.Meter by its
    attributes, not by methods: several events are counted for each step, and this is one call more for each."""

    def __init__(self, meter: Meter) -> None:
        self.steps_done = _logs_errors(meter.steps_done)
        self.rejected = _logs_errors(meter.rejected)
        self.tick = _logs_errors(meter.tick)
        self.loaded = _logs_errors(meter.loaded)
        self.rebuilt = _logs_errors(meter.rebuilt)
        self.committed = _logs_errors(meter.committed)
        self.checkpointed = _logs_errors(meter.checkpointed)
        self.evicted = _logs_errors(meter.evicted)
        self.non_finite = _logs_errors(meter.non_finite)
        self.store_call = _logs_errors(meter.store_call)
        self.state_change = _logs_errors(meter.state_change)
        self.frame = _logs_errors(meter.frame)


def guarded(meter: Meter) -> Meter:
    """The meter, if it is guarded already; otherwise a guard around it."""
    return meter if isinstance(meter, GuardedMeter) else GuardedMeter(meter)
