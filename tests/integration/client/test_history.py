"""A session's history, without a transport: positions, the window, retries, and refusals that are final."""

from __future__ import annotations

import pytest
from cellkeeper._session.verdict import LOST, RETRIED, Action

from .histories import START, WIDTH, answered, new_history, resent, send, sent, steps


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


def test_ack_behind_is_tried_again_once_the_acks_have_caught_up() -> None:
    history = new_history()
    a, b = sent(history, steps(1), steps(2))
    assert history.on_error(b, "ACK_BEHIND").action is Action.RESEND
    history.on_reply(a, a.end)
    assert (send(history), b.acked_sent) == (b, 1)
    assert history.on_error(b, "ACK_BEHIND").reason == "ACK_BEHIND"


def test_a_reply_at_another_position_is_not_believed() -> None:
    history = new_history()
    (a,) = sent(history, steps(1))
    verdict = history.on_reply(a, a.end._replace(head=bytes(8)))
    assert (verdict.action, verdict.reason) == (Action.FAIL, "HISTORY_CHANGED")
