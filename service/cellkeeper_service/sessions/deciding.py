"""A line's first request is decided on the record that was read after it arrived: it is answered, written, or what it
needs first is started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cellkeeper_service.core import lifecycle
from cellkeeper_service.core.carry_over import Needs, carry_over, target_of
from cellkeeper_service.core.decision_table import Verdict, decide, not_found, refuse_unserved
from cellkeeper_service.core.requests import Erase, Write
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import DamagedRecord
from cellkeeper_service.errors import Reason, Rejection

from .committing import Committing
from .desk import Desk
from .hot import Hot
from .hotset import HotSet
from .line import Changing, Erasing, Line
from .requests import (
    CarryOver,
    CopyInto,
    Delete,
    Fork,
    GetSession,
    GetState,
    Open,
    Request,
    Reset,
    SessionReply,
    SetState,
    Step,
)
from .served import Models, Served
from .ticking import Ticking


class Deciding:
    def __init__(
        self,
        desk: Desk,
        hotset: HotSet,
        ticking: Ticking,
        committing: Committing,
        submit: Callable[[Request], None],
    ) -> None:
        """submit: puts a request into its session's line."""
        self._desk = desk
        self._hotset = hotset
        self._ticking = ticking
        self._committing = committing
        self._submit = submit

    def decide(self, line: Line, request: Request) -> None:
        """Decides the line's first request on the record that was read after it arrived."""
        record, models = line.record, self._desk.models[line.key.model]
        if line.damage is not None:
            self._decide_damaged(line, request, line.damage, models)
            return
        match request:
            case Step():
                self._decide_step(line, request, record, models)
            case GetState():
                self._decide_read(line, request, record, models)
            case GetSession():
                found = not_found() if record is None else SessionReply(record.header, line.hot is not None)
                self._conclude(line, request, found)
            case Open():
                self._conclude(line, request, lifecycle.open_session(record, request, models, self._birth()))
            case Reset():
                self._conclude(line, request, lifecycle.reset(record, request, models, self._birth()))
            case SetState():
                self._conclude(line, request, lifecycle.set_state(record, request, models, self._birth()))
            case CarryOver():
                self._carry_over(line, request, record, models)
            case Delete():
                self._conclude(line, request, lifecycle.delete(record, request))
            case CopyInto():
                self._conclude(line, request, lifecycle.copy_into(record, request, self._birth()))
            case Fork():
                self._plant(line, request, lifecycle.fork(record, request))
            case _:
                raise TypeError(f"no decision for {type(request).__name__}")

    def _decide_damaged(self, line: Line, request: Request, damage: DamagedRecord, models: Models) -> None:
        decided = lifecycle.of_damaged(damage, request, models, self._birth())
        if isinstance(request, Fork) and isinstance(decided, Rejection):
            self._plant(line, request, decided)
        else:
            self._conclude(line, request, decided)

    def _decide_step(self, line: Line, step: Step, record: Record | None, models: Models) -> None:
        verdict = decide(record, step, models)
        if isinstance(verdict, Rejection):
            self._conclude(line, step, verdict)
        elif record is None:
            self._hotset.drop(line)
            if born := self._hotset.create(line, models.default):
                line.queue.popleft()
                self._ticking.start_chunk(line, born, step)
        elif verdict is Verdict.REPLAY:
            self._replay(line, record, models)
        elif hot := self._hot_at(line, record, models, step.acked_at(record.position.step)):
            if step.peek:
                line.queue.popleft()
                self._ticking.start_peek(line, hot, step)
            elif line.log_fits(hot, step, self._desk.limits.log_steps(hot.served.spec.step_bytes)):
                line.queue.popleft()
                self._ticking.start_chunk(line, hot, step)
            else:
                self._conclude(line, step, self._ack_behind(record))

    def _decide_read(self, line: Line, request: GetState, record: Record | None, models: Models) -> None:
        if record is None:
            self._conclude(line, request, not_found())
        elif refused := refuse_unserved(record, models):
            self._conclude(line, request, refused)
        elif hot := self._hot_at(line, record, models, record.position.step):
            line.queue.popleft()
            self._ticking.start_read(line, hot, request)

    def _carry_over(self, line: Line, request: CarryOver, record: Record | None, models: Models) -> None:
        decided = carry_over(record, request, models, self._birth())
        if record is None or not isinstance(decided, Needs):
            self._conclude(line, request, decided)
        elif decided is Needs.WINDOW:
            if self._ticking.carrying.start_rerun(line, request, target_of(request, models)):
                line.queue.popleft()
        elif hot := self._hot_at(line, record, models, record.position.step):
            line.queue.popleft()
            self._ticking.carrying.start_keep(line, hot, request)

    def _hot_at(self, line: Line, record: Record, models: Models, acked: int) -> Hot | None:
        """The hot copy at the record's position; None: something was started, or is awaited, that leads there."""
        if line.hot is not None and line.hot.frontier == record.position:
            line.hot.header = record.header
            return line.hot
        self._hotset.drop(line)
        hot = self._hotset.install_record(line, self._version(record, models), record)
        if hot is not None and record.log:
            self._ticking.start_rebuild(line, hot, record, [], acked)
            return None
        return hot

    def _replay(self, line: Line, record: Record, models: Models) -> None:
        """The first request, and the duplicates right behind it, get their outputs again from one rebuild."""
        self._hotset.drop(line)
        hot = self._hotset.install_record(line, self._version(record, models), record)
        if hot is None:
            return
        duplicates: list[Step] = []
        while line.queue and isinstance(step := line.queue[0], Step) and step.number <= line.read_number:
            if decide(record, step, models) is not Verdict.REPLAY:
                break
            line.queue.popleft()
            duplicates.append(step)
        try:
            self._ticking.start_rebuild(line, hot, record, duplicates, record.position.step)
        except Exception:
            self._desk.requeue(line, duplicates)
            raise

    def _conclude(self, line: Line, request: Request, decided: Any) -> None:
        """Answers the line's first request, or has written what was decided before it is answered."""
        line.queue.popleft()
        if isinstance(decided, Write):
            self._hotset.drop(line)
            self._committing.add(line, Changing(request, decided))
        elif isinstance(decided, Erase) and isinstance(request, Delete):
            self._hotset.drop(line)
            self._committing.add(line, Erasing(request, decided.generation))
        else:
            self._desk.answer(request, decided)

    def _plant(self, line: Line, fork: Fork, source: Record | Rejection) -> None:
        """The fork goes on in the target's line."""
        line.queue.popleft()
        copy, otherwise = (None, source) if isinstance(source, Rejection) else (source, None)
        self._desk.leave(fork)
        self._submit(CopyInto(fork.target, fork.deadline, fork.done, fork.request_id, copy, otherwise, fork.content))

    def _version(self, record: Record, models: Models) -> Served:
        served = models.find(record.header.fingerprint)
        if served is None:
            raise LookupError("a record was decided to be served whose model version is not")
        return served

    def _birth(self) -> lifecycle.NewGeneration:
        limits, clock = self._desk.limits, self._desk.clock
        return lifecycle.NewGeneration(self._desk.mint(), clock.wall_ms(), limits.default_ttl_ms)

    def _ack_behind(self, record: Record) -> Rejection:
        logged = record.position.step - record.header.checkpoint_step
        most = self._desk.limits.log_steps(record.header.step_bytes)
        text = (
            f"acked: the log holds {logged} steps of at most {most}, and the replies to "
            "them are not acknowledged; expected an `acked` nearer to the position"
        )
        return Rejection(Reason.ACK_BEHIND, text, field="acked", position=record.position)
