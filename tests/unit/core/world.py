"""A small world without I/O, clocks or threads: replicas around one store.

Every message stays in flight until a test decides what happens next.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request, Rollout, Step, StepReply
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, StoreError
from cellkeeper_service.errors import Rejection
from cellkeeper_service.store.memory import MemoryStore

from .counting_engine import CountingEngine
from .driven_core import DrivenCore

FOREVER = 1e18


def key(session: str = "s") -> SessionKey:
    return SessionKey("", "m", session)


def pack(inputs: list[int]) -> bytes:
    return np.array(inputs, "<i4").tobytes()


class World:
    """`replicas` of the service on one store. Time advances only when a test moves it."""

    def __init__(
        self,
        replicas: int = 1,
        slots: int = 4,
        limits: Limits | None = None,
        replay: int = 3,
        versions: Sequence[bytes] = (b"\1",),
    ) -> None:
        self.now = 0.0
        self.store = MemoryStore(lambda: self.now * 1000)
        numbers = count(1)
        self._slots, self._limits, self._replay = slots, limits or Limits(max_slice_steps=4, max_long_steps=8), replay
        self._mint = lambda: next(numbers).to_bytes(16, "big")
        self.replicas: list[Replica] = []
        for _ in range(replicas):
            self.start(versions)

    def start(self, versions: Sequence[bytes]) -> int:
        """Adds a replica that serves these versions. Returns its number."""
        self.replicas.append(Replica(self, self._slots, self._limits, self._replay, self._mint, versions))
        return len(self.replicas) - 1

    def settle(self) -> None:
        """Runs everything, in order, until nothing is left to do."""
        while any([replica.work() for replica in self.replicas]):  # noqa: C419 - each of them works
            pass

    def step(
        self, inputs: list[int], position: Position | None = None, *, session: str = "s", replica: int = 0, **more: Any
    ) -> Any:
        """Sends one chunk and returns its result after the world has settled."""
        reply = self.send(inputs, position, session=session, replica=replica, **more)
        self.settle()
        return reply.result

    def send(
        self,
        inputs: list[int],
        position: Position | None = None,
        *,
        session: str = "s",
        replica: int = 0,
        acked: int | None = None,
        peek: bool = False,
        wants_state: bool = False,
        deadline: float = FOREVER,
        wanted: Iterable[str] = ("prediction",),
        rollout_steps: int = 0,
        sequence: Sequenced | None = None,
    ) -> Reply:
        """Sends one chunk. Its reply arrives once the world has run far enough."""
        reply = Reply()
        step = Step(
            key(session),
            deadline,
            reply,
            pack(inputs),
            len(inputs),
            position,
            acked,
            peek,
            frozenset(wanted),
            wants_state,
            sequence=sequence,
        )
        if rollout_steps:
            step.rollout = Rollout(rollout_steps, np.zeros((rollout_steps, 0), "<i4"))
        reply.request = step
        self.replicas[replica].core.submit(step)
        return reply

    def send_together(self, items: Mapping[str, tuple[int, Position]]) -> list[Reply]:
        """Sends single steps together, as in a frame. items: each session's input and position."""
        replies: list[Reply] = []
        steps: list[Step] = []
        for session, (value, position) in items.items():
            reply = Reply()
            wanted = frozenset(["prediction"])
            step = Step(key(session), FOREVER, reply, pack([value]), 1, position, None, False, wanted, False)
            reply.request = step
            replies.append(reply)
            steps.append(step)
        self.replicas[0].core.submit_alike(steps)
        return replies

    def ask(self, request: Request, reply: Reply, replica: int = 0) -> Any:
        reply.request = request
        self.replicas[replica].core.submit(request)
        self.settle()
        return reply.result


@dataclass(eq=False)
class Reply:
    """Receives a request's result, exactly once.

    request: what was sent. result: what the caller is told; None until then.
    """

    result: Any = None
    request: Request | None = None

    def __call__(self, requests: Sequence[Request]) -> None:
        if self.result is not None or len(requests) > 1:
            raise AssertionError("answered twice")
        self.result = requests[0].reply()

    @property
    def outputs(self) -> list[int]:
        if not isinstance(self.result, StepReply):
            raise AssertionError(f"no outputs: {self.result!r}")
        values: list[int] = self.result.outputs["prediction"].tolist()
        return values


@dataclass(eq=False)
class Write:
    """Commits or deletes on their way to the store and back."""

    commits: list[InflightCommit]
    calls: list[Any]
    sent: bool = False
    results: list[CommitResult] = field(default_factory=list)


class Replica:
    def __init__(
        self, world: World, slots: int, limits: Limits, replay: int, mint: Any, versions: Sequence[bytes]
    ) -> None:
        self.world = world
        clock = Clock(lambda: world.now, lambda: int(world.now * 1000))
        self.models = Models([Version(CountingEngine(version=version), slots, replay) for version in versions])
        self.core = DrivenCore({"m": self.models}, limits, clock, Meter(), mint)
        self.version = self.models.default
        self.engine: Any = self.version.engine  # tests inspect its calls
        self.loads: list[tuple[list[SessionState], list[Load]]] = []
        self.batches: list[Batch] = []
        self.writes: list[Write] = []

    @property
    def sessions(self) -> dict[SessionKey, SessionState]:
        return self.core.context.sessions

    @property
    def waiting_for_slot(self) -> list[str]:
        """The names of the sessions that wait for a slot, in order."""
        waiting = self.core.context.cache_of(self.version).waiting
        return [session.key.session for session in waiting]

    def count_with(self, meter: Meter) -> None:
        self.core.context.meter = meter

    def check_rest(self) -> None:
        """Checks that nothing is left but cached sessions without work."""
        assert not self.waiting_for_slot
        context = self.core.context
        admission = context.admission
        assert (admission.unanswered, admission.unanswered_bytes, len(context.queued)) == (0, 0, 0)
        assert not self.core.holds_work
        assert all(session.cached is not None for session in self.sessions.values())
        assert all(session.idle and session.key == name for name, session in self.sessions.items())
        assert len(self.sessions) == self.core.cached_count("m")

    def work(self) -> bool:
        """Does everything that can be done now, without loss. Returns False if there was nothing to do."""
        self.collect()
        if not (self.loads or self.batches or self.writes):
            return self.core.wants_load or self.core.has_work or self.core.wants_commit
        while self.loads:
            self.load(0)
        while self.batches:
            self.compute(0)
        while self.writes:
            self.deliver(0)
        return True

    def collect(self) -> None:
        """Takes the core's pending work: loads, batches and writes."""
        sessions, loads = self.core.take_loads()
        if loads:
            self.loads.append((sessions, loads))
        if not self.batches:
            self.batches = self.core.schedule()
        commits = self.core.take_commits()
        for kind in (Commit, Delete):
            some = [commit for commit in commits if isinstance(commit.call, kind)]
            if some:
                self.writes.append(Write(some, [commit.call for commit in some]))

    def load(self, index: int, lose: bool = False) -> None:
        sessions, loads = self.loads.pop(index)
        lost = [StoreError("lost")] * len(loads)
        self.core.on_loaded(sessions, lost if lose else self.world.store.load_many(loads))

    def compute(self, index: int) -> None:
        batch = self.batches.pop(index)
        batch.execute()
        self.core.on_computed(batch)

    def reach_store(self, write: Write) -> None:
        store = self.world.store
        many = store.commit_many if isinstance(write.calls[0], Commit) else store.delete_many
        write.results = many(write.calls)
        write.sent = True

    def deliver(self, index: int) -> None:
        """Delivers the answer of a write, which reaches the store now if it has not yet."""
        write = self.writes.pop(index)
        if not write.sent:
            self.reach_store(write)
        self.core.on_committed(write.commits, write.results)

    def lose(self, index: int) -> Write:
        """Loses the answer of a write. Returns the write, which may have reached the store or may still reach it."""
        write = self.writes.pop(index)
        self._answer(write, CommitResult(Outcome.UNKNOWN, None, "lost"))
        return write

    def refuse(self, index: int) -> None:
        self._answer(self.writes.pop(index), CommitResult(Outcome.REFUSED, None, "full"))

    def _answer(self, write: Write, result: CommitResult) -> None:
        self.core.on_committed(write.commits, [result] * len(write.commits))


def reason(result: Any) -> str:
    """Returns the name of a rejection's reason."""
    if not isinstance(result, Rejection):
        raise AssertionError(f"expected a rejection, got {result!r}")
    return result.reason.name


def some_chunk(draw: random.Random) -> list[int]:
    return [draw.randrange(1000, 9999) for _ in range(draw.choice([1, 1, 1, 2, 3, 5, 9]))]
