"""Switches that turn off the protocol rules that the service keeps, one at a time.

The product has no such switches: its real functions are replaced while the context is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import (
    advance,
    commit,
    computing,
    core,
    decision_table,
    generation_requests,
    lifecycle,
)
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.context import Context
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.core.session import CachedState, InflightCommit, SessionState
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.domain.store import Delete as StoreDelete
from cellkeeper_service.errors import Rejection

from .sequential_model import created
from .store import ExploredStore

Switch = Callable[[], AbstractContextManager[Any]]


# ------------------------------------------------------------------------------------- which history a request means


@contextmanager
def head_of_requests() -> Iterator[None]:
    """Identifies a request's position by its step number alone."""
    refuse, go_on = decision_table.refuse_misplaced, advance.continues

    def refuse_misplaced(record: Record, asked: Any) -> Rejection | None:
        if record.header.checkpoint_step <= asked.step <= record.position.step:
            asked = asked.changed(head=record.head_at(asked.step))
        return refuse(record, asked)

    def continues(session: SessionState, step: wire.Step) -> Any:
        asked = step.position
        if asked is not None and session.cached is not None and asked.step == session.cached.frontier.step:
            step.position = asked.changed(head=session.cached.frontier.head)
        try:
            return go_on(session, step)
        finally:
            step.position = asked

    with (
        patch.object(decision_table, "refuse_misplaced", refuse_misplaced),
        patch.object(lifecycle, "refuse_misplaced", refuse_misplaced),
        patch.object(advance, "continues", continues),
    ):
        yield


def server_mints_generations() -> AbstractContextManager[Any]:
    open_session = lifecycle.open_session

    def clients_choice(
        record: Any, request: generation_requests.Open, models: Any, new: lifecycle.NewGeneration
    ) -> Any:
        created(request.request_id)
        return open_session(record, request, models, replace(new, generation=request.request_id))

    return patch.object(lifecycle, "open_session", clients_choice)


def reset_names_its_generation() -> AbstractContextManager[Any]:
    start_over = lifecycle.start_over

    def whatever_stands(
        standing: Header | None, request: generation_requests.Reset, models: Any, new: lifecycle.NewGeneration
    ) -> Any:
        if standing is not None:
            request = replace(request, generation=standing.position.generation)
        return start_over(standing, request, models, new)

    return patch.object(lifecycle, "start_over", whatever_stands)


def delete_names_its_generation() -> AbstractContextManager[Any]:
    def whatever_stands(record: Any, request: generation_requests.Delete) -> Any:
        if record is None:
            return generation_requests.Deleted(False)
        request.generation = record.position.generation
        return wire.Write(StoreDelete(request.key, record.position.generation), generation_requests.Deleted(True))

    return patch.object(lifecycle, "delete", whatever_stands)


def starts_are_recognized() -> AbstractContextManager[Any]:
    return patch.object(Sequenced, "starts_over", lambda self, standing: bool(self.origin))


# ----------------------------------------------------------------------------------------------------- compare-and-set


def _compares(same: Callable[[Header, Header], bool]) -> AbstractContextManager[Any]:
    def same_place(self: ExploredStore, standing: Header | None, expected: Header | None) -> bool:
        return standing is expected if standing is None or expected is None else same(standing, expected)

    return patch.object(ExploredStore, "same_place", same_place)


def head_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position[:24] == expected.position[:24])


def generation_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position[16:] == expected.position[16:])


def header_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position == expected.position)


# ------------------------------------------------------------------------------------------------ acks and checkpoints


def checkpoint_waits_for_acks() -> AbstractContextManager[Any]:
    return patch.object(wire.Step, "acked_at", lambda self, step: step)


def state_is_kept_until_acked() -> AbstractContextManager[Any]:
    build_commit = commit.build_commit

    def now_or_never(session: SessionState, requests: list[wire.Request], now_ms: int) -> InflightCommit:
        built = build_commit(session, requests, now_ms)
        if built.cached is not None and isinstance(built.call, Commit) and built.call.checkpoint is None:
            built.cached.checkpoint = None
        return built

    return patch.object(commit, "build_commit", now_or_never)


@contextmanager
def the_log_is_bounded() -> Iterator[None]:
    """Makes a checkpoint due when the model says so, whatever the log's limit; and lets every chunk fit."""
    with (
        patch.object(CachedState, "log_fits", lambda self, step: True),
        patch.object(
            CachedState, "checkpoint_due", lambda self, steps: self.step - self.log_start >= self.version.due_steps
        ),
    ):
        yield


# ----------------------------------------------------------------------------------------- outcomes that are not known


def _unknown_is(outcome: Outcome) -> AbstractContextManager[Any]:
    on_committed = Core.on_committed

    def believes(self: Core, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        results = [one._replace(outcome=outcome) if one.outcome is Outcome.UNKNOWN else one for one in results]
        on_committed(self, commits, results)

    return patch.object(Core, "on_committed", believes)


def unknown_is_not_committed() -> AbstractContextManager[Any]:
    return _unknown_is(Outcome.COMMITTED)


def unknown_is_not_failed() -> AbstractContextManager[Any]:
    return _unknown_is(Outcome.REFUSED)


# --------------------------------------------------------------------------------------------------- the store decides


def _before_advancing(look: Callable[[Context, SessionState, wire.Step], bool]) -> AbstractContextManager[Any]:
    """look: finishes the session's first request, a positioned step, if it can without asking the store."""
    go_on = advance.advance

    def hasty(context: Context, session: SessionState) -> None:
        while session.queue and isinstance(first := session.queue[0], wire.Step) and first.position is not None:
            if not look(context, session, first):
                break
            session.queue.popleft()
        go_on(context, session)

    return patch.object(core, "advance", hasty)


def store_decides_rejections() -> AbstractContextManager[Any]:
    def look(context: Context, session: SessionState, step: wire.Step) -> bool:
        cached = session.cached
        busy = session.loading or session.has_uncommitted or session.computing is not None
        if cached is None or not cached.exists or busy or step.position == cached.frontier:
            return False
        at = cached.frontier
        header = cached.header.replace(position=at, checkpoint_step=at.step, checkpoint_head=at.head)
        record = Record(header, bytes(cached.version.spec.state_bytes), b"")
        verdict = decision_table.decide(record, step, context.models[session.key.model])
        if isinstance(verdict, Rejection):
            context.finish(step, verdict)
        return isinstance(verdict, Rejection)

    return _before_advancing(look)


def duplicates_wait_for_commits() -> AbstractContextManager[Any]:
    def look(context: Context, session: SessionState, step: wire.Step) -> bool:
        in_flight = session.in_flight
        for one in [*session.pending, *(in_flight.requests if in_flight else [])]:
            if isinstance(one, wire.Step) and one.position == step.position and one.data == step.data:
                step.version, step.after, step.pieces, step.replayed = one.version, one.after, one.pieces, True
                context.finish(step, None)
                return True
        return False

    return _before_advancing(look)


@contextmanager
def replies_wait_for_commits() -> Iterator[None]:
    """Sends a chunk's reply once it is computed."""
    finish_chunk = computing.finish_chunk

    def hasty(context: Context, cached: CachedState, step: wire.Step) -> None:
        finish_chunk(context, cached, step)
        context.finished.append(step)

    with patch.object(computing, "finish_chunk", hasty), patch.object(core, "finish_chunk", hasty):
        yield


def decisions_wait_for_commits() -> AbstractContextManager[Any]:
    """Reads and decides what does not continue the cached state while a commit is in flight."""
    return patch.object(SessionState, "has_uncommitted", property(lambda self: False))


# ------------------------------------------------------------------------------------------------------- cached states


def one_is_computed_at_a_time() -> AbstractContextManager[Any]:
    """Starts a chunk as if the one before it were not being computed."""

    def may_advance(self: SessionState) -> bool:
        return bool(self.queue) and not self.loading and not self.waits_for_slot

    return patch.object(SessionState, "may_advance", property(may_advance))


def busy_sessions_stay_cached() -> AbstractContextManager[Any]:
    """Lets a session be evicted while it has something to do."""
    return patch.object(SessionState, "idle", property(lambda self: self.computing is None and not self.loading))


def late_batches_are_thrown_away() -> AbstractContextManager[Any]:
    """Counts what a batch computed on a state that was dropped meanwhile."""

    def on_computed(self: Core, batch: Any) -> None:
        revived = [one for one in batch.states if one.dropped and one.work is not None]
        for one in revived:
            one.dropped = False
        computed(self, batch)

    computed = Core.on_computed
    return patch.object(Core, "on_computed", on_computed)
