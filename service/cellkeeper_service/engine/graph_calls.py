"""Turns one engine call into calls of a user's graph: all sessions and time steps at once if the graph supports it,
otherwise one session, or one time step, after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import GraphConfig, GraphOutput

from .graph_inputs import GraphInputs, cast
from .onnx_device import HOST, Fetches, GraphDevice, call


class GraphCalls(ABC):
    """Calls a graph. A graph without a time axis is called once per time step."""

    def __init__(
        self,
        config: GraphConfig,
        constants: Mapping[str, Array],
        inputs: GraphInputs,
        device: GraphDevice,
        *,
        stay: bool = False,
    ) -> None:
        """stay: states are passed and returned as values in the device's memory."""
        self._config, self._constants, self._inputs, self._device = config, constants, inputs, device
        self._kept: Fetches = {state.output: device if stay else HOST for state in config.states}
        self._taken, self._given = zip(*((state.input, state.output) for state in config.states), strict=True)

    @abstractmethod
    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        """Returns the outputs, float32 [T, P, ...] by name, and the new states, in the order of the config.

        inputs: [T, P, ...], of a structured dtype if there are several; they are cast to the graph's dtypes. states: of
        P sessions, by the graph's input name. outputs: the wanted ones. Raises ValueError if the graph's results do not
        have the declared shapes.
        """

    def _fetches(self, outputs: list[GraphOutput]) -> Fetches:
        return {**{output.output: HOST for output in outputs}, **self._kept}

    def _call(
        self, session: Any, feeds: dict[str, Any], fetches: Fetches, outputs: list[GraphOutput]
    ) -> tuple[list[Array], list[Any]]:
        """Calls the graph once. Returns the outputs and the new states, and feeds the states to the next call."""
        given = dict(zip(fetches, call(session, self._device, feeds, fetches), strict=True))
        results = [given[name] for name in self._given]
        feeds |= zip(self._taken, results, strict=True)
        return [cast(_on_host(given[output.output]), "float32") for output in outputs], results


class BatchCalls(GraphCalls):
    """Calls a graph that takes any number of sessions."""

    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        config = self._config
        values = self._inputs.arrays(inputs)
        if config.layout == "batch_first":
            values = {name: np.asarray(value.swapaxes(0, 1), order="C") for name, value in values.items()}
        calls = [values]
        if config.layout == "step":  # copied, because a step may be unaligned in the chunk: see SingleCalls
            calls = [{name: value[step].copy() for name, value in values.items()} for step in range(len(inputs))]
        feeds: dict[str, Any] = {**self._constants, **states}
        fetches = self._fetches(outputs)
        parts: list[list[Array]] = []
        results: list[Any] = []
        for one in calls:
            feeds |= one
            part, results = self._call(session, feeds, fetches, outputs)
            parts.append(part)
        for state, result in zip(config.states, results, strict=True):
            expected = [*state.shape[: state.batch_axis], inputs.shape[1], *state.shape[state.batch_axis :]]
            came = list(result.shape() if isinstance(result, OrtValue) else result.shape)
            if came != expected:
                raise ValueError(f"state {state.name}: got {came}, expected {expected}")
        by_name: dict[str, Array] = {}
        for i, output in enumerate(outputs):
            if config.layout == "step":
                made = np.stack([part[i] for part in parts])
            else:
                made = parts[0][i] if config.layout == "time_first" else parts[0][i].swapaxes(0, 1)
            came, expected = list(made.shape), [*inputs.shape[:2], *output.shape]
            if came != expected:
                ended = came[1:] == expected[1:] and came[0] < expected[0]
                hint = "; a Loop that ends early returns fewer time steps than it gets" if ended else ""
                raise ValueError(f"output {output.name}: got {came}, expected {expected} (steps, sessions, ...){hint}")
            by_name[output.name] = made
        return by_name, results


class SingleCalls(GraphCalls):
    """Calls a graph that takes one session per call. A session's bits are the same in any batch, because no call
    contains another session. What a call takes is copied: within a batch it may be unaligned, and the bits of sums may
    depend on that."""

    def compute(
        self, session: Any, inputs: Array, states: Mapping[str, Any], outputs: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        config = self._config
        steps, count = inputs.shape[:2]
        fetches = self._fetches(outputs)
        values = self._inputs.arrays(inputs)
        by_name = {output.name: np.zeros((steps, count, *output.shape), np.float32) for output in outputs}
        after = [np.zeros_like(states[state.input]) for state in config.states]
        length = 1 if config.layout == "step" else steps  # of one call
        batch = () if config.batch == "none" else (1,)
        lead = {"step": batch, "time_first": (length, *batch), "batch_first": (*batch, length)}[config.layout]
        for row in range(count):
            feeds = {
                **self._constants,
                **{state.input: states[state.input][row, ...].copy() for state in config.states},
            }
            results: list[Any] = []
            for start in range(0, steps, length):
                part = slice(start, start + length)
                for name, value in values.items():
                    feeds[name] = value[part, row].reshape((*lead, *value.shape[2:])).copy()
                made, results = self._call(session, feeds, fetches, outputs)
                for output, value in zip(outputs, made, strict=True):
                    by_name[output.name][part, row] = _reshaped(value, (length, *output.shape), output.name)
            for state, kept, result in zip(config.states, after, results, strict=True):
                if result.shape != state.shape:
                    raise ValueError(f"state {state.name}: got {list(result.shape)}, expected {list(state.shape)}")
                kept[row] = result
        return by_name, after


def _on_host(value: Array | OrtValue) -> Array:
    """Returns an output in host memory, also if it is at the same time a state that stays in the device's."""
    return np.asarray(value.numpy()) if isinstance(value, OrtValue) else value


def _reshaped(values: Array, shape: tuple[int, ...], name: str) -> Array:
    """Reshapes an output to `shape`, from which it may differ only by axes of length 1. Raises ValueError."""
    if [size for size in values.shape if size != 1] != [size for size in shape if size != 1]:
        raise ValueError(f"output {name}: got {list(values.shape)}, expected {list(shape)} and axes of length 1")
    return values.reshape(shape)
