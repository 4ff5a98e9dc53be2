"""The checker accepts the loss of a tail that its clients were told of, and nothing else beside it."""

from __future__ import annotations

import numpy as np
import pytest

from .handwritten_history import MODEL, HandwrittenHistory, two_chunks
from .history import Fault, Operation


def test_a_lost_tail_whose_client_was_told(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.fault("failover", loses=True)
    made.unanswered("a", end, [6], "HISTORY_LOST")
    made.final_read("a", made.steps("a", middle, [8]))
    verdict = made.check()
    assert verdict.findings == []
    assert verdict.lost_and_told == 2
    assert verdict.reports == 1


@pytest.mark.parametrize(("told", "applied", "found"), [(True, False, False), (False, False, True), (True, True, True)])
def test_a_copy_of_lost_steps_that_is_answered_once_more(
    made: HandwrittenHistory, told: bool, applied: bool, found: bool
) -> None:
    """The copy is answered by a server still connected to the old primary, after the session's client was told."""
    _, middle, end = two_chunks(made)
    made.history.faults.append(Fault("failover_split", "store", made.now + 1.0, made.now + 100.0, True))
    if told:
        made.unanswered("a", end, [6], "HISTORY_LOST")
    copy = made.repeat(made.history.bursts["a"][1])
    copy.acks[0] = copy.acks[0]._replace(applied=applied)
    made.final_read("a", made.steps("a", middle, [8], sender="somebody else"))
    assert ("lost" in made.kinds()) == found


def test_a_lost_tail_that_nobody_was_told_of(made: HandwrittenHistory) -> None:
    _, middle, _ = two_chunks(made)
    made.fault("failover", loses=True)
    made.final_read("a", made.steps("a", middle, [8], sender="somebody else"))
    assert made.kinds() == {"lost"}


def test_what_others_were_told_of_a_lost_tail_does_not_tell_its_client(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.fault("failover", loses=True)
    copy = made.unanswered("a", end, [7], "STEP_GAP", sender="late copy")
    copy.late = True
    made.final_read("a", middle)
    assert made.kinds() == {"lost"}


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("refused_at_its_end", [False, True])
def test_a_lost_branch_beside_one_that_is_compacted(
    made: HandwrittenHistory, refused_at_its_end: bool, opens: bool
) -> None:
    """A second switch brings back a history that is ahead, in which the client's position cannot be checked. That it
    refuses a copy of earlier steps says nothing to the client."""
    _, middle, end = two_chunks(made)
    made.fault("failover", loses=True)
    ahead = made.steps("a", middle, [8, 9, 10], sender="somebody else")
    refused = end if refused_at_its_end else middle
    if opens:
        made.found("a", refused, expect=refused, error="STEP_COMPACTED")
    else:
        made.unanswered("a", refused, [6], "STEP_COMPACTED")
    made.final_read("a", ahead)
    assert ("lost" in made.kinds()) != refused_at_its_end


@pytest.mark.parametrize("asked", [False, True])
def test_a_copy_that_was_applied_and_lost_is_its_senders(made: HandwrittenHistory, asked: bool) -> None:
    """The session's own client gave these steps up and does not know of them, so it does not notice their loss."""
    _, _, end = two_chunks(made)
    lost = made.steps("a", end, [7], sender="late copy")
    made.fault("failover", loses=True)
    made.steps("a", end, [8])
    if asked:
        made.found("a", lost, expect=lost, error="HISTORY_CHANGED").sender = "late copy"
    made.final_read("a", end.after(np.array([[8]], np.float32)))
    assert made.kinds() == (set() if asked else {"lost"})


@pytest.mark.parametrize("told", [False, True])
def test_a_generation_that_was_lost_as_a_whole(made: HandwrittenHistory, told: bool) -> None:
    """A reset and everything after it are lost."""
    _, _, end = two_chunks(made)
    operation = made.begin("reset", "a", names=end.generation)
    new = made.steps("a", operation, [9])
    made.fault("failover", loses=True)
    if told:
        made.unanswered("a", new, [7], "GENERATION_CHANGED")
    made.final_read("a", end)
    assert made.kinds() == (set() if told else {"lost"})


def test_a_record_that_nobody_can_read(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("power_cuts", of_store=True)
    words = "the record of session 'a' is damaged: its log has 12 bytes"
    made.unanswered("a", end, [7], "STORE_UNAVAILABLE", words=words)
    assert [(finding.kind, words in finding.words) for finding in made.check().findings] == [("unreadable", True)]
    made.final_read("a", end)
    made.spoil_final_read(position=None, states={}, error=f"STORE_UNAVAILABLE {words}")
    assert made.kinds() == {"unreadable"}


def test_a_tail_that_was_lost_without_a_fault(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.fault("server_kill")
    made.unanswered("a", end, [6], "CLIENT_KILLED")
    made.final_read("a", made.steps("a", middle, [8]))
    assert "lost" in made.kinds()


@pytest.mark.parametrize(("loses", "found"), [(True, set()), (False, {"lost", "unexplained"})])
def test_a_tail_that_was_seen_before_it_was_lost(made: HandwrittenHistory, loses: bool, found: set[str]) -> None:
    """Just before the loss, another client opens the session where it has just arrived."""
    _, middle, end = two_chunks(made)
    made.history.add_operation(Operation("open", "a", MODEL, "other", made.now, result=end, at=made.now))
    made.fault("failover", loses=loses)
    made.unanswered("a", end, [6], "HISTORY_LOST")
    made.final_read("a", made.steps("a", middle, [8]))
    assert made.kinds() == found


def test_a_tail_that_was_replayed(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.fault("failover", loses=True)
    made.repeat(made.history.bursts["a"][1], applied=True)
    made.final_read("a", end)
    assert middle.step < end.step
    assert made.kinds() == set()


def test_a_lost_tail_explains_no_wrong_bit(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.flip(made.history.bursts["a"][1])
    made.fault("failover", loses=True)
    made.unanswered("a", end, [6], "HISTORY_LOST")
    made.final_read("a", made.steps("a", middle, [8]))
    assert made.kinds() == {"mismatched"}


def test_a_generation_that_ended_on_another_branch_than_the_lost_one(made: HandwrittenHistory) -> None:
    """The lost branch was longer than the one after it."""
    _, middle, end = two_chunks(made)
    made.fault("failover", loses=True)
    made.unanswered("a", end, [6], "HISTORY_LOST")
    other = made.steps("a", middle, [8])
    made.final_read("a", made.begin("reset", "a", names=other.generation))
    verdict = made.check()
    assert verdict.findings == []
    assert verdict.lost_and_told == 2


def test_a_fork_whose_first_copy_was_lost(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.fork("a", middle, "b")
    made.fault("failover", loses=True)
    second = made.fork("a", middle, "b")
    del made.history.operations["b"][1]  # a copy of the first fork, whose answer nobody waited for
    made.final_read("b", second)
    made.final_read("a", end)
    assert made.kinds() == set()


def test_a_deleted_generation_that_a_loss_brought_back(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    acked_at = made.now
    made.delete("a", end)
    made.history.faults.append(Fault("failover", "store", acked_at + 1.0, made.tick(), True))
    made.final_read("a", middle)
    verdict = made.check()
    assert verdict.findings == []
    assert verdict.lost_and_told == 2
