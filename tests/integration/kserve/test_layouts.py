"""Clients of models without a batch dimension, and of models that take one step and return no time dimension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_service.engine.load import offline
from cellkeeper_service.errors import StartError
from cellkeeper_service.rpc.kserve.tensor_names import LAYOUTS, read_layouts

from testing.bundles import token_bundle
from testing.forked_server import ForkedServer
from tests.integration.access.tenants import bearer, entry

from .calls import START, Api, Array, Refused, classes, request, set_parameter
from .conftest import KSERVE

SAID = "[request id: <id_unknown>] unexpected shape for input 'input' for model"
STEPS = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
IDS = np.array([3, 9, 0, 3, 3], np.int64)


@pytest.fixture(scope="module")
def words_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return token_bundle(tmp_path_factory.mktemp("layouts"), "words", head=(4,))


@pytest.fixture(scope="module")
def apis(lstm_model: Path, words_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Api]]:
    """Models: lstm and ids without a batch dimension, words one step at a time."""
    ids = token_bundle(tmp_path_factory.mktemp("ids"), "ids", head=(4,))  # the same weights as words
    options = [*KSERVE, "--kserve-layout", "lstm=no_batch,ids=no_batch, words=one_step"]
    with ForkedServer([lstm_model, words_model, ids], "memory:", options) as server, server.channel() as channel:
        yield {name: Api(channel, name) for name in ("lstm", "words", "ids")}


def test_without_a_batch_dimension(apis: dict[str, Api], lstm_model: Path, sequence: int) -> None:
    outputs = offline(lstm_model, STEPS)
    lstm = apis["lstm"]
    first = lstm.infer(STEPS[0], sequence, START).outputs["prediction"]
    more = lstm.infer(STEPS[1:4], sequence).outputs["prediction"]
    asked = lstm.infer(STEPS[4:], sequence, outputs=["state.h", "prediction"]).outputs
    np.testing.assert_array_equal(first, outputs["prediction"][0], strict=True)
    np.testing.assert_array_equal(more, outputs["prediction"][1:4], strict=True)
    np.testing.assert_array_equal(asked["prediction"], outputs["prediction"][4:], strict=True)
    np.testing.assert_array_equal(asked["state.h"], outputs["state.h"], strict=True)


def test_ids_without_a_batch_dimension(apis: dict[str, Api], words_model: Path, sequence: int) -> None:
    outputs = offline(words_model, IDS)["prediction"]
    first = apis["ids"].infer(IDS[0].reshape(()), sequence, START).outputs["prediction"]
    more = apis["ids"].infer(IDS[1:], sequence).outputs["prediction"]
    np.testing.assert_array_equal(first, outputs[0], strict=True)
    np.testing.assert_array_equal(more, outputs[1:], strict=True)


def test_one_step_has_no_time_dimension_in_the_outputs(apis: dict[str, Api], words_model: Path, sequence: int) -> None:
    outputs = offline(words_model, IDS)["prediction"]
    for step, shape in enumerate([(1, 1), (1,), (1, 1)]):
        came = apis["words"].infer(IDS[step].reshape(shape), sequence, START if step == 0 else {})
        np.testing.assert_array_equal(came.outputs["prediction"], outputs[step : step + 1], strict=True)


def test_each_time_step_is_charged(lstm_model: Path, tmp_path: Path) -> None:
    """One second's worth may come at once, and what a longer chunk takes beyond it is owed."""
    token, line = entry("slow", "step")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{line}\nquota tenant=slow steps_per_second=1\n")
    options = [*KSERVE, "--kserve-layout", "lstm=no_batch", "--tokens", str(tokens)]
    with ForkedServer([lstm_model], "memory:", options) as server, server.channel() as channel:
        lstm = Api(channel, "lstm", bearer(token))
        lstm.infer(np.zeros((500, 3), np.float32), 1, START)
        with pytest.raises(Refused) as caught:
            lstm.infer(STEPS[0], 1)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert "quota steps_per_second" in caught.value.message


@pytest.mark.parametrize(("model", "shape"), [("lstm", [2]), ("words", [1, 2])])
def test_classes_have_the_layouts_batch_dimension(
    apis: dict[str, Api], model: str, shape: list[int], sequence: int
) -> None:
    message = request(model, STEPS[0] if model == "lstm" else IDS[:1, None], sequence, START)
    set_parameter(message.outputs.add(name="prediction").parameters["classification"], 2)
    response = apis[model].call("ModelInfer", message)
    assert list(response.outputs[0].shape) == shape
    assert len(classes(response.raw_output_contents[0])) == 2


@pytest.mark.parametrize(
    ("model", "values", "says"),
    [
        ("lstm", STEPS[None], f"{SAID} 'lstm'. Expected [-1,3] or [3], got [1,5,3]"),
        ("lstm", STEPS[:, :2], f"{SAID} 'lstm'. Expected [-1,3] or [3], got [5,2]"),
        ("words", IDS[None], f"{SAID} 'words'. Expected [-1,1] or [-1], got [1,5]"),
        (
            "words",
            IDS,
            "inference request to model 'words' must specify batch-size 1 due to requirements of sequence batcher",
        ),
        ("ids", IDS[None], f"{SAID} 'ids'. Expected [-1] or [], got [1,5]"),
    ],
)
def test_other_shapes_are_refused(apis: dict[str, Api], model: str, values: Array, says: str, sequence: int) -> None:
    with pytest.raises(Refused) as caught:
        apis[model].infer(values, sequence, START)
    assert caught.value == Refused("INVALID_ARGUMENT", says)


@pytest.mark.parametrize(
    ("model", "most", "taken", "returned"), [("lstm", 0, [-1, 3], [-1, 2]), ("words", 1, [-1, 1], [-1, 4])]
)
def test_metadata_and_configuration_have_the_layout(
    apis: dict[str, Api], model: str, most: int, taken: list[int], returned: list[int]
) -> None:
    metadata = apis[model].call("ModelMetadata", pb.ModelMetadataRequest(name=model))
    assert ([*metadata.inputs[0].shape], [*metadata.outputs[0].shape]) == (taken, returned)
    config = apis[model].call("ModelConfig", pb.ModelConfigRequest(name=model)).config
    assert config.max_batch_size == most
    assert ([*config.input[0].dims], [*config.output[0].dims]) == (taken[most:], returned[most:])


def test_layouts() -> None:
    assert read_layouts(" m=no_batch, n=one_step ,", ["m", "n", "o"]) == {
        "m": LAYOUTS["no_batch"],
        "n": LAYOUTS["one_step"],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("m", "kserve_layout: got 'm', expected MODEL=LAYOUT, comma-separated"),
        ("n=batch", "kserve_layout: got the model 'n', expected one of m"),
        ("m=0", "kserve_layout: got '0' for m, expected one of batch, no_batch, one_step"),
        ("m=batch,m=batch", "kserve_layout: got two layouts for m, expected one"),
    ],
)
def test_layouts_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(StartError) as caught:
        read_layouts(text, ["m"])
    assert str(caught.value) == says
