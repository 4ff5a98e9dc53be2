"""Checks what a store's call returns, before the core sees it: one result of the right type for each item.

A store that breaks this contract has not said what it did. The outcome is then unknown: of the whole call if the number
of results is wrong, of a single item if only its result is not one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, CommitResult, DamagedRecord, Outcome, Postponed, StoreError

log = logging.getLogger(__name__)


class ResultKind(NamedTuple):
    """What one kind of call returns for an item.

    is_result: whether an object is such a result. is_failure: whether a result says that the store failed. unknown:
    makes the results of a call, given why nobody knows what it did, and the number of its items.
    """

    name: str
    is_result: Callable[[Any], bool]
    is_failure: Callable[[Any], bool]
    unknown: Callable[[str, int], list[Any]]


LOADED = ResultKind(
    "load",
    lambda result: result is None or isinstance(result, (Record, StoreError)),
    lambda result: isinstance(result, StoreError) and not isinstance(result, (DamagedRecord, Postponed)),
    lambda why, items: [StoreError(why) for _ in range(items)],
)
WRITTEN = ResultKind(
    "write",
    lambda result: isinstance(result, CommitResult) and isinstance(result.outcome, Outcome),
    lambda result: result.outcome in (Outcome.UNKNOWN, Outcome.REFUSED),
    lambda why, items: [CommitResult(Outcome.UNKNOWN, None, why)] * items,
)


def check_results(answer: object, items: int, kind: ResultKind) -> tuple[list[Any], bool]:
    """Returns the results of a call with so many items, and whether any of them says that the store failed."""
    if not isinstance(answer, list):
        return _broken(f"it returned {type(answer).__name__}, expected a list of {items} results", items, kind), True
    if len(answer) != items:
        return _broken(f"it returned {len(answer)} results, expected {items}, one for each item", items, kind), True
    if answer.count(COMMITTED) == items:  # nearly always
        return answer, False
    if strange := [result for result in answer if not kind.is_result(result)]:
        why = f"it returned {strange[0]!r:.100} as the result of an item, of {len(strange)} of {items}"
        unknown = _broken(why, items, kind)
        answer = [one if kind.is_result(one) else instead for one, instead in zip(answer, unknown, strict=True)]
    return answer, any(map(kind.is_failure, answer))


def _broken(why: str, items: int, kind: ResultKind) -> list[Any]:
    why = f"the store broke its contract: {why}"
    log.error(why)
    return kind.unknown(why, items)
