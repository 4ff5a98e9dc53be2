"""The order in which contenders take turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Member = TypeVar("Member")


def rotated(members: Sequence[Member], number: int) -> list[Member]:
    """Returns the members in the order of round `number`: each comes first in turn, so that no place favours one."""
    first = number % len(members)
    return [*members[first:], *members[:first]]
