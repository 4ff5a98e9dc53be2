"""Calls whose items succeed or fail independently: OpenMany, Reset, Delete, CarryOver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .._session.retry import worth_retrying
from .._session.time_limit import TimeLeft
from ..errors import CellkeeperError, ModelChanged
from ..types import Model
from .caller import Caller
from .calls import only_result, results_of
from .wire import error_of

K = TypeVar("K")
T = TypeVar("T")

AT_ONCE = 64  # calls for one member each
MAX_ITEMS = 64  # in one request of those that go through sessions page by page


async def call_items(
    client: Caller,
    method: str,
    request: Callable[..., Any],
    items: Mapping[str, Any],
    *,
    max_items: int,
    left: TimeLeft,
) -> tuple[dict[str, Any], dict[str, CellkeeperError]]:
    """Sends the items in batches. Returns results and errors, by id.

    items: by id, each with its request id, which resends keep. request: builds the message, from `items` given by name.
    max_items: of one call. An item that fails for a transient reason, or one that another server may not have, is sent
    again by itself. Calls to several endpoints run concurrently.
    """
    results: dict[str, Any] = {}
    errors: dict[str, CellkeeperError] = {}
    again: list[str] = []

    async def batch(names: list[str]) -> None:
        try:
            message = request(items=[items[name] for name in names])
            answer = await client._call(method, message, names[0], left())
            answered = results_of(answer, len(names), method)
        except CellkeeperError as failed:
            errors.update(dict.fromkeys(names, failed))
            return
        for name, result in zip(names, answered, strict=True):
            if not result.HasField("error"):
                results[name] = result
                continue
            error = error_of(result.error)
            if _may_succeed_yet(error):
                again.append(name)
            else:
                errors[name] = error

    async def one(name: str) -> Any:
        return await client._call(method, request(items=[items[name]]), name, left(), only_result)

    await asyncio.gather(*map(batch, by_endpoint(client, items, max_items)))
    found, failed = await each(again, one)
    results.update(found)
    errors.update(failed)
    return results, errors


async def each(keys: Iterable[K], work: Callable[[K], Awaitable[T]]) -> tuple[dict[K, T], dict[K, CellkeeperError]]:
    """Runs `work` for each key, AT_ONCE at a time. Returns the results and the errors."""
    results: dict[K, T] = {}
    errors: dict[K, CellkeeperError] = {}
    room = asyncio.Semaphore(AT_ONCE)

    async def one(key: K) -> None:
        async with room:
            try:
                results[key] = await work(key)
            except CellkeeperError as error:
                errors[key] = error

    await asyncio.gather(*map(one, keys))
    return results, errors


def by_endpoint(client: Caller, names: Iterable[str], max_items: int) -> list[list[str]]:
    """Groups the ids by endpoint, at most max_items in each batch."""
    endpoints = client._connected().endpoints
    found: dict[object, list[str]] = {}
    for name in names:
        found.setdefault(endpoints.first(name), []).append(name)
    return [
        together[first : first + max_items]
        for together in found.values()
        for first in range(0, len(together), max_items)
    ]


def page_items(model: Model) -> int:
    """Returns how many items `each_result` may be given."""
    return min(MAX_ITEMS, model.max_frame_items or MAX_ITEMS)


async def each_result(
    client: Caller, method: str, request: Callable[..., Any], items: Sequence[Any], timeout: float | None
) -> list[tuple[Any, Any]]:
    """Sends the items in one request. Returns each with its result or its CellkeeperError.

    request: builds the message, from `items` given by name. timeout: seconds for each call. An item is sent again by
    itself as in `call_items`. Raises what the request as a whole raises.
    """
    answer = await client._call(method, request(items=items), items[0].session, timeout)
    results = results_of(answer, len(items), method)
    outcomes = [error_of(result.error) if result.HasField("error") else result for result in results]

    async def one(at: int) -> Any:
        return await client._call(method, request(items=[items[at]]), items[at].session, timeout, only_result)

    found, failed = await each([at for at, outcome in enumerate(outcomes) if _may_succeed_yet(outcome)], one)
    for at, outcome in (*found.items(), *failed.items()):
        outcomes[at] = outcome
    return list(zip(items, outcomes, strict=True))


def _may_succeed_yet(outcome: Any) -> bool:
    """Returns True for a transient error, and for one of a server that may lack a version which another serves."""
    return isinstance(outcome, CellkeeperError) and (worth_retrying(outcome) or isinstance(outcome, ModelChanged))
