"""Every rule of a session's history, without a transport."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper import Position, first_position
from cellkeeper._session.chunk import Chunk, ChunkState
from cellkeeper._session.history import History
from cellkeeper._session.verdict import LOST, RETRIED, Action

WIDTH = 4
START = first_position(bytes(range(16)))


def steps(*values: int) -> bytes:
    return b"".join(value.to_bytes(WIDTH, "little") for value in values)


def new_history(**options: Any) -> History:
    return History(START, step_bytes=WIDTH, **options)


def send(history: History) -> Chunk:
    chunk = history.upcoming
    if chunk is None:
        raise LookupError("nothing to send")
    history.launch(chunk)
    return chunk


def sent(history: History, *inputs: bytes) -> list[Chunk]:
    for chunk in inputs:
        history.append(chunk)
    return [send(history) for _ in inputs]


def answered(history: History, *inputs: bytes) -> list[Chunk]:
    chunks = sent(history, *inputs)
    for chunk in chunks:
        if history.on_reply(chunk, chunk.end).action is not Action.DELIVER:
            raise LookupError("not delivered")
    return chunks


def resent(history: History) -> list[Chunk]:
    chunks = []
    while history.upcoming is not None:
        chunks.append(send(history))
    return chunks


def bytes_and_places(*chunks: Chunk) -> list[tuple[bytes, Position, Position]]:
    """Returns what identifies a resend: for a replay, a new chunk object replaces the answered one."""
    return [(chunk.inputs, chunk.start, chunk.end) for chunk in chunks]


def test_positions_do_not_depend_on_the_chunking() -> None:
    one, many = new_history(), new_history()
    answered(one, steps(1, 2, 3))
    answered(many, steps(1), steps(2), steps(3))
    assert one.position == many.position == START.advance(steps(1, 2, 3), WIDTH)
    assert one.position.step == 3


def test_pipelined_chunks_adjoin() -> None:
    a, b = sent(new_history(), steps(1), steps(2, 3))
    assert (a.start, b.start) == (START, a.end)
    assert b.end.step == 3


def test_acked_is_what_is_held_and_never_ahead_of_the_chunk() -> None:
    history = new_history()
    (a,) = answered(history, steps(1))
    history.append(steps(2))
    history.append(steps(3))
    assert send(history).acked_sent == 1
    assert send(history).acked_sent == 1
    assert history.position == a.end


def test_the_window_bounds_what_is_unanswered() -> None:
    history = new_history(window_steps=3)
    history.append(steps(1, 2))
    assert history.room(1)
    assert not history.room(2)
    history.append(steps(3))
    assert not history.room(1)
    chunk = send(history)
    history.on_reply(chunk, chunk.end)
    assert history.room(2)


def test_a_longer_chunk_goes_alone() -> None:
    history = new_history(window_steps=3)
    assert history.room(10)
    history.append(steps(*range(10)))
    assert not history.room(1)


@pytest.mark.parametrize("reason", sorted(RETRIED))
def test_a_retry_is_the_same_bytes_at_the_same_position(reason: str) -> None:
    history = new_history()
    (chunk,) = sent(history, steps(7))
    before = (chunk.inputs, chunk.start, chunk.end)
    assert history.on_error(chunk, reason).action is Action.RESEND
    (again,) = resent(history)
    assert (again.inputs, again.start, again.end) == before
    assert history.on_reply(again, again.end).action is Action.DELIVER


def test_nothing_goes_out_before_all_outcomes_are_in() -> None:
    history = new_history()
    a, b, c = sent(history, steps(1), steps(2), steps(3))
    assert history.on_error(a, "QUEUE_FULL").action is Action.RESEND
    assert history.upcoming is None
    assert history.on_error(b, "STEP_GAP", START).action is Action.REPLAY
    assert history.upcoming is None
    assert history.on_error(c, "STEP_GAP", START).action is Action.REPLAY
    assert resent(history) == [a, b, c]


def test_after_a_lost_reply_the_rest_is_sent_in_order() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    history.on_error(a, LOST)
    history.on_error(b, LOST)
    assert resent(history) == [a, b]
    assert history.on_reply(a, a.end).action is Action.DELIVER
    assert history.on_reply(b, b.end).action is Action.DELIVER
    assert history.idle


def test_a_lost_tail_is_replayed_once_and_not_reported_twice() -> None:
    history = new_history()
    a, b, c = answered(history, steps(1), steps(2), steps(3))
    (d,) = sent(history, steps(4))
    verdict = history.on_error(d, "STEP_GAP", a.end)
    assert verdict == (Action.REPLAY, "", (), 2)
    again_b, again_c, last = resent(history)
    assert bytes_and_places(again_b, again_c) == bytes_and_places(b, c)
    assert last is d
    assert history.on_reply(again_b, b.end).action is Action.COUNTED
    assert history.on_reply(again_c, c.end).action is Action.COUNTED
    assert history.on_reply(d, d.end).action is Action.DELIVER
    assert history.position == d.end


def test_a_replay_does_not_claim_acks_ahead_of_itself() -> None:
    history = new_history()
    a, _, _ = answered(history, steps(1), steps(2), steps(3))
    (d,) = sent(history, steps(4))
    history.on_error(d, "STEP_GAP", a.end)
    assert [send(history).acked_sent for _ in range(3)] == [1, 2, 3]


def test_a_replay_that_is_under_way_does_not_hold_the_position_back() -> None:
    """The position is the one after the last reply, even while the client resends what the server lost."""
    history = new_history()
    first, _ = answered(history, steps(1), steps(2))
    (third,) = sent(history, steps(3))
    assert history.on_error(third, "STEP_GAP", first.end).action is Action.REPLAY
    second, third = resent(history)
    assert history.on_error(second, "STORE_UNAVAILABLE").action is Action.RESEND  # it was applied nevertheless
    assert history.on_reply(third, third.end).action is Action.DELIVER
    assert history.position == history.tail == third.end
    (second,) = resent(history)
    assert history.on_reply(second, second.end).action is Action.COUNTED
    assert history.position == history.tail == third.end
    assert history.idle


def test_a_tail_lost_twice_is_replayed_twice() -> None:
    history = new_history()
    a, b = answered(history, steps(1), steps(2))
    (c,) = sent(history, steps(3))
    history.on_error(c, "STEP_GAP", a.end)
    (again, _) = resent(history)
    assert history.on_reply(again, b.end).action is Action.COUNTED
    assert history.on_error(c, "STEP_GAP", START).replayed_steps == 2
    assert bytes_and_places(*resent(history)) == bytes_and_places(a, b, c)


def test_a_gap_inside_an_answered_chunk_replays_the_remainder() -> None:
    history = new_history()
    (a,) = answered(history, steps(1, 2, 3))
    (b,) = sent(history, steps(4))
    middle = START.advance(steps(1), WIDTH)
    assert history.on_error(b, "STEP_GAP", middle).replayed_steps == 2
    first, second = resent(history)
    assert (first.inputs, first.start, first.end) == (steps(2, 3), middle, a.end)
    assert second is b


def test_a_gap_with_an_unknown_head_is_another_history() -> None:
    history = new_history()
    answered(history, steps(1), steps(2))
    (c,) = sent(history, steps(3))
    unknown = START.advance(steps(9), WIDTH)
    verdict = history.on_error(c, "STEP_GAP", unknown)
    assert (verdict.action, verdict.reason, verdict.failed) == (Action.FAIL, "HISTORY_CHANGED", (c,))
    assert history.upcoming is None


def test_a_gap_beyond_the_replay_buffer_is_lost() -> None:
    history = new_history(buffer_steps=2)
    a, b, c = answered(history, steps(1), steps(2), steps(3))
    (d,) = sent(history, steps(4))
    assert history.on_error(d, "STEP_GAP", START).reason == "HISTORY_LOST"
    (d,) = sent(history, steps(4))
    assert history.on_error(d, "STEP_GAP", a.end).action is Action.REPLAY
    assert bytes_and_places(*resent(history)) == bytes_and_places(b, c, d)


def test_the_buffer_is_bounded_in_bytes_too() -> None:
    history = new_history(buffer_bytes=2 * WIDTH)
    answered(history, steps(1), steps(2), steps(3))
    (d,) = sent(history, steps(4))
    assert history.on_error(d, "STEP_GAP", START).reason == "HISTORY_LOST"


def test_a_session_opened_midway_cannot_replay_what_it_never_had() -> None:
    history = History(START._replace(step=50), step_bytes=WIDTH)
    (a,) = sent(history, steps(1))
    assert history.on_error(a, "STEP_GAP", START).reason == "HISTORY_LOST"


def test_a_gap_in_another_generation_is_a_changed_generation() -> None:
    history = new_history()
    (a,) = answered(history, steps(1))
    (b,) = sent(history, steps(2))
    other = Position(bytes(16), a.start.step, a.start.head)
    assert history.on_error(b, "STEP_GAP", other).reason == "GENERATION_CHANGED"


@pytest.mark.parametrize(
    "reason", ["SESSION_NOT_FOUND", "GENERATION_CHANGED", "MODEL_CHANGED", "HISTORY_CHANGED", "STEP_CONFLICT"]
)
def test_what_is_over_is_reported_and_never_sent_again(reason: str) -> None:
    history = new_history()
    answered(history, steps(1))
    a, b = sent(history, steps(2), steps(3))
    verdict = history.on_error(a, reason)
    assert (verdict.action, verdict.reason, verdict.failed) == (Action.FAIL, reason, (a, b))
    assert history.on_error(b, reason).action is Action.IGNORE
    assert history.idle
    assert history.upcoming is None


def test_a_gap_without_a_position_cannot_be_mended() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    assert history.on_error(a, "STEP_GAP").reason == "STEP_GAP"


def test_compacted_counts_as_done_where_the_reply_is_held() -> None:
    history = new_history()
    a, b = answered(history, steps(1), steps(2))
    (c,) = sent(history, steps(3))
    history.on_error(c, "STEP_GAP", a.end)
    again, _ = resent(history)
    assert bytes_and_places(again) == bytes_and_places(b)
    assert history.on_error(again, "STEP_COMPACTED", c.end).action is Action.COUNTED
    assert history.on_reply(c, c.end).action is Action.DELIVER
    assert history.position == c.end


def test_compacted_fails_where_the_reply_is_missing() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    verdict = history.on_error(a, "STEP_COMPACTED", START._replace(step=9))
    assert (verdict.action, verdict.reason) == (Action.FAIL, "STEP_COMPACTED")


def test_the_chunks_after_a_rejected_one_fail_too() -> None:
    history = new_history()
    (a,) = answered(history, steps(1))
    b, c, d = sent(history, steps(2), steps(3), steps(4))
    e = history.append(steps(5))
    verdict = history.on_error(b, "INVALID_FIELD")
    assert (verdict.action, verdict.failed) == (Action.FAIL, (b, c, d, e))
    assert history.position == history.tail == a.end
    # The next chunk starts where the rejected one did, and waits for the outcomes of those in flight.
    f = history.append(steps(6))
    assert f.start == a.end
    assert history.upcoming is None
    assert history.on_error(c, "STEP_GAP", a.end).action is Action.IGNORE
    assert history.on_error(d, "STEP_GAP", a.end).action is Action.IGNORE
    assert resent(history) == [f]
    assert history.on_reply(f, f.end).action is Action.DELIVER


def test_chunks_before_a_rejected_one_are_not_touched() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    assert history.on_error(b, "NON_FINITE_RESULT").failed == (b,)
    assert history.on_reply(a, a.end).action is Action.DELIVER
    assert history.position == a.end


def test_a_refused_replay_keeps_the_inputs_for_the_next_try() -> None:
    history = new_history()
    a, b = answered(history, steps(1), steps(2))
    (c,) = sent(history, steps(3))
    history.on_error(c, "STEP_GAP", a.end)
    again, _ = resent(history)
    assert history.on_error(again, "NUMERICS_CHANGED").failed == (c,)
    history.on_error(c, "STEP_GAP", a.end)
    assert history.position == b.end
    (d,) = sent(history, steps(4))
    assert history.on_error(d, "STEP_GAP", a.end).action is Action.REPLAY
    assert bytes_and_places(*resent(history)) == bytes_and_places(b, d)


def test_ack_behind_is_tried_again_once_the_acks_have_caught_up() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    assert history.on_error(b, "ACK_BEHIND").action is Action.RESEND
    history.on_reply(a, a.end)
    assert (send(history), b.acked_sent) == (b, 1)
    assert history.on_error(b, "ACK_BEHIND").reason == "ACK_BEHIND"


def test_an_abandoned_chunk_keeps_its_place_and_is_settled_before_anything_new() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    assert history.abandon(a, "DEADLINE_PASSED").failed == (a,)
    assert (a.late, b.late, history.late) == (True, False, 1)
    assert not history.room(1)  # not even for the same bytes: they would be another step
    assert history.on_reply(a, a.end).action is Action.DELIVER
    assert history.on_reply(b, b.end).action is Action.DELIVER
    assert history.position == b.end
    assert history.idle


def test_an_abandoned_chunk_is_sent_again_as_it_was() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    history.abandon(a, "DEADLINE_PASSED")
    assert history.on_error(a, LOST).action is Action.RESEND
    assert not history.room(1)
    assert resent(history) == [a]
    assert history.on_reply(a, a.end).action is Action.DELIVER
    assert history.room(1)


@pytest.mark.parametrize("reason", ["STEP_CONFLICT", "NON_FINITE_RESULT", "HISTORY_CHANGED", "INVALID_FIELD"])
def test_a_late_chunk_that_is_refused_for_good_gives_its_place_back(reason: str) -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    history.abandon(a, "DEADLINE_PASSED")
    assert history.on_error(a, reason).failed == (a,)
    assert (a.state, history.late, history.tail) == (ChunkState.DROPPED, 0, START)
    assert history.room(1)


@pytest.mark.parametrize("reason", ["MODEL_CHANGED", "UNAUTHENTICATED", "SESSION_NOT_FOUND", "INTERNAL_ERROR"])
def test_a_refusal_after_a_lost_answer_settles_nothing(reason: str) -> None:
    """The first attempt may have been applied. A refusal of the second does not disprove that."""
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    history.on_error(a, LOST)
    history.on_error(b, LOST)
    assert resent(history) == [a, b]
    assert history.on_error(a, reason).failed == (a, b)
    assert (a.late, b.late) == (True, True)
    assert history.on_error(b, reason).failed == (b,)
    assert not history.room(1)
    assert resent(history) == [a, b]
    history.on_reply(a, a.end)
    history.on_reply(b, b.end)
    assert (history.position, history.late, history.idle) == (b.end, 0, True)


def test_a_late_chunk_that_the_record_stands_behind_counts() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    history.abandon(a, "DEADLINE_PASSED")
    assert history.on_error(a, "STEP_COMPACTED", a.end).action is Action.DELIVER
    assert (history.position, history.late) == (a.end, 0)


def test_what_was_refused_before_it_was_applied_is_dropped_with_what_was_built_on_it() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    assert history.on_error(a, "QUEUE_FULL").action is Action.RESEND
    assert history.abandon(a, "DEADLINE_PASSED").failed == (a, b)
    assert (history.late, history.tail) == (0, START)
    again = history.append(steps(1))
    assert history.upcoming is None  # b would fit after it, if it were still in flight
    assert history.on_error(b, "STEP_GAP", START).action is Action.IGNORE
    assert resent(history) == [again]


def test_a_step_given_up_before_an_answered_one_stays_in_the_history() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    history.on_error(a, LOST)
    assert history.on_reply(b, b.end).action is Action.DELIVER
    assert history.position == START
    assert history.abandon(a, "DEADLINE_PASSED").failed == (a,)
    assert history.position == b.end


def test_a_reply_at_another_position_is_not_believed() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    verdict = history.on_reply(a, a.end._replace(head=bytes(8)))
    assert (verdict.action, verdict.reason) == (Action.FAIL, "HISTORY_CHANGED")


def test_what_was_never_sent_is_taken_back() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    b, c = history.append(steps(2)), history.append(steps(3))
    assert history.abandon(b, "").failed == (b, c)
    assert history.tail == a.end
    assert history.on_reply(a, a.end).action is Action.DELIVER
    assert history.idle


def test_an_ended_history_tells_what_may_have_been_applied() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    b = history.append(steps(2))
    assert history.end() == (a, b)
    assert (a.may_be_applied, b.may_be_applied) == (True, False)
    assert history.on_reply(a, a.end).action is Action.IGNORE
    assert history.idle


def test_rewind_replays_for_a_call_beside_the_stream() -> None:
    history = new_history()
    a, b = answered(history, steps(1), steps(2))
    assert history.rewind(a.end).replayed_steps == 1
    assert bytes_and_places(*resent(history)) == bytes_and_places(b)
    assert history.rewind(START.advance(steps(8), WIDTH)).reason == "HISTORY_CHANGED"
