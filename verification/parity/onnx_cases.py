"""ONNX graphs that others wrote, or that were built node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.converters import Imported, import_onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from examples.recipes.exporting import exported
from examples.recipes.policy import policy
from testing.two_inputs import VOCABULARY, two_inputs_graph

from .case import Case, Importer
from .shipped_graphs import counter, detector, enhancer, model, state_alone


class Carried(nn.Module):
    """(x, h, c) -> (y, h, c) with an LSTM; x [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 24, 2, batch_first=True)
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.rnn(x, (h, c))
        return self.head(y), h, c


class Words(nn.Module):
    """(ids, h) -> (logits, h) with a GRU; ids [1, B]: a time axis of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.rnn = nn.GRU(12, 16)
        self.head = nn.Linear(16, 20)

    def forward(self, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(self.embedding(ids), h)
        return self.head(y), h


def carried_graph() -> bytes:
    example = (torch.randn(2, 5, 3), torch.zeros(2, 2, 24), torch.zeros(2, 2, 24))
    axes = {"x": {0: "batch", 1: "time"}, "h0": {1: "batch"}, "c0": {1: "batch"}}
    return exported(Carried(), example, (["x", "h0", "c0"], ["y", "hn", "cn"]), axes)


def words_graph() -> bytes:
    example = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2, 16))
    axes = {"ids": {1: "batch"}, "h": {1: "batch"}}
    return exported(Words(), example, (["ids", "h"], ["logits", "h_out"]), axes)


def handmade_graph(seed: int = 1) -> bytes:
    """Returns an adaptive filter bank.

    (x [B, 2], state [2, B, 6], peak [B, 6], gain [6], rate int64 []) -> (y [B, 6], ...). Both levels of "state" have
    the batch at axis 1; "rate" is an integer constant, "gain" a vector.
    """
    draw = np.random.default_rng(seed)
    values = {
        "weight": draw.uniform(-0.7, 0.7, (1, 24, 2)).astype(np.float32),
        "again": draw.uniform(-0.4, 0.4, (1, 24, 6)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "thousand": np.array(1000.0, np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "zero"], ["sequence"]),
        helper.make_node("Slice", ["state", "zero", "one", "zero"], ["h"]),
        helper.make_node("Slice", ["state", "one", "two", "zero"], ["c"]),
        helper.make_node(
            "LSTM", ["sequence", "weight", "again", "", "", "h", "c"], ["", "h_after", "c_after"], hidden_size=6
        ),
        helper.make_node("Concat", ["h_after", "c_after"], ["stateN"], axis=0),
        helper.make_node("Cast", ["rate"], ["float_rate"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float_rate", "thousand"], ["ratio"]),
        helper.make_node("Squeeze", ["h_after", "zero"], ["level"]),
        helper.make_node("Mul", ["level", "gain"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "ratio"], ["y"]),
        helper.make_node("Max", ["peak", "level"], ["peak_out"]),
    ]
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("x", float32, ["batch", 2]),
        helper.make_tensor_value_info("state", float32, [2, "batch", 6]),
        helper.make_tensor_value_info("peak", float32, ["batch", 6]),
        helper.make_tensor_value_info("gain", float32, [6]),
        helper.make_tensor_value_info("rate", int64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("y", float32, ["batch", 6]),
        helper.make_tensor_value_info("stateN", float32, [2, "batch", 6]),
        helper.make_tensor_value_info("peak_out", float32, ["batch", 6]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "bank", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def peephole_graph() -> bytes:
    """Returns an LSTM whose gates see the cell (ONNX's input P).

    (x [T, B, 3], h [1, B, 6], c) -> (y [T, B, 6], h_out, c_out)
    """
    draw = np.random.default_rng(6)
    sizes = {"weight": (1, 24, 3), "again": (1, 24, 6), "peephole": (1, 18)}
    constants = {name: draw.uniform(-0.6, 0.6, size).astype(np.float32) for name, size in sizes.items()}
    inputs = ["x", "weight", "again", "", "", "h", "c", "peephole"]
    nodes = [
        helper.make_node("LSTM", inputs, ["each", "h_out", "c_out"], hidden_size=6),
        helper.make_node("Squeeze", ["each", "axis"], ["y"]),
    ]
    state = [1, "B", 6]
    return model(
        nodes,
        {"x": ["T", "B", 3], "h": state, "c": state},
        {"y": ["T", "B", 6], "h_out": state, "c_out": state},
        {**constants, "axis": [1]},
    )


HANDMADE_CONSTANTS = {"rate": np.array(16000), "gain": np.linspace(0.5, 3.0, 6, dtype=np.float32)}


def graph(data: bytes, **options: Any) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        return import_onnx(data, folder, max_batch=max_batch, report=str, **options)

    return run


def onnx_cases() -> list[Case]:
    """Returns the cases; their weights come from torch's seed, or from a seed of their own."""
    initial = {"peak": np.full(6, 0.25, np.float32)}
    return [
        Case("onnx", "torch.onnx: LSTM 2x24, batch_first, any length", graph(carried_graph())),
        Case("onnx", "torch.onnx: Embedding, GRU 16, a time axis of one step", graph(words_graph(), vocabulary=20)),
        Case(
            "onnx",
            "by hand: LSTM 6, states with the batch at axis 1, two constants",
            graph(handmade_graph(), constants=HANDMADE_CONSTANTS, initial=initial),
        ),
        Case(
            "onnx",
            "a voice detector: a free window set to 32 samples, a rate of 16,000, LSTM 4",
            graph(detector(), input_shape=[32], constants={"sr": np.array(16000)}),
        ),
        Case("onnx", "torch.onnx: a policy (obs, h_in, c_in) of LSTM 6 with a batch of one", graph(policy())),
        Case(
            "onnx",
            "a speech enhancer: frames [3, 1, 2], a cache of five axes, a batch of one",
            graph(enhancer(), input_shape=[3, 1, 2]),
        ),
        Case("onnx", "windows [3, 2], an int64 counter and a float64 mean", graph(counter(), input_shape=[3, 2])),
        Case("onnx", "a state that is the only output", graph(state_alone(1))),
        Case("onnx", "by hand: LSTM 6 with peepholes, any length", graph(peephole_graph(), layout="time_first")),
        Case(
            "onnx",
            "two inputs for each time step, floats and token ids, and an int64 counter",
            graph(two_inputs_graph(), input=["audio", "ids"], vocabulary={"ids": VOCABULARY}),
        ),
    ]
