"""Ways to switch off the rules of the protocol in the short way alone: the long one keeps them. See switches.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import decision_table as decision
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Outcome
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions import intake
from cellkeeper_service.sessions.cohort import CohortFlight
from cellkeeper_service.sessions.cohorts import Cohorts
from cellkeeper_service.sessions.intake import Intake
from cellkeeper_service.sessions.line import Line
from cellkeeper_service.sessions.sessions import Sessions

from tests.sessions.columns import Frame

take_in = Intake.take_in


def _taking_in(taken: Callable[[Intake, Frame], list[int]]) -> AbstractContextManager[Any]:
    return patch.object(Intake, "take_in", taken)


def _line(self: Intake, frame: Frame, item: int) -> Line | None:
    return self._desk.lines.get(SessionKey(frame.tenant, frame.model, frame.sessions[item]))


def head_of_requests() -> AbstractContextManager[Any]:
    """An item is taken for its step number alone."""

    def taken(self: Intake, frame: Frame) -> list[int]:
        places = []
        for item, step in enumerate(frame.steps):
            line, wish = _line(self, frame, item), step.position
            assert wish is not None
            if line is not None and line.hot is not None and line.hot.frontier[:2] == wish[:2]:
                wish = line.hot.frontier
            places.append(wish.pack())
        true, frame.positions = frame.positions, b"".join(places)
        try:
            return take_in(self, frame)
        finally:
            frame.positions = true

    return _taking_in(taken)


def checkpoint_waits_for_acks() -> AbstractContextManager[Any]:
    """Every item counts as one whose sender holds all replies before it."""

    def taken(self: Intake, frame: Frame) -> list[int]:
        true, frame.acked = frame.acked, b""
        try:
            return take_in(self, frame)
        finally:
            frame.acked = true

    return _taking_in(taken)


def unknown_is_not_committed() -> AbstractContextManager[Any]:
    landed = Cohorts.landed

    def believes(self: Cohorts, results: list[tuple[CohortFlight, CommitResult]]) -> None:
        done = Outcome.COMMITTED
        landed(self, [(f, r._replace(outcome=done) if r.outcome is Outcome.UNKNOWN else r) for f, r in results])

    return patch.object(Cohorts, "landed", believes)


def store_decides_rejections() -> AbstractContextManager[Any]:
    """What the hot copy contradicts is refused at once."""

    def taken(self: Intake, frame: Frame) -> list[int]:
        left = []
        for item in take_in(self, frame):
            line, step = _line(self, frame, item), frame.steps[item]
            verdict = None
            if line is not None and line.hot is not None and line.idle and line.hot.exists:
                at: Position = line.hot.frontier
                header = line.hot.header.replace(position=at, checkpoint_step=at.step, checkpoint_head=at.head)
                record = Record(header, bytes(line.hot.served.spec.state_bytes), b"")
                verdict = decision.decide(record, step, self._desk.models[frame.model])
            if isinstance(verdict, Rejection):
                frame.refuse(item, verdict)
            else:
                left.append(item)
        return left

    return _taking_in(taken)


def replies_wait_for_commits() -> AbstractContextManager[Any]:
    """The replies leave when they are computed."""
    computed = Cohorts.computed

    def hasty(self: Cohorts, call: Any) -> None:
        computed(self, call)
        for cohort in call.cohorts:
            if cohort in self._computed:
                self._answer(cohort, [index for index in range(len(cohort)) if index not in cohort.failed])

    return patch.object(Cohorts, "computed", hasty)


def the_log_is_bounded() -> AbstractContextManager[Any]:
    """A checkpoint is due where the model says so, whatever the log's limit."""

    def taken(self: Intake, frame: Frame) -> list[int]:
        true = self._desk.limits
        self._desk.limits = replace(true, max_log_steps=1 << 30)
        try:
            return take_in(self, frame)
        finally:
            self._desk.limits = true

    return _taking_in(taken)


def one_item_of_a_session() -> AbstractContextManager[Any]:
    """An item is taken in although another of its session is on its way."""
    is_free = intake._is_free

    def free(line: Line, hot: Any) -> bool:
        mine, line.cohort = line.cohort, None
        try:
            return is_free(line, hot)
        finally:
            line.cohort = mine

    return patch.object(intake, "_is_free", free)


def requests_wait_for_items() -> AbstractContextManager[Any]:
    """What is behind an item in its session's line is begun before the item has landed."""
    advance = Sessions._advance

    @wraps(advance)
    def hasty(self: Sessions, line: Line) -> None:
        mine, line.cohort = line.cohort, None
        try:
            advance(self, line)
        finally:
            line.cohort = mine

    return patch.object(Sessions, "_advance", hasty)


def sessions_stay_hot() -> AbstractContextManager[Any]:
    """A session may be evicted while an item of it is on its way."""

    def settled(line: Line) -> bool:
        return not (line.run or line.pending or line.flight or line.loading)

    return patch.object(Line, "settled", property(settled))
