"""Bad input: refused with the field, what came and what was expected; nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from .calls import (
    Api,
    Array,
    Chunk,
    Refused,
    Result,
    Way,
    frame_message,
    new_id,
    numbers,
    step_message,
)

SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED = re.compile(r"^\S+: got .+, expected .+", re.DOTALL)
FRAME_WAYS: tuple[Way, ...] = ("batch", "stream")
GOOD = numbers(1, 2)


@pytest.fixture(params=FRAME_WAYS)
def frame_way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def at(count: Api, session: str) -> Iterator[Position]:
    """A session after [1, 2], which must stand there untouched when the test is over; so must its neighbour."""
    neighbour = f"{session}-canary"
    places = {name: count.send("unary", Chunk(name, GOOD, count.open(name))).after for name in (session, neighbour)}
    yield places[session]
    for name, place in places.items():
        assert count.position(name) == place
        assert count.send("unary", Chunk(name, numbers(10), place)).sums == [13]


def check(result: Result, field: str, *words: str, reason: str = "INVALID_FIELD") -> None:
    """The refusal names `field`, and its text has all of `words`."""
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", reason, field), result
    assert SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED.match(result.message), result.message
    assert result.message.startswith(field.partition(".")[0].partition("[")[0]), result.message
    for word in words:
        assert word in result.message, result.message


# ------------------------------------------------------------------------------------------ the unary step

Edit = Callable[[pb.StepRequest], Any]


def put(**fields: Any) -> Edit:
    def edit(request: pb.StepRequest) -> None:
        for name, value in fields.items():
            request.ClearField(name)
            if isinstance(value, (list, tuple)):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)

    return edit


UNARY: dict[str, tuple[Edit, str, tuple[str, ...]]] = {
    "no shape": (put(shape=[]), "shape", ("[]", "[T, 1]")),
    "no time steps": (put(shape=[0, 1], inputs=b""), "shape", ("T = 0", "1 to 512")),
    "too many time steps": (put(shape=[513, 1], inputs=bytes(513 * 4)), "shape", ("T = 513", "1 to 512")),
    "a billion time steps": (put(shape=[2**32 - 1, 1]), "shape", ("1 to 512",)),
    "too many features": (put(shape=[1, 2]), "shape", ("[T, 2]", "[T, 1]")),
    "too few axes": (put(shape=[2]), "shape", ("[T]", "[T, 1]")),
    "too many axes": (put(shape=[2, 1, 1]), "shape", ("[T, 1, 1]", "[T, 1]")),
    "no dtype": (put(dtype=0), "dtype", ("DATA_TYPE_UNSPECIFIED", "FLOAT32")),
    "whole numbers for features": (put(dtype=pb.INT32), "dtype", ("INT32", "FLOAT32")),
    "a dtype that is none": (put(dtype=77), "dtype", ("77", "FLOAT32")),
    "too few bytes": (put(inputs=bytes(7)), "inputs", ("7 bytes", "8 bytes")),
    "too many bytes": (put(inputs=bytes(12)), "inputs", ("12 bytes", "8 bytes")),
    "no bytes": (put(inputs=b""), "inputs", ("0 bytes", "8 bytes")),
    "an unknown model": (put(model="no such"), "model", ("'no such'", "count, hold, lstm, tokens")),
    "no model among several": (put(model=""), "model", ("nothing", "count, hold, lstm, tokens")),
    "an unknown output": (put(outputs=["state", "logits"]), "outputs", ("'logits'", "hidden, prediction, state")),
    "an empty session id": (put(session=""), "session", ("0 bytes", "1 to 256 bytes")),
    "a long session id": (put(session="s" * 257), "session", ("257 bytes", "1 to 256 bytes")),
    "a long session id of few letters": (put(session="\N{SNOWMAN}" * 85 + "xx"), "session", ("257 bytes",)),
}


@pytest.mark.parametrize(("edit", "field", "words"), UNARY.values(), ids=list(UNARY))
@pytest.mark.usefixtures("at")
def test_a_unary_step(count: Api, session: str, edit: Edit, field: str, words: tuple[str, ...]) -> None:
    request = step_message("count", Chunk(session, GOOD))
    edit(request)
    check(count.send_step(request), field, *words)


def test_a_session_id_of_256_bytes_is_one(count: Api, session: str, way: Way) -> None:
    name = session + "\N{SNOWMAN}" * 74 + "xx"
    assert len(name.encode()) == 256
    at = count.open(name)
    assert count.send(way, Chunk(name, GOOD, at)).sums == [1, 3]
    assert count.info(name).session == name


def test_a_position_that_is_none(count: Api, session: str, at: Position) -> None:
    for change, field, words in (
        ({"generation": bytes(15)}, "position.generation", ("15 bytes", "16 bytes")),
        ({"generation": b""}, "position.generation", ("0 bytes", "16 bytes")),
        ({"head": bytes(9)}, "position.head", ("9 bytes", "8 bytes")),
        ({"step": 2**64 - 1}, "position.step", (str(2**64 - 1), str(2**63))),
    ):
        request = step_message("count", Chunk(session, GOOD, at))
        for name, value in change.items():
            setattr(request.position, name, value)
        check(count.send_step(request), field, *words)


def test_an_ack_of_what_is_still_to_come(count: Api, session: str, at: Position, way: Way) -> None:
    field = "acked" if way == "unary" else "acked[0]"
    got = count.send(way, Chunk(session, GOOD, at, acked=3))
    check(got, field, "3", "at most the position's step, 2")


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(count: Api, session: str, at: Position, way: Way, bad: float) -> None:
    got = count.send(way, Chunk(session, numbers(1, bad, 2), at))
    check(got, "inputs", f"got {bad} at time step 1", "finite values", reason="NON_FINITE_INPUT")


def test_a_float64_that_float32_does_not_hold(count: Api, session: str, at: Position, way: Way) -> None:
    got = count.send(way, Chunk(session, np.array([[1e300]]), at))
    check(got, "inputs", "finite values", reason="NON_FINITE_INPUT")


def test_where_nan_is_a_missing_value_infinity_is_none(count: Api, session: str, way: Way) -> None:
    api = Api(count.stub, "hold")
    inputs = np.array([[1, 2], [np.nan, 3], [4, np.nan]], np.float32)
    got = api.send(way, Chunk(session, inputs, api.open(session)))
    np.testing.assert_array_equal(got.outputs["prediction"], [[1, 2], [2, 5], [6, 8]])
    bad = np.array([[np.nan, 1], [1, np.inf]], np.float32)
    refused = api.send(way, Chunk(session, bad, got.after))
    check(refused, "inputs", "inf at time step 1, feature 1", "NaN where one is missing", reason="NON_FINITE_INPUT")
    again = api.send(way, Chunk(session, inputs, api.position(session), acked=0), peek=True)
    np.testing.assert_array_equal(again.outputs["prediction"][0], [7, 10])


@pytest.mark.parametrize(
    ("bad", "dtype"),
    [(10, np.int32), (-1, np.int32), (2**31 - 1, np.int32), (10, np.int64), (2**40, np.int64), (-(2**63), np.int64)],
)
def test_a_token_that_the_model_does_not_have(count: Api, session: str, way: Way, bad: int, dtype: Any) -> None:
    api = Api(count.stub, "tokens")
    names = [f"{session}-{index}" for index in range(3)]
    at = {name: api.open(name) for name in names}
    good: Array = np.array([0, 9], dtype)
    wrong: Array = np.array([3, bad], dtype)
    if way == "unary":
        got = api.send(way, Chunk(names[1], wrong, at[names[1]]))
    else:
        chunks = [Chunk(name, wrong if name == names[1] else good, at[name]) for name in names]
        left, got, right = api.send_frame(way, frame_message("tokens", chunks))
        assert left.code == right.code == "OK"
    check(got, "inputs", f"token id {bad} at time step 1", "below 10")
    assert api.send(way, Chunk(names[1], good, at[names[1]])).code == "OK"


def test_features_for_tokens(count: Api, session: str, way: Way) -> None:
    api = Api(count.stub, "tokens")
    at = api.open(session)
    chunk = Chunk(session, np.array([1.0], np.float32), at)
    got = api.send(way, chunk) if way == "unary" else whole_frame_refusal(api, way, frame_message("tokens", [chunk]))
    check(got, "dtype", "FLOAT32", "INT32 or INT64")


# ------------------------------------------------------------------------------------------ items of a frame


def long_id(frame: pb.StepFrame) -> None:
    frame.sessions[1] = "\N{SNOWMAN}" * 86


def empty_id(frame: pb.StepFrame) -> None:
    frame.sessions[1] = ""


def late_ack(frame: pb.StepFrame) -> None:
    frame.acked = bytes(8) + (9).to_bytes(8, "little") + bytes(8)


def huge_step(frame: pb.StepFrame) -> None:
    packed = bytearray(frame.positions)
    packed[32 + 16 : 32 + 24] = b"\xff" * 8
    frame.positions = bytes(packed)


def no_steps(frame: pb.StepFrame) -> None:
    frame.steps[1] = 0
    frame.inputs = frame.inputs[:8] + frame.inputs[16:]


def many_steps(frame: pb.StepFrame) -> None:
    frame.steps[1] = 513
    frame.inputs = frame.inputs[:8] + bytes(4 * 513) + frame.inputs[16:]


def not_a_number(frame: pb.StepFrame) -> None:
    frame.inputs = frame.inputs[:8] + numbers(np.nan, 1).tobytes() + frame.inputs[16:]


def same_twice(frame: pb.StepFrame) -> None:
    frame.sessions[1] = frame.sessions[0]


ITEMS: dict[str, tuple[Callable[[pb.StepFrame], None], str, str]] = {
    "a long session id": (long_id, "sessions[1]", "INVALID_FIELD"),
    "an empty session id": (empty_id, "sessions[1]", "INVALID_FIELD"),
    "an ack of what is to come": (late_ack, "acked[1]", "INVALID_FIELD"),
    "a step number out of range": (huge_step, "positions[1].step", "INVALID_FIELD"),
    "no time steps": (no_steps, "steps[1]", "INVALID_FIELD"),
    "too many time steps": (many_steps, "steps[1]", "INVALID_FIELD"),
    "not a number": (not_a_number, "inputs", "NON_FINITE_INPUT"),
    "the same session twice": (same_twice, "sessions[1]", "DUPLICATE_SESSION"),
}


@pytest.mark.parametrize(("edit", "field", "reason"), ITEMS.values(), ids=list(ITEMS))
def test_only_the_bad_item_of_a_frame_fails(
    count: Api,
    session: str,
    at: Position,
    frame_way: Way,
    edit: Callable[[pb.StepFrame], None],
    field: str,
    reason: str,
) -> None:
    names = [f"{session}-left", session, f"{session}-right"]
    places = [count.open(names[0]), at, count.open(names[2])]
    frame = frame_message("count", [Chunk(name, GOOD, place) for name, place in zip(names, places, strict=True)])
    edit(frame)
    left, bad, right = count.send_frame(frame_way, frame)
    check(bad, field, reason=reason)
    assert left.sums == right.sums == [1, 3]


def test_a_streams_steps_carry_their_position(count: Api, session: str, at: Position) -> None:
    frame = frame_message("count", [Chunk(f"{session}-a", GOOD, count.open(f"{session}-a")), Chunk(session, GOOD)])
    good, bad = count.send_frame("stream", frame)
    check(bad, "positions[1]", "none")
    assert good.sums == [1, 3]
    frame.positions = b""
    for index, result in enumerate(count.send_frame("stream", frame)):
        check(result, f"positions[{index}]", "none")


def whole_frame_refusal(api: Api, way: Way, frame: pb.StepFrame) -> Result:
    with pytest.raises(Refused) as refused:
        api.send_frame(way, frame)
    return refused.value.result


def columns(**fields: Any) -> Callable[[pb.StepFrame], None]:
    edit: Any = put(**fields)
    return lambda frame: edit(frame)


FRAMES: dict[str, tuple[Callable[[pb.StepFrame], None], str, tuple[str, ...]]] = {
    "no items": (columns(sessions=[], steps=[], inputs=b"", positions=b""), "sessions", ("0 items", "1 to 64")),
    "too many items": (columns(sessions=[f"s{i}" for i in range(65)]), "sessions", ("65 items", "1 to 64")),
    "fewer steps than sessions": (columns(steps=[2]), "steps", ("1 entries", "2 sessions")),
    "positions of another length": (columns(positions=bytes(63)), "positions", ("63 bytes", "32 bytes")),
    "acks of another length": (columns(acked=bytes(8)), "acked", ("8 bytes", "2 sessions")),
    "another step shape": (columns(step_shape=[3]), "shape", ("[T, 3]", "[T, 1]")),
    "another dtype": (columns(dtype=pb.INT64), "dtype", ("INT64", "FLOAT32")),
    "too few bytes": (columns(inputs=bytes(15)), "inputs", ("15 bytes", "16 bytes")),
    "more steps than bytes": (columns(steps=[2, 2**32 - 1]), "inputs", ("16 bytes",)),
    "an unknown model": (columns(model="no such"), "model", ("'no such'",)),
    "an unknown output": (columns(outputs=["logits"]), "outputs", ("'logits'", "hidden, prediction, state")),
}


@pytest.mark.parametrize(("edit", "field", "words"), FRAMES.values(), ids=list(FRAMES))
def test_a_frame_whose_columns_do_not_agree(
    count: Api,
    session: str,
    at: Position,
    frame_way: Way,
    edit: Callable[[pb.StepFrame], None],
    field: str,
    words: tuple[str, ...],
) -> None:
    other = f"{session}-other"
    place = count.open(other)
    frame = frame_message("count", [Chunk(session, GOOD, at), Chunk(other, GOOD, place)])
    edit(frame)
    check(whole_frame_refusal(count, frame_way, frame), field, *words)
    assert count.position(other) == place


def test_a_stream_goes_on_after_a_bad_frame(count: Api, session: str) -> None:
    at = count.open(session)
    bad = frame_message("no such", [Chunk(session, GOOD, at)])
    good = frame_message("count", [Chunk(session, GOOD, at)])
    replies = list(count.stub.StepStream(iter([bad, good]), timeout=30))
    assert [reply.HasField("frame_error") for reply in replies] == [True, False]
    assert [reply.last for reply in replies] == [True, True]
    assert np.frombuffer(replies[1].outputs[0].data, "<f4").tolist() == [1, 3]


# ------------------------------------------------------------------------------------------ sizes


def test_a_message_over_the_limit(count: Api, session: str, at: Position) -> None:
    request = step_message("count", Chunk(session, GOOD, at))
    request.inputs = bytes((1 << 20) + 1)
    assert count.send_step(request).code == "RESOURCE_EXHAUSTED"
    for way in FRAME_WAYS:
        frame = frame_message("count", [Chunk(session, GOOD, at)])
        frame.inputs = bytes((1 << 20) + 1)
        assert whole_frame_refusal(count, way, frame).code == "RESOURCE_EXHAUSTED"


def test_a_reply_that_no_message_takes_is_refused_before_it_is_computed(wide: Api, session: str, way: Way) -> None:
    """64 KiB messages; 1024 hidden values are 4 KiB a time step."""
    at = wide.open(session)
    inputs: Array = np.ones((16, 1), np.float32)
    chunk = Chunk(session, inputs, at)
    try:
        got = wide.send(way, chunk, outputs=["hidden"])
    except Refused as refused:
        got = refused.result
    assert (got.code, got.reason, got.field) == ("RESOURCE_EXHAUSTED", "REPLY_TOO_LARGE", "outputs")
    assert wide.position(session) == at
    assert wide.send(way, chunk).after.step == 16


def test_a_batch_whose_replies_do_not_fit_together(wide: Api, session: str) -> None:
    names = [f"{session}-{index}" for index in range(12)]
    at = [wide.open(name) for name in names]
    chunks = [Chunk(name, numbers(1), place) for name, place in zip(names, at, strict=True)]
    got = whole_frame_refusal(wide, "batch", frame_message("wide", chunks, outputs=["hidden"]))
    assert (got.code, got.reason, got.field) == ("RESOURCE_EXHAUSTED", "REPLY_TOO_LARGE", "outputs")
    assert [wide.position(name) for name in names] == at
    parts = wide.send_frame("stream", frame_message("wide", chunks, outputs=["hidden"]))  # a stream answers in parts
    assert [part.outputs["hidden"].shape for part in parts] == [(1, 1024)] * 12


# ------------------------------------------------------------------------------------------ lives


def test_fields_of_open(count: Api, session: str) -> None:
    tensor = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))
    for fields, field in (
        ({"request_id": b""}, "request_id"),
        ({"request_id": bytes(16)}, "request_id"),
        ({"request_id": bytes(17)}, "request_id"),
        ({"session": ""}, "session"),
        ({"model": "no such"}, "model"),
        ({"ttl_ms": 2**63}, "ttl_ms"),
        ({"expect": pb.Position(generation=b"", step=1, head=bytes(8))}, "expect.generation"),
        ({"expect": pb.Position(generation=new_id(), step=1, head=b"")}, "expect.head"),
        ({"initial_state": [tensor, tensor]}, "initial_state"),
        ({"initial_state": [pb.Tensor(name="c", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))]}, "initial_state"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT64, shape=[1, 1], data=bytes(8))]}, "initial_state[h]"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1], data=bytes(4))]}, "initial_state[h]"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(3))]}, "initial_state[h]"),
    ):
        base = {"model": "count", "session": session, "request_id": new_id()}
        with pytest.raises(Refused) as refused:
            count.call("Open", pb.OpenRequest(**{**base, **fields}))  # type: ignore[arg-type]
        check(refused.value.result, field)
    infinite = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=np.float32(np.inf).tobytes())
    with pytest.raises(Refused) as refused:
        count.open(session, initial_state=[infinite])
    check(refused.value.result, "initial_state[h]", reason="NON_FINITE_INPUT")
    assert count.opened(session).created  # none of these created it


def test_items_of_the_other_calls(count: Api, session: str, at: Position) -> None:
    state = [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))]
    base: dict[str, Any] = {"session": session, "generation": at.generation, "request_id": new_id()}
    twig = {"source": session, "target": f"{session}-2", "request_id": new_id()}
    cut = pb.Position(generation=at.generation, step=1, head=b"")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("Reset", {**base, "generation": bytes(15)}, "items[0].generation"),
        ("Reset", {**base, "request_id": bytes(16)}, "items[0].request_id"),
        ("SetState", {**base, "state": []}, "items[0].state"),
        ("SetState", {**base, "state": state, "step": 2**63}, "items[0].step"),
        ("SetState", {**base, "state": state, "generation": b""}, "items[0].generation"),
        ("Fork", {**twig, "target": ""}, "items[0].target"),
        ("Fork", {**twig, "target": session}, "items[0].target"),
        ("Fork", {**twig, "source": "s" * 257}, "items[0].source"),
        ("Fork", {**twig, "position": cut}, "items[0].position.head"),
        ("Fork", {**twig, "request_id": b"1"}, "items[0].request_id"),
        ("Delete", {"session": session, "generation": b""}, "items[0].generation"),
        ("Delete", {"session": "", "generation": at.generation}, "items[0].session"),
    ]
    for method, fields, field in cases:
        kind: Any = getattr(pb, f"{method}Request")
        (result,) = count.call(method, kind(model="count", items=[kind.Item(**fields)])).results
        error = result.error
        assert (error.code, pb.Reason.Name(error.reason), error.field) == (3, "INVALID_FIELD", field), (method, error)
        assert SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED.match(error.message), error.message
    for items in (0, 65):
        many = [pb.DeleteRequest.Item(session=f"s{i}", generation=at.generation) for i in range(items)]
        with pytest.raises(Refused) as refused:
            count.call("Delete", pb.DeleteRequest(model="count", items=many))
        check(refused.value.result, "items", f"{items} items", "1 to 64")


def test_fields_of_what_reads(count: Api, session: str) -> None:
    for method, request, field in (
        ("GetState", pb.GetStateRequest(model="count", session=""), "session"),
        ("GetSession", pb.GetSessionRequest(model="no such", session=session), "model"),
        ("ListSessions", pb.ListSessionsRequest(model="count", page_size=1001), "page_size"),
        ("ListSessions", pb.ListSessionsRequest(model="count", page_token="no token"), "page_token"),
        ("ListSessions", pb.ListSessionsRequest(model="count", prefix="p" * 257), "prefix"),
        ("GetModel", pb.GetModelRequest(model="no such"), "model"),
        ("GetModel", pb.GetModelRequest(model="count", fingerprint=b"other"), "fingerprint"),
    ):
        with pytest.raises(Refused) as refused:
            count.call(method, request)
        check(refused.value.result, field)
