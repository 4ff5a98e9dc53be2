"""An engine that counts.

Its state is a polynomial of all inputs consumed, in order. A lost, doubled or swapped step, or one of another session,
shows up as plain arithmetic. It is exact by construction, and fast enough for thousands of worlds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.domain.feedback import Feedback
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from numpy.typing import NDArray

FACTOR = 1_000_003
POISON = 666  # an input whose result is "not finite"


def expected(inputs: Iterable[int], total: int = 0, factor: int = FACTOR) -> list[int]:
    """Returns the output after each of `inputs`, starting from the state `total`."""
    outputs = []
    for value in inputs:
        total = (total * factor + value + 1) % 2**62
        outputs.append(total)
    return outputs


class Remainder(Feedback):
    """The next input is the state modulo 1000."""

    def next_input(self, prediction: Array, known: Array) -> Array:
        return np.array(prediction % 1000, np.int32)


def rolled(inputs: Iterable[int], steps: int) -> list[int]:
    """Returns all inputs that a rollout of `steps` steps consumes, starting with `inputs`."""
    consumed = list(inputs)
    for _ in range(steps):
        consumed.append(expected(consumed)[-1] % 1000)
    return consumed


class CountingEngine:
    """state' = (state * factor + input + 1) mod 2^62; prediction = state'. The factor depends on the version."""

    name = "counting"
    device = "cpu"
    numerics = "counting"
    exact = True
    tolerance = 0.0
    free_bytes = None

    def __init__(self, name: str = "m", max_batch: int = 8, version: bytes = b"\1") -> None:
        total = TensorSpec("prediction", "int64", ())
        state = TensorSpec("total", "int64", ())
        given = TensorSpec("input", "int32", ())
        self.spec = ModelSpec(name, version * 32, given, 1 << 30, False, (total,), (state,), Remainder())
        self.factor = FACTOR + int.from_bytes(version, "big") - 1
        self.max_batch = max_batch
        self.initial_state = bytes(8)
        self.calls: list[tuple[int, int]] = []  # T and B of each call

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
            states = [(state * self.factor + value + 1) % 2**62 for state, value in zip(states, values, strict=True)]
            outputs[step] = states
        self._states[write] = states
        bad = (inputs == POISON).any(axis=0)
        return Computed({"prediction": outputs}, ~bad if bad.any() else None)
