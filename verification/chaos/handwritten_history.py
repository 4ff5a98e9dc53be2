"""Handwritten histories for the checker's tests: what a correct service would have given, to be corrupted then."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from testing.wire_client import Position

from .checker import Checker
from .history import Ack, Array, Burst, Fault, FinalRead, History, Operation
from .offline import Reference
from .verdict import Verdict

MODEL = "count"
SECONDS = 10.0  # between two events, so that faults can be told apart


class HandwrittenHistory:
    """A service with one client, simulated by the reference itself. Every event advances the time by SECONDS."""

    def __init__(self, reference: Reference) -> None:
        self.history = History()
        self.now = 0.0
        self._reference = reference
        self._draw = random.Random(7)
        self._inputs: dict[tuple[str, bytes], Array] = {}
        self._starts: dict[tuple[str, bytes], tuple[int, dict[str, Array] | None]] = {}

    def tick(self) -> float:
        self.now += SECONDS
        return self.now

    def begin(self, kind: str, session: str, *, names: bytes = b"", step: int = 0, value: float = 0.0) -> Position:
        """Records an open that creates, a reset, or a set-state to `value` at `step`."""
        generation = self._draw.randbytes(16)
        position = Position(generation, step, Position.first(generation).head)
        states = {"h": np.full((1, 1), value, np.float32)} if kind == "set_state" else {}
        operation = Operation(
            kind, session, MODEL, "hand", self.tick(), names, position, created=kind == "open", step=step
        )
        operation.states = states
        operation.at = self.tick()
        self.history.add_operation(operation)
        self._inputs[session, generation] = np.zeros((0, 1), np.float32)
        self._starts[session, generation] = (step, states or None)
        return position

    def fork(self, source: str, position: Position, target: str) -> Position:
        generation = self._draw.randbytes(16)
        there = Position(generation, position.step, position.head)
        operation = Operation(
            "fork", target, MODEL, "hand", self.tick(), b"", there, source=source, at_position=position
        )
        operation.at = self.tick()
        self.history.add_operation(operation)
        first, states = self._starts[source, position.generation]
        self._inputs[target, generation] = self._inputs[source, position.generation][: position.step - first]
        self._starts[target, generation] = (first, states)
        return there

    def found(self, session: str, position: Position, *, expect: Position | None = None, error: str = "") -> Operation:
        """Records an open of what exists, or a refused one."""
        operation = Operation("open", session, MODEL, "hand", self.tick(), expect=expect, error=error)
        operation.result = None if error else position
        operation.at = self.tick()
        return self.history.add_operation(operation)

    def delete(self, session: str, position: Position) -> None:
        operation = Operation("delete", session, MODEL, "hand", self.tick(), position.generation, deleted=True)
        operation.at = self.tick()
        self.history.add_operation(operation)

    def steps(self, session: str, position: Position, values: list[float], sender: str = "hand") -> Position:
        """Records steps that were sent and answered, and applies them at `position`."""
        inputs = np.array(values, np.float32)[:, None]
        after = position.after(inputs)
        key = (session, position.generation)
        first, states = self._starts[key]
        known = self._inputs[key][: position.step - first]
        self._inputs[key] = np.concatenate([known, inputs])
        expected = self._reference.outputs(self._inputs[key], states)
        burst = Burst(session, MODEL, position, inputs, position.step, sender, self.tick())
        outputs = {"prediction": expected["prediction"][position.step - first :].copy()}
        burst.acks.append(Ack(len(inputs), self.tick(), after, outputs, {}, True))
        self.history.add_burst(burst)
        return after

    def unanswered(
        self, session: str, position: Position, values: list[float], error: str, sender: str = "hand", words: str = ""
    ) -> Burst:
        inputs = np.array(values, np.float32)[:, None]
        burst = Burst(session, MODEL, position, inputs, position.step, sender, self.tick(), error=error)
        burst.error_at, burst.error_text = self.tick(), words
        return self.history.add_burst(burst)

    def repeat(self, burst: Burst, *, applied: bool = False) -> Burst:
        """Records an old copy, answered like the first one."""
        copy = Burst(burst.session, MODEL, burst.start, burst.inputs, burst.acked, "late", self.tick(), late=True)
        copy.acks = [ack._replace(at=self.tick(), applied=applied) for ack in burst.acks]
        return self.history.add_burst(copy)

    def fault(self, kind: str, *, loses: bool = False, of_store: bool = False, late: bool = False) -> None:
        """Records a fault. One that loses comes a second after the preceding event and may lose it, unless `late`."""
        began = self.tick() - (0.0 if late or not loses else SECONDS - 1.0)
        self.history.faults.append(Fault(kind, "somewhere", began, self.tick(), loses, of_store))

    def final_read(self, session: str, position: Position | None) -> None:
        """Records how the session is in the end, read through two servers."""
        states: dict[str, Array] = {}
        if position is not None:
            key = (session, position.generation)
            first, start = self._starts[key]
            inputs = self._inputs[key][: position.step - first]
            states = self._reference.states_at(inputs, start, [len(inputs)])[len(inputs)]
        for replica in range(2):
            self.history.final_reads.append(
                FinalRead(session, MODEL, position, states, replica, self.tick(), self.tick())
            )

    def flip(self, burst: Burst) -> None:
        """Flips one bit of one answer."""
        ack = burst.acks[0]
        raw = bytearray(ack.outputs["prediction"].tobytes())
        raw[0] ^= 1
        outputs = {"prediction": np.frombuffer(bytes(raw), np.float32).reshape(ack.outputs["prediction"].shape)}
        burst.acks[0] = ack._replace(outputs=outputs)

    def spoil_final_read(self, **changes: object) -> None:
        """Changes what the first server showed in the end."""
        self.history.final_reads[0] = self.history.final_reads[0]._replace(**changes)  # type: ignore[arg-type]

    def check(self) -> Verdict:
        return Checker(self.history, {MODEL: self._reference}).check()

    def kinds(self) -> set[str]:
        """Returns the kinds of all violations found."""
        return {finding.kind for finding in self.check().findings}


def renamed(burst: Burst, session: str) -> Burst:
    """Returns the same burst as if it were another session's."""
    return replace(burst, session=session)


def two_chunks(made: HandwrittenHistory, session: str = "a") -> tuple[Position, Position, Position]:
    """Makes two chunks of a new session. Returns its positions before, between and after them."""
    start = made.begin("open", session)
    middle = made.steps(session, start, [1, 2, 3])
    return start, middle, made.steps(session, middle, [4, 5])
