"""A model with several inputs through KServe's protocol: one tensor per input, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_service.engine.load import offline

from testing.server_process import ServerProcess
from testing.two_inputs import Array, part, random_steps
from tests.integration.kserve.calls import DATATYPES, START, Api, Refused, Value, set_parameter

INPUTS = random_steps(6, 9)


@pytest.fixture(scope="module")
def api(served: ServerProcess) -> Iterator[Api]:
    with served.channel() as channel:
        yield Api(channel, "two")


def request(sequence: str, inputs: dict[str, Array], parameters: dict[str, Value]) -> pb.ModelInferRequest:
    """inputs: [1, T, ...] or [1, ...] by name."""
    message = pb.ModelInferRequest(model_name="two")
    for name, value in ({"sequence_id": sequence} | parameters).items():
        set_parameter(message.parameters[name], value)
    for name, values in inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[values.dtype], shape=values.shape)
        message.raw_input_contents.append(values.tobytes())
    return message


def steps(first: int, last: int) -> dict[str, Array]:
    return {name: values[None] for name, values in part(INPUTS, slice(first, last)).items()}


def test_tensors_by_name_in_any_order(api: Api, two_inputs: Path, session: str) -> None:
    expected = offline(two_inputs, INPUTS)["prediction"]
    got = [api.read(request(session, steps(0, 4), START)).outputs["prediction"][0]]
    swapped = dict(reversed(steps(4, 5).items()))
    got.append(api.read(request(session, swapped, {})).outputs["prediction"][0])
    single = {name: values[:, 0] for name, values in steps(5, 6).items()}
    got.append(api.read(request(session, single, {})).outputs["prediction"])
    np.testing.assert_array_equal(np.concatenate(got), expected, strict=True)


def test_metadata_and_config_list_them(api: Api) -> None:
    metadata = api.call("ModelMetadata", pb.ModelMetadataRequest(name="two"))
    assert [(one.name, one.datatype, [*one.shape]) for one in metadata.inputs] == [
        ("audio", "FP32", [-1, -1, 3]),
        ("ids", "INT64", [-1, -1]),
    ]
    config = api.call("ModelConfig", pb.ModelConfigRequest(name="two")).config
    assert [(one.name, [*one.dims]) for one in config.input] == [("audio", [-1, 3]), ("ids", [-1])]


def contents(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend(INPUTS["audio"][0].tolist())
    message.inputs[1].contents.int64_contents.append(int(INPUTS["ids"][0]))


def test_typed_contents(api: Api, two_inputs: Path, session: str) -> None:
    message = request(session, steps(0, 1), START)
    contents(message)
    expected = offline(two_inputs, part(INPUTS, slice(0, 1)))["prediction"]
    np.testing.assert_array_equal(api.read(message).outputs["prediction"][0], expected, strict=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda m: m.inputs.pop(),
            "expected 2 inputs but got 1 inputs for model 'two'. Got input(s) ['audio'], but mi",
        ),
        (lambda m: setattr(m.inputs[1], "name", "gain"), "unexpected inference input 'gain' for model 'two'"),
        (lambda m: setattr(m.inputs[1], "name", "audio"), "missing required input(s) ['ids']"),
        (
            lambda m: setattr(m.inputs[1], "datatype", "FP32"),
            "inference input 'ids' data-type is 'FP32', but model 'two'",
        ),
        (lambda m: m.raw_input_contents.pop(), "raw_input_contents: got 1 entries, expected one for each input: 2"),
        (
            lambda m: m.inputs[1].shape.__setitem__(1, 2),
            "inputs.shape: got ids [1,2], expected the time steps of audio",
        ),
        (
            lambda m: m.raw_input_contents.__setitem__(1, b"\5" + bytes(23)),
            "inputs[ids]: got 5 at time step 0, expected",
        ),
    ],
)
def test_what_does_not_fit_is_refused(api: Api, session: str, change: Callable[[Any], object], says: str) -> None:
    message = request(session, steps(0, 3), START)
    change(message)
    with pytest.raises(Refused) as caught:
        api.read(message)
    assert says in caught.value.message
