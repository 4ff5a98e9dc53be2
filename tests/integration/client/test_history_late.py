"""A session's history: chunks whose callers have given up, or that nobody answered."""

from __future__ import annotations

import pytest
from cellkeeper._session.chunk import ChunkState
from cellkeeper._session.verdict import LOST, Action

from .histories import START, new_history, resent, sent, steps


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
