"""The decision table for a step, row by row in its order, for each way to send a chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.engine.load import offline

from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Way, new_id, numbers, placed, some_inputs

OTHER_HEAD = b"not this"


@pytest.fixture(scope="module")
def keeping(lstm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """A server with long logs: no checkpoint for the first steps of "lstm". On SQLite, so that it can be killed."""
    store = f"sqlite:{tmp_path_factory.mktemp('keeping') / 'sessions.db'}"
    with ForkedServer([lstm_model], store) as server:
        yield server


# ------------------------------------------------------------------------------------------ no record


def test_a_positioned_step_of_no_session_is_not_found(count: Api, session: str, way: Way) -> None:
    got = count.send(way, Chunk(session, numbers(1), first_position(new_id())))
    assert (got.code, got.reason, got.field, got.position) == ("NOT_FOUND", "SESSION_NOT_FOUND", "session", None)
    assert count.send("unary", Chunk(session, numbers(1))).created  # the step before did not create it


def test_a_step_without_position_creates(count: Api, session: str, unary_way: Way) -> None:
    got = count.send(unary_way, Chunk(session, numbers(1, 2)))
    assert (got.sums, got.created, got.replayed) == ([1, 3], True, False)
    start = first_position(got.after.generation)
    assert got.after == placed(start, numbers(1, 2)) == count.position(session)
    again = count.send(unary_way, Chunk(session, numbers(3)))
    assert (again.sums, again.created) == ([6], False)


def test_a_peek_of_no_session_is_not_found(count: Api, session: str, unary_way: Way) -> None:
    got = count.send(unary_way, Chunk(session, numbers(1)), peek=True)
    assert (got.code, got.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")


# ------------------------------------------------------------------------------------------ another generation


def test_another_generation_is_refused(count: Api, session: str, way: Way) -> None:
    start = count.open(session)
    after = count.send("unary", Chunk(session, numbers(4), start)).after
    got = count.send(way, Chunk(session, numbers(1), first_position(new_id(), 1)))
    assert (got.code, got.reason) == ("FAILED_PRECONDITION", "GENERATION_CHANGED")
    assert (got.field, got.position) == ("position.generation", after)
    assert count.send(way, Chunk(session, numbers(1), after)).sums == [5]


# ------------------------------------------------------------------------------------------ in place


def test_a_step_without_position_is_applied_where_the_session_stands(count: Api, session: str, unary_way: Way) -> None:
    start = count.open(session)
    assert count.send("unary", Chunk(session, numbers(1), start)).sums == [1]
    got = count.send(unary_way, Chunk(session, numbers(2, 3)))
    assert (got.sums, got.created) == ([3, 6], False)
    assert got.after == placed(start, numbers(1, 2, 3))


def test_a_step_in_place_is_applied_and_both_sides_name_the_same_history(count: Api, session: str, way: Way) -> None:
    at = count.open(session)
    total = 0.0
    for inputs in (numbers(1), numbers(2, 3, 4), numbers(5)):
        got = count.send(way, Chunk(session, inputs, at))
        expected = (total + np.cumsum(inputs)).tolist()
        assert (got.code, got.sums, got.created, got.replayed) == ("OK", expected, False, False)
        at, total = placed(at, inputs), expected[-1]
        assert got.after == at
    assert count.position(session) == at


def test_a_float64_input_is_named_by_its_float32_bytes(count: Api, session: str, way: Way) -> None:
    start = count.open(session)
    got = count.send(way, Chunk(session, numbers(1, 2).astype(np.float64), start))
    assert (got.sums, got.after) == ([1, 3], placed(start, numbers(1, 2)))
    assert count.send(way, Chunk(session, numbers(3), got.after)).sums == [6]


def test_a_step_ahead_is_a_gap_and_leaves_the_session_alone(count: Api, session: str, way: Way) -> None:
    start = count.open(session)
    after = count.send(way, Chunk(session, numbers(1), start)).after
    got = count.send(way, Chunk(session, numbers(3), placed(after, numbers(2))))
    assert (got.code, got.reason) == ("FAILED_PRECONDITION", "STEP_GAP")
    assert (got.field, got.position) == ("position.step", after)
    assert count.send(way, Chunk(session, numbers(2), after)).sums == [3]


def test_a_step_before_the_log_is_compacted(count: Api, session: str, way: Way) -> None:
    """Here a state is as large as an input, so a checkpoint is due after every step."""
    at = start = count.open(session)
    for value in (1, 2, 3):
        at = count.send(way, Chunk(session, numbers(value), at)).after
    assert count.info(session).checkpoint_step == 2
    got = count.send(way, Chunk(session, numbers(1), start))
    assert (got.code, got.reason) == ("OUT_OF_RANGE", "STEP_COMPACTED")
    assert (got.field, got.position) == ("position.step", at)
    assert count.send(way, Chunk(session, numbers(4), at)).sums == [10]


def test_one_replayed_step_at_the_most_is_a_setting(lstm_model: Path, tmp_path: Path, session: str) -> None:
    """With --max-replay-steps 1, every step writes a state, however large."""
    with ForkedServer([lstm_model], "memory:", ["--max-replay-steps", "1"]) as server, server.channel() as channel:
        api = Api(server.stub(channel), "lstm")
        start = api.open(session)
        first = api.send("unary", Chunk(session, some_inputs(1, 1), start))
        second = api.send("unary", Chunk(session, some_inputs(2, 1), first.after))
        assert api.info(session).checkpoint_step == 1
        again = api.send("unary", Chunk(session, some_inputs(1, 1), start))
        assert (again.reason, again.position) == ("STEP_COMPACTED", second.after)


@pytest.mark.parametrize("steps_behind", [0, 2, 3])
def test_another_history_at_the_same_step_is_refused(lstm: Api, session: str, way: Way, steps_behind: int) -> None:
    """At the record's step, within its log, and at its checkpoint."""
    start = lstm.open(session)
    inputs = some_inputs(1, 3)
    after = lstm.send(way, Chunk(session, inputs, start)).after
    wrong = Position(start.generation, 3 - steps_behind, OTHER_HEAD)
    got = lstm.send(way, Chunk(session, inputs[:1], wrong))
    assert (got.code, got.reason) == ("ABORTED", "HISTORY_CHANGED")
    assert (got.field, got.position) == ("position.head", after)
    assert lstm.position(session) == after


# ------------------------------------------------------------------------------------------ again


def test_a_retry_gets_the_same_outputs_and_is_not_applied_again(lstm: Api, session: str, way: Way) -> None:
    start = lstm.open(session)
    chunk = Chunk(session, some_inputs(1, 3), start)
    names = ("prediction", "hidden", "state")
    first = lstm.send(way, chunk, outputs=names)
    again = lstm.send(way, chunk, outputs=names)
    assert (first.replayed, again.replayed, again.created) == (False, True, False)
    assert again.after == first.after == lstm.position(session)
    assert set(first.outputs) == {"prediction", "hidden"} | {name for name in first.outputs if "state." in name}
    for name, values in first.outputs.items():
        np.testing.assert_array_equal(again.outputs[name], values, err_msg=name)


def test_a_retry_inside_the_log_in_other_chunks(lstm: Api, session: str, way: Way) -> None:
    """acked stays 0: no reply is known to have arrived, so all of it can be requested again."""
    start = lstm.open(session)
    inputs = some_inputs(2, 24)
    at, outputs = start, []
    for first in range(0, 24, 6):
        reply = lstm.send(way, Chunk(session, inputs[first : first + 6], at, acked=0))
        outputs.append(reply.outputs["prediction"])
        at = reply.after
    whole = np.concatenate(outputs)
    for first, last in ((0, 24), (0, 1), (5, 7), (11, 24), (23, 24)):
        place = start if first == 0 else placed(start, inputs[:first])
        again = lstm.send(way, Chunk(session, inputs[first:last], place, acked=0))
        assert (again.replayed, again.after) == (True, placed(start, inputs[:last]))
        np.testing.assert_array_equal(again.outputs["prediction"], whole[first:last])
    assert lstm.position(session) == at


def test_a_retry_after_a_kill(keeping: ForkedServer, lstm_model: Path, session: str) -> None:
    """Acknowledged steps are there: in each way, even inside the log, with the bits of an offline run."""
    inputs = some_inputs(3, 10)
    reference = offline(lstm_model, inputs)
    with keeping.channel() as channel:
        api = Api(keeping.stub(channel), "lstm")
        start = api.open(session)
        middle = api.send("unary", Chunk(session, inputs[:4], start)).after
        after = api.send("unary", Chunk(session, inputs[4:7], middle, acked=0)).after
    keeping.kill()
    keeping.restart()
    with keeping.channel() as channel:
        api = Api(keeping.stub(channel), "lstm")
        assert api.position(session) == after
        ways: tuple[Way, ...] = ("unary", "batch", "stream")
        for way in ways:
            for first, last, at in ((4, 7, middle), (0, 4, start), (0, 7, start)):
                again = api.send(way, Chunk(session, inputs[first:last], at, acked=0), outputs=["prediction", "hidden"])
                assert (again.replayed, again.after.step) == (True, last)
                np.testing.assert_array_equal(again.outputs["prediction"], reference["prediction"][first:last])
                np.testing.assert_array_equal(again.outputs["hidden"], reference["hidden"][first:last])
        got = api.send("stream", Chunk(session, inputs[7:], after), outputs=["prediction", "state"])
        assert not got.replayed
        np.testing.assert_array_equal(got.outputs["prediction"], reference["prediction"][7:])
        np.testing.assert_array_equal(got.outputs["state.h"], reference["state.h"])
        np.testing.assert_array_equal(got.outputs["state.c"], reference["state.c"])


@pytest.mark.parametrize(
    ("first", "values"),
    [(0, (9, 2)), (0, (1, 9)), (1, (9,)), (1, (2, 3, 4)), (0, (1, 2, 3, 4))],
    ids=["first differs", "last differs", "inside differs", "goes beyond", "all of it and beyond"],
)
def test_other_inputs_where_some_were_applied_conflict(
    count: Api, session: str, way: Way, first: int, values: tuple[int, ...]
) -> None:
    start = count.open(session)
    after = count.send("unary", Chunk(session, numbers(1, 2, 3), start)).after
    at = start if first == 0 else placed(start, numbers(1))
    got = count.send(way, Chunk(session, numbers(*values), at))
    assert (got.code, got.reason, got.field, got.position) == ("ABORTED", "STEP_CONFLICT", "inputs", after)
    assert count.send(way, Chunk(session, numbers(4), after)).sums == [10]


# ------------------------------------------------------------------------------------------ peek


def test_a_peek_commits_nothing(count: Api, session: str, way: Way) -> None:
    at = count.send("unary", Chunk(session, numbers(1, 2), count.open(session))).after
    for _ in range(2):
        got = count.send(way, Chunk(session, numbers(10, 20), at), peek=True)
        assert (got.sums, got.replayed) == ([13, 33], False)
        assert got.after == placed(at, numbers(10, 20))
        assert count.position(session) == at
    assert count.send(way, Chunk(session, numbers(3), at)).sums == [6]


def test_a_peek_may_come_without_position(count: Api, session: str, way: Way) -> None:
    at = count.send("unary", Chunk(session, numbers(1, 2), count.open(session))).after
    assert count.send(way, Chunk(session, numbers(10)), peek=True).sums == [13]
    assert count.position(session) == at


def test_a_peek_behind_is_decided_like_a_step(count: Api, session: str, way: Way) -> None:
    start = count.open(session)
    after = count.send("unary", Chunk(session, numbers(1, 2), start)).after
    again = count.send(way, Chunk(session, numbers(1, 2), start), peek=True)
    assert (again.sums, again.replayed) == ([1, 3], True)
    assert count.send(way, Chunk(session, numbers(5), start), peek=True).reason == "STEP_CONFLICT"
    ahead = placed(after, numbers(1))
    assert count.send(way, Chunk(session, numbers(5), ahead), peek=True).reason == "STEP_GAP"
    assert count.position(session) == after
