"""The checker finds all violations and no others: every invariant, tested on handwritten histories."""

from __future__ import annotations

import numpy as np
import pytest

from .handwritten_history import HandwrittenHistory, renamed, two_chunks


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
