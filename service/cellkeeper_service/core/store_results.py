"""Checks what a store's call returns, before the core sees it: one result of the right type for each item.

A store that breaks this contract has not said what it did. The outcome is then unknown: of the whole call if the number
of results is wrong, of a single item if only its result is not one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, CommitResult, DamagedRecord, Outcome, Postponed, StoreError

BROKEN = "the store broke its contract"
_FAILED = (Outcome.UNKNOWN, Outcome.REFUSED, Outcome.UNREACHED)


class ResultKind(NamedTuple):
    """What one kind of call returns for an item.

    is_result: whether an object is such a result. why_failed: returns why the store failed, if a result says that it
    did; empty otherwise. unknown: makes the results of a call, given why nobody knows what it did, and the number of
    its items.
    """

    name: str
    is_result: Callable[[Any], bool]
    why_failed: Callable[[Any], str]
    unknown: Callable[[str, int], list[Any]]


LOADED = ResultKind(
    "load",
    lambda result: result is None or isinstance(result, (Record, StoreError)),
    lambda result: _why(result) if isinstance(result, StoreError) else "",
    lambda why, items: [StoreError(why) for _ in range(items)],
)
WRITTEN = ResultKind(
    "write",
    lambda result: isinstance(result, CommitResult) and isinstance(result.outcome, Outcome),
    lambda result: f"{result.outcome.value}: {result.message}" if result.outcome in _FAILED else "",
    lambda why, items: [CommitResult(Outcome.UNKNOWN, None, why)] * items,
)


def check_results(answer: object, items: int, kind: ResultKind) -> tuple[list[Any], str]:
    """Returns the results of a call with so many items, and why the store failed if any of them says so; else ""."""
    if not isinstance(answer, list) or len(answer) != items:
        got = f"{len(answer)} results" if isinstance(answer, list) else type(answer).__name__
        why = f"{BROKEN}: it returned {got}, expected a list of {items}, one for each item"
        return kind.unknown(why, items), why
    if answer.count(COMMITTED) == items:  # nearly always
        return answer, ""
    if strange := [result for result in answer if not kind.is_result(result)]:
        why = f"{BROKEN}: it returned {type(strange[0]).__name__} as the result of {len(strange)} of {items} items"
        unknown = kind.unknown(why, items)
        answer = [one if kind.is_result(one) else instead for one, instead in zip(answer, unknown, strict=True)]
    return answer, next(filter(None, map(kind.why_failed, answer)), "")


def _why(error: StoreError) -> str:
    return "" if isinstance(error, (DamagedRecord, Postponed)) else str(error) or type(error).__name__
