"""Inputs in every form and type, and outputs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_proto.v1 import cellkeeper_pb2 as v1

from testing.server_process import ServerProcess

from .calls import DATATYPES, START, Api, Array, Refused, numbers, read_reply, request

Edit = Callable[[pb.ModelInferRequest], Any]


@pytest.fixture(scope="module")
def apis(served: ServerProcess) -> Iterator[dict[str, Api]]:
    with served.channel() as channel:
        yield {model: Api(channel, model) for model in ("count", "lstm", "tokens", "wide")}


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BOOL"])
def test_floats_of_any_width_become_the_models(count: Api, sequence: int, datatype: str) -> None:
    numpy = {name: dtype for dtype, name in DATATYPES.items()}[datatype]
    values = np.array([1, 0, 1]).astype(numpy).reshape(1, 3, 1)
    got = count.infer(values, sequence, START)
    assert (got.sums, got.outputs["prediction"].dtype.name) == ([1, 1, 2], "float32")


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "BOOL"])
def test_token_ids_of_any_width(apis: dict[str, Api], sequence: int, datatype: str) -> None:
    numpy = {name: dtype for dtype, name in DATATYPES.items()}[datatype]
    ids = np.array([[1, 0, 1]])
    want = apis["tokens"].infer(ids.astype(np.int32), f"{sequence}", START).outputs["prediction"]
    got = apis["tokens"].infer(ids.astype(numpy), sequence, START).outputs["prediction"]
    np.testing.assert_array_equal(got, want, strict=True)
    one = apis["tokens"].infer(np.array([1], np.int32), sequence, START).outputs["prediction"]
    np.testing.assert_array_equal(one, want[:, 0], strict=True)


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("FP32", "fp32_contents", [1.0, 2.0]),
        ("FP64", "fp64_contents", [1.0, 2.0]),
        ("BOOL", "bool_contents", [True, True]),
    ],
)
def test_typed_contents_are_the_same_as_raw_ones(
    count: Api, sequence: int, datatype: str, field: str, values: list[Any]
) -> None:
    message = request("count", numbers(0, 0), sequence, START)
    del message.raw_input_contents[:]
    message.inputs[0].datatype = datatype
    getattr(message.inputs[0].contents, field).extend(values)
    assert read_reply(count.call("ModelInfer", message)).sums == [values[0], values[0] + values[1]]


@pytest.mark.parametrize(("datatype", "field"), [("INT32", "int_contents"), ("INT64", "int64_contents")])
def test_typed_token_ids(apis: dict[str, Api], sequence: int, datatype: str, field: str) -> None:
    ids = np.array([[3, 7]], np.int32)
    want = apis["tokens"].infer(ids, f"{sequence}", START).outputs["prediction"]
    message = request("tokens", ids, sequence, START)
    del message.raw_input_contents[:]
    message.inputs[0].datatype = datatype
    getattr(message.inputs[0].contents, field).extend([3, 7])
    got = read_reply(apis["tokens"].call("ModelInfer", message)).outputs["prediction"]
    np.testing.assert_array_equal(got, want, strict=True)


def contents(field: str, *values: Any) -> Edit:
    def edit(message: pb.ModelInferRequest) -> None:
        del message.raw_input_contents[:]
        getattr(message.inputs[0].contents, field).extend(values)

    return edit


def shape(*sizes: int) -> Edit:
    def edit(message: pb.ModelInferRequest) -> None:
        message.inputs[0].shape[:] = sizes

    return edit


def datatype(name: str) -> Edit:
    return lambda message: setattr(message.inputs[0], "datatype", name)


def raw(*parts: bytes) -> Edit:
    def edit(message: pb.ModelInferRequest) -> None:
        message.raw_input_contents[:] = parts

    return edit


SAID = "[request id: r] "
SHAPE = SAID + "unexpected shape for input 'input' for model 'count'. Expected [-1,-1,1] or [-1,1], got "
BATCH = "inference request to model 'count' must specify batch-size 1 due to requirements of sequence batcher"


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (shape(2, 1, 1), BATCH),
        (shape(2, 1), BATCH),
        (shape(0, 1, 1), BATCH),
        (shape(1, 0, 1), "inputs.shape: got T = 0, expected 1 to 512 time steps in one chunk"),
        (shape(1, 513, 1), "inputs.shape: got T = 513, expected 1 to 512 time steps in one chunk"),
        (shape(1), SHAPE + "[1]"),
        (shape(1, 1, 2), SHAPE + "[1,1,2]"),
        (shape(1, 1, 1, 1), SHAPE + "[1,1,1,1]"),
        (shape(), SHAPE + "[]"),
        (
            shape(1, -1, 1),
            SAID + "All input dimensions should be specified for input 'input' for model 'count', got [1,-1,1]",
        ),
        (
            datatype("INT32"),
            SAID + "inference input 'input' data-type is 'INT32', but model 'count' expects 'FP32'",
        ),
        (
            datatype("BYTES"),
            SAID + "inference input 'input' data-type is 'BYTES', but model 'count' expects 'FP32'",
        ),
        (
            datatype("BF16"),
            SAID + "inference input 'input' data-type is 'BF16', but model 'count' expects 'FP32'",
        ),
        (
            datatype("x"),
            SAID + "inference input 'input' data-type is '<invalid>', but model 'count' expects 'FP32'",
        ),
        (raw(b"abc"), SAID + "input byte size mismatch for input 'input' for model 'count'. Expected 4, got 3"),
        (raw(b"abcd", b""), "raw_input_contents: got 2 entries, expected one for each input: 1"),
        (raw(), "unable to find data for input tensor 'input' for model 'count' in request."),
        (
            contents("fp32_contents", 1, 2),
            SAID + "input byte size mismatch for input 'input' for model 'count'. Expected 4, got 8",
        ),
        (
            contents("int_contents", 1),
            "unexpected explicit tensor data for input tensor 'input' for model 'count' of type 'INT32', expected "
            "datatype 'FP32'",
        ),
        (
            lambda message: message.inputs[0].contents.fp32_contents.append(1),
            "contents field must not be specified when using raw_input_contents for 'input' for model 'count'",
        ),
        (
            lambda message: setattr(message.inputs[0], "name", "Z"),
            "unexpected inference input 'Z' for model 'count'",
        ),
        (
            lambda message: message.ClearField("inputs"),
            SAID + "expected 1 inputs but got 0 inputs for model 'count'. Got input(s) [], but missing required "
            "input(s) ['input']. Please provide all required input(s).",
        ),
        (
            lambda message: message.inputs.append(message.inputs[0]),
            SAID + "expected 1 inputs but got 2 inputs for model 'count'. Got input(s) ['input','input'], but missing "
            "required input(s) []. Please provide all required input(s).",
        ),
        (
            lambda message: setattr(message.inputs[0].parameters["shared_memory_region"], "string_param", "r"),
            "inputs.parameters: got shared_memory_region, expected the tensor's bytes in the request",
        ),
        (raw(np.float32("nan").tobytes()), "inputs: got nan at time step 0, feature 0, expected finite values"),
        (lambda message: message.outputs.add(name="Z"), "unexpected inference output 'Z' for model 'count'"),
        (
            lambda message: setattr(
                message.outputs.add(name="prediction").parameters["shared_memory_region"], "string_param", "r"
            ),
            "outputs.parameters: got shared_memory_region, expected none: outputs come in the reply",
        ),
    ],
)
def test_bad_tensors_are_refused(count: Api, sequence: int, edit: Edit, text: str) -> None:
    count.infer(numbers(1), sequence, START)
    message = request("count", numbers(1), sequence, identifier="r")
    edit(message)
    with pytest.raises(Refused) as caught:
        count.call("ModelInfer", message)
    assert caught.value == Refused("INVALID_ARGUMENT", text)
    assert count.infer(numbers(1), sequence).sums == [2]


def test_token_ids_that_are_none_are_refused(apis: dict[str, Api], sequence: int) -> None:
    with pytest.raises(Refused) as caught:
        apis["tokens"].infer(np.array([[10]], np.int64), sequence, START)
    assert caught.value == Refused("INVALID_ARGUMENT", "inputs: got token id 10 at time step 0, expected ids below 10")


def test_a_missing_value_is_taken_where_the_model_takes_it(apis: dict[str, Api], sequence: int) -> None:
    message = request("wide", np.array([[[1, 2], [np.nan, 3]]], np.float32), sequence, START)
    message.inputs[0].name = "X"
    got = read_reply(apis["wide"].call("ModelInfer", message)).outputs
    assert {name: values.tolist() for name, values in got.items()} == {"Y": [[[1, 2], [2, 5]]]}


def test_outputs_come_by_name_in_the_order_of_the_request(apis: dict[str, Api], sequence: int) -> None:
    values = np.ones((1, 2, 3), np.float32)
    names = ["state.c", "hidden", "prediction", "state.h", "hidden"]
    got = apis["lstm"].infer(values, sequence, START, outputs=names).outputs
    assert {name: tensor.shape for name, tensor in got.items()} == {
        "state.c": (1, 2, 8),
        "hidden": (1, 2, 8),
        "prediction": (1, 2, 2),
        "state.h": (1, 2, 8),
    }
    assert list(got) == ["state.c", "hidden", "prediction", "state.h"]
    np.testing.assert_array_equal(got["state.h"][:, 1], got["hidden"][:, 1])
    assert list(apis["lstm"].infer(values, sequence, outputs=["state.h"]).outputs) == ["state.h"]
    assert list(apis["lstm"].infer(values, sequence).outputs) == ["prediction"]


def test_the_states_are_those_that_the_service_itself_shows(
    served: ServerProcess, apis: dict[str, Api], sequence: int
) -> None:
    got = apis["lstm"].infer(np.ones((1, 2, 3), np.float32), f"s{sequence}", START, outputs=["state.h", "state.c"])
    with served.channel() as channel:
        state = served.stub(channel).GetState(v1.GetStateRequest(model="lstm", session=f"s{sequence}"), timeout=30)
    shown: dict[str, Array] = {
        f"state.{one.name}": np.frombuffer(one.data, "<f4").reshape(1, *one.shape) for one in state.state
    }
    for name, values in got.outputs.items():
        np.testing.assert_array_equal(values, shown[name], strict=True)
