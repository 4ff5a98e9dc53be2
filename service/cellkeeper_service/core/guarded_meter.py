"""A meter that fails is nobody's error: requests are answered, and the loop goes on, whatever becomes of a metric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

from cellkeeper_service.domain.meter import Meter

log = logging.getLogger(__name__)
Counted = ParamSpec("Counted")


class _LogsErrors(Generic[Counted]):
    """A method of a meter that logs what it raises. No closure: the explorer copies cores by pickling them."""

    __slots__ = ("_method",)

    def __init__(self, method: Callable[Counted, None]) -> None:
        self._method = method

    def __call__(self, *args: Counted.args, **kwargs: Counted.kwargs) -> None:
        try:
            self._method(*args, **kwargs)
        except Exception:
            log.exception("internal error: a metric could not be counted")


class GuardedMeter:
    """Counts with `meter`, and logs what that raises instead of raising it. Implements domain.meter.Meter by its
    attributes, not by methods: several events are counted for each step, and this is one call more for each."""

    def __init__(self, meter: Meter) -> None:
        self.steps_done = _LogsErrors(meter.steps_done)
        self.rejected = _LogsErrors(meter.rejected)
        self.tick = _LogsErrors(meter.tick)
        self.loaded = _LogsErrors(meter.loaded)
        self.rebuilt = _LogsErrors(meter.rebuilt)
        self.committed = _LogsErrors(meter.committed)
        self.checkpointed = _LogsErrors(meter.checkpointed)
        self.evicted = _LogsErrors(meter.evicted)
        self.non_finite = _LogsErrors(meter.non_finite)
        self.store_call = _LogsErrors(meter.store_call)
        self.state_change = _LogsErrors(meter.state_change)
        self.frame = _LogsErrors(meter.frame)


def guarded(meter: Meter) -> Meter:
    """The meter, if it is guarded already; otherwise a guard around it."""
    return meter if isinstance(meter, GuardedMeter) else GuardedMeter(meter)
