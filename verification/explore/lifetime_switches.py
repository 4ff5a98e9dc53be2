"""Switches that turn off the rules of how sessions begin and end. See switches.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import advance, carry_over, computing, decision_table
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.generation_requests import CarryOver, Moved
from cellkeeper_service.core.lifecycle import NewGeneration
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.session import CachedState, SessionState
from cellkeeper_service.domain.position import first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit

from .store import ExploredStore


def the_record_picks_its_version() -> AbstractContextManager[Any]:
    """Continues every record with the version that new sessions take."""
    find = Models.find

    def default(self: Models, fingerprint: bytes) -> Version | None:
        return self.default if fingerprint else find(self, fingerprint)

    return patch.object(Models, "find", default)


@contextmanager
def carry_overs_make_a_generation() -> Iterator[None]:
    """Keeps the generation, so that the position stays as it is."""
    carried = carry_over.carried

    def same(record: Record, request: Any, target: Version, at: Any, state: bytes, now_ms: int) -> wire.Write:
        return carried(record, request, target, record.position, state, now_ms)

    with patch.object(carry_over, "carried", same), patch.object(computing, "carried", same):
        yield


def kept_states_include_the_log() -> AbstractContextManager[Any]:
    """Keeps the state of the record's checkpoint."""

    def keep(record: Record, request: CarryOver, models: Models, target: Version, new: NewGeneration) -> wire.Write:
        at = first_position(new.generation, record.position.step)
        return carry_over.carried(record, request, target, at, record.checkpoint, new.now_ms)

    return patch.object(carry_over, "_keep", keep)


def kept_states_are_not_behind() -> AbstractContextManager[Any]:
    """Keeps the state wherever the record is."""
    return patch.object(carry_over, "_refuse_lost", lambda record, known: None)


def carried_sessions_stay() -> AbstractContextManager[Any]:
    """Resets a session of the new version, too."""
    carry = carry_over.carry_over

    def again(record: Record | None, request: CarryOver, models: Models, new: NewGeneration) -> Any:
        decided = carry(record, request, models, new)
        target = models.find(request.target)
        if record is None or target is None or not isinstance(decided, Moved):
            return decided
        at = first_position(new.generation)
        return carry_over.carried(record, request, target, at, target.engine.initial_state, new.now_ms)

    return patch.object(advance, "carry_over", again)


@contextmanager
def retired_versions_start_nothing() -> Iterator[None]:
    """Continues what is cached of a version that is not served any more."""
    go_on = advance.continues

    def continues(session: SessionState, step: wire.Step) -> CachedState | None:
        version = None if session.cached is None else session.cached.version
        if version is None or not version.retired:
            return go_on(session, step)
        version.retired = False
        try:
            return go_on(session, step)
        finally:
            version.retired = True

    with patch.object(advance, "continues", continues):
        yield


def a_position_creates_nothing() -> AbstractContextManager[Any]:
    """Creates the session for any step that finds none."""
    decide = decision_table.decide

    def create(record: Record | None, step: wire.Step, models: Any) -> Any:
        if record is None and not step.peek:
            return decision_table.Verdict.CREATE
        return decide(record, step, models)

    return patch.object(advance, "decide", create)


def reads_are_use() -> AbstractContextManager[Any]:
    return patch.object(wire.GetState, "touches", False)


def commits_need_their_record() -> AbstractContextManager[Any]:
    """Writes a commit with a checkpoint even if the record that it replaces is gone."""
    as_meant = ExploredStore._as_meant

    def anew(self: ExploredStore, commit: Commit) -> Commit:
        gone = commit.checkpoint is not None and self.record(commit.key) is None
        return commit._replace(expected=None) if gone else as_meant(self, commit)

    return patch.object(ExploredStore, "_as_meant", anew)
