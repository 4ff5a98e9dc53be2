"""Writes a stack that no RecurrentConfig can express as an ONNX graph (input, states) -> (prediction, hidden, states).

Internally, values are [T, B, width]. The layout is "time_first". It is "step" if the stack has masks, because each time
step then decides which states it keeps unchanged; if it has convolutions; or if a cell is written out for one time
step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from cellkeeper_service.engine.graph_functions import write_activation, write_transform
from cellkeeper_service.engine.graph_writer import GraphWriter, Value
from cellkeeper_service.model.config import Features, GraphConfig, GraphOutput, GraphState, Tokens

from .graph_cells import write_sequence, write_step, written_out
from .stack import (
    INPUT,
    Activate,
    Affine,
    Array,
    CausalConv,
    Convert,
    Dense,
    Embed,
    LayerNorm,
    Mask,
    Merge,
    Normalize,
    ParametricRelu,
    Recurrent,
    Stack,
    Unmask,
)

_MERGES = {"add": "Sum", "subtract": "Sub", "multiply": "Mul", "average": "Mean", "maximum": "Max", "minimum": "Min"}


def stack_graph(stack: Stack, name: str) -> tuple[GraphConfig, dict[str, Array], bytes]:
    """Returns the graph's config, the initial states that are not zeros, and the graph.

    The stack must have passed widths.check, and have no projection.
    """
    return _Builder(stack).build(name)


@dataclass
class _Builder:
    stack: Stack
    writer: GraphWriter = field(default_factory=GraphWriter)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    states: list[GraphState] = field(default_factory=list)
    initial: dict[str, Array] = field(default_factory=dict)
    mask: str = ""  # bool [1, B, 1]: false for sessions that skip this time step

    def build(self, model: str) -> tuple[GraphConfig, dict[str, Array], bytes]:
        stack, writer = self.stack, self.writer
        step = stack.masked or bool(stack.convolutions) or any(map(written_out, stack.recurrent))
        lead: list[Any] = ["B"] if step else ["T", "B"]
        tokens = bool(stack.vocabulary)
        self._declare("input", lead if tokens else [*lead, stack.size], tokens)
        first = writer.node("Unsqueeze", ["input", writer.axes(0)]) if step else "input"
        values = {INPUT: Value(first, max(stack.size, 1), max(stack.size, 1))}
        hidden = values[INPUT]
        for number, layer in enumerate(stack.layers):
            taken = [values[source] for source in stack.sources_of(number)]
            values[number] = self._merge(layer, taken) if isinstance(layer, Merge) else self._layer(layer, *taken)
            hidden = values[number] if isinstance(layer, Recurrent | CausalConv) else hidden
        prediction = values[len(stack.layers) - 1]
        for name, result in (("prediction", prediction), ("hidden", hidden)):
            whole = writer.narrow(result)
            writer.node(*(("Squeeze", [whole, writer.axes(0)]) if step else ("Identity", [whole])), name=name)
            self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [*lead, result.width]))
        config = GraphConfig(
            name=model,
            graph="model.onnx",
            layout="step" if step else "time_first",
            input_name="input",
            input=Tokens(stack.vocabulary, 0) if tokens else Features(stack.size, None, stack.missing),
            states=tuple(self.states),
            outputs=(
                GraphOutput("prediction", "prediction", (prediction.width,)),
                GraphOutput("hidden", "hidden", (hidden.width,)),
            ),
            constants=(),
        )
        return config, self.initial, writer.model("stack", self.inputs, self.outputs)

    def _layer(self, layer: Any, value: Value) -> Value:
        writer = self.writer
        match layer:
            case Embed():
                if layer.mask_zero:
                    zero = writer.constant(np.zeros(1), "int32")
                    kept = writer.node("Not", [writer.node("Equal", [value.name, zero])])
                    self.mask = writer.node("Unsqueeze", [kept, writer.axes(2)])
                size = layer.weight.shape[1]
                return Value(writer.node("Gather", [writer.constant(layer.weight), value.name], axis=0), size, size)
            case Normalize():
                moved = writer.node("Sub", [value.name, writer.vector(layer.offset, value.columns)])
                scaled = writer.node("Div", [moved, writer.vector(layer.scale, value.columns, 1.0)])
                if layer.stand_ins is not None:
                    raw, instead = layer.stand_ins
                    if isinstance(raw, tuple):  # no value equals the NaN in the columns of the padding
                        before = writer.vector(np.array(raw), value.columns, np.nan)
                    else:
                        before = writer.number(raw)
                    after = writer.number(instead)
                    scaled = writer.node("Where", [writer.node("Equal", [value.name, before]), after, scaled])
                return value._replace(name=scaled)
            case Affine():
                scaled = writer.node("Mul", [value.name, writer.vector(layer.scale, value.columns)])
                return value._replace(name=writer.node("Add", [scaled, writer.vector(layer.offset, value.columns)]))
            case LayerNorm():
                return self._layer_norm(layer, value)
            case Dense():
                return write_activation(writer, writer.dense(value, layer.weight, layer.bias), layer.activation)
            case Activate():
                return write_activation(writer, value, layer.op, layer.slope)
            case ParametricRelu():
                value = writer.padded(value)
                slope = writer.vector(np.broadcast_to(layer.slope, (value.width,)), value.columns)
                return value._replace(name=writer.node("PRelu", [value.name, slope]))
            case Convert():
                return write_transform(writer, value, layer.transform)
            case Mask():
                return self._masking(layer, value)
            case Unmask():
                self.mask = ""
                return value
            case CausalConv():
                return self._convolution(layer, value)
            case _:
                return self._recurrent(layer, value)

    def _merge(self, layer: Merge, taken: list[Value]) -> Value:
        writer = self.writer
        if layer.op == "concatenate":
            width = sum(value.width for value in taken)
            return Value(writer.node("Concat", [writer.narrow(value) for value in taken], axis=2), width, width)
        alike = [writer.padded(value) for value in taken]
        return alike[0]._replace(name=writer.node(_MERGES[layer.op], [value.name for value in alike]))

    def _layer_norm(self, layer: LayerNorm, value: Value) -> Value:
        writer, width = self.writer, value.width
        scale = np.ones(width) if layer.scale is None else layer.scale
        inputs = [writer.narrow(value), writer.vector(scale, width)]
        if layer.offset is not None:
            inputs.append(writer.vector(layer.offset, width))
        return Value(writer.node("LayerNormalization", inputs, axis=2, epsilon=layer.epsilon), width, width)

    def _convolution(self, layer: CausalConv, value: Value) -> Value:
        """Writes one product over the window's inputs of one time step, like a dense layer's."""
        writer, (units, kernel, width) = self.writer, layer.weight.shape
        name = f"past_{sum(state.name.startswith('past') for state in self.states)}"
        self._declare(name, [layer.reach, "B", width])
        after = f"{name}_out"
        self.outputs.append(helper.make_tensor_value_info(after, TensorProto.FLOAT, [layer.reach, "B", width]))
        self.states.append(GraphState(name, name, after, (layer.reach, width), 1))
        window = writer.node("Concat", [name, writer.narrow(value)], axis=0)
        writer.node("Slice", [window, writer.axes(1), writer.axes(layer.reach + 1), writer.axes(0)], name=after)
        taps = writer.node("Gather", [window, writer.axes(*range(0, layer.reach + 1, layer.dilation))], axis=0)
        rows = writer.node("Transpose", [taps], perm=[1, 0, 2])
        flat = writer.node("Reshape", [rows, writer.axes(1, -1, kernel * width)])
        weight = layer.weight.reshape(units, kernel * width)
        return writer.dense(Value(flat, kernel * width, kernel * width), weight, layer.bias)

    def _masking(self, layer: Mask, value: Value) -> Value:
        writer = self.writer
        whole = writer.narrow(value)
        same = writer.node("Equal", [whole, writer.number(layer.value)])
        # a time step counts if any feature differs; not every runtime has Min over booleans
        equal = writer.node("ReduceMin", [writer.node("Cast", [same], to=TensorProto.FLOAT)], axes=[2], keepdims=1)
        self.mask = writer.node("Less", [equal, writer.number(0.5)])
        zeros = writer.constant(np.zeros(1))
        return Value(writer.node("Where", [self.mask, whole, zeros]), value.width, value.width)

    def _recurrent(self, layer: Recurrent, value: Value) -> Value:
        writer = self.writer
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
        if written_out(layer):
            output = write_step(writer, layer, value, before, fresh)
        else:
            sequence = write_sequence(writer, layer, writer.narrow(value), before, fresh)
            output = writer.node("Squeeze", [sequence, writer.axes(1)])
        if self.mask:
            for old, new, out in zip(before, fresh, after, strict=True):
                writer.node("Where", [self.mask, new, old], name=out)
            left = writer.constant(np.zeros(1)) if layer.zero_masked else before[0]
            output = writer.node("Where", [self.mask, output, left])
        return Value(output, layer.hidden_size, layer.hidden_size)

    def _declare(self, name: str, shape: list[Any], tokens: bool = False) -> None:
        kind = TensorProto.INT32 if tokens else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
