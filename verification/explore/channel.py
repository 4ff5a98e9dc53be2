"""Requests and answers between the clients of the explored world and its replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellkeeper_service.core.requests import Request, Step
from cellkeeper_service.errors import Reason, Rejection

from .sequential_model import Violation

if TYPE_CHECKING:
    from .reads import Before
    from .universe import Universe


@dataclass(eq=False)
class Channel:
    """Where a request's answer goes.

    ended: its generation had ended when it arrived. before: what was there then, if the request is a read. recent: it
    arrived after its session's last idle time. served: the fingerprints of its replica's versions since then.
    """

    universe: Universe
    client: int
    ticket: int
    name: str
    request: Request | None = None
    ended: bool = False
    before: Before | None = None
    recent: bool = True
    served: frozenset[bytes] = frozenset()
    answered: bool = False

    def __call__(self, requests: Sequence[Request]) -> None:
        if self.answered or len(requests) > 1:
            raise Violation(f"{self.name} was answered twice")
        self.answered = True
        result = requests[0].reply()
        if isinstance(result, Rejection) and result.reason is Reason.INTERNAL_ERROR:
            raise Violation(f"{self.name} is answered with INTERNAL_ERROR")
        self.universe.answered(self, result)


@dataclass(eq=False)
class Answer:
    client: int
    ticket: int
    name: str
    result: Any


def alike(requests: list[Request]) -> list[Step]:
    """Returns the requests if a frame's replies take them together; otherwise nothing."""
    steps = [one for one in requests if isinstance(one, Step) and one.steps == 1 and one.position is not None]
    apart = len({step.key for step in steps}) == len(requests)
    return steps if apart and len({(step.peek, step.wants_state) for step in steps}) == 1 else []


def generation_of(request: Request) -> bytes | None:
    """Returns the generation that a step names."""
    return request.position.generation if isinstance(request, Step) and request.position is not None else None
