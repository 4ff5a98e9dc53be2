"""Which slices a tick takes: one rule for single steps, chunks and log replays."""

from __future__ import annotations

from cellkeeper_service.core.batch import Batch, form_batches
from cellkeeper_service.core.lifecycle import new_header
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import RequestStatus
from cellkeeper_service.core.session import CachedState, SessionState
from cellkeeper_service.core.state_cache import StateCache
from cellkeeper_service.domain.record import SessionKey

from .made import START, step, version

LIMITS = Limits(max_slice_steps=4, max_long_steps=8)


def ready(cache: StateCache, *lengths: int) -> list[CachedState]:
    """Returns sessions that are ready to compute a chunk of each of these lengths."""
    found: list[CachedState] = []
    for length in lengths:
        session = SessionState(SessionKey("", "m", f"s{len(found)}"))
        cached = cache.put(session, new_header(cache.version, START, bytes(16), 0, 0), bytes(8))
        assert cached is not None
        work = step(list(range(length)))
        cached.start(work, work.data, length, frozenset())
        found.append(cached)
    return found


def names(batches: list[Batch]) -> list[tuple[int, list[str]]]:
    """Returns each batch's number of steps and the names of its sessions."""
    return [(batch.steps, [cached.session.key.session for cached in batch.states]) for batch in batches]


def formed(cache: StateCache) -> list[Batch]:
    return form_batches(cache, LIMITS, 0.0, lambda cached, work: False)


def test_slices_of_one_length_share_a_batch() -> None:
    cache = StateCache(version(slots=8), 100)
    ready(cache, 1, 5, 1, 4, 3)
    assert names(formed(cache)) == [(1, ["s0", "s2"]), (4, ["s1", "s3"]), (2, ["s4"])]


def test_a_batch_is_no_larger_than_the_engine_allows_and_the_rest_keeps_its_order() -> None:
    cache = StateCache(version(slots=16), 100)
    ready(cache, *[1] * 10, 4)
    assert names(formed(cache)) == [(1, [f"s{index}" for index in range(8)])]
    assert names(formed(cache)) == [(1, ["s8", "s9"]), (4, ["s10"])]


def test_a_tick_has_a_budget_of_time_steps() -> None:
    cache = StateCache(version(slots=16), 100)
    ready(cache, *[8] * 6)  # 8 steps, and as many sessions as in a batch of single steps
    assert names(formed(cache)) == [(4, ["s0", "s1", "s2", "s3"])]
    assert names(formed(cache)) == [(4, ["s4", "s5"])]


def test_what_was_dropped_or_ended_in_time_is_left_out() -> None:
    cache = StateCache(version(slots=5), 100)
    first, second, third, fourth, fifth = ready(cache, 1, 1, 1, 1, 1)
    cache.drop(first)
    for late, deadline in ((second, 1.0), (third, 1.5), (fourth, 1.0)):
        assert late.work is not None
        late.work.deadline = deadline
    assert fifth.work is not None
    fifth.work.gone = True
    ended = [second, fifth]  # the fourth has begun, and continues
    assert names(form_batches(cache, LIMITS, 1.0, lambda cached, work: cached in ended)) == [(1, ["s2", "s3"])]
    assert not fifth.in_batch
    assert third.in_batch
    assert third.work is not None
    assert third.work.status is RequestStatus.COMPUTING
    assert not second.in_batch


def test_a_slot_is_not_free_before_the_batch_that_writes_to_it_is_done() -> None:
    cache = StateCache(version(slots=1), 100)
    (cached,) = ready(cache, 1)
    formed(cache)
    cache.drop(cached)
    another, header = SessionState(SessionKey("", "m", "another")), cached.header
    assert cache.put(another, header, bytes(8)) is None
    assert not cache.left_batch(cached)
    assert cache.put(another, header, bytes(8)) is not None


def test_a_batch_that_is_late_does_not_touch_a_request_that_was_started_anew() -> None:
    cache = StateCache(version(slots=2), 100)
    (cached,) = ready(cache, 1)
    work = cached.work
    assert work is not None
    work.checkpoint_at = 0
    (batch,) = formed(cache)
    cache.drop(cached)
    cached.start(work, b"", 0, frozenset())
    batch.execute()
    assert (work.checkpoint_state, work.pieces, work.computed, work.status) == (None, (), 0, RequestStatus.READY)
    assert batch.states_before == {0: bytes(8)}
