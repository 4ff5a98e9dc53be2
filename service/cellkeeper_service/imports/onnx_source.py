"""An ONNX graph run as it is, by onnxruntime, in batches of one: what its bundle is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from .stack import Array

PREDICTION = "prediction"


@dataclass(frozen=True)
class Declaration:
    """How a graph is to be called. Names are the graph's; shapes are of one session, without batch and time.

    time_axis and batch_axis: of the input and the outputs; time_axis is None for a graph of one time step without
    such an axis. single: there is a time axis, and its length is 1.
    """

    input_name: str
    input_shape: tuple[int, ...]  # [F], or [] for token ids
    dtype: str
    states: Mapping[str, str]
    state_shapes: Mapping[str, tuple[int, ...]]
    state_axes: Mapping[str, int]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    time_axis: int | None
    single: bool

    @property
    def served(self) -> dict[str, str]:
        """What each output is called where it is served: clients ask for "prediction" where they name none."""
        first = self.outputs[0] if PREDICTION not in self.outputs else PREDICTION
        return {name: PREDICTION if name == first else name for name in self.outputs}

    @property
    def batch_axis(self) -> int:
        return 1 if self.time_axis == 0 else 0

    def zeros(self, batch: int) -> dict[str, Array]:
        """States of `batch` sessions as the graph takes them."""
        return {
            name: np.zeros((*shape[: self.state_axes[name]], batch, *shape[self.state_axes[name] :]), np.float32)
            for name, shape in self.state_shapes.items()
        }

    def call(self, session: Any, x: Array, states: dict[str, Array]) -> list[Array]:
        """x: [T, B, ...]; T is 1 where the graph has no time axis. Gives the outputs; `states` go on."""
        if self.time_axis is None:
            x = x[0]
        elif self.time_axis == 1:
            x = np.ascontiguousarray(x.swapaxes(0, 1))
        feeds = {self.input_name: x.astype(self.dtype), **self.constants, **states}
        results = session.run([*self.outputs, *self.states.values()], feeds)
        states.update(zip(self.states, results[len(self.outputs) :], strict=True))
        return list(results[: len(self.outputs)])


class OnnxSource:
    """A proof.Source. initial: states of one session by input name; zeros where it has none."""

    def __init__(self, session: Any, declaration: Declaration, initial: Mapping[str, Array]) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._session, self._declaration, self._initial = session, declaration, initial

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        short = self._declaration.time_axis is None or self._declaration.single
        return self._run(inputs, 1 if short else len(inputs))

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self._run(inputs, 1)

    def _run(self, inputs: Array, chunk: int) -> dict[str, Array]:
        declaration = self._declaration
        states = declaration.zeros(1)
        for name, value in self._initial.items():
            states[name] = np.expand_dims(np.asarray(value, np.float32), declaration.state_axes[name])
        parts: dict[str, list[Array]] = {name: [] for name in declaration.outputs}
        for start in range(0, len(inputs), chunk):
            values = declaration.call(self._session, inputs[start : start + chunk][:, None], states)
            for name, value in zip(declaration.outputs, values, strict=True):
                timed = value[None] if declaration.time_axis is None else np.moveaxis(value, declaration.time_axis, 0)
                parts[name].append(timed[:, 0])
        return {declaration.served[name]: np.concatenate(values) for name, values in parts.items()}
