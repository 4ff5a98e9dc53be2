"""Switches that turn off the rules of deadlines, and of callers that are gone. See switches.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import commit, computing, core
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.context import Context
from cellkeeper_service.core.session import InflightCommit, SessionState


def _launches(split: Callable[[Context, list[wire.Request]], list[wire.Request]]) -> AbstractContextManager[Any]:
    """split: returns those of the pending requests that are committed, and finishes the others."""

    def launch(context: Context, session: SessionState, now_ms: int) -> InflightCommit | None:
        pending, session.pending = session.pending, []
        if requests := split(context, pending):
            session.in_flight, session.reading = commit.build_commit(session, requests, now_ms), None
        return session.in_flight

    return patch.object(core, "launch", launch)


def nothing_is_sent_late() -> AbstractContextManager[Any]:
    return _launches(lambda context, pending: pending)


def what_follows_a_late_chunk_is_decided_again() -> AbstractContextManager[Any]:
    def without_late(context: Context, pending: list[wire.Request]) -> list[wire.Request]:
        late = [request for request in pending if context.now >= request.deadline]
        for request in late:
            context.finish(request, context.dead(request))
        return [request for request in pending if request not in late]

    return _launches(without_late)


def readings_of_nobody_end() -> AbstractContextManager[Any]:
    """Lets a session wait for its record although its requests have ended, so that nobody reads it."""
    next_loads = Context.next_loads

    def waits_on(self: Context) -> list[SessionState]:
        waiting = [session for session in self.to_load if not session.queue]
        wanted = next_loads(self)
        for session in waiting:
            if not session.loading:
                session.loading = True
                self.sessions.setdefault(session.key, session)
        return wanted

    return patch.object(Context, "next_loads", waits_on)


def new_generations_end_with_their_request() -> AbstractContextManager[Any]:
    """Keeps the state of a new generation, whose first chunk was ended before it was computed."""
    return patch.object(computing, "drop_uncommitted", lambda context, session: None)
