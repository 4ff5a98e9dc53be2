"""The tensors that a model takes, returns and keeps as state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .feedback import Feedback, NamedFeedback


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, dtype ("float32", "int32", ...) and shape.

    The shape is that of one time step for an input or an output, and that of one session's tensor for a state.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def nbytes(self) -> int:
        return np.dtype(self.dtype).itemsize * prod(self.shape)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Little-endian, as on the wire."""
        return np.dtype(self.dtype).newbyteorder("<")


@dataclass(frozen=True)
class InputSpec(TensorSpec):
    """One of several inputs of a time step. vocabulary: integers must be in 0..vocabulary - 1; 0 for floats."""

    vocabulary: int = 0


@dataclass(frozen=True)
class PackedInputs(TensorSpec):
    """Several inputs packed as one: a time step is one value of a structured dtype, whose bytes are the inputs' bytes,
    in order and without gaps. Logs, heads and batches therefore treat it like any other input."""

    parts: tuple[InputSpec, ...] = ()

    @classmethod
    def of(cls, parts: tuple[InputSpec, ...]) -> PackedInputs:
        return cls("inputs", "void", (), parts)

    @cached_property
    def nbytes(self) -> int:
        return self.numpy_dtype.itemsize

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """A structured dtype with one little-endian field for each input."""
        return np.dtype([(part.name, part.numpy_dtype, part.shape) for part in self.parts])

    def pack(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Packs the values of each input, [..., *shape] with the same leading axes, into [...] of `numpy_dtype`."""
        first = self.parts[0]
        lead = values[first.name].shape
        packed = np.zeros(lead[: len(lead) - len(first.shape)], self.numpy_dtype)
        for part in self.parts:
            packed[part.name] = values[part.name]
        return packed


@dataclass(frozen=True)
class ModelSpec:
    """The interface of a loaded model version. Derived values are cached, because every request needs them."""

    name: str
    fingerprint: bytes  # sha256 of config and weights
    input: TensorSpec  # features: float32 [F]; token ids: int32 []; several inputs: PackedInputs
    vocabulary: int  # token models: ids are 0..vocabulary - 1; 0 for features
    missing_values: bool  # NaN marks a missing value, which the model's policy fills
    outputs: tuple[TensorSpec, ...]  # per time step; the first is the default; "prediction", "hidden", ...
    states: tuple[TensorSpec, ...]  # in the order of a checkpoint's bytes
    feedback: Feedback | NamedFeedback | None = None  # None: the model cannot be rolled out
    feature_names: tuple[str, ...] = ()  # of the input's features, in order; empty if they have no names
    cell: str = ""  # which kind of cell the states belong to; empty for a graph, which does not say

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The inputs of a time step if it has several; empty if it has one."""
        return self.input.parts if isinstance(self.input, PackedInputs) else ()

    @property
    def step_bytes(self) -> int:
        """Bytes of one time step's input."""
        return self.input.nbytes

    @cached_property
    def state_bytes(self) -> int:
        """Bytes of one session's state."""
        return sum(state.nbytes for state in self.states)

    def looks_like(self, other: ModelSpec) -> bool:
        """Returns True if both take, return and keep the same tensors, so that requests cannot tell them apart."""
        tensors = attrgetter("input", "vocabulary", "missing_values", "outputs", "states")
        return bool(tensors(self) == tensors(other))

    @cached_property
    def output_names(self) -> frozenset[str]:
        return frozenset(output.name for output in self.outputs)

    @property
    def decisive_outputs(self) -> frozenset[str]:
        """The outputs that must be finite for a step to be accepted, whichever of them the request asks for: acceptance
        must not depend on what else is in the batch. "hidden" is part of the state, which is checked anyway."""
        return frozenset(output.name for output in self.outputs if output.name != "hidden")
