"""The meaning of START, END, the sequence id and `step`."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as v1

from testing.server_process import ServerProcess
from tests.integration.rpc.calls import Api as OwnApi

from .calls import END, START, Api, Refused, Value, numbers, request

MUST_START = "must specify the START flag on the first request of the sequence"


def refusal(count: Api, *args: object, **more: object) -> Refused:
    with pytest.raises(Refused) as caught:
        count.infer(*args, **more)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("nothing", [None, 0, ""])
@pytest.mark.parametrize("flags", [{}, START, END])
def test_a_request_without_a_sequence_is_refused(
    count: Api, nothing: int | str | None, flags: dict[str, Value]
) -> None:
    why = refusal(count, numbers(1), nothing, flags)
    text = "inference request to model 'count' must specify a non-zero or non-empty correlation ID"
    assert (why.code, why.message) == ("INVALID_ARGUMENT", text)


@pytest.mark.parametrize("flags", [{}, END, {"step": 0}, {"step": 3}])
def test_a_sequence_must_start(count: Api, sequence: int, flags: dict[str, Value]) -> None:
    why = refusal(count, numbers(1), sequence, flags)
    assert (why.code, why.message) == (
        "INVALID_ARGUMENT",
        f"inference request for sequence {sequence} to model 'count' {MUST_START}",
    )
    assert count.infer(numbers(5), sequence, START).sums == [5]


def test_start_resets_and_is_applied(count: Api, sequence: int) -> None:
    assert count.infer(numbers(1, 2), sequence, START).sums == [1, 3]
    assert count.infer(numbers(3), sequence).sums == [6]
    assert count.infer(numbers(4), sequence, START).sums == [4]
    assert count.infer(numbers(5), sequence).sums == [9]


def test_the_same_number_and_text_are_different_sequences(count: Api, sequence: int) -> None:
    count.infer(numbers(1), sequence, START)
    assert MUST_START in refusal(count, numbers(1), str(sequence)).message
    count.infer(numbers(10), str(sequence), START)
    assert count.infer(numbers(1), sequence).sums == [2]
    assert count.infer(numbers(1), str(sequence)).sums == [11]


def test_a_negative_number_is_a_sequence_too(count: Api, sequence: int) -> None:
    count.infer(numbers(1), -sequence, START)
    assert count.infer(numbers(1), -sequence).sums == [2]


def test_a_sequence_is_a_session_of_the_service_itself(served: ServerProcess, count: Api, sequence: int) -> None:
    """A text is the session's name; the number 7 is the session "int64:7"."""
    with served.channel() as channel:
        own = OwnApi(served.stub(channel), "count")
        for name, session in ((sequence, f"int64:{sequence}"), (f"pump-{sequence}", f"pump-{sequence}")):
            count.infer(numbers(1, 2), name, START)
            info = own.info(session)
            assert (info.position.step, info.ttl_ms) == (2, 600_000)
            count.infer(numbers(3), name, END)
            info = own.info(session)
            assert (info.position.step, info.ttl_ms) == (3, 60_000)


def test_a_session_of_the_service_itself_continues_without_start(
    served: ServerProcess, count: Api, sequence: int
) -> None:
    with served.channel() as channel:
        own = OwnApi(served.stub(channel), "count")
        message = v1.StepRequest(
            model="count", session=f"own-{sequence}", dtype=v1.FLOAT32, shape=[1, 1], inputs=numbers(7).tobytes()
        )
        own.call("Step", message)
    assert count.infer(numbers(1), f"own-{sequence}").sums == [8]


def test_a_text_that_no_session_can_have_is_refused(count: Api) -> None:
    assert refusal(count, numbers(1), "x" * 257, START) == Refused(
        "INVALID_ARGUMENT", "sequence_id: got 257 bytes, expected 1 to 256 bytes of UTF-8"
    )


@pytest.mark.parametrize("flags", [END, {**START, **END}])
def test_after_end_a_sequence_must_start(count: Api, sequence: int, flags: dict[str, Value]) -> None:
    if "sequence_start" not in flags:
        count.infer(numbers(1), sequence, START)
    before = 0 if "sequence_start" in flags else 1
    assert count.infer(numbers(2), sequence, flags).sums == [before + 2]
    for more in ({}, END):
        assert MUST_START in refusal(count, numbers(1), sequence, more).message
    assert count.infer(numbers(4), sequence, START).sums == [4]


def test_a_repeated_step_is_answered_again_and_not_applied_again(count: Api, sequence: int) -> None:
    first = count.infer(numbers(1), sequence, {**START, "step": 0}, identifier="a")
    assert first.parameters == {"next_step": 1, "replayed": False}
    again = count.infer(numbers(1), sequence, {**START, "step": 0}, identifier="a")
    assert (again.sums, again.parameters) == ([1], {"next_step": 1, "replayed": True})
    for replayed in (False, True, True):
        got = count.infer(numbers(2, 3), sequence, {"step": 1, "acked": 0})
        assert (got.sums, got.parameters) == ([3, 6], {"next_step": 3, "replayed": replayed})
    for replayed in (False, True):
        ended = count.infer(numbers(4), sequence, {**END, "step": 3, "acked": 0})
        assert (ended.sums, ended.parameters) == ([10], {"next_step": 4, "replayed": replayed})


def test_a_start_without_request_id_starts_each_time(count: Api, sequence: int) -> None:
    for _ in range(2):
        got = count.infer(numbers(1), sequence, {**START, "step": 0})
        assert (got.sums, got.parameters["replayed"]) == ([1], False)
    assert count.infer(numbers(1), sequence, {"step": 1}).sums == [2]
    other = count.infer(numbers(1), sequence, {**START, "step": 0}, identifier="another")
    assert (other.sums, other.parameters["replayed"]) == ([1], False)


@pytest.mark.parametrize(
    ("values", "step", "code", "text"),
    [
        ([9], 1, "ABORTED", "steps 1..1: other inputs were applied there; the session is at step 3"),
        ([9, 4], 2, "ABORTED", "steps 2..3: other inputs were applied there"),
        ([3, 9], 2, "ABORTED", "steps 2..3: the session has these inputs up to step 3 already, and lacks the others"),
        ([4], 4, "FAILED_PRECONDITION", "step: got 4, but the session is at step 3"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(
    count: Api, sequence: int, values: list[float], step: int, code: str, text: str
) -> None:
    count.infer(numbers(1), sequence, {**START, "step": 0})
    count.infer(numbers(2, 3), sequence, {"step": 1, "acked": 0})
    why = refusal(count, numbers(*values), sequence, {"step": step, "acked": 0})
    assert why.code == code
    assert why.message.startswith(text)
    assert count.infer(numbers(4), sequence, {"step": 3}).sums == [10]


def test_a_step_that_was_acknowledged_may_be_gone_from_the_log(count: Api, sequence: int) -> None:
    count.infer(numbers(1), sequence, {**START, "step": 0})
    for step in range(1, 5):
        count.infer(numbers(1), sequence, {"step": step})
    why = refusal(count, numbers(1), sequence, {"step": 0})
    assert (why.code, why.message.partition(",")[0]) == ("OUT_OF_RANGE", "step: got 0")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"step": -1}, "step: got -1, expected the number of time steps before this chunk, 0 or more"),
        ({**START, "step": 1}, "step: got 1 with sequence_start, expected 0, where a sequence starts"),
        (
            {"step": 1, "acked": 2},
            "acked: got 2, expected 0 to the chunk's step, 1: the client cannot have a later reply",
        ),
        ({"acked": 2}, "acked: got 2 without step, expected both or neither"),
        ({"timeout": -1}, "timeout: got -1, expected microseconds, or 0 for none"),
        ({"step": "1"}, "invalid value type for 'step' parameter, expected int64_param."),
        ({"sequence_start": 1}, "invalid value type for 'sequence_start' parameter, expected bool_param."),
        ({"sequence_end": "x"}, "invalid value type for 'sequence_end' parameter, expected bool_param."),
        ({"sequence_id": 1.5}, "invalid value type for 'sequence_id' parameter, expected int64_param or string_param."),
        ({"priority": "x"}, "invalid value type for 'priority' parameter, expected int64_param or uint64_param."),
        ({"timeout": 1.0}, "invalid value type for 'timeout' parameter, expected int64_param."),
        (
            {"triton_x": 1},
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting "
            "with 'triton_' are allowed: triton_enable_empty_final_response",
        ),
        (
            {f"triton_{'x' * 100_000}": 1},  # a refusal's headers must have room for the name of its field
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting "
            "with 'triton_' are allowed: triton_enable_empty_final_response",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_parameters_are_refused(count: Api, sequence: int, parameters: dict[str, Value], text: str) -> None:
    count.infer(numbers(1), sequence, START)
    assert refusal(count, numbers(1), sequence, parameters) == Refused("INVALID_ARGUMENT", text)
    assert count.infer(numbers(1), sequence).sums == [2]


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_a_request_id_leaves_room_for_the_reply(count: Api, sequence: int, letter: str) -> None:
    """A reply that no message can hold would be lost, after its step was applied."""
    longest = letter * (1024 // len(letter.encode()))
    assert count.infer(numbers(1), sequence, START, identifier=longest).identifier == longest
    with pytest.raises(Refused) as caught:
        count.infer(numbers(1), sequence, identifier=longest + letter)
    came = len((longest + letter).encode())
    assert caught.value == Refused("INVALID_ARGUMENT", f"id: got {came} bytes, expected at most 1024")
    assert count.infer(numbers(1), sequence).sums == [2]


def test_parameters_that_mean_nothing_here_are_taken(count: Api, sequence: int) -> None:
    parameters: dict[str, Value] = {**START, "priority": 3, "timeout": 30_000_000, "own": "text"}
    got = count.infer(
        numbers(1), sequence, {**parameters, "triton_enable_empty_final_response": True}, identifier="r-1"
    )
    assert (got.sums, got.identifier) == ([1], "r-1")


def test_a_timeout_bounds_the_request(count: Api, sequence: int) -> None:
    why = refusal(count, numbers(1), sequence, {**START, "timeout": 1})
    assert why.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
    assert MUST_START in refusal(count, numbers(1), sequence).message


def test_chunks_and_single_steps_give_the_same_bits(served: ServerProcess, sequence: int) -> None:
    values = np.random.default_rng(0).standard_normal((1, 40, 3)).astype(np.float32)
    with served.channel() as channel:
        lstm = Api(channel, "lstm")
        whole = lstm.infer(values, sequence, START).outputs["prediction"]
        assert whole.shape == (1, 40, 2)
        for step in range(40):
            got = lstm.infer(values[:, step], f"s{sequence}", START if step == 0 else {}).outputs["prediction"]
            assert got.shape == (1, 2)
            np.testing.assert_array_equal(got, whole[:, step], strict=True)


def test_what_the_service_counts(served: ServerProcess, count: Api, sequence: int) -> None:
    before = [
        served.metric("cellkeeper_rejections_total", reason=name) for name in ("session_not_found", "invalid_field")
    ]
    steps = served.metric("cellkeeper_steps_total", model="count")
    refusal(count, numbers(1), sequence)
    refusal(count, numbers(1), 0)
    list(count.stream(iter([request("count", numbers(1), sequence), request("count", numbers(1), 0)])))
    count.infer(numbers(1, 2, 3), sequence, START)
    after = [
        served.metric("cellkeeper_rejections_total", reason=name) for name in ("session_not_found", "invalid_field")
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2]
    assert served.metric("cellkeeper_steps_total", model="count") - steps == 3
