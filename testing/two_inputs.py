"""A model with two inputs for each time step, and an integer counter among its states.

    (audio [B, 3] float32, ids [B] int64, h [B, 3] float32, n [B, 1] int64) -> (y [B, 4], h, n)

h' = tanh(h / 2 + audio + table[ids]), n' = n + 1, y = (h', n'): the last value of every output is exactly the number of
time steps that the session has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.model.write import write_bundle
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

AUDIO, VOCABULARY = 3, 5
INPUTS = [
    {"name": "audio", "shape": [AUDIO], "dtype": "float32"},
    {"name": "ids", "shape": [], "dtype": "int64", "vocabulary": VOCABULARY},
]
STATES = [
    {"name": "h", "input": "h", "output": "h_out", "shape": [AUDIO]},
    {"name": "n", "input": "n", "output": "n_out", "shape": [1], "dtype": "int64"},
]


def two_inputs_graph(batch: int | str = "B") -> bytes:
    """Returns the ONNX graph. batch: 1 fixes the batch at one."""
    draw = np.random.default_rng(3)
    constants: dict[str, Array] = {
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.int64),
        "table": draw.standard_normal((VOCABULARY, AUDIO)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["row"], axis=0),
        helper.make_node("Mul", ["h", "half"], ["kept"]),
        helper.make_node("Add", ["kept", "audio"], ["heard"]),
        helper.make_node("Add", ["heard", "row"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["h_out"]),
        helper.make_node("Add", ["n", "one"], ["n_out"]),
        helper.make_node("Cast", ["n_out"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["h_out", "counted"], ["y"], axis=1),
    ]
    floats, integers = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "two_inputs",
        [
            helper.make_tensor_value_info("audio", floats, [batch, AUDIO]),
            helper.make_tensor_value_info("ids", integers, [batch]),
            helper.make_tensor_value_info("h", floats, [batch, AUDIO]),
            helper.make_tensor_value_info("n", integers, [batch, 1]),
        ],
        [
            helper.make_tensor_value_info("y", floats, [batch, AUDIO + 1]),
            helper.make_tensor_value_info("h_out", floats, [batch, AUDIO]),
            helper.make_tensor_value_info("n_out", integers, [batch, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def two_inputs_config(**changes: Any) -> dict[str, Any]:
    """Returns config.json for a bundle of this model. changes: different values for some keys."""
    return {
        "format": "cellkeeper-bundle/1",
        "name": "two",
        "cell": "onnx",
        "graph": "model.onnx",
        "layout": "step",
        "inputs": INPUTS,
        "states": STATES,
        "outputs": [{"name": "prediction", "output": "y", "shape": [AUDIO + 1]}],
        "constants": [],
    } | changes


def two_inputs_bundle(folder: Path, *, name: str = "two", **changes: Any) -> Path:
    """Writes the bundle to `folder`, which must not exist, and returns the folder. changes: see two_inputs_config."""
    write_bundle(folder, two_inputs_config(name=name, **changes), {}, graph=two_inputs_graph())
    return folder


def random_steps(steps: int, seed: int = 0) -> dict[str, Array]:
    """Returns audio [steps, 3] float32 and ids [steps] int64."""
    draw = np.random.default_rng(seed)
    return {
        "audio": draw.standard_normal((steps, AUDIO)).astype(np.float32),
        "ids": draw.integers(0, VOCABULARY, steps),
    }


def part(inputs: Mapping[str, Array], which: int | slice) -> dict[str, Array]:
    """Returns some time steps of these inputs, or a single one without a time axis."""
    return {name: values[which] for name, values in inputs.items()}
