"""A client of the explored world: the real History, and around it what a client does with its calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cellkeeper import Position as ClientPosition
from cellkeeper._session.verdict import LOST, RETRIED, Action, Verdict
from cellkeeper_service.core.requests import Request
from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection

from .call import beginning, call_name, call_request, step_request
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
    Open,
    Reset,
    Scope,
    SetState,
    Start,
    Steps,
)
from .sequential_model import Inputs, Violation, consumed, learn, outputs_after, plain, version_of

UNSERVED = {"MODEL_CHANGED", "INVALID_FIELD"}  # by the replica that was asked; another may serve it
MOVED_BY_OTHERS = {"HISTORY_CHANGED", "GENERATION_CHANGED", "SESSION_NOT_FOUND", "SESSION_EXISTS"}


@dataclass(eq=False)
class Client:
    """A client that follows a script. waiting: unanswered attempts by ticket. failed: why its script ended early."""

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
    elsewhere: bool = False  # at its last refusal, a replica had the versions for what it does
    gave_up: bool = False
    forgot: bool = False  # it died without knowing whether a step that it had given up counts
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
        while isinstance(op := self.op, Steps | GroupSteps):
            if isinstance(op, GroupSteps):
                if not self._prepare_group(op):
                    return
                self._next()
                continue
            known = self._known(op.session)
            for chunk in op.chunks:
                if set(chunk) & set(plain(known.consumed)):
                    continue
                if not known.history.room(len(chunk)):
                    return
                known.append(chunk)
            if not known.history.idle:
                return
            self._next()

    def can_send(self) -> list[str]:
        """Returns what it could send now."""
        op = self.op
        if op is None or isinstance(op, Steps | GroupSteps):
            return [what for what, _ in self.sends()]
        return [] if self.waiting else [call_name(op)]

    def sends(self) -> list[tuple[str, str]]:
        """Returns what it could send now as items of a frame, with their sessions."""
        op = self.op
        if isinstance(op, Steps):
            chunk = self.sessions[op.session].history.upcoming
            return [] if chunk is None else [(chunk_name(op.session, chunk), op.session)]
        return self.columns.sends() if isinstance(op, GroupSteps) and self.columns is not None else []

    def send(self, ticket: int, done: Any, what: str) -> Request:
        """Returns the request as it goes over the wire. what: one of those that can be sent."""
        op = self.op
        if isinstance(op, Steps | GroupSteps):
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
        self.waiting[ticket] = Attempt(call_name(op), op[0], None)
        self.called = True
        return self._call(op, done)

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
        if attempt.chunk is None:
            self._receive_call(self.op, result)
            return
        history = self.sessions[attempt.session].history
        if isinstance(result, Rejection) and result.reason.name in UNSERVED and self.elsewhere:
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
        self.sessions, self.waiting, self.called, self.columns = {}, {}, False, None
        opened = {op.session: op for op in self.script[: self.at] if isinstance(op, Open)}
        self.script[self.at : self.at] = [opened.get(session, Open(session)) for session in self.left]

    # inside

    def _known(self, session: str) -> Known:
        """Returns the session. Raises TypeError if it belongs to a group now."""
        known = self.sessions[session]
        if not isinstance(known, Known):
            raise TypeError(f"{session} belongs to a group")
        return known

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
            reason = result.reason.name
            if reason in RETRIED or (reason in UNSERVED and self.elsewhere):
                return
            if not isinstance(op, READS):
                self._fail(reason)
                return
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
        self._next()

    def _check_start(self, op: Any, before: Position, after: Position) -> None:
        """Checks what a generation begins with, to which the client's call has led from `before`. Raises Violation."""
        started, told = consumed(after), beginning(op, before)
        stays = isinstance(op, CarryOver) and version_of(before.generation) == op.version
        if (after.generation == before.generation) != stays and not (stays and self.scope.shared):
            raise Violation(f"{self.name}: {call_name(op)} has led from {told} to {started}")
        # later steps: of other clients, or of this one's that it has given up
        exact = not (self.scope.shared or self.gave_up or isinstance(op, Fork))
        if stays:
            return  # the next step finds what is lost
        if started[: len(told)] != told or (exact and started != told):
            raise Violation(f"{self.name}: {call_name(op)} was to begin with {told}, but has led to {started}")
        if isinstance(op, CarryOver) and not self.scope.shared and version_of(after.generation) != op.version:
            raise Violation(f"{self.name}: {call_name(op)} has led to version {version_of(after.generation)}")

    def _follow(self, op: Start | Follow, result: Any) -> None:
        before = () if isinstance(op, Start) else self.sequences[op.session]
        told = self.sequences[op.session] = (*before, op.value)
        if plain(consumed(result.position)) != told:
            raise Violation(
                f"{self.name} sent {told} since its start, but the reply is for {consumed(result.position)}"
            )

    def _take(self, session: str, position: Position) -> None:
        self.sessions[session] = known_at(position, self.scope.buffer_steps)
        self.left.pop(session, None)
        self._set_window()

    def _next(self) -> None:
        self.at += 1
        self.called = False
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
        request_id = f"{self.name}{self.restarts}.{self.at}".encode().ljust(16, b"-")
        return call_request(op, done, request_id, at, expect)
