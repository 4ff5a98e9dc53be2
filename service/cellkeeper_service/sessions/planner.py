"""Which runs go into a tick, and which of them share an engine call."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_service.core.limits import TickLimits
from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS

from .run import Run
from .served import Served
from .tick import EngineCall

__all__ = ["TickLimits", "enqueue", "plan"]


def enqueue(run: Run, limits: TickLimits) -> None:
    """Lines the run up for its next slice."""
    served = run.hot.served
    queue = served.singles if run.slice_steps(limits.max_slice_steps) == 1 else served.longs
    queue.append(run)


def plan(served: Served, limits: TickLimits, alive: Callable[[Run], bool]) -> list[EngineCall]:
    """The calls of this version's next tick, oldest runs first: every single step that fits into one batch, and
    slices of long runs, one call for each length. `alive` disposes of the runs it says no to."""
    calls = []
    singles: list[Run] = []
    while served.singles and len(singles) < served.engine.max_batch:
        run = served.singles.popleft()
        if alive(run):
            singles.append(run)
    if singles:
        calls.append((1, singles))
    calls.extend(_long_slices(served, limits, alive))
    return [_call(served, steps, runs) for steps, runs in calls]


def _long_slices(served: Served, limits: TickLimits, alive: Callable[[Run], bool]) -> list[tuple[int, list[Run]]]:
    by_length: dict[int, list[Run]] = {}
    budget = limits.max_long_steps
    while served.longs and budget > 0:
        run = served.longs[0]
        steps = run.slice_steps(limits.max_slice_steps)
        bucket = by_length.setdefault(steps, [])
        if len(bucket) == served.engine.max_batch:
            break
        served.longs.popleft()
        if alive(run):
            bucket.append(run)
            budget -= max(steps, 1)
    return [(steps, runs) for steps, runs in by_length.items() if runs]


def _call(served: Served, steps: int, runs: list[Run]) -> EngineCall:
    served.calls += 1
    return EngineCall(served, steps, runs, served.calls % SAMPLE_EVERY_CALLS == 0)
