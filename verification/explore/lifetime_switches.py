"""Switches that turn off the rules of how sessions begin and end. See switches.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import advance, decision_table
from cellkeeper_service.core import requests as wire
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit

from .store import ExploredStore


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
