"""One engine call of a tick: which rows it reads and writes, and what it gave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellkeeper_service.core.state_change import state_change
from cellkeeper_service.domain.engine import Array, Computed

from .requests import CarryOver, GetState, Step
from .run import Run
from .served import Served

NO_OUTPUTS: frozenset[str] = frozenset()


class EngineCall:
    """The next `steps` time steps of each of `runs`, all of one model version.

    `execute` is the only place where arenas are touched; it may be called on another thread than the rest, while no
    other call of the same engine is being executed.
    """

    def __init__(self, served: Served, steps: int, runs: Sequence[Run], sample_changes: bool) -> None:
        self.served = served
        self.steps = steps
        self.runs = runs
        self.batch = len(runs)
        self.computed: Computed | None = None
        self.seconds = 0.0
        self.change: tuple[float, float] | None = None  # a state's norm, and how far it moved relative to that
        self._sample = sample_changes and steps > 0
        for run in runs:
            run.in_call = True

    def execute(self) -> None:
        """Writes the seeds, keeps the states that become checkpoints, computes, reads the states that are wanted."""
        self._write_seeds()
        if self.steps:
            self._keep_checkpoints()
            self._compute()
        self._read_states()

    def collect(self, run: Run, index: int) -> None:
        """Hands the outputs of run number `index` of this call to the requests they are for."""
        if self.computed is None:
            return
        begin, end = run.at, run.at + self.steps
        for collect in run.collects:
            low, high = max(begin, collect.first), min(end, collect.last)
            if low < high and isinstance(collect.request, Step):
                for name in collect.request.wanted:
                    part = self.computed.outputs[name][low - begin : high - begin, index]
                    collect.slices.setdefault(name, []).append(part)

    def last_prediction(self, index: int) -> Array:
        """Of run number `index`: [...], of its last time step in this call."""
        if self.computed is None:
            raise RuntimeError("there is no prediction before the call was executed")
        last: Array = self.computed.outputs["prediction"][-1, index]
        return last

    def _write_seeds(self) -> None:
        seeded = [run.hot for run in self.runs if run.hot.seed is not None]
        if not seeded:
            return
        states = np.frombuffer(b"".join(hot.seed or b"" for hot in seeded), np.uint8)
        rows = np.array([hot.row for hot in seeded], np.intp)
        self.served.engine.write_states(rows, states.reshape(len(seeded), -1))
        for hot in seeded:
            hot.seed = None

    def _keep_checkpoints(self) -> None:
        """The state before the slice, of runs that start at a due checkpoint."""
        due = [run for run in self.runs if run.at == 0 and run.checkpoint_at == 0]
        if due:
            states = self.served.engine.read_states(np.array([run.read_row for run in due], np.intp))
            for run, state in zip(due, states, strict=True):
                run.checkpoint_state = state.tobytes()

    def _compute(self) -> None:
        runs, steps, spec = self.runs, self.steps, self.served.spec
        width = spec.step_bytes
        raw = b"".join([run.data[run.at * width : (run.at + steps) * width] for run in runs])
        inputs = np.frombuffer(raw, spec.input.numpy_dtype).reshape(len(runs), steps, *spec.input.shape)
        inputs = inputs.reshape(1, len(runs), *spec.input.shape) if steps == 1 else inputs.swapaxes(0, 1)
        read = np.array([run.read_row for run in runs], np.intp)
        write = np.array([run.write_row for run in runs], np.intp)
        wanted = self.served.wanted_with([run.wanted for run in runs])
        self.computed = self.served.engine.run(np.ascontiguousarray(inputs), read, write, wanted)
        if self._sample:
            self.change = None if read[0] == write[0] else state_change(self.served.engine, read[:1], write[:1])

    def _read_states(self) -> None:
        """States wanted at the end of this slice: a request's, or a rebuild's checkpoint."""
        asking = [run for run in self.runs if self._wants_state(run)]
        if not asking:
            return
        rows = [run.read_row if run.steps == 0 else run.write_row for run in asking]
        states = self.served.engine.read_states(np.array(rows, np.intp))
        for run, state in zip(asking, states, strict=True):
            raw, end = state.tobytes(), run.at + self.steps
            if run.checkpoint_at == end:
                run.checkpoint_state = raw
            for collect in run.collects:
                request = collect.request
                if collect.last == end and _wants_state(request):
                    collect.state = raw

    def _wants_state(self, run: Run) -> bool:
        end = run.at + self.steps
        if run.steps == 0 or (run.checkpoint_at == end and end > 0):
            return True
        return any(c.last == end and _wants_state(c.request) for c in run.collects)


def _wants_state(request: Step | GetState | CarryOver) -> bool:
    return not isinstance(request, Step) or request.wants_state
