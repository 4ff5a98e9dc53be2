"""A call that names a position of a session, whose last steps the server may have lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from .._session.arguments import timeout_seconds
from .._session.restarts import Restarts
from .._session.retry import no_answer_from
from .._session.session_sender import SessionSender
from ..errors import HistoryError, StepGap
from .caller import Caller
from .calls import itself


async def call_replaying(
    client: Caller,
    current: Callable[[], SessionSender],
    restarts: Restarts,
    method: str,
    request: Callable[[], Any],
    timeout: float | None,
    read: Callable[[Any], Any] = itself,
) -> Any:
    """Makes the call and returns `read` of its answer, after replaying the steps that the server lost.

    Steps that are made meanwhile wait: they would change the session's position. A reset does not, and the call is made
    again if one overtook it: nobody else has changed the session.

    current: returns the session's sender, of which each generation has its own. restarts: those of the session.
    request: builds the message; called before each attempt, once every step is answered. timeout: seconds for all
    attempts together; None: the client's. Raises CellkeeperError.
    """
    loop, seconds = current().loop, timeout_seconds(timeout, client.timeout)
    deadline = loop.time() + seconds
    overtaken: HistoryError | None = None
    sent = b""  # by the attempt that was overtaken
    first = False
    async with AsyncExitStack() as holds:  # those of earlier attempts hold later steps back between two attempts
        while True:
            sender = current()
            try:
                await holds.enter_async_context(sender.held(max(0.0, deadline - loop.time()), first))
            except HistoryError:  # of an earlier step, whose generation a reset of this client's may have ended
                if current() is sender and not await restarts.ended(deadline - loop.time()):
                    raise
                continue
            first = True
            sender, message, left = current(), request(), deadline - loop.time()
            if overtaken is not None and message.SerializeToString() == sent:
                raise overtaken  # it names a position that the caller has chosen, or nothing has come of the reset
            if left <= 0:
                raise no_answer_from(sender.endpoint, seconds, seconds, overtaken, "earlier steps took the time for it")
            named = sender.history.position
            try:
                return await client._call(method, message, sender.session, left, read)
            except HistoryError as error:
                sender = current()
                if isinstance(error, StepGap):
                    if error.position is None or error.position.step >= sender.history.position.step:
                        raise  # the position is ahead of anything that was sent
                    sender.rewind(error, error.position)
                elif sender.history.tail != named or await restarts.over(deadline - loop.time()):
                    overtaken, sent = error, message.SerializeToString()
                else:
                    raise
