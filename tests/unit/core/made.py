"""Builds requests, records and versions for tests of the pure parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellkeeper_service.core.lifecycle import new_header
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request, Step
from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.record import Record, SessionKey

from .counting_engine import CountingEngine, expected
from .world import FOREVER, pack

KEY = SessionKey("", "m", "s")
GENERATION = b"g" * 16
START = first_position(GENERATION)


def nobody(requests: Sequence[Request]) -> None:
    """Ignores the reply."""


def version(due_steps: int = 4, slots: int = 4, byte: bytes = b"\1") -> Version:
    made = Version(CountingEngine(version=byte), slots, due_steps)
    made.due_steps = due_steps
    return made


def models(*versions: Version) -> Models:
    return Models(list(versions) or [version()])


def step(inputs: list[int], position: Position | None = None, acked: int | None = None, **more: Any) -> Step:
    return Step(
        KEY, FOREVER, nobody, pack(inputs), len(inputs), position, acked, more.get("peek", False), frozenset(), False
    )


def at(inputs: list[int]) -> Position:
    """Returns the position after these inputs."""
    return advance(START, pack(inputs), 4)


def record(served: Version, inputs: list[int], checkpoint_step: int = 0, **changes: Any) -> Record:
    """Returns the record of a session that has consumed these inputs, with its checkpoint at that step."""
    before, logged = inputs[:checkpoint_step], inputs[checkpoint_step:]
    header = new_header(served, START, b"o" * 16, 0, 0).replace(
        position=at(inputs), checkpoint_step=checkpoint_step, checkpoint_head=at(before).head, **changes
    )
    state = expected(before)[-1] if before else 0
    return Record(header, state.to_bytes(8, "little"), pack(logged))
