"""A stack as an ONNX graph (input, states) -> (prediction, hidden, states), for what no RecurrentConfig can say.

Within, values are [T, B, width]. Without masks the layout is "time_first"; with them it is "step", for then each time
step decides by itself which states it leaves as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cellkeeper_service.model.config import GraphOutput, GraphState, Transform

from .stack import USUAL, Activate, Affine, Array, Convert, Dense, Embed, Mask, Normalize, Recurrent, Stack

OPSET = 17
IR_VERSION = 8
COLUMNS = 16  # as in engine/graph.py: every row of a dense layer starts at a multiple of a vector

_OPS = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exponential": "Exp",
    "exp": "Exp",
    "sinh": "Sinh",
}
_CELL_OPS = {"linear": "Affine", "hard_sigmoid": "HardSigmoid"}
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}  # PyTorch's to ONNX's order


class StackGraph(NamedTuple):
    """initial: "initial.<state>", where it is not zeros."""

    model: bytes
    layout: str
    states: tuple[GraphState, ...]
    outputs: tuple[GraphOutput, ...]
    initial: dict[str, Array]


class _Value(NamedTuple):
    """[T, B, columns], of which the first `width` mean something."""

    name: str
    width: int
    columns: int


def stack_graph(stack: Stack) -> StackGraph:
    """The stack has passed widths.check, and has no projection."""
    return _Builder(stack).build()


@dataclass
class _Builder:
    stack: Stack
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    states: list[GraphState] = field(default_factory=list)
    initial: dict[str, Array] = field(default_factory=dict)
    mask: str = ""  # bool [1, B, 1]: false for sessions that leave this time step out

    def build(self) -> StackGraph:
        step = self.stack.masked
        lead: list[Any] = ["B"] if step else ["T", "B"]
        tokens = bool(self.stack.vocabulary)
        self._declare("input", lead if tokens else [*lead, self.stack.size], tokens)
        name = self._node("Unsqueeze", ["input", self._axes(0)]) if step else "input"
        value = _Value(name, max(self.stack.size, 1), max(self.stack.size, 1))
        hidden = value
        for layer in self.stack.layers:
            value = self._layer(layer, value)
            hidden = value if isinstance(layer, Recurrent) else hidden
        for name, result in (("prediction", value), ("hidden", hidden)):
            whole = self._narrow(result)
            self._node(*(("Squeeze", [whole, self._axes(0)]) if step else ("Identity", [whole])), name=name)
            self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [*lead, result.width]))
        graph = helper.make_graph(self.nodes, "stack", self.inputs, self.outputs, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cellkeeper"
        )
        return StackGraph(
            bytes(model.SerializeToString()),
            "step" if step else "time_first",
            tuple(self.states),
            (GraphOutput("prediction", "prediction", (value.width,)), GraphOutput("hidden", "hidden", (hidden.width,))),
            self.initial,
        )

    def _layer(self, layer: Any, value: _Value) -> _Value:
        match layer:
            case Embed():
                if layer.mask_zero:
                    kept = self._node("Not", [self._node("Equal", [value.name, self._constant(np.zeros(1), "int32")])])
                    self.mask = self._node("Unsqueeze", [kept, self._axes(2)])
                size = layer.weight.shape[1]
                return _Value(self._node("Gather", [self._constant(layer.weight), value.name], axis=0), size, size)
            case Normalize():
                moved = self._node("Sub", [value.name, self._vector(layer.offset, value.columns)])
                return value._replace(name=self._node("Div", [moved, self._vector(layer.scale, value.columns, 1.0)]))
            case Affine():
                scaled = self._node("Mul", [value.name, self._vector(layer.scale, value.columns)])
                return value._replace(name=self._node("Add", [scaled, self._vector(layer.offset, value.columns)]))
            case Dense():
                return self._activate(self._dense(layer, value), layer.activation)
            case Activate():
                return self._activate(value, layer.op, layer.slope)
            case Convert():
                return self._convert(layer.transform, value)
            case Mask():
                return self._masking(layer, value)
            case _:
                return self._recurrent(layer, value)

    def _dense(self, layer: Dense, value: _Value) -> _Value:
        units = len(layer.weight)
        padded = -(-units // COLUMNS) * COLUMNS
        weight = np.zeros((value.columns, padded), np.float32)
        weight[: value.width, :units] = layer.weight.T
        name = self._node("MatMul", [value.name, self._constant(weight)])
        if layer.bias is not None:
            name = self._node("Add", [name, self._vector(layer.bias, padded)])
        return _Value(name, units, padded)

    def _activate(self, value: _Value, op: str, slope: float = 1.0) -> _Value:
        if op == "linear":
            return value
        if op == "softmax":
            return _Value(self._node("Softmax", [self._narrow(value)], axis=2), value.width, value.width)
        value = self._padded(value)
        if op in ("leaky_relu", "elu"):
            name = self._node("LeakyRelu" if op == "leaky_relu" else "Elu", [value.name], alpha=slope)
        elif op == "hard_sigmoid":
            name = self._node("HardSigmoid", [value.name], alpha=1 / 6, beta=0.5)
        else:
            name = self._node(_OPS[op], [value.name])
        return value._replace(name=name)

    def _convert(self, transform: Transform, value: _Value) -> _Value:
        if transform.op in ("softmax", "exp", "sinh"):
            return self._activate(value, transform.op)
        value = self._padded(value)
        if transform.op == "expm1":  # 2 sinh(x/2) exp(x/2): exp(x) - 1 would lose the digits near 0
            half = self._node("Mul", [value.name, self._constant(np.array(0.5))])
            product = self._node("Mul", [self._node("Sinh", [half]), self._node("Exp", [half])])
            return value._replace(name=self._node("Mul", [product, self._constant(np.array(2.0))]))
        numbers = np.broadcast_to(np.asarray(transform.value, np.float32), (value.width,))
        op = {"scale": "Mul", "offset": "Add", "clip_min": "Max"}[transform.op]
        return value._replace(name=self._node(op, [value.name, self._vector(numbers, value.columns)]))

    def _masking(self, layer: Mask, value: _Value) -> _Value:
        whole = self._narrow(value)
        same = self._node("Equal", [whole, self._constant(np.array(layer.value))])
        # a time step counts where any feature differs; Min over booleans is not there in every runtime
        equal = self._node("ReduceMin", [self._node("Cast", [same], to=TensorProto.FLOAT)], axes=[2], keepdims=1)
        self.mask = self._node("Less", [equal, self._constant(np.array(0.5))])
        zeros = self._constant(np.zeros(1))
        return _Value(self._node("Where", [self.mask, whole, zeros]), value.width, value.width)

    def _recurrent(self, layer: Recurrent, value: _Value) -> _Value:
        number = len([state for state in self.states if state.name.startswith("h")])
        kinds = ("h", "c") if layer.cell == "lstm" else ("h",)
        before = [f"{kind}_{number}" for kind in kinds]
        after = [f"{name}_out" for name in before]
        for kind, name, out in zip(kinds, before, after, strict=True):
            self._declare(name, [1, "B", layer.hidden_size])
            self.outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, "B", layer.hidden_size]))
            self.states.append(GraphState(name, name, out, (1, layer.hidden_size), 1))
            if kind in layer.initial:
                self.initial[f"initial.{name}"] = layer.initial[kind][None]
        fresh = [f"{name}_new" for name in before] if self.mask else after
        sequence = self._cell(layer, self._narrow(value), before, fresh)
        output = self._node("Squeeze", [sequence, self._axes(1)])
        if self.mask:
            for old, new, out in zip(before, fresh, after, strict=True):
                self._node("Where", [self.mask, new, old], name=out)
            left = self._constant(np.zeros(1)) if layer.zero_masked else before[0]
            output = self._node("Where", [self.mask, output, left])
        return _Value(output, layer.hidden_size, layer.hidden_size)

    def _cell(self, layer: Recurrent, value: str, before: list[str], after: list[str]) -> str:
        weights = {name: self._ordered(layer, name) for name in layer.weights}
        inputs = [value, *(self._constant(weights[f"weight_{side}"][None]) for side in ("ih", "hh"))]
        has_bias = "bias_ih" in weights
        inputs.append(
            self._constant(np.concatenate([weights["bias_ih"], weights["bias_hh"]])[None]) if has_bias else ""
        )
        attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if layer.cell == "gru":
            attributes["linear_before_reset"] = int(layer.reset_after)
        ways = layer.activations or USUAL[layer.cell]
        names = [*ways, ways[1]] if layer.cell == "lstm" else list(ways)
        attributes["activations"] = [_CELL_OPS.get(name) or _OPS[name] for name in names]
        numbers = [{"linear": (1.0, 0.0), "hard_sigmoid": (1 / 6, 0.5)}[name] for name in names if name in _CELL_OPS]
        if numbers:
            attributes["activation_alpha"] = [alpha for alpha, _ in numbers]
            attributes["activation_beta"] = [beta for _, beta in numbers]
        op = {"lstm": "LSTM", "gru": "GRU"}.get(layer.cell, "RNN")
        sequence = f"sequence_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [*inputs, "", *before], [sequence, *after], **attributes))
        return sequence

    def _ordered(self, layer: Recurrent, name: str) -> Array:
        order = _GATES[layer.cell]
        gates = np.split(np.asarray(layer.weights[name], np.float32), len(order))
        return np.concatenate([gates[i] for i in order])

    def _narrow(self, value: _Value) -> str:
        if value.columns == value.width:
            return value.name
        return self._node("Slice", [value.name, self._axes(0), self._axes(value.width), self._axes(2)])

    def _padded(self, value: _Value) -> _Value:
        """Vectorised kernels treat an element the same wherever its session lies in the batch only in whole vectors."""
        columns = -(-value.columns // COLUMNS) * COLUMNS
        if columns == value.columns:
            return value
        pads = self._axes(0, 0, 0, 0, 0, columns - value.columns)
        return _Value(self._node("Pad", [value.name, pads]), value.width, columns)

    def _declare(self, name: str, shape: list[Any], tokens: bool = False) -> None:
        kind = TensorProto.INT32 if tokens else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def _node(self, op: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        output = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, value: Array, dtype: str = "float32") -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name))
        return name

    def _vector(self, value: Array, columns: int, rest: float = 0.0) -> str:
        filled = np.full(columns, rest, np.float32)
        filled[: len(value)] = value
        return self._constant(filled)

    def _axes(self, *axes: int) -> str:
        return self._constant(np.array(axes), "int64")
