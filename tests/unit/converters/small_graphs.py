"""Builds the small ONNX graphs (x, h) -> (y, h_out) of these tests, with nodes in short form and constants by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 2


@dataclass(frozen=True)
class Graph:
    """words: the pattern of the refusal; "" if the graph can be streamed. layout: of x and y."""

    model: bytes
    layout: str
    words: str
    state: tuple[int, ...]
    batch_axis: int
    batch: str = "free"

    def with_one_session(self) -> Graph:
        """Returns the graph with a batch of one baked in."""
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
    """Returns a node. Names are separated by spaces; "-" is an input or output that is left out."""
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
    """Returns nodes that carry the state of each direction over, as if time went on in both."""
    ways = 2 if direction == "bidirectional" else 1
    head = [node("Unsqueeze", "x axis0", "sequence")] if layout == "step" else [node("Identity", "x", "sequence")]
    weights = f"W{gates}{ways} R{gates}{ways}"
    head.append(node(op, f"sequence {weights} - - h", "each h_out", hidden_size=FEATURES, direction=direction.encode()))
    head.append(node("ReduceSum", "each axis1", "summed", keepdims=0))
    return [*head, node("Squeeze", "summed axis0", "y") if layout == "step" else node("Identity", "summed", "y")]


def branch(name: str, *nodes: Any) -> Any:
    """Returns a subgraph for If with the output `name`."""
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def endless(turns: str = "") -> list[Any]:
    """Returns a Loop of 2 ** 62 iterations; with `turns`, of 2 ** 55 times the sum of |x|."""
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
