"""The late steps of one session."""

from __future__ import annotations

from collections import deque

from ..late_step import LateStep

MOST_UNREAD = 1024


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
