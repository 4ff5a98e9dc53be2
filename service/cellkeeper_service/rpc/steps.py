"""The unary Step: one chunk of one session."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.decision_table import cannot_roll_out
from cellkeeper_service.core.requests import Done, Rollout, Step, StepReply
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid

from . import chunk_inputs, fields, tensors
from .catalog import Catalog
from .status import to_position


def read_step(request: pb.StepRequest, catalog: Catalog, deadline: float) -> Callable[[Done], Step]:
    """Checks the request's fields and returns a function that makes its Step. Raises a Rejection."""
    name, _ = catalog.find(request.model)
    spec = catalog.spec(name)
    key = catalog.key(name, request.session)
    steps = chunk_inputs.time_steps(request, spec, catalog)
    outputs, with_state = catalog.wanted(request.outputs, spec)
    asked = fields.position(request.position) if request.HasField("position") else None
    acked = fields.acked(request.acked, asked) if request.HasField("acked") else None
    data = chunk_inputs.read_chunk(request, steps, spec)
    rolled = request.rollout_steps or request.rollout_inputs or request.rollout_named_inputs
    rollout = read_rollout(request, catalog, name, steps) if rolled else None
    rolled_steps = 0 if rollout is None else rollout.steps
    catalog.check_reply_size(steps + rolled_steps, outputs, with_state, spec)
    peek = request.peek
    return lambda done: Step(key, deadline, done, data, steps, asked, acked, peek, outputs, with_state, rollout)


def read_rollout(request: pb.StepRequest, catalog: Catalog, name: str, chunk_steps: int) -> Rollout:
    """Returns the forecast that the request asks for, after a chunk of `chunk_steps` time steps. Raises a Rejection."""
    steps, room = request.rollout_steps, catalog.limits.max_chunk_steps - chunk_steps
    if steps == 0:
        came = f"{len(request.rollout_inputs)} bytes, {len(request.rollout_named_inputs)} tensors"
        raise invalid("rollout_inputs", came, "none: nothing is forecast")
    if not request.peek:
        raise invalid("rollout_steps", f"{steps} without peek", "peek=true: a rollout is never committed")
    if steps > room:
        expected = f"at most {room} after a chunk of {chunk_steps}: {catalog.limits.max_chunk_steps} in all"
        raise invalid("rollout_steps", steps, expected)
    feedback = catalog.models[name].feedback
    if feedback is None:
        raise cannot_roll_out(steps)
    known = chunk_inputs.read_known(request, steps, feedback, catalog.spec(name))
    return Rollout(steps, known)


def write_step(reply: StepReply) -> pb.StepResponse:
    spec: ModelSpec = reply.served.spec
    values = reply.outputs
    outputs = [tensors.to_tensor(output, values[output.name]) for output in spec.outputs if output.name in values]
    if reply.state is not None:
        outputs += tensors.state_tensors(reply.state, spec, fields.STATE_PREFIX)
    return pb.StepResponse(
        outputs=outputs,
        position=to_position(reply.position),
        created=reply.created,
        replayed=reply.replayed,
        queued_seconds=reply.queued_seconds,
        computed_seconds=reply.computed_seconds,
    )
