"""A late step: its caller stopped waiting when it had been sent already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .position import Position


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

    def __repr__(self) -> str:
        known = {True: "applied", False: "not applied", None: "unsettled"}[self.applied]
        return f"LateStep(to step {self.position.step}, {known})"
