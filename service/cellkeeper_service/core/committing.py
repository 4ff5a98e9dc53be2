"""Commits: one in flight for each session; what is computed meanwhile is written by the next one."""

from __future__ import annotations

from cellkeeper_service.domain.store import Commit, CommitResult, Outcome

from .commit import build_commit, leave_in_doubt, why_not_again
from .context import Context
from .session import InflightCommit, SessionState


def launch(context: Context, session: SessionState, now_ms: int) -> InflightCommit | None:
    """Returns the session's next commit; None: it has nothing to commit. Nothing is sent after its deadline: requests
    that were computed after a late one are decided again. now_ms: unix time, for the header."""
    requests, session.pending = session.pending, []
    on_time = requests
    for count, request in enumerate(requests):
        if context.now >= request.deadline:
            on_time = requests[:count]
            break
    if on_time:
        session.in_flight, session.reading = build_commit(session, on_time, now_ms), None
    if len(on_time) < len(requests):
        too_late, *session.pending = requests[len(on_time) :]
        context.requeue(session, context.unwind(session))
        context.finish(too_late, context.dead(too_late))
        context.ready[session] = None
    return session.in_flight


def committed(context: Context, commit: InflightCommit) -> None:
    """The store has accepted the commit: finishes its requests."""
    call, cached = commit.call, commit.cached
    if cached is not None and not cached.dropped and isinstance(call, Commit):
        cached.header, cached.exists = call.header, True
        if call.checkpoint is not None:
            cached.stands_at(call.header)
            cached.checkpoint = None
            context.meter.checkpointed(call.key.model)
    for request in commit.requests:
        write = request.write
        if write is None:
            context.finish(request, None)
            continue
        if write.version is not None and isinstance(call, Commit) and call.checkpoint is not None:
            context.place(commit.session, write.version, call.header, call.checkpoint)
        context.finish(request, write.reply)


def not_committed(context: Context, commit: InflightCommit, result: CommitResult) -> None:
    """The commit failed, and with it everything computed after it, which is decided again on a fresh reading. So are
    the commit's own requests, unless `why_not_again` has an answer for them."""
    session = commit.session
    # if the state was dropped while its commit was in flight, its requests are in the queue already
    behind = context.unwind(session) if commit.cached is None or not commit.cached.dropped else []
    if result.outcome is Outcome.UNKNOWN:
        leave_in_doubt(commit)
    decided = [(request, why_not_again(request, result, context.limits)) for request in commit.requests]
    session.reading = None
    context.requeue(session, [request for request, why in decided if why is None] + behind)
    for request, why in decided:
        if why is not None:
            context.finish(request, why)
