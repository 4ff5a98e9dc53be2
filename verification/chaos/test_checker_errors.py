"""The checker explains an error by a fault, and no other error."""

from __future__ import annotations

import pytest

from .handwritten_history import HandwrittenHistory, two_chunks
from .history import Metrics


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
