"""Writes a stack's recurrent layers as ONNX nodes.

A layer becomes one of ONNX's own operators or a Scan or, if its cell has activations that these lack, the nodes of one
time step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cellkeeper_service.engine.graph import RNN_ACTIVATIONS
from cellkeeper_service.engine.graph_functions import write_activation
from cellkeeper_service.engine.graph_rnn import write_rnn
from cellkeeper_service.engine.graph_writer import GraphWriter, Value

from .stack import KERAS_2_HARD_SIGMOID, USUAL, Recurrent

_OPS = {
    "linear": "Affine",
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    KERAS_2_HARD_SIGMOID: "HardSigmoid",
    "softsign": "Softsign",
}
_NUMBERS = {  # activation_alpha and activation_beta
    "linear": (1.0, 0.0),
    "hard_sigmoid": (1 / 6, 0.5),
    KERAS_2_HARD_SIGMOID: (0.2, 0.5),
}


def written_out(layer: Recurrent) -> bool:
    """Returns True if no ONNX operator computes this cell, so that it is written out for one time step."""
    return any(name not in _OPS for name in layer.activations)


def write_sequence(writer: GraphWriter, layer: Recurrent, value: str, before: list[str], after: list[str]) -> str:
    """Writes [T, B, F] and the states [1, B, H] -> [T, 1, B, H]; the new states are named `after`."""
    ways = layer.activations or USUAL[layer.cell]
    sequence = f"sequence_{len(writer.nodes)}"
    if layer.cell in RNN_ACTIVATIONS:
        write_rnn(writer, layer.weights, ways[0], value, before[0], (sequence, after[0]))
        return sequence
    names = [*ways, ways[1]] if layer.cell == "lstm" else list(ways)
    attributes: dict[str, Any] = {"activations": [_OPS[name] for name in names]}
    numbers = [_NUMBERS[name] for name in names if name in _NUMBERS]
    if numbers:
        attributes["activation_alpha"] = [alpha for alpha, _ in numbers]
        attributes["activation_beta"] = [beta for _, beta in numbers]
    writer.recurrent(layer.cell, layer.weights, layer.reset_after, value, before, [sequence, *after], **attributes)
    return sequence


def write_step(writer: GraphWriter, layer: Recurrent, value: Value, before: list[str], after: list[str]) -> str:
    """Writes one time step [1, B, F] and the states [1, B, H] -> [1, B, H]; the new states are named `after`."""
    cell = _Cell(writer, layer, value, before)
    results = {"lstm": cell.lstm, "gru": cell.gru}.get(layer.cell, cell.rnn)()
    for result, name in zip(results, after, strict=True):
        writer.node("Identity", [writer.narrow(result)], name=name)
    return after[0]


class _Cell:
    """Writes one cell. Values are padded to whole vectors: [1, B, columns]."""

    def __init__(self, writer: GraphWriter, layer: Recurrent, value: Value, before: list[str]) -> None:
        self._writer, self._layer, self._value = writer, layer, value
        size = layer.hidden_size
        self._states = [writer.padded(Value(name, size, size)) for name in before]
        self._ways = layer.activations or USUAL[layer.cell]

    def lstm(self) -> list[Value]:
        h, c = self._states
        i, f, g, o = (
            self._sum(self._product("ih", gate, self._value), self._product("hh", gate, h)) for gate in range(4)
        )
        i, f, o = (self._apply(0, gate) for gate in (i, f, o))
        kept = self._sum(self._times(f, c), self._times(i, self._apply(1, g)))
        return [self._times(o, self._apply(1, kept)), kept]

    def gru(self) -> list[Value]:
        (h,) = self._states
        into = [self._product("ih", gate, self._value) for gate in range(3)]
        r, z = (self._apply(0, self._sum(into[gate], self._product("hh", gate, h))) for gate in range(2))
        if self._layer.reset_after:
            again = self._times(r, self._product("hh", 2, h))
        else:
            again = self._product("hh", 2, self._times(r, h))
        n = self._apply(1, self._sum(into[2], again))
        moved = self._times(z, h._replace(name=self._writer.node("Sub", [h.name, n.name])))
        return [self._sum(n, moved)]

    def rnn(self) -> list[Value]:
        (h,) = self._states
        return [self._apply(0, self._sum(self._product("ih", 0, self._value), self._product("hh", 0, h)))]

    def _product(self, side: str, gate: int, value: Value) -> Value:
        """Writes one gate's product, with its bias."""
        layer, size = self._layer, self._layer.hidden_size
        rows = slice(gate * size, (gate + 1) * size)
        bias = layer.weights.get(f"bias_{side}")
        weight = np.asarray(layer.weights[f"weight_{side}"], np.float32)[rows]
        return self._writer.dense(value, weight, None if bias is None else np.asarray(bias, np.float32)[rows])

    def _apply(self, way: int, value: Value) -> Value:
        return write_activation(self._writer, value, self._ways[way])

    def _sum(self, one: Value, other: Value) -> Value:
        return one._replace(name=self._writer.node("Add", [one.name, other.name]))

    def _times(self, one: Value, other: Value) -> Value:
        return one._replace(name=self._writer.node("Mul", [one.name, other.name]))
