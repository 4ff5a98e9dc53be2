"""A small world without I/O, clocks or threads: replicas around one store, and every message in the air, so that a
test decides what happens next."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from cellkeeper_service.core.models import Models as CoreModels
from cellkeeper_service.core.models import Version
from cellkeeper_service.domain.meter import Meter, NullMeter
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Outcome, StoreError
from cellkeeper_service.errors import Rejection
from cellkeeper_service.sessions.limits import Clock, Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.requests import Request, Step, StepReply
from cellkeeper_service.sessions.rollout import Rollout
from cellkeeper_service.sessions.served import Models, Served
from cellkeeper_service.sessions.sessions import Sessions
from cellkeeper_service.store.memory import MemoryStore

from .columns import Frame, submit_alone
from .counting_engine import CountingEngine
from .driven_core import DrivenCore

FOREVER = 1e18


def key(session: str = "s") -> SessionKey:
    return SessionKey("", "m", session)


def pack(inputs: list[int]) -> bytes:
    return np.array(inputs, "<i4").tobytes()


class World:
    """`replicas` of the service on one store. Time stands still unless a test moves it.

    one_by_one: what is to go the short way comes as steps of their own, not as a frame.
    """

    one_by_one = False
    core = False  # the replicas run the new core

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
        self._slots, self._limits, self._replay = slots, limits or Limits(tick=TickLimits(4, 8)), replay
        self._mint = lambda: next(numbers).to_bytes(16, "big")
        self.replicas: list[Replica] = []
        for _ in range(replicas):
            self.start(versions)

    def start(self, versions: Sequence[bytes]) -> int:
        """One more replica, which serves these versions; its number."""
        self.replicas.append(Replica(self, self._slots, self._limits, self._replay, self._mint, versions))
        return len(self.replicas) - 1

    def settle(self) -> None:
        """Lets everything happen, in order, until nothing is left to do."""
        while any([replica.work() for replica in self.replicas]):  # noqa: C419 - each of them works
            pass

    def step(
        self, inputs: list[int], position: Position | None = None, *, session: str = "s", replica: int = 0, **more: Any
    ) -> Any:
        """Sends one chunk and returns its result once the world has settled."""
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
        short: bool = False,
        rollout_steps: int = 0,
    ) -> Reply:
        """short: as the one item of a frame, or as a step that comes by itself."""
        reply = Reply()
        wanted = frozenset(["prediction"])
        step = Step(
            key(session), deadline, reply, pack(inputs), len(inputs), position, acked, peek, wanted, wants_state
        )
        if rollout_steps:
            step.rollout = Rollout(rollout_steps, np.zeros((rollout_steps, 0), "<i4"))
        reply.request = step
        sessions = self.replicas[replica].sessions
        if short:
            self.submit_together([step], sessions)
        else:
            sessions.submit(step)
        return reply

    def send_frame(
        self,
        items: Mapping[str, tuple[int, Position]],
        *,
        replica: int = 0,
        acked: int | None = None,
        deadline: float = FOREVER,
    ) -> tuple[Frame, list[Reply]]:
        """One frame of single steps: by session, the input and where it belongs."""
        replies, steps, wanted = [], [], frozenset(["prediction"])
        for session, (value, position) in items.items():
            reply = Reply()
            step = Step(key(session), deadline, reply, pack([value]), 1, position, acked, False, wanted, False)
            reply.request = step
            replies.append(reply)
            steps.append(step)
        return self.submit_together(steps, self.replicas[replica].sessions), replies

    def submit_together(self, steps: Sequence[Step], sessions: Any) -> Frame:
        """Short, one way or the other."""
        frame = Frame(steps)
        if self.one_by_one:
            for step in steps:
                submit_alone(step, sessions)
        else:
            frame.submit(sessions)
        return frame

    def ask(self, request: Request, reply: Reply, replica: int = 0) -> Any:
        reply.request = request
        self.replicas[replica].sessions.submit(request)
        self.settle()
        return reply.result


@dataclass(eq=False)
class Reply:
    """A reply channel; it must be used once."""

    result: Any = None
    request: Request | None = None

    def __call__(self, result: Any) -> None:
        if self.result is not None:
            raise AssertionError("answered twice")
        self.result = result

    @property
    def outputs(self) -> list[int]:
        if not isinstance(self.result, StepReply):
            raise AssertionError(f"no outputs: {self.result!r}")
        values: list[int] = self.result.outputs["prediction"].tolist()
        return values


@dataclass(eq=False)
class Write:
    """A commit or delete on its way to the store and back."""

    flights: list[Any]
    calls: list[Any]
    sent: bool = False
    results: list[CommitResult] = field(default_factory=list)


class Replica:
    def __init__(
        self, world: World, slots: int, limits: Limits, replay: int, mint: Any, versions: Sequence[bytes]
    ) -> None:
        self.world = world
        engines = [CountingEngine(version=version) for version in versions]
        clock = Clock(lambda: world.now, lambda: int(world.now * 1000))
        self.models: Any
        self.sessions: Any
        if world.core:
            self.models = CoreModels([Version(engine, slots, replay) for engine in engines])
            self.sessions = DrivenCore({"m": self.models}, limits, clock, NullMeter(), mint)
        else:
            self.models = Models([Served(engine, slots, replay) for engine in engines])
            self.sessions = Sessions({"m": self.models}, limits, clock, NullMeter(), mint)
        self.served = self.models.default
        self.loads: list[tuple[Any, Any]] = []
        self.calls: list[Any] = []
        self.writes: list[Write] = []

    @property
    def held(self) -> dict[Any, Any]:
        """What is kept of each session."""
        found: dict[Any, Any] = self.sessions.core.context.sessions if self.world.core else self.sessions._desk.lines
        return found

    @property
    def waiting_for_slot(self) -> list[str]:
        """The sessions, in their order."""
        waiting = self.sessions.core.context.cache_of(self.served).waiting if self.world.core else self.served.starved
        return [session.key.session for session in waiting]

    def count_with(self, meter: Meter) -> None:
        (self.sessions.core.context if self.world.core else self.sessions._desk).meter = meter

    def check_rest(self) -> None:
        """Nothing is left but sessions whose states are kept, and which have nothing to do."""
        assert not self.waiting_for_slot
        if self.world.core:
            context = self.sessions.core.context
            admission = context.admission
            assert (admission.unanswered, admission.unanswered_bytes, len(context.queued)) == (0, 0, 0)
            assert not self.sessions.holds_work
            kept = [session.cached for session in self.held.values()]
        else:
            desk = self.sessions._desk
            assert (desk.unanswered, desk.unanswered_bytes, len(desk.waiting)) == (0, 0, 0)
            kept = [line.hot for line in self.held.values()]
        assert all(one is not None for one in kept)
        assert all(session.idle and session.key == name for name, session in self.held.items())
        assert len(kept) == self.sessions.hot_count("m")

    def work(self) -> bool:
        """Does everything that can be done now, without loss. False: there was nothing to do."""
        self.collect()
        if not (self.loads or self.calls or self.writes):
            return bool(self.sessions.wants_load or self.sessions.wants_call or self.sessions.wants_flight)
        while self.loads:
            self.load(0)
        while self.calls:
            self.compute(0)
        while self.writes:
            self.deliver(0)
        return True

    def collect(self) -> None:
        """Takes out of the heart what it wants done."""
        lines, loads = self.sessions.take_loads()
        if loads:
            self.loads.append((lines, loads))
        if not self.calls:
            self.calls = self.sessions.take_calls()
        flights = self.sessions.take_flights()
        for kind in (Commit, Delete):
            some = [flight for flight in flights if isinstance(flight.call, kind)]
            if some:
                self.writes.append(Write(some, [flight.call for flight in some]))

    def load(self, index: int, lose: bool = False) -> None:
        lines, loads = self.loads.pop(index)
        results = [StoreError("lost")] * len(loads) if lose else self.world.store.load_many(loads)
        self.sessions.loaded(lines, results)

    def compute(self, index: int) -> None:
        call = self.calls.pop(index)
        call.execute()
        self.sessions.computed(call)

    def reach_store(self, write: Write) -> None:
        store = self.world.store
        many = store.commit_many if isinstance(write.calls[0], Commit) else store.delete_many
        write.results = many(write.calls)
        write.sent = True

    def deliver(self, index: int) -> None:
        """The write reaches the store, if it has not yet, and the answer comes back."""
        write = self.writes.pop(index)
        if not write.sent:
            self.reach_store(write)
        self.sessions.landed(write.flights, write.results)

    def lose(self, index: int) -> Write:
        """The answer does not come back. What is returned may still reach the store, or have reached it."""
        write = self.writes.pop(index)
        self.sessions.landed(write.flights, [CommitResult(Outcome.UNKNOWN, None, "lost")] * len(write.flights))
        return write

    def refuse(self, index: int) -> None:
        write = self.writes.pop(index)
        self.sessions.landed(write.flights, [CommitResult(Outcome.REFUSED, None, "full")] * len(write.flights))


def reason(result: Any) -> str:
    """The name of a rejection's reason."""
    if not isinstance(result, Rejection):
        raise AssertionError(f"expected a rejection, got {result!r}")
    return result.reason.name


def some_chunk(draw: random.Random) -> list[int]:
    return [draw.randrange(1000, 9999) for _ in range(draw.choice([1, 1, 1, 2, 3, 5, 9]))]
