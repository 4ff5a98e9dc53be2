"""What a model takes, gives and remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .feedback import Feedback, NamedFeedback


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, dtype ("float32", "int32", ...) and shape.

    For an input or an output the shape of one time step; for a state the shape of one session's tensor.
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
    """One of several inputs of a time step. vocabulary: integers are 0..vocabulary - 1; 0 for floats."""

    vocabulary: int = 0


@dataclass(frozen=True)
class PackedInputs(TensorSpec):
    """Several inputs as one: a time step is one value of a structured dtype, whose bytes are those of the inputs, in
    order and without gaps. So a log, a head and a batch treat it as they treat any other input."""

    parts: tuple[InputSpec, ...] = ()

    @classmethod
    def of(cls, parts: tuple[InputSpec, ...]) -> PackedInputs:
        return cls("inputs", "void", (), parts)

    @cached_property
    def nbytes(self) -> int:
        return self.numpy_dtype.itemsize

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """A field for each input, little-endian."""
        return np.dtype([(part.name, part.numpy_dtype, part.shape) for part in self.parts])

    def pack(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """values: of each input [..., *shape], with the same leading axes. Gives [...] of `numpy_dtype`."""
        first = self.parts[0]
        lead = values[first.name].shape
        packed = np.zeros(lead[: len(lead) - len(first.shape)], self.numpy_dtype)
        for part in self.parts:
            packed[part.name] = values[part.name]
        return packed


@dataclass(frozen=True)
class ModelSpec:
    """The outside of a loaded model version. What follows from the fields is asked at every request, so it is kept."""

    name: str
    fingerprint: bytes  # sha256 of config and weights
    input: TensorSpec  # features: float32 [F]; token ids: int32 []; several inputs: PackedInputs
    vocabulary: int  # token models: ids are 0..vocabulary - 1; 0 for features
    missing_values: bool  # NaN is a missing value, which the model's policy fills
    outputs: tuple[TensorSpec, ...]  # by time step; the first is the default; "prediction", "hidden", ...
    states: tuple[TensorSpec, ...]  # in the order of a checkpoint's bytes
    feedback: Feedback | NamedFeedback | None = None  # None: it cannot be rolled out
    feature_names: tuple[str, ...] = ()  # of the input's features, in their order; empty: they have none

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The inputs of a time step where it has several; empty where it has one."""
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
        """Whether both take, give and keep the same tensors: requests cannot tell them apart."""

        def outside(spec: ModelSpec) -> tuple[object, ...]:
            return spec.input, spec.vocabulary, spec.missing_values, spec.outputs, spec.states

        return outside(self) == outside(other)

    @cached_property
    def output_names(self) -> frozenset[str]:
        return frozenset(output.name for output in self.outputs)

    @property
    def decisive_outputs(self) -> frozenset[str]:
        """The outputs that have to be finite for a step to be taken, whoever asks for which of them: whether a step is
        taken must not depend on the batch's company. "hidden" is a part of the state, which is looked at anyway."""
        return frozenset(output.name for output in self.outputs if output.name != "hidden")
