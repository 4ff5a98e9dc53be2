"""Small ONNX graphs (x, h) -> (y, h_out) that give nonsense when they are served step by step, and some that do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 2


@dataclass(frozen=True)
class Graph:
    """words: a pattern of the refusal; "" where the graph can be streamed. layout: of x and y."""

    model: bytes
    layout: str
    words: str
    state: tuple[int, ...]
    batch_axis: int
    batch: str = "free"

    def with_one_session(self) -> Graph:
        """With a batch of one baked in."""
        model = onnx.load_model_from_string(self.model)
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == "B":
                    dim.dim_value = 1
        state = (*self.state[: self.batch_axis], 1, *self.state[self.batch_axis :])
        return replace(self, model=bytes(model.SerializeToString()), state=state, batch_axis=0, batch="one")

    def config(self) -> dict[str, Any]:
        return {
            "format": "cellkeeper-bundle/1",
            "name": "m",
            "cell": "onnx",
            "graph": "model.onnx",
            "batch": self.batch,
            "layout": self.layout,
            "input": {"kind": "features", "name": "x", "size": FEATURES},
            "states": [
                {
                    "name": "h",
                    "input": "h",
                    "output": "h_out",
                    "shape": list(self.state),
                    "batch_axis": self.batch_axis,
                }
            ],
            "outputs": [{"name": "prediction", "output": "y", "shape": [FEATURES]}],
            "constants": [],
        }


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """Names are separated by spaces; "-" is one that is left out."""
    given, made = ([name.replace("-", "") for name in names.split()] for names in (inputs, outputs))
    return helper.make_node(op, given, made, name=f"{op}_{made[0]}", **attributes)


LAST = [  # h_out = h + the last time step
    node("Gather", "x last", "newest", axis=0),
    node("Add", "h newest", "h_out"),
]
STEP = [node("Add", "h x", "h_out")]


def graph(
    nodes: list[Any],
    words: str = "",
    layout: str = "time_first",
    state: tuple[int, ...] = (FEATURES,),
    batch_axis: int = 0,
    opset: int = 17,
) -> Graph:
    draw = np.random.default_rng(3)
    values: dict[str, Any] = {
        "last": np.array(-1),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "one": np.array([1]),
        "minus_one": np.array([-1]),
        "many": np.array([1 << 40]),
        "least": np.array([-(1 << 40)]),
        "halves": np.full(FEATURES, 0.5, np.float32),
        "none": np.zeros(FEATURES, np.float32),
        "units": np.ones(FEATURES, np.float32),
        "weights": np.array([[1, 3], [-2, 5]], np.int8),
        "zero_axis": np.array(0),
        "true": np.array(True),
        "false": np.array(False),
        "float_one": np.array(1.0, np.float32),
        "half": np.array(0.5, np.float32),
        "endless": np.array(1 << 62),
        "huge": np.array(2.0**55, np.float32),
        "kernel": draw.uniform(0.2, 0.5, (FEATURES, FEATURES, 3)).astype(np.float32),
    }
    for directions in (1, 2):
        for gates in (1, 3, 4):
            for which, seed in (("W", 1), ("R", 2)):
                size = (directions, gates * FEATURES, FEATURES)
                values[f"{which}{gates}{directions}"] = (
                    np.random.default_rng(seed).uniform(-0.6, 0.6, size).astype(np.float32)
                )
    used = {name for item in nodes for name in _names(item)}
    lead: list[Any] = {"step": ["B"], "time_first": ["T", "B"], "batch_first": ["B", "T"]}[layout]
    shape = [*state[:batch_axis], "B", *state[batch_axis:]]

    def value(name: str, dims: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    made = helper.make_graph(
        nodes,
        "g",
        [value("x", [*lead, FEATURES]), value("h", shape)],
        [value("y", [*lead, FEATURES]), value("h_out", shape)],
        [numpy_helper.from_array(array, name) for name, array in values.items() if name in used],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    return Graph(bytes(model.SerializeToString()), layout, words, state, batch_axis)


def _names(item: Any) -> set[str]:
    inner = [attribute.g for attribute in item.attribute if attribute.HasField("g")]
    return {*item.input, *(name for body in inner for each in body.node for name in _names(each))} | {
        output.name for body in inner for output in body.output
    }


def recurrent(op: str, direction: str, gates: int, layout: str = "time_first") -> list[Any]:
    """The state of each direction goes on as if time did."""
    ways = 2 if direction == "bidirectional" else 1
    head = [node("Unsqueeze", "x axis0", "sequence")] if layout == "step" else [node("Identity", "x", "sequence")]
    weights = f"W{gates}{ways} R{gates}{ways}"
    head.append(node(op, f"sequence {weights} - - h", "each h_out", hidden_size=FEATURES, direction=direction.encode()))
    head.append(node("ReduceSum", "each axis1", "summed", keepdims=0))
    return [*head, node("Squeeze", "summed axis0", "y") if layout == "step" else node("Identity", "summed", "y")]


def branch(name: str, *nodes: Any) -> Any:
    """A subgraph for If; `name` is what it gives."""
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def endless(turns: str = "") -> list[Any]:
    """A Loop of 2 ** 62 turns; with `turns`, of 2 ** 55 times the sum of |x|."""
    body = helper.make_graph(
        [node("Identity", "going", "going_out"), node("Tanh", "value", "value_out")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, None),
        ],
    )
    count = [
        node("ReduceL1", "x", "sum", keepdims=0),
        node("Mul", "sum huge", "scaled"),
        node("Cast", "scaled", "count", to=TensorProto.INT64),
    ]
    looped = node("Loop", "count true x" if turns else "endless true x", "looped", body=body)
    return [*(count if turns else []), looped, node("Add", "looped h", "y"), *STEP]


AHEAD = "looks ahead"
COUPLED = "rows of a batch depend on each other"
LENGTH = "chunks depend on their length"
RANDOM = "draws random numbers"

CONVOLVED = [node("Transpose", "x", "turned", perm=[1, 2, 0]), node("Transpose", "convolved", "y", perm=[2, 0, 1])]

REFUSED: dict[str, Graph] = {
    "reverse": graph(recurrent("LSTM", "reverse", 4), r"\(LSTM\): direction reverse", state=(1, 2), batch_axis=1),
    "bidirectional": graph(
        recurrent("GRU", "bidirectional", 3), r"\(GRU\): direction bidirectional", state=(2, 2), batch_axis=1
    ),
    "reverse step by step": graph(
        recurrent("RNN", "reverse", 1, "step"), r"\(RNN\): direction reverse", "step", state=(1, 2), batch_axis=1
    ),
    "mean over time": graph(
        [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean", "y"), *LAST],
        AHEAD,
    ),
    "attention over time": graph(
        [
            node("Transpose", "x", "turned", perm=[1, 2, 0]),
            node("Transpose", "x", "rows", perm=[1, 0, 2]),
            node("MatMul", "rows turned", "scores"),
            node("Softmax", "scores", "shares", axis=-1),
            node("MatMul", "shares rows", "mixed"),
            node("Transpose", "mixed", "y", perm=[1, 0, 2]),
            *LAST,
        ],
        AHEAD,
    ),
    "the next time step": graph(
        [
            node("Slice", "x one many axis0", "later"),
            node("Slice", "x minus_one many axis0", "end"),
            node("Concat", "later end", "y", axis=0),
            *LAST,
        ],
        AHEAD,
    ),
    "a centred convolution": graph(
        [CONVOLVED[0], node("Conv", "turned kernel", "convolved", pads=[1, 1]), CONVOLVED[1], *LAST], AHEAD
    ),
    "a convolution that forgets": graph(
        [CONVOLVED[0], node("Conv", "turned kernel", "convolved", pads=[2, 0]), CONVOLVED[1], *LAST], LENGTH
    ),
    "a mean of the chunk so far": graph(
        [
            node("CumSum", "x zero_axis", "sums"),
            node("Mul", "x float_one", "same"),
            node("Div", "same same", "ones"),
            node("CumSum", "ones zero_axis", "counts"),
            node("Div", "sums counts", "y"),
            *LAST,
        ],
        LENGTH,
    ),
    "an LSTM whose cell starts anew": graph(recurrent("LSTM", "forward", 4), LENGTH, state=(1, 2), batch_axis=1),
    "a state that is the chunk's mean": graph(
        [node("Add", "x h", "y"), node("ReduceMean", "x", "h_out", axes=[0], keepdims=0)], LENGTH
    ),
    "mean over the batch": graph(
        [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean", "y"), *STEP], COUPLED, "step"
    ),
    "mean over the batch of chunks": graph(
        [node("ReduceMean", "x", "mean", axes=[1]), node("Sub", "x mean", "y"), *LAST], COUPLED
    ),
    "scaled by the batch's largest": graph(
        [
            node("Abs", "x", "sizes"),
            node("ReduceMax", "sizes", "largest", axes=[0]),
            node("Max", "largest float_one", "scale"),
            node("Div", "x scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "clipped by the batch's norm": graph(
        [
            node("ReduceL2", "x", "norm", axes=[0, 1]),
            node("Max", "norm float_one", "scale"),
            node("Div", "x scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "a state that is scaled by the batch's norm": graph(
        [
            node("Add", "h x", "sum"),
            node("ReduceL2", "sum", "norm", axes=[0, 1]),
            node("Max", "norm float_one", "scale"),
            node("Div", "sum scale", "h_out"),
            node("Identity", "h_out", "y"),
        ],
        COUPLED,
        "step",
    ),
    "dynamic quantisation": graph(
        [
            node("DynamicQuantizeLinear", "x", "small scale zero"),
            node("DequantizeLinear", "small scale zero", "y"),
            *STEP,
        ],
        f"{COUPLED}.*DynamicQuantizeLinear",
        "step",
    ),
    "noise": graph([node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "y"), *STEP], RANDOM, "step"),
    "noise of a seed": graph(
        [node("RandomUniformLike", "x", "noise", seed=3.0), node("Add", "x noise", "y"), *STEP], RANDOM, "step"
    ),
    "a coin": graph(
        [node("Sigmoid", "x", "chance"), node("Bernoulli", "chance", "y"), *STEP], rf"\(Bernoulli\): {RANDOM}", "step"
    ),
    "a draw": graph(
        [
            node("Multinomial", "x", "drawn"),
            node("Cast", "drawn", "number", to=TensorProto.FLOAT),
            node("Add", "x number", "y"),
            *STEP,
        ],
        rf"\(Multinomial\): {RANDOM}",
        "step",
    ),
    "noise in a branch": graph(
        [
            node("ReduceSum", "x", "sum", keepdims=0),
            node("Greater", "sum half", "more"),
            node(
                "If",
                "more",
                "y",
                then_branch=branch("noise", node("RandomNormalLike", "x", "noise")),
                else_branch=branch("same", node("Identity", "x", "same")),
            ),
            *STEP,
        ],
        rf"\(RandomNormalLike\): {RANDOM}",
        "step",
    ),
    "dropout in training": graph([node("Dropout", "x half true", "y"), *STEP], "training mode", "step"),
    "batch normalisation in training": graph(
        [node("BatchNormalization", "x halves none none units", "y mean variance", training_mode=1), *STEP],
        r"\(BatchNormalization\): normalises by the statistics of the batch in training mode",
        "step",
    ),
    "batch normalisation in training, as older files have it": graph(
        [node("BatchNormalization", "x halves none none units", "y mean variance a b"), *STEP],
        r"\(BatchNormalization\): normalises by the statistics of the batch in training mode",
        "step",
        opset=9,
    ),
    "normalised over the batch": graph(
        [
            node("ReduceMean", "x", "mean", axes=[0]),
            node("Sub", "x mean", "centred"),
            node("ReduceL2", "centred", "norm", axes=[0]),
            node("Add", "norm float_one", "scale"),
            node("Div", "centred scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "a softmax over the batch": graph([node("Softmax", "x", "y", axis=0), *STEP], COUPLED, "step"),
    "normalised over time": graph(
        [CONVOLVED[0], node("InstanceNormalization", "turned halves none", "convolved"), CONVOLVED[1], *LAST], AHEAD
    ),
    "turned around in time": graph([node("Slice", "x minus_one least axis0 minus_one", "y"), *LAST], AHEAD),
    "a centred maximum": graph(
        [CONVOLVED[0], node("MaxPool", "turned", "convolved", kernel_shape=[3], pads=[1, 1]), CONVOLVED[1], *LAST],
        AHEAD,
    ),
    "the last time step for all": graph(
        [node("Gather", "x last", "newest", axis=0), node("Add", "x newest", "y"), node("Add", "h newest", "h_out")],
        AHEAD,
    ),
    "a quantised product of the batch": graph(
        [
            node("DynamicQuantizeLinear", "x", "small scale zero"),
            node("MatMulInteger", "small weights zero", "whole"),
            node("Cast", "whole", "numbers", to=TensorProto.FLOAT),
            node("Mul", "numbers scale", "y"),
            *STEP,
        ],
        f"{COUPLED}.*DynamicQuantizeLinear",
        "step",
    ),
}

SERVED: dict[str, Graph] = {
    "dropout in evaluation": graph([node("Dropout", "x half false", "y"), *STEP], layout="step"),
    "dropout without a mode": graph([node("Dropout", "x half", "y"), *STEP], layout="step"),
    "both directions of a window within the step": graph(
        [
            node("Slice", "h one many axis1", "kept"),
            node("Unsqueeze", "x axis1", "newest"),
            node("Concat", "kept newest", "h_out", axis=1),
            node("Transpose", "h_out", "window", perm=[1, 0, 2]),
            node("RNN", "window W12 R12", "- ends", hidden_size=FEATURES, direction=b"bidirectional"),
            node("ReduceSum", "ends axis0", "y", keepdims=0),
        ],
        layout="step",
        state=(5, FEATURES),
    ),
    "running sums": graph(
        [
            node("CumSum", "x zero_axis", "sums"),
            node("Add", "sums h", "y"),
            node("Gather", "y last", "h_out", axis=0),
        ]
    ),
    "of positive values only": graph([node("Log", "x", "logs"), node("Add", "logs h", "y"), *STEP], layout="step"),
    "forward": graph(recurrent("GRU", "forward", 3), state=(1, 2), batch_axis=1),
}


def _leak(share: float, above: float) -> Graph:
    """y is x and a small share of how much the next time step's x is above a number: less than the trial of exactness
    takes for rounding."""
    return graph(
        [
            node("Slice", "x one many axis0", "later"),
            node("Slice", "x minus_one many axis0", "end"),
            node("Concat", "later end", "next", axis=0),
            node("Constant", "", "share", value_float=share),
            node("Constant", "", "above", value_float=above),
            node("Sub", "next above", "over"),
            node("Relu", "over", "positive"),
            node("Mul", "positive share", "part"),
            node("Add", "x part", "y"),
            node("Identity", "h", "h_out"),
        ]
    )


SLIGHT: dict[str, tuple[Graph, str]] = {
    "a little of the next time step": (_leak(4e-4, 0.0), "for ordinary inputs, 2 time steps, .* from step 0 on"),
    "of large values": (_leak(4e-4, 200.0), "for inputs 1,000 times as large, .* from step [0-9]+ on"),
}
"""Graphs of which the proof at import tells where they begin to differ."""
