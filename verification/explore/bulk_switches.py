"""Switches that turn off the rules of calls with several items. See switches.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core.core import Core
from cellkeeper_service.core.session import InflightCommit
from cellkeeper_service.domain.engine import Computed
from cellkeeper_service.domain.store import COMMITTED, CommitResult

from tests.unit.core.counting_engine import CountingEngine


def commits_have_their_own_results() -> AbstractContextManager[Any]:
    """Takes a call's commits for committed if one of them is."""
    on_committed = Core.on_committed

    def together(self: Core, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        on_committed(self, commits, [COMMITTED] * len(results) if COMMITTED in results else results)

    return patch.object(Core, "on_committed", together)


def rows_fail_alone() -> AbstractContextManager[Any]:
    """Fails all rows of an engine call in which one has no finite state."""
    run = CountingEngine.run

    def all_or_none(self: CountingEngine, *how: Any) -> Computed:
        computed = run(self, *how)
        if computed.finite is not None and not computed.finite.all():
            computed.finite[:] = False
        return computed

    return patch.object(CountingEngine, "run", all_or_none)
