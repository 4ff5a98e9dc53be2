"""The engine for an ONNX graph of the user's own, with inputs, states and outputs as its bundle declares them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from cellkeeper_service.domain.engine import Array, Computed, EngineLost, Rows
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Config, Features, GraphConfig

from .arena import Arena, whole_rows
from .binding import HOST, Fetches, call
from .exactness import TRIAL_CALL_MS
from .finite import finite_rows
from .graph_states import FLOAT_BYTES, DeviceStates, GraphStates, HostStates
from .inputs import Intake
from .limited_session import LimitedSession
from .onnx_checks import parse_graph, refuse_operators
from .onnx_device import GraphDevice, cpu_device
from .ort import describe, open_session
from .unbounded_work import refuse_unbounded

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}


class UserGraphEngine:
    """Implements domain.engine.Engine. A graph without a time axis is called once a time step.

    On a GPU the states stay in the device's memory: they are gathered there, go from time step to time step there, and
    are scattered there. Inputs and wanted outputs travel with each call.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        max_batch: int,
        threads: int = 1,
        trial_call_ms: int = TRIAL_CALL_MS,
        device: GraphDevice | None = None,
    ) -> None:
        """Calls have the limit `trial_call_ms` until `end_trial`. device: the CPU by default. Raises StartError, of it
        GraphDeviceMissing where onnxruntime cannot use the device, and EngineLost where that fails."""
        if not isinstance(bundle.config, GraphConfig):
            raise TypeError(f"{bundle.path} has no graph of its own")
        self.spec: ModelSpec = bundle.spec
        self.config: Config = bundle.config
        self.max_batch = max_batch
        self.initial_state = bundle.initial_state
        self._threads = threads
        self._place = device or cpu_device()
        self.device = self._place.name
        self.settle(1, False, 0.0)
        self._graph = bundle.config
        place = str(bundle.path / bundle.config.graph)
        parsed = parse_graph(bundle.graph, place)
        refuse_operators(parsed, bundle.config, place)
        sent = [bundle.config.input_name, *(state.input for state in bundle.config.states)]
        refuse_unbounded(parsed, sent, place)
        self._session = open_session(bundle.graph, threads, place, self._place)
        self._constants = {name: bundle.tensors[f"constant.{name}"] for name in bundle.config.constants}
        self._input_dtype = _check_names(self._session, bundle.config, place)
        self._intake = Intake(bundle.config)
        self._stay = {state.output: self._place for state in self._graph.states}
        self._graph_bytes = FLOAT_BYTES * sum(prod(state.shape) for state in self._graph.states)
        self._states = self._make_states(place)
        # what fills missing values is the intake's, and that runs on the host
        self._held = Arena(self.spec.input.shape) if self._intake.holds else None
        self._trial: LimitedSession | None = LimitedSession(self._session, trial_call_ms, place)
        try:
            self._try(place)
        except (StartError, EngineLost):
            self.end_trial()
            raise

    def end_trial(self) -> None:
        """Calls have no limit from now on."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Takes what exactness.settle found."""
        self.min_batch, self.exact, self.tolerance = min_batch, exact, tolerance
        self.numerics = describe(self._threads, min_batch, exact, self._place)

    @property
    def free_bytes(self) -> int | None:
        return self._place.free_bytes

    def reserve(self, rows: int) -> None:
        self._states.reserve(rows)
        if self._held is not None:
            self._held.reserve(rows)

    def write_states(self, rows: Rows, states: Array) -> None:
        self._states.write(rows, states[:, : self._graph_bytes])
        if self._held is not None:
            self._held.write(rows, states[:, self._graph_bytes :])

    def read_states(self, rows: Rows) -> Array:
        states = self._states.read(rows)
        return states if self._held is None else np.concatenate([states, self._held.read(rows)], axis=1)

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        steps, batch = inputs.shape[:2]
        padded = max(batch, self.min_batch)
        before = self._states.gather(read, padded)
        held = None
        if self._held is not None:
            held = np.zeros((batch, *self.spec.input.shape), np.float32)
            self._held.gather(read, [whole_rows(held)])
        filled = np.zeros((steps, padded, *inputs.shape[2:]), self.spec.input.dtype)
        good = self._intake.fill(inputs, filled[:, :batch], held)
        outputs, results = self._compute(filled, before, wanted)
        after = self._states.scatter(write, results)
        if self._held is not None and held is not None:
            self._held.scatter(write, [whole_rows(held)])
        outputs = {name: values[:, :batch].copy() for name, values in outputs.items()}
        return Computed(outputs, finite_rows(good, after, outputs))

    def _compute(
        self, inputs: Array, states: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[dict[str, Array], list[Any]]:
        """states: by the graph's input name. Gives the outputs [T, P, ...], and the states after them."""
        graph = self._graph
        declared = [output for output in graph.outputs if output.name in wanted]
        fetches: Fetches = {**{output.output: HOST for output in declared}, **self._stay}
        values = inputs.astype(self._input_dtype, copy=False)
        calls = list(values) if graph.layout == "step" else [values]
        if graph.layout == "batch_first":
            calls = [np.ascontiguousarray(values.swapaxes(0, 1))]
        feeds: dict[str, Any] = {**self._constants, **states}
        parts: list[list[Array]] = []
        session = self._trial or self._session
        results: list[Any] = []
        for one in calls:
            feeds[graph.input_name] = one
            given = dict(zip(fetches, call(session, self._place, feeds, fetches), strict=True))
            parts.append([given[output.output] for output in declared])
            results = [given[state.output] for state in graph.states]
            feeds |= zip((state.input for state in graph.states), results, strict=True)
        for state, result in zip(graph.states, results, strict=True):
            expected = [*state.shape[: state.batch_axis], inputs.shape[1], *state.shape[state.batch_axis :]]
            came = list(result.shape() if isinstance(result, OrtValue) else result.shape)
            if came != expected:
                raise ValueError(f"state {state.name}: got {came}, expected {expected}")
        outputs: dict[str, Array] = {}
        for i, output in enumerate(declared):
            if graph.layout == "step":
                outputs[output.name] = np.stack([part[i] for part in parts])
            else:
                outputs[output.name] = parts[0][i] if graph.layout == "time_first" else parts[0][i].swapaxes(0, 1)
        return outputs, results

    def _make_states(self, place: str) -> GraphStates:
        if self._place.keeps_states:
            return DeviceStates(self._graph.states, self._place, place)
        return HostStates(self._graph.states)

    def _try(self, place: str) -> None:
        """Two sessions take one step, so that a wrong declaration is found here and not by a client."""
        inputs = np.zeros((1, 2, *self.spec.input.shape), self.spec.input.dtype)
        names = frozenset(output.name for output in self.spec.outputs)
        try:
            rows = np.arange(2, dtype=np.intp)
            self._states.reserve(2)
            self._states.write(rows, np.zeros((2, self._graph_bytes), np.uint8))
            outputs, results = self._compute(inputs, self._states.gather(rows, 2), names)
            self._states.scatter(rows, results)
            self._states.reserve(0)
        except (StartError, EngineLost):
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            line = " ".join(str(error).split())[:300]
            raise StartError(
                f"{place}: a step of two sessions fails ({line}); check the declared shapes, layout and batch axes"
            ) from error
        for output in self.spec.outputs:
            came, expected = outputs[output.name], (1, 2, *output.shape)
            if came.shape != expected or came.dtype != np.float32:
                raise StartError(
                    f"{place}: output {output.name}: got {came.dtype} {list(came.shape)} for one step of two "
                    f"sessions, expected float32 {list(expected)}"
                )


def _check_names(session: Any, config: GraphConfig, place: str) -> str:
    """The dtype of the graph's input. Raises StartError where the graph's names are not the declared ones."""
    inputs = {value.name: value.type for value in session.get_inputs()}
    declared = [config.input_name, *(state.input for state in config.states), *config.constants]
    if sorted(declared) != sorted(inputs):
        raise StartError(f"{place}: inputs: config.json declares {sorted(declared)}, the graph has {sorted(inputs)}")
    results = {value.name: value.type for value in session.get_outputs()}
    for name in [output.output for output in config.outputs] + [state.output for state in config.states]:
        if name not in results:
            raise StartError(f"{place}: output {name}: declared in config.json, the graph has {sorted(results)}")
    for state in config.states:
        if inputs[state.input] != "tensor(float)" or results[state.output] != "tensor(float)":
            raise StartError(f"{place}: state {state.name}: got {inputs[state.input]}, expected tensor(float)")
    dtype = _DTYPES.get(inputs[config.input_name], "")
    if not dtype or (dtype == "float32") != isinstance(config.input, Features):
        raise StartError(
            f"{place}: input {config.input_name}: got {inputs[config.input_name]}, expected tensor(float) for "
            "features, tensor(int32) or tensor(int64) for tokens"
        )
    return dtype
