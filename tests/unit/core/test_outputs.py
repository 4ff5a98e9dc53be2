"""Outputs stay in their batches. A frame's reply gathers them in the order of its items."""

from __future__ import annotations

import random

import numpy as np
import pytest
from cellkeeper_service.core.outputs import Piece, gather, joined
from cellkeeper_service.domain.engine import Computed

NAME = "prediction"


def batch(draw: np.random.Generator, steps: int, rows: int, shape: tuple[int, ...]) -> Computed:
    return Computed({NAME: draw.standard_normal((steps, rows, *shape)).astype(np.float32)}, None)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_the_outputs_of_requests_are_joined_in_order(shape: tuple[int, ...]) -> None:
    draw, numbers = random.Random(3), np.random.default_rng(3)
    for _ in range(200):
        batches = [batch(numbers, steps, 4, shape) for steps in (1, 1, 4)]
        requests: list[list[Piece]] = []
        for _ in range(draw.randrange(6)):
            pieces = []
            for _ in range(draw.randrange(1, 4)):
                one = draw.choice(batches)
                first = draw.randrange(len(one.outputs[NAME]))
                last = draw.randrange(first + 1, len(one.outputs[NAME]) + 1)
                pieces.append((one, draw.randrange(4), first, last))
            requests.append(pieces)
        each = [joined(pieces, NAME).tobytes() for pieces in requests]
        assert gather(requests, NAME) == b"".join(each)
