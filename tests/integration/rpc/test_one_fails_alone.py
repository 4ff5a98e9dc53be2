"""What an engine cannot compute for one session fails only there: its neighbours in the same call are served."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Way, frame_message, numbers

POISON = 123456.0  # the graph fails on it


def graph() -> bytes:
    """Returns a graph with the running sum of x, and a lookup in a table of 4 zeros at 100 * (x == POISON)."""
    nodes = [
        helper.make_node("Add", ["total", "x"], ["sum"]),
        helper.make_node("Equal", ["x", "poison"], ["is_poison"]),
        helper.make_node("Cast", ["is_poison"], ["one"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one", "hundred"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["nothing"]),
        helper.make_node("Add", ["sum", "nothing"], ["total_after"]),
        helper.make_node("Identity", ["total_after"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(POISON, np.float32), "poison"),
        numpy_helper.from_array(np.array(100, np.int64), "hundred"),
        numpy_helper.from_array(np.zeros(4, np.float32), "table"),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 1]) for name in ("x", "total")}
    results = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 1]) for name in ("y", "total_after")}
    made = helper.make_graph(nodes, "g", list(values.values()), list(results.values()), constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "sums",
        "cell": "onnx",
        "graph": "model.onnx",
        "layout": "step",
        "input": {"kind": "features", "name": "x", "size": 1},
        "states": [{"name": "total", "input": "total", "output": "total_after", "shape": [1], "batch_axis": 0}],
        "outputs": [{"name": "prediction", "output": "y", "shape": [1]}],
    }
    folder = tmp_path_factory.mktemp("sums") / "m"
    write_bundle(folder, config, {}, graph=graph())
    with ForkedServer([folder], "memory:") as server, server.channel() as channel:
        yield Api(server.stub(channel), "sums")


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_the_others_of_the_same_call_are_served(api: Api, session: str, frame_way: Way, steps: int) -> None:
    names = [f"{session}-{index}" for index in range(8)]
    at = [api.send("unary", Chunk(name, numbers(1), api.open(name))).after for name in names]
    inputs = [numbers(*[2] * steps)] * 8
    inputs[3] = numbers(*[2] * (steps - 1), POISON)
    chunks = [Chunk(name, data, place) for name, data, place in zip(names, inputs, at, strict=True)]
    got = api.send_frame(frame_way, frame_message("sums", chunks))
    broken = got.pop(3)
    assert (broken.code, broken.reason) == ("INTERNAL", "INTERNAL_ERROR")
    assert [result.sums for result in got] == [[1.0 + 2 * (step + 1) for step in range(steps)]] * 7
    assert api.position(names[3]) == at[3]
    assert api.send(frame_way, Chunk(names[3], numbers(7), at[3])).sums == [8.0]
