"""The core's loop without a network, on a store whose calls a test can hold back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cellkeeper_service.core.core import Core
from cellkeeper_service.core.generation_requests import Open
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Done, Request, Step, StepReply
from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.store import Commit, CommitResult, Page
from cellkeeper_service.store.memory import MemoryStore

from .counting_engine import CountingEngine
from .world import key, pack

PLAY_S = 60.0


class GatedStore(MemoryStore):
    """A memory store whose calls wait until its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        self.gate.wait(10)
        return super().commit_many(commits)

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        self.gate.wait(10)
        return super().scan(tenant, model, prefix, cursor, limit)


class Server:
    """A core and its loop on a gated store, with `slots` slots and a clock that a test can advance."""

    def __init__(
        self,
        slots: int = 4,
        store: GatedStore | None = None,
        threads: int = 4,
        limits: Limits | None = None,
        meter: Meter | None = None,
    ) -> None:
        meter = GuardedMeter(meter or Meter())
        self.store = store or GatedStore()
        self.ahead = 0.0
        clock = Clock(lambda: time.monotonic() + self.ahead, lambda: 0)
        self.engine = CountingEngine()
        self.models = {"m": Models([Version(self.engine, slots, 3)])}
        self.core = Core(self.models, limits or Limits(), clock, meter)
        self.loop = self.loop_on(StoreCalls(self.store, threads, meter))

    def loop_on(self, calls: StoreCalls, batch_seconds: float = 0.0) -> CoreLoop:
        """Returns a loop for this core, not started. batch_seconds: how long it expects each batch to take."""
        return CoreLoop(self.core, calls, lambda batch: batch_seconds)

    def ask(self, make: Callable[[Done], Any]) -> asyncio.Future[Any]:
        """Submits a request and returns its reply.

        make: returns the request, given the function that takes its result.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(requests: Sequence[Request]) -> None:
            future.set_result(requests[0].reply())

        self.loop.submit(make(done))
        return future

    def step(
        self, value: int, position: Position | None = None, seconds: float = 30.0, session: str = "s"
    ) -> asyncio.Future[Any]:
        until = time.monotonic() + self.ahead + seconds
        wanted = frozenset(["prediction"])
        return self.ask(
            lambda done: Step(key(session), until, done, pack([value]), 1, position, None, False, wanted, False)
        )

    async def open(self, session: str = "s") -> Position:
        until = time.monotonic() + self.ahead + 30
        reply = await self.ask(lambda done: Open(key(session), until, done, b"o" * 16, None, None, None))
        position: Position = reply.header.position
        return position


def outputs(reply: Any) -> list[int]:
    assert isinstance(reply, StepReply), reply
    values: list[int] = reply.outputs["prediction"].tolist()
    return values


def play(test: Callable[[], Any]) -> None:
    """Runs the test, and fails it if it hangs. It passes much sooner than that, also on a busy machine."""
    asyncio.run(asyncio.wait_for(test(), PLAY_S))
