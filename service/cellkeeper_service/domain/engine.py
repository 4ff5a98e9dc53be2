"""The engine protocol: rows of state in an arena, and one call that advances them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .spec import ModelSpec

Array = NDArray[Any]
Rows = NDArray[np.intp]


class Computed(NamedTuple):
    """The result of one engine call.

    outputs: by name, [T, B, ...] in the output's dtype.
    finite: bool [B], whether every output and the new state of that session are finite. None: all sessions' are.
    """

    outputs: Mapping[str, Array]
    finite: NDArray[np.bool_] | None


class EngineLost(Exception):
    """The device failed, and its contents are lost: no engine of this process can be trusted any more.

    The message is one line. The store has every state, so the process ends and another continues.
    """


class Engine(Protocol):
    """One model version on one device. Not safe for concurrent calls.

    The arena has rows 0..rows - 1, each of which holds one state. A row is undefined until it is written.
    """

    spec: ModelSpec
    name: str  # "onnxruntime", "torch", "cuda"
    device: str  # "cpu", "cuda:0 NVIDIA H100 ..."
    numerics: str  # what decides the bits: engine, version, instruction set or device, settings
    exact: bool  # the same bits for every batch and chunking; tested at load
    tolerance: float  # the largest relative difference seen: if not exact, between the same rows in different batches;
    # on a GPU, also from float64
    max_batch: int  # sessions in one call
    initial_state: bytes  # state_bytes bytes

    @property
    def free_bytes(self) -> int | None:
        """Free bytes of the device's own memory, for the arena; None if the arena is in host memory."""

    def reserve(self, rows: int) -> None:
        """Allocates an arena of `rows` rows. Called once, before the first row is used.

        Raises StartError if the device has no room for it.
        """

    def write_states(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        """Writes whole states: uint8 [B, state_bytes]."""

    def read_states(self, rows: Rows) -> NDArray[np.uint8]:
        """Reads whole states: uint8 [B, state_bytes]."""

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        """Advances B states by T time steps, from the rows `read` into the rows `write`.

        inputs: [T, B, *spec.input.shape] in the input's dtype. Rows within `write` are distinct; read[i] and
        write[i] may be the same row. wanted: names of the outputs to return. 1 <= B <= max_batch. Raises EngineLost if
        the device fails, as the other calls do. A call that raises anything else is repeated, so it changes no row.
        """
