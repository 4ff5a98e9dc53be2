"""Admission control at a measured rate."""

from __future__ import annotations

from collections.abc import Iterable

from cellkeeper_service.core.admission import AdmissionControl as Control
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import Step
from cellkeeper_service.errors import Rejection

from . import made

LATE = "the server's queue is full: the request would probably miss its deadline"


def control(limits: Limits | None = None) -> Control:
    return Control({"m": made.models()}, limits or Limits())


def request(deadline: float) -> Step:
    step = made.step([1])
    step.deadline = deadline
    return step


def enter(to: Control, count: int, now: float, deadline: float = 1e9, queued: int = 0) -> list[Step]:
    """Submits this many requests and checks that all are admitted."""
    steps = [request(deadline) for _ in range(count)]
    for step in steps:
        assert to.enter(step, queued, now) is None
    return steps


def finish(of: Control, steps: Iterable[Step], now: float) -> None:
    for step in steps:
        of.leave(step, "a result", now)


def at_work(
    per_second: float, seconds: float = 1.0, to: Control | None = None, start: float = 0.0, waiting: int = 2
) -> Control:
    """Returns a control that was never idle for `seconds` and finished `per_second` requests in each of them."""
    to = to or control()
    waits = enter(to, waiting, start)
    for number in range(round(per_second * seconds)):
        now = start + (number + 1) / per_second
        finish(to, [waits.pop(0)], now)
        waits += enter(to, 1, now)
    return to


def fill(to: Control, unanswered: int, now: float) -> None:
    """Adds requests until this many are unanswered."""
    enter(to, unanswered - to.unanswered, now)


def text(refused: Rejection | None) -> str:
    return "" if refused is None else refused.message
