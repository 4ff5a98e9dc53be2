"""What the rest of the service needs of an engine: rows of state in an arena, and one call that advances them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .spec import ModelSpec

Array = NDArray[Any]
Rows = NDArray[np.intp]


class Computed(NamedTuple):
    """What one engine call gave.

    outputs: by name, [T, B, ...] in the output's dtype.
    finite: bool [B]: every output and the new state of that session is finite. None: those of all sessions are.
    """

    outputs: Mapping[str, Array]
    finite: NDArray[np.bool_] | None


class EngineLost(Exception):
    """The device failed, and what it holds with it: no call of this process's engines can be trusted any more.

    The text is one line. The store has every state, so the process ends and another goes on.
    """


class Engine(Protocol):
    """One model version on one device. Not safe for concurrent calls.

    Rows of the arena are numbered 0..rows - 1; a row holds one state. What a row holds before it was written is
    undefined.
    """

    spec: ModelSpec
    name: str  # "onnxruntime", "torch", "cuda"
    device: str  # "cpu", "cuda:0 NVIDIA H100 ..."
    numerics: str  # what decides the bits: engine, version, instruction set or device, settings
    exact: bool  # the same bits for every batch and chunking; tested at load
    tolerance: float  # the largest relative difference seen: where not exact, of the same rows in other batches; on a
    # GPU also from float64
    max_batch: int  # sessions in one call
    initial_state: bytes  # state_bytes bytes

    @property
    def free_bytes(self) -> int | None:
        """Of the device's own memory, for the arena; None: the arena is in the host's."""

    def reserve(self, rows: int) -> None:
        """Makes the arena `rows` rows large. Called once, before the first row is used.

        Raises StartError where the device has no room for it.
        """

    def write_states(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        """Sets whole states: uint8 [B, state_bytes]."""

    def read_states(self, rows: Rows) -> NDArray[np.uint8]:
        """Whole states: uint8 [B, state_bytes]."""

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        """Advances B states by T time steps: from the rows `read` into the rows `write`.

        inputs: [T, B, *spec.input.shape] in the input's dtype. Rows within `write` are distinct; read[i] and
        write[i] may be the same row. wanted: names of the outputs to give. 1 <= B <= max_batch. Raises EngineLost where
        the device fails, as the other calls do.
        """
