"""Bare commits: the service's own store class, called with one append for each of some sessions."""

from __future__ import annotations

from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import NO_ORIGIN, Header, SessionKey
from cellkeeper_service.domain.store import Commit, Outcome, Store
from cellkeeper_service.store.open import open_store

from bench.load import Load
from bench.loops import Send
from bench.models import MODELS

CHECKPOINT_EVERY = 16  # in steps: 2 KiB of state and 128 B of input per step, as in the service


class StoreCommits:
    def __init__(self, url: str) -> None:
        self._store: Store = open_store(url)

    async def prepare(self, load: Load) -> Send:
        shape = MODELS[load.model]
        step_bytes = 4 * shape.features
        keys = [SessionKey("", load.model, f"bare-{load.items}-{number}") for number in range(load.items)]
        log, state = bytes(step_bytes), bytes(shape.state_bytes)
        headers = [_header(first_position(key.session.encode().ljust(16)[:16]), step_bytes) for key in keys]
        self._commit([Commit(key, None, head, b"", state) for key, head in zip(keys, headers, strict=True)])

        async def send(flow: int) -> int:
            commits = []
            for number, (key, before) in enumerate(zip(keys, headers, strict=True)):
                step = before.position.step
                after = _header(before.position.changed(step=step + 1), step_bytes)
                due = (step + number) % CHECKPOINT_EVERY == 0
                commits.append(Commit(key, before, after, log, state if due else None))
                headers[number] = after
            self._commit(commits)
            return load.items

        return send

    async def close(self) -> None:
        self._store.close()

    def _commit(self, commits: list[Commit]) -> None:
        results = self._store.commit_many(commits)
        failed = [result for result in results if result.outcome is not Outcome.COMMITTED]
        if failed:
            raise RuntimeError(f"a commit failed: {failed[0]}")


def _header(position: Position, step_bytes: int) -> Header:
    return Header(
        position=position,
        updated_ms=0,
        checkpoint_step=0,
        checkpoint_head=bytes(8),
        created_ms=0,
        ttl_ms=0,
        fingerprint=bytes(32),
        numerics=bytes(8),
        origin=NO_ORIGIN,
        step_bytes=step_bytes,
    )
