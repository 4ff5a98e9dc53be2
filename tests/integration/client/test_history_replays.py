"""A session's history: what the server has lost is sent again, once, from what is kept; and what cannot be."""

from __future__ import annotations

from cellkeeper import Position
from cellkeeper._session.history import History
from cellkeeper._session.verdict import Action

from .histories import START, WIDTH, answered, bytes_and_places, new_history, resent, send, sent, steps


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


def test_rewind_replays_for_a_call_beside_the_stream() -> None:
    history = new_history()
    a, b = answered(history, steps(1), steps(2))
    assert history.rewind(a.end).replayed_steps == 1
    assert bytes_and_places(*resent(history)) == bytes_and_places(b)
    assert history.rewind(START.advance(steps(8), WIDTH)).reason == "HISTORY_CHANGED"
