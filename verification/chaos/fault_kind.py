"""A kind of fault: what the nemesis chooses from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Act = Callable[[int], Awaitable[None]]
Wait = Callable[[float, float], Awaitable[None]]
"""Waits for a random time between two bounds, in seconds."""


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault.

    act: causes and undoes it, given the target's number. holds: what no other fault may affect meanwhile; {} is the
    number of one of `targets`. weight: how often it is chosen. loses: it may make the store lose its last commits.
    """

    name: str
    holds: str
    weight: float
    act: Act
    targets: int = 1
    loses: bool = False
