"""The last steps of a session that its record still holds: inputs from the log, outputs by computing them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.requests import GetState, SessionReply, Step
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.errors import Reason, Rejection, invalid
from cellkeeper_service.rpc.answering import checked
from cellkeeper_service.rpc.caller import Caller
from cellkeeper_service.rpc.catalog import REST_BYTES
from cellkeeper_service.rpc.reading import read_session
from cellkeeper_service.rpc.tensors import state_tensors
from cellkeeper_service.rpc.waiting import Maker, replies_to

from . import replies
from .arrays import write_array
from .asked import Asked
from .chunk import write_inputs
from .json_text import integer

TRIES = 3
MOVED_ON = frozenset({Reason.STEP_COMPACTED, Reason.HISTORY_CHANGED, Reason.GENERATION_CHANGED, Reason.STEP_CONFLICT})
"""Reasons that mean that the record has changed since it was read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read of a session.

    outputs: by name; if empty, nothing is computed again. state: read the state too. steps: the most to read.
    """

    outputs: frozenset[str]
    state: bool
    steps: int


def first_step(record: Record, most: int, seen: Position | None) -> int:
    """Returns the first of the last `most` steps that the record holds and that follow `seen`."""
    at, first = record.position, record.header.checkpoint_step
    if seen is not None and seen.generation == at.generation and seen.step <= at.step:
        first = max(first, seen.step)
    return max(first, at.step - most)


def outputs_asked(names: str, asked: Asked) -> tuple[frozenset[str], int]:
    """Returns the outputs, and how many time steps fit into one reply with their inputs and outputs.

    names: of the outputs, comma-separated; empty: the default ones. Raises a Rejection for unknown ones.
    """
    spec, limits = asked.spec, asked.catalog.limits
    outputs, with_state = asked.catalog.wanted([name for name in names.split(",") if name], spec)
    if with_state:
        raise invalid(
            "outputs", "'state'", f"some of {', '.join(sorted(spec.output_names))}: `state` has a route of its own"
        )
    step_bytes = spec.step_bytes + sum(output.nbytes for output in spec.outputs if output.name in outputs)
    return outputs, max(min(limits.max_chunk_steps, (limits.max_message_bytes - REST_BYTES) // step_bytes), 1)


async def last_steps(
    core: CoreLoop,
    caller: Caller,
    key: SessionKey,
    found: SessionReply,
    wanted: Wanted,
    until: float,
    seen: Position | None = None,
) -> tuple[SessionReply, dict[str, Any] | Rejection]:
    """Returns the last steps that the record holds and that follow `seen`, or a Rejection that says why not.

    If the session advances meanwhile and a checkpoint replaces its log, it is read again, and the new reading
    is returned too. A session that always advances faster than it is read gets inputs and an `outputs_error`. Raises a
    Rejection if the session cannot be read again.
    """
    for _ in range(TRIES):
        first = first_step(found.record, wanted.steps, seen)
        try:
            return found, await _computed_again(core, caller, key, found.record, first, wanted, until)
        except Rejection as rejection:
            why = rejection
        if why.reason not in MOVED_ON:
            break
        found = await read_session(core, key, until)
    if why.reason not in MOVED_ON:
        return found, why
    bare = Wanted(frozenset(), wanted.state, wanted.steps)
    first = first_step(found.record, wanted.steps, seen)
    try:
        steps = await _computed_again(core, caller, key, found.record, first, bare, until)
    except Rejection as rejection:
        return found, rejection
    return found, {**steps, "outputs_error": replies.rejection(why)}


async def _computed_again(
    core: CoreLoop, caller: Caller, key: SessionKey, record: Record, first: int, wanted: Wanted, until: float
) -> dict[str, Any]:
    """Returns the record's inputs from step `first` on, with what is wanted of them. Raises a Rejection.

    Outputs come from sending the steps again, and are charged as steps. They are sent as a peek: if the record has lost
    its last steps meanwhile, a plain step would be applied.
    """
    steps = record.position.step - first
    inputs = record.inputs(first, record.position.step)
    at = Position(record.position.generation, first, record.head_at(first))
    sent = steps if wanted.outputs else 0
    makers: list[Maker] = []
    if sent:
        makers.append(lambda done: Step(key, until, done, inputs, steps, at, None, True, wanted.outputs, False))
    if wanted.state:
        makers.append(lambda done: GetState(key, until, done))
    charge = caller.charge(pb.StepRequest(model=key.model, session=key.session, shape=[sent]), entered=1)
    try:
        results = await replies_to(core, makers)
    finally:
        caller.release(charge)
    for result in results:
        checked(result)
    spec = caller.catalog.spec(key.model)
    logged = write_inputs(inputs, steps, spec)
    written: dict[str, Any] = {"first_step": integer(first), "inputs": logged, "outputs": {}}
    if sent:
        written["outputs"] = {name: write_array(values) for name, values in results[0].outputs.items()}
    if wanted.state:
        reply = results[-1]
        written["states"] = replies.states(state_tensors(reply.state, reply.served.spec))
        written["state_position"] = replies.position(reply.position)
    return written
