"""Bad chunks are refused with the field, what came and what was expected. Nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from .calls import Api, Array, Chunk, Refused, Way, frame_message, numbers, step_message
from .checks import Edit, check, put, whole_frame_refusal

GOOD = numbers(1, 2)


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
    check(refused, "inputs", "inf at time step 1, feature 1", "NaN for missing values", reason="NON_FINITE_INPUT")
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


# ------------------------------------------------------------------------------------------ sizes


def test_a_message_over_the_limit(count: Api, session: str, at: Position) -> None:
    request = step_message("count", Chunk(session, GOOD, at))
    request.inputs = bytes((1 << 20) + 1)
    assert count.send_step(request).code == "RESOURCE_EXHAUSTED"
    for way in ("batch", "stream"):
        frame = frame_message("count", [Chunk(session, GOOD, at)])
        frame.inputs = bytes((1 << 20) + 1)
        assert whole_frame_refusal(count, way, frame).code == "RESOURCE_EXHAUSTED"


def test_a_reply_that_no_message_takes_is_refused_before_it_is_computed(wide: Api, session: str, way: Way) -> None:
    """Messages of 64 KiB; 1024 hidden values are 4 KiB per time step."""
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
