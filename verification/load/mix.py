"""A mixed load through the official client, with sessions that come and go; every answer is checked.

The model is the counting one, so a session's correct answers are plain arithmetic: the sum of its inputs.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import grpc
import numpy as np
from cellkeeper import AsyncClient, AsyncSession, CellkeeperError, SessionNotFound
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub
from numpy.typing import NDArray

Array = NDArray[np.float32]
MODEL = "count"
FEATURES = 256
TTL_S = 2.0
MAX_STEPS_PER_GENERATION = 1_000_000  # keeps sums exact in float32: inputs are 0..3


@dataclass
class Tally:
    """What was done, and what was wrong."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    excused_until: float = 0.0  # the store was stopped; until then timeouts are excused

    def failed(self, what: str, error: CellkeeperError) -> None:
        self.refused[f"{type(error).__name__}"] += 1
        if type(error).__name__ in ("Unavailable", "DeadlineExceeded") and time.monotonic() < self.excused_until:
            return
        at = time.monotonic() - self.began
        self.violations.append(f"{what}: after {at:.0f} s {type(error).__name__} {error}")


class Summed:
    """A session and the sum that it must show."""

    def __init__(self, session: AsyncSession, tally: Tally, draw: random.Random) -> None:
        self.session = session
        self.tally = tally
        self.draw = draw
        self.total = 0

    def inputs(self, steps: int) -> Array:
        return np.repeat(np.array(self.draw.choices(range(4), k=steps), np.float32)[:, None], FEATURES, axis=1)

    def check(self, inputs: Array, outputs: Array) -> None:
        inputs, outputs = inputs.reshape(-1, FEATURES), outputs.reshape(-1, FEATURES)
        expected = self.total + np.cumsum(inputs[:, 0], dtype=np.int64)
        if outputs.shape != inputs.shape or not (outputs == expected[:, None]).all():
            text = f"session {self.session.id}: got {outputs[:3, 0].tolist()}, expected {expected[:3].tolist()}"
            self.tally.violations.append(text)
        self.total = int(expected[-1])
        self.tally.done["steps"] += len(inputs)

    async def step(self, steps: int = 1) -> None:
        inputs = self.inputs(steps)
        self.check(inputs, await self.session.step(inputs))
        self.tally.done["step calls"] += 1

    async def stream(self, count: int) -> None:
        inputs = self.inputs(count)

        async def samples() -> AsyncIterator[Array]:
            for row in inputs:
                yield row

        at = 0
        async with aclosing(self.session.stream(samples(), window=64)) as outputs:
            async for output in outputs:
                self.check(inputs[at], np.asarray(output, np.float32))
                at += 1
        if at != count:
            self.tally.violations.append(f"session {self.session.id}: a stream of {count} gave {at} answers")
        self.tally.done["streams"] += 1

    async def reset(self) -> None:
        await self.session.reset()
        self.total = 0
        self.tally.done["resets"] += 1

    async def look(self) -> None:
        state = await self.session.state()
        if not (state["h"] == self.total).all():
            self.tally.violations.append(f"session {self.session.id}: its state is not its sum, {self.total}")
        info = await self.session.info()
        if info.position != self.session.position:
            self.tally.violations.append(f"session {self.session.id}: is at another step than its client says")
        self.tally.done["reads"] += 1

    async def branch(self) -> None:
        """Steps a fork, which leaves this session unchanged."""
        other = Summed(
            await self.session.fork(f"{self.session.id}/{self.draw.getrandbits(60):x}"), self.tally, self.draw
        )
        other.total = self.total
        await other.step(3)
        await other.session.delete()
        await other.session.close()
        self.tally.done["forks"] += 1


class Mix:
    def __init__(self, target: str, tally: Tally, seed: int, residents: int, pause_s: float) -> None:
        """residents: sessions that stay. pause_s: the longest pause between two turns of one of them."""
        self.target = target
        self.tally = tally
        self.stopping = asyncio.Event()
        self.canary_steps = 0
        self._draw = random.Random(seed)
        self._residents = residents
        self._pause_s = pause_s

    async def run(self) -> None:
        """Runs until `stopping` is set, and leaves nothing open."""
        async with AsyncClient(self.target) as client:
            jobs = [self._resident(client, f"resident-{n}") for n in range(self._residents)]
            jobs += [self._passer(client, n) for n in range(4)]
            jobs += [self._quitter(n) for n in range(2)]
            jobs += [self._rude(), self._canary(client), self._lister(client)]
            await asyncio.gather(*jobs)

    async def _open(self, client: AsyncClient, name: str, ttl: float | None = None) -> Summed:
        session = await client.open(name, model=MODEL, ttl=ttl)
        self.tally.done["opens"] += 1
        return Summed(session, self.tally, random.Random(self._draw.getrandbits(64)))

    async def _rest(self, longest_s: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), self._draw.uniform(0, longest_s))

    async def _canary(self, client: AsyncClient) -> None:
        """Steps one session one step at a time, from beginning to end."""
        canary = await self._open(client, f"canary-{self._draw.getrandbits(60):x}")
        while not self.stopping.is_set():
            try:
                await canary.step()
                self.canary_steps += 1
            except CellkeeperError as error:
                self.tally.failed("canary", error)
            await self._rest(0.05)
        await canary.look()
        await canary.session.delete()

    async def _resident(self, client: AsyncClient, name: str) -> None:
        resident: Summed | None = None
        while not self.stopping.is_set():
            try:
                if resident is None:
                    resident = await self._open(client, name)
                    await resident.reset()  # an earlier run may have left it at any step
                dice = resident.draw.random()
                if dice < 0.6:
                    await resident.step(resident.draw.choice((1, 1, 1, 5, 40)))
                elif dice < 0.9:
                    await resident.stream(resident.draw.randint(1, 60))
                elif dice < 0.93:
                    await resident.look()
                elif dice < 0.96:
                    await resident.branch()
                elif dice < 0.98 or resident.total > 3 * MAX_STEPS_PER_GENERATION:
                    await resident.reset()
                else:
                    await resident.session.delete()
                    await resident.session.close()
                    resident = None
                    self.tally.done["deletes"] += 1
            except CellkeeperError as error:
                self.tally.failed(name, error)
                resident = None
            await self._rest(self._pause_s)

    async def _passer(self, client: AsyncClient, number: int) -> None:
        """Uses sessions once; they expire by their TTL, or are deleted."""
        while not self.stopping.is_set():
            name = f"passer-{number}-{self._draw.getrandbits(60):x}"
            expires = self._draw.random() < 0.7
            alive = time.monotonic()
            try:
                passer = await self._open(client, name, TTL_S if expires else None)
                for _ in range(self._draw.randint(1, 5)):
                    began = time.monotonic()
                    await passer.step(self._draw.randint(1, 8))
                    alive = began
                if not expires:
                    await passer.session.delete()
                await passer.session.close()
                self.tally.done["expiring" if expires else "deletes"] += 1
            except SessionNotFound as error:
                if expires and time.monotonic() - alive >= TTL_S:
                    self.tally.done["expired in use"] += 1
                else:
                    self.tally.failed(name, error)
            except CellkeeperError as error:
                self.tally.failed(name, error)
            await self._rest(self._pause_s)

    async def _quitter(self, number: int) -> None:
        """Runs a client that leaves in the middle of its streams, and returns to its session."""
        while not self.stopping.is_set():
            name = f"quitter-{number}"
            try:
                async with AsyncClient(self.target) as client:
                    quitter = await self._open(client, name)
                    await quitter.reset()
                    work = asyncio.create_task(quitter.stream(400))
                    await self._rest(0.2)
                    if self._draw.random() < 0.5:
                        work.cancel()
                    else:
                        await client.close()
                    await asyncio.gather(work, return_exceptions=True)
                self.tally.done["disconnects"] += 1
            except CellkeeperError as error:  # before it left: what its stream raises is in `work`
                self.tally.failed(name, error)
            await self._rest(1.0)

    async def _rude(self) -> None:
        """Starts streams, half-closes some, and drops them without closing properly."""
        while not self.stopping.is_set():
            async with grpc.aio.insecure_channel(self.target) as channel:
                stub: CellkeeperStub = CellkeeperStub(channel)  # type: ignore[no-untyped-call]
                for _ in range(5):
                    closes, left = self._draw.random() < 0.5, asyncio.Event()
                    call = stub.StepStream(_one_frame(closes, left), timeout=5)
                    await asyncio.sleep(0.02)
                    call.cancel()
                    left.set()
                    self.tally.done["dropped streams"] += 1
            await self._rest(1.0)

    async def _lister(self, client: AsyncClient) -> None:
        while not self.stopping.is_set():
            try:
                async for _ in client.sessions("resident-", model=MODEL):
                    self.tally.done["listed"] += 1
            except CellkeeperError as error:
                self.tally.failed("listing", error)
            await self._rest(5.0)


async def _one_frame(closes: bool, left: asyncio.Event) -> AsyncIterator[pb.StepFrame]:
    """Yields a frame of sessions that do not exist; then half-closes the stream, or leaves it open."""
    yield pb.StepFrame(
        model=MODEL,
        sessions=[f"rude-{n}" for n in range(20)],
        dtype=pb.FLOAT32,
        step_shape=[FEATURES],
        inputs=bytes(4 * FEATURES * 20),
        positions=b"".join(os.urandom(16) + bytes(16) for _ in range(20)),
    )
    if not closes:
        await left.wait()
