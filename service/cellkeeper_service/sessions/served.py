"""Served models: the versions of one model, their slots, and the runs that wait for them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cellkeeper_service.core.models import Models as AnyModels
from cellkeeper_service.core.models import Version
from cellkeeper_service.domain.engine import Engine

from .slots import Slots

if TYPE_CHECKING:
    from .cohort import Cohort
    from .line import Line
    from .run import Run


class Served(Version):
    """One loaded version, the slots of its arena, and the runs that wait for its next tick."""

    def __init__(self, engine: Engine, slots: int, max_replay_steps: int) -> None:
        super().__init__(engine, slots, max_replay_steps)
        self.slots = Slots(slots)
        self.singles: deque[Run] = deque()  # one time step to go: one engine call for all of them
        self.longs: deque[Run] = deque()  # more than one, or none: slices, bucketed by length
        self.cohorts: deque[Cohort] = deque()  # single steps of whole frames
        self.starved: deque[Line] = deque()  # wait for a slot
        self.calls = 0

    @property
    def at_rest(self) -> bool:
        """Nothing of any session is left on it."""
        return not (len(self.slots) or self.starved or self.singles or self.longs or self.cohorts)


Models = AnyModels[Served]
