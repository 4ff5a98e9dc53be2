"""Random operations: SQLite and Redis do what the memory store does."""

from __future__ import annotations

from itertools import count

import pytest
from cellkeeper_service.domain.position import advance, first_position
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.store import Commit, Delete, Load, Store
from cellkeeper_service.store.memory import MemoryStore
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.sqlite import bulk
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.contract.store.records import HOUR_MS, STEP_BYTES, generation, header

SESSIONS = ["a", "b", "a*"]
GENERATIONS = [generation(1), generation(2)]
_tenants = count()

attempts = st.fixed_dictionaries(
    {
        "expected": st.sampled_from(["standing", "standing", "standing", "absent", "step", "head", "generation"]),
        "generation": st.sampled_from(GENERATIONS),
        "log": st.integers(0, 3).flatmap(lambda n: st.binary(min_size=n * STEP_BYTES, max_size=n * STEP_BYTES)),
        "checkpoint": st.one_of(st.none(), st.binary(max_size=40)),
        "ttl_ms": st.sampled_from([0, HOUR_MS]),
    }
)
batches = st.dictionaries(st.sampled_from(SESSIONS), attempts, min_size=1)


class Stores(RuleBasedStateMachine):
    """`real` and a memory store side by side, in a tenant used by this run only."""

    real: Store

    def __init__(self) -> None:
        super().__init__()
        self.model = MemoryStore()
        self.tenant = f"tenant {next(_tenants)}"

    def key(self, session: str) -> SessionKey:
        return SessionKey(self.tenant, "weather", session)

    def commit(self, session: str, attempt: dict[str, object]) -> Commit:
        (record,) = self.model.load_many([Load(self.key(session), touch=False)])
        assert not isinstance(record, Exception)
        minted, log, checkpoint, ttl_ms = (attempt[name] for name in ("generation", "log", "checkpoint", "ttl_ms"))
        assert isinstance(minted, bytes)
        assert isinstance(log, bytes)
        assert isinstance(checkpoint, bytes | None)
        assert isinstance(ttl_ms, int)
        stands = first_position(minted) if record is None else record.position
        standing = header(stands, 0) if record is None else record.header
        expected: Header | None = {
            "standing": None if record is None else standing,
            "absent": None,
            "step": standing.replace(position=stands.changed(step=stands.step + 1)),
            "head": standing.replace(position=stands.changed(head=bytes(8))),
            "generation": standing.replace(position=stands.changed(generation=bytes(16))),
        }[str(attempt["expected"])]
        base, head = stands.step, stands.head
        if record is not None and checkpoint is None:
            base, head = record.header.checkpoint_step, record.header.checkpoint_head
        after = header(advance(stands, log, STEP_BYTES), base, ttl_ms, head)
        return Commit(self.key(session), expected, after, log, checkpoint)

    @rule(batch=batches)
    def commits(self, batch: dict[str, dict[str, object]]) -> None:
        made = [self.commit(session, attempt) for session, attempt in batch.items()]
        ours = [(result.outcome, result.standing) for result in self.real.commit_many(made)]
        assert ours == [(result.outcome, result.standing) for result in self.model.commit_many(made)]

    @rule(batch=st.dictionaries(st.sampled_from(SESSIONS), st.sampled_from(GENERATIONS), min_size=1))
    def deletes(self, batch: dict[str, bytes]) -> None:
        made = [Delete(self.key(session), minted) for session, minted in batch.items()]
        assert self.real.delete_many(made) == self.model.delete_many(made)

    @rule(prefix=st.sampled_from(["", "a", "a*", "c"]), limit=st.integers(1, 4))
    def scan(self, prefix: str, limit: int) -> None:
        assert self.listed(self.real, prefix, limit) == self.listed(self.model, prefix, limit)

    @invariant()
    def same_records(self) -> None:
        loads = [Load(self.key(session), touch=True) for session in SESSIONS]
        assert self.real.load_many(loads) == self.model.load_many(loads)

    def listed(self, store: Store, prefix: str, limit: int) -> dict[SessionKey, object]:
        sessions: dict[SessionKey, object] = {}
        cursor = ""
        while True:
            page = store.scan(self.tenant, "weather", prefix, cursor, limit)
            sessions.update(page.sessions)
            cursor = page.cursor
            if not cursor:
                return sessions


def test_does_what_the_memory_store_does(durable_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LEAST", 1)  # so that some commits write many records at a time
    store = open_store(durable_url, timeout_ms=10_000)

    class Against(Stores):
        real = store

    run_state_machine_as_test(
        Against,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining would trace every line
        ),
    )
    store.close()
