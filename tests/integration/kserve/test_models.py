"""What clients learn about the server and its models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_proto.v1 import cellkeeper_pb2 as v1
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.rpc.kserve.model_info import EXTENSIONS
from cellkeeper_service.rpc.kserve.servicer import NOT_SERVED
from cellkeeper_service.rpc.kserve.tensor_names import read_names

from testing.forked_server import ForkedServer

from .calls import PATH, START, Api, Refused, numbers

MODELS = ["count", "lstm", "wide", "tokens"]
UNKNOWN = "Request for unknown model: 'nope' is not found"
UNKNOWN_VERSION = "Request for unknown model: 'count' version 9 is not found"


def test_the_server_is_live_and_ready(count: Api) -> None:
    assert count.call("ServerLive", pb.ServerLiveRequest()).live
    assert count.call("ServerReady", pb.ServerReadyRequest()).ready
    metadata = count.call("ServerMetadata", pb.ServerMetadataRequest())
    assert (metadata.name, tuple(metadata.extensions)) == ("cellkeeper", EXTENSIONS)
    assert metadata.version


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("count", "", True), ("count", "1", True), ("count", "01", True), ("count", "9", False), ("", "", False)],
)
def test_whether_a_model_is_ready(count: Api, name: str, version: str, ready: bool) -> None:
    assert count.call("ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_the_index(count: Api) -> None:
    index = count.call("RepositoryIndex", pb.RepositoryIndexRequest())
    assert [(one.name, one.version, one.state) for one in index.models] == [(name, "1", "READY") for name in MODELS]


@pytest.mark.parametrize(
    ("model", "tensor", "datatype", "dims", "output", "out_dims"),
    [
        ("lstm", "input", "FP32", [-1, 3], "prediction", [-1, 2]),
        ("tokens", "input", "INT32", [-1], "prediction", [-1, 1]),
        ("wide", "X", "FP32", [-1, 2], "Y", [-1, 2]),
    ],
)
def test_metadata_and_configuration_agree(
    count: Api, model: str, tensor: str, datatype: str, dims: list[int], output: str, out_dims: list[int]
) -> None:
    metadata = count.call("ModelMetadata", pb.ModelMetadataRequest(name=model))
    assert (metadata.name, list(metadata.versions)) == (model, ["1"])
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [(tensor, datatype, [-1, *dims])]
    described = [(one.name, one.datatype, list(one.shape)) for one in metadata.outputs]
    assert described == [(output, "FP32", [-1, *out_dims])]
    config = count.call("ModelConfig", pb.ModelConfigRequest(name=model)).config
    assert (config.name, config.max_batch_size, config.platform) == (model, 1, metadata.platform)
    assert [(one.name, pb.DataType.Name(one.data_type), list(one.dims)) for one in config.input] == [
        (tensor, f"TYPE_{datatype}", dims)
    ]
    assert [(one.name, list(one.dims)) for one in config.output] == [(output, out_dims)]
    assert config.sequence_batching.max_sequence_idle_microseconds == 600_000_000
    assert config.sequence_batching.oldest.max_candidate_sequences > 0
    assert config.model_transaction_policy == pb.ModelTransactionPolicy()


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
def test_an_unknown_model_is_not_found(count: Api, method: str) -> None:
    kind = {"ModelMetadata": pb.ModelMetadataRequest, "ModelConfig": pb.ModelConfigRequest}[method]
    for name, version, text in (("nope", "", UNKNOWN), ("count", "9", UNKNOWN_VERSION)):
        with pytest.raises(Refused) as caught:
            count.call(method, kind(name=name, version=version))
        assert caught.value == Refused("NOT_FOUND", text)


@pytest.mark.parametrize(
    ("model", "version", "code", "text"),
    [
        ("nope", "", "NOT_FOUND", UNKNOWN),
        ("", "", "NOT_FOUND", "Request for unknown model: '' is not found"),
        ("count", "9", "NOT_FOUND", UNKNOWN_VERSION),
        (
            "count",
            "x",
            "INVALID_ARGUMENT",
            "failed to get model version from specified version string 'x' (details: stol), version should be an "
            "integral value > 0",
        ),
        (
            "count",
            "-1",
            "INVALID_ARGUMENT",
            "invalid model version specified '-1' , version should be an integral value > 0",
        ),
        ("count", "0", "NOT_FOUND", "Request for unknown model: 'count' version 0 is not found"),
    ],
)
def test_requests_to_what_is_not_served(count: Api, model: str, version: str, code: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        count.call("ModelInfer", pb.ModelInferRequest(model_name=model, model_version=version))
    assert caught.value == Refused(code, text)


def test_statistics_count(count: Api, sequence: int) -> None:
    def read() -> pb.ModelStatistics:
        found: pb.ModelStatistics
        (found,) = count.call("ModelStatistics", pb.ModelStatisticsRequest(name="count")).model_stats
        return found

    before = read()
    count.infer(numbers(1), sequence, START)
    count.infer(numbers(1, 2), sequence)
    with pytest.raises(Refused):
        count.infer(numbers(1), 0)
    after = read()
    assert after.inference_count - before.inference_count == 2
    assert after.execution_count - before.execution_count == 2
    stats, stats_before = after.inference_stats, before.inference_stats
    assert (stats.success.count - stats_before.success.count, stats.fail.count - stats_before.fail.count) == (2, 1)
    assert stats.success.ns > stats_before.success.ns
    assert stats.compute_infer.ns > stats_before.compute_infer.ns
    assert after.last_inference >= max(before.last_inference, 1)
    every = count.call("ModelStatistics", pb.ModelStatisticsRequest()).model_stats
    assert [one.name for one in every] == MODELS
    with pytest.raises(Refused) as caught:
        count.call("ModelStatistics", pb.ModelStatisticsRequest(name="nope"))
    assert caught.value == Refused("INVALID_ARGUMENT", "requested model 'nope' is not available")


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("2", "requested model version is not available for model 'count'"),
        ("x", "failed to get model version from specified version string 'x'"),
    ],
)
def test_of_a_version_that_is_not_there_nothing_is_counted(count: Api, version: str, text: str) -> None:
    assert len(count.call("ModelStatistics", pb.ModelStatisticsRequest(name="count", version="1")).model_stats) == 1
    with pytest.raises(Refused) as caught:
        count.call("ModelStatistics", pb.ModelStatisticsRequest(name="count", version=version))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message.startswith(text)


@pytest.mark.parametrize("method", NOT_SERVED)
def test_other_rpcs_of_tritons_say_what_there_is_instead(count: Api, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        count.channel.unary_unary(PATH + method, bytes, bytes)(b"", timeout=30)
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == f"{method} is not served here: {NOT_SERVED[method]}"


def test_bytes_that_are_no_message_are_refused(count: Api) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        count.channel.unary_unary(PATH + "ModelInfer", bytes, bytes)(b"\x0a\x7fcut", timeout=30)
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def without(counting_model: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], "memory:") as server:
        yield server


def test_it_is_off_unless_asked_for(without: ForkedServer) -> None:
    with without.channel() as channel:
        with pytest.raises(Refused) as caught:
            Api(channel).call("ServerLive", pb.ServerLiveRequest())
        assert caught.value.code == "UNIMPLEMENTED"
        without.stub(channel).ListModels(v1.ListModelsRequest(), timeout=30)


SPEC = ModelSpec(
    "m",
    b"f" * 32,
    TensorSpec("input", "float32", (3,)),
    0,
    False,
    tuple(TensorSpec(name, "float32", (2,)) for name in ("prediction", "hidden", "other")),
    (TensorSpec("h", "float32", (4,)),),
)


def test_names() -> None:
    names = read_names(" m/X=input, m/Y=prediction,m/S=state.h ", {"m": SPEC})["m"]
    assert ([*names.inputs], names.listed) == (["X"], ("Y", "other"))
    assert names.outputs == {"Y": "prediction", "hidden": "hidden", "other": "other", "S": "state.h"}
    plain = read_names("", {"m": SPEC})["m"]
    assert ([*plain.inputs], plain.listed) == (["input"], ("prediction", "other"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("X=input", "kserve_names: got 'X=input', expected MODEL/NAME=TENSOR, comma-separated"),
        ("m/X", "kserve_names: got 'm/X', expected MODEL/NAME=TENSOR, comma-separated"),
        ("n/X=input", "kserve_names: got the model 'n', expected one of m"),
        (
            "m/X=nope",
            "kserve_names: got the tensor 'nope' of m, expected one of input, prediction, hidden, other, state.h",
        ),
        ("m/X=input,m/Z=input", "kserve_names: got two names for m's tensor 'input', expected one"),
        ("m/other=prediction", "kserve_names: got one name for two outputs of m, expected one for each"),
    ],
)
def test_names_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(StartError) as caught:
        read_names(text, {"m": SPEC})
    assert str(caught.value) == says
