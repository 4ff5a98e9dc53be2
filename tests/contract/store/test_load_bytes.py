"""Loads are bounded in bytes: large records are read one at a time, and all records are read, however many."""

from __future__ import annotations

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import LOAD_BYTES, Load, Postponed, Store
from cellkeeper_service.store.open import open_store

from .records import append, committed, create, inputs, key

STEP_BYTES = 4096  # few steps: a position takes a hash for each
LARGE = inputs(1, (LOAD_BYTES + STEP_BYTES) // 4)
MIDDLING = inputs(2, LOAD_BYTES // 3 // STEP_BYTES * STEP_BYTES // 4)


def opened(durable_url: str) -> Store:
    return open_store(durable_url, timeout_ms=10_000)


def test_a_large_record_is_read_by_itself_and_the_others_without_it(durable_url: str) -> None:
    store = opened(durable_url)
    committed(store, create(key("large"), log=LARGE, step_bytes=STEP_BYTES))
    first = committed(store, create(key("large, in pieces"), log=MIDDLING, step_bytes=STEP_BYTES))
    for _ in range(3):
        first = committed(store, append(key("large, in pieces"), first, MIDDLING))
    small = [key(f"small-{index}") for index in range(3)]
    for at in small:
        committed(store, create(at, log=inputs(3)))
    names = [small[0], key("large"), small[1], key("large, in pieces"), small[2]]
    found = store.load_many([Load(at, touch=True) for at in names])
    for index in (1, 3):
        postponed = found[index]
        assert isinstance(postponed, Postponed)
        assert postponed.alone
    for at, record in zip(names, found, strict=True):
        assert isinstance(record, Postponed) or (isinstance(record, Record) and record.log == inputs(3))
        (alone,) = store.load_many([Load(at, touch=True)])
        assert isinstance(alone, Record), alone
    store.close()


def test_what_does_not_fit_is_asked_for_again_and_all_are_read(durable_url: str) -> None:
    store = opened(durable_url)
    wanted = {key(f"m{index}") for index in range(12)}
    for at in wanted:
        committed(store, create(at, log=MIDDLING, step_bytes=STEP_BYTES))
    left, calls = sorted(wanted), 0
    while left:
        found = store.load_many([Load(at, touch=False) for at in left])
        read = [at for at, record in zip(left, found, strict=True) if not isinstance(record, Postponed)]
        assert read
        assert len(read) * len(MIDDLING) <= (LOAD_BYTES + len(MIDDLING)) * (128 if "cluster" in durable_url else 1)
        left = [at for at in left if at not in read]
        calls += 1
    assert calls > 1 or "cluster" in durable_url
    store.close()
