"""The sequential model: a session is the tuple of the inputs it has consumed, and nothing else.

Every head that occurs is recorded here with the inputs that it names, so that any position can be read as a tuple. The
ledger follows what the store accepts and compares it with that model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, StoreError

from tests.unit.core.counting_engine import FACTOR, expected

WIDTH = 4
Inputs = tuple[int, ...]
"""Inputs consumed. Those of version 2 are VERSION larger than what was sent, as it computes other outputs from them."""

VERSION = 1_000_000


class Violation(AssertionError):
    """A broken promise. The text says which, and how."""


@dataclass(frozen=True)
class Origin:
    """What a head names: the inputs consumed since a generation's start; for a fork, since the source's start."""

    generation: bytes
    inputs: Inputs


_origins: dict[bytes, Origin] = {}
_offsets: dict[bytes, int] = {}  # by generation, according to its version


def forget() -> None:
    """Forgets all heads of earlier explorations."""
    _origins.clear()
    _offsets.clear()


def created(generation: bytes) -> None:
    """Records a minted generation; its first head names the empty tuple."""
    _origins.setdefault(first_position(generation).head, Origin(generation, ()))


def generation_name(generation: bytes) -> str:
    """Returns the name of a generation in a story: its number, unless a client chose it. See Universe.mint."""
    number = generation[8:] if not any(generation[8:15]) else generation
    return f"g{number.lstrip(bytes(1)).hex() or '0'}"


def learn(start: Position, inputs: Inputs) -> Position:
    """Returns the position after `inputs`, and records every head on the way."""
    position = start
    for value in inputs:
        origin = _origins.get(position.head)
        position = advance(position, pack((value,)), WIDTH)
        if origin is not None:
            item = value + _offsets.get(origin.generation, 0)
            _origins.setdefault(position.head, Origin(origin.generation, (*origin.inputs, item)))
    return position


def carried(generation: bytes, inputs: Inputs) -> None:
    """Records that a generation continues after these inputs of another one."""
    _origins[first_position(generation).head] = Origin(generation, inputs)


def plain(inputs: Inputs) -> Inputs:
    """Returns the inputs as they were sent."""
    return tuple(value % VERSION for value in inputs)


def offset_of(fingerprint: bytes) -> int:
    """Returns what is added to the inputs of a version."""
    return (fingerprint[0] - 1) * VERSION


def rolled(head: bytes, inputs: Inputs, steps: int) -> Inputs:
    """Returns the history after `head`, these inputs, and `steps` predictions as inputs."""
    origin = _origins[head]
    offset = _offsets.get(origin.generation, 0)
    whole = origin.inputs + tuple(value + offset for value in inputs)
    for _ in range(steps):
        whole += (outputs_after(whole, 1)[0] % 1000 + offset,)
    return whole


def heads() -> list[bytes]:
    """Returns every head that names a history."""
    return list(_origins)


def histories(steps: int) -> list[tuple[bytes, Inputs]]:
    """Returns every head that names so many inputs, and the inputs."""
    return [(head, origin.inputs) for head, origin in _origins.items() if len(origin.inputs) == steps]


def origin_of(head: bytes) -> Origin | None:
    """Returns what the head names; None: no such history ever existed."""
    return _origins.get(head)


def consumed(position: Position) -> Inputs:
    """Returns the inputs that a position names. Raises Violation if it names none."""
    origin = _origins.get(position.head)
    if origin is None:
        raise Violation(f"the head of a position at step {position.step} belongs to no history")
    if len(origin.inputs) != position.step:
        raise Violation(f"the head of a position at step {position.step} belongs to {len(origin.inputs)} inputs")
    return origin.inputs


def outputs_after(inputs: Inputs, last: int) -> list[int]:
    """Returns the sequential model's outputs for the last `last` of these inputs."""
    total, outputs = 0, []
    for item in inputs:
        version, value = divmod(item, VERSION)
        (total,) = expected((value,), total, FACTOR + version)
        outputs.append(total)
    return outputs[len(inputs) - last :]


def state_after(inputs: Inputs) -> bytes:
    """Returns the state after these inputs."""
    return (outputs_after(inputs, 1) or [0])[-1].to_bytes(8, "little")


def version_of(generation: bytes) -> int:
    """Returns the version of a generation that the store holds or held."""
    return 1 + _offsets[generation] // VERSION


def pack(inputs: Inputs) -> bytes:
    return np.array(plain(inputs), "<i4").tobytes()


def unpack(raw: bytes) -> Inputs:
    return tuple(np.frombuffer(raw, "<i4").tolist())


def content(record: Record) -> Inputs:
    """Returns the inputs that a record stands for. Raises Violation if it does not match its header."""
    inputs, start = consumed(record.position), record.header.checkpoint_step
    if int.from_bytes(record.checkpoint, "little") != (outputs_after(inputs[:start], 1) or [0])[-1]:
        raise Violation(f"the record's checkpoint is not the state after {inputs[:start]}")
    if unpack(record.log) != plain(inputs[start:]):
        raise Violation(
            f"the record's log is {unpack(record.log)}, but its inputs after the checkpoint are {inputs[start:]}"
        )
    return inputs


@dataclass
class Ledger:
    """What the store holds of each session, derived from what it accepted.

    standing: generation and inputs of each record. ended: generations that were replaced or deleted. durable: every
    (generation, inputs) that a record ever was. peeked: inputs that nobody applies. windows: what carry-overs compute
    sessions anew from. set_states: the inputs whose states are set. ttls_ms: returns the TTLs that a session may have.
    """

    max_log_steps: int
    peeked: frozenset[int] = frozenset()
    windows: tuple[Inputs, ...] = ()
    set_states: tuple[Inputs, ...] = ()
    ttls_ms: Callable[[str], set[int]] | None = None
    standing: dict[SessionKey, tuple[bytes, Inputs]] = field(default_factory=dict)
    ended: frozenset[bytes] = frozenset()
    durable: frozenset[tuple[bytes, Inputs]] = frozenset()

    def committed(self, commit: Commit, record: Record | StoreError | None) -> None:
        """Records a commit that the store accepted, and the record it then holds.

        Raises Violation if the record does not match its header.
        """
        header = commit.header
        before = self.standing.get(commit.key)
        self._name(header, commit.checkpoint, before)
        after = self._content(commit, before)
        generation, start = header.position.generation, header.checkpoint_step
        if generation in self.ended:
            raise Violation("a generation that was replaced or deleted is in the store again")
        if before is not None and before[0] == generation and after[: len(before[1])] != before[1]:
            raise Violation(f"committed steps are lost: the record was {before[1]}, and is now {after}")
        if len(set(plain(after))) != len(after):
            raise Violation(f"a step is applied twice: the record is {after}")
        if self.peeked.intersection(plain(after)):
            raise Violation(f"a peek is applied: the record is {after}")
        named = origin_of(header.position.head)
        if named is None or named.inputs != after or header.position.step != len(after):
            text = "no history" if named is None else str(named.inputs)
            raise Violation(f"the record continues after a gap: its inputs are {after}, but its position names {text}")
        if self.ttls_ms is not None and header.ttl_ms not in (asked := self.ttls_ms(commit.key.session)):
            raise Violation(f"{commit.key.session} has a TTL of {header.ttl_ms} ms, but {sorted(asked)} was asked for")
        if not isinstance(record, Record):
            raise Violation(str(record))
        if record.header != header:
            raise Violation(
                f"the record is at step {record.position.step}, but its last commit is at {header.position.step}"
            )
        content(record)
        if len(after) - start > self.max_log_steps:
            raise Violation(f"the log exceeds its limit: {len(after) - start} steps, at most {self.max_log_steps}")
        if before is not None and before[0] != generation:
            self.ended |= {before[0]}
        self.standing[commit.key] = (generation, after)
        self.durable |= {(generation, after)}

    def _name(self, header: Header, checkpoint: bytes | None, before: tuple[bytes, Inputs] | None) -> None:
        """Records a generation's version, and what it begins with: nothing, a state that is set, what it carries over,
        or a window."""
        generation, offset = header.position.generation, offset_of(header.fingerprint)
        if _offsets.setdefault(generation, offset) != offset:
            raise Violation("the session goes on with another version in the same generation")
        first = first_position(generation)
        if before is None or before[0] == generation:
            return
        if header.checkpoint_step and header.position.head == first.head:
            is_set = [one for one in self.set_states if state_after(one) == checkpoint]
            carried(generation, is_set[0] if is_set else before[1])
        elif origin_of(header.position.head) is None:
            for window in self.windows:
                learn(first, window)

    def restarted(self, standing: dict[SessionKey, tuple[bytes, Inputs]]) -> None:
        """Records that the store restarted with these records: commits may be lost, and lost ones may be back."""
        self.standing = standing
        self.ended -= {generation for generation, _ in standing.values()}
        self.durable |= set(standing.values())

    def deleted(self, key: SessionKey) -> None:
        generation, _ = self.standing.pop(key)
        self.ended |= {generation}

    def was_durable(self, generation: bytes, inputs: Inputs) -> bool:
        return any(of == generation and held[: len(inputs)] == inputs for of, held in self.durable)

    def _content(self, commit: Commit, before: tuple[bytes, Inputs] | None) -> Inputs:
        """Returns the inputs that the record actually stands for now."""
        logged = tuple(value + offset_of(commit.header.fingerprint) for value in unpack(commit.log))
        if commit.checkpoint is None:
            inputs = () if before is None else before[1]
            if commit.expected is not None and consumed(commit.expected.position) == inputs:
                learn(commit.expected.position, unpack(commit.log))
            return inputs + logged
        header = commit.header
        start = Position(header.position.generation, header.checkpoint_step, header.checkpoint_head)
        learn(start, unpack(commit.log))
        return consumed(start) + logged
