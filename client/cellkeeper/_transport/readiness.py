"""Waiting for a server that is ready: it serves models, takes the caller's token, and its store answers."""

from __future__ import annotations

import asyncio

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.retry import worth_retrying
from ..errors import AccessDenied, CellkeeperError, DeadlineExceeded, SessionNotFound, Unavailable
from ..types import Backoff
from .credentials import Metadata, Token
from .endpoint import Endpoint
from .endpoints import Endpoints
from .wire import from_grpc

SERVING = b"\x08\x01"  # a HealthCheckResponse with status 1, by hand: its package is not the client's
_ASKED_FOR = "cellkeeper-wait-ready"  # a session that need not exist: the store has to say so


async def wait_until_ready(
    endpoints: Endpoints, token: Token, backoff: Backoff, attempt_timeout: float, timeout: float
) -> None:
    """Asks the endpoints in turn until one is ready. Times in seconds. Raises DeadlineExceeded, which says what was
    wrong last, and at once what waiting does not change, such as AccessDenied."""
    loop = asyncio.get_running_loop()
    deadline, attempt = loop.time() + timeout, 0
    last: CellkeeperError = Unavailable("no server was asked")
    while True:
        for endpoint in endpoints.order(""):
            left = deadline - loop.time()
            if left <= 0:
                raise _not_ready(endpoints, timeout, last)
            sent = token.metadata()
            try:
                return await _ask(endpoint, sent, min(left, attempt_timeout))
            except grpc.RpcError as error:
                last = from_grpc(error, endpoint.target)
            except CellkeeperError as error:
                last = error
            if not worth_retrying(last) and not token.replaced(sent, last):
                raise last
        pause = backoff.wait_seconds(attempt, last.retry_delay_ms)
        attempt += 1
        await asyncio.sleep(max(0.0, min(pause, deadline - loop.time())))


async def _ask(endpoint: Endpoint, metadata: Metadata, seconds: float) -> None:
    """Raises what keeps the server from being ready."""
    try:
        if await endpoint.health(b"", timeout=seconds, metadata=metadata) != SERVING:
            raise Unavailable(f"{endpoint.target} reports NOT_SERVING: it is starting or draining")
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # its health service may be cut off by a proxy
            raise
    models = (await endpoint.stub.ListModels(pb.ListModelsRequest(), timeout=seconds, metadata=metadata)).models
    if not models:
        raise Unavailable(f"{endpoint.target} serves no model")
    request = pb.GetSessionRequest(model=models[0].name, session=_ASKED_FOR)
    try:
        await endpoint.stub.GetSession(request, timeout=seconds, metadata=metadata)
    except grpc.RpcError as error:
        found = from_grpc(error, endpoint.target)
        if not isinstance(found, SessionNotFound | AccessDenied):  # a token may be for some sessions only
            raise found from error


def _not_ready(endpoints: Endpoints, timeout: float, last: CellkeeperError) -> DeadlineExceeded:
    error = DeadlineExceeded(f"no server was ready within {timeout:g} s ({endpoints.names}): {last.message}")
    error.__cause__ = last
    return error
