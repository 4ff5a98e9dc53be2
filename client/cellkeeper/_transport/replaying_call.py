"""A call that names a position of a session, whose last steps the server may have lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._session.arguments import timeout_seconds
from .._session.session_sender import SessionSender
from ..errors import StepGap
from .caller import Caller
from .calls import itself


async def call_replaying(
    client: Caller,
    current: Callable[[], SessionSender],
    method: str,
    request: Callable[[], Any],
    timeout: float | None,
    read: Callable[[Any], Any] = itself,
) -> Any:
    """Makes the call and returns `read` of its answer, after replaying the steps that the server lost.

    Steps that are made meanwhile wait: they would change the session's position.

    current: returns the session's sender, of which each generation has its own. request: builds the message; called
    before each attempt, once every step is answered. timeout: seconds for all attempts together; None: the client's.
    Raises CellkeeperError.
    """
    loop = current().loop
    deadline = loop.time() + timeout_seconds(timeout, client.timeout)
    while True:
        async with current().held(max(0.0, deadline - loop.time())):
            left = max(0.001, deadline - loop.time())
            try:
                return await client._call(method, request(), current().session, left, read)
            except StepGap as error:
                sender = current()
                if error.position is None or error.position.step >= sender.history.position.step:
                    raise  # the position is ahead of anything that was sent
                sender.rewind(error, error.position)
