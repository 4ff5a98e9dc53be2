"""What a generation starts with that a client's call has made."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.domain.position import Position

from .scope import CarryOver, Fork, Reset, SetState
from .sequential_model import VERSION, Inputs, Violation, consumed, version_of


def check_start(what: str, op: Any, before: Position, after: Position, shared: bool, exact: bool) -> None:
    """Checks where a call has led from `before`. shared: other clients change the session. exact: nobody may have
    stepped the new generation yet. Raises Violation."""
    started, told = consumed(after), _start(op, before)
    is_carry_over = isinstance(op, CarryOver)
    if is_carry_over and version_of(before.generation) == op.version:
        if after.generation != before.generation and not shared:
            raise Violation(f"{what} has led from {told} to {started}")
        return  # the session stays, and its next step finds what is lost
    if after.generation == before.generation:
        raise Violation(f"{what} has led from {told} to {started} in the same generation")
    if started[: len(told)] != told or (exact and not isinstance(op, Fork) and started != told):
        raise Violation(f"{what} was to start with {told}, but has led to {started}")
    if is_carry_over and not shared and version_of(after.generation) != op.version:
        raise Violation(f"{what} has led to version {version_of(after.generation)}")


def _start(op: Any, before: Position) -> Inputs:
    """Returns what the generation starts with that a call makes of one at `before`, or else where that stays."""
    match op:
        case SetState():
            return op.inputs
        case CarryOver() if version_of(before.generation) != op.version and (op.window or op.reset):
            return tuple(value + (op.version - 1) * VERSION for value in op.window)
        case Reset():
            return ()
    return consumed(before)
