"""The rules of the protocol, each with a way to switch it off and a scope in which that shows.

The product has no such switches: the real functions are replaced here, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any
from unittest.mock import patch

from cellkeeper._chunk import ChunkState, Outgoing
from cellkeeper._history import History
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Outcome
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions import commits, decision, lifecycle
from cellkeeper_service.sessions import requests as wire
from cellkeeper_service.sessions.committing import Committing
from cellkeeper_service.sessions.line import Applied
from cellkeeper_service.sessions.sessions import Sessions

from .scope import Append, Delete, Fork, Open, Reset, Scope, Steps
from .store import ExploredStore
from .truth import born

Switch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Rule:
    """off: switches it off while it is entered. scope: where that is found out."""

    number: str
    text: str
    off: Switch
    scope: Scope


def steps(session: str, *values: int | tuple[int, ...], window: int = 1) -> Steps:
    chunks = tuple(value if isinstance(value, tuple) else (value,) for value in values)
    return Steps(session, chunks, window)


# ---------------------------------------------------------------------------------------------- 1 head in the request


class _Both:
    """Several replacements at once."""

    def __init__(self, *patches: AbstractContextManager[Any]) -> None:
        self._patches = patches

    def __enter__(self) -> None:
        for one in self._patches:
            one.__enter__()

    def __exit__(self, *error: Any) -> None:
        for one in reversed(self._patches):
            one.__exit__(*error)


def head_of_requests() -> AbstractContextManager[Any]:
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

    return _Both(
        patch.object(decision, "refuse_misplaced", refuse_misplaced),
        patch.object(lifecycle, "refuse_misplaced", refuse_misplaced),
        patch.object(Sessions, "_continues", continues),
    )


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
    landed = Committing.landed

    def believes(self: Committing, flights: Any, results: Any) -> None:
        results = [one._replace(outcome=outcome) if one.outcome is Outcome.UNKNOWN else one for one in results]
        landed(self, flights, results)

    return patch.object(Committing, "landed", believes)


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
        header = replace(
            hot.header,
            position=hot.frontier,
            checkpoint_step=hot.frontier.step,
            checkpoint_head=hot.frontier.head,
        )
        verdict = decision.decide(Record(header, b"", b""), step, self._desk.models[line.key.model])
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

    def clients_choice(record: Any, request: wire.Open, models: Any, birth: lifecycle.Birth) -> Any:
        born(request.request_id)
        return open_session(record, request, models, replace(birth, generation=request.request_id))

    return patch.object(lifecycle, "open_session", clients_choice)


def reset_names_its_generation() -> AbstractContextManager[Any]:
    reset = lifecycle.reset

    def whatever_stands(record: Any, request: wire.Reset, models: Any, birth: lifecycle.Birth) -> Any:
        if record is not None:
            request = replace(request, generation=record.position.generation)
        return reset(record, request, models, birth)

    return patch.object(lifecycle, "reset", whatever_stands)


def delete_names_its_generation() -> AbstractContextManager[Any]:
    def whatever_stands(record: Any, request: wire.Delete) -> Any:
        if record is None:
            return wire.Deleted(False)
        request.generation = record.position.generation
        return lifecycle.Erase(record.position.generation)

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


TWO_ON_ONE = ((Open("s"), steps("s", 11, 12, window=2)), (Open("s"), steps("s", 21)))

RULES = (
    Rule("1", "a head is compared with the request's", head_of_requests, Scope(TWO_ON_ONE, replicas=1, slow=1)),
    Rule(
        "2",
        "the head is in the store's compare-and-set",
        head_in_the_store,
        Scope(((Open("s"), steps("s", 11, 12)), (Open("s"), steps("s", 21))), fall_backs=1, atomic_commits=True),
    ),
    Rule(
        "3",
        "the generation is in the store's compare-and-set",
        generation_in_the_store,
        Scope(((Open("s"), Fork("s", "t"), steps("t", 11), Delete("t"), Fork("s", "t")),), unknowns=1),
    ),
    Rule(
        "3b",
        "the whole header, not only the position, is in the compare-and-set",
        header_in_the_store,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13)),), fall_backs=1, due_steps=4, other_due_steps=1, atomic_commits=True
        ),
    ),
    Rule(
        "4",
        "a checkpoint is held back by `acked`",
        checkpoint_waits_for_acks,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), timeouts=1),
    ),
    Rule(
        "5",
        "`acked` means every reply up to there",
        acks_without_holes,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=3)),), replicas=1, timeouts=1),
    ),
    Rule(
        "6a",
        "unknown is not committed",
        unknown_is_not_committed,
        Scope(((Open("s"), steps("s", 11)),), unknowns=1),
    ),
    Rule(
        "6b",
        "unknown is not failed",
        unknown_is_not_failed,
        Scope(((Open("s"), Append("s", 11)),), unknowns=1),
    ),
    Rule(
        "7",
        "rejections are decided on the store's record",
        store_decides_rejections,
        Scope(((Open("s"), steps("s", 11), Reset("s"), steps("s", 12)),)),
    ),
    Rule(
        "8",
        "duplicates are answered after the session's own commits only",
        duplicates_wait_for_commits,
        Scope(((Open("s"), steps("s", 11)),), timeouts=1),
    ),
    Rule(
        "9",
        "generations are minted by the server",
        server_mints_generations,
        Scope(((Open("s"), Delete("s")),), slow=1, timeouts=1),
    ),
    Rule(
        "10a",
        "Reset names its generation",
        reset_names_its_generation,
        Scope(((Open("s"), Reset("s"), Reset("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "10b",
        "Delete names its generation",
        delete_names_its_generation,
        Scope(((Open("s"), Delete("s"), Open("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "11",
        "the client replays on its own history only",
        client_replays_on_its_own_history,
        Scope(
            ((Open("s"), steps("s", (11, 12), 13)), (Open("s"), steps("s", 21))),
            replicas=1,
            fall_backs=1,
            atomic_commits=True,
        ),
    ),
    Rule(
        "12",
        "a held reply makes STEP_COMPACTED harmless",
        compacted_is_harmless_when_held,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=1, fall_backs=1, timeouts=1),
    ),
    Rule(
        "13",
        "a state is kept at a chunk's boundary until the acks have passed it",
        state_is_kept_until_acked,
        Scope(((Open("s"), steps("s", 11, 12, 13, 14, 15, 16, 17, 18, window=2)),), replicas=1, steady=4),
    ),
)
