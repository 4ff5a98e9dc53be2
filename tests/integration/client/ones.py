"""Steps of value 1, which the counting server answers with how many there have been."""

from __future__ import annotations

from cellkeeper import AsyncSession

ONE = [1.0, 1.0]


async def take(session: AsyncSession, samples: object, **options: int) -> list[list[float]]:
    return [y.tolist() async for y in session.stream(samples, **options)]  # type: ignore[arg-type]


def counted(first: int, last: int) -> list[list[float]]:
    """Returns the answers to steps of value 1."""
    return [[float(step), float(step)] for step in range(first, last + 1)]
