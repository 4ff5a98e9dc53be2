"""Batches: which slices of which requests share an engine call, and the call itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cellkeeper_service.domain.engine import Computed, Engine, Rows
from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS

from .limits import Limits
from .models import Version
from .requests import COMPUTING, Computable
from .session import CachedState
from .state_cache import StateCache


class Batch:
    """The next `steps` time steps of the work on each of `states`, all of one version.

    Only `execute` touches arenas. It may run on another thread than everything else, while no other batch of the same
    engine is executed. Its results stay here (see outputs.Piece): meanwhile requests may start over on other states,
    and the batch does not touch them.

    states_before, states_after: by row, the requested states before and after the slice.
    """

    def __init__(self, version: Version, steps: int, states: Sequence[CachedState], sample_change: bool) -> None:
        self.version = version
        self.steps = steps
        self.states = states
        self.computed: Computed | None = None
        self.change: tuple[float, float] | None = None  # a state's norm, and its relative change
        self.states_before: dict[int, bytes] = {}
        self.states_after: dict[int, bytes] = {}
        self._sample = sample_change and steps > 0
        self._before: list[int] = []
        self._after: list[int] = []
        read: list[int] = []  # the arena's rows that hold the states now
        write: list[int] = []  # the rows that take the next states
        names: set[frozenset[str]] = set()
        raw: list[bytes] = []
        width = version.step_bytes
        whole = steps * width
        for row, state in enumerate(states):
            work = state.work
            if work is None:
                raise RuntimeError("a state is put into a batch on which nothing is to be computed")
            computed, here, inputs = work.computed, 2 * state.slot + state.current, work.inputs
            # a chunk does not overwrite the row that it started from
            read.append(here ^ 1 if computed else here)
            write.append(here ^ 1)
            raw.append(inputs if len(inputs) == whole else inputs[computed * width : computed * width + whole])
            names.add(work.names)
            if work.checkpoint_at == 0 == computed and steps:
                self._before.append(row)
            if work.ends and computed + steps in work.ends:
                self._after.append(row)
            state.in_batch = True
            work.status = COMPUTING
        self._read, self._write = read, write
        self._raw = b"".join(raw)
        self._wanted = version.decisive_outputs.union(*names)

    def __len__(self) -> int:
        return len(self.states)

    def halves(self) -> list[Batch]:
        """Returns two smaller batches in place of one that the engine refused; none for a single request."""
        middle = len(self.states) // 2
        return [self._part(0, middle), self._part(middle, len(self.states))] if middle else []

    def _part(self, first: int, last: int) -> Batch:
        """Returns a batch of some of the states. What was computed is not computed again: after its first slice, a
        request reads the row that it writes."""
        part = Batch(self.version, self.steps, self.states[first:last], False)
        if self.computed is not None:
            finite = self.computed.finite
            outputs = {name: values[:, first:last] for name, values in self.computed.outputs.items()}
            part.computed = Computed(outputs, None if finite is None else finite[first:last])
            part.states_before = {row - first: self.states_before[row] for row in self._before if first <= row < last}
        return part

    def execute(self) -> None:
        """Writes the seeds, reads the states before, computes, reads the states after."""
        self._write_seeds()
        if self.steps and self.computed is None:
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
            self.change = _state_change(self.version.engine, read[:1], write[:1])

    def _read_states(self, wanted: list[int], rows: list[int]) -> dict[int, bytes]:
        if not wanted:
            return {}
        states = self.version.engine.read_states(np.array([rows[row] for row in wanted], np.intp))
        return {row: state.tobytes() for row, state in zip(wanted, states, strict=True)}


def _state_change(engine: Engine, before: Rows, after: Rows) -> tuple[float, float] | None:
    """Compares the states in the rows `before` and `after`, one each. Returns the second's norm, and their distance
    relative to the larger norm: 0..2. (A new session's state is often zero, so the first norm alone is no scale.)
    Returns None for states that are not float32 or not finite."""
    if any(state.dtype != "float32" for state in engine.spec.states):
        return None
    first, second = (engine.read_states(rows).view(np.float32).astype(np.float64) for rows in (before, after))
    norm = float(np.linalg.norm(second))
    if not np.isfinite(norm):
        return None
    scale = max(norm, float(np.linalg.norm(first)))
    return norm, float(np.linalg.norm(second - first)) / scale if scale else 0.0


def form_batches(
    cache: StateCache, limits: Limits, now: float, end_dead: Callable[[CachedState, Computable], bool]
) -> list[Batch]:
    """Returns the batches of the version's next tick, one for each length: a slice of each ready request, oldest first,
    within one budget of time steps. The first request without room waits for the next tick, with all after it.
    end_dead: ends work that is late or whose caller is gone; returns False if the work goes on."""
    ready, max_batch = cache.ready, cache.version.engine.max_batch
    budget = limits.max_long_steps + max_batch
    by_length: dict[int, list[CachedState]] = {}
    while ready and budget > 0:
        cached = ready[0]
        work = cached.work
        if not cached.dropped and work is not None:
            steps = 1 if work.to_compute == 1 else work.slice_steps(limits.max_slice_steps)
            bucket = by_length.get(steps)
            if bucket is None:
                bucket = by_length[steps] = []
            elif len(bucket) == max_batch:
                break
            if not ((work.gone or now >= work.deadline) and end_dead(cached, work)):
                if not work.computed:
                    work.started_at = now
                bucket.append(cached)
                budget -= steps or 1
        ready.popleft()
    batches = []
    for steps, states in by_length.items():
        if states:
            cache.batches += 1
            batches.append(Batch(cache.version, steps, states, cache.batches % SAMPLE_EVERY_CALLS == 0))
    return batches
