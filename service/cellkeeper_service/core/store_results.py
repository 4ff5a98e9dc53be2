"""Checks what a store's call returns, before the core sees it: one result of the right type for each item.

A store that breaks this contract has not said what it did: what it was asked is unknown, of the whole call where the
number is wrong, and of one item where only that one's result is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, cast

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, CommitResult, DamagedRecord, Outcome, Postponed, StoreError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def check_results(
    answer: object, items: int, is_result: Callable[[object], bool], lost: Callable[[str], list[Result]]
) -> tuple[list[Result], bool]:
    """The results of a call of so many items, and whether any of them says that the store failed.

    is_result: whether an object is what this call returns for an item. lost: the results where it is unknown what the
    store did, given why.
    """
    if not isinstance(answer, list):
        return lost(_log(f"it returned {type(answer).__name__}, expected a list of {items} results")), True
    if len(answer) != items:
        return lost(_log(f"it returned {len(answer)} results, expected {items}, one for each item")), True
    if answer.count(COMMITTED) == items:  # nearly always
        return answer, False
    results = cast("list[Result]", answer)
    if strange := [result for result in answer if not is_result(result)]:
        instead = lost(_log(f"it returned {strange[0]!r:.100} as the result of an item, of {len(strange)} of {items}"))
        results = [result if is_result(result) else unknown for result, unknown in zip(answer, instead, strict=True)]
    return results, any(map(_is_failure, results))


def is_load_result(result: object) -> bool:
    return result is None or isinstance(result, (Record, StoreError))


def is_commit_result(result: object) -> bool:
    return isinstance(result, CommitResult) and isinstance(result.outcome, Outcome)


def _log(why: str) -> str:
    log.error("the store broke its contract: %s", why)
    return f"the store broke its contract: {why}"


def _is_failure(result: object) -> bool:
    if isinstance(result, CommitResult):
        return result.outcome in (Outcome.UNKNOWN, Outcome.REFUSED)
    return isinstance(result, StoreError) and not isinstance(result, (DamagedRecord, Postponed))
