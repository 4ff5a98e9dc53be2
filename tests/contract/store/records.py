"""Commits and headers for store tests. Every field has a distinct value, so that a mix-up shows."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from cellkeeper_service.domain import position as positions
from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.store import Commit, Load, Outcome, Store

STEP_BYTES = 4
HOUR_MS = 3_600_000
advance = lru_cache(64)(positions.advance)  # one hash per time step, and the largest logs have a million steps
UNICODE_ID = "pump-17/тест/温度/🌡"


def key(session: str = "pump-17", model: str = "weather", tenant: str = "") -> SessionKey:
    return SessionKey(tenant, model, session)


def generation(seed: int) -> bytes:
    return blake2b(b"generation %d" % seed, digest_size=16).digest()


def start(seed: int = 1) -> Position:
    return first_position(generation(seed))


def inputs(seed: int, steps: int = 1) -> bytes:
    """Returns `steps` time steps of binary data that contains zeros and line ends."""
    period = b"".join(bytes((seed % 256, 0, 10, (seed + step) % 256)) for step in range(min(steps, 256)))
    return (period * (steps // 256 + 1))[: 4 * steps]


def header(
    position: Position,
    checkpoint_step: int,
    ttl_ms: int = 0,
    checkpoint_head: bytes | None = None,
    step_bytes: int = STEP_BYTES,
) -> Header:
    """checkpoint_head: that of the generation's start by default."""
    start = first_position(position.generation)
    return Header(
        position=position,
        updated_ms=1_700_000_000_001 + position.step,
        checkpoint_step=checkpoint_step,
        checkpoint_head=start.head if checkpoint_head is None else checkpoint_head,
        created_ms=1_700_000_000_000,
        ttl_ms=ttl_ms,
        fingerprint=bytes(range(32)),
        numerics=b"numerics",
        origin=b"origin \x00\xff origin",
        step_bytes=step_bytes,
    )


def create(
    at: SessionKey,
    seed: int = 1,
    *,
    log: bytes = b"",
    checkpoint: bytes = b"state 0",
    ttl_ms: int = 0,
    step_bytes: int = STEP_BYTES,
) -> Commit:
    """Returns the first record of generation `seed`, with the steps of `log` after the checkpoint."""
    position = advance(start(seed), log, step_bytes)
    return Commit(at, None, header(position, 0, ttl_ms, step_bytes=step_bytes), log, checkpoint)


def append(at: SessionKey, before: Header, log: bytes, *, ttl_ms: int | None = None) -> Commit:
    position = advance(before.position, log, before.step_bytes)
    ttl_ms = before.ttl_ms if ttl_ms is None else ttl_ms
    after = header(position, before.checkpoint_step, ttl_ms, before.checkpoint_head, before.step_bytes)
    return Commit(at, before, after, log, None)


def replace(at: SessionKey, before: Header, checkpoint: bytes, log: bytes = b"") -> Commit:
    """Returns a commit of a checkpoint at the position of `before`, followed by `log`."""
    position = advance(before.position, log, before.step_bytes)
    after = header(position, before.position.step, before.ttl_ms, before.position.head, before.step_bytes)
    return Commit(at, before, after, log, checkpoint)


def committed(store: Store, *commits: Commit) -> Header:
    """Commits in turn; all must succeed. Returns the last one's header."""
    for commit in commits:
        (result,) = store.commit_many([commit])
        if result.outcome is not Outcome.COMMITTED:
            raise AssertionError(f"{commit.key}: {result}")
    return commits[-1].header


def log_of(store: Store, at: SessionKey) -> bytes:
    (record,) = store.load_many([Load(at, touch=False)])
    if record is None or isinstance(record, Exception):
        raise AssertionError(f"{at}: {record}")
    return record.log
