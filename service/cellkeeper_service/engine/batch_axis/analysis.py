"""Proves that the rows of a user's graph are independent, by following the batch axis from its inputs to its outputs.

A trial finds a coupling only if its random values show it and its time steps reach it. This analysis depends on
neither. It proves that no value of one session reaches another's row; only the trial can show that the number of
sessions and a session's row in the batch make no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import helper, inliner

from cellkeeper_service.model.config import Features, GraphConfig
from cellkeeper_service.model.named_inputs import NamedInputs

from .call import Call, CannotTell, Couples
from .constants import UNREADABLE, fold, small
from .placement import BATCH, FREE, STEPS, UNKNOWN, Axis, Coupled, Free, Placement, Rows, axis_of, join, rows_at
from .rules import CONTRIBUTED, RULES
from .scan import sliced, stacked
from .shapes import Types, bodies, infer, shape_of, without_shape

MOST_INFERENCES = 200  # of shapes: each branch and loop takes two or more, and a file may nest them without limit
ONNX_DOMAINS = ("", "ai.onnx")
FIRST_SCAN = 9  # the opset; before it, a Scan had a batch axis of its own
SHAPES_ALONE = ("Shape", "Size")


@dataclass(frozen=True)
class Independence:
    """The result of the analysis.

    proved: no output or state of a session depends on another session. coupled: the node that makes one depend on
    another, None if none was found. output: the name of that output or state.
    shared_condition: the first If or Loop whose condition several sessions decide, if `proved` is False. Each session
    may get the same whatever is decided, which no rule can tell.
    """

    proved: bool
    coupled: Coupled | None = None
    output: str = ""
    shared_condition: str = ""


def independence(model: Any, config: GraphConfig) -> Independence:
    """Analyzes a graph. A graph that cannot be read is neither proved nor coupled.

    model: an onnx.ModelProto that onnxruntime has accepted, with a free batch. config: its declaration.
    """
    try:
        return _read(model, config)
    except (_TooLarge, *UNREADABLE):
        return Independence(False)


def _read(model: Any, config: GraphConfig) -> Independence:
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = model.graph
    given, placements = _inputs(graph, config)
    reading = _Reading(model)
    scope = reading.read(graph, _Scope(placements), given)
    proved = True
    for name, number in _expected(config).items():
        placement, shape = scope.placements.get(name, UNKNOWN), shape_of(scope.types.get(name))
        if isinstance(placement, Rows):
            axis = None if shape is None else axis_of(placement, shape)
            if axis is None and placement.reshaped:
                why = "reshapes the batch axis together with others, so that rows hold several sessions"
                placement = Coupled(placement.reshaped, why)
            elif axis != Axis(number):
                placement = UNKNOWN
        if isinstance(placement, Coupled):
            return Independence(False, placement, name)
        proved = proved and isinstance(placement, Free | Rows)
    return Independence(proved, shared_condition="" if proved else reading.shared_condition)


def _inputs(graph: Any, config: GraphConfig) -> tuple[Types, dict[str, Placement]]:
    lead = {"step": (BATCH,), "time_first": (STEPS, BATCH), "batch_first": (BATCH, STEPS)}[config.layout]
    axes: dict[str, tuple[tuple[int, ...], int]] = {}
    if isinstance(config.input, NamedInputs):
        axes |= {one.input: ((*lead, *one.shape), lead.index(BATCH)) for one in config.input.inputs}
    else:
        own = config.input.step_shape if isinstance(config.input, Features) else ()
        axes[config.input_name] = ((*lead, *own), lead.index(BATCH))
    for state in config.states:
        whole = (*state.shape[: state.batch_axis], BATCH, *state.shape[state.batch_axis :])
        axes[state.input] = (whole, state.batch_axis)
    given: Types = {}
    placements: dict[str, Placement] = {}
    for value in graph.input:
        if value.name in axes:
            shape, number = axes[value.name]
            given[value.name] = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape)
            placements[value.name] = rows_at(Axis(number), shape)
        else:
            placements[value.name] = FREE
    return given, placements


def _expected(config: GraphConfig) -> dict[str, int]:
    """Returns the batch axis of each output and state, by name."""
    axis = 1 if config.layout == "time_first" else 0
    return {one.output: axis for one in config.outputs} | {one.output: one.batch_axis for one in config.states}


class _TooLarge(Exception):
    pass


@dataclass
class _Scope:
    """What is known about the names in a graph. constants: small numpy arrays."""

    placements: dict[str, Placement]
    types: Types = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def within(self, placements: Mapping[str, Placement]) -> _Scope:
        """Returns a copy for a graph inside a node, which sees the names around it, except those of its inputs.

        placements: of its inputs.
        """
        constants = {name: value for name, value in self.constants.items() if name not in placements}
        return _Scope({**self.placements, **placements}, dict(self.types), constants)


class _Reading:
    def __init__(self, model: Any) -> None:
        self._opsets, self._ir_version = model.opset_import, model.ir_version
        versions = {one.domain: one.version for one in model.opset_import}
        self._opset = next((versions[domain] for domain in ONNX_DOMAINS if domain in versions), 1)
        self._inferences = 0
        self.shared_condition = ""

    def read(self, graph: Any, scope: _Scope, given: Mapping[str, Any]) -> _Scope:
        """Adds the graph's names to the scope, in topological order, as ONNX requires. given: its inputs' types."""
        for tensor in graph.initializer:
            scope.placements[tensor.name] = FREE
            self._keep(tensor.name, tensor, scope)
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._keep(node.output[0], node.attribute[0].t, scope)
        fold(graph.node, scope.constants, self._opsets, self._ir_version)
        self._infer(graph, scope, given, 0)
        for number, node in enumerate(graph.node):
            for name, placement in zip(node.output, self._results(node, scope), strict=True):
                if name:
                    scope.placements[name] = placement
            if node.op_type in ("If", "Loop", "Scan"):  # only now are the shapes of their outputs known
                self._infer(graph, scope, given, number + 1)
        return scope

    def _infer(self, graph: Any, scope: _Scope, given: Mapping[str, Any], start: int) -> None:
        self._inferences += 1
        if self._inferences > MOST_INFERENCES:
            raise _TooLarge
        scope.types |= infer(graph, self._opsets, self._ir_version, scope.types, given, scope.constants, start)

    def _keep(self, name: str, tensor: Any, scope: _Scope) -> None:
        scope.constants.pop(name, None)
        value = small(tensor)
        if value is not None:
            scope.constants[name] = value

    def _results(self, node: Any, scope: _Scope) -> list[Placement]:
        count = len(node.output)
        inputs = [scope.placements.get(name, UNKNOWN) if name else FREE for name in node.input]
        standard = node.domain in ONNX_DOMAINS
        if standard and node.op_type in SHAPES_ALONE:
            return [FREE] * count
        if standard and node.op_type == "If":
            return self._if(node, inputs[0], scope)
        if standard and node.op_type == "Loop":
            return self._loop(node, inputs, scope)
        if standard and node.op_type == "Scan" and self._opset >= FIRST_SCAN:
            return self._scan(node, inputs, scope)
        rule = (RULES if standard else CONTRIBUTED).get(node.op_type)
        whole = UNKNOWN if any(True for _ in bodies(node)) else _whole(inputs, known=rule is not None)
        if whole is not None:
            return [whole] * count
        call = Call(
            node,
            self._opset,
            inputs,
            [shape_of(scope.types.get(name)) for name in node.input],
            [shape_of(scope.types.get(name)) for name in node.output],
            scope.constants,
        )
        try:
            results = rule(call) if rule is not None else []
        except Couples as couples:
            return [Coupled(couples.node or name_of(node), str(couples))] * count
        # onnxruntime has accepted what no rule covers, so the trial has to find out if it couples sessions
        except (CannotTell, StopIteration, *UNREADABLE):
            return [UNKNOWN] * count
        return [*results, *[UNKNOWN] * count][:count]

    def _if(self, node: Any, condition: Placement, scope: _Scope) -> list[Placement]:
        if not isinstance(condition, Free):
            return self._undecided(node, condition)
        results: list[Placement] = [FREE] * len(node.output)
        ways: list[list[Any]] = []
        known = scope.constants.get(node.input[0])
        taken = {"then_branch", "else_branch"} if known is None else {"then_branch" if known.any() else "else_branch"}
        for body in (attribute.g for attribute in node.attribute if attribute.name in taken):
            inner = self.read(body, scope.within({}), {})
            ends = [inner.placements.get(value.name, UNKNOWN) for value in body.output]
            results = [join(one, other) for one, other in zip(results, ends, strict=True)]
            ways.append([inner.types.get(value.name) for value in body.output])
        for name, one, other in zip(node.output, ways[0], ways[-1], strict=True):
            if shape_of(one) == shape_of(other) is not None:
                scope.types[name] = one
        return results

    def _undecided(self, node: Any, condition: Placement) -> list[Placement]:
        """Returns the results of a node with such a condition. They are not always coupled: both branches may give a
        session the same values, and further iterations may leave it as it is."""
        if isinstance(condition, Coupled):
            self.shared_condition = self.shared_condition or name_of(node)
        return [UNKNOWN] * len(node.output)

    def _loop(self, node: Any, inputs: Sequence[Placement], scope: _Scope) -> list[Placement]:
        (body,) = bodies(node)
        carried = list(inputs[1:])  # the condition, then the loop-carried values
        types = [scope.types.get(name) for name in node.input[1:]]
        carried, types, ends, _ = self._repeat(body, carried, types, {body.input[0].name: FREE}, {}, scope)
        if not isinstance(condition := join(inputs[0], carried[0]), Free):
            return self._undecided(node, condition)
        scope.types |= {name: kind for name, kind in zip(node.output, types[1:], strict=False) if kind is not None}
        each = [placement if isinstance(placement, Free | Coupled) else UNKNOWN for placement in ends]
        return [*carried[1:], *each]

    def _scan(self, node: Any, inputs: Sequence[Placement], scope: _Scope) -> list[Placement]:
        (body,) = bodies(node)
        told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        count = len(inputs) - told["num_scan_inputs"]
        axes = told.get("scan_input_axes") or [0] * told["num_scan_inputs"]
        placements: dict[str, Placement] = {}
        given: Types = {}
        steps = None
        for name, value, placement, axis in zip(
            node.input[count:], list(body.input)[count:], inputs[count:], axes, strict=True
        ):
            kind = scope.types.get(name)
            whole = shape_of(kind)
            steps = steps if whole is None else whole[axis]
            placements[value.name], shape = sliced(placement, whole, axis)
            if kind is not None and shape is not None:
                given[value.name] = helper.make_tensor_type_proto(kind.tensor_type.elem_type, shape)
        types = [scope.types.get(name) for name in node.input[:count]]
        carried, types, ends, inner = self._repeat(body, list(inputs[:count]), types, placements, given, scope)
        scope.types |= {name: kind for name, kind in zip(node.output, types, strict=False) if kind is not None}
        axes = told.get("scan_output_axes") or [0] * len(ends)
        for at, (name, value, axis) in enumerate(
            zip(node.output[count:], list(body.output)[count:], axes, strict=True)
        ):
            kind = inner.types.get(value.name)
            ends[at], whole = stacked(ends[at], None if steps is None else shape_of(kind), axis, steps or 0)
            if kind is not None and whole is not None:
                scope.types[name] = helper.make_tensor_type_proto(kind.tensor_type.elem_type, whole)
        return [*carried, *ends]

    def _repeat(
        self,
        body: Any,
        carried: list[Placement],
        types: list[Any],
        others: Mapping[str, Placement],
        given: Types,
        scope: _Scope,
    ) -> tuple[list[Placement], list[Any], list[Placement], _Scope]:
        """Reads a body until another iteration changes nothing.

        carried, types: of the values that an iteration leaves to the next. others, given: placements and types of the
        body's other inputs. Returns what is carried in the end, with its types, the placements of the body's other
        outputs, and its names.
        """
        names = [value.name for value in body.input if value.name not in others]
        while True:
            known = {name: kind for name, kind in zip(names, types, strict=True) if kind is not None}
            inner = self.read(
                body, scope.within({**others, **dict(zip(names, carried, strict=True))}), {**given, **known}
            )
            ends = [inner.placements.get(value.name, UNKNOWN) for value in body.output]
            after = [join(one, other) for one, other in zip(carried, ends, strict=False)]
            shapes = [shape_of(inner.types.get(value.name)) for value in body.output]
            grown = [
                kind is not None and shape_of(kind) is not None and shape_of(kind) != shape
                for kind, shape in zip(types, shapes, strict=False)
            ]
            if after == carried and not any(grown):
                return carried, types, ends[len(carried) :], inner
            carried = after
            types = [without_shape(kind) if other else kind for kind, other in zip(types, grown, strict=True)]


def name_of(node: Any) -> str:
    return f"{node.name or node.output[0]!r} ({node.op_type})"


def _whole(inputs: Sequence[Placement], *, known: bool) -> Placement | None:
    """Returns the placement of all results if the inputs' kinds alone decide it; None if that takes a rule."""
    if all(isinstance(placement, Free) for placement in inputs):
        return FREE
    coupled = [placement for placement in inputs if isinstance(placement, Coupled)]
    if coupled and known:
        return coupled[0]
    if not known or any(not isinstance(placement, Free | Rows) for placement in inputs):
        return UNKNOWN
    return None
