"""What callers pass in and get back: replies, sessions, models, results, retry settings."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import CellkeeperError, GroupError, ServerError
from .late_step import LateStep
from .position import POSITION_BYTES, Position

Array = NDArray[Any]
Sample = ArrayLike | Mapping[str, ArrayLike]
"""One or more time steps: an array or, for a model with several inputs, a mapping from input name to array."""
STATE_PREFIX = "state."
"""Begins the names of state tensors among outputs."""
MAX_FAILURES = 1000


def _arrays(outputs: Mapping[str, Array]) -> list[str]:
    """Returns for each its name, dtype and shape, for a repr."""
    return [f"{name} {value.dtype}{list(value.shape)}" for name, value in outputs.items()]


def _states(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the state tensors by their own names."""
    return {name.removeprefix(STATE_PREFIX): value for name, value in outputs.items() if name.startswith(STATE_PREFIX)}


@dataclass(slots=True)  # not frozen: construction would take four times as long
class StepReply:
    """The reply to one chunk.

    outputs: by name. Per-step outputs ("prediction", "hidden", ...): [T, ...], or [...] if a single time step was given
    without a time axis. State tensors are named "state.<name>" and hold the state after the chunk. position: after the
    chunk. created: this chunk created the session. replayed: the chunk had been applied before, and its outputs were
    computed again. queued_seconds, computed_seconds: at the server, the maximum over its frame. late_steps: earlier
    steps whose callers had stopped waiting and whose outcome became known since the last reply.
    """

    outputs: Mapping[str, Array]
    position: Position
    created: bool = False
    replayed: bool = False
    queued_seconds: float = 0.0
    computed_seconds: float = 0.0
    late_steps: tuple[LateStep, ...] = ()

    def __repr__(self) -> str:
        parts = _arrays(self.outputs)
        parts.append(f"step {self.position.step}")
        parts += [word for word in ("created", "replayed") if getattr(self, word)]
        if self.late_steps:
            parts.append(f"late_steps {len(self.late_steps)}")
        return f"StepReply({', '.join(parts)})"

    @property
    def output(self) -> Array:
        """The first requested output, "prediction" by default: [T, ...], or [...] for a single time step."""
        for value in self.outputs.values():
            return value
        raise ServerError("the server sent no output", reason="INTERNAL_ERROR")

    @property
    def state(self) -> dict[str, Array]:
        """The state tensors by their own names, such as [layers, size] each; empty unless "state" was requested."""
        return _states(self.outputs)


@dataclass(slots=True, repr=False)
class GroupReply:
    """The replies to one step of a group: what succeeded, in columns, and why the rest failed.

    ids: the members that succeeded, in the order of the step's rows; row i of everything below belongs to ids[i].
    outputs: by name. Per-step outputs: [n, T, ...], or [n, ...] if single time steps were given without a time axis.
    State tensors are named "state.<name>": [n, ...], the states after the step. errors: of the other members, by id.
    late_steps: by id, earlier steps whose callers had stopped waiting and whose outcome became known since the last
    reply. queued_seconds, computed_seconds: at the server, the maximum over its frames. positions, replayed: tuples,
    one item per id, in the order of `ids`. packed_positions, flags: what these two properties decode, 32 bytes and one
    byte per id.
    """

    ids: tuple[str, ...]
    outputs: Mapping[str, Array]
    errors: Mapping[str, CellkeeperError]
    late_steps: Mapping[str, tuple[LateStep, ...]] = field(default_factory=dict)
    queued_seconds: float = 0.0
    computed_seconds: float = 0.0
    packed_positions: bytes = b""
    flags: bytes = b""

    def __repr__(self) -> str:
        parts = [f"ids {len(self.ids)}", *_arrays(self.outputs)]
        parts += [f"{word} {len(found)}" for word in ("errors", "late_steps") if (found := getattr(self, word))]
        return f"GroupReply({', '.join(parts)})"

    @property
    def output(self) -> Array:
        """The first requested output, "prediction" by default: [n, T, ...], or [n, ...].

        Raises GroupError if no member succeeded.
        """
        for value in self.outputs.values():
            return value
        if self.errors:
            raise GroupError("output", self.errors, (), reply=self)
        raise ServerError("the server sent no output", reason="INTERNAL_ERROR")

    @property
    def positions(self) -> tuple[Position, ...]:
        """The positions after the step, one per id."""
        packed = self.packed_positions
        return tuple(Position.unpack(packed, at) for at in range(0, len(packed), POSITION_BYTES))

    @property
    def replayed(self) -> tuple[bool, ...]:
        """True for each id whose step had been applied before, so that its outputs were computed again."""
        return tuple(bool(flag & 2) for flag in self.flags)

    @property
    def state(self) -> dict[str, Array]:
        """The state tensors by their own names, [n, ...]; empty unless "state" was requested."""
        return _states(self.outputs)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as the server knows it.

    fingerprint: 32 bytes, of the session's model version. checkpoint_step: the step of its stored state; the inputs
    after it are in the log. age_seconds: since this generation's first record. idle_seconds: since its last commit.
    ttl_seconds: the idle time after which it expires; 0: never. hot: its state is in the memory of the server that
    answered. damage: what is wrong with the record's header, for a listed session whose header is damaged. Only the
    position is meaningful then; if not even that can be read, its generation is empty.
    """

    session: str
    position: Position
    fingerprint: bytes
    checkpoint_step: int
    age_seconds: float
    idle_seconds: float
    ttl_seconds: float
    hot: bool
    damage: str = ""

    def __repr__(self) -> str:
        if self.damage:
            return f"SessionInfo({self.session!r}, damaged: {self.damage})"
        where = "hot" if self.hot else "cold"
        return f"SessionInfo({self.session!r}, step {self.position.step}, idle {self.idle_seconds:.1f} s, {where})"


@dataclass(slots=True)
class Counters:
    """What a client has done since it was created.

    frames_sent: messages on streams. chunks_sent, steps_sent: chunks and their time steps, including resends. retries:
    chunks and calls that were sent again. replayed_steps: answered time steps that a server had lost and that were sent
    again. stream_reconnects: streams that were opened to replace one that had ended.
    """

    frames_sent: int = 0
    chunks_sent: int = 0
    steps_sent: int = 0
    retries: int = 0
    replayed_steps: int = 0
    stream_reconnects: int = 0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, dtype ("float32", "int32", ...) and shape.

    The shape is that of one time step or, for a state, of one session's tensor. vocabulary: if the model has several
    inputs and this one holds integers, they are 0..vocabulary - 1; otherwise 0.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    vocabulary: int = 0

    def __repr__(self) -> str:
        return f"TensorSpec({self.name!r}, {self.dtype}{list(self.shape)})"

    @property
    def nbytes(self) -> int:
        """Bytes of one time step, or of one session's tensor."""
        return np.dtype(self.dtype).itemsize * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Model:
    """One served model version.

    name: how requests refer to it. fingerprint: 32 bytes, the sha256 of config and weights. numerics: what determines
    the bits of the outputs. engine, device: what computes it. input, outputs, states: TensorSpecs. exact: the outputs
    are bitwise the same in any batch and any chunking. tolerance: the largest relative difference seen: in other
    batches if not exact; on a GPU, also from float64. vocabulary: token models take ids below it; 0: features.
    missing_values: the model accepts NaN. max_chunk_steps, max_frame_items, max_log_steps, max_message_bytes: the
    server's limits; 0: it does not say.
    feedback: for each input feature, the index of the predicted value that becomes this feature in a forecast, or -1 if
    the caller supplies it; empty for token ids (the most likely one); None: the model makes no forecasts.
    feature_names: of the input's features, in order; empty: they have none. inputs: each input of a model with several;
    empty for a model with one. With several, `input` is all of them together: a time step's bytes as they are logged.
    input_feedback: with several inputs, replaces feedback: by name, the index of each predicted value, for the inputs
    that a prediction becomes in a forecast; the caller supplies the others.
    """

    name: str
    fingerprint: bytes
    numerics: str
    exact: bool
    tolerance: float
    engine: str
    device: str
    input: TensorSpec
    vocabulary: int
    missing_values: bool
    outputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...]
    max_chunk_steps: int
    max_frame_items: int
    max_log_steps: int
    feedback: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    input_feedback: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    max_message_bytes: int = 0

    def __repr__(self) -> str:
        exact = "exact" if self.exact else f"within {self.tolerance:g}"
        takes = f"input {self.input.dtype}{list(self.input.shape)}"
        if self.inputs:
            takes = "inputs " + ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in self.inputs)
        return f"Model({self.name!r}, {self.fingerprint.hex()[:8]}, {takes}, {exact}, {self.engine})"


@dataclass(slots=True)
class CarriedOver:
    """The outcome of carrying sessions over.

    counts: by result: "carried", "already" (it belonged to the new version before), "skipped" (it had no window), or
    the reason of an error, such as "GENERATION_CHANGED". failures: errors by session; 1000 at most.
    """

    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, CellkeeperError] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CarriedOver({', '.join(f'{word} {count}' for word, count in sorted(self.counts.items()))})"

    @property
    def total(self) -> int:
        """How many sessions have been processed."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """Sessions that were not carried over because of an error."""
        return sum(count for word, count in self.counts.items() if word not in ("carried", "already", "skipped"))

    def _count(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1

    def _fail(self, session: str, error: CellkeeperError) -> None:
        self._count(error.reason or type(error).__name__)
        if len(self.failures) < MAX_FAILURES:
            self.failures[session] = error


@dataclass(slots=True)
class Deleted:
    """The outcome of deleting sessions.

    deleted: how many were deleted. gone: how many had already been deleted, or had started another generation, which
    stays. failed: how many were not deleted because of an error. failures: these errors, by session; 1000 at most.
    """

    deleted: int = 0
    gone: int = 0
    failed: int = 0
    failures: dict[str, CellkeeperError] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Deleted({self.deleted} deleted, {self.gone} gone, {self.failed} failed)"

    @property
    def total(self) -> int:
        """How many sessions have been looked at."""
        return self.deleted + self.gone + self.failed

    def _count(self, deleted: bool) -> None:
        self.deleted += deleted
        self.gone += not deleted

    def _fail(self, session: str, error: CellkeeperError) -> None:
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures[session] = error


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter.

    The n-th wait is between half and all of first_seconds * 2**n, at most max_seconds. A delay that the server advises
    is the minimum.
    """

    first_seconds: float = 0.02
    max_seconds: float = 2.0

    def wait_seconds(self, attempt: int, advised_ms: int = 0) -> float:
        """Seconds to wait before attempt number `attempt`, counting from 0. advised_ms: the server's advice; 0:
        none."""
        ceiling = min(self.max_seconds, self.first_seconds * 2.0 ** min(attempt, 30))
        return max(advised_ms / 1000.0, ceiling * random.uniform(0.5, 1.0))
