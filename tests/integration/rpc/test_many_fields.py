"""Messages of very many fields are refused before they are decoded, and shapes of very many axes are not copied.

Either would hold the event loop, which serves everybody, for many seconds, and take far more memory than the message.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import grpc
import pytest
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.field_count import has_more_fields
from cellkeeper_service.rpc.frames import read_frame
from cellkeeper_service.rpc.kserve.input_tensors import read_tensors
from cellkeeper_service.rpc.kserve.tensor_names import TensorNames
from cellkeeper_service.rpc.steps import read_step
from cellkeeper_service.rpc.tensors import MAX_AXES, read_state
from google.protobuf.message import DecodeError, Message

from testing.server_process import ServerProcess
from tests.unit.core.made import models

from .calls import Api, Chunk, Result, frame_message, from_frames, from_status, numbers
from .test_bad_bytes import SERVICE, UNARY

MOST = WireLimits(max_frame_items=64).max_message_fields  # of the server `served`
EMPTY = b"\x7a\x00"  # field 15, which no message has, so that every RPC can be sent it
CATALOG = Catalog({"m": models()}, WireLimits())
AXES = [1] * 1_000_000


ITEM = pb.SetStateRequest.Item(
    session="a",
    generation=bytes(16),
    request_id=bytes(16),
    step=1 << 40,
    state=[pb.Tensor(name=name, dtype=pb.FLOAT32, shape=[2, 3, 400], data=bytes(300)) for name in "hc"],
)
PARAMETERS = inference_pb2.ModelInferRequest(id="x" * 300)
PARAMETERS.parameters["sequence_id"].int64_param = 7
PARAMETERS.parameters["step"].int64_param = -1


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (pb.StepFrame(sessions=["a", "b"] * 100, steps=[1] * 200, peek=True, frame_id=2**64 - 1), 203),
        (pb.SetStateRequest(model="count", items=[ITEM] * 3), 1 + 3 * (1 + 4 + 2 * 5)),
        (pb.StepResponse(queued_seconds=0.5, computed_seconds=0.5, position=pb.Position(step=1), created=True), 5),
        (PARAMETERS, 1 + 2 * 4),
    ],
    ids=["frame", "items", "floats", "map"],
)
def test_every_field_is_counted_once(message: Message, count: int) -> None:
    data = message.SerializeToString()
    assert len(data) > 2 * count  # otherwise its length alone would say that it cannot have more
    kind: Any = message.DESCRIPTOR
    assert has_more_fields(data, kind, count - 1)
    assert not has_more_fields(data, kind, count)


def test_no_bytes_are_an_error_while_they_are_counted() -> None:
    """What is not a message is found by decoding it."""
    data = pb.SetStateRequest(model="count", items=[ITEM] * 3).SerializeToString()
    kind: Any = pb.SetStateRequest.DESCRIPTOR
    for end in range(len(data)):
        for cut in (data[:end], data[:end] + b"\xff" * 12, data[:end] + b"\x0b\x0c\x0f\x7f"):
            assert isinstance(has_more_fields(cut, kind, len(cut) // 2 - 1), bool)
    with pytest.raises(DecodeError):
        pb.SetStateRequest.FromString(data[:-1])


@pytest.mark.parametrize("method", UNARY)
def test_a_message_of_too_many_fields_is_refused(served: ServerProcess, method: str) -> None:
    with served.channel() as channel:
        call = channel.unary_unary(SERVICE + method, bytes, bytes)  # bytes in, bytes out
        with pytest.raises(grpc.RpcError) as caught:
            call(EMPTY * (MOST + 1), timeout=30)
    result = from_status(caught.value)
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "request")
    assert result.message == f"request: got more than {MOST} fields, expected fewer; send several requests"


def test_as_many_fields_as_are_allowed_change_nothing(served: ServerProcess) -> None:
    with served.channel() as channel:
        call = channel.unary_unary(SERVICE + "ListModels", bytes, pb.ListModelsResponse.FromString)
        assert len(call(EMPTY * MOST, timeout=30).models) == 4


def test_a_frame_of_too_many_fields_ends_its_stream_after_the_frames_before_it(
    served: ServerProcess, count: Api, session: str
) -> None:
    frame = frame_message("count", [Chunk(session, numbers(5), count.open(session))])
    answers: list[Result] = []
    with served.channel() as channel:
        call = channel.stream_stream(SERVICE + "StepStream", bytes, pb.StepFrameReply.FromString)
        replies = call(iter([frame.SerializeToString(), EMPTY * (MOST + 1)]), timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            answers.extend(from_frames(1, [reply])[0] for reply in replies)
    assert "fields" in from_status(caught.value).message
    assert [answer.sums for answer in answers] == [[5]]


def of_step() -> None:
    read_step(pb.StepRequest(model="m", session="s", dtype=pb.INT32, shape=AXES, inputs=bytes(4)), CATALOG, 0.0)


def of_frame() -> None:
    message = pb.StepFrame(model="m", sessions=["s"], dtype=pb.INT32, step_shape=AXES, inputs=bytes(4))
    read_frame(message, CATALOG, latest=inf, needs_positions=False)


def of_state() -> None:
    spec = CATALOG.spec("m")
    read_state([pb.Tensor(name=state.name, shape=AXES) for state in spec.states], spec, "state")


def of_kserve() -> None:
    spec = CATALOG.spec("m")
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="INT32", shape=AXES)
    names = TensorNames(spec, {spec.input.name: "x"})
    read_tensors(inference_pb2.ModelInferRequest(inputs=[tensor]), names, spec, CATALOG)


@pytest.mark.parametrize("read", [of_step, of_frame, of_state, of_kserve])
def test_of_a_shape_of_too_many_axes_only_the_first_are_looked_at(read: Callable[[], Any]) -> None:
    with pytest.raises(Rejection) as caught:
        read()
    assert len(caught.value.message) < 20 * MAX_AXES
