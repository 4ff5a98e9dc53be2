"""Waits for a server that is ready: it serves models, accepts the caller's token, and its store answers."""

from __future__ import annotations

import asyncio

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.retry import worth_retrying
from .._session.time_limit import within
from ..errors import AccessDenied, CellkeeperError, DeadlineExceeded, SessionNotFound, Unavailable
from .closing import Closing
from .credentials import Metadata
from .endpoint import Endpoint
from .endpoints import Endpoints
from .settings import ClientSettings
from .wire import from_grpc

SERVING = b"\x08\x01"  # a HealthCheckResponse with status 1, spelled out: the client does not depend on its package
_ASKED_FOR = "cellkeeper-wait-ready"  # a session that need not exist: reading it takes an answer from the store


async def wait_until_ready(endpoints: Endpoints, settings: ClientSettings, closing: Closing, timeout: float) -> None:
    """Asks the endpoints in turn until one is ready. timeout: seconds.

    Raises DeadlineExceeded, which says what was wrong last, Closed, and immediately what waiting cannot fix, such as
    AccessDenied.
    """
    loop, token, attempt_timeout = asyncio.get_running_loop(), settings.token, settings.attempt_timeout
    deadline, attempt = loop.time() + timeout, 0
    last: CellkeeperError | None = None
    while True:
        for endpoint in endpoints.order(""):
            left = deadline - loop.time()
            if left <= 0:
                raise _not_ready(endpoints, timeout, last)
            sent = token.metadata()
            stub, began_attempt = endpoint.channel.stub, loop.time()
            try:
                return await closing.answer(within(min(left, attempt_timeout), _ask(endpoint, sent)))
            except grpc.RpcError as error:
                last = from_grpc(error, endpoint.target)
            except CellkeeperError as error:
                last = error
            except asyncio.TimeoutError:
                if last is None or left > attempt_timeout:  # an attempt that was cut short says nothing
                    text = f"{endpoint.target} did not answer within {min(left, attempt_timeout):.2g} s"
                    last = Unavailable(text, reason="LOST")
                if left > attempt_timeout:
                    endpoint.channel.unanswered(stub, began_attempt)
                continue
            if not worth_retrying(last) and not token.replaced(sent, last):
                raise last
        pause = settings.backoff.wait_seconds(attempt, last.retry_delay_ms if last else 0)
        attempt += 1
        await closing.sleep(max(0.0, min(pause, deadline - loop.time())))


async def _ask(endpoint: Endpoint, metadata: Metadata) -> None:
    """Raises an error if the server is not ready."""
    try:
        if await endpoint.channel.health(b"", metadata=metadata) != SERVING:
            raise Unavailable(f"{endpoint.target} reports NOT_SERVING: it is starting or draining", reason="DRAINING")
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # a proxy may block the health service
            raise
    models = (await endpoint.channel.stub.ListModels(pb.ListModelsRequest(), metadata=metadata)).models
    if not models:
        raise Unavailable(f"{endpoint.target} serves no model", reason="LOST")
    request = pb.GetSessionRequest(model=models[0].name, session=_ASKED_FOR)
    named = (*metadata, ("x-request-id", _ASKED_FOR))  # the server logs the refusal that this usually gets
    try:
        await endpoint.channel.stub.GetSession(request, metadata=named)
    except grpc.RpcError as error:
        found = from_grpc(error, endpoint.target)
        if not isinstance(found, SessionNotFound | AccessDenied):  # a token may be valid for some sessions only
            raise found from error


def _not_ready(endpoints: Endpoints, timeout: float, last: CellkeeperError | None) -> DeadlineExceeded:
    why = "no server was asked" if last is None else last.message
    text = f"no server was ready within {timeout:g} s ({endpoints.names}): {why}"
    error = DeadlineExceeded(text, reason="DEADLINE_PASSED")
    error.__cause__ = last
    return error
