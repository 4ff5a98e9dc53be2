"""A call that names a position of a session, which the server may have lost steps of."""

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
    """The answer, read. Steps that the server lost before the position are sent again first.

    current: returns the session's sender, of which each generation has its own. request: called before each try, once
    every step is answered; builds the message. timeout: seconds, all tries together; None: the client's. Raises
    CellkeeperError.
    """
    loop = current().loop
    deadline = loop.time() + timeout_seconds(timeout, client.timeout)
    while True:
        await current().drained(max(0.0, deadline - loop.time()))
        left = deadline - loop.time()
        try:
            return await client._call(method, request(), current().session, left, read)
        except StepGap as error:
            sender = current()
            if error.position is None or error.position.step >= sender.history.position.step:
                raise  # it asks for what was never sent
            sender.rewind(error, error.position)
