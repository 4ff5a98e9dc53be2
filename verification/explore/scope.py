"""What is explored: who does what, and how often what may go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .sequential_model import Inputs

TTL_MS = 1000


class Open(NamedTuple):
    """Creates the session, or continues it. ttl_ms: the TTL that it asks for; None: as it is, and new the default."""

    session: str
    ttl_ms: int | None = None


class Steps(NamedTuple):
    """Steps with positions, pipelined; each chunk's inputs occur nowhere else in the scope."""

    session: str
    chunks: tuple[Inputs, ...]
    window: int = 1


class GroupSteps(NamedTuple):
    """Steps of a group, one row after another: each row has one input for every session."""

    sessions: tuple[str, ...]
    rows: tuple[Inputs, ...]


class Append(NamedTuple):
    """One step without a position."""

    session: str
    value: int


class Start(NamedTuple):
    """The first step of a sequence, without a position: it starts the session anew."""

    session: str
    value: int


class Follow(NamedTuple):
    """A further step of a sequence: it names its position by the step number alone."""

    session: str
    value: int
    step: int


class Reset(NamedTuple):
    session: str


class SetState(NamedTuple):
    """Starts a generation at the state and the step that these inputs would lead to. They occur nowhere else."""

    session: str
    inputs: Inputs


class Delete(NamedTuple):
    session: str


class Fork(NamedTuple):
    """ttl_ms: the copy's; None: the source's."""

    source: str
    target: str
    ttl_ms: int | None = None


class CarryOver(NamedTuple):
    """Moves the session to another version. Its state is computed from `window`; without one it is kept, or with
    `reset` it becomes the initial one."""

    session: str
    version: int
    window: Inputs = ()
    reset: bool = False


class Peek(NamedTuple):
    """Asks what the session would answer to a step, without applying it; then for `rolled` time steps more, whose
    inputs are the predictions. A client that has the session names its position."""

    session: str
    value: int
    rolled: int = 0


class GetState(NamedTuple):
    session: str


Item = Open | Reset | SetState | Delete | CarryOver


class Many(NamedTuple):
    """One call with several items, each for a session of its own. Those that fail for a transient reason are sent again
    one by one."""

    items: tuple[Item, ...]


Op = Item | Steps | GroupSteps | Append | Start | Follow | Fork | Peek | GetState | Many
READS = (Peek, GetState)


@dataclass(frozen=True)
class Scope:
    """What a set of clients does, and which faults may happen.

    scripts: one for each client. due_steps: when a checkpoint is due. other_due_steps: the same on the second replica,
    if its setting differs.

    How often each fault may happen in one history:

    slow: a request is delayed for any length of time.
    timeouts: a client stops waiting for a reply and sends again.
    unknowns: the store's answer is lost, and the commit may still be executed later.
    refusals: the store refuses a commit.
    unread: a record could not be read.
    fall_backs: the store loses its last commits, at most `depth`.
    power_cuts: the store stops and restarts, its append-only file cut anywhere after what is safe: with `synced`
    (appendfsync always) all that somebody was told of, without it all but `depth` runs of the script. A plain restart
    is one of them.
    restarts: a client crashes and restarts. expects: it insists on its own history.
    give_ups: a caller's deadline passes.
    crashes: a replica crashes and restarts.
    overdue: the deadline of a request passes at the replica that has it.
    gone: a caller goes away, which the replica notices; the client sends again.
    expiries: a session that was idle for its TTL expires.

    frames: what several clients send, each to its own session, may also arrive in one frame.
    slots: sessions in a replica's state cache. buffer_steps: inputs that a client keeps.
    max_log_steps: of the record's log. steady: the longest log allowed at the end; 0: any length.
    atomic_reads, atomic_commits: the store executes and answers in one event.
    serves: the versions of each replica, the first for new sessions. exchanges: a replica exchanges its versions for
    one of `others`.
    commits_together: a replica's commits that are ready at the same time go to the store in one call.
    one_call: a replica has one read and one write under way; what else is to be read or written waits for them.
    """

    scripts: tuple[tuple[Op, ...], ...]
    replicas: int = 2
    slow: int = 0
    timeouts: int = 0
    unknowns: int = 0
    refusals: int = 0
    unread: int = 0
    fall_backs: int = 0
    power_cuts: int = 0
    synced: bool = True
    depth: int = 1
    restarts: int = 0
    expects: bool = False
    give_ups: int = 0
    crashes: int = 0
    overdue: int = 0
    gone: int = 0
    expiries: int = 0
    exchanges: int = 0
    others: tuple[bytes, ...] = ()
    serves: tuple[bytes, bytes] = (b"\1", b"\1")
    frames: bool = False
    due_steps: int = 1
    other_due_steps: int = 0
    slots: int = 4
    buffer_steps: int = 1024
    max_log_steps: int = 8
    atomic_reads: bool = True
    atomic_commits: bool = False
    commits_together: bool = False
    one_call: bool = False
    steady: int = 0

    @property
    def ops(self) -> list[Op]:
        """Returns what all clients do, item by item."""
        return [
            one for script in self.scripts for op in script for one in (op.items if isinstance(op, Many) else (op,))
        ]

    @property
    def shared(self) -> bool:
        """True if several clients change one session."""
        used = [
            {name for op in script if not isinstance(op, READS) for name in sessions_of(op)} for script in self.scripts
        ]
        return any(one & other for index, one in enumerate(used) for other in used[:index])

    @property
    def default_ttl_ms(self) -> int:
        """The TTL of a new session for which none is asked."""
        return TTL_MS if self.expiries else 0

    def ttls_ms(self, session: str) -> set[int]:
        """Returns every TTL that a record of the session may have."""
        found = {self.default_ttl_ms} if self.restarts else set()  # a copy that was lost is opened anew
        for op in self.ops:
            if isinstance(op, Fork) and op.target == session:
                found |= self.ttls_ms(op.source) if op.ttl_ms is None else {op.ttl_ms}
            elif isinstance(op, Open | Append | Start) and op.session == session:
                asked = op.ttl_ms if isinstance(op, Open) else None
                found |= {self.default_ttl_ms if asked is None else asked}
        return found

    @property
    def two_versions(self) -> bool:
        return bool(self.others) or len({*b"".join(self.serves)}) > 1

    @property
    def set_states(self) -> tuple[Inputs, ...]:
        """The inputs whose states are set."""
        return tuple(op.inputs for op in self.ops if isinstance(op, SetState))

    @property
    def windows(self) -> tuple[Inputs, ...]:
        """What carry-overs compute sessions anew from."""
        return tuple(op.window for op in self.ops if isinstance(op, CarryOver) and op.window)

    @property
    def peeked(self) -> frozenset[int]:
        """The inputs that are only peeked with."""
        return frozenset(op.value for op in self.ops if isinstance(op, Peek))


def items_of(op: Any) -> tuple[Any, ...]:
    """Returns the items of a call that has several; otherwise the operation itself."""
    return op.items if isinstance(op, Many) else (op,)


def sessions_of(op: Op) -> tuple[str, ...]:
    if isinstance(op, Many):
        return tuple(name for item in op.items for name in sessions_of(item))
    return op.sessions if isinstance(op, GroupSteps) else tuple(name for name in op if isinstance(name, str))


def steps(session: str, *values: int | Inputs, window: int = 1) -> Steps:
    """Returns Steps with chunks of one step, or of several for a tuple."""
    return Steps(session, tuple(value if isinstance(value, tuple) else (value,) for value in values), window)
