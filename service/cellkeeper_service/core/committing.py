"""Commits: one in flight for each session; what is computed meanwhile is written by the next one."""

from __future__ import annotations

from itertools import takewhile

from cellkeeper_service.domain.store import Commit, CommitResult, Outcome

from .commit import build_commit, leave_in_doubt, why_not_again
from .context import Context
from .requests import Request, Step
from .session import InflightCommit, SessionState

_new = tuple.__new__  # a named tuple's own __new__ is a Python function


def launch(context: Context, session: SessionState, now_ms: int) -> InflightCommit | None:
    """Returns the session's next commit. Nothing is sent after its deadline: requests that were computed after a late
    one are decided again. now_ms: unix time, for the header."""
    requests, session.pending = session.pending, []
    on_time = list(takewhile(lambda request: context.now < request.deadline, requests))
    if on_time:
        session.in_flight, session.reading = build_commit(session, on_time, now_ms), None
    if len(on_time) < len(requests):
        too_late, *session.pending = requests[len(on_time) :]
        context.requeue(session, context.unwind(session))
        context.finish(too_late, context.dead(too_late))
        context.ready[session] = None
    return session.in_flight


def launch_chunk(context: Context, session: SessionState, now_ms: int) -> InflightCommit | None:
    """Does what `launch` does, for nearly every commit: a single chunk, appended on time. Returns None for any other
    commit, and has done nothing then."""
    pending, cached = session.pending, session.cached
    if len(pending) != 1 or cached is None or cached.checkpoint is not None or not cached.exists:
        return None
    step = pending[0]
    if not isinstance(step, Step) or step.after is None or context.now >= step.deadline:
        return None
    if step.sequence is not None and step.sequence.ends:
        return None
    before = cached.header
    header = before.advanced(step.after, now_ms, cached.version.numerics)
    call = _new(Commit, (session.key, before, header, step.data, None))
    session.in_flight = commit = InflightCommit(session, pending, call, cached)
    session.pending, session.reading = [], None
    return commit


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
    again: list[Request] = []
    answered = []
    if result.outcome is Outcome.UNKNOWN:
        leave_in_doubt(commit)
    for request in commit.requests:
        why = why_not_again(request, result, context.limits)
        if why is None:
            again.append(request)
        else:
            answered.append((request, why))
    session.reading = None
    context.requeue(session, again + behind)
    for request, why in answered:
        context.finish(request, why)
