"""Reads the committed state of a session's generation that the caller knows."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.restarts import Restarts
from .._session.time_limit import TimeLeft
from ..errors import error_of_reason
from ..types import Model, StepReply
from .caller import Caller
from .wire import check_state, state_reply_of


async def read_state(
    client: Caller, session: str, restarts: Restarts, here: Callable[[], tuple[Model, bytes]], left: TimeLeft
) -> StepReply:
    """Returns the state, with its position.

    A generation that this client starts meanwhile is the caller's, too. here: returns the session's version of the
    model, and its generation, as far as this client knows at the moment. restarts: those of the session. Raises
    GenerationChanged if the session has another generation, and whatever else the call raises.
    """
    while True:
        model, generation = here()
        request = pb.GetStateRequest(model=model.name, session=session)
        reply: StepReply = await client._call("GetState", request, session, left(), state_reply_of)
        if reply.position.generation != generation:
            if await restarts.over(left()) or here() != (model, generation):
                continue  # one of this client's may have overtaken the call
            step = reply.position.step
            text = f"the session has another generation now, at step {step}; open it again to read its state"
            raise error_of_reason("GENERATION_CHANGED", text, reply.position)
        check_state(reply, model)
        return reply
