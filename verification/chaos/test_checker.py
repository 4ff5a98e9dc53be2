"""The checker finds all violations and no others: every invariant, tested on handwritten histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.engine.load import load_engine

from testing.wire_client import Position

from .handwritten_history import MODEL, HandwrittenHistory, renamed
from .history import Fault, Metrics, Operation, RefusedStart
from .offline import Reference


@pytest.fixture(scope="module")
def reference(counting_model: Path) -> Reference:
    return Reference(load_engine(counting_model, "cpu"))


@pytest.fixture
def made(reference: Reference) -> HandwrittenHistory:
    return HandwrittenHistory(reference)


def two_chunks(made: HandwrittenHistory, session: str = "a") -> tuple[Position, Position, Position]:
    """Makes two chunks of a new session. Returns its positions before, between and after them."""
    start = made.begin("open", session)
    middle = made.steps(session, start, [1, 2, 3])
    return start, middle, made.steps(session, middle, [4, 5])


# ---------------------------------------------------------------------------------------------- sound histories


def test_a_sound_history_is_sound(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.repeat(made.history.bursts["a"][0])
    branch = made.steps("b", made.fork("a", middle, "b"), [7])
    twig = made.steps("c", made.fork("b", branch, "c"), [8, 9])
    moved = made.begin("set_state", "a", names=end.generation, step=1000, value=0.5)
    moved = made.steps("a", moved, [1, 1])
    again = made.steps("a", made.begin("reset", "a", names=moved.generation), [6])
    for session, position in (("a", again), ("b", branch), ("c", twig)):
        made.final_read(session, position)
    verdict = made.check()
    assert verdict.findings == []
    assert verdict.generations == 5
    assert verdict.compared_rows == 3 + 2 + 3 + 1 + 2 + 2 + 1
    assert verdict.compared_states == 6


def test_what_was_sent_and_not_answered_may_have_been_applied(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    made.unanswered("a", end, [6, 7], "LOST")
    inputs = np.array([[6.0]], np.float32)
    made._inputs["a", end.generation] = np.concatenate([made._inputs["a", end.generation], inputs])
    made.final_read("a", end.after(inputs))  # the first of the two
    assert made.kinds() == set()


# ---------------------------------------------------------------------------------------------- each violation


def test_a_lost_step(made: HandwrittenHistory) -> None:
    _, middle, _ = two_chunks(made)
    made.final_read("a", middle)
    assert made.kinds() == {"lost"}


def test_a_lost_session(made: HandwrittenHistory) -> None:
    two_chunks(made)
    made.final_read("a", None)
    assert made.kinds() == {"lost"}


def test_a_step_that_is_found_missing_on_the_way(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.begin("open", "a")
    operation = made.history.operations["a"][-1]
    operation.result, operation.created = middle, False
    made.final_read("a", end)
    assert made.kinds() == {"lost"}


def test_one_server_behind_the_other(made: HandwrittenHistory) -> None:
    _, middle, end = two_chunks(made)
    made.final_read("a", end)
    made.spoil_final_read(position=middle)
    assert made.kinds() == {"lost"}


def test_a_chunk_that_was_applied_twice_within_one_answer(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    burst = made.history.bursts["a"][1]
    twice = end.after(burst.inputs)
    burst.acks[0] = burst.acks[0]._replace(position=twice)
    made.final_read("a", end)
    assert made.kinds() == {"doubled"}


def test_a_chunk_that_was_applied_twice_by_two_answers(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.repeat(made.history.bursts["a"][1], applied=True)
    made.final_read("a", end)
    assert made.kinds() == {"doubled"}


def test_a_doubled_step_in_the_record(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.spoil_final_read(position=end.after(np.array([[5.0]], np.float32)))
    assert "gap" in made.kinds()


def test_a_flipped_bit_in_an_output(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.flip(made.history.bursts["a"][1])
    made.final_read("a", end)
    assert made.kinds() == {"mismatched"}


def test_a_flipped_bit_in_a_state(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.spoil_final_read(states={"h": np.nextafter(made.history.final_reads[0].states["h"], np.float32(99))})
    assert made.kinds() == {"mismatched"}


def test_an_answer_of_another_place(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    first, second = made.history.bursts["a"]
    second.acks[0] = second.acks[0]._replace(outputs={"prediction": first.acks[0].outputs["prediction"][:2]})
    made.final_read("a", end)
    assert made.kinds() == {"mismatched"}


@pytest.mark.parametrize("wanted", [("prediction",), ("prediction", "state")])
def test_an_answer_without_what_it_was_asked_for(made: HandwrittenHistory, wanted: tuple[str, ...]) -> None:
    _, _, end = two_chunks(made)
    burst = made.history.bursts["a"][1]
    burst.wanted = wanted
    burst.acks[0] = burst.acks[0]._replace(outputs={} if wanted == ("prediction",) else burst.acks[0].outputs)
    made.final_read("a", end)
    assert made.kinds() == {"mismatched"}


def test_an_input_that_nobody_sent(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    del made.history.bursts["a"][0]
    assert made.kinds() == {"gap"}


def test_one_session_shows_anothers_history(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.history.add_burst(renamed(made.history.bursts["a"][1], "b"))
    assert "leaked" in made.kinds()


def test_a_generation_that_no_client_asked_for(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.history.operations["a"].clear()
    assert made.kinds() == {"leaked"}


def test_a_replaced_generation_answers_again(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    new = made.begin("reset", "a", names=end.generation)
    made.repeat(made.history.bursts["a"][1])
    made.final_read("a", new)
    assert made.kinds() == {"revived"}


def test_a_deleted_generation_answers_again(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.delete("a", end)
    made.repeat(made.history.bursts["a"][1])
    made.final_read("a", None)
    assert made.kinds() == {"revived"}


def test_two_generations_take_turns(made: HandwrittenHistory) -> None:
    """Nobody said that the first generation was over, but the second was seen in its place."""
    _, _, end = two_chunks(made)
    new = made.steps("a", made.begin("open", "a"), [9])
    made.repeat(made.history.bursts["a"][1])
    made.final_read("a", new)
    assert end.generation != new.generation
    assert made.kinds() == {"lost", "revived"}  # nobody ended the first one


@pytest.mark.parametrize(
    ("ttl_s", "there", "found"),
    [
        (100.0, [True, True], set()),
        (100.0, [True, False], {"lost"}),  # 30 s after it was asked for
        (25.0, [True, False], set()),  # perhaps a tenth early
        (25.0, [True, True], set()),  # 10 s after it was read
        (9.0, [True, True], {"overdue"}),
        (9.0, [True, False], set()),
        (9.0, [True, False, True], {"revived"}),
    ],
)
def test_an_idle_session_expires_in_time(
    made: HandwrittenHistory, ttl_s: float, there: list[bool], found: set[str]
) -> None:
    """It is read every 20 seconds, each of which takes 10."""
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.history.ttls["a"] = ttl_s
    for is_there in there:
        read = made.history.final_reads[0]._replace(position=end if is_there else None)
        made.history.idle_reads["a"].append(read._replace(asked_at=made.tick(), at=made.tick()))
    assert made.kinds() == found


@pytest.mark.parametrize(("window_chunks", "found"), [(0, set()), (1, {"unexplained"})])
def test_a_stream_is_in_use_until_its_last_chunk(made: HandwrittenHistory, window_chunks: int, found: set[str]) -> None:
    """Its chunks were sent one by one: the last when the one before it was answered, 30 s before the error."""
    start = made.begin("open", "a")
    end = made.steps("a", start, [1, 2])
    burst = made.history.bursts["a"][0]
    burst.window_chunks = window_chunks
    ack = burst.acks[0]
    halves = [{"prediction": ack.outputs["prediction"][row : row + 1]} for row in range(2)]
    middle = start.after(burst.inputs[:1])
    burst.acks = [ack._replace(rows=1, position=middle, outputs=halves[0]), ack._replace(rows=1, outputs=halves[1])]
    burst.sent_at -= 100.0
    made.history.ttls["a"] = 50.0
    made.unanswered("a", end, [3], "SESSION_NOT_FOUND")
    made.final_read("a", end)
    assert made.kinds() == found


@pytest.mark.parametrize(("named", "found"), [(True, set()), (False, {"lost"})])
def test_a_generation_ends_only_if_somebody_names_it(made: HandwrittenHistory, named: bool, found: set[str]) -> None:
    """A reset that names an earlier generation has begun another one."""
    _, _, end = two_chunks(made)
    second = made.steps("a", made.begin("reset", "a", names=end.generation), [9])
    third = made.begin("reset", "a", names=second.generation if named else end.generation)
    made.final_read("a", third)
    assert made.kinds() == found


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_a_delete_ends_no_later_generation(made: HandwrittenHistory, old: bool, gone: bool) -> None:
    """A delete of the old generation, or of the new one, and then: the session is gone, or a step finds it gone."""
    _, _, end = two_chunks(made)
    new = made.steps("a", made.begin("reset", "a", names=end.generation), [9])
    made.delete("a", end if old else new)
    if gone:
        made.final_read("a", None)
    else:
        made.unanswered("a", new, [6], "SESSION_NOT_FOUND")
    assert made.kinds() == ({"lost" if gone else "unexplained"} if old else set())


def test_a_crash(made: HandwrittenHistory) -> None:
    made.history.crashes.append("server 0 ended unexpectedly")
    assert made.kinds() == {"crash"}


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("reason", "fault", "found"),
    [
        ("LOST", "", {"unexplained"}),
        ("LOST", "server_kill", set()),
        ("DEADLINE_PASSED", "", {"unexplained"}),
        ("STORE_UNAVAILABLE", "redis_kill", set()),
        ("SESSION_NOT_FOUND", "server_kill", {"unexplained"}),
        ("GENERATION_CHANGED", "server_kill", {"unexplained"}),
        ("HISTORY_CHANGED", "server_kill", {"unexplained"}),
        ("HISTORY_LOST", "server_kill", {"unexplained"}),
        ("STEP_GAP", "server_kill", {"unexplained"}),
        ("STEP_COMPACTED", "server_kill", {"unexplained"}),
        ("STEP_CONFLICT", "server_kill", {"unexplained"}),
        ("ACK_BEHIND", "server_kill", {"unexplained"}),
        ("INTERNAL_ERROR", "server_kill", {"unexplained"}),
        ("OUTCOME_UNKNOWN", "server_kill", {"unexplained"}),
        ("CLIENT_KILLED", "", set()),
    ],
)
def test_errors_need_a_fault_that_explains_them(
    made: HandwrittenHistory, reason: str, fault: str, found: set[str]
) -> None:
    _, _, end = two_chunks(made)
    if fault:
        made.fault(fault)
    made.unanswered("a", end, [6], reason)
    made.final_read("a", end)
    assert made.kinds() == found


def test_a_fault_explains_nothing_in_the_quiet_end(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    made.unanswered("a", end, [6], "DEADLINE_EXCEEDED").quiet = True
    made.final_read("a", end)
    assert made.kinds() == {"unexplained"}


@pytest.mark.parametrize("counted", [(5, 3, 1), (6, 3, 1), (5, 4, 1), (5, 3, 0)])
def test_metrics_that_differ_from_what_clients_saw(made: HandwrittenHistory, counted: tuple[int, int, int]) -> None:
    _, _, end = two_chunks(made)
    made.final_read("a", end)
    made.history.metrics = (Metrics(5, 3, 1), Metrics(*counted))
    assert made.kinds() == (set() if counted == (5, 3, 1) else {"miscounted"})


def test_a_fault_explains_nothing_long_after(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.fault("server_kill")
    for _ in range(5):
        made.tick()
    made.unanswered("a", end, [6], "LOST")
    made.final_read("a", end)
    assert made.kinds() == {"unexplained"}


def test_errors_that_others_explain(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    new = made.begin("reset", "a", names=end.generation)
    made.unanswered("a", end, [6], "GENERATION_CHANGED")
    made.unanswered("a", new, [6], "CLIENT_KILLED")
    made.unanswered("a", new, [7], "STEP_CONFLICT")
    made.delete("a", new)
    made.unanswered("a", new, [8], "SESSION_NOT_FOUND")
    made.final_read("a", None)
    assert made.kinds() == set()


def test_a_session_must_not_expire_early(made: HandwrittenHistory) -> None:
    _, _, end = two_chunks(made)
    made.history.ttls["a"] = 100.0
    made.unanswered("a", end, [6], "SESSION_NOT_FOUND")
    made.final_read("a", end)
    assert made.kinds() == {"unexplained"}
    made.history.ttls["a"] = 25.0
    assert made.kinds() == set()


# ---------------------------------------------------------------------------------------------- a tail that was lost


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


# --------------------------------------------------------------------------------------------- just outside each reason


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
