"""Ways to switch off the rules of the protocol, one at a time.

The product has no such switches: its real functions are replaced while the context is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any
from unittest.mock import patch

from cellkeeper._chunk import ChunkState, Outgoing
from cellkeeper._history import History
from cellkeeper_service.core import decision_table as decision
from cellkeeper_service.core import lifecycle
from cellkeeper_service.core.requests import Erase
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Outcome
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions import commits
from cellkeeper_service.sessions import requests as wire
from cellkeeper_service.sessions.line import Applied
from cellkeeper_service.sessions.sessions import Sessions

from .store import ExploredStore
from .truth import born

Switch = Callable[[], AbstractContextManager[Any]]


# ---------------------------------------------------------------------------------------------- 1 head in the request


@contextmanager
def head_of_requests() -> Iterator[None]:
    refuse, go_on = decision.refuse_misplaced, Sessions._continues

    def refuse_misplaced(record: Record, wish: Any) -> Rejection | None:
        if record.header.checkpoint_step <= wish.step <= record.position.step:
            wish = wish._replace(head=record.head_at(wish.step))
        return refuse(record, wish)

    def continues(self: Sessions, line: Any, step: wire.Step) -> Any:
        wish = step.position
        if wish is not None and line.hot is not None and wish.step == line.hot.frontier.step:
            step.position = wish._replace(head=line.hot.frontier.head)
        try:
            return go_on(self, line, step)
        finally:
            step.position = wish

    with (
        patch.object(decision, "refuse_misplaced", refuse_misplaced),
        patch.object(lifecycle, "refuse_misplaced", refuse_misplaced),
        patch.object(Sessions, "_continues", continues),
    ):
        yield


# ---------------------------------------------------------------------------------------------- 2, 3 compare-and-set


def _compares(same: Callable[[Header, Header], bool]) -> AbstractContextManager[Any]:
    def same_place(self: ExploredStore, standing: Header | None, expected: Header | None) -> bool:
        return standing is expected if standing is None or expected is None else same(standing, expected)

    return patch.object(ExploredStore, "same_place", same_place)


def head_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position[:2] == expected.position[:2])


def generation_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position[1:] == expected.position[1:])


def header_in_the_store() -> AbstractContextManager[Any]:
    return _compares(lambda standing, expected: standing.position == expected.position)


# ---------------------------------------------------------------------------------------------- 4, 5 acks


def checkpoint_waits_for_acks() -> AbstractContextManager[Any]:
    return patch.object(wire.Step, "acked_at", lambda self, step: step)


def acks_without_holes() -> AbstractContextManager[Any]:
    next_chunk = History.next_chunk

    def with_holes(self: History) -> Outgoing | None:
        outgoing = next_chunk(self)
        if outgoing is None:
            return None
        chunk = outgoing.chunk
        highest = max([c.end.step for c in self._open if c.state is ChunkState.DONE], default=0)
        chunk.acked_sent = min(max(outgoing.acked, highest), chunk.start.step)
        return Outgoing(chunk, chunk.acked_sent)

    return patch.object(History, "next_chunk", with_holes)


# ---------------------------------------------------------------------------------------------- 6 unknown


def _unknown_is(outcome: Outcome) -> AbstractContextManager[Any]:
    landed = Sessions.landed

    def believes(self: Sessions, flights: Any, results: Any) -> None:
        results = [one._replace(outcome=outcome) if one.outcome is Outcome.UNKNOWN else one for one in results]
        landed(self, flights, results)

    return patch.object(Sessions, "landed", believes)


def unknown_is_not_committed() -> AbstractContextManager[Any]:
    return _unknown_is(Outcome.COMMITTED)


def unknown_is_not_failed() -> AbstractContextManager[Any]:
    return _unknown_is(Outcome.REFUSED)


# ---------------------------------------------------------------------------------------------- 7, 8 the store decides


def _before_advancing(look: Callable[[Sessions, Any, wire.Step], Any]) -> AbstractContextManager[Any]:
    """look: the answer to the line's first request, a positioned step, where it has one without asking the store."""
    advance = Sessions._advance

    @wraps(advance)
    def hasty(self: Sessions, line: Any) -> None:
        while line.queue and isinstance(first := line.queue[0], wire.Step) and first.position is not None:
            answer = look(self, line, first)
            if answer is None:
                break
            self._desk.answer(line.queue.popleft(), answer)
        advance(self, line)

    return patch.object(Sessions, "_advance", hasty)


def store_decides_rejections() -> AbstractContextManager[Any]:
    def look(self: Sessions, line: Any, step: wire.Step) -> Any:
        hot = line.hot
        if hot is None or not hot.exists or not line.settled or step.position == hot.frontier:
            return None
        header = hot.header.replace(
            position=hot.frontier,
            checkpoint_step=hot.frontier.step,
            checkpoint_head=hot.frontier.head,
        )
        record = Record(header, bytes(hot.served.spec.state_bytes), b"")
        verdict = decision.decide(record, step, self._desk.models[line.key.model])
        return verdict if isinstance(verdict, Rejection) else None

    return _before_advancing(look)


def duplicates_wait_for_commits() -> AbstractContextManager[Any]:
    def look(self: Sessions, line: Any, step: wire.Step) -> Any:
        items = [*line.pending, *(line.flight.items if line.flight else [])]
        for item in items:
            if isinstance(item, Applied) and item.request.position == step.position and item.request.data == step.data:
                return item.reply
        return None

    return _before_advancing(look)


# ---------------------------------------------------------------------------------------------- 9, 10 lives


def server_mints_generations() -> AbstractContextManager[Any]:
    open_session = lifecycle.open_session

    def clients_choice(record: Any, request: wire.Open, models: Any, birth: lifecycle.NewGeneration) -> Any:
        born(request.request_id)
        return open_session(record, request, models, replace(birth, generation=request.request_id))

    return patch.object(lifecycle, "open_session", clients_choice)


def reset_names_its_generation() -> AbstractContextManager[Any]:
    reset = lifecycle.reset

    def whatever_stands(record: Any, request: wire.Reset, models: Any, birth: lifecycle.NewGeneration) -> Any:
        if record is not None:
            request = replace(request, generation=record.position.generation)
        return reset(record, request, models, birth)

    return patch.object(lifecycle, "reset", whatever_stands)


def delete_names_its_generation() -> AbstractContextManager[Any]:
    def whatever_stands(record: Any, request: wire.Delete) -> Any:
        if record is None:
            return wire.Deleted(False)
        request.generation = record.position.generation
        return Erase(record.position.generation)

    return patch.object(lifecycle, "delete", whatever_stands)


# ---------------------------------------------------------------------------------------------- 11, 12 the client


def client_replays_on_its_own_history() -> AbstractContextManager[Any]:
    gap = History._gap

    def on_any(self: History, chunk: Any, position: Any) -> Any:
        if position is None or self._reason_against(position) != "HISTORY_CHANGED":
            return gap(self, chunk, position)
        self._again(chunk)
        self._reopen(position.step)
        at, held = position, self.position.step
        for one in self._open:
            if one.start.step >= position.step:
                one.start = at
                one.end = at = at.advance(one.inputs, 4)
            if one.end.step == held:
                self.position = one.end
        return gap.__globals__["_RESEND"]

    return patch.object(History, "_gap", on_any)


def compacted_is_harmless_when_held() -> AbstractContextManager[Any]:
    on_error = History.on_error

    def strict(self: History, chunk: Any, reason: str, position: Any = None) -> Any:
        if reason == "STEP_COMPACTED" and chunk.held and self._landed(chunk):
            return self._fail(chunk, reason)
        return on_error(self, chunk, reason, position)

    return patch.object(History, "on_error", strict)


# ---------------------------------------------------------------------------------------------- 13 checkpoints


def state_is_kept_until_acked() -> AbstractContextManager[Any]:
    chunk_commit = commits.chunk_commit

    def now_or_never(line: Any, hot: Any, chunks: Any, now_ms: int) -> Any:
        commit = chunk_commit(line, hot, chunks, now_ms)
        if commit.checkpoint is None:
            hot.checkpoint = None
        return commit

    return patch.object(commits, "chunk_commit", now_or_never)
