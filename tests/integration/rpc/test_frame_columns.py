"""A frame gives the same steps whether its columns are checked as a whole or item by item."""

from __future__ import annotations

import random
import struct
from dataclasses import fields, replace
from math import inf
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.core.requests import Step
from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.frames import Frame, read_frame

from tests.unit.core.made import models

GENERATION = b"g" * 16
GIVEN = [field.name for field in fields(Step) if field.init and field.name != "done"]


def nobody(step: Any) -> None:
    """Ignores the reply."""


def read(message: pb.StepFrame) -> Frame:
    return read_frame(message, Catalog({"m": models()}, WireLimits()), latest=inf, needs_positions=True)


def message(count: int, steps: list[int], acked: list[int] | None = None, **more: Any) -> pb.StepFrame:
    """steps: those of the positions."""
    return pb.StepFrame(
        model="m",
        sessions=more.pop("sessions", [f"s{item}" for item in range(count)]),
        positions=b"".join(Position(GENERATION, step, b"h" * 8) for step in steps),
        acked=b"" if acked is None else struct.pack(f"<{count}Q", *acked),
        dtype=pb.INT32,
        inputs=np.arange(count, dtype="<i4").tobytes(),
        **more,
    )


def test_the_steps_are_the_same() -> None:
    draw = random.Random(7)
    for _ in range(200):
        count = draw.randrange(1, 6)
        steps = [draw.choice([0, 1, 255, 256, 2**40, 2**63 - 1]) for _ in range(count)]
        acked = [draw.choice([0, step]) for step in steps] if draw.random() < 0.5 else None
        frame = read(message(count, steps, acked, peek=draw.random() < 0.3))
        assert frame.checked
        one_by_one = replace(frame, checked=False)
        for item, step in enumerate(frame.all_steps(nobody)):
            other = one_by_one.step(item, nobody)
            assert [getattr(step, name) for name in GIVEN] == [getattr(other, name) for name in GIVEN]
            assert isinstance(step.position, Position)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (message(3, [1, 1, 1], [0, 2, 0]), "acked[1]"),
        (message(3, [1, 2**63, 1]), "positions[1].step"),
        (message(3, [1, 1, 1], sessions=["a", "", "c"]), "sessions[1]"),
        (message(3, [1, 1, 1], sessions=["a", "\N{SNOWMAN}" * 86, "c"]), "sessions[1]"),
    ],
)
def test_an_item_that_is_wrong_is_found(bad: pb.StepFrame, field: str) -> None:
    frame = read(bad)
    assert not frame.checked
    for item in (0, 2):
        assert frame.step(item, nobody).item == item
    with pytest.raises(Rejection) as refused:
        frame.step(1, nobody)
    assert refused.value.field == field


def test_an_item_without_a_position_is_found() -> None:
    one = message(3, [1, 1, 1])
    one.positions = one.positions[:32] + bytes(32) + one.positions[64:]
    frame = read(one)
    assert not frame.checked
    with pytest.raises(Rejection, match=r"positions\[1\]"):
        frame.step(1, nobody)
