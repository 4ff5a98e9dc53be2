"""Outputs as classes. tests/integration/peers shows what a real Triton answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb

from testing.server_process import ServerProcess

from .calls import START, Api, Array, Refused, Value, classes, numbers, read_reply, request, set_parameter


@pytest.fixture(scope="module")
def wide(served: ServerProcess) -> Iterator[Api]:
    """Sums of two features."""
    with served.channel() as channel:
        yield Api(channel, "wide")


@pytest.fixture(scope="module")
def lstm(served: ServerProcess) -> Iterator[Api]:
    with served.channel() as channel:
        yield Api(channel, "lstm")


def classified(
    api: Api, values: Array, sequence: int, output: str, count: Value, start: bool = True
) -> pb.ModelInferResponse:
    message = request(api.model, values, sequence, START if start else {})
    message.inputs[0].name = "X" if api.model == "wide" else "input"
    set_parameter(message.outputs.add(name=output).parameters["classification"], count)
    response: pb.ModelInferResponse = api.call("ModelInfer", message)
    return response


def test_the_largest_values_of_all_time_steps_come_first(wide: Api, sequence: int) -> None:
    inputs = np.array([[[1, 5], [3, 5.25]]], np.float32)
    response = classified(wide, inputs, sequence, "Y", 3)
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("Y", "BYTES", [1, 3])
    assert classes(response.raw_output_contents[0]) == ["10.250000:3", "5.000000:1", "4.000000:2"]


@pytest.mark.parametrize("count", [4, 5, 2**62])
def test_there_are_no_more_classes_than_values(wide: Api, sequence: int, count: int) -> None:
    """Equal values keep their order."""
    response = classified(wide, np.array([[[2, 2], [0, 0]]], np.float32), sequence, "Y", count)
    assert list(response.outputs[0].shape) == [1, 4]
    assert classes(response.raw_output_contents[0]) == [f"2.000000:{index}" for index in range(4)]


def test_some_of_several_equal_values_are_the_first_of_them(wide: Api, sequence: int) -> None:
    response = classified(wide, np.array([[[2, 2], [1, 0]]], np.float32), sequence, "Y", 2)
    assert classes(response.raw_output_contents[0]) == ["3.000000:2", "2.000000:0"]


def test_one_output_as_classes_and_another_as_values(lstm: Api, sequence: int) -> None:
    values = np.ones((1, 2, 3), np.float32)
    plain = lstm.infer(values, sequence, START, outputs=["hidden", "prediction"]).outputs
    message = request("lstm", values, sequence, START, outputs=["hidden", "prediction"])
    message.outputs[1].parameters["classification"].int64_param = 1
    got = read_reply(lstm.call("ModelInfer", message)).outputs
    np.testing.assert_array_equal(got["hidden"], plain["hidden"], strict=True)
    best = int(plain["prediction"].argmax())
    assert classes(got["prediction"].tobytes()) == [f"{plain['prediction'].reshape(-1)[best]:f}:{best}"]


@pytest.mark.parametrize(
    ("count_asked", "text"),
    [
        (0, "invalid value for 'classification' parameter, expected >= 0"),
        (-1, "invalid value for 'classification' parameter, expected >= 0"),
        ("1", "invalid value type for 'classification' parameter, expected int64_param"),
        (True, "invalid value type for 'classification' parameter, expected int64_param"),
    ],
)
def test_what_is_no_number_of_classes_is_refused_and_nothing_applied(
    count: Api, sequence: int, count_asked: Value, text: str
) -> None:
    count.infer(numbers(1), sequence, START)
    with pytest.raises(Refused) as caught:
        classified(count, numbers(1), sequence, "prediction", count_asked, start=False)
    assert caught.value == Refused("INVALID_ARGUMENT", text)
    assert count.infer(numbers(1), sequence).sums == [2]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("hidden", "got 2048 classes of 'hidden', expected at most 1024; ask for the values themselves"),
        ("state.h", "got 2048 of the state 'state.h', expected none: states have no classes"),
    ],
)
def test_classes_are_limited_and_of_outputs_alone(lstm: Api, sequence: int, output: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        classified(lstm, np.ones((1, 300, 3), np.float32), sequence, output, 2048)
    assert caught.value == Refused("INVALID_ARGUMENT", f"outputs.parameters.classification: {text}")
