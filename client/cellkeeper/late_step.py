"""A late step: one that was sent, and whose caller has no reply to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .position import Position


@dataclass(slots=True, eq=False)
class LateStep:
    """A step that was sent and whose caller has no reply to it.

    The caller's deadline passed, its task was cancelled, Ctrl-C interrupted it, it left a stream, or something between
    client and server ended the connection in a way that waiting does not mend. position: after the step, if it counts,
    that is, if it is part of the session's history. steps: how many time steps it has; of a stream's chunk that the
    caller had begun to read, the rest. applied: True: it counts, and later steps continue from its position; False: it
    does not count and never will; None: not known yet or, if its generation ended meanwhile, never. outputs: as in
    StepReply, once they arrived; empty otherwise. error: why it does not count, or why the last attempt to find out
    failed.
    """

    position: Position
    steps: int
    applied: bool | None = None
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    error: Exception | None = None

    def __repr__(self) -> str:
        known = {True: "applied", False: "not applied", None: "unsettled"}[self.applied]
        return f"LateStep(to step {self.position.step}, {known})"
