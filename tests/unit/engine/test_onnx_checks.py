"""What is refused in a graph, wherever it is: tensors in other files, and backward layers.

A backward layer does no harm only over a window within a time step, where the graph shows that no state is carried.
"""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper_service.engine.onnx_checks import parse_graph, refuse_operators
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import GraphConfig
from cellkeeper_service.model.parsing import parse_config
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, helper

from .test_user_graph import config_of

FLOATS = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y", "total", "after")}
HARMLESS, CARRIED = "LSTM window w r", "LSTM window w r - - total"


def backward(words: str) -> Any:
    """Returns a backward layer with these inputs; "-" for one that is left out."""
    op, *inputs = words.split()
    return helper.make_node(op, [name.replace("-", "") for name in inputs], ["y"], direction="reverse", hidden_size=2)


def model(layer: Any, functions: tuple[Any, ...] = ()) -> Any:
    state = helper.make_node("Identity", ["total"], ["after"])
    graph = helper.make_graph([layer, state], "g", [FLOATS["x"], FLOATS["total"]], [FLOATS["y"], FLOATS["after"]])
    return helper.make_model(graph, functions=functions)


def config(layout: str) -> GraphConfig:
    state = {"name": "total", "input": "total", "output": "after", "shape": [1, 2], "batch_axis": 1}
    parsed = parse_config(config_of(layout, states=[state], constants=[]))
    assert isinstance(parsed, GraphConfig)
    return parsed


def inside(words: str) -> Any:
    """Returns a branch with the layer, in which nothing shows what the names around it depend on."""
    body = helper.make_graph([backward(words)], "body", [], [FLOATS["y"]])
    return helper.make_node("If", ["condition"], ["y"], then_branch=body, else_branch=body)


def function(words: str) -> Any:
    opset = helper.make_opsetid("", 17)
    return helper.make_function("own", "Backward", ["window", "w", "r", "total"], ["y"], [backward(words)], [opset])


@pytest.mark.parametrize(
    ("made", "layout"),
    [
        (model(backward(HARMLESS)), "time_first"),
        (model(backward(HARMLESS)), "batch_first"),
        (model(backward(CARRIED)), "step"),
        (model(inside(HARMLESS)), "step"),
        (model(inside(CARRIED)), "step"),
        (
            model(
                helper.make_node("Backward", ["x", "x", "x", "total"], ["y"], domain="own"),
                (function(CARRIED.replace("total", "own_name")),),
            ),
            "step",
        ),
    ],
)
def test_what_a_stream_has_not_reached(made: Any, layout: str) -> None:
    with pytest.raises(StartError, match=r"\(LSTM\): direction reverse: starts at the end of the sequence"):
        refuse_operators(made, config(layout), "m")


def test_a_state_that_a_branch_passes_on() -> None:
    """A branch sees the names around it, which are not among its node's inputs."""
    body = helper.make_graph([helper.make_node("Identity", ["total"], ["start"])], "body", [], [FLOATS["y"]])
    body.output[0].name = "start"
    made = model(backward("LSTM window w r - - start"))
    made.graph.node.insert(0, helper.make_node("If", ["condition"], ["start"], then_branch=body, else_branch=body))
    with pytest.raises(StartError, match=r"\(LSTM\): direction reverse"):
        refuse_operators(made, config("step"), "m")


def test_a_window_within_a_step() -> None:
    refuse_operators(model(backward(HARMLESS)), config("step"), "m")


def elsewhere() -> Any:
    """Returns a tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def sparse(*, indices: bool) -> Any:
    """Returns a sparse tensor with its indices, or else its values, in another file."""
    here = helper.make_tensor("here", TensorProto.INT64, [1], [0])
    return SparseTensorProto(
        dims=[1], values=here if indices else elsewhere(), indices=elsewhere() if indices else here
    )


def holding(**attribute: Any) -> Any:
    """Returns a node with such an attribute."""
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(AttributeProto(name="value", **attribute))
    return node


def body(**contents: Any) -> Any:
    return GraphProto(name="body", **contents)


@pytest.mark.parametrize(
    "made",
    [
        ModelProto(graph=body(initializer=[elsewhere()])),
        ModelProto(graph=body(sparse_initializer=[sparse(indices=False)])),
        ModelProto(graph=body(sparse_initializer=[sparse(indices=True)])),
        model(holding(t=elsewhere())),
        model(holding(tensors=[elsewhere()])),
        model(holding(sparse_tensor=sparse(indices=False))),
        model(holding(sparse_tensors=[sparse(indices=True)])),
        model(holding(g=body(initializer=[elsewhere()]))),
        model(holding(graphs=[body(node=[holding(t=elsewhere())])])),
        model(holding(i=1), (helper.make_function("own", "F", [], ["y"], [holding(t=elsewhere())], []),)),
    ],
)
def test_tensors_in_other_files_wherever_they_are(made: Any) -> None:
    with pytest.raises(StartError, match=r"^m: keeps weights in other files; save it with its weights inside"):
        parse_graph(made.SerializeToString(), "m")
