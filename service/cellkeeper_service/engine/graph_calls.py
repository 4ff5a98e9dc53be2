"""Turns one engine call into calls of a user's graph: all sessions and time steps at once if the graph supports it,
otherwise one session, or one time step, after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from onnxruntime import OrtValue

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import GraphConfig, GraphOutput

from .binding import HOST, Fetches, call
from .graph_inputs import GraphInputs, cast
from .onnx_device import GraphDevice


class GraphCalls(Protocol):
    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        """Returns the outputs, float32 [T, P, ...] by name, and the new states, in the order of the config.

        inputs: [T, P, ...], of a structured dtype if there are several; they are cast to the graph's dtypes. states: of
        P sessions, by the graph's input name. outputs: the wanted ones. Raises ValueError if the graph's results do not
        have the declared shapes.
        """


class BatchCalls:
    """Implements GraphCalls for a graph that takes any number of sessions. A graph without a time axis is called once
    per time step."""

    def __init__(
        self,
        config: GraphConfig,
        constants: Mapping[str, Array],
        inputs: GraphInputs,
        device: GraphDevice,
        *,
        stay: bool,
    ) -> None:
        """stay: states are passed and returned as values in the device's memory."""
        self._config, self._constants, self._inputs, self._device = config, constants, inputs, device
        self._stay = {state.output: device if stay else HOST for state in config.states}

    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        config = self._config
        fetches: Fetches = {**{output.output: HOST for output in outputs}, **self._stay}
        values = self._inputs.arrays(inputs)
        if config.layout == "batch_first":
            values = {name: np.asarray(value.swapaxes(0, 1), order="C") for name, value in values.items()}
        calls = [values]
        if config.layout == "step":  # copied, because a step may be unaligned in the chunk: see SingleCalls
            calls = [{name: value[step].copy() for name, value in values.items()} for step in range(len(inputs))]
        feeds: dict[str, Any] = {**self._constants, **states}
        parts: list[list[Array]] = []
        results: list[Any] = []
        for one in calls:
            feeds |= one
            given = dict(zip(fetches, call(session, self._device, feeds, fetches), strict=True))
            parts.append([cast(_on_host(given[output.output]), "float32") for output in outputs])
            results = [given[state.output] for state in config.states]
            feeds |= zip((state.input for state in config.states), results, strict=True)
        for state, result in zip(config.states, results, strict=True):
            expected = [*state.shape[: state.batch_axis], inputs.shape[1], *state.shape[state.batch_axis :]]
            came = list(result.shape() if isinstance(result, OrtValue) else result.shape)
            if came != expected:
                raise ValueError(f"state {state.name}: got {came}, expected {expected}")
        by_name: dict[str, Array] = {}
        for i, output in enumerate(outputs):
            if config.layout == "step":
                by_name[output.name] = np.stack([part[i] for part in parts])
            else:
                by_name[output.name] = parts[0][i] if config.layout == "time_first" else parts[0][i].swapaxes(0, 1)
            shape = (*inputs.shape[:2], *output.shape)
            if by_name[output.name].shape != shape:
                came = list(by_name[output.name].shape)
                raise ValueError(f"output {output.name}: got {came}, expected {list(shape)} (steps, sessions, ...)")
        return by_name, results


class SingleCalls:
    """Implements GraphCalls for a graph that takes one session per call. A session's bits are the same in any batch,
    because no call contains another session. What a call takes is copied: within a batch it may be unaligned, and the
    bits of sums may depend on that."""

    def __init__(
        self, config: GraphConfig, constants: Mapping[str, Array], inputs: GraphInputs, device: GraphDevice
    ) -> None:
        self._config, self._constants, self._inputs, self._device = config, constants, inputs, device
        self._timed = config.layout != "step"
        self._batch = () if config.batch == "none" else (1,)

    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        config = self._config
        steps, count = inputs.shape[:2]
        values = self._inputs.arrays(inputs)
        fetches: Fetches = {
            **{output.output: HOST for output in outputs},
            **{state.output: HOST for state in config.states},
        }
        by_name = {output.name: np.zeros((steps, count, *output.shape), np.float32) for output in outputs}
        after = [np.zeros_like(states[state.input]) for state in config.states]
        length = steps if self._timed else 1  # of one call
        for row in range(count):
            feeds = {
                **self._constants,
                **{state.input: states[state.input][row, ...].copy() for state in config.states},
            }
            results: list[Any] = []
            for start in range(0, steps, length):
                part = slice(start, start + length)
                feeds |= {name: self._as_taken(value[part, row]) for name, value in values.items()}
                given = dict(zip(fetches, call(session, self._device, feeds, fetches), strict=True))
                for output in outputs:
                    shape = (length, *output.shape)
                    by_name[output.name][part, row] = _reshaped(
                        cast(given[output.output], "float32"), shape, output.name
                    )
                results = [given[state.output] for state in config.states]
                feeds |= zip((state.input for state in config.states), results, strict=True)
            for state, kept, result in zip(config.states, after, results, strict=True):
                if result.shape != state.shape:
                    raise ValueError(f"state {state.name}: got {list(result.shape)}, expected {list(state.shape)}")
                kept[row] = result
        return by_name, after

    def _as_taken(self, values: Array) -> Array:
        """Returns one session's values [T, ...] in the layout that the graph takes."""
        steps, shape = values.shape[0], values.shape[1:]
        if not self._timed:
            return values.reshape((*self._batch, *shape)).copy()
        lead = (*self._batch, steps) if self._config.layout == "batch_first" else (steps, *self._batch)
        return values.reshape((*lead, *shape)).copy()


def _on_host(value: Array | OrtValue) -> Array:
    """Returns an output in host memory, also if it is at the same time a state that stays in the device's."""
    return np.asarray(value.numpy()) if isinstance(value, OrtValue) else value


def _reshaped(values: Array, shape: tuple[int, ...], name: str) -> Array:
    """Reshapes an output to `shape`, from which it may differ only by axes of length 1. Raises ValueError."""
    if [size for size in values.shape if size != 1] != [size for size in shape if size != 1]:
        raise ValueError(f"output {name}: got {list(values.shape)}, expected {list(shape)} and axes of length 1")
    return values.reshape(shape)
