"""Refuses graphs whose work depends, without a bound, on values that clients send: Loop iterations, tensor sizes.

One request could block the engine or fill the memory for everybody. The trial cannot find that, because it does not
know which values to send. Shapes do no harm: the sizes of messages and batches bound them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import inliner

from cellkeeper_service.errors import StartError

from .batch_axis.constants import fold, small
from .batch_axis.shapes import bodies

MOST_TURNS = 4096
"""The most iterations of a Loop that ends after a constant number of them, unless a client's values end it earlier."""
SIZED_BY: Mapping[str, slice] = {
    "Range": slice(0, 3),
    "ConstantOfShape": slice(0, 1),
    "Expand": slice(1, 2),
    "Tile": slice(1, 2),
    "OneHot": slice(1, 2),
    "Pad": slice(1, 2),
    "Resize": slice(1, 4),  # before opset 11, input 1 is the scales
    "Upsample": slice(1, 2),
    "AffineGrid": slice(1, 2),
    "CenterCropPad": slice(1, 2),
    "Col2Im": slice(1, 3),
    "CropAndResize": slice(3, 4),
    "DFT": slice(1, 2),
    "MaxUnpool": slice(2, 3),
    "MelWeightMatrix": slice(0, 5),
    "BlackmanWindow": slice(0, 1),
    "HammingWindow": slice(0, 1),
    "HannWindow": slice(0, 1),
    "STFT": slice(1, 4, 2),  # the step between frames, and their length
}
"""By operator: the inputs whose values decide the size of the result. Others' results are not much larger than their
inputs."""
SHAPES = ("Shape", "Size")


def refuse_unbounded(model: Any, values: Iterable[str], place: str) -> None:
    """Raises StartError for a graph with unbounded work.

    model: an onnx.ModelProto that onnxruntime has accepted. values: the graph's inputs that clients control, including
    states.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    _Scope(place, model, set(values)).read(model.graph)


@dataclass
class _Scope:
    """What is known about the names in a graph of the model. sent: those whose values depend on what clients send.
    constants: small numpy arrays by name."""

    place: str
    model: Any
    sent: set[str]
    constants: dict[str, Any] = field(default_factory=dict)

    def within(self) -> _Scope:
        """Returns a copy for a graph inside a node, which sees the names around it."""
        return _Scope(self.place, self.model, set(self.sent), dict(self.constants))

    def take(self, name: str, sent: bool) -> None:
        """Notes a name of this graph, which hides the same name of the graph around it."""
        self.sent.discard(name)
        self.constants.pop(name, None)
        if sent:
            self.sent.add(name)

    def read(self, graph: Any) -> None:
        """Checks the graph's nodes and notes their names, in topological order, as ONNX requires."""
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        for node in graph.node:
            if node.op_type == "Loop":
                self._loop(node)
            else:
                self._ordinary(node)

    def _ordinary(self, node: Any) -> None:
        sent = bool(self.sent & set(node.input))
        for body in bodies(node):
            inner = self.within()
            for value in body.input:  # of Scan, which iterates over the slices of its inputs
                inner.take(value.name, True)
            inner.read(body)
            sent |= bool(inner.sent & {value.name for value in body.output})
        deciding = [name for name in node.input[SIZED_BY.get(node.op_type, slice(0))] if name in self.sent]
        if deciding:
            raise StartError(
                f"{self._named(node)}: the size of its result, {deciding[0]}, depends on values that clients send, so "
                "one request could take all memory; use a fixed size, or one computed from shapes"
            )
        for name in node.output:
            self.take(name, sent and node.op_type not in SHAPES)
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            self._keep(node.output[0], node.attribute[0].t)
        else:
            fold([node], self.constants, self.model.opset_import, self.model.ir_version)

    def _keep(self, name: str, tensor: Any) -> None:
        value = small(tensor)
        if value is not None:
            self.constants[name] = value

    def _loop(self, node: Any) -> None:
        """Checks a Loop, whose number of iterations or condition must not depend on what clients send without bound."""
        (body,) = [attribute.g for attribute in node.attribute if attribute.name == "body"]
        turns, first = node.input[0], list(node.input[1:])  # first: the condition, then the loop-carried values
        sent = [name in self.sent for name in first]
        names, results = [value.name for value in body.input], [value.name for value in body.output]
        while True:  # until an iteration makes no further value depend on what clients send
            inner = self.within()
            inner.take(names[0], False)  # the iteration's number
            for name, holds in zip(names[1:], sent, strict=True):
                inner.take(name, holds)
            inner.read(body)
            after = [holds or result in inner.sent for holds, result in zip(sent, results, strict=False)]
            if after == sent:
                break
            sent = after
        self._check_turns(node, turns, ends_early=sent[0])
        for name, result in zip(node.output, results[1:], strict=True):
            self.take(name, sent[0] or turns in self.sent or result in inner.sent)

    def _check_turns(self, node: Any, turns: str, *, ends_early: bool) -> None:
        """Raises StartError if the iterations have no bound. ends_early: the condition depends on what clients send."""
        if turns in self.sent:
            raise self._unbounded(node, f"its number of iterations, {turns}, depends on values that clients send")
        if not ends_early:
            return
        if not turns:
            raise self._unbounded(node, "its condition depends on values that clients send, and nothing else ends it")
        if turns in self.constants:
            most = int(self.constants[turns].reshape(-1)[0])
            if most > MOST_TURNS:
                why = f"and otherwise it ends after {most} iterations"
                raise self._unbounded(node, f"its condition depends on values that clients send, {why}")

    def _unbounded(self, node: Any, why: str) -> StartError:
        return StartError(
            f"{self._named(node)}: {why}, so one request could block all others; limit its iterations to a constant "
            f"of up to {MOST_TURNS}, or to a number computed from shapes"
        )

    def _named(self, node: Any) -> str:
        return f"{self.place}: node {node.name or node.output[0]!r} ({node.op_type})"
