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
    max_items: of one call. Items whose version a server does not serve are sent to the others, too; one that fails for
    a transient reason is sent again by itself. Calls to several endpoints run concurrently.
    """
    results: dict[str, Any] = {}
    errors: dict[str, CellkeeperError] = {}
    again: list[str] = []

    async def batch(names: list[str]) -> None:
        try:
            mine = [items[name] for name in names]
            outcomes, transient = await _outcomes(client, method, request, mine, names[0], left())
        except CellkeeperError as failed:
            errors.update(dict.fromkeys(names, failed))
            return
        again.extend(names[at] for at in transient)
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, CellkeeperError):
                errors[name] = outcome
            else:
                results[name] = outcome

    async def one(name: str) -> Any:
        return await client._call(method, request(items=[items[name]]), name, left(), only_result)

    await asyncio.gather(*map(batch, by_endpoint(client, items, max_items)))
    found, failed = await each(again, one)
    results.update(found)
    return results, {**{name: error for name, error in errors.items() if name not in found}, **failed}


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
    outcomes, transient = await _outcomes(client, method, request, items, items[0].session, timeout)

    async def one(at: int) -> Any:
        return await client._call(method, request(items=[items[at]]), items[at].session, timeout, only_result)

    found, failed = await each(transient, one)
    for at, outcome in (*found.items(), *failed.items()):
        outcomes[at] = outcome
    return list(zip(items, outcomes, strict=True))


async def _outcomes(
    client: Caller,
    method: str,
    request: Callable[..., Any],
    items: Sequence[Any],
    session: str,
    timeout: float | None,
) -> tuple[list[Any], list[int]]:
    """Sends the items in one request. Returns the result or the error of each, and which of the errors are transient.

    Those whose version a server does not serve are sent to the next one, together. session: the call prefers its
    endpoint. Raises what the request as a whole raises.
    """
    message, unserved = request(items=items), list(range(len(items)))
    outcomes: list[Any] = [None] * len(items)

    def read(answer: Any) -> None:
        nonlocal unserved
        for at, result in zip(unserved, results_of(answer, len(unserved), method), strict=True):
            outcomes[at] = error_of(result.error) if result.HasField("error") else result
        unserved = [at for at in unserved if isinstance(outcomes[at], ModelChanged)]
        if unserved:
            del message.items[:]
            message.items.extend([items[at] for at in unserved])
            raise outcomes[unserved[0]]  # on which the call turns to the next server

    answered = list(unserved)
    try:
        await client._call(method, message, session, timeout, read)
    except CellkeeperError as error:
        if None in outcomes:
            raise
        if not any(error is outcome for outcome in outcomes):  # the others could not be asked
            answered = [at for at in answered if at not in unserved]
            for at in unserved:
                outcomes[at] = error
    return outcomes, [at for at in answered if _is_transient(outcomes[at])]


def _is_transient(outcome: Any) -> bool:
    return isinstance(outcome, CellkeeperError) and worth_retrying(outcome)
