"""The checker accepts each reason of an error just as far as it goes."""

from __future__ import annotations

import numpy as np
import pytest

from testing.wire_client import Position

from .handwritten_history import HandwrittenHistory, two_chunks
from .history import Fault, RefusedStart


def test_a_loss_explains_nothing_to_a_session_that_was_idle(made: HandwrittenHistory) -> None:
    _, middle, _ = two_chunks(made)
    made.fault("failover", loses=True, late=True)
    made.final_read("a", middle)
    assert made.kinds() == {"lost"}


@pytest.mark.parametrize("reason", ["STEP_GAP", "HISTORY_LOST", "GENERATION_CHANGED", "SESSION_NOT_FOUND"])
@pytest.mark.parametrize("late", [False, True])
def test_reports_of_a_loss_by_those_who_had_something_to_lose(
    made: HandwrittenHistory, reason: str, late: bool
) -> None:
    _, _, end = two_chunks(made)
    made.fault("failover", loses=True, late=late)
    made.unanswered("a", end, [6], reason)
    made.final_read("a", end)
    assert made.kinds() == ({"unexplained"} if late else set())


@pytest.mark.parametrize("reached", [False, True])
def test_an_old_copy_finds_a_gap_where_nothing_was_ever_reached(made: HandwrittenHistory, reached: bool) -> None:
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    given_up = made.unanswered("a", end, [6, 7], "LOST")
    inputs = np.array([[6.0], [7.0]], np.float32)
    old = made.unanswered("a", end if reached else end.after(inputs), [8], "STEP_GAP", sender="late copy")
    old.late = True
    made.final_read("a", end)
    assert given_up.error
    assert made.kinds() == ({"unexplained"} if reached else set())


@pytest.mark.parametrize("answered_first", [False, True])
def test_a_gap_behind_steps_that_are_under_way(made: HandwrittenHistory, answered_first: bool) -> None:
    _, _, end = two_chunks(made)
    sent_at = made.tick()
    behind = made.unanswered("a", end.after(np.array([[6.0]], np.float32)), [7], "STEP_GAP")
    last = made.steps("a", end, [6])
    before = made.history.bursts["a"][-1]
    before.sent_at = sent_at
    if answered_first:
        before.acks[0] = before.acks[0]._replace(at=behind.sent_at - 1.0)
    made.final_read("a", last)
    assert made.kinds() == ({"unexplained"} if answered_first else set())


@pytest.mark.parametrize(("sender", "acked", "found"), [("other", 4, False), ("other", 3, True), ("hand", 4, True)])
def test_a_checkpoint_needs_somebody_elses_acks(made: HandwrittenHistory, sender: str, acked: int, found: bool) -> None:
    """`sender` sent steps 3 and 4, and said that every reply up to `acked` is held."""
    start = made.begin("open", "a")
    middle = made.steps("a", start, [1, 2, 3])
    end = made.steps("a", middle, [4, 5], sender=sender)
    made.history.bursts["a"][-1].acked = acked
    made.unanswered("a", middle, [6], "STEP_COMPACTED")
    made.final_read("a", end)
    assert made.kinds() == ({"unexplained"} if found else set())


@pytest.mark.parametrize("acked", [2, 3])
def test_what_opens_and_old_copies_find_compacted(made: HandwrittenHistory, acked: int) -> None:
    start, middle, end = two_chunks(made)
    early = Position(start.generation, 2, start.after(np.array([[1.0], [2.0]], np.float32)).head)
    made.history.bursts["a"][1].acked = acked
    made.found("a", end, expect=early, error="STEP_COMPACTED")
    old = made.unanswered("a", early, [3], "STEP_COMPACTED", sender="late copy")
    old.late = True
    made.final_read("a", end)
    assert made.kinds() == ({"unexplained"} if acked == 2 else set())
    assert made.check().count("unexplained") == (2 if acked == 2 else 0)
    assert middle.step == 3


@pytest.mark.parametrize(("behind", "found"), [(True, False), (False, True)])
def test_steps_behind_one_that_failed(made: HandwrittenHistory, behind: bool, found: bool) -> None:
    _, middle, end = two_chunks(made)
    made.history.bursts["a"][1].sender = "other"
    made.history.bursts["a"][1].acked = 4
    first = made.unanswered("a", middle, [6], "STEP_COMPACTED")
    place = middle.after(first.inputs) if behind else Position(middle.generation, 2, middle.head)
    made.unanswered("a", place, [7], "STEP_COMPACTED", words="the step before it failed: got 3")
    made.final_read("a", end)
    assert made.kinds() == ({"unexplained"} if found else set())


@pytest.mark.parametrize(("reason", "step", "found"), [("STEP_CONFLICT", 5, False), ("STEP_CONFLICT", 7, True)])
@pytest.mark.parametrize("sender", ["hand", "other"])
def test_rivals_for_a_place(made: HandwrittenHistory, reason: str, step: int, found: bool, sender: str) -> None:
    """Steps 5 and 6 were sent and never answered, by another sender, or by the same one, which gave them up."""
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    made.unanswered("a", end, [6, 7], "LOST", sender=sender)
    place = end if step == 5 else end.after(np.array([[6.0], [7.0]], np.float32))
    made.unanswered("a", place, [9], reason)
    made.final_read("a", end)
    assert made.kinds() == ({"unexplained"} if found else set())


@pytest.mark.parametrize(("sender", "found"), [("other, opening 2", set()), ("hand, opening 2", {"unexplained"})])
@pytest.mark.parametrize("reason", ["STEP_CONFLICT", "HISTORY_CHANGED"])
def test_contenders_for_a_place(made: HandwrittenHistory, reason: str, sender: str, found: set[str]) -> None:
    """Steps 5 and 6 were answered to another client, or to the same one, which knew."""
    _, _, end = two_chunks(made)
    last = made.steps("a", end, [6, 7], sender="hand, opening 1")
    place = end.after(np.array([[9.0]], np.float32)) if reason == "HISTORY_CHANGED" else end
    made.unanswered("a", place, [9], reason, sender=sender)
    made.final_read("a", last)
    assert made.kinds() == found


def test_steps_of_the_same_window_are_no_rivals(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    other = made.unanswered("a", end, [6, 7], "LOST")
    made.unanswered("a", end, [9], "STEP_CONFLICT")
    other.error_at = made.tick()  # it was still in flight
    made.final_read("a", end)
    assert made.kinds() == {"unexplained"}


def test_an_answer_with_a_wrong_position_is_never_expected(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("failover", loses=True)
    made.unanswered("a", end, [6], "HISTORY_CHANGED", words="the server is at x, where y was expected")
    made.final_read("a", end)
    assert made.kinds() == {"unexplained"}


@pytest.mark.parametrize(("fault", "found"), [("server_kill", {"unexplained"}), ("disk_full", set())])
def test_reading_prolongs_no_ttl_while_the_disk_is_full(made: HandwrittenHistory, fault: str, found: set[str]) -> None:
    _, _, end = two_chunks(made)
    made.tick()
    made.history.ttls["a"] = 50.0  # expired by the time of the error, unless the second open extends it
    operation = made.found("a", end)
    made.history.faults.append(Fault(fault, "somewhere", operation.sent_at, operation.at, False))
    made.unanswered("a", end, [6], "SESSION_NOT_FOUND")
    made.final_read("a", end)
    assert made.kinds() == found


@pytest.mark.parametrize(("ttl_s", "found"), [(100.0, {"unexplained"}), (25.0, set())])
def test_a_generation_that_expired_before_another_began(
    made: HandwrittenHistory, ttl_s: float, found: set[str]
) -> None:
    _, _, end = two_chunks(made)
    made.history.ttls["a"] = ttl_s
    made.unanswered("a", end, [6], "GENERATION_CHANGED")
    made.final_read("a", end)
    assert made.kinds() == found


@pytest.mark.parametrize(("deleted", "fault", "found"), [(True, True, False), (False, True, True), (True, False, True)])
def test_a_late_create(made: HandwrittenHistory, deleted: bool, fault: bool, found: bool) -> None:
    """A generation is found whose creation nobody was told of."""
    if fault:
        made.fault("client_cut")
    _, _, end = two_chunks(made)
    if deleted:
        made.delete("a", end)
    else:
        end = made.begin("reset", "a", names=end.generation)
    late = made.begin("open", "a")
    made.history.operations["a"].pop()
    made.found("a", late)
    made.final_read("a", late)
    assert made.kinds() == ({"leaked"} if found else set()) | (set() if deleted else {"lost"})


@pytest.mark.parametrize(
    ("of_store", "after_s", "words", "found"),
    [
        (True, -1.0, "the database is locked", False),
        (True, 19.0, "the database is locked", False),
        (True, 21.0, "the database is locked", True),
        (True, -1.0, "Traceback", True),
        (False, -1.0, "the database is locked", True),
    ],
)
def test_a_server_that_refuses_to_start(
    made: HandwrittenHistory, of_store: bool, after_s: float, words: str, found: bool
) -> None:
    made.fault("disk_locked" if of_store else "client_cut", of_store=of_store)
    began = made.history.faults[0].ended + after_s
    made.history.refused_starts.append(RefusedStart(0, began, began + 0.5, words))
    assert made.kinds() == ({"crash"} if found else set())
