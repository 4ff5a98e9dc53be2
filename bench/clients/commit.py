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
        names = [f"bare-{load.items}-{number}" for number in range(load.items)]
        commits = Commits(self._store, load.model, names, 4 * shape.features, shape.state_bytes)

        async def send(flow: int) -> int:
            commits.tick(load.items)
            return load.items

        return send

    async def close(self) -> None:
        self._store.close()


class Commits:
    """Sessions that take steps without computing anything."""

    def __init__(self, store: Store, model: str, names: list[str], step_bytes: int, state_bytes: int) -> None:
        self._store, self._log, self._state = store, bytes(step_bytes), bytes(state_bytes)
        self._keys = [SessionKey("", model, name) for name in names]
        self._headers = [self._header(first_position(name.encode().ljust(16)[:16])) for name in names]
        created = zip(self._keys, self._headers, strict=True)
        self._commit([Commit(key, None, header, b"", self._state) for key, header in created])

    def tick(self, size: int) -> None:
        """Commits one time step of each of the first `size` sessions together."""
        commits = []
        for number, (key, before) in enumerate(zip(self._keys[:size], self._headers[:size], strict=True)):
            step = before.position.step
            after = self._header(before.position.changed(step=step + 1))
            due = (step + number) % CHECKPOINT_EVERY == 0
            commits.append(Commit(key, before, after, self._log, self._state if due else None))
            self._headers[number] = after
        self._commit(commits)

    def _commit(self, commits: list[Commit]) -> None:
        failed = [one for one in self._store.commit_many(commits) if one.outcome is not Outcome.COMMITTED]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(commits)} commits failed; the first: {failed[0]}")

    def _header(self, position: Position) -> Header:
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
            step_bytes=len(self._log),
        )
