"""Headers moved on together are what the constructor makes of each."""

from __future__ import annotations

import numpy as np
from cellkeeper_service.domain.headers import one_step_on
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.domain.record import Header


def test_one_step_on() -> None:
    draw = np.random.default_rng(5)
    headers, inputs, expected = [], [], []
    for number in range(7):
        position = Position(draw.bytes(16), 2**40 + number, draw.bytes(8))
        header = Header(position, 11, 2**33, draw.bytes(8), 13, 17, draw.bytes(32), draw.bytes(8), draw.bytes(16), 128)
        data = draw.bytes(128)
        after = header.replace(position=advance(position, data, 128), updated_ms=2**41, numerics=b"numerics")
        if number in (0, 4):
            after = after.replace(checkpoint_step=position.step, checkpoint_head=position.head)
        headers.append(header)
        inputs.append(data)
        expected.append(after)
    assert one_step_on(headers, inputs, 2**41, b"numerics", [0, 4]) == expected
    assert one_step_on([], [], 2**41, b"numerics", []) == []
