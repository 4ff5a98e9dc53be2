"""Acks, the returned outputs, and results that are not finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.engine.load import offline

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Way, frame_message, from_wire, numbers, placed, some_inputs

# ------------------------------------------------------------------------------------------ acks


def test_replies_that_are_not_acked_can_be_had_again_whatever_checkpoints_were_due(count: Api, session: str) -> None:
    """Pipelined, one frame per step; `acked` lags behind for the first 20 steps, then passes them."""
    start = count.open(session)
    values = list(range(1, 41))
    at, frames = start, []
    for index, value in enumerate(values):
        acked = 0 if index < 20 else 15
        frames.append(frame_message("count", [Chunk(session, numbers(value), at, acked=acked)]))
        at = placed(at, numbers(value))
    replies = list(count.stub.StepStream(iter(frames), timeout=30))
    sums = [float(np.frombuffer(reply.outputs[0].data, "<f4")[0]) for reply in replies]
    assert sums == np.cumsum(values).tolist()
    assert count.info(session).checkpoint_step <= 15
    place = placed(start, numbers(*values[:15]))
    again = count.send("stream", Chunk(session, numbers(*values[15:]), place, acked=15))
    assert (again.replayed, again.sums) == (True, sums[15:])
    got = count.send("stream", Chunk(session, numbers(1), at))  # acks everything
    last = count.send("stream", Chunk(session, numbers(1), got.after))
    assert last.sums == [sums[-1] + 2]
    assert count.info(session).checkpoint_step >= 40


def test_a_client_whose_acks_stay_behind_is_stopped_at_the_logs_limit(counting_model: Path, session: str) -> None:
    limits = ["--max-log-steps", "8", "--max-chunk-steps", "4"]
    with ForkedServer([counting_model], "memory:", limits) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        ways: tuple[Way, ...] = ("unary", "batch", "stream")
        for way in ways:
            name = f"{session}-{way}"
            at = start = api.open(name)
            while (got := api.send(way, Chunk(name, numbers(1, 1), at, acked=0))).code == "OK":
                at = got.after
            assert (got.code, got.reason) == ("RESOURCE_EXHAUSTED", "ACK_BEHIND")
            assert (got.field, got.position) == ("acked", at)
            assert at.step == 8
            assert api.send(way, Chunk(name, numbers(*[1] * 4), start, acked=0)).sums == [1, 2, 3, 4]
            assert api.send(way, Chunk(name, numbers(1, 1), at, acked=8)).sums == [9, 10]
            assert api.send(way, Chunk(name, numbers(1), api.position(name))).sums == [11]


def test_the_log_stays_within_its_limit_though_checkpoints_would_be_due_later(tmp_path: Path, session: str) -> None:
    folder = make_bundle(tmp_path / "m", name="wide", hidden_size=64)  # a state of 43 inputs
    limits = ["--max-log-steps", "12", "--max-chunk-steps", "4"]
    with ForkedServer([folder], "memory:", limits) as server, server.channel() as channel:
        api = Api(server.stub(channel), "wide")
        at, longest = api.open(session), 0
        for _ in range(10):
            at = api.send("unary", Chunk(session, some_inputs(1, 4), at)).after
            longest = max(longest, at.step - api.info(session).checkpoint_step)
    assert 4 <= longest <= 12


# ------------------------------------------------------------------------------------------ what comes back


def test_each_output_that_is_asked_for_comes_and_no_other(lstm: Api, lstm_model: Path, session: str, way: Way) -> None:
    inputs = some_inputs(5, 6)
    reference = offline(lstm_model, inputs)
    at = lstm.open(session)
    only = lstm.send(way, Chunk(session, inputs[:2], at))
    assert set(only.outputs) == {"prediction"}
    hidden = lstm.send(way, Chunk(session, inputs[2:4], only.after), outputs=["hidden"])
    assert set(hidden.outputs) == {"hidden"}
    np.testing.assert_array_equal(hidden.outputs["hidden"], reference["hidden"][2:4])
    state = lstm.send(way, Chunk(session, inputs[4:], hidden.after), outputs=["state"])
    assert set(state.outputs) == {"state.h", "state.c"}
    assert state.outputs["state.h"].shape == (2, 8)
    np.testing.assert_array_equal(state.outputs["state.h"], reference["state.h"])
    np.testing.assert_array_equal(state.outputs["state.c"], reference["state.c"])


def test_a_result_that_is_not_finite_fails_alone(count: Api, session: str, way: Way) -> None:
    names = [f"{session}-{index}" for index in range(3)]
    at = {name: count.send("unary", Chunk(name, numbers(2), count.open(name))).after for name in names}
    bad, middle = numbers(3e38, 3e38), names[1]
    if way == "unary":
        got = count.send(way, Chunk(middle, bad, at[middle]))
    else:
        chunks = [Chunk(name, bad if name == middle else numbers(1, 1), at[name]) for name in names]
        left, got, right = count.send_frame(way, frame_message("count", chunks))
        assert left.sums == right.sums == [3, 4]
    assert (got.code, got.reason, got.field) == ("INVALID_ARGUMENT", "NON_FINITE_RESULT", "inputs")
    assert got.position == at[middle] == count.position(middle)
    assert count.send(way, Chunk(middle, numbers(5), at[middle])).sums == [7]


def test_what_was_pipelined_behind_a_rejected_step_is_a_gap(count: Api, session: str) -> None:
    at = count.open(session)
    bad = numbers(3e38, 3e38)
    behind = placed(at, bad)
    frames = [
        frame_message("count", [Chunk(session, bad, at)]),
        frame_message("count", [Chunk(session, numbers(1), behind, acked=0)]),
    ]
    replies = list(count.stub.StepStream(iter(frames), timeout=30))
    reasons = [pb.Reason.Name(reply.errors[0].error.reason) for reply in replies]
    assert reasons == ["NON_FINITE_RESULT", "STEP_GAP"]
    assert from_wire(replies[1].errors[0].error.position) == at


def test_two_sessions_of_one_id_in_two_models_are_two(count: Api, lstm: Api, session: str) -> None:
    count.send("unary", Chunk(session, numbers(1)))
    assert lstm.send("unary", Chunk(session, some_inputs(1, 1))).created
    assert count.position(session).generation != lstm.position(session).generation
