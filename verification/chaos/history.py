"""What was sent and what came back, as the clients saw it: what the checker judges.

Times are seconds of the monotonic clock of the one process that runs all clients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from testing.wire_client import Position

Array = NDArray[Any]

LATE = "late copy"
INTERFERING = "interfering client"
COPY = "copy"
"""Senders other than the session's own client."""
OPENING = ", opening "


def sender_of(client: str, opening: int) -> str:
    """Returns a client's name as a sender: a new one each time that it opens a session."""
    return f"{client}{OPENING}{opening}"


def client_of(sender: str) -> str:
    return sender.partition(OPENING)[0]


class Ack(NamedTuple):
    """The answer to `rows` time steps.

    position: after them, according to the server. outputs: by name, [rows, ...]. states: by name, the state after them,
    if requested. applied: not marked as a replay.
    """

    rows: int
    at: float
    position: Position
    outputs: Mapping[str, Array]
    states: Mapping[str, Array]
    applied: bool


@dataclass(slots=True, eq=False)
class Burst:
    """Consecutive time steps of one session, sent by one sender, in one chunk or in several.

    start: the position of the first. inputs: [N, F]. acks: of its first rows, in order. error: the wire's reason why
    the rest was not answered; "CLIENT_KILLED" if its sender was killed; empty while it is in flight. late: an old copy
    of something that was sent before. quiet: sent when no fault was left.
    """

    session: str
    model: str
    start: Position
    inputs: Array
    acked: int  # up to which step the sender said it holds replies
    sender: str
    sent_at: float
    acks: list[Ack] = field(default_factory=list)
    error: str = ""
    error_text: str = ""
    error_at: float = 0.0
    late: bool = False
    quiet: bool = False
    window_chunks: int = 0  # so many of its chunks may be in flight; 0: all of them
    acked_later: int = 0  # what its later chunks may have said, at most
    wanted: tuple[str, ...] = ("prediction",)  # the outputs that it asked for; "state": the state after each chunk

    @property
    def acked_at_most(self) -> int:
        return max(self.acked, self.acked_later)

    @property
    def last_sent_at(self) -> float:
        """A time before which its last answered chunk was not sent."""
        chunks = self.window_chunks
        return self.acks[-1 - chunks].at if 0 < chunks < len(self.acks) else self.sent_at

    @property
    def end_step(self) -> int:
        return self.start.step + len(self.inputs)

    @property
    def acked_rows(self) -> int:
        return sum(ack.rows for ack in self.acks)

    @property
    def complete(self) -> bool:
        return self.acked_rows == len(self.inputs)


@dataclass(slots=True, eq=False)
class Operation:
    """An operation that starts, ends, copies or finds a generation of a session.

    kind: open, reset, set_state, fork, delete. generation: the one that it names; empty if it names none. result: the
    position that came back. states: of set_state, by name. expect: of an open. source, at_position: of a fork into
    `session`. at: when the answer came; 0: there was none.
    """

    kind: str
    session: str
    model: str
    sender: str
    sent_at: float
    generation: bytes = b""
    result: Position | None = None
    created: bool = False
    deleted: bool = False
    step: int = 0
    states: Mapping[str, Array] = field(default_factory=dict)
    expect: Position | None = None
    source: str = ""
    at_position: Position | None = None
    at: float = 0.0
    error: str = ""
    error_text: str = ""

    @property
    def succeeded(self) -> bool:
        return self.at > 0 and not self.error


class FinalRead(NamedTuple):
    """How a session was when everything was over, read through one server.

    position: None if the session does not exist, or cannot be read: then `error` says why.
    """

    session: str
    model: str
    position: Position | None
    states: Mapping[str, Array]
    replica: int
    asked_at: float
    at: float
    error: str = ""


class Fault(NamedTuple):
    """A fault. loses: the store may lose its last commits. of_store: the store, or a connection to it, is disturbed."""

    kind: str
    target: str
    began: float
    ended: float
    loses: bool
    of_store: bool = False


class PowerCut(NamedTuple):
    """A power cut of a store's append-only file.

    It had to keep `synced_bytes`, had `size_bytes`, and was cut to `kept_bytes`. in_transaction: it was cut in the
    middle of a command of a transaction, so that a part of the transaction stays.
    """

    at: float
    synced_bytes: int
    size_bytes: int
    kept_bytes: int
    in_transaction: bool


class Metrics(NamedTuple):
    """Time steps applied, chunks answered, and those of them that were answered from the log."""

    steps: int
    chunks: int
    replayed: int

    def since(self, before: Metrics) -> Metrics:
        return Metrics(*(now - then for now, then in zip(self, before, strict=True)))


class RefusedStart(NamedTuple):
    """A server that was started, said why it cannot serve, and ended."""

    server: int
    began: float
    ended: float
    words: str


@dataclass
class History:
    """Everything that clients and the harness saw in a round.

    idle_reads: of the sessions that expire, in the end, with nothing in between but time. ttls: seconds by session, for
    those that expire. models: model names by session. metrics: of the quiet end: as the clients saw it, and as the
    servers counted. crashes: of servers, on their own. refused_starts: of servers,
    which were started again.
    """

    bursts: dict[str, list[Burst]] = field(default_factory=lambda: defaultdict(list))
    operations: dict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    final_reads: list[FinalRead] = field(default_factory=list)
    idle_reads: dict[str, list[FinalRead]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    ttls: dict[str, float] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    refused_starts: list[RefusedStart] = field(default_factory=list)
    power_cuts: list[PowerCut] = field(default_factory=list)
    metrics: tuple[Metrics, Metrics] | None = None

    def add_burst(self, burst: Burst) -> Burst:
        self.bursts[burst.session].append(burst)
        self.models[burst.session] = burst.model
        return burst

    def add_operation(self, operation: Operation) -> Operation:
        self.operations[operation.session].append(operation)
        self.models[operation.session] = operation.model
        return operation

    def count_bursts(self) -> int:
        return sum(map(len, self.bursts.values()))

    def errors(self) -> list[tuple[str, bool]]:
        """Returns every error that a client saw: the reason, and whether it was the answer to a late copy."""
        seen = [(burst.error, burst.late) for bursts in self.bursts.values() for burst in bursts if burst.error]
        return seen + [
            (operation.error, False)
            for operations in self.operations.values()
            for operation in operations
            if operation.error
        ]

    def acknowledged_steps(self) -> int:
        """Returns the number of acknowledged steps, without late copies."""
        return sum(burst.acked_rows for bursts in self.bursts.values() for burst in bursts if not burst.late)

    def acknowledged_chunks(self) -> tuple[int, int]:
        """Returns the number of acknowledged chunks and of those with one time step, without late copies."""
        of_bursts = (burst for bursts in self.bursts.values() for burst in bursts if not burst.late)
        single = [ack.rows == 1 for burst in of_bursts for ack in burst.acks]
        return len(single), sum(single)
