"""Named inputs on the wire, without the client: what other languages send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.engine.load import offline

from testing.server_process import ServerProcess
from testing.two_inputs import AUDIO, Array, part, random_steps
from tests.integration.rpc.calls import Api, Refused, Result, from_wire, new_id, to_wire

STEPS = 8
INPUTS = random_steps(STEPS, 5)
WIRE = {"audio": pb.FLOAT32, "ids": pb.INT64}


@pytest.fixture(scope="module")
def api(served: ServerProcess) -> Iterator[Api]:
    with served.channel() as channel:
        yield Api(served.stub(channel), "two")


@pytest.fixture(scope="module")
def expected(two_inputs: Path) -> Array:
    return offline(two_inputs, INPUTS)["prediction"]


def tensors(inputs: dict[str, Array]) -> list[pb.Tensor]:
    return [
        pb.Tensor(name=name, dtype=WIRE[name], shape=values.shape, data=values.tobytes())
        for name, values in inputs.items()
    ]


def columns(inputs: dict[str, Array]) -> list[pb.InputColumn]:
    return [
        pb.InputColumn(name=name, dtype=WIRE[name], shape=values.shape[1:], data=values.tobytes())
        for name, values in inputs.items()
    ]


def chunk(session: str, first: int, last: int, position: Position | None = None) -> pb.StepRequest:
    return pb.StepRequest(
        model="two",
        session=session,
        named_inputs=tensors(part(INPUTS, slice(first, last))),
        position=None if position is None else to_wire(position),
    )


def frame(sessions: list[str], steps: int, positions: list[Position]) -> pb.StepFrame:
    """Returns a frame with each session's first `steps` time steps."""
    repeated = {name: np.concatenate([values[:steps]] * len(sessions)) for name, values in INPUTS.items()}
    return pb.StepFrame(
        frame_id=1,
        model="two",
        sessions=sessions,
        steps=[steps] * len(sessions),
        named_inputs=columns(repeated),
        positions=b"".join(positions),
    )


def logged(first: int, last: int) -> bytes:
    """Returns the bytes of these time steps as heads hash them: audio, then ids, for each time step."""
    return b"".join(INPUTS["audio"][at].tobytes() + INPUTS["ids"][at].tobytes() for at in range(first, last))


def test_the_model_lists_its_inputs_and_has_no_single_one(api: Api) -> None:
    info = api.call("GetModel", pb.GetModelRequest(model="two"))
    assert not info.HasField("input")
    assert [(one.name, one.dtype, [*one.shape], one.vocabulary) for one in info.inputs] == [
        ("audio", pb.FLOAT32, [AUDIO], 0),
        ("ids", pb.INT64, [], 5),
    ]
    count = api.call("GetModel", pb.GetModelRequest(model="count"))
    assert (count.HasField("input"), len(count.inputs)) == (True, 0)


def test_a_chunk_is_applied_once_and_moves_the_head_by_its_bytes(api: Api, session: str, expected: Array) -> None:
    start = api.open(session)
    for _ in range(2):
        got = api.send_step(chunk(session, 0, 3, start))
        np.testing.assert_array_equal(got.outputs["prediction"], expected[:3], strict=True)
        assert got.after == advance(start, logged(0, 3), 4 * AUDIO + 8)
    assert got.replayed
    other = chunk(session, 1, 4, start)
    assert api.send_step(other).reason == "STEP_CONFLICT"
    assert api.position(session) == got.after


def test_inputs_come_in_any_order_and_width(api: Api, session: str, expected: Array) -> None:
    message = chunk(session, 0, 3)
    wide = {"audio": INPUTS["audio"][:3].astype("<f8"), "ids": INPUTS["ids"][:3].astype("<i4")}
    del message.named_inputs[:]
    for name, dtype in (("ids", pb.INT32), ("audio", pb.FLOAT64)):
        message.named_inputs.add(name=name, dtype=dtype, shape=wide[name].shape, data=wide[name].tobytes())
    np.testing.assert_array_equal(api.send_step(message).outputs["prediction"], expected[:3], strict=True)


@pytest.mark.parametrize("way", ["batch", "stream"])
def test_a_frame_has_a_column_for_each_input(api: Api, session: str, expected: Array, way: Any) -> None:
    sessions = [f"{session}-{number}" for number in range(3)]
    starts = [api.open(name) for name in sessions]
    for replayed in (False, True):
        for start, result in zip(starts, api.send_frame(way, frame(sessions, 4, starts)), strict=True):
            np.testing.assert_array_equal(result.outputs["prediction"], expected[:4], strict=True)
            assert (result.replayed, result.after) == (replayed, advance(start, logged(0, 4), 4 * AUDIO + 8))


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        (np.float32(np.inf), "NON_FINITE_INPUT", "named_inputs[audio]: got inf at time step 1, element [2]"),
        (np.int64(5), "INVALID_FIELD", "named_inputs[ids]: got 5 at time step 1, expected integers of 0 to 4"),
        (np.int64(-1), "INVALID_FIELD", "named_inputs[ids]: got -1 at time step 1"),
    ],
)
def test_a_value_that_cannot_be_taken_is_its_items_alone(
    api: Api, session: str, expected: Array, value: Any, reason: str, says: str
) -> None:
    sessions = [f"{session}-{number}" for number in range(3)]
    message = frame(sessions, 4, [api.open(name) for name in sessions])
    column = message.named_inputs[0 if value.dtype.kind == "f" else 1]
    data = np.frombuffer(column.data, value.dtype).copy().reshape(12, -1)
    data[4 + 1, -1] = value
    column.data = data.tobytes()
    first, bad, last = api.send_frame("batch", message)
    assert (bad.code, bad.reason, says in bad.message) == ("INVALID_ARGUMENT", reason, True), bad.message
    for result in (first, last):
        np.testing.assert_array_equal(result.outputs["prediction"], expected[:4], strict=True)
    alone = chunk(f"{session}-alone", 0, 4)
    alone.named_inputs[0 if value.dtype.kind == "f" else 1].data = data[4:8].tobytes()
    refused = api.send_step(alone)
    assert (refused.reason, says in refused.message) == (reason, True), refused.message


Change = Callable[[Any], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.named_inputs.pop(), "named_inputs: got 'audio'; ids is missing, expected each of audio, ids once"),
        (
            lambda m: m.named_inputs.add(name="gain", dtype=pb.FLOAT32),
            "named_inputs: got 'audio', 'ids', 'gain'; 'gain' is unknown, expected each of audio, ids once",
        ),
        (
            lambda m: m.named_inputs.append(m.named_inputs[0]),
            "named_inputs: got 'audio', 'ids', 'audio', expected each",
        ),
        (lambda m: m.ClearField("named_inputs"), "named_inputs: got none; audio is missing; ids is missing"),
        (lambda m: setattr(m, "inputs", b"1234"), "inputs: got dtype, shape or inputs, expected `named_inputs` only"),
        (
            lambda m: setattr(m.named_inputs[1], "dtype", pb.FLOAT32),
            "named_inputs[ids].dtype: got FLOAT32, expected INT",
        ),
        (
            lambda m: setattr(m.named_inputs[0], "data", b"1"),
            "named_inputs[audio].data: got 1 bytes, expected 24 bytes",
        ),
        (lambda m: m.named_inputs[0].shape.append(2), "named_inputs[audio].shape: got [T, 3, 2], expected [T, 3]"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(api: Api, session: str, change: Change, says: str) -> None:
    start = api.open(session)
    message = chunk(session, 0, 2, start)
    change(message)
    refused = api.send_step(message)
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert says in refused.message, refused.message
    columnar = frame([session], 2, [start])
    change(columnar)
    with pytest.raises(Refused) as caught:
        api.send_frame("batch", columnar)
    assert says in caught.value.result.message
    assert api.position(session) == start


def test_inputs_of_different_lengths_are_refused(api: Api, session: str) -> None:
    message = chunk(session, 0, 3)
    message.named_inputs[1].CopyFrom(tensors(part(INPUTS, slice(0, 2)))[1])
    says = "named_inputs[ids].shape: got T = 2, expected T = 3, as in audio: all inputs have the same time steps"
    assert says in api.send_step(message).message
    message = chunk(session, 0, 3)
    del message.named_inputs[0].shape[:]
    assert "named_inputs[audio].shape: got [], expected [T, 3]" in api.send_step(message).message


def test_names_for_a_model_with_one_input_are_refused(api: Api, session: str) -> None:
    message = chunk(session, 0, 1)
    message.model, message.dtype, message.inputs = "count", pb.FLOAT32, b"\0" * 4
    message.shape.extend((1, 1))
    assert (
        "named_inputs: got 'audio', 'ids', expected `inputs`: the model has one input" in api.send_step(message).message
    )


def test_a_window_carries_a_session_over(api: Api, session: str) -> None:
    at = api.open(session)
    item = pb.CarryOverRequest.Item(
        session=session, generation=at.generation, request_id=new_id(), policy=pb.CarryOverRequest.RERUN
    )

    def carried(item: pb.CarryOverRequest.Item) -> pb.SessionResult:
        result: pb.SessionResult = api.call("CarryOver", pb.CarryOverRequest(model="two", items=[item])).results[0]
        return result

    assert "items[0].named_inputs: got none; audio is missing" in carried(item).error.message
    item.named_inputs.extend(tensors(part(INPUTS, slice(0, 5))))
    assert from_wire(carried(item).position) == at  # it belongs to that version already
    item.policy = pb.CarryOverRequest.KEEP
    assert "items[0].inputs: got a window with KEEP" in carried(item).error.message
    item.ClearField("named_inputs")
    item.dtype = pb.FLOAT32
    assert "items[0].inputs: got a window with KEEP" in carried(item).error.message


def test_a_forecast_is_refused(api: Api, session: str) -> None:
    message = chunk(session, 0, 1)
    message.peek, message.rollout_steps = True, 3
    refused: Result = api.send_step(message)
    assert (refused.code, refused.field) == ("INVALID_ARGUMENT", "rollout_steps"), refused


def test_a_channel_is_not_needed_to_read_the_contract(served: ServerProcess) -> None:
    """An older client finds no input, and reports this before it sends anything."""
    with grpc.insecure_channel(served.target) as channel:
        info = served.stub(channel).GetModel(pb.GetModelRequest(model="two"))
    assert (info.input.dtype, info.input.name) == (pb.DATA_TYPE_UNSPECIFIED, "")
