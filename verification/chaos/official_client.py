"""The official client at work: many sessions, streamed, in windows of chunks, and step by step.

Generations end and begin, and the client itself is killed and started again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellkeeper import AsyncClient, AsyncSession, CellkeeperError, SessionNotFound, StepReply
from cellkeeper import Position as ClientPosition

from testing.wire_client import Position

from .expected_errors import OPEN_ENDED
from .history import Ack, Burst, Operation
from .workload import ATTEMPT_S, TIMEOUT_S, TrackedSession, Workload

MOST_CHUNK_STEPS = 20
LONG_CHUNK_STEPS = 120
WINDOW_STEPS = 360
MOST_WINDOW = 16


@dataclass
class OperationMix:
    """Shares of a session's turns. pause: for sessions with a TTL, which a pause sometimes outlasts."""

    stream: float = 0.45
    window: float = 0.35
    single: float = 0.14
    reset: float = 0.02
    set_state: float = 0.01
    fork: float = 0.015
    delete: float = 0.01
    pause: float = 0.3


class OfficialClient:
    """One official client and the sessions that it works on."""

    def __init__(
        self, workload: Workload, name: str, tracked_sessions: Sequence[TrackedSession], mix: OperationMix
    ) -> None:
        self.name = name
        self._workload = workload
        self._draw = workload.dice()
        self._tracked_sessions = tracked_sessions
        self._mix = mix
        self._client: AsyncClient | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._old: list[asyncio.Task[None]] = []
        self._left: list[TrackedSession] = []  # branches, to be opened once more in the end

    def start(self) -> None:
        targets, websockets = self._workload.addresses(self._draw)
        self._client = AsyncClient(
            targets,
            timeout=TIMEOUT_S,
            attempt_timeout=ATTEMPT_S,
            connect_timeout=TIMEOUT_S,  # a client that starts while all servers are down waits for them
            window_steps=WINDOW_STEPS,
            websocket=websockets,
        )
        self._tasks = [
            asyncio.create_task(self._drive(self._client, tracked), name=f"last step of {tracked.session}")
            for tracked in self._tracked_sessions
        ]

    async def kill(self) -> None:
        """Drops the client with all its requests in flight, and starts another that insists on the known positions.

        The dropped client's connections stay for a moment, so that what it sent may still arrive.
        """
        client, tasks = self._client, self._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client is not None:
            self._old.append(asyncio.create_task(self._close_after(client, self._draw.choice((0.0, 0.3, 2.0)))))
        self.start()

    async def finish(self) -> None:
        """Waits until every session has made its last step."""
        await asyncio.gather(*self._tasks)
        if self._client is not None:
            for tracked in self._left:
                with suppress(CellkeeperError):  # the error is recorded
                    await self._open(self._client, tracked)
            await self._close_after(self._client, 0.0)
        await asyncio.gather(*self._old)

    async def _close_after(self, client: AsyncClient, seconds: float) -> None:
        await self._workload.pause(seconds)
        self._workload.replayed_steps += client.counters.replayed_steps
        await client.close()

    # ------------------------------------------------------------------------------------------ one session

    async def _drive(self, client: AsyncClient, tracked: TrackedSession) -> None:
        draw = random.Random(self._draw.getrandbits(64))
        session: AsyncSession | None = None
        while True:
            last = self._workload.ending.is_set()
            try:
                if session is None:
                    session = await self._open(client, tracked)
                await self._turn(session, tracked, draw, last)
                tracked.position = Position(*session.position)
                if last:
                    return
            except asyncio.CancelledError:  # killed: the next client insists on every answer that arrived here
                if session is not None and tracked.position is not None:
                    tracked.position = Position(*session.position)
                raise
            except CellkeeperError as error:
                if session is not None and tracked.position is not None:
                    tracked.position = Position(*session.position)
                if isinstance(error, SessionNotFound) and tracked.session in self._workload.history.ttls:
                    self._workload.did("ttl_expiry")
                if session is not None and (draw.random() < 0.7 or not await _settled(session)):
                    await session.close()
                    session = None
                await asyncio.sleep(draw.uniform(0.0, 0.05))

    async def _open(self, client: AsyncClient, tracked: TrackedSession) -> AsyncSession:
        """Opens the session at its known position; after a refusal, at whatever position it has."""
        expect = tracked.position
        tracked.position = None
        ttl = self._workload.history.ttls.get(tracked.session)
        operation = self._workload.operation("open", tracked, self.name, expect=expect)
        insist = None if expect is None else ClientPosition(*expect)
        found = client.open(tracked.session, model=tracked.model.name, ttl=ttl, expect=insist)
        try:
            session: AsyncSession = await answered(operation, found)
        finally:
            if operation.error in OPEN_ENDED:  # it was not refused
                tracked.position = expect
        operation.result, operation.created = Position(*session.position), session.created
        tracked.position = operation.result
        self._workload.opened(tracked, self.name)
        return session

    async def _turn(self, session: AsyncSession, tracked: TrackedSession, draw: random.Random, last: bool) -> None:
        mix, dice = self._mix, draw.random()
        if last:
            await self._windows(session, tracked, draw, 1, 1)
            return
        ttl = self._workload.history.ttls.get(tracked.session)
        if ttl is not None and draw.random() < mix.pause:
            await self._workload.pause(draw.uniform(0.5, 1.5) * ttl)
        for kind in ("stream", "window", "single", "reset", "set_state", "fork", "delete"):
            dice -= getattr(mix, kind)
            if dice < 0:
                break
        match kind:
            case "stream":
                await self._stream(session, tracked, draw)
            case "window":
                await self._windows(session, tracked, draw, draw.randint(1, MOST_WINDOW // 2), MOST_CHUNK_STEPS)
            case "single":
                for _ in range(draw.randint(1, 6)):
                    await self._windows(session, tracked, draw, 1, 1)
            case "reset":
                operation = self._workload.operation("reset", tracked, self.name, generation=session.generation)
                operation.result = Position(*await answered(operation, session.reset()))
            case "set_state":
                await self._set_state(session, tracked, draw)
            case "fork":
                await self._fork(session, tracked, draw)
            case "delete":
                operation = self._workload.operation("delete", tracked, self.name, generation=session.generation)
                operation.deleted = await answered(operation, session.delete())
                tracked.position = None
                raise CellkeeperError("deleted: open it again")

    # ------------------------------------------------------------------------------------------ steps

    async def _stream(self, session: AsyncSession, tracked: TrackedSession, draw: random.Random) -> None:
        long = draw.randint(MOST_CHUNK_STEPS, LONG_CHUNK_STEPS)
        chunk_steps = draw.choice((1, draw.randint(2, MOST_CHUNK_STEPS), long, long))
        steps = draw.randint(1, 16) if chunk_steps == 1 else draw.randint(20, 8 * chunk_steps + 20)
        inputs = self._workload.draw_inputs(tracked.model, draw, steps)
        wanted = draw.choice((("prediction",), ("prediction",), ("prediction", "hidden")))
        held = session.position.step
        burst = self._workload.begin(tracked, session.position, inputs, held, held + steps - 1, wanted)
        burst.window_chunks = draw.randint(1, MOST_WINDOW)
        window = burst.window_chunks * chunk_steps
        replies = session.stream_replies(list(inputs), outputs=wanted, window=window, chunk_steps=chunk_steps)
        try:
            await self._collect(burst, replies)
        except asyncio.CancelledError:
            _failed(burst, "CLIENT_KILLED", "")
            raise
        except CellkeeperError as error:
            _failed(burst, error.reason or type(error).__name__, str(error))
            raise

    async def _collect(self, burst: Burst, replies: AsyncGenerator[StepReply, None]) -> None:
        done, part = 0, list[StepReply]()
        async for reply in replies:
            part.append(reply)
            # One reply for each time step; the position is the chunk's.
            if reply.position.step <= burst.start.step + done + len(part):
                done += len(part)
                burst.acks.append(_ack(part))
                part = []
        if part:
            burst.acks.append(_ack(part))

    async def _windows(
        self, session: AsyncSession, tracked: TrackedSession, draw: random.Random, chunks: int, most_steps: int
    ) -> None:
        """Sends several chunks concurrently."""
        position, tasks = Position(*session.position), []
        for _ in range(chunks):
            steps = draw.randint(1, most_steps)
            inputs = self._workload.draw_inputs(tracked.model, draw, steps)
            wanted: tuple[str, ...] = ("prediction", "state") if draw.random() < 0.03 else ("prediction",)
            burst = self._workload.begin(tracked, position, inputs, session.position.step, position.step, wanted)
            position = position.after(inputs)
            tasks.append(asyncio.ensure_future(self._chunk(session, burst)))
        errors = [error for error in await asyncio.gather(*tasks) if error is not None]
        if errors:
            raise errors[0]

    async def _chunk(self, session: AsyncSession, burst: Burst) -> CellkeeperError | None:
        try:
            reply = await session.step_reply(burst.inputs, outputs=burst.wanted)
        except asyncio.CancelledError:
            _failed(burst, "CLIENT_KILLED", "")
            raise
        except CellkeeperError as error:
            _failed(burst, error.reason or type(error).__name__, str(error))
            return error
        outputs = {name: value for name, value in reply.outputs.items() if not name.startswith("state.")}
        position = Position(*reply.position)
        ack = Ack(len(burst.inputs), time.monotonic(), position, outputs, reply.state, not reply.replayed)
        burst.acks.append(ack)
        return None

    # ------------------------------------------------------------------------------------------ generations

    async def _set_state(self, session: AsyncSession, tracked: TrackedSession, draw: random.Random) -> None:
        numbers = np.random.default_rng(draw.getrandbits(64))
        states = {
            spec.name: numbers.integers(0, 8, spec.shape).astype(np.float32) / np.float32(8)
            for spec in session.model.states
        }
        step = 1_000_000 * self._workload.number()  # differs from every other generation's steps
        operation = self._workload.operation(
            "set_state", tracked, self.name, generation=session.generation, states=states, step=step
        )
        operation.result = Position(*await answered(operation, session.set_state(states, step=step)))

    async def _fork(self, session: AsyncSession, tracked: TrackedSession, draw: random.Random) -> None:
        """Forks the session, steps the branch a little, and usually deletes it then."""
        branch_tracked = self._workload.branch_of(tracked)
        there = Position(*session.position)
        operation = self._workload.operation(
            "fork", branch_tracked, self.name, source=tracked.session, at_position=there
        )
        branch: AsyncSession = await answered(operation, session.fork(branch_tracked.session))
        operation.result = Position(*branch.position)
        self._workload.opened(branch_tracked, self.name)
        self._left.append(branch_tracked)
        for _ in range(draw.randint(0, 3)):
            await self._windows(branch, branch_tracked, draw, draw.randint(1, 3), MOST_CHUNK_STEPS)
        if draw.random() < 0.8:
            operation = self._workload.operation("delete", branch_tracked, self.name, generation=branch.generation)
            operation.deleted = await answered(operation, branch.delete())
            self._left.remove(branch_tracked)
        await branch.close()


async def _settled(session: AsyncSession) -> bool:
    """Waits until nothing of the session is in flight, so that its position is the next step's."""
    try:
        await session.state()
    except CellkeeperError:
        return False
    return True


async def answered(operation: Operation, call: Awaitable[Any]) -> Any:
    """Awaits the call and records how the operation ended."""
    try:
        result = await call
    except asyncio.CancelledError:
        operation.error, operation.at = "CLIENT_KILLED", time.monotonic()
        raise
    except CellkeeperError as error:
        operation.error, operation.error_text = error.reason or type(error).__name__, str(error)
        operation.at = time.monotonic()
        raise
    operation.at = time.monotonic()
    return result


def _ack(replies: Sequence[StepReply]) -> Ack:
    names = [name for name in replies[0].outputs if not name.startswith("state.")]
    outputs = {name: np.stack([reply.outputs[name] for reply in replies]) for name in names}
    last = replies[-1]
    return Ack(len(replies), time.monotonic(), Position(*last.position), outputs, {}, not last.replayed)


def _failed(burst: Burst, reason: str, text: str) -> None:
    burst.error, burst.error_text, burst.error_at = reason, text, time.monotonic()
