"""What a peek, a forecast or GetState may tell: the state of a position that the session has had since it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellkeeper._session.verdict import RETRIED
from cellkeeper_service.core.requests import GetState, Request, StateReply, Step, StepReply
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.errors import Reason, Rejection

from tests.unit.core.counting_engine import POISON

from .client import MOVED_BY_OTHERS, UNSERVED
from .sequential_model import (
    WIDTH,
    Inputs,
    Violation,
    consumed,
    heads,
    histories,
    learn,
    outputs_after,
    pack,
    plain,
    rolled,
    unpack,
)

if TYPE_CHECKING:
    from .channel import Channel
    from .universe import Universe

ELSEWHERE = {*MOVED_BY_OTHERS, "STEP_CONFLICT", "STEP_COMPACTED", "STEP_GAP"}


@dataclass(frozen=True)
class Before:
    """What was there when a read arrived.

    standing: generation and inputs of the session's record; None: there was none. ended: generations that had ended.
    losses: how often the store had lost something.
    """

    standing: tuple[bytes, Inputs] | None
    ended: frozenset[bytes]
    losses: int


def before(universe: Universe, request: Request) -> Before | None:
    """Returns what is there now; None for a request that is no read."""
    if not (isinstance(request, GetState) or (isinstance(request, Step) and request.peek)):
        return None
    ledger = universe.store.ledger
    return Before(ledger.standing.get(request.key), ledger.ended, universe.losses)


def check_answer(universe: Universe, channel: Channel, there: Before, result: Any) -> None:
    """Checks a read's answer, whether or not anybody still waits for it. Raises Violation."""
    request = channel.request
    if request is None:
        raise RuntimeError("an answer without a request")
    if isinstance(result, Rejection):
        _check_refusal(universe, channel.name, request, there, result)
        return
    if isinstance(result, StateReply):
        inputs = consumed(result.position)
        if int.from_bytes(result.state, "little") != (outputs_after(inputs, 1) or [0])[-1]:
            raise Violation(f"{channel.name}: its state is not that of {inputs}")
    elif isinstance(request, Step) and isinstance(result, StepReply):
        inputs = _peeked_after(channel, request, result)
    else:
        raise Violation(f"{channel.name} is answered with {result}")
    generation = result.position.generation
    if not universe.store.ledger.was_durable(generation, inputs):
        raise Violation(f"{channel.name} was answered from {inputs}, which the store never held")
    if there.losses < universe.losses:
        return
    if generation in there.ended:
        raise Violation(f"{channel.name} was answered from a generation that had ended when it was sent")
    if there.standing is not None and there.standing[0] == generation:
        known = there.standing[1]
        if inputs[: len(known)] != known:
            raise Violation(f"{channel.name} was answered from {inputs}, but the store had {known} when it was sent")


def _peeked_after(channel: Channel, step: Step, reply: StepReply) -> Inputs:
    """Returns the inputs after which the session stood when it was peeked at."""
    given, position = unpack(step.data), reply.position
    steps = 0 if step.rollout is None else step.rollout.steps
    for head, inputs in histories(position.step - len(given) - steps):
        whole = rolled(head, given, steps)
        start = Position(position.generation, len(inputs), head)
        if advance(start, pack(whole[len(inputs) :]), WIDTH) == position:
            break
    else:
        raise Violation(f"{channel.name}: nothing has the position in its reply")
    if step.position is not None and step.position != start:
        raise Violation(f"{channel.name} was answered from another history than its sender's")
    outputs = outputs_after(whole, len(given) + steps)
    if reply.outputs["prediction"].tolist() != outputs or reply.state != outputs[-1].to_bytes(8, "little"):
        raise Violation(f"{channel.name}: its outputs and state are not those of {whole}")
    learn(start, plain(whole[len(inputs) :]))
    return inputs


def _check_refusal(universe: Universe, name: str, request: Request, there: Before, refusal: Rejection) -> None:
    """Checks the reason of a refusal that is not to be retried."""
    reason = refusal.reason
    if reason is Reason.NON_FINITE_RESULT and isinstance(request, Step) and _may_be_poisoned(request):
        return
    if universe.scope.two_versions and reason.name in UNSERVED:
        return
    if reason.name in RETRIED or (reason.name in ELSEWHERE and (universe.scope.shared or universe.losses)):
        return
    stands = universe.store.ledger.standing.get(request.key)
    if isinstance(request, Step) and request.position is not None:
        at = request.position.generation, consumed(request.position)
        wrong = stands == there.standing == at
    else:
        wrong = there.standing is not None and there.standing[0] not in universe.store.ledger.ended
    if wrong or (reason is not Reason.SESSION_NOT_FOUND and not isinstance(request, Step)):
        raise Violation(f"{name} is refused though nothing speaks against it: {reason.name}")


def _may_be_poisoned(step: Step) -> bool:
    """Returns whether the forecast may take an input for which the engine has no finite result."""
    steps = 0 if step.rollout is None else step.rollout.steps
    return any(POISON in plain(rolled(head, unpack(step.data), steps)) for head in heads())
