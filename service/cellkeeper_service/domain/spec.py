"""What a model takes, gives and remembers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from .feedback import Feedback


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
class ModelSpec:
    """The outside of a loaded model version. What follows from the fields is asked at every request, so it is kept."""

    name: str
    fingerprint: bytes  # sha256 of config and weights
    input: TensorSpec  # features: float32 [F]; token ids: int32 []
    vocabulary: int  # token models: ids are 0..vocabulary - 1; 0 for features
    missing_values: bool  # NaN is a missing value, which the model's policy fills
    outputs: tuple[TensorSpec, ...]  # by time step; the first is the default; "prediction", "hidden", ...
    states: tuple[TensorSpec, ...]  # in the order of a checkpoint's bytes
    feedback: Feedback | None = None  # None: it cannot be rolled out
    feature_names: tuple[str, ...] = ()  # of the input's features, in their order; empty: they have none

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
