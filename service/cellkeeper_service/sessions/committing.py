"""Writing: one commit in flight for each session; what is computed meanwhile goes out together with the next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice

from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.errors import Reason, Rejection

from .commits import build_flight
from .desk import Desk
from .hotset import HotSet
from .limits import MAX_CALL_ITEMS
from .line import Applied, Changing, Flight, Line, Pending
from .requests import Deleted, Request, Step
from .served import Served

log = logging.getLogger(__name__)


class Committing:
    def __init__(self, desk: Desk, hotset: HotSet) -> None:
        self._desk = desk
        self._hotset = hotset
        self._ready: dict[Line, None] = {}

    def add(self, line: Line, item: Pending) -> None:
        line.pending.append(item)
        if line.flight is None:
            self._ready[line] = None

    @property
    def wanted(self) -> bool:
        return bool(self._ready)

    def take(self) -> list[Flight]:
        flights = []
        for line in list(islice(self._ready, MAX_CALL_ITEMS)):
            del self._ready[line]
            flight = None
            items = line.pending
            try:
                if items and line.flight is None:
                    flight = self._launch(line)
            except Exception:
                log.exception("internal error: a session's request failed")
                line.flight = None
                self._hotset.unwind_broken(line, [item.request for item in items])
                self._desk.advance(line)
            if flight is not None:
                flights.append(flight)
        self._hotset.feed()
        return flights

    def _launch(self, line: Line) -> Flight | None:
        """Nothing is sent after its deadline; what was computed on top of a late chunk is decided again."""
        now = self._desk.now()
        items = line.pending
        late = next((i for i, item in enumerate(items) if now >= item.request.deadline), None)
        behind: list[Request] = []
        if late is not None:
            line.pending = items[late + 1 :]
            late_request = items[late].request
            items = items[:late]
        if items:
            line.flight = build_flight(line, items, self._desk.clock.wall_ms())
            line.forget_reading()
        if late is None:
            line.pending = []
        else:
            behind = self._hotset.unwind(line)
            why = self._desk.late(late_request.deadline, now)
            self._desk.requeue(line, behind)
            self._desk.answer(late_request, why)
            self._desk.advance(line)
        return line.flight

    def landed(self, results: Sequence[tuple[Flight, CommitResult]]) -> None:
        for flight, result in results:
            line = flight.line
            line.flight = None
            try:
                self._desk.meter.committed(result.outcome.value, 1)
                if result.outcome is Outcome.COMMITTED:
                    self._committed(flight)
                else:
                    self._not_committed(flight, result)
            except Exception:
                log.exception("internal error: a session's request failed")
                self._hotset.unwind_broken(line, [item.request for item in flight.items])
            self._desk.advance(line)
            if line.pending:
                self._ready[line] = None
        self._hotset.feed()

    def _committed(self, flight: Flight) -> None:
        line, call, hot = flight.line, flight.call, flight.hot
        if isinstance(call, Commit) and hot is not None and hot is line.hot:
            hot.header, hot.exists = call.header, True
            if call.checkpoint is not None:
                hot.checkpoint = None
                self._desk.meter.checkpointed(line.key.model)
        for item in flight.items:
            if isinstance(item, Applied):
                self._desk.answer(item.request, item.reply)
            elif isinstance(item, Changing):
                write = item.write
                if isinstance(write.version, Served) and write.seed is not None:
                    self._hotset.install_if_room(line, write.version, write.commit.header, write.seed)
                self._desk.answer(item.request, write.reply)
            else:
                self._desk.answer(item.request, Deleted(True))

    def _not_committed(self, flight: Flight, result: CommitResult) -> None:
        """Everything computed on a commit that failed fails with it, and is decided again on a fresh reading."""
        line = flight.line
        # a copy that was dropped while its commit was in flight has left its requests in the queue already
        behind = self._hotset.unwind(line) if flight.hot is None or flight.hot is line.hot else []
        again, answers = [], []
        for item in flight.items:
            why = self._why_not_again(item.request, result)
            if why is None:
                again.append(item.request)
            else:
                answers.append((item.request, why))
        line.forget_reading()
        self._desk.requeue(line, again + behind)
        for request, why in answers:
            self._desk.answer(request, why)

    def _why_not_again(self, request: Request, result: CommitResult) -> Rejection | None:
        match result.outcome:
            case Outcome.REFUSED:
                return self._desk.store_unavailable(result.message)
            case Outcome.CONFLICT:
                request.conflicts += 1
                if request.conflicts <= self._desk.limits.max_conflicts:
                    return None
                text = "others wrote to the session each time this was about to be committed; send it again"
                position = result.standing.position if result.standing else None
                return Rejection(Reason.COMMIT_CONFLICT, text, position=position)
            case _:
                request.unknowns += 1
                if isinstance(request, Step) and request.position is None:
                    text = f"the store did not answer ({result.message}): the step may have been applied"
                    return Rejection(Reason.OUTCOME_UNKNOWN, text)
                if request.unknowns <= self._desk.limits.max_unknowns:
                    return None
                return self._desk.store_unavailable(result.message)
