"""Single steps that came one by one and go the short way together: columns that grow until their tick begins."""

from __future__ import annotations

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection

from .cohort import Replies
from .requests import Step, StepReply
from .served import Served


class Gathered:
    """Steps of different sessions of one model version that want the same outputs. Each has its own caller, deadline
    and time of arrival. See cohort.Columns."""

    def __init__(self, served: Served, first: Step) -> None:
        self.tenant, self.model = first.key.tenant, first.key.model
        self.wanted, self.deadline = first.wanted, first.deadline
        self.arrivals: list[float] = []
        self._served = served
        self._steps: list[Step] = []

    def add(self, step: Step) -> int:
        """The step's number."""
        self._steps.append(step)
        self.arrivals.append(step.arrived)
        if step.deadline < self.deadline:
            self.deadline = step.deadline
        return len(self._steps) - 1

    @property
    def gone(self) -> bool:
        return any(step.gone for step in self._steps)

    @property
    def values(self) -> Array:
        """[steps, *input shape]."""
        spec = self._served.spec.input
        data = b"".join([step.data for step in self._steps])
        return np.frombuffer(data, spec.numpy_dtype).reshape(-1, *spec.shape)

    def fate(self, item: int) -> tuple[float, bool]:
        step = self._steps[item]
        return step.deadline, step.gone

    def step(self, item: int) -> Step:
        return self._steps[item]

    def refuse(self, item: int, why: Rejection) -> None:
        self._steps[item].done(why)

    def reply(self, replies: Replies) -> None:
        first, computed_seconds = self.arrivals[0], replies.computed_seconds
        for index, (item, position) in enumerate(zip(replies.items, replies.positions, strict=True)):
            outputs = {name: values[index : index + 1] for name, values in replies.outputs.items()}
            queued_seconds = replies.queued_seconds - (self.arrivals[item] - first)
            after = Position.unpack(position)
            self._steps[item].done(
                StepReply(self._served, outputs, None, after, False, False, queued_seconds, computed_seconds)
            )
