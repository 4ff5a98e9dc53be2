"""The engine for a user's ONNX graph, with inputs, states and outputs as its bundle declares them."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from cellkeeper_service.domain.engine import Array, Computed, EngineLost, Rows
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Features, GraphConfig, GraphOutput
from cellkeeper_service.model.named_inputs import NamedInputs
from cellkeeper_service.model.tensors import cell_states

from .arena import FLOAT_BYTES, Arena, WholeRows, whole_rows
from .base import BundleEngine
from .batch_axis.analysis import independence
from .exactness import TRIAL_CALL_MS
from .finite import finite_rows
from .graph_calls import BatchCalls, GraphCalls, SingleCalls
from .graph_inputs import GraphInputs, graph_names
from .graph_states import DeviceStates, GraphStates, HostStates
from .inputs import Preprocessing
from .limited_session import LimitedSession
from .numerics import integer_instructions
from .onnx_checks import multiplies_integers, parse_graph, refuse_operators
from .onnx_device import GraphDevice, cpu_device
from .ort import describe, open_session
from .unbounded_work import refuse_unbounded
from .unstreamable import coupled

_TYPES = {"float32": "float", "float64": "double", "float16": "float16", "int32": "int32", "int64": "int64"}
_FLOATS = ("float32", "float64", "float16")  # a graph's inputs and outputs; the service's own are float32
_DTYPES = {f"tensor({kind})": dtype for dtype, kind in _TYPES.items()}


class UserGraphEngine(BundleEngine):
    """The engine for a user's graph. graph_calls.py decides how often the graph is called.

    On a GPU, the states of a graph with a free batch stay in the device's memory if all are float32: they are gathered,
    passed from time step to time step, and scattered there. Each call transfers inputs, wanted outputs, and any other
    states.
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
        """trial_call_ms: limit for each call until `end_trial`. device: the CPU by default. Raises StartError (its
        subclass GraphDeviceMissing if onnxruntime cannot use the device), and EngineLost if the device fails."""
        if not isinstance(bundle.config, GraphConfig):
            raise TypeError(f"{bundle.path} has no graph of its own")
        super().__init__(bundle, max_batch)
        self._threads = threads
        self._place = device or cpu_device()
        self.device = self._place.name
        self._graph = bundle.config
        self.one_session_a_call = bundle.config.one_session_a_call
        self._name = place = str(bundle.path / bundle.config.graph)
        parsed = parse_graph(bundle.graph, place)
        if multiplies_integers(parsed):
            self._place = replace(self._place, versions=f"{self._place.versions} {integer_instructions()}")
        self.settle(1, False, 0.0)
        refuse_operators(parsed, bundle.config, place)
        self._session = open_session(bundle.graph, threads, place, self._place)
        sent = [*graph_names(bundle.config), *(state.input for state in bundle.config.states)]
        refuse_unbounded(parsed, sent, place)
        constants = {name: bundle.tensors[f"constant.{name}"] for name in bundle.config.constants}
        graph_inputs = GraphInputs(bundle.config, _check_names(self._session, bundle.config, place))
        self._preprocessing = Preprocessing(bundle.config)
        self._graph_bytes = sum(state.nbytes for state in cell_states(bundle.config))
        stay = self._place.keeps_states and not self.one_session_a_call
        stay = stay and all(state.dtype == "float32" for state in self._graph.states)
        states = self._graph.states
        self._states: GraphStates = DeviceStates(states, self._place, place) if stay else HostStates(states)
        calls = SingleCalls if self.one_session_a_call else BatchCalls
        self._calls: GraphCalls = calls(bundle.config, constants, graph_inputs, self._place, stay=stay)
        # held values fill missing ones in preprocessing, which runs on the host
        self._held = Arena([FLOAT_BYTES * prod(self.spec.input.shape)]) if self._preprocessing.holds else None
        self._trial: LimitedSession | None = LimitedSession(self._session, trial_call_ms, place)
        try:
            self._try()
            self.rows_proved, self.shared_condition = self._read_rows(parsed)
        except BaseException:
            self.end_trial()
            raise

    def _read_rows(self, model: Any) -> tuple[bool, str]:
        """Returns whether the graph proves that the sessions of a batch are independent, and the node whose condition
        they decide together ("": none; see Independence). Raises Unstreamable if the graph proves that they are not
        independent, which does no harm if a batch has one session."""
        if self.one_session_a_call:
            return True, ""
        found = independence(model, self._graph)
        if found.coupled is not None and self.max_batch > 1:
            raise coupled(f"node {found.coupled.node} {found.coupled.why}, and {found.output} is computed from it")
        return found.proved, found.shared_condition if self.max_batch > 1 else ""

    def end_trial(self) -> None:
        """Lifts the limit on calls."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _numerics(self) -> str:
        return describe(self, self._place, self._threads)

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
        before = self._states.take(read, padded)
        held = None
        if self._held is not None:
            held = np.zeros((batch, *self.spec.input.shape), np.float32)
            self._held.gather(read, [_held_rows(held)])
        filled = np.zeros((steps, padded, *inputs.shape[2:]), self.spec.input.numpy_dtype)
        good = self._preprocessing.fill(inputs, filled[:, :batch], held)
        declared = [output for output in self._graph.outputs if output.name in wanted]
        outputs, results = self._compute(filled, before, declared)
        outputs = {name: values[:, :batch].copy() for name, values in outputs.items()}
        joined, after = self._states.join(results, batch)
        finite = finite_rows(good, after, outputs)
        self._states.put(write, joined)  # last: see Engine.run
        if self._held is not None and held is not None:
            self._held.scatter(write, [_held_rows(held)])
        return Computed(outputs, finite)

    def _compute(
        self, filled: Array, before: dict[str, Any], declared: list[GraphOutput]
    ) -> tuple[dict[str, Array], list[Any]]:
        """Calls the graph. Raises StartError if a call fails during the trial, because clients may send the same."""
        try:
            return self._calls.compute(self._trial or self._session, filled, before, declared)
        except (StartError, EngineLost):
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            if self._trial is None:
                raise
            advice = "what config.json declares: the vocabulary, shapes and layout"
            raise self._failed("a trial call of the graph", error, advice) from error

    def _try(self) -> None:
        """Runs one step of two sessions, so that a wrong declaration is found here and not by a client."""
        inputs = np.zeros((1, 2, *self.spec.input.shape), self.spec.input.numpy_dtype)
        declared = list(self._graph.outputs)
        try:
            rows = np.arange(2, dtype=np.intp)
            self._states.reserve(2)
            self._states.write(rows, np.zeros((2, self._graph_bytes), np.uint8))
            session = self._trial or self._session
            _, results = self._calls.compute(session, inputs, self._states.take(rows, 2), declared)
            joined, _ = self._states.join(results, len(rows))
            self._states.put(rows, joined)
            self._states.reserve(0)
        except (StartError, EngineLost):
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            advice = "the declared shapes, batch, layout and batch axes"
            raise self._failed("a trial step of two sessions", error, advice) from error

    def _failed(self, what: str, error: Exception, advice: str) -> StartError:
        line = " ".join(str(error).split())[:300]
        return StartError(f"{self._name}: {what} failed ({line}); check {advice}")


def _held_rows(held: Array) -> WholeRows:
    return whole_rows(held.reshape(len(held), -1))


def _check_names(session: Any, config: GraphConfig, place: str) -> dict[str, str]:
    """Returns the dtypes of the graph's inputs that receive a time step, by name. Raises StartError if the graph's
    names or dtypes are not the declared ones."""
    inputs = {value.name: value.type for value in session.get_inputs()}
    declared = [*graph_names(config), *(state.input for state in config.states), *config.constants]
    if sorted(declared) != sorted(inputs):
        raise StartError(
            f"{place}: inputs: config.json declares {sorted(declared)}, but the graph has {sorted(inputs)}"
        )
    results = {value.name: value.type for value in session.get_outputs()}
    for name in [output.output for output in config.outputs] + [state.output for state in config.states]:
        if name not in results:
            raise StartError(f"{place}: output {name}: declared in config.json, but the graph has {sorted(results)}")
    for state in config.states:
        came, expected = {inputs[state.input], results[state.output]}, f"tensor({_TYPES[state.dtype]})"
        if came != {expected}:
            raise StartError(f"{place}: state {state.name}: got {' and '.join(sorted(came))}, expected {expected}")
    for output in config.outputs:
        if _DTYPES.get(results[output.output]) not in _FLOATS:
            raise StartError(f"{place}: output {output.name}: got {results[output.output]}, expected tensor(float)")
    if isinstance(config.input, NamedInputs):
        for one in config.input.inputs:
            if _DTYPES.get(inputs[one.input]) != one.dtype:
                expected = f"tensor({_TYPES[one.dtype]})"
                raise StartError(f"{place}: input {one.name}: got {inputs[one.input]}, expected {expected}")
        return {one.input: one.dtype for one in config.input.inputs}
    dtype = _DTYPES.get(inputs[config.input_name], "")
    if dtype not in (_FLOATS if isinstance(config.input, Features) else ("int32", "int64")):
        raise StartError(
            f"{place}: input {config.input_name}: got {inputs[config.input_name]}, expected tensor(float) for "
            "features, tensor(int32) or tensor(int64) for tokens"
        )
    return {config.input_name: dtype}
