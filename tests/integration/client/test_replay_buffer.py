"""What is kept of a session's answered inputs."""

from __future__ import annotations

import random

import pytest
from cellkeeper import Position, first_position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.replay_buffer import ReplayBuffer

WIDTH = 3
START = first_position(bytes(range(16)))


def chunks(count: int) -> list[Chunk]:
    """Returns consecutive chunks of 1 to 4 time steps each."""
    made, at = [], START
    for _ in range(count):
        inputs = random.randbytes(WIDTH * random.randint(1, 4))
        made.append(Chunk(inputs, at, at.advance(inputs, WIDTH)))
        at = made[-1].end
    return made


def facts(kept: list[Chunk]) -> list[tuple[bytes, Position, Position]]:
    return [(chunk.inputs, chunk.start, chunk.end) for chunk in kept]


@pytest.mark.parametrize("seed", range(20))
def test_chunks_come_out_as_they_went_in(seed: int) -> None:
    print(f"seed {seed}")
    random.seed(seed)
    buffer, given = ReplayBuffer(WIDTH, 1000, 1 << 20), chunks(30)
    for chunk in given:
        buffer.add(chunk)
    assert facts(list(buffer)) == facts(given)
    whole = b"".join(chunk.inputs for chunk in given)
    for step in range(given[-1].end.step + 1):
        assert buffer.position_at(step) == START.advance(whole[: step * WIDTH], WIDTH)
    assert buffer.position_at(given[-1].end.step + 1) is None
    popped = [chunk for chunk in iter(buffer.pop, None) if chunk is not None]
    assert facts(popped[::-1]) == facts(given)
    assert all(chunk.held for chunk in popped)


@pytest.mark.parametrize(("max_steps", "max_bytes"), [(10, 1 << 20), (1000, 10 * WIDTH)])
def test_the_oldest_are_let_go(max_steps: int, max_bytes: int) -> None:
    random.seed(1)
    buffer, given = ReplayBuffer(WIDTH, max_steps, max_bytes), chunks(30)
    for index, chunk in enumerate(given):
        buffer.add(chunk)
        kept = list(buffer)
        assert facts(kept) == facts(given[index + 1 - len(kept) : index + 1])
        total = sum(one.steps for one in kept)
        assert total <= 10
        assert index + 1 == len(kept) or total + given[index - len(kept)].steps > 10  # as many as fit
    first = given[-1].end.step - total
    assert buffer.position_at(first) is not None
    assert buffer.position_at(first - 1) is None


def test_an_empty_one() -> None:
    buffer = ReplayBuffer(WIDTH, 0, 0)
    assert buffer.pop() is None
    assert list(buffer) == []
    assert buffer.position_at(0) is None
    buffer.add(chunks(1)[0])
    assert buffer.pop() is None
