"""Which single steps can go the short way, and the cohorts that they join. See cohort.py."""

from __future__ import annotations

from struct import Struct

import numpy as np

from cellkeeper_service.domain.position import MAX_STEP, POSITION_BYTES

from .cohort import Cohort, FrameColumns
from .desk import Desk
from .gathered import Gathered
from .hot import Hot
from .line import Line
from .requests import Step
from .served import Served

_STEPS = Struct("<16xQ16xQ")  # step and checkpoint step of a packed header


class Intake:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take_in(self, columns: FrameColumns) -> list[int]:
        """Takes a frame's items that can go the short way; the others are returned."""
        held_bytes = self._desk.single_bytes(columns.model, columns.wanted)
        if not self._desk.has_room(len(columns.sessions), held_bytes):
            return list(range(len(columns.sessions)))
        left: list[int] = []
        cohort: Cohort | None = None
        now = self._desk.now()
        lines, positions, tenant, model = self._desk.lines, columns.positions, columns.tenant, columns.model
        acks = np.frombuffer(columns.acked, "<u8").tolist() if columns.acked else None
        max_log_steps = self._desk.limits.log_steps(self._desk.models[model].default.spec.step_bytes)
        for item, session in enumerate(columns.sessions):
            line = lines.get((tenant, model, session))  # type: ignore[call-overload]
            hot = None if line is None else line.hot
            if hot is None or not _is_free(line, hot):
                left.append(item)
                continue
            packed = hot.header.packed
            if packed[:32] != positions[32 * item : 32 * item + 32]:
                left.append(item)
                continue
            step, checkpoint_step = _STEPS.unpack_from(packed)
            acked = step if acks is None else acks[item]
            logged = step - checkpoint_step
            due = logged >= hot.served.due_steps or logged >= max_log_steps
            if acked > step or (due and acked < step) or step >= MAX_STEP:
                left.append(item)
                continue
            if cohort is None or cohort.served is not hot.served or len(cohort) == cohort.served.engine.max_batch:
                cohort = Cohort(columns, hot.served, [], [], [], [], now)
                hot.served.cohorts.append(cohort)
            if due:
                cohort.due.append(len(cohort.items))
            cohort.items.append(item)
            cohort.lines.append(line)
            cohort.rows.append(2 * hot.slot + hot.current)
            line.cohort = cohort
        self._desk.enter_many(len(columns.sessions) - len(left), held_bytes)
        return left

    def take_one(self, step: Step) -> bool:
        """Takes a step that came by itself, if it can go the short way: together with others like it, in the next
        tick."""
        position, now = step.position, self._desk.now()
        line = self._desk.lines.get(step.key)
        hot = None if line is None else line.hot
        if line is None or hot is None or position is None or not _is_free(line, hot):
            return False
        if step.steps > 1 or step.peek or step.wants_state:
            return False
        packed, served = hot.header.packed, hot.served
        if packed[:POSITION_BYTES] != position.pack() or not self._finds_room(step, now):
            return False
        logged = position.step - hot.header.checkpoint_step
        due = logged >= served.due_steps or logged >= self._desk.limits.log_steps(served.spec.step_bytes)
        if (due and step.acked_at(position.step) < position.step) or position.step >= MAX_STEP:
            return False
        step.arrived = now
        cohort, columns = self._gathering(served, step, now)
        if due:
            cohort.due.append(len(cohort))
        cohort.items.append(columns.add(step))
        cohort.lines.append(line)
        cohort.rows.append(hot.row)
        line.cohort = cohort
        self._desk.enter_many(1, self._desk.single_bytes(columns.model, columns.wanted))
        return True

    def _gathering(self, served: Served, step: Step, now: float) -> tuple[Cohort, Gathered]:
        """The cohort that the step joins."""
        if served.cohorts:
            cohort = served.cohorts[-1]
            columns = cohort.columns
            if (
                isinstance(columns, Gathered)
                and columns.wanted == step.wanted
                and len(cohort) < served.engine.max_batch
            ):
                return cohort, columns
        columns = Gathered(served, step)
        cohort = Cohort(columns, served, [], [], [], [], now)
        served.cohorts.append(cohort)
        return cohort, columns

    def _finds_room(self, step: Step, now: float) -> bool:
        """False: why it does not is said where it is refused."""
        desk = self._desk
        return (
            now < step.deadline
            and desk.has_room(1, desk.single_bytes(step.key.model, step.wanted))
            and not desk.pace.too_late(desk.unanswered + 1, now, step.deadline)
        )


def _is_free(line: Line, hot: Hot) -> bool:
    """Whether the hot session has nothing to do and nothing pending."""
    return (
        line.cohort is None
        and not line.queue
        and line.run is None
        and not line.pending
        and line.flight is None
        and not line.loading
        and not line.starved
        and not hot.served.retired
        and hot.exists
        and hot.seed is None
        and hot.checkpoint is None
        and (hot.ahead is None or hot.ahead == hot.header.position)
    )
