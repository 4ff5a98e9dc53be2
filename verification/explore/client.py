"""A client of the explored world: the real History, and around it what a client does with its calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellkeeper import Position as ClientPosition
from cellkeeper._session.verdict import LOST, RETRIED, Action, Verdict
from cellkeeper_service.core.requests import Request
from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection

from .bulk import Bulk
from .call import call_name, call_request, step_request
from .columns import Columns, Member
from .known import Attempt, Known, as_client, chunk_name, known_at, outstanding
from .scope import (
    READS,
    Append,
    CarryOver,
    Delete,
    Follow,
    Fork,
    GroupSteps,
    Many,
    Open,
    Reset,
    Scope,
    SetState,
    Start,
    Steps,
    sessions_of,
)
from .sequential_model import Inputs, Violation, consumed, learn, outputs_after, plain
from .starts import check_start

UNSERVED = {"MODEL_CHANGED", "INVALID_FIELD"}  # by the replica that was asked; another may serve it
MOVED_BY_OTHERS = {"HISTORY_CHANGED", "GENERATION_CHANGED", "SESSION_NOT_FOUND", "SESSION_EXISTS"}


@dataclass(eq=False)
class Client:
    """A client that follows a script. waiting: unanswered attempts by ticket. failed: why its script ended early.
    refused: sessions of which an item of a call with several was refused for good, and why; its script goes on.
    elsewhere: sessions for which another replica had the version, when the last answer came.
    """

    name: str
    scope: Scope
    script: list[Any]
    at: int = 0
    restarts: int = 0
    sessions: dict[str, Known | Member] = field(default_factory=dict)
    columns: Columns | None = None  # of the group that it is stepping
    waiting: dict[int, Attempt] = field(default_factory=dict)
    called: bool = False  # the current call was already sent: a retry has the same request id
    failed: str = ""
    bulk: Bulk | None = None  # the call with several items that it is making
    refused: dict[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    gave_up: bool = False
    forgot: bool = False  # it died or opened anew without knowing whether a step that it had given up counts
    sequences: dict[str, Inputs] = field(default_factory=dict)  # what it was told since the start of each sequence
    left: dict[str, Position] = field(default_factory=dict)  # what a restarted client remembers

    @property
    def op(self) -> Any:
        return self.script[self.at] if self.at < len(self.script) and not self.failed else None

    @property
    def done(self) -> bool:
        return self.op is None

    def prepare(self) -> None:
        """Fills the windows with what fits; moves on to the next operation when one is finished."""
        while (op := self.op) is not None:
            if isinstance(op, Steps) and not self._is_without(op):
                if not self._prepare_steps(op):
                    return
            elif isinstance(op, GroupSteps):
                if not self._prepare_group(op):
                    return
            elif not self._is_without(op):
                if isinstance(op, Many) and self.bulk is None:
                    self.bulk = Bulk([item for item in op.items if not self._is_without(item)])
                return
            self._next()

    def can_send(self) -> list[str]:
        """Returns what it could send now."""
        op = self.op
        if op is None or isinstance(op, Steps | GroupSteps):
            return [what for what, _ in self.sends()]
        if self.bulk is not None:
            return self.bulk.can_send({attempt.name for attempt in self.waiting.values()})
        return [] if self.waiting else [call_name(op)]

    def sends(self) -> list[tuple[str, str]]:
        """Returns what it could send now as items of a frame, with their sessions."""
        op = self.op
        if isinstance(op, Steps):
            chunk = self.sessions[op.session].history.upcoming
            return [] if chunk is None else [(chunk_name(op.session, chunk), op.session)]
        return self.columns.sends() if isinstance(op, GroupSteps) and self.columns is not None else []

    def send(self, ticket: int, done: Callable[[str], Any], what: str) -> list[Request]:
        """Returns the requests as they go over the wire. what: one of those that can be sent. done: makes the channel
        for the answer to a request of this name."""
        op = self.op
        if isinstance(op, Steps | GroupSteps):
            return [self._send_chunk(op, ticket, done(what), what)]
        self.called = True
        if self.bulk is None:
            self.waiting[ticket] = Attempt(what, op[0], None)
            return [self._call(op, done(what))]
        items = self.bulk.named(what)
        self.waiting[ticket] = Attempt(what, "", None, calls=tuple(items))
        return [self._call(item, done(call_name(item))) for item in items]

    def _send_chunk(self, op: Steps | GroupSteps, ticket: int, done: Any, what: str) -> Request:
        session = next(session for name, session in self.sends() if name == what)
        item = None if self.columns is None else self.columns.item_to_send(session)
        if item is not None and self.columns is not None:
            start, inputs = self.columns.take(item)
            self.waiting[ticket] = Attempt(what, session, None, item)
            return step_request(session, done, inputs, Position(*start), start.step)
        history = self.sessions[session].history
        chunk = history.upcoming
        if chunk is None:
            raise RuntimeError("nothing to send")
        history.launch(chunk)
        self.waiting[ticket] = Attempt(what, session, chunk)
        return step_request(session, done, chunk.inputs, Position(*chunk.start), chunk.acked_sent)

    def lost(self, ticket: int) -> None:
        """Stops waiting for this attempt; it will be sent again."""
        attempt = self.waiting.pop(ticket)
        if attempt.item is not None and self.columns is not None:
            attempt.chunk = self.columns.leave(attempt.item)
        if attempt.chunk is not None:
            self._judge(attempt, self.sessions[attempt.session].history.on_error(attempt.chunk, LOST), None)
        elif isinstance(self.op, Append):
            self.failed = "OUTCOME_UNKNOWN"

    def receive(self, ticket: int, result: Any) -> None:
        """Handles an answer."""
        attempt = self.waiting.pop(ticket)
        if attempt.item is not None and self.columns is not None:
            if not isinstance(result, Rejection) and self.columns.answered(attempt.item, as_client(result.position)):
                self._check_outputs(attempt.session, result.position.step, 1, result)
                return
            attempt.chunk = self.columns.leave(attempt.item)
        if attempt.calls:
            self._receive_items(attempt.calls, result)
            return
        if attempt.chunk is None:
            self._receive_call(self.op, result)
            return
        history = self.sessions[attempt.session].history
        if isinstance(result, Rejection) and result.reason.name in UNSERVED and attempt.session in self.elsewhere:
            verdict = history.on_error(attempt.chunk, LOST)
        elif isinstance(result, Rejection):
            position = None if result.position is None else as_client(result.position)
            verdict = history.on_error(attempt.chunk, result.reason.name, position)
        else:
            verdict = history.on_reply(attempt.chunk, as_client(result.position))
        self._judge(attempt, verdict, result)

    def give_up(self) -> None:
        """Gives up its oldest outstanding chunk, or the group's step, because the caller stops waiting."""
        self.gave_up = True
        if isinstance(self.op, GroupSteps) and self.columns is not None:
            self.columns.give_up()
            for session in self.op.sessions:
                self.sessions[session].consumed = consumed(Position(*self.columns.tail(session)))
            return
        known = self.sessions[self.op.session]
        chunk = next(chunk for chunk in outstanding(known.history))
        known.history.abandon(chunk, "DEADLINE_PASSED")
        self.waiting = {t: a for t, a in self.waiting.items() if a.chunk is None or a.chunk.counted}
        known.consumed = consumed(Position(*known.history.tail))
        self._next()

    @property
    def can_give_up(self) -> bool:
        if isinstance(self.op, GroupSteps):
            return self.columns is not None and self.columns.has_open
        return isinstance(self.op, Steps) and bool(outstanding(self.sessions[self.op.session].history))

    def restart(self) -> None:
        """Becomes a new process, which knows the script and the positions that were answered."""
        if isinstance(self.op, Append) and self.called:
            self.failed = "OUTCOME_UNKNOWN"
        self.forgot |= self.gave_up and not all(known.history.idle for known in self.sessions.values())
        self.left = {session: Position(*known.history.position) for session, known in self.sessions.items()}
        self.restarts += 1
        self.sessions, self.waiting, self.called, self.columns, self.bulk = {}, {}, False, None, None
        opened = {op.session: op for op in self.script[: self.at] if isinstance(op, Open)}
        self.script[self.at : self.at] = [opened.get(session, Open(session)) for session in self.left]

    # inside

    def _is_without(self, op: Any) -> bool:
        """Returns whether it lacks the operation's sessions: an item was refused, or done before a restart."""
        if isinstance(op, Many):
            return all(self._is_without(item) for item in op.items)
        may_lack = isinstance(self.op, Many) or self.refused.keys() & set(sessions_of(op))
        return bool(may_lack) and not isinstance(op, Open) and op[0] not in self.sessions

    def _known(self, session: str) -> Known:
        """Returns the session. Raises TypeError if it belongs to a group now."""
        known = self.sessions[session]
        if not isinstance(known, Known):
            raise TypeError(f"{session} belongs to a group")
        return known

    def _prepare_steps(self, op: Steps) -> bool:
        """Appends the chunks that fit into the window. Returns True if every step is answered."""
        known = self._known(op.session)
        for chunk in op.chunks:
            if not set(chunk) & set(plain(known.consumed)):
                if not known.history.room(len(chunk)):
                    return False
                known.append(chunk)
        return known.history.idle

    def _prepare_group(self, op: GroupSteps) -> bool:
        """Starts the next row once the previous one is answered. Returns True if there is none left."""
        if self.columns is None:
            positions = [self.sessions[session].history.position for session in op.sessions]
            self.columns = Columns(op.sessions, positions, self.scope.buffer_steps)
            for session, row in self.columns.rows.items():
                self.sessions[session] = Member(self.columns, row, self.sessions[session].consumed)
        if not self.columns.idle:
            return False
        for values in op.rows:
            given = dict(zip(op.sessions, values, strict=True))
            lacking = {name: value for name, value in given.items() if value not in self.sessions[name].consumed}
            if lacking:
                self.columns.begin(lacking)
                for item, (name, value) in enumerate(lacking.items()):
                    end = learn(Position(*self.columns.start_of(item)), (value,))
                    if ClientPosition.unpack(self.columns.current.ends[item].tobytes()) != as_client(end):
                        raise Violation("client and server compute different heads")
                    self.sessions[name].consumed += (value,)
                return False
        for session in op.sessions:
            self.sessions[session] = Known(self.columns.dissolve(session), self.sessions[session].consumed)
        self.columns = None
        return True

    def _check_outputs(self, session: str, step: int, steps: int, result: Any) -> None:
        whole = self.sessions[session].consumed[:step]
        if result.outputs["prediction"].tolist() != outputs_after(whole, steps):
            raise Violation(f"{self.name} got outputs that are not those of {whole}")

    def _judge(self, attempt: Attempt, verdict: Verdict, result: Any) -> None:
        chunk = attempt.chunk
        if chunk is None:
            raise RuntimeError("a call has no verdict")
        if verdict.action is Action.DELIVER:
            self._check_outputs(attempt.session, chunk.end.step, chunk.steps, result)
        elif verdict.action is Action.FAIL:
            self._fail(verdict.reason)

    def _receive_call(self, op: Any, result: Any) -> None:
        if isinstance(result, Rejection):
            if self._may_succeed_yet(op, result):
                return
            if not isinstance(op, READS):
                self._fail(result.reason.name)
                return
        self._succeed(op, result)
        self._next()

    def _receive_items(self, items: tuple[Any, ...], results: list[Any]) -> None:
        """Handles the answer to a call with several items. Those that failed for good fail alone."""
        if self.bulk is None:
            raise RuntimeError("no call with several items is under way")
        self.bulk.apart = True
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Rejection) and self._may_succeed_yet(item, result):
                continue
            self.bulk.left.remove(item)
            if isinstance(result, Rejection):
                self.refused[item.session] = result.reason.name
            else:
                self._succeed(item, result)
        if not self.bulk.left:
            self._next()

    def _may_succeed_yet(self, op: Any, refusal: Rejection) -> bool:
        reason = refusal.reason.name
        return reason in RETRIED or (reason in UNSERVED and op[0] in self.elsewhere)

    def _succeed(self, op: Any, result: Any) -> None:
        if isinstance(op, (Start, Follow)):
            self._follow(op, result)
        elif isinstance(op, Open):
            self._take(op.session, result.header.position)
        elif isinstance(op, Fork):
            self._check_start(op, Position(*self.sessions[op.source].history.position), result.position)
            self._take(op.target, result.position)
        elif isinstance(op, (Reset, SetState, CarryOver)):
            before = Position(*self.sessions[op.session].history.position)
            self._check_start(op, before, result.position)
            if result.position.generation != before.generation:
                self._take(op.session, result.position)  # otherwise the session is of that version: nothing has changed
        elif isinstance(op, Delete):
            del self.sessions[op.session]

    def _check_start(self, op: Any, before: Position, after: Position) -> None:
        exact = not (self.scope.shared or self.gave_up)  # no later steps, of others or of this client's given up
        check_start(f"{self.name}: {call_name(op)}", op, before, after, self.scope.shared, exact)

    def _follow(self, op: Start | Follow, result: Any) -> None:
        before = () if isinstance(op, Start) else self.sequences[op.session]
        told = self.sequences[op.session] = (*before, op.value)
        if plain(consumed(result.position)) != told:
            raise Violation(
                f"{self.name} sent {told} since its start, but the reply is for {consumed(result.position)}"
            )

    def _take(self, session: str, position: Position) -> None:
        if (earlier := self.sessions.get(session)) is not None:
            self.forgot |= self.gave_up and not earlier.history.idle
        self.sessions[session] = known_at(position, self.scope.buffer_steps)
        self.left.pop(session, None)
        self._set_window()

    def _next(self) -> None:
        self.at += 1
        self.called, self.bulk = False, None
        self._set_window()

    def _set_window(self) -> None:
        op = self.op
        if isinstance(op, Steps) and op.session in self.sessions:
            self.sessions[op.session].history.window_steps = op.window

    def _fail(self, reason: str) -> None:
        self.failed = reason

    def _call(self, op: Any, done: Any) -> Request:
        known = self.sessions.get(op[0])
        at = None if known is None else Position(*known.history.position)
        expect = self.left.get(op[0]) if self.scope.expects else None
        item = "" if self.bulk is None else f".{op[0]}"
        request_id = f"{self.name}{self.restarts}.{self.at}{item}".encode().ljust(16, b"-")
        return call_request(op, done, request_id, at, expect)
