"""What a client gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ._session.late_steps import LateStep
from .errors import ServerError
from .position import Position

Array = NDArray[Any]


@dataclass(slots=True)  # not frozen: that makes it four times as slow to make
class StepReply:
    """The answer to one chunk.

    outputs: by name. Per-step outputs ("prediction", "hidden", ...): [T, ...], or [...] where a single time step
    was given without its axis. State tensors are named "state.<name>": the state after the chunk.
    position: after the chunk. created: this chunk made the session. replayed: it had been applied before, and its
    outputs were computed again. queued_seconds, computed_seconds: at the server, the longest of its frame. late_steps:
    steps before this one whose callers had stopped waiting, and of which it is known since the last reply whether
    they count.
    """

    outputs: Mapping[str, Array]
    position: Position
    created: bool = False
    replayed: bool = False
    queued_seconds: float = 0.0
    computed_seconds: float = 0.0
    late_steps: tuple[LateStep, ...] = ()

    @property
    def output(self) -> Array:
        """The first output that was asked for: "prediction" by default."""
        for value in self.outputs.values():
            return value
        raise ServerError("the server sent no output")

    @property
    def state(self) -> dict[str, Array]:
        """The state tensors, by their own names; empty unless "state" was asked for."""
        return {name[6:]: value for name, value in self.outputs.items() if name.startswith("state.")}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as the server knows it.

    age_ms: since this generation's first record. idle_ms: since its last commit. ttl_ms: forgotten when idle this
    long; 0: never. hot: its state lies beside the engine of the server that answered. damage: of a listed session whose
    record's header is damaged, in which way; only its position says something then, and where not even that can be
    read, its generation is empty.
    """

    session: str
    position: Position
    fingerprint: bytes
    checkpoint_step: int
    age_ms: int
    idle_ms: int
    ttl_ms: int
    hot: bool
    damage: str = ""


@dataclass(slots=True)
class Counters:
    """What a client did since it was made."""

    frames_sent: int = 0
    chunks_sent: int = 0  # resends included
    steps_sent: int = 0  # time steps, resends included
    retries: int = 0  # chunks and calls that were sent again
    replayed_steps: int = 0  # answered time steps that a server had lost and got again
    stream_reconnects: int = 0
