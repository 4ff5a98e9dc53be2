"""Steps of value 1, which the counting server answers with how many there have been."""

from __future__ import annotations

import numpy as np
from cellkeeper import AsyncGroup, AsyncSession

ONE = [1.0, 1.0]
IDS = [f"s{number}" for number in range(8)]
ONES = np.ones((8, 2), np.float32)


async def take(session: AsyncSession, samples: object, **options: int) -> list[list[float]]:
    return [y.tolist() async for y in session.stream(samples, **options)]  # type: ignore[arg-type]


def counted(first: int, last: int) -> list[list[float]]:
    """Returns the answers to steps of value 1."""
    return [[float(step), float(step)] for step in range(first, last + 1)]


async def count_together(group: AsyncGroup, steps: int, first: int = 1) -> None:
    """Steps a group of eight members."""
    for step in range(first, first + steps):
        assert (await group.step(ONES)).tolist() == [[step, step]] * 8
