"""The protocol's decision table, row by row: a session that has consumed 1, 2, 3, 4, with its checkpoint at step 1."""

from __future__ import annotations

from cellkeeper_service.core.decision_table import Verdict, decide
from cellkeeper_service.core.requests import Step
from cellkeeper_service.domain.position import MAX_STEP, first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.errors import Rejection

from .made import at, models, record, step, version

SERVED = models(version())
STANDS = record(SERVED.default, [1, 2, 3, 4], checkpoint_step=1)


def outcome(step: Step, record: Record | None = STANDS) -> str:
    verdict = decide(record, step, SERVED)
    return verdict.reason.name if isinstance(verdict, Rejection) else verdict.name


def test_a_position_needs_a_record() -> None:
    assert outcome(step([5], at([1])), None) == "SESSION_NOT_FOUND"


def test_a_peek_needs_a_record() -> None:
    assert outcome(step([5], peek=True), None) == "SESSION_NOT_FOUND"


def test_without_position_and_record_a_session_is_created() -> None:
    assert outcome(step([5]), None) == "CREATE"


def test_another_generation_comes_before_everything_else_of_the_record() -> None:
    another = record(version(byte=b"\2"), [1, 2])
    assert outcome(step([5], first_position(b"x" * 16, 9)), another) == "GENERATION_CHANGED"


def test_a_version_that_is_not_served() -> None:
    another = record(version(byte=b"\2"), [1, 2])
    assert outcome(step([5], at([1, 2])), another) == "MODEL_CHANGED"
    assert outcome(step([5]), another) == "MODEL_CHANGED"


def test_other_numerics() -> None:
    assert outcome(step([5]), record(SERVED.default, [1], numerics=b"another!")) == "NUMERICS_CHANGED"


def test_a_state_of_another_size_is_damage() -> None:
    assert outcome(step([5]), Record(STANDS.header, b"short", STANDS.log)) == "DATA_LOSS"


def test_without_position_it_is_applied_where_the_record_stands() -> None:
    assert outcome(step([5])) == "APPLY"


def test_a_position_ahead_is_a_gap() -> None:
    assert outcome(step([6], at([1, 2, 3, 4, 5]))) == "STEP_GAP"


def test_a_position_before_the_checkpoint_is_compacted() -> None:
    assert outcome(step([1], at([]))) == "STEP_COMPACTED"


def test_another_head_is_another_history_wherever_it_stands() -> None:
    assert outcome(step([5], at([1, 2, 3, 9]))) == "HISTORY_CHANGED"
    assert outcome(step([4], at([1, 2, 9]))) == "HISTORY_CHANGED"


def test_at_the_records_position_it_is_applied() -> None:
    assert outcome(step([5, 6], at([1, 2, 3, 4]))) == "APPLY"


def test_the_same_inputs_again_are_replayed_even_across_chunks() -> None:
    assert outcome(step([3], at([1, 2]))) == "REPLAY"
    assert outcome(step([2, 3, 4], at([1]))) == "REPLAY"


def test_other_inputs_are_a_conflict() -> None:
    assert outcome(step([9], at([1, 2]))) == "STEP_CONFLICT"


def test_a_chunk_that_is_applied_in_part_is_a_conflict() -> None:
    assert outcome(step([4, 5], at([1, 2, 3]))) == "STEP_CONFLICT"


def test_nothing_goes_beyond_the_last_step_but_a_peek() -> None:
    last = first_position(b"g" * 16, MAX_STEP)
    header = STANDS.header.replace(position=last, checkpoint_step=MAX_STEP, checkpoint_head=last.head)
    end = Record(header, STANDS.checkpoint, b"")
    assert outcome(step([5], last), end) == "INVALID_FIELD"
    assert outcome(step([5]), end) == "INVALID_FIELD"
    assert outcome(step([5], last, peek=True), end) == "APPLY"


def test_every_refusal_of_a_record_names_its_position() -> None:
    for asked in (
        step([6], at([1, 2, 3, 4, 5])),
        step([1], at([])),
        step([5], at([1, 2, 3, 9])),
        step([9], at([1, 2])),
    ):
        verdict = decide(STANDS, asked, SERVED)
        assert isinstance(verdict, Rejection)
        assert verdict.position == STANDS.position
    assert Verdict.APPLY is decide(STANDS, step([5]), SERVED)
