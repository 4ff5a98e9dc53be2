"""Puts records into a store without the server's knowledge."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Commit, Load, Outcome
from cellkeeper_service.store.open import open_store


def change_record(store_url: str, model: str, session: str, change: Callable[[Record], Record]) -> None:
    """Replaces the session's record, which must exist, by what `change` makes of it."""
    store = open_store(store_url)
    try:
        key = SessionKey("", model, session)
        (record,) = store.load_many([Load(key, False)])
        if not isinstance(record, Record):
            raise AssertionError(f"expected a record, got {record!r}")
        changed = change(record)
        commit = Commit(key, record.header, changed.header, changed.log, changed.checkpoint)
        (result,) = store.commit_many([commit])
        if result.outcome is not Outcome.COMMITTED:
            raise AssertionError(f"expected it to be committed, got {result}")
    finally:
        store.close()
