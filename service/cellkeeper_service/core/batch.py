"""Batches: which slices of which requests share one engine call, and the call itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cellkeeper_service.domain.engine import Array, Computed
from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS

from .limits import TickLimits
from .models import Version
from .requests import CarryOver, Computable, GetState, LogReplay, Status, Step
from .session import CachedState
from .state_cache import StateCache
from .state_change import state_change


class Batch:
    """The next `steps` time steps of the work of each of `states`, all of one version.

    `execute` is the only place where arenas are touched. It may be called on another thread than everything else,
    while no other batch of the same engine is being executed. What it gives stays here (see outputs.Piece): requests
    may be begun anew meanwhile, on other states, and the batch does not touch them.

    states_before, states_after: by row, the states that were wanted from before the slice, and from after it.
    """

    def __init__(self, version: Version, steps: int, states: Sequence[CachedState], sample_change: bool) -> None:
        self.version = version
        self.steps = steps
        self.states = states
        self.computed: Computed | None = None
        self.change: tuple[float, float] | None = None  # a state's norm, and how far it moved relative to that
        self.states_before: dict[int, bytes] = {}
        self.states_after: dict[int, bytes] = {}
        self._sample = sample_change and steps > 0
        works = [_work_of(state) for state in states]
        # a chunk leaves the row that it started from as it was
        self._read = [
            state.other_row if work.computed else state.row for state, work in zip(states, works, strict=True)
        ]
        self._write = [state.other_row for state in states]
        width = version.spec.step_bytes
        self._raw = b"".join([work.inputs[work.computed * width : (work.computed + steps) * width] for work in works])
        self._wanted = version.wanted_with([work.names for work in works])
        self._before = [row for row, work in enumerate(works) if steps and work.checkpoint_at == work.computed == 0]
        self._after = [row for row, work in enumerate(works) if wants_state(work, work.computed + steps)]
        for state, work in zip(states, works, strict=True):
            state.in_batch = True
            work.status = Status.COMPUTING

    def __len__(self) -> int:
        return len(self.states)

    def halves(self) -> list[Batch]:
        """Smaller batches instead of one that the engine refused; nothing where there is one request."""
        middle = len(self.states) // 2
        parts = (self.states[:middle], self.states[middle:]) if middle else ()
        return [Batch(self.version, self.steps, states, False) for states in parts]

    def execute(self) -> None:
        """Writes the seeds, reads the states before, computes, reads the states after."""
        self._write_seeds()
        if self.steps:
            self.states_before = self._read_states(self._before, self._read)
            self._compute()
        self.states_after = self._read_states(self._after, self._write if self.steps else self._read)

    def _write_seeds(self) -> None:
        seeded = [(state, seed) for state in self.states if (seed := state.seed) is not None]
        if not seeded:
            return
        states = np.frombuffer(b"".join([seed for _, seed in seeded]), np.uint8)
        rows = np.array([state.row for state, _ in seeded], np.intp)
        self.version.engine.write_states(rows, states.reshape(len(seeded), -1))
        for state, _ in seeded:
            state.seed = None

    def _compute(self) -> None:
        count, steps, spec = len(self.states), self.steps, self.version.spec
        inputs = np.frombuffer(self._raw, spec.input.numpy_dtype).reshape(count, steps, *spec.input.shape)
        inputs = inputs.reshape(1, count, *spec.input.shape) if steps == 1 else inputs.swapaxes(0, 1)
        read, write = np.array(self._read, np.intp), np.array(self._write, np.intp)
        self.computed = self.version.engine.run(np.ascontiguousarray(inputs), read, write, self._wanted)
        if self._sample and read[0] != write[0]:
            self.change = state_change(self.version.engine, read[:1], write[:1])

    def _read_states(self, wanted: list[int], rows: list[int]) -> dict[int, bytes]:
        if not wanted:
            return {}
        states = self.version.engine.read_states(np.array([rows[row] for row in wanted], np.intp))
        return {row: state.tobytes() for row, state in zip(wanted, states, strict=True)}


def wants_state(work: Computable, end: int) -> bool:
    """Whether the state after the work's first `end` steps is wanted."""
    if isinstance(work, Step):
        return work.wants_state and end == work.to_compute
    if isinstance(work, LogReplay):
        return end > 0 and (work.checkpoint_at == end or end in work.ends)
    return isinstance(work, (GetState, CarryOver)) and end == work.to_compute


def form_batches(cache: StateCache, limits: TickLimits, alive: Callable[[CachedState], bool]) -> list[Batch]:
    """The batches of the version's next tick: a slice of each ready request, oldest first, within one budget of time
    steps; one batch for each length. The first that finds no room waits for the next tick, and those behind it with
    it. alive: says no to those that are not to be computed, and has done with them."""
    budget = limits.max_long_steps + cache.version.engine.max_batch
    by_length: dict[int, list[CachedState]] = {}
    while cache.ready and budget > 0:
        cached = cache.ready[0]
        if cached.dropped or cached.work is None:
            cache.ready.popleft()
            continue
        steps = cached.work.slice_steps(limits.max_slice_steps)
        bucket = by_length.setdefault(steps, [])
        if len(bucket) == cache.version.engine.max_batch:
            break
        cache.ready.popleft()
        if alive(cached):
            bucket.append(cached)
            budget -= max(steps, 1)
    batches = []
    for steps, states in by_length.items():
        if states:
            cache.batches += 1
            batches.append(Batch(cache.version, steps, states, cache.batches % SAMPLE_EVERY_CALLS == 0))
    return batches


def _work_of(state: CachedState) -> Computable:
    if state.work is None:
        raise RuntimeError("a state is put into a batch on which nothing is to be computed")
    return state.work


def prediction_after(batch: Batch, row: int) -> Array:
    """[...], of the row's last time step in this batch."""
    if batch.computed is None:
        raise RuntimeError("there is no prediction before the batch was executed")
    last: Array = batch.computed.outputs["prediction"][-1, row]
    return last
