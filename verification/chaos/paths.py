"""Which inputs lead from the start of a generation to a position."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from testing.wire_client import Position

from .history import Array, Burst, History, Operation
from .offline import States


class Path(NamedTuple):
    """The path to a position.

    states: at its start; None: the model's own. first_step: where the inputs start. heads: at each step from first_step
    on, one more than inputs.
    """

    states: States | None
    first_step: int
    inputs: Array
    heads: list[bytes]

    def passes(self, step: int, head: bytes) -> bool:
        at = step - self.first_step
        return 0 <= at < len(self.heads) and self.heads[at] == head


class Broken(NamedTuple):
    """A position that no sent input leads to, and where no generation starts."""

    session: str
    position: Position


def heads_of(burst: Burst) -> list[bytes]:
    """Returns the heads at the burst's start and after each of its time steps."""
    heads = [burst.start.head]
    for row in burst.inputs:
        heads.append(blake2b(heads[-1] + row.tobytes(), digest_size=8).digest())
    return heads


class Paths:
    """The paths of all sessions in a history."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._latest: tuple[tuple[str, bytes], dict[tuple[int, bytes], tuple[bytes, Array]]] | None = None

    def path(self, session: str, end: Position) -> Path | Broken:
        """Returns the path from the start of the generation, for a fork through the source's generation."""
        rows = self._rows(session, end.generation)
        step, head = end.step, end.head
        inputs: list[Array] = []
        heads = [head]
        while (found := rows.get((step, head))) is not None:
            head, row = found
            step -= 1
            inputs.append(row)
            heads.append(head)
        inputs.reverse()
        heads.reverse()
        return self._from_root(session, Position(end.generation, step, head), inputs, heads)

    def _from_root(self, session: str, root: Position, inputs: Sequence[Array], heads: list[bytes]) -> Path | Broken:
        own = np.array(inputs) if inputs else np.zeros((0, 1), np.float32)
        if root.head == blake2b(root.generation, digest_size=8).digest():
            if root.step == 0:
                return Path(None, 0, own, heads)
            for operation in self._operations(session, "set_state"):
                if operation.step == root.step and operation.states and self._may_have_made(operation, root.generation):
                    return Path(operation.states, root.step, own, heads)
            return Broken(session, root)
        for operation in self._operations(session, "fork"):
            there = operation.at_position
            if there is not None and there[1:] == root[1:] and self._may_have_made(operation, root.generation):
                before = self.path(operation.source, there)
                if isinstance(before, Broken):
                    return before
                whole = np.concatenate([before.inputs, own]) if len(before.inputs) and len(own) else own
                whole = before.inputs if not len(own) else whole
                return Path(before.states, before.first_step, whole, before.heads[:-1] + heads)
        return Broken(session, root)

    def _may_have_made(self, operation: Operation, generation: bytes) -> bool:
        """Returns True if the operation made this generation, or may have.

        Its outcome may be unknown, or what it made may be lost and replaced by a late copy's.
        """
        lost = any(fault.loses and fault.ended >= operation.sent_at for fault in self._history.faults)
        return operation.result is None or operation.result.generation == generation or lost

    def _operations(self, session: str, kind: str) -> list[Operation]:
        return [operation for operation in self._history.operations.get(session, ()) if operation.kind == kind]

    def _rows(self, session: str, generation: bytes) -> dict[tuple[int, bytes], tuple[bytes, Array]]:
        """Returns, by the (step, head) after each time step that was sent, the head before it and its input."""
        key = (session, generation)
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        rows: dict[tuple[int, bytes], tuple[bytes, Array]] = {}
        for burst in self._history.bursts.get(session, ()):
            if burst.start.generation == generation:
                heads = heads_of(burst)
                for index, row in enumerate(burst.inputs):
                    rows[burst.start.step + index + 1, heads[index + 1]] = (heads[index], row)
        self._latest = (key, rows)
        return rows
