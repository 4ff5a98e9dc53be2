"""Ends what time has made obsolete: requests that nobody waits for, and model versions that are no longer served."""

from __future__ import annotations

from collections import deque

from .context import Context


def end_dead_requests(context: Context) -> None:
    """Finishes waiting requests whose deadline has passed or whose caller is gone."""
    for session in list(context.queued):
        dead = {request: why for request in session.queue if (why := context.dead(request))}
        if dead:
            session.queue = deque(request for request in session.queue if request not in dead)
            for request, why in dead.items():
                context.finish(request, why)
            context.ready[session] = None


def let_retired_go(context: Context) -> None:
    """Drops the idle cached states of retiring versions, and each such version once nothing uses it."""
    for models in context.models.values():
        for version in list(models.retiring):
            cache = context.cache_of(version)
            for session in cache.sessions:
                if session.idle:
                    context.drop(session)
                    context.settle(session)
                    context.meter.evicted(session.key.model, "retired")
            if cache.at_rest:
                models.retiring.remove(version)
                del context.caches[version]
