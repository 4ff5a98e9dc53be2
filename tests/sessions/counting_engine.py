"""An engine that counts: its state is a polynomial of everything it has consumed, in order, so that a lost, doubled,
swapped or foreign step shows as plain arithmetic. Exact by construction, and fast enough for thousands of worlds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from numpy.typing import NDArray

FACTOR = 1_000_003
POISON = 666  # an input whose result is "not finite"


def expected(inputs: Iterable[int]) -> list[int]:
    """The outputs after each of `inputs`, from the start."""
    total, outputs = 0, []
    for value in inputs:
        total = (total * FACTOR + value + 1) % 2**62
        outputs.append(total)
    return outputs


class CountingEngine:
    """state' = (state * FACTOR + input + 1) mod 2^62; prediction = state'."""

    name = "counting"
    device = "cpu"
    numerics = "counting"
    exact = True
    tolerance = 0.0

    def __init__(self, name: str = "m", max_batch: int = 8, version: bytes = b"\1") -> None:
        total = TensorSpec("prediction", "int64", ())
        state = TensorSpec("total", "int64", ())
        given = TensorSpec("input", "int32", ())
        self.spec = ModelSpec(name, version * 32, given, 1 << 30, False, (total,), (state,))
        self.max_batch = max_batch
        self.initial_state = bytes(8)
        self.calls: list[tuple[int, int]] = []  # T and B of every call

    def reserve(self, rows: int) -> None:
        self._states = np.full(rows, -1, np.int64)

    def write_states(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        self._states[rows] = np.ascontiguousarray(states).view(np.int64)[:, 0]

    def read_states(self, rows: Rows) -> NDArray[np.uint8]:
        return self._states[rows][:, None].view(np.uint8)

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        self.calls.append((inputs.shape[0], inputs.shape[1]))
        states = [int(state) for state in self._states[read]]
        outputs = np.zeros(inputs.shape, np.int64)
        for step, values in enumerate(inputs.tolist()):
            states = [(state * FACTOR + value + 1) % 2**62 for state, value in zip(states, values, strict=True)]
            outputs[step] = states
        self._states[write] = states
        return Computed({"prediction": outputs}, ~(inputs == POISON).any(axis=0))
