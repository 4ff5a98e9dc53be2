"""A crew of clients that drives many sequences through one or more servers at random, and checks every answer.

`Crew._excused` lists what may come instead of a result; anything else fails the test.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import WAYS, Answer, Position, Refused, Replica

from .sequences import Sent, Sequence

OPEN_TIMEOUT_S = 30.0
CONNECT_S = 5.0  # after this, it tries anyway
PASSING = (
    *("COMMIT_CONFLICT", "STORE_UNAVAILABLE", "DRAINING", "DEADLINE_PASSED", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
    "QUEUE_FULL",  # a server that stood still first takes itself for slow
)
"""Refusals that say nothing about the record's position: the same chunk is sent again."""


@dataclass(frozen=True)
class Habits:
    """What the clients do.

    most_steps: per chunk. most_sessions: per frame. most_window: frames in flight at once. both: the share of frames
    sent to two servers at once. again: the share sent once more after all replies. state: the share that asks for the
    state.
    """

    most_steps: int = 40
    most_sessions: int = 24
    most_window: int = 3
    both: float = 0.0
    again: float = 0.05
    state: float = 0.05


class Crew:
    """Drives sequences through servers.

    targets: the servers' addresses. timeout_s: per call; a chunk whose call ends without an answer is sent again, to
    any server.
    """

    def __init__(
        self, targets: Items[str], sequences: Items[Sequence], habits: Habits, timeout_s: float = 10.0
    ) -> None:
        self.targets = targets
        self.sequences = sequences
        self.habits = habits
        self.timeout_s = timeout_s
        self.refusals: Counter[str] = Counter()
        self.replayed = 0
        self.total_steps = sum(len(sequence.inputs) for sequence in sequences)
        self.done_steps = 0
        self._marks: list[tuple[int, asyncio.Event]] = []

    async def open_all(self, draw: random.Random) -> None:
        """Opens every session through a random server. Every position starts as the contract says."""
        replicas = [Replica(target, self.timeout_s) for target in self.targets]
        try:
            await asyncio.gather(*(self._open(draw.choice(replicas), sequence, draw) for sequence in self.sequences))
        finally:
            for replica in replicas:
                await replica.close()

    async def _open(self, replica: Replica, sequence: Sequence, draw: random.Random) -> None:
        request = pb.OpenRequest(
            model=sequence.model.name, session=sequence.session, request_id=draw.randbytes(15) + b"\x01"
        )
        until = time.monotonic() + OPEN_TIMEOUT_S
        reply = await replica.call("Open", request)
        while isinstance(reply, Refused) and reply.reason in PASSING and time.monotonic() < until:
            await asyncio.sleep(0.05)
            reply = await replica.call("Open", request)  # the same request: a retry counts as created
        if isinstance(reply, Refused) or not reply.created:
            raise AssertionError(f"open of {sequence.session!r}: {reply}")
        sequence.at = Position.of(reply.position)
        if sequence.at != Position.first(sequence.at.generation):
            raise AssertionError(f"a new session stands at {sequence.at}")

    def reached(self, share: float) -> asyncio.Event:
        """Returns an event that is set once this share of all time steps has been answered."""
        event = asyncio.Event()
        self._marks.append((int(share * self.total_steps), event))
        return event

    async def work(self, clients: int, draw: random.Random, timeout_s: float) -> None:
        """Drives every sequence to its end. Raises AssertionError at the first wrong answer."""
        tasks = [asyncio.create_task(self._client(random.Random(draw.getrandbits(64)))) for _ in range(clients)]
        done, going_on = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
        for task in going_on:
            task.cancel()
        await asyncio.gather(*going_on, return_exceptions=True)
        for task in done:
            task.result()
        if going_on:
            raise AssertionError(
                f"{self.done_steps} of {self.total_steps} steps were answered in {timeout_s} s; {self.refusals}"
            )

    async def _client(self, draw: random.Random) -> None:
        replicas = [Replica(target, self.timeout_s) for target in self.targets]
        try:
            while group := self._take_group(draw):
                await self._turn(replicas, group, draw)
                for sequence in group:
                    sequence.busy = False
        finally:
            for replica in replicas:
                await replica.close()

    def _take_group(self, draw: random.Random) -> list[Sequence]:
        """Returns some sequences of one model that no other client is working on."""
        free = [sequence for sequence in self.sequences if not sequence.busy and not sequence.finished]
        if not free:
            return []
        model = draw.choice(sorted({sequence.model.name for sequence in free}))
        mine = [sequence for sequence in free if sequence.model.name == model]
        group = draw.sample(mine, min(len(mine), draw.randint(1, self.habits.most_sessions)))
        for sequence in group:
            sequence.busy = True
        return group

    async def _turn(self, replicas: list[Replica], group: list[Sequence], draw: random.Random) -> None:
        """Sends a window of frames, all in flight at once: in order through one stream, or in any way."""
        stream_of = draw.choice(replicas) if draw.random() < 0.5 else None
        frames = []
        for _ in range(draw.randint(1, self.habits.most_window)):
            names: tuple[str, ...] = draw.choice((("prediction",), ("prediction", "hidden"), ("hidden",)))
            if draw.random() < self.habits.state:
                names = (*names, "state")
            frame = [sequence.cut(self._steps(draw), names) for sequence in group if sequence.left]
            if frame:
                frames.append(self._deliver(replicas, frame, draw, stream_of))
        await asyncio.gather(*frames)

    def _steps(self, draw: random.Random) -> int:
        """Returns a number of steps, usually small and sometimes large."""
        return draw.randint(1, draw.choice((1, 4, self.habits.most_steps)))

    async def _deliver(
        self, replicas: list[Replica], frame: list[Sent], draw: random.Random, stream_of: Replica | None
    ) -> None:
        """Sends a frame until all of it is answered, each time only what is missing, to any server."""
        if stream_of is not None:
            await self._send(stream_of, frame, "stream")
        waiting, delay_s = [sent for sent in frame if not sent.answered], 0.005
        while waiting:
            if len(replicas) > 1 and draw.random() < self.habits.both:
                routes = draw.sample(replicas, 2)
            else:
                routes = [draw.choice(replicas)]
            await asyncio.gather(*(self._send(replica, waiting, any_way(draw)) for replica in routes))
            waiting = [sent for sent in waiting if not sent.answered]
            if waiting:
                await asyncio.sleep(draw.uniform(0.5, 1.0) * delay_s)
                delay_s = min(2 * delay_s, 0.1)
                await _any_connected(replicas)  # a killed server needs the CPU to restart
        if draw.random() < self.habits.again:
            await self._send(draw.choice(replicas), frame, any_way(draw), again=True)

    async def _send(self, replica: Replica, frame: list[Sent], way: str, again: bool = False) -> None:
        """Sends to one server once. again: everything has been answered before."""
        ahead = [sent.is_ahead for sent in frame]
        answers: list[Answer] = await WAYS[way](replica, [sent.chunk() for sent in frame])
        for sent, was_ahead, answer in zip(frame, ahead, answers, strict=True):
            if isinstance(answer, Refused):
                self.refusals[answer.reason] += 1
                if not self._excused(answer, sent, was_ahead):
                    raise AssertionError(f"{sent.sequence.session!r} steps {sent.first}..{sent.last - 1}: {answer}")
                continue
            sent.check(answer)
            self.replayed += answer.replayed
            if again and not answer.replayed:
                raise AssertionError(f"{sent.sequence.session!r}: a chunk that was answered before was applied again")
            if not sent.answered:
                sent.answered = True
                self._progress(sent.sequence.note(sent))

    def _excused(self, answer: Refused, sent: Sent, was_ahead: bool) -> bool:
        """Allows STEP_GAP only while an earlier chunk is in flight, STEP_COMPACTED only after the reply has arrived."""
        return (
            answer.reason in PASSING
            or (answer.reason == "STEP_GAP" and was_ahead)
            or (answer.reason == "STEP_COMPACTED" and sent.answered)
        )

    def _progress(self, steps: int) -> None:
        self.done_steps += steps
        for mark, event in self._marks:
            if self.done_steps >= mark:
                event.set()


async def _any_connected(replicas: Items[Replica]) -> None:
    """Waits until one of them is connected, at most CONNECT_S."""
    tasks = [asyncio.ensure_future(replica.connected()) for replica in replicas]
    await asyncio.wait(tasks, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def any_way(draw: random.Random) -> str:
    return draw.choice(sorted(WAYS))


async def check_at_rest(target: str, sequences: Items[Sequence]) -> None:
    """Checks what a server says of finished sequences: the position, and every bit of the state."""
    async with Replica(target) as replica:
        for sequence in sequences:
            where = {"model": sequence.model.name, "session": sequence.session}
            info = await replica.call("GetSession", pb.GetSessionRequest(**where))
            state = await replica.call("GetState", pb.GetStateRequest(**where))
            if isinstance(info, Refused) or isinstance(state, Refused):
                raise AssertionError(f"{sequence.session!r}: {info} {state}")
            for position in (Position.of(info.position), Position.of(state.position)):
                if position != sequence.at or position.step != len(sequence.inputs):
                    raise AssertionError(f"{sequence.session!r} stands at {position}, expected {sequence.at}")
            got = {f"state.{tensor.name}": tensor.data for tensor in state.state}
            wanted = {name: array.tobytes() for name, array in sequence.state_at(len(sequence.inputs)).items()}
            if got != wanted:
                raise AssertionError(f"{sequence.session!r}: the state at rest differs from the offline run's")
