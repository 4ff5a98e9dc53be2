"""Bad frames: only the bad item fails, unless the columns contradict each other."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from .calls import Api, Chunk, Way, frame_message, numbers
from .checks import Edit, check, put, whole_frame_refusal

GOOD = numbers(1, 2)


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


def both_infinities(frame: pb.StepFrame) -> None:
    frame.inputs = frame.inputs[:8] + numbers(np.inf, -np.inf).tobytes() + frame.inputs[16:]


def same_twice(frame: pb.StepFrame) -> None:
    frame.sessions[1] = frame.sessions[0]


ITEMS: dict[str, tuple[Edit, str, str]] = {
    "a long session id": (long_id, "sessions[1]", "INVALID_FIELD"),
    "an empty session id": (empty_id, "sessions[1]", "INVALID_FIELD"),
    "an ack of what is to come": (late_ack, "acked[1]", "INVALID_FIELD"),
    "a step number out of range": (huge_step, "positions[1].step", "INVALID_FIELD"),
    "no time steps": (no_steps, "steps[1]", "INVALID_FIELD"),
    "too many time steps": (many_steps, "steps[1]", "INVALID_FIELD"),
    "not a number": (not_a_number, "inputs", "NON_FINITE_INPUT"),
    "infinities that would cancel out": (both_infinities, "inputs", "NON_FINITE_INPUT"),
    "the same session twice": (same_twice, "sessions[1]", "DUPLICATE_SESSION"),
}


@pytest.mark.parametrize(("edit", "field", "reason"), ITEMS.values(), ids=list(ITEMS))
def test_only_the_bad_item_of_a_frame_fails(
    count: Api,
    session: str,
    at: Position,
    frame_way: Way,
    edit: Edit,
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


FRAMES: dict[str, tuple[Edit, str, tuple[str, ...]]] = {
    "no items": (put(sessions=[], steps=[], inputs=b"", positions=b""), "sessions", ("0 items", "1 to 64")),
    "too many items": (put(sessions=[f"s{i}" for i in range(65)]), "sessions", ("65 items", "1 to 64")),
    "fewer steps than sessions": (put(steps=[2]), "steps", ("1 entries", "2 sessions")),
    "positions of another length": (put(positions=bytes(63)), "positions", ("63 bytes", "32 bytes")),
    "acks of another length": (put(acked=bytes(8)), "acked", ("8 bytes", "2 sessions")),
    "another step shape": (put(step_shape=[3]), "shape", ("[T, 3]", "[T, 1]")),
    "another dtype": (put(dtype=pb.INT64), "dtype", ("INT64", "FLOAT32")),
    "too few bytes": (put(inputs=bytes(15)), "inputs", ("15 bytes", "16 bytes")),
    "more steps than bytes": (put(steps=[2, 2**32 - 1]), "inputs", ("16 bytes",)),
    "an unknown model": (put(model="no such"), "model", ("'no such'",)),
    "an unknown output": (put(outputs=["logits"]), "outputs", ("'logits'", "hidden, prediction, state")),
}


@pytest.mark.parametrize(("edit", "field", "words"), FRAMES.values(), ids=list(FRAMES))
def test_a_frame_whose_columns_do_not_agree(
    count: Api,
    session: str,
    at: Position,
    frame_way: Way,
    edit: Edit,
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
