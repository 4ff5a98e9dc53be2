"""Runs an ONNX graph as it is with onnxruntime, in batches of one: the reference for its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime

from cellkeeper_service.domain.spec import InputSpec, PackedInputs
from cellkeeper_service.engine.graph_inputs import cast
from cellkeeper_service.model.config import GraphState

from ..refusal import ImportRefused
from ..stack import Array

PREDICTION = "prediction"


@dataclass(frozen=True)
class Declaration:
    """How to call a graph. Names are the graph's; shapes are of one session, without batch and time.

    inputs: of a time step, with the graph's dtypes; features have one axis or more, token ids none.
    time_axis, batch_axis: of the inputs and the outputs; time_axis is None for a graph of one time step without one.
    single: there is a time axis, and its length is 1.
    batch: "free"; or "one" or "none", as in config.json: a call takes one session, and states have their tensors' whole
    shapes.
    repeated: the constants of one number for each session, with their batch axes.
    untimed: outputs without the time axis, although the inputs have one of length 1.
    """

    inputs: tuple[InputSpec, ...]
    states: tuple[GraphState, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    time_axis: int | None
    single: bool
    batch: str = "free"
    repeated: Mapping[str, int] = field(default_factory=dict)
    untimed: frozenset[str] = frozenset()

    @property
    def served(self) -> dict[str, str]:
        """The name under which each output is served; clients that name none get "prediction"."""
        first = self.outputs[0] if PREDICTION not in self.outputs else PREDICTION
        return {name: PREDICTION if name == first else name for name in self.outputs}

    @property
    def state_outputs(self) -> dict[str, int]:
        """The outputs that are also states, with their batch axes."""
        return {state.output: state.batch_axis for state in self.states if state.output in self.outputs}

    @property
    def one_step(self) -> bool:
        """Whether a call takes one time step only."""
        return self.time_axis is None or self.single

    @property
    def batch_axis(self) -> int:
        return 1 if self.time_axis == 0 else 0

    @property
    def step(self) -> InputSpec | PackedInputs:
        """A time step: the only input, or all of them packed."""
        return self.inputs[0] if len(self.inputs) == 1 else PackedInputs.of(self.inputs)

    def fresh(self, batch: int, initial: Mapping[str, Array] = MappingProxyType({})) -> dict[str, Array]:
        """Returns states of `batch` new sessions as the graph takes them.

        initial: states of one session, by input name; zeros for those missing.
        """
        states = {}
        for state in self.states:
            value = initial.get(state.input, np.zeros(state.shape, state.dtype))
            if self.batch == "free":
                value = np.repeat(np.expand_dims(value, state.batch_axis), batch, state.batch_axis)
            states[state.input] = value
        return states

    def call(self, session: Any, x: Array, states: dict[str, Array]) -> list[Array]:
        """Calls the graph, and returns the outputs [T, B, ...]. Replaces `states` by the new states.

        x: [T, B, ...], of a structured dtype if there are several inputs; T is 1 if the graph has no time axis. Raises
        ImportRefused for outputs without these axes.
        """
        results = self.run(session, x, states)
        states.update((state.input, results[state.output]) for state in self.states)
        return [self._timed(name, results[name], *x.shape[:2]) for name in self.outputs]

    def run(self, session: Any, x: Array, states: Mapping[str, Array]) -> dict[str, Array]:
        """Calls the graph, and returns its outputs and new states as it returns them. x: see `call`."""
        repeated = {name: np.repeat(self.constants[name], x.shape[1], axis) for name, axis in self.repeated.items()}
        if len(self.inputs) == 1:
            (only,) = self.inputs
            fed = {only.name: cast(self._as_taken(x), only.dtype)}
        else:
            fed = {one.name: self._as_taken(np.array(x[one.name], order="C")) for one in self.inputs}
        fetches = list(dict.fromkeys([*self.outputs, *(state.output for state in self.states)]))
        results = session.run(fetches, {**fed, **self.constants, **repeated, **states})
        return dict(zip(fetches, results, strict=True))

    def lead(self, steps: int, batch: int, has_time: bool) -> tuple[int, ...]:
        """Returns the first axes of an output, with or without the time axis."""
        axes = (steps, batch) if has_time else (batch,)
        if self.batch == "none":
            return axes[:-1]
        return axes[::-1] if self.time_axis == 1 else axes

    def _as_taken(self, x: Array) -> Array:
        if self.batch == "none":
            x = x[:, 0]
            return np.asarray(x[0] if self.time_axis is None else x)
        if self.time_axis is None:
            return np.asarray(x[0])
        return np.ascontiguousarray(x.swapaxes(0, 1)) if self.time_axis == 1 else x

    def _timed(self, name: str, value: Array, steps: int, batch: int) -> Array:
        """Returns an output as [T, B, ...]."""
        if name in self.state_outputs:
            value = np.moveaxis(value, self.state_outputs[name], 0) if self.batch == "free" else value[None]
            return value[None]
        has_time = self.time_axis is not None and name not in self.untimed
        lead = self.lead(steps, batch, has_time)
        if self.batch == "one" and self.time_axis is None and value.shape[:1] != (1,):
            lead = ()  # without the batch axis of length 1
        if value.dtype.kind != "f":
            raise ImportRefused(
                f"output {name}",
                f"got {value.dtype}, expected floats; name the outputs to serve (--outputs), or put a Cast into the "
                "graph",
            )
        if value.shape[: len(lead)] != lead:
            raise ImportRefused(
                f"output {name}",
                f"got {value.dtype} {list(value.shape)} for {steps} steps of {batch} sessions, expected floats "
                f"{[*lead, '...']}; name the outputs to serve (--outputs)",
            )
        value = cast(value, "float32")
        if self.time_axis == 1 and has_time:
            value = value.swapaxes(0, 1)
        return value.reshape(steps, batch, *value.shape[len(lead) :])


class OnnxSource:
    """A proof.Source. initial: states of one session by input name; zeros for those missing. name: of what runs it."""

    def __init__(
        self,
        session: Any,
        declaration: Declaration,
        initial: Mapping[str, Array],
        name: str = f"onnxruntime {onnxruntime.__version__}",
    ) -> None:
        self.name, self.windowed = name, not declaration.one_step
        self._session, self._declaration, self._initial = session, declaration, initial

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._run(inputs, 1 if self._declaration.one_step else len(inputs))

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self._run(inputs, 1)

    def _run(self, inputs: Array, chunk: int) -> dict[str, Array]:
        declaration = self._declaration
        states = declaration.fresh(1, self._initial)
        parts: dict[str, list[Array]] = {name: [] for name in declaration.outputs}
        for start in range(0, len(inputs), chunk):
            values = declaration.call(self._session, inputs[start : start + chunk][:, None], states)
            for name, value in zip(declaration.outputs, values, strict=True):
                parts[name].append(value[:, 0])
        return {declaration.served[name]: np.concatenate(values) for name, values in parts.items()}
