"""Calls other than steps. Each is safe to repeat, and is retried until it succeeds or its deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from .._session.retry import out_of_time, worth_retrying
from ..errors import CellkeeperError, DeadlineExceeded, InvalidArgument, ModelChanged, Unavailable
from ..types import Counters
from .closing import Closing
from .credentials import Metadata
from .endpoints import Endpoints
from .settings import ClientSettings
from .wire import error_of, from_grpc, unreadable

T = TypeVar("T")

_ONLY = "items[0]."
_OTHER_NAME = "Hostname Verification Check failed", "is not in peer certificate"
"""The texts of gRPC, which has no code for this: of its newest releases, and of older ones."""


class Calls:
    """Makes calls with retries."""

    def __init__(self, endpoints: Endpoints, settings: ClientSettings, counters: Counters, closing: Closing) -> None:
        self._endpoints = endpoints
        self._attempt_timeout = settings.attempt_timeout
        self._connect_timeout = settings.connect_timeout
        self._backoff = settings.backoff
        self._token = settings.token
        self._reached = False
        self._counters = counters
        self._closing = closing

    async def call(self, method: str, request: Any, *, session: str, timeout: float, read: Callable[[Any], T]) -> T:
        """Calls `method` and returns `read` of its answer. `read` may raise an error that the answer carries.

        Raises CellkeeperError.
        """
        loop = asyncio.get_running_loop()
        began, attempt = loop.time(), 0
        deadline = began + timeout
        last: CellkeeperError | None = None
        while True:
            endpoints = self._endpoints.order(session)
            for endpoint in endpoints:
                left = deadline - loop.time()
                if left <= 0:
                    raise self._out_of_time(timeout, loop.time() - began, last)
                if last is not None:
                    self._counters.retries += 1
                sent = self._token.metadata()
                seconds = min(left, self._attempt_timeout)
                stub, began_attempt = endpoint.channel.stub, loop.time()
                try:
                    answer = await self._closing.answer(_attempt(getattr(stub, method), request, seconds, sent))
                    self._reached = True
                    endpoint.channel.heard()
                    return read(answer)
                except grpc.RpcError as error:
                    last = from_grpc(error, endpoint.target)
                    if seconds == self._attempt_timeout and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        endpoint.channel.unanswered(stub, began_attempt)
                except CellkeeperError as error:
                    last = error
                if last.reason or not isinstance(last, (Unavailable, DeadlineExceeded)):
                    self._reached = True
                if last.reason == "DRAINING":
                    endpoint.draining(max(1.0, last.retry_delay_ms / 1000))
                if _another_may_know(last) and endpoint is not endpoints[-1]:
                    continue
                if not worth_retrying(last) and not self._token.replaced(sent, last):
                    raise last
            spent = loop.time() - began
            if last is None:
                raise LookupError("no endpoint")
            if not self._reached and isinstance(last, Unavailable) and self._connect_timeout <= spent < timeout:
                raise self._unreachable(spent, last)
            pause = self._backoff.wait_seconds(attempt, last.retry_delay_ms)
            attempt += 1
            if not self._reached and spent < self._connect_timeout:
                pause = min(pause, self._connect_timeout - spent)
            if pause >= timeout - spent:
                raise self._out_of_time(timeout, spent, last)
            await self._closing.sleep(pause)

    def _out_of_time(self, timeout: float, spent: float, last: CellkeeperError | None) -> DeadlineExceeded:
        return out_of_time(timeout, spent, self._endpoints.names, last)

    def _unreachable(self, spent: float, last: CellkeeperError) -> Unavailable:
        advice = (
            "check that it is running, that host and port are right, and whether it requires TLS; connect_timeout is "
            "how long to wait for a server that starts later"
        )
        if any(text in last.message for text in _OTHER_NAME):
            advice = (
                "the server's certificate is for another name: connect to a name that is in it, or pass one as "
                "Tls(server_name=...) (--server-name of the command)"
            )
        error = Unavailable(f"no server was reached in {spent:.2g} s: {last.message} ({advice})", reason="LOST")
        error.__cause__ = last
        return error


async def _attempt(call: Callable[..., Awaitable[Any]], request: Any, timeout: float, metadata: Metadata) -> Any:
    return await call(request, timeout=timeout, metadata=metadata)


def _another_may_know(error: CellkeeperError) -> bool:
    """Returns True if this server does not serve that version of the model, but another may.

    While servers are replaced or reloaded one after another, some serve a version that others do not.
    """
    return isinstance(error, ModelChanged) or (isinstance(error, InvalidArgument) and error.field == "fingerprint")


def itself(answer: Any) -> Any:
    """Returns the answer as it is."""
    return answer


def results_of(answer: Any, items: int, method: str = "a call") -> Any:
    """Returns the results, one for each of the items. Raises ServerError if there are more or fewer."""
    if len(answer.results) != items:
        raise unreadable(f"the server sent {len(answer.results)} results to {items} items of {method}")
    return answer.results


def only_result(answer: Any) -> Any:
    """Returns the only item's result of a SessionResults. Raises its error, whose caller knows of no items."""
    (result,) = results_of(answer, 1)
    if result.HasField("error"):
        error = result.error
        error.field, error.message = error.field.removeprefix(_ONLY), error.message.removeprefix(_ONLY)
        raise error_of(error)
    return result
