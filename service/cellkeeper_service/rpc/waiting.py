"""Submits the requests of unary calls to the core and waits for their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.requests import Done, Request
from cellkeeper_service.errors import Rejection

from .call_context import CallContext

Result = TypeVar("Result")
Maker = Callable[[Done], Request] | Rejection
"""Builds a request around its `done`; or why there is none."""


def deadline(context: CallContext, default_timeout_ms: int) -> float:
    """Returns the call's deadline, or the default if it has none, in seconds of the monotonic clock."""
    remaining = context.time_remaining()
    return time.monotonic() + (default_timeout_ms / 1000 if remaining is None else remaining)


async def reply_to(core: CoreLoop, make: Callable[[Done], Request]) -> Any:
    """Submits the request that `make` builds around a done callback, and returns its result or its Rejection.

    Abandons the request if the call is cancelled.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    request = make(_resolver(future))
    core.submit(request)
    try:
        return await future
    except asyncio.CancelledError:
        request.gone = True
        raise


async def replies_to(core: CoreLoop, makers: Sequence[Maker]) -> list[Any]:
    """Returns the results of several requests, in order; a Rejection in place of a request is its own result."""
    loop = asyncio.get_running_loop()
    requests: list[Request] = []
    results: list[Any] = []
    for maker in makers:
        if isinstance(maker, Rejection):
            results.append(maker)
            continue
        future: asyncio.Future[Any] = loop.create_future()
        request = maker(_resolver(future))
        requests.append(request)
        results.append(future)
    core.submit_many(requests)
    try:
        return [await result if isinstance(result, asyncio.Future) else result for result in results]
    except asyncio.CancelledError:
        for request in requests:
            request.gone = True
        raise


def settle(future: asyncio.Future[Result], result: Result) -> None:
    """Sets the future's result, unless whoever waited for it has gone."""
    if not future.done():
        future.set_result(result)


def _resolver(future: asyncio.Future[Any]) -> Done:
    return lambda requests: settle(future, requests[0].reply())
