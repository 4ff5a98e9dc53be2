"""What a commit writes (appended inputs, or a checkpoint and the inputs after it), and what a failed one means."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.commit import build_commit, why_not_again
from cellkeeper_service.core.generation_requests import Delete, Deleted
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import Step, Write
from cellkeeper_service.core.session import Checkpoint, SessionState
from cellkeeper_service.core.state_cache import StateCache
from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.domain.store import Delete as StoreDelete

from .made import KEY, at, nobody, record, step, version
from .world import FOREVER, pack


def session_at(inputs: list[int]) -> SessionState:
    """Returns a session that is cached at its record's position."""
    served, session = version(), SessionState(KEY)
    stands = record(served, inputs)
    StateCache(served, 100).put(session, stands.header, stands.checkpoint)
    return session


def chunk(before: list[int], inputs: list[int], acked: int | None = None) -> Step:
    """Returns a chunk that is computed but not committed."""
    made = step(inputs, at(before), acked)
    made.at, made.after = len(before), at(before + inputs)
    return made


def test_chunks_are_appended_in_one_commit() -> None:
    session = session_at([1])
    assert session.cached is not None
    commit = build_commit(session, [chunk([1], [2]), chunk([1, 2], [3, 4])], now_ms=7)
    assert isinstance(commit.call, Commit)
    assert (commit.call.expected, commit.call.log, commit.call.checkpoint) == (
        session.cached.header,
        pack([2, 3, 4]),
        None,
    )
    assert commit.call.header.position == at([1, 2, 3, 4])
    assert (commit.call.header.updated_ms, commit.call.header.checkpoint_step) == (7, 0)
    assert commit.cached is session.cached


def test_a_record_that_is_not_there_yet_is_expected_not_to_be() -> None:
    session = session_at([])
    assert session.cached is not None
    session.cached.exists = False
    commit = build_commit(session, [chunk([], [1])], now_ms=0)
    assert isinstance(commit.call, Commit)
    assert commit.call.expected is None


@pytest.mark.parametrize(("acked", "written"), [(None, True), (2, True), (1, False)])
def test_a_checkpoint_is_written_once_every_reply_before_it_is_held(acked: int | None, written: bool) -> None:
    session = session_at([1, 2])
    assert session.cached is not None
    session.cached.checkpoint = Checkpoint(2, at([1, 2]).head, b"state at2", bytearray(pack([3])))
    commit = build_commit(session, [chunk([1, 2], [3], acked)], now_ms=0).call
    assert isinstance(commit, Commit)
    assert (commit.checkpoint, commit.header.checkpoint_step) == ((b"state at2", 2) if written else (None, 0))
    assert commit.log == pack([3])


@pytest.mark.parametrize(("first", "second"), [(1, 3), (None, 1)])
def test_a_checkpoint_waits_for_the_acknowledgements_of_all_chunks(first: int | None, second: int) -> None:
    session = session_at([1, 2])
    assert session.cached is not None
    session.cached.checkpoint = Checkpoint(2, at([1, 2]).head, b"state at2", bytearray(pack([3, 4])))
    commit = build_commit(session, [chunk([1, 2], [3], first), chunk([1, 2, 3], [4], second)], now_ms=0).call
    assert isinstance(commit, Commit)
    assert (commit.checkpoint, commit.log) == (None, pack([3, 4]))


def test_the_log_behind_a_checkpoint_holds_what_was_committed_before_too() -> None:
    session = session_at([1, 2])
    assert session.cached is not None
    session.cached.checkpoint = Checkpoint(1, at([1]).head, b"state at1", bytearray(pack([2, 3, 4])))
    commit = build_commit(session, [chunk([1, 2], [3])], now_ms=0).call  # 4 is computed, but is not in this commit
    assert isinstance(commit, Commit)
    assert (commit.checkpoint, commit.log) == (b"state at1", pack([2, 3]))


def test_an_erasure_is_a_delete_of_its_generation() -> None:
    request = Delete(KEY, FOREVER, nobody, b"g" * 16)
    request.write = Write(StoreDelete(KEY, b"g" * 16), Deleted(True))
    assert build_commit(SessionState(KEY), [request], now_ms=0).call == StoreDelete(KEY, b"g" * 16)


def test_chunks_whose_state_is_gone_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="is gone"):
        build_commit(SessionState(KEY), [chunk([], [1])], now_ms=0)


def test_a_conflict_is_decided_again_as_often_as_allowed() -> None:
    asked, conflict = step([1], at([])), CommitResult(Outcome.CONFLICT)
    assert why_not_again(asked, conflict, Limits()) is None
    why = why_not_again(asked, conflict, Limits())
    assert why is not None
    assert why.reason.name == "COMMIT_CONFLICT"


def test_an_unknown_outcome_is_told_for_a_step_without_position_and_decided_again_for_others() -> None:
    unknown = CommitResult(Outcome.UNKNOWN, None, "silence")
    why = why_not_again(step([1]), unknown, Limits())
    assert why is not None
    assert why.reason.name == "OUTCOME_UNKNOWN"
    asked = step([1], at([]))
    for _ in range(2):
        assert why_not_again(asked, unknown, Limits()) is None
    again = why_not_again(asked, unknown, Limits())
    assert again is not None
    assert again.reason.name == "STORE_UNAVAILABLE"


def test_a_refusal_is_told_at_once() -> None:
    why = why_not_again(step([1], at([])), CommitResult(Outcome.REFUSED, None, "full"), Limits())
    assert why is not None
    assert why.reason.name == "STORE_UNAVAILABLE"
