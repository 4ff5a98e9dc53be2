"""Small ONNX graphs with the shapes of public models.

They are a voice detector with a free window and a sampling rate, a policy with the batch fixed to one, a filter of
windows, and a counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HIDDEN = 4


def model(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: dict[str, Any], **kinds: int
) -> bytes:
    """Builds the model. kinds: of inputs and outputs that are not float32."""

    def values(shapes: dict[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(k, kinds.get(k, TensorProto.FLOAT), s) for k, s in shapes.items()]

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return bytes(made.SerializeToString())


def detector(batch: int | None = None) -> bytes:
    """Returns a graph like Silero VAD: (input [?, ?], state [2, ?, 4], sr int64 []) -> (output [?, 1], stateN).

    It takes frames of the window by a convolution whose kernel depends on the rate, their maximum, and an LSTM of one
    step. batch: fixes the batch size.
    """
    draw = np.random.default_rng(5)

    def weights(*shape: int) -> Any:
        return draw.uniform(-0.6, 0.6, shape).astype(np.float32)

    constants = {
        "slow": weights(3, 1, 8),
        "fast": weights(3, 1, 8),
        "weight": weights(1, 4 * HIDDEN, 3),
        "again": weights(1, 4 * HIDDEN, HIDDEN),
        "head": weights(HIDDEN),
        "rate": 16000,
        "axis0": [0],
        "axis1": [1],
        "halves": [1, 1],
    }

    def branch(name: str) -> Any:
        value = helper.make_tensor_value_info(f"{name}_kernel", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Identity", [name], [f"{name}_kernel"])], name, [], [value])

    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["is_fast"]),
        helper.make_node("If", ["is_fast"], ["kernel"], then_branch=branch("fast"), else_branch=branch("slow")),
        helper.make_node("Unsqueeze", ["input", "axis1"], ["channel"]),
        helper.make_node("Conv", ["channel", "kernel"], ["frames"], strides=[4]),
        helper.make_node("Relu", ["frames"], ["power"]),
        helper.make_node("ReduceMax", ["power"], ["features"], axes=[2], keepdims=0),
        helper.make_node("Unsqueeze", ["features", "axis0"], ["sequence"]),
        helper.make_node("Split", ["state", "halves"], ["h", "c"], axis=0),
        helper.make_node(
            "LSTM", ["sequence", "weight", "again", "", "", "h", "c"], ["", "h_out", "c_out"], hidden_size=HIDDEN
        ),
        helper.make_node("Concat", ["h_out", "c_out"], ["stateN"], axis=0),
        helper.make_node("Squeeze", ["h_out", "axis0"], ["level"]),
        helper.make_node("Mul", ["level", "head"], ["shares"]),
        helper.make_node("ReduceSum", ["shares", "axis1"], ["score"], keepdims=1),
        helper.make_node("Sigmoid", ["score"], ["output"]),
    ]
    inputs = {"input": [batch, 32 if batch else None], "state": [2, batch, HIDDEN], "sr": []}
    outputs = {"output": [batch, 1], "stateN": [None, None, None]}
    return model(nodes, inputs, outputs, constants, sr=TensorProto.INT64)


def enhancer() -> bytes:
    """Returns a graph like a speech enhancer.

    (mix [1, 3, 1, 2], cache [2, 1, 1, 3, 2]) -> (enh [1, 3, 1, 2], cache_out): it takes a frame of 3 complex
    frequencies, and a state of five axes with the two previous frames.
    """
    constants = {"one": [1], "two": [2], "axis0": [0], "shape": [1, 1, 1, 3, 2], "out": [1, 3, 1, 2]}
    nodes = [
        helper.make_node("Reshape", ["mix", "shape"], ["newest"]),
        helper.make_node("Slice", ["cache", "one", "two", "axis0"], ["newer"]),
        helper.make_node("Concat", ["newer", "newest"], ["cache_out"], axis=0),
        helper.make_node("ReduceMean", ["cache"], ["older"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["newest", "older"], ["change"]),
        helper.make_node("Reshape", ["change", "out"], ["enh"]),
    ]
    return model(
        nodes,
        {"mix": [1, 3, 1, 2], "cache": [2, 1, 1, 3, 2]},
        {"enh": [1, 3, 1, 2], "cache_out": [2, 1, 1, 3, 2]},
        constants,
    )


def counter(*, batch: int | str = "n") -> bytes:
    """Returns (x [n, 3, 2], ticks int64 [n], mean float64 [n, 3, 2]) -> y [n, 3, 2], the mean of the windows so far."""
    nodes = [
        helper.make_node("Add", ["ticks", "one"], ["ticks_out"]),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["ticks_out"], ["number"], to=TensorProto.DOUBLE),
        helper.make_node("Unsqueeze", ["number", "axes"], ["column"]),
        helper.make_node("Sub", ["wide", "mean"], ["gap"]),
        helper.make_node("Div", ["gap", "column"], ["part"]),
        helper.make_node("Add", ["mean", "part"], ["mean_out"]),
        helper.make_node("Cast", ["mean_out"], ["y"], to=TensorProto.FLOAT),
    ]
    kinds = {"ticks": TensorProto.INT64, "mean": TensorProto.DOUBLE}
    return model(
        nodes,
        {"x": [batch, 3, 2], "ticks": [batch], "mean": [batch, 3, 2]},
        {"y": [batch, 3, 2], "ticks_out": [batch], "mean_out": [batch, 3, 2]},
        {"one": 1, "axes": [1, 2]},
        **kinds,
        **{f"{name}_out": kind for name, kind in kinds.items()},
    )


def state_alone(batch_axis: int = 0, batch: int | str = "n") -> bytes:
    """Returns (x [n, 2], h) -> h_out, which decays towards x. batch_axis: of h, [n, 2] or [2, n]."""
    turn = [helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0] if batch_axis else [0, 1])]
    nodes = [
        *turn,
        helper.make_node("Sub", ["turned", "h"], ["gap"]),
        helper.make_node("Mul", ["gap", "rate"], ["part"]),
        helper.make_node("Add", ["h", "part"], ["h_out"]),
    ]
    shape = [2, batch] if batch_axis else [batch, 2]
    return model(nodes, {"x": [batch, 2], "h": shape}, {"h_out": shape}, {"rate": np.float32(0.25)})
