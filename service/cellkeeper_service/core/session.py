"""One session on this replica: its requests, its cached state, and its commit in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, DamagedRecord, Delete

from .models import Version
from .requests import READY, WAITING, Computable, Request, Step


@dataclass(slots=True)
class Checkpoint:
    """A state at a chunk's boundary, kept until the acks reach it. tail: the inputs since."""

    step: int
    head: bytes
    state: bytes
    tail: bytearray


@dataclass(slots=True, eq=False)
class CachedState:
    """A session's state beside the engine. It is a guess that makes the ordinary case fast; the store's compare-and-set
    confirms it.

    header: of the record as last read or committed.
    frontier: the position after everything computed, committed or not.
    seed: the state at the frontier until it is in the arena.
    step, log_start: copies from `frontier` and `header`, as every chunk needs them.
    """

    session: SessionState
    ready: deque[CachedState] = field(repr=False)  # its cache's queue of states with work
    version: Version
    slot: int
    header: Header
    exists: bool  # whether the store holds `header`; False: the first commit writes a whole record
    seed: bytes | None
    frontier: Position
    step: int  # the frontier's
    log_start: int  # the header's checkpoint step
    max_log_steps: int
    current: int = 0  # the one of the slot's two rows that holds the state
    checkpoint: Checkpoint | None = None  # the candidate, not written yet
    replaces: Header | None = None  # the header that the first commit replaces; None: it creates a record
    work: Computable | None = None  # what is being computed on it
    in_batch: bool = False
    dropped: bool = False  # no longer valid; what a batch still computes on it is discarded

    @property
    def row(self) -> int:
        return 2 * self.slot + self.current

    def start(
        self,
        work: Computable,
        inputs: bytes,
        to_compute: int,
        names: frozenset[str] = frozenset(),
        ends: Collection[int] = (),
        unfed: int = 0,
    ) -> None:
        """Queues the work, to be computed on this state. See Computable for the arguments."""
        if work.status is not WAITING or work.to_compute:  # it was started before
            work.computed, work.pieces = 0, ()
            work.checkpoint_at = work.checkpoint_state = work.end_state = None
        work.status = READY
        work.inputs, work.to_compute = inputs, to_compute
        work.names, work.ends, work.unfed = names, ends, unfed
        self.work = work
        self.ready.append(self)

    def stands_at(self, header: Header) -> None:
        """Sets the record's header. Discards a candidate from before its checkpoint, which another replica has written:
        committing it would make the log longer again."""
        self.header, self.log_start = header, header.checkpoint_step
        if self.checkpoint is not None and self.checkpoint.step < self.log_start:
            self.checkpoint = None

    def checkpoint_due(self, steps: int) -> bool:
        """Returns whether the state at the frontier must become a candidate before `steps` more: because one is due, or
        because the log has no room for them otherwise."""
        logged = self.step - self.log_start
        return logged >= self.version.due_steps or logged + steps > self.max_log_steps

    def log_fits(self, step: Step) -> bool:
        """Returns whether the record's log has room for the chunk after what is computed and not committed yet."""
        acks = [one.acked_at(one.at) for one in self.session.pending if isinstance(one, Step)]
        start = self.step if self.checkpoint is None else self.checkpoint.step
        if min([step.acked_at(self.step), *acks]) < start:
            start = self.log_start  # no checkpoint will be written
        return self.step + step.steps - start <= self.max_log_steps

    def make_room(self, step: Step) -> bool:
        """Returns whether the log has room, if need be with another candidate. Call it when nothing is uncommitted.

        A candidate from while replies were missing may leave a log too long for the chunk. If the chunk's sender holds
        all replies, the state at the frontier takes its place.
        """
        if not self.log_fits(step) and step.acked_at(self.step) >= self.step:
            self.checkpoint = None
        return self.log_fits(step)


@dataclass(slots=True, eq=False)
class InflightCommit:
    """A commit or delete that the store has not answered yet. cached: the state that its chunks were computed on; None:
    it has no chunks."""

    session: SessionState
    requests: list[Request]
    call: Commit | Delete
    cached: CachedState | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store held (None: nothing) when it was read for the requests up to number `number`."""

    number: int
    found: Record | DamagedRecord | None


@dataclass(slots=True, eq=False)
class SessionState:
    """The data of a session's state machine, which only the core drives.

    Requests wait in `queue`, first in, first out. One at a time is computed on `cached`. Those computed and not
    committed are `pending`, in order; one commit is in flight at a time. reading: None once anything was sent to the
    store after it.
    """

    key: SessionKey
    queue: deque[Request] = field(default_factory=deque)
    cached: CachedState | None = None
    pending: list[Request] = field(default_factory=list)
    in_flight: InflightCommit | None = None
    loading: bool = False
    load_started: float = 0.0
    load_number: int = 0
    waits_for_slot: bool = False
    reading: Reading | None = None

    @property
    def computing(self) -> Computable | None:
        return None if self.cached is None else self.cached.work

    @property
    def may_advance(self) -> bool:
        """Whether the first request can advance: the session is not being read or computed, nor waiting for a slot."""
        return bool(self.queue) and not self.loading and not self.waits_for_slot and self.computing is None

    @property
    def has_uncommitted(self) -> bool:
        return bool(self.pending) or self.in_flight is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of this session waits, or is being read, computed or written."""
        at_work = self.loading or self.pending or self.in_flight is not None or self.computing is not None
        return not (self.queue or at_work)

    def is_read_for(self, request: Request) -> bool:
        """Returns whether the reading is valid for the request: it was started after the request arrived."""
        return self.reading is not None and request.number <= self.reading.number

    def note_load_seconds(self, requests: Iterable[Request], now: float) -> None:
        """Notes how long the steps among the requests waited for the record and its log replay."""
        for request in requests:
            if isinstance(request, Step) and self.is_read_for(request):
                request.load_seconds = now - max(self.load_started, request.arrived)
