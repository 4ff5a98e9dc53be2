"""A meter whose failures harm nobody: requests are answered and the loop goes on, whatever becomes of a metric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cellkeeper_service.domain.meter import Meter

log = logging.getLogger(__name__)


class GuardedMeter(Meter):
    """Counts with `meter`, and logs what that raises instead of raising it. Its attributes take the place of the
    methods: several events are counted for each step, and a method would be one more call for each."""

    def __init__(self, meter: Meter) -> None:
        for name in vars(Meter):
            if not name.startswith("_"):
                setattr(self, name, logs_errors(getattr(meter, name)))


def logs_errors(method: Callable[..., None]) -> Callable[..., None]:
    """Returns a function that calls the method, and logs what it raises."""

    def count(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            log.exception("internal error: a metric could not be counted")

    return count
