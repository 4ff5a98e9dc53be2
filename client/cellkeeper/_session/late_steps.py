"""Late steps: those whose callers stopped waiting when they had been sent already."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..position import Position

MOST_UNREAD = 1024


@dataclass(slots=True, eq=False)
class LateStep:
    """A step that was sent, and whose caller stopped waiting before its answer came: its deadline passed, its task was
    cancelled, Ctrl-C interrupted it.

    position: after it, if it counts. steps: how many time steps it has. applied: True: it counts, and later steps go on
    from its position; False: it does not count, and never will; None: not known yet. outputs: as in StepReply, once
    they came; empty otherwise. error: why it does not count, or what kept the last attempt from finding out.
    """

    position: Position
    steps: int
    applied: bool | None = None
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    error: Exception | None = None


class LateSteps:
    """The late steps of one session. unsettled: those of unknown outcome, oldest first; replaced as a whole, so that
    any thread may read it."""

    def __init__(self) -> None:
        self.unsettled: tuple[LateStep, ...] = ()
        self._unread: deque[LateStep] = deque(maxlen=MOST_UNREAD)  # settled, and not told to anybody yet

    def add(self, step: LateStep) -> None:
        """A step that became late; it may be settled already."""
        if step.applied is None:
            self.unsettled += (step,)
        else:
            self._unread.append(step)

    def settle(self, step: LateStep, applied: bool | None, error: Exception | None = None) -> None:
        """Its outcome; None: it will never be known."""
        step.applied, step.error = applied, error
        self.unsettled = tuple(other for other in self.unsettled if other is not step)
        self._unread.append(step)

    def take_settled(self) -> tuple[LateStep, ...]:
        """Those settled since the last call, oldest first; of very many the latest ones."""
        if not self._unread:
            return ()
        taken = tuple(self._unread)
        self._unread.clear()
        return taken
