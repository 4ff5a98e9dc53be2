"""Steps whose effect shows in the session's state.

The model sums its inputs, and the n-th sample is 2**n in one feature, so the state shows which samples count.
"""

from __future__ import annotations

import pytest
from cellkeeper import AsyncSession, DeadlineExceeded, LateStep

from .conftest import until
from .counting_server import CountingServer


def sample(number: int) -> list[float]:
    """Returns sample 0 to 20: different sets of samples have different sums."""
    return [float(1 << number), 0.0]


def numbers(total: float) -> set[int]:
    """Returns the samples that make up the sum."""
    return {number for number in range(24) if int(total) >> number & 1}


async def timed_out(session: AsyncSession, server: CountingServer, x: list[float]) -> LateStep:
    """Sends x to a server that does not answer in time."""
    server.gate.clear()
    sent = server.frames
    with pytest.raises(DeadlineExceeded) as caught:
        await session.step(x, timeout=0.03)
    await until(lambda: server.frames > sent)
    assert caught.value.late_step is not None
    return caught.value.late_step
