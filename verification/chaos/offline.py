"""The reference: what one offline run gives for a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import OFFLINE_STEPS, offline
from numpy.typing import NDArray

Array = NDArray[Any]
States = Mapping[str, Array]


class Reference:
    """One model's engine, run alone: one sequence at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def outputs(self, inputs: Array, start: States | None) -> dict[str, Array]:
        """Returns the outputs by name [T, ...], and the final state as "state.<name>". start: None: the model's own."""
        if start is None:
            return offline(self.engine, inputs)
        return self._run(inputs, self._packed(start), [])[0]

    def states_at(self, inputs: Array, start: States | None, cuts: Sequence[int]) -> dict[int, dict[str, Array]]:
        """Returns the state after each of `cuts` time steps."""
        packed = self.engine.initial_state if start is None else self._packed(start)
        return self._run(inputs, packed, cuts)[1]

    def _run(
        self, inputs: Array, packed: bytes, cuts: Sequence[int]
    ) -> tuple[dict[str, Array], dict[int, dict[str, Array]]]:
        engine, row = self.engine, np.zeros(1, np.intp)
        names = [output.name for output in engine.spec.outputs]
        engine.reserve(1)
        engine.write_states(row, np.frombuffer(packed, np.uint8)[None])
        parts: dict[str, list[Array]] = {name: [] for name in names}
        wanted = set(cuts)
        states = {0: self._named(engine.read_states(row)[0])} if 0 in wanted else {}
        edges = sorted(wanted | set(range(0, len(inputs), OFFLINE_STEPS)) | {len(inputs)} | {0})
        for first, last in pairwise(edges):
            part = np.asarray(inputs[first:last], engine.spec.input.dtype)[:, None]
            computed = engine.run(part, row, row, frozenset(names))
            for name in names:
                parts[name].append(computed.outputs[name][:, 0])
            if last in wanted:
                states[last] = self._named(engine.read_states(row)[0])
        results = {name: np.concatenate(parts[name]) for name in names if parts[name]}
        results |= {f"state.{name}": array for name, array in self._named(engine.read_states(row)[0]).items()}
        return results, states

    def _packed(self, states: States) -> bytes:
        return b"".join(np.ascontiguousarray(states[spec.name], "<f4").tobytes() for spec in self.engine.spec.states)

    def _named(self, raw: Array) -> dict[str, Array]:
        found = {}
        for spec in self.engine.spec.states:
            found[spec.name] = raw[: spec.nbytes].view("<f4").reshape(spec.shape).copy()
            raw = raw[spec.nbytes :]
        return found
