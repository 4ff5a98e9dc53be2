"""A frame of single steps, as rpc/frame_replies.py hands it to the heart."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Any

import numpy as np
from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions.cohort import Replies
from cellkeeper_service.sessions.requests import Step, StepReply

from .driven_core import DrivenCore


class Frame:
    """The steps' columns. Each step keeps a reply channel of its own, and is what goes the long way if the item must.

    steps: single ones with positions, of different sessions, that want the same outputs by the same deadline.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        first = steps[0]
        self.steps = list(steps)
        self.tenant, self.model = first.key.tenant, first.key.model
        self.sessions: Sequence[str] = [step.key.session for step in steps]
        self.values = np.frombuffer(b"".join([step.data for step in steps]), "<i4")
        places = [step.position for step in steps if step.position is not None]
        self.positions = b"".join([place.pack() for place in places])
        acks = [place.step if step.acked is None else step.acked for step, place in zip(steps, places, strict=True)]
        self.acked = b"" if all(step.acked is None for step in steps) else pack(f"<{len(acks)}Q", *acks)
        self.wanted, self.deadline = first.wanted, first.deadline
        self.gone = False
        self.arrivals: Sequence[float] = ()

    def submit(self, sessions: Any) -> None:
        """What cannot go the short way goes the long one; the new core knows one way only."""
        if isinstance(sessions, DrivenCore):
            for step in self.steps:
                sessions.submit(step)
            return
        self.served = sessions._desk.models[self.model].default
        for item in sessions.submit_columns(self):
            sessions.submit(self.step(item))

    def step(self, item: int) -> Step:
        return self.steps[item]

    def fate(self, item: int) -> tuple[float, bool]:
        return self.deadline, self.gone

    def refuse(self, item: int, why: Rejection) -> None:
        self.steps[item].done(why)

    def reply(self, replies: Replies) -> None:
        for index, (item, position) in enumerate(zip(replies.items, replies.positions, strict=True)):
            outputs = {name: values[index : index + 1] for name, values in replies.outputs.items()}
            after = Position.unpack(position)
            times = replies.queued_seconds, replies.computed_seconds
            self.steps[item].done(StepReply(self.served, outputs, None, after, False, False, *times))

    def abandon(self) -> None:
        """The caller goes away."""
        self.gone = True
        for step in self.steps:
            step.gone = True


def submit_alone(step: Step, sessions: Any) -> None:
    """As a unary call's: the short way if it can."""
    if isinstance(sessions, DrivenCore) or not sessions.gather(step):
        sessions.submit(step)


def fits_a_frame(step: Step) -> bool:
    """Whether this step alone could go the short way."""
    return step.steps == 1 and step.position is not None and not step.peek and not step.wants_state
