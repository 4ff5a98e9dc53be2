"""Commits: one in flight for each session; what is computed meanwhile is written by the next one.

`build_commit` and `why_not_again` decide what a commit writes, and what becomes of the requests of a failed one.
"""

from __future__ import annotations

from typing import Any

from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.errors import Reason, Rejection

from .context import Context
from .limits import Limits
from .requests import Request, Step
from .sequence import NO_GENERATION, ended, has_ended
from .session import InflightCommit, SessionState

MAX_CONFLICTS = 1
"""How often a request is decided again after its commit lost against another writer."""

MAX_UNKNOWNS = 2
"""How often after its commit got no answer."""

_new = tuple.__new__  # a named tuple's own __new__ is a Python function


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


def build_commit(session: SessionState, requests: list[Request], now_ms: int) -> InflightCommit:
    """Returns one commit of `requests`: computed chunks in order, or a single other change of the session. Chunks write
    the candidate for a checkpoint if there is one and every chunk's sender holds the replies up to it, and otherwise
    append to the log: a reply to a step that the log has lost cannot be computed again."""
    write, cached = requests[0].write, session.cached
    if write is not None:
        return InflightCommit(session, requests, write.call, None)
    if cached is None:
        raise RuntimeError("chunks wait for their commit, but the state they were computed on is gone")
    chunks: Any = requests  # a pending request without a write is a chunk
    before, after, checkpoint = cached.header, chunks[-1].after, cached.checkpoint
    header = before.advanced(after, now_ms, cached.version.numerics)
    for chunk in chunks:
        if chunk.sequence is not None and chunk.sequence.ends:
            header = header.replace(ttl_ms=chunk.sequence.end_ttl_ms, origin=ended(header.origin))
    if checkpoint is not None and checkpoint.step <= min(chunk.acked_at(chunk.at) for chunk in chunks):
        header = header.with_checkpoint(checkpoint.step, checkpoint.head)
        log, state = bytes(checkpoint.tail[: (after.step - checkpoint.step) * header.step_bytes]), checkpoint.state
    else:
        log, state = chunks[0].data if len(chunks) == 1 else b"".join([chunk.data for chunk in chunks]), None
    expected = before if cached.exists else cached.replaces
    return InflightCommit(session, requests, _new(Commit, (session.key, expected, header, log, state)), cached)


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
    behind = context.unwind(session)  # nothing, if the state was dropped while its commit was in flight
    if result.outcome is Outcome.UNKNOWN:
        leave_in_doubt(commit)
    decided = [(request, why_not_again(request, result, context.limits)) for request in commit.requests]
    session.reading = None
    context.requeue(session, [request for request, why in decided if why is None] + behind)
    for request, why in decided:
        if why is not None:
            context.finish(request, why)


def why_not_again(request: Request, result: CommitResult, limits: Limits) -> Rejection | None:
    """Returns the answer to a request whose commit failed; None: it is decided again, on the record. Counts the try."""
    match result.outcome:
        case Outcome.REFUSED | Outcome.UNREACHED:
            return store_unavailable(result.message, limits)
        case Outcome.CONFLICT:
            request.conflicts += 1
            if request.conflicts <= MAX_CONFLICTS:
                return None
            text = "other writers changed the session at each attempt to commit this; send it again"
            position = result.standing.position if result.standing else None
            return Rejection(Reason.COMMIT_CONFLICT, text, position=position)
        case _:
            request.unknowns += 1
            if isinstance(request, Step) and not _is_repeatable(request):
                text = f"the store did not answer ({result.message}): the step may have been applied"
                return Rejection(Reason.OUTCOME_UNKNOWN, text)
            if request.unknowns <= MAX_UNKNOWNS:
                return None
            return store_unavailable(result.message, limits)


def leave_in_doubt(commit: InflightCommit) -> None:
    """Notes, after an unanswered commit, which records tell whether its chunks were applied: those of the generation
    that it makes and of the one that it compares with. After another writer's start they are not decided again. If it
    compares with no record, a missing record tells that they were not applied, unless one of their tries ended the
    sequence: the store keeps the record of an ended sequence only briefly, so its absence tells nothing."""
    call = commit.call
    if not isinstance(call, Commit):
        return
    compared = NO_GENERATION if call.expected is None else call.expected.position.generation
    for request in commit.requests:
        if isinstance(request, Step) and request.sequence is not None:
            doubtful = (*request.in_doubt, call.header.position.generation, compared)
            if has_ended(call.header.origin):
                doubtful = tuple(generation for generation in doubtful if generation != NO_GENERATION)
            request.in_doubt = doubtful


def _is_repeatable(step: Step) -> bool:
    """Returns whether the record tells if the step was applied, so that it can be decided again."""
    return step.position is not None or (step.sequence is not None and step.sequence.at is not None)


def store_unavailable(why: str, limits: Limits) -> Rejection:
    text = f"the store is not available: {why}"
    return Rejection(Reason.STORE_UNAVAILABLE, text, retry_delay_ms=limits.retry_delay_ms)
