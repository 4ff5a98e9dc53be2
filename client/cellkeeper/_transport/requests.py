"""Builds the contract's request messages from callers' arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from .._session.arguments import invalid, step_number, whole_number
from .._session.inputs import Inputs
from .._session.named_inputs import NamedInputs, known_of
from ..position import Position
from ..types import Model, Sample
from .input_fields import chunk_fields
from .wire import position_message, state_messages


def request_id() -> bytes:
    """Returns 16 random bytes for a request, which its resends keep: the server applies it once."""
    return os.urandom(16)


def open_request(session: str, model: str, ttl_ms: int | None, expect: Position | None, initial_state: Any) -> Any:
    """Returns an OpenRequest. initial_state: tensor messages."""
    return pb.OpenRequest(
        model=model,
        session=session,
        request_id=request_id(),
        expect=None if expect is None else position_message(expect),
        ttl_ms=ttl_ms,
        initial_state=initial_state,
    )


def set_state_request(
    session: str, model: Model, at: Position, step: int | None, state: Mapping[str, ArrayLike]
) -> Any:
    """Returns a SetStateRequest for the generation of `at`.

    step: where the new generation starts; None: at the step of `at`. Raises InvalidArgument if `state` does not fit the
    model.
    """
    item = pb.SetStateRequest.Item(
        session=session,
        generation=at.generation,
        request_id=request_id(),
        step=at.step if step is None else step_number(step, "step"),
        state=state_messages(model, state, "state"),
    )
    return pb.SetStateRequest(model=model.name, items=[item])


def peek_request(session: str, model: Model, raw: bytes, outputs: Sequence[str]) -> Any:
    """Returns a StepRequest that keeps nothing, without its position. raw: inputs, as converted by Inputs."""
    return pb.StepRequest(
        model=model.name,
        session=session,
        peek=True,
        outputs=outputs,
        **chunk_fields(model, raw),
    )


def forecast_request(
    session: str,
    model: Model,
    inputs: Inputs | NamedInputs,
    given: Sample,
    steps: int,
    known: Sample | None,
    outputs: Sequence[str],
) -> Any:
    """Returns a peek of `given` that continues with `steps` predictions. Raises InvalidArgument."""
    raw, _ = inputs.convert(given)
    steps = check_rollout(model, steps, len(raw) // model.input.nbytes)
    return rollout_request(peek_request(session, model, raw, outputs), model, steps, inputs.convert_known(known, steps))


def check_rollout(model: Model, steps: object, given: int) -> int:
    """Returns the number of predictions after a peek of `given` time steps.

    Raises InvalidArgument if the model makes no forecasts, or none that are so long.
    """
    steps = whole_number(steps, "steps", 1)
    if model.feedback is None and model.input_feedback is None:
        raise invalid("steps", str(steps), f'a model whose config.json has "feedback" ({model.name!r} has none)')
    limit = model.max_chunk_steps
    if limit and given + steps > limit:
        raise invalid("steps", f"{steps} after inputs of {given} time steps", f"at most {limit} in all")
    return steps


def rollout_request(peek: Any, model: Model, steps: int, known: bytes) -> Any:
    """Continues the peek with `steps` predictions and returns it. known: raw, what the caller supplies."""
    peek.rollout_steps = steps
    if not model.inputs:
        peek.rollout_inputs = known
    elif known:
        peek.rollout_named_inputs.extend(chunk_fields(known_of(model), known)["named_inputs"])
    return peek
