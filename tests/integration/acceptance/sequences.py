"""Sequences: the inputs of sessions, their offline results, and what the servers have answered."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import load_engine, offline
from numpy.typing import NDArray

from testing.wire_client import Chunk, Position, Result

Array = NDArray[Any]


NOWHERE = Position(b"", 0, b"")  # not opened yet


class Model:
    """A bundle, and the offline run that served outputs are compared with.

    draw: returns inputs of so many time steps.
    """

    def __init__(self, folder: Path, draw: Callable[[np.random.Generator, int], Array]) -> None:
        self.engine: Engine = load_engine(folder, "cpu")
        self.name = self.engine.spec.name
        self.draw = draw

    def run(self, inputs: Array) -> dict[str, Array]:
        return offline(self.engine, inputs)


@dataclass(eq=False)
class Sent:
    """A chunk of a sequence that is being sent."""

    sequence: Sequence
    first: int
    last: int
    position: Position
    after: Position
    outputs: tuple[str, ...]
    answered: bool = False

    def chunk(self) -> Chunk:
        """Returns the chunk to send, with the current acknowledgement."""
        sequence = self.sequence
        acked = min(sequence.held, self.first)
        inputs = sequence.inputs[self.first : self.last]
        return Chunk(sequence.model.name, sequence.session, inputs, self.position, acked, self.outputs)

    @property
    def is_ahead(self) -> bool:
        """Whether an earlier chunk of this sequence has no reply yet, so that a gap is expected."""
        return self.sequence.held < self.first

    def check(self, result: Result) -> None:
        """Compares every bit of a result with the offline run. Raises AssertionError."""
        where = f"{self.sequence.model.name} {self.sequence.session!r} steps {self.first}..{self.last - 1}"
        if result.position != self.after:
            raise AssertionError(f"{where}: the position after is {result.position}, expected {self.after}")
        wanted = self.sequence.expected(self.first, self.last, self.outputs)
        if result.outputs.keys() != wanted.keys():
            raise AssertionError(f"{where}: got outputs {sorted(result.outputs)}, expected {sorted(wanted)}")
        for name, array in wanted.items():
            if result.outputs[name] != array.tobytes():
                got = np.frombuffer(result.outputs[name], array.dtype)
                raise AssertionError(f"{where}: {name} differs from the offline run:\n{got}\n{array.ravel()}")


@dataclass(eq=False)
class Sequence:
    """One session.

    held: every reply up to this step has arrived. at: where the next chunk starts.
    """

    model: Model
    session: str
    inputs: Array
    at: Position = NOWHERE
    held: int = 0
    busy: bool = False
    _replied: dict[int, int] = field(default_factory=dict)
    _whole: dict[str, Array] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.held == len(self.inputs)

    @property
    def left(self) -> int:
        return len(self.inputs) - self.at.step

    def cut(self, steps: int, outputs: tuple[str, ...]) -> Sent:
        first, position = self.at.step, self.at
        last = min(first + steps, len(self.inputs))
        self.at = position.after(self.inputs[first:last])
        return Sent(self, first, last, position, self.at, outputs)

    def note(self, sent: Sent) -> int:
        """Notes that a chunk's reply has arrived. Returns by how many steps `held` has grown."""
        before = self.held
        self._replied[sent.first] = sent.last
        while self.held in self._replied:
            self.held = self._replied.pop(self.held)
        return self.held - before

    def expected(self, first: int, last: int, outputs: tuple[str, ...]) -> dict[str, Array]:
        """Returns by name the offline outputs of these time steps, and the state after them."""
        if not self._whole:
            self._whole = self.model.run(self.inputs)
        wanted = {name: self._whole[name][first:last] for name in outputs if name != "state"}
        if "state" in outputs:
            wanted |= self.state_at(last)
        return wanted

    def state_at(self, step: int) -> dict[str, Array]:
        """Returns the state tensors after so many time steps, as "state.<name>"."""
        found = self.model.run(self.inputs[:step])
        return {name: array for name, array in found.items() if name.startswith("state.")}


def make_sequences(model: Model, count: int, steps: int, draw: random.Random) -> list[Sequence]:
    """Returns `count` sessions of about `steps` time steps each."""
    numbers = np.random.default_rng(draw.getrandbits(64))
    lengths = [draw.randint(steps // 2, steps * 3 // 2) for _ in range(count)]
    tag = f"{draw.getrandbits(32):08x}"
    return [
        Sequence(model, f"{model.name}/{tag}/{index}", model.draw(numbers, length))
        for index, length in enumerate(lengths)
    ]
