"""A torch.export program (x, *states) -> (y, *states): converted through ONNX, and compared with the program itself."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from cellkeeper_service.engine.batch_axis.shapes import graphs_within
from cellkeeper_service.model.fields import one_line

from ..imported import Imported, Target
from ..onnx.declare import declare
from ..onnx.graph import read_graph
from ..onnx.model import import_graph
from ..onnx.source import Declaration, OnnxSource
from ..proof import Source
from ..refusal import LONGEST, ImportRefused, refusing
from ..stack import Array
from .private import get_decompositions

_LACKING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")
INPUT, OUTPUT = "x", "prediction"


@dataclass(frozen=True)
class Traced:
    """One time step of a module.

    program: (*inputs [B, ...], *states) -> (*outputs [B, ...], *states), with a dynamic batch axis.
    initial: states of a new session, without the batch axis; zeros for those missing.
    source: the reference for the bundle; None: the program itself.
    inputs: their names, in the order of the program's arguments.
    step_shape: of a time step, if there is one input and it has several axes.
    """

    program: ExportedProgram
    states: tuple[str, ...]
    outputs: tuple[str, ...] = (OUTPUT,)
    initial: Mapping[str, Array] = field(default_factory=dict)
    source: Source | None = None
    inputs: tuple[str, ...] = (INPUT,)
    step_shape: tuple[int, ...] | None = None


def after(state: str) -> str:
    """Returns the name of a state's output."""
    return f"{state}_out"


def import_traced(traced: Traced, target: Target, place: str, vocabulary: int | Mapping[str, int]) -> Imported:
    """Converts one time step of a module to a bundle. vocabulary: by name if there are several inputs."""
    data = program_graph(traced, place)
    graph = read_graph(data, place)
    declaration = declare(
        graph,
        place,
        input_name=traced.inputs,
        input_shape=traced.step_shape,
        vocabulary=vocabulary,
        states={state: after(state) for state in traced.states},
        outputs=traced.outputs,
    )

    def original(_: Any, declared: Declaration, first: Mapping[str, Array]) -> Source:
        if traced.source is not None:
            return traced.source
        name = f"torch {torch.__version__.partition('+')[0]} (exported program)"
        return OnnxSource(_ProgramSession(traced), declared, first, name)

    return import_graph(data, graph, declaration, target, place=place, initial=traced.initial, source=original)


def program_graph(traced: Traced, place: str) -> bytes:
    """Returns the ONNX model, with the names of the inputs, the states and the outputs, and the states' with _out."""
    program, inputs, states, outputs = traced.program, traced.inputs, traced.states, traced.outputs
    signature = program.graph_signature
    came = (len(signature.user_inputs), len(signature.user_outputs))
    expected = (len(inputs) + len(states), len(outputs) + len(states))
    if not states or came != expected:
        raise ImportRefused(
            place,
            f"got {came[0]} inputs, {came[1]} outputs and the states {list(states)}, expected (x, *states) -> "
            "(y, *states); pass the states' names in the order of the program's arguments, such as states=('h', 'c')",
        )
    _refuse_nested(program, place)
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportRefused(place, "needs onnxscript, which is not installed; install cellkeeper[torch-export]")
    ours = [*inputs, *states, *outputs, *map(after, states)]
    twice = next((name for name in ours if ours.count(name) > 1), None)
    if twice is not None:
        raise ImportRefused(
            place, f"{twice}: the name of two inputs, states or outputs; rename that argument of forward"
        )
    _without_aliases(program)
    program = _without_projections(program)
    # the exporter calls inner values after operators ("cat", "mul"), and gives inputs and outputs the names that it is
    # told even if an inner value has them; such a graph is invalid
    names = {f"cellkeeper.{number}": name for number, name in enumerate(ours)}
    ends = len(inputs) + len(states)
    with refusing(place, "torch.onnx cannot export it", longest=LONGEST), quiet():
        try:
            made: Any = torch.onnx.export(
                program, dynamo=True, input_names=[*names][:ends], output_names=[*names][ends:], verbose=False
            )
        except Exception as error:  # torch's errors have no public base class
            lacking = _LACKING.search(str(error))
            if lacking is None and error.__cause__ is None:
                raise
            if lacking is None:  # its own text is about the exporter
                why = one_line(str(error.__cause__), LONGEST)
                raise ImportRefused(place, f"torch.onnx cannot export it ({why})") from error
            raise ImportRefused(
                place,
                f"computes {lacking[1]}, which torch.onnx has no ONNX operators for; write it with other operators, or "
                "compute it once and keep the result as a buffer if it is the same at each call (a parametrization: "
                "torch.nn.utils.parametrize.remove_parametrizations)",
            ) from error
    model = made.model_proto
    _without_origin(model)
    rename(model, names)
    return bytes(model.SerializeToString())


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Renames values of an ONNX model; inner values that have one of the new names get another."""
    graphs = list(graphs_within(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    values = [
        value for graph in graphs for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    ]
    used = {name for node in nodes for name in (*node.input, *node.output)} | {value.name for value in values}
    changed = dict(names)
    taken = used | {*names.values()}
    for name in names.values():
        if name in used:
            other = next(f"{name}.{number}" for number in range(1, len(taken) + 2) if f"{name}.{number}" not in taken)
            changed[name] = other
            taken.add(other)
    for node in nodes:
        for side in (node.input, node.output):
            side[:] = [changed.get(name, name) for name in side]
    for value in values:
        value.name = changed.get(value.name, value.name)


def _without_origin(model: Any) -> None:
    """Drops what the exporter notes of the source code at each node: file, line and class. The bytes of the graph are
    part of the model's fingerprint, which must not depend on the folder that the code is in."""
    for part in (model.graph, *model.functions):
        for graph in graphs_within(part):
            for node in graph.node:
                node.ClearField("metadata_props")
                node.ClearField("doc_string")


def _without_aliases(program: ExportedProgram) -> None:
    """Replaces operators by those of which they are another name.

    torch.onnx converts integers that meet floats only for the latter; Keras calls the former, as for `x * 2`.
    """
    aten = torch.ops.aten
    same = {
        aten.multiply.Tensor: aten.mul.Tensor,
        aten.divide.Tensor: aten.div.Tensor,
        aten.true_divide.Tensor: aten.div.Tensor,
        aten.subtract.Tensor: aten.sub.Tensor,
        aten.greater.Tensor: aten.gt.Tensor,
        aten.greater_equal.Tensor: aten.ge.Tensor,
        aten.less.Tensor: aten.lt.Tensor,
        aten.less_equal.Tensor: aten.le.Tensor,
        aten.not_equal.Tensor: aten.ne.Tensor,
    }
    for node in program.graph.nodes:
        node.target = same.get(node.target, node.target)


def _without_projections(program: ExportedProgram) -> ExportedProgram:
    """Splits each LSTM that has a projection into simpler operators: torch.onnx exports it as ONNX' LSTM, which has
    none."""
    lstm = torch.ops.aten.lstm.input

    def projected(node: Any) -> bool:
        """A layer has four weights, or two without biases; a projection is one more."""
        if node.target is not lstm:
            return False
        _, _, weights, biases, layers, _, _, directions = node.args[:8]
        return bool(len(weights) != layers * (2 if directions else 1) * (4 if biases else 2))

    if not any(projected(node) for node in program.graph.nodes):
        return program
    with quiet():
        split: ExportedProgram = program.run_decompositions(get_decompositions([lstm]))
    return split


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the exporters' output and warnings, such as missing optional packages and dumps of programs."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _children(spec: Any) -> Sequence[Any]:
    """Returns a TreeSpec's children; torch warns about the older name if it has the newer one."""
    children: Sequence[Any] = spec.children() if hasattr(spec, "children") else spec.children_specs
    return children


def _refuse_nested(program: ExportedProgram, place: str) -> None:
    """Raises ImportRefused for tensors inside tuples, lists or dicts, or passed by keyword: they have no names."""
    inputs, keywords = _children(program.call_spec.in_spec)
    outputs = program.call_spec.out_spec
    flat = all(child.is_leaf() for child in (*_children(inputs), *_children(outputs)))
    if not flat or _children(keywords) or outputs.type not in (tuple, list):
        raise ImportRefused(
            place,
            "takes or gives tensors within tuples or dicts, or by keyword; wrap it in a module whose forward takes "
            "(x, h, c) and returns (y, h, c), one tensor each, and export that",
        )


class _ProgramSession:
    """Runs the program in place of the graph that was made from it."""

    def __init__(self, traced: Traced) -> None:
        self._module: Any = traced.program.module()
        self._names = (*traced.inputs, *traced.states)

    def run(self, _: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad():
            results = self._module(*(torch.from_numpy(np.array(feeds[name])) for name in self._names))
        return [value.numpy() for value in results]
