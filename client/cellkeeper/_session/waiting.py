"""The calls of one session that wait: steps and holds in their order."""

from __future__ import annotations

from collections import deque
from itertools import islice

from ..errors import CellkeeperError
from .hold import Hold
from .step_call import StepCall


class WaitingCalls(deque["StepCall | Hold"]):
    """Steps beyond the window or after a hold, and holds, each until its end."""

    __slots__ = ()

    @property
    def steps(self) -> list[StepCall]:
        return [one for one in self if isinstance(one, StepCall)]

    @property
    def next_step(self) -> StepCall | None:
        """The first call, unless it is a hold."""
        return self[0] if self and isinstance(self[0], StepCall) else None

    def take_steps(self, first: int = 0) -> list[StepCall]:
        """Removes and returns the steps from that place on; holds stay."""
        rest = list(islice(self, first, None))
        kept = [*islice(self, first), *(one for one in rest if isinstance(one, Hold))]
        self.clear()
        self.extend(kept)
        return [one for one in rest if isinstance(one, StepCall)]

    def grant_holds(self) -> None:
        """Grants the holds before the first step. Holds do not wait for each other."""
        for one in self:
            if isinstance(one, StepCall):
                return
            one.grant()

    def fail_holds(self, error: CellkeeperError) -> None:
        for one in self:
            if isinstance(one, Hold):
                one.fail(error)
