"""Builds the ONNX graph of a recurrent bundle: (input, state) -> (prediction, hidden, next), with everything inside.

input       float32 [T, B, F], or int32 [T, B] token ids
state, next float32 [B, S]: the tensors of a checkpoint one after another, each [layers, width]
prediction  float32 [T, B, units]
hidden      float32 [T, B, width]: the top layer
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Features, RecurrentConfig, Transform
from cellkeeper_service.model.tensors import cell_states

from .activation_nodes import activation_node

OPSET = 17  # with IR version 8: read by every onnxruntime since 1.12
IR_VERSION = 8

# Every row of the head starts at a multiple of this many floats, so that vectorized kernels treat an element
# the same way at any row of the batch (docs/adr/101-head-columns.md).
COLUMNS = 16

# PyTorch's gates are i, f, g, o and r, z, n; ONNX has i, o, f, c and z, r, h
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def build_graph(bundle: Bundle, columns: int = COLUMNS) -> bytes:
    """Returns the serialized ONNX model. The bundle must have a RecurrentConfig without projection."""
    config = bundle.config
    if not isinstance(config, RecurrentConfig) or config.proj_size:
        raise ValueError(f"no ONNX graph for {config.name}: ONNX cells have no projection")
    return _Graph(config, bundle.tensors, columns).build()


class _Graph:
    """Collects nodes and constants. Most methods return the name of the value that they make."""

    def __init__(self, config: RecurrentConfig, tensors: dict[str, Array], columns: int) -> None:
        self._config = config
        self._tensors = tensors
        self._columns = columns
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> bytes:
        config = self._config
        tokens = not isinstance(config.input, Features)
        hidden, after = self._layers(self._input())
        self._node("Identity", [hidden], name="hidden")
        self._node("Identity", [after], name="next")
        self._node("Identity", [self._prediction(hidden)], name="prediction")
        width = sum(state.nbytes // 4 for state in cell_states(config))
        graph = helper.make_graph(
            self._nodes,
            config.cell,
            [
                helper.make_tensor_value_info(
                    "input",
                    TensorProto.INT32 if tokens else TensorProto.FLOAT,
                    ["T", "B"] if tokens else ["T", "B", config.input_size],
                ),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, ["B", width]),
            ],
            [
                helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["T", "B", config.output_size]),
                helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["T", "B", config.recurrent_size]),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, ["B", width]),
            ],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cellkeeper"
        )
        return bytes(model.SerializeToString())

    def _node(self, op: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        output = name or f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, value: Array, dtype: str = "float32") -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def _axes(self, *axes: int) -> str:
        return self._constant(np.array(axes), "int64")

    def _input(self) -> str:
        source = self._config.input
        if not isinstance(source, Features):
            return self._node("Gather", [self._constant(self._tensors["embedding.weight"]), "input"], axis=0)
        if source.normalization is None:
            return "input"
        moved = self._node("Sub", ["input", self._constant(np.array(source.normalization.offset))])
        return self._node("Div", [moved, self._constant(np.array(source.normalization.scale))])

    def _layers(self, values: str) -> tuple[str, str]:
        """Adds the layers. Returns the names of the top layer [T, B, H] and of the new state [B, S]."""
        config = self._config
        count = config.num_layers * len(cell_states(config))
        before = [f"before_{i}" for i in range(count)]
        after = [f"after_{i}" for i in range(count)]
        spread = self._node("Unsqueeze", ["state", self._axes(0)])
        if count == 1:
            before = [spread]
        else:
            sizes = self._axes(*[config.hidden_size] * count)
            self._nodes.append(helper.make_node("Split", [spread, sizes], before, axis=2))
        for layer in range(config.num_layers):
            mine = slice(layer, None, config.num_layers)
            sequence = f"layer_{layer}"
            self._nodes.append(self._cell(layer, values, before[mine], [sequence, *after[mine]]))
            values = self._node("Squeeze", [sequence, self._axes(1)])
        joined = after[0] if count == 1 else self._node("Concat", after, axis=2)
        return values, self._node("Squeeze", [joined, self._axes(0)])

    def _cell(self, layer: int, values: str, states: list[str], outputs: list[str]) -> Any:
        config = self._config
        inputs = [values, *(self._gates(f"rnn.weight_{side}_l{layer}") for side in ("ih", "hh"))]
        if config.bias:
            both = [self._ordered(f"rnn.bias_{side}_l{layer}") for side in ("ih", "hh")]
            inputs.append(self._constant(np.concatenate(both)[None]))
        else:
            inputs.append("")
        attributes: dict[str, Any] = {"hidden_size": config.hidden_size}
        if config.cell == "gru":
            attributes["linear_before_reset"] = int(config.reset_after)
        elif config.cell != "lstm":
            attributes["activations"] = ["Tanh" if config.cell == "rnn_tanh" else "Relu"]
        op = {"lstm": "LSTM", "gru": "GRU"}.get(config.cell, "RNN")
        return helper.make_node(op, [*inputs, "", *states], outputs, **attributes)

    def _ordered(self, name: str) -> Array:
        """Returns a tensor with its gates in ONNX's order."""
        gates = np.split(self._tensors[name], self._config.gates)
        return np.concatenate([gates[i] for i in _GATES[self._config.cell]])

    def _gates(self, name: str) -> str:
        return self._constant(self._ordered(name)[None])

    def _prediction(self, values: str) -> str:
        config = self._config
        if not config.head and not config.output:
            return values
        width, columns = config.recurrent_size, config.recurrent_size
        for i, dense in enumerate(config.head):
            padded = -(-dense.units // self._columns) * self._columns
            weight = np.zeros((columns, padded), np.float32)
            weight[:width, : dense.units] = self._tensors[f"head.{i}.weight"].T
            values = self._node("MatMul", [values, self._constant(weight)])
            if dense.bias:
                bias = np.zeros(padded, np.float32)
                bias[: dense.units] = self._tensors[f"head.{i}.bias"]
                values = self._node("Add", [values, self._constant(bias)])
            if dense.activation != "linear":
                values = activation_node(
                    dense.activation, values, self._node, lambda value: self._constant(np.array(value))
                )
            width, columns = dense.units, padded
        if not config.head and width % self._columns:
            columns = -(-width // self._columns) * self._columns
            values = self._node("Pad", [values, self._axes(0, 0, 0, 0, 0, columns - width)])
        for transform in config.output:
            if transform.op == "softmax" and columns > width:
                values, columns = self._narrow(values, width), width
            values = self._transform(transform, values, width, columns)
        return values if columns == width else self._narrow(values, width)

    def _narrow(self, values: str, width: int) -> str:
        return self._node("Slice", [values, self._axes(0), self._axes(width), self._axes(2)])

    def _transform(self, transform: Transform, values: str, width: int, columns: int) -> str:
        if transform.op == "softmax":
            return self._node("Softmax", [values], axis=2)
        if transform.op == "exp":
            return self._node("Exp", [values])
        if transform.op == "sinh":
            return self._node("Sinh", [values])
        if transform.op == "expm1":  # 2 sinh(x/2) exp(x/2), because exp(x) - 1 loses digits near 0
            half = self._node("Mul", [values, self._constant(np.array(0.5))])
            product = self._node("Mul", [self._node("Sinh", [half]), self._node("Exp", [half])])
            return self._node("Mul", [product, self._constant(np.array(2.0))])
        value = np.zeros(columns, np.float32)
        value[:width] = 0.0 if transform.value is None else transform.value
        op = {"scale": "Mul", "offset": "Add", "clip_min": "Max"}[transform.op]
        return self._node(op, [values, self._constant(value)])
