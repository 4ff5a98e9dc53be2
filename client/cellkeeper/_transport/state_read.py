"""Reads the committed state of a session's generation that the caller knows."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.restarts import Restarts
from .._session.time_limit import TimeLeft
from ..errors import error_of_reason
from ..position import Position
from ..types import Array, Model
from .caller import Caller
from .wire import position_of, state_of


async def read_state(
    client: Caller, session: str, restarts: Restarts, here: Callable[[], tuple[Model, bytes]], left: TimeLeft
) -> tuple[dict[str, Array], Position]:
    """Returns the state's tensors by name, and their position.

    A generation that this client starts meanwhile is the caller's, too. here: returns the session's version of the
    model, and its generation, as far as this client knows at the moment. restarts: those of the session. Raises
    GenerationChanged if the session has another generation, and whatever else the call raises.
    """
    while True:
        model, generation = here()
        request = pb.GetStateRequest(model=model.name, session=session)
        answer = await client._call("GetState", request, session, left())
        position = position_of(answer.position)
        if position.generation == generation:
            return state_of(answer, model), position
        await restarts.over(left())  # one of this client's may have overtaken the call
        model, now = here()
        if position.generation == now:
            return state_of(answer, model), position
        if now == generation:
            text = f"the session has another generation now, at step {position.step}; open it again to read its state"
            raise error_of_reason("GENERATION_CHANGED", text, position)
