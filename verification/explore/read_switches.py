"""Switches that turn off the rules of peeks, forecasts and reads of the state. See switches.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import advance, computing, core
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.context import Context
from cellkeeper_service.core.session import CachedState, SessionState


def is_read(request: wire.Request) -> bool:
    return isinstance(request, wire.GetState) or (isinstance(request, wire.Step) and request.peek)


def peeks_change_nothing() -> AbstractContextManager[Any]:
    """Leaves the session in the state after the peek."""
    take_slice = computing.take_slice

    def moving(context: Context, batch: Batch, row: int, cached: CachedState, work: wire.Computable) -> None:
        take_slice(context, batch, row, cached, work)
        if is_read(work) and work.computed and cached.work is None:
            cached.current ^= 1

    return patch.object(core, "take_slice", moving)


def _from_the_cache(may: Callable[[SessionState], bool]) -> AbstractContextManager[Any]:
    """Reads the cached state without asking the store."""
    go_on = advance._go_on

    def hasty(context: Context, session: SessionState, request: wire.Request) -> bool:
        cached = session.cached
        if cached is None or not is_read(request) or context.dead(request) is not None or not may(session):
            return go_on(context, session, request)
        if isinstance(request, wire.GetState):
            cached.start(request, b"", 0, ends=(0,))
        elif isinstance(request, wire.Step) and request.position in (None, cached.frontier):
            steps = request.all_steps
            cached.start(request, request.data, steps, request.wanted, (steps,), steps - request.steps)
        else:
            return go_on(context, session, request)
        session.queue.popleft()
        return True

    return patch.object(advance, "_go_on", hasty)


def reads_ask_the_store() -> AbstractContextManager[Any]:
    return _from_the_cache(lambda session: not session.has_uncommitted)


def reads_wait_for_commits() -> AbstractContextManager[Any]:
    return _from_the_cache(lambda session: True)
