"""A session of the counting server, and the contract's decision table for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cellkeeper import Position, first_position

from .counting_wire import Refused

STEP_BYTES = 8
REFUSED_VALUE = 1e6  # a second feature of this size or larger is "not finite"


@dataclass
class Record:
    """One session: the positions and inputs from the checkpoint to its current step, and the state at each."""

    positions: list[Position]
    totals: list[np.ndarray[Any, Any]]  # state at each position, float32 [2]
    inputs: list[bytes] = field(default_factory=list)  # one fewer
    origin: bytes = b""
    ttl_ms: int = 0

    @property
    def position(self) -> Position:
        return self.positions[-1]

    @property
    def checkpoint_step(self) -> int:
        return self.positions[0].step

    def cut(self, steps: int) -> None:
        """Loses the last time steps, as the store's fail-over may."""
        del self.positions[-steps:], self.totals[-steps:], self.inputs[-steps:]

    def compact(self, step: int) -> None:
        """Makes a checkpoint: forgets the inputs before `step`."""
        gone = step - self.checkpoint_step
        del self.positions[:gone], self.totals[:gone], self.inputs[:gone]

    def decide(
        self, packed: bytes, inputs: bytes, peek: bool = False
    ) -> tuple[Position, np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
        """Returns (position after, outputs [T, 2], state, flags) according to the contract's table."""
        sent = Position.unpack(packed)
        steps = len(inputs) // STEP_BYTES
        stands = self.position
        if sent.generation != stands.generation:
            raise Refused("GENERATION_CHANGED", stands)
        if sent.step > stands.step:
            raise Refused("STEP_GAP", stands)
        if sent.step < self.checkpoint_step:
            raise Refused("STEP_COMPACTED", stands)
        at = sent.step - self.checkpoint_step
        if self.positions[at].head != sent.head:
            raise Refused("HISTORY_CHANGED", stands)
        if sent.step < stands.step:
            logged = b"".join(self.inputs[at : at + steps])
            if sent.step + steps > stands.step or logged != inputs:
                raise Refused("STEP_CONFLICT", stands)
            totals = self.totals[at + 1 : at + steps + 1]
            return self.positions[at + steps], np.array(totals), totals[-1], 2
        position, total = stands, self.totals[-1]
        positions, totals, chunks = [], [], []
        for start in range(0, len(inputs), STEP_BYTES):
            one = inputs[start : start + STEP_BYTES]
            values = np.frombuffer(one, "<f4")
            if values[1] >= REFUSED_VALUE:
                raise Refused("NON_FINITE_RESULT", stands, "the state would not be finite")
            position = position.advance(one, STEP_BYTES)
            total = total + values
            positions.append(position)
            totals.append(total)
            chunks.append(one)
        if not peek:
            self.positions += positions
            self.totals += totals
            self.inputs += chunks
        return position, np.array(totals), total, 0


def fresh(origin: bytes, step: int = 0, total: np.ndarray[Any, Any] | None = None) -> Record:
    start = np.zeros(2, np.float32) if total is None else total
    return Record([first_position(os.urandom(16), step)], [start], [], origin)
