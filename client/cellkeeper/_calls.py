"""Calls other than steps: each is safe to send again, and is, until it succeeds or its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from ._endpoints import Endpoints
from ._errors import CellkeeperError, InvalidArgument, ModelChanged
from ._reply import Counters
from ._retry import Backoff, out_of_time, worth_retrying
from ._wire import error_of, from_grpc

T = TypeVar("T")


class Calls:
    """attempt_timeout: seconds after which an unanswered attempt is given up and made again elsewhere."""

    def __init__(self, endpoints: Endpoints, *, attempt_timeout: float, backoff: Backoff, counters: Counters) -> None:
        self._endpoints = endpoints
        self._attempt_timeout = attempt_timeout
        self._backoff = backoff
        self._counters = counters

    async def call(self, method: str, request: Any, *, session: str, timeout: float, read: Callable[[Any], T]) -> T:
        """The answer, read. `read` may raise an error that the answer carries. Raises CellkeeperError."""
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + timeout, 0
        last: CellkeeperError | None = None
        while True:
            endpoints = self._endpoints.order(session)
            for endpoint in endpoints:
                left = deadline - loop.time()
                if left <= 0:
                    raise out_of_time(timeout, last)
                if last is not None:
                    self._counters.retries += 1
                try:
                    answer = await getattr(endpoint.stub, method)(request, timeout=min(left, self._attempt_timeout))
                    return read(answer)
                except grpc.RpcError as error:
                    last = from_grpc(error)
                except CellkeeperError as error:
                    last = error
                if last.reason == "DRAINING":
                    endpoint.draining(max(1.0, last.retry_delay_ms / 1000))
                if _another_may_know(last) and endpoint is not endpoints[-1]:
                    continue
                if not worth_retrying(last):
                    raise last
            pause = self._backoff.wait_seconds(attempt, last.retry_delay_ms if last is not None else 0)
            attempt += 1
            if pause >= deadline - loop.time():
                raise out_of_time(timeout, last)
            await asyncio.sleep(pause)


def _another_may_know(error: CellkeeperError) -> bool:
    """This server does not serve that version of the model. While servers are exchanged or reloaded one after another,
    others do."""
    return isinstance(error, ModelChanged) or (isinstance(error, InvalidArgument) and error.field == "fingerprint")


def itself(answer: Any) -> Any:
    """For calls whose answer is returned as it is."""
    return answer


def only_result(answer: Any) -> Any:
    """The one item's result of a SessionResults. Raises its error."""
    result = answer.results[0]
    if result.HasField("error"):
        raise error_of(result.error)
    return result
