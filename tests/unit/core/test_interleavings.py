"""Random interleavings of everything that can happen between clients, replicas and the store.

Invariants, checked at every reply and at the end:
  - an acknowledged chunk's outputs equal those of one uninterrupted run over the session's inputs;
  - no acknowledged chunk is lost or applied twice: the record ends as that run does;
  - a chunk sent with its position is never refused for good, whatever happened to its commits.
"""

from __future__ import annotations

import random

import pytest
from cellkeeper_service.core.generation_requests import Open, OpenReply
from cellkeeper_service.core.requests import Step, StepReply
from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.store import Load
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .world import FOREVER, Reply, World, Write, key, pack, some_chunk

RETRIED = {Reason.COMMIT_CONFLICT, Reason.STORE_UNAVAILABLE, Reason.QUEUE_FULL}
SEEDS = random.SystemRandom().sample(range(10**9), 60)


class Client:
    """Sends a session's chunks with a window, each to any replica, some twice. Resends chunks without a reply."""

    def __init__(self, world: World, session: str, window: int, draw: random.Random) -> None:
        self.world, self.session, self.window, self.draw = world, session, window, draw
        self.patient = draw.random() < 0.6  # sends single steps, and each only once while it waits
        count = draw.randrange(3, 14)
        self.chunks = [some_chunk(draw)[: 1 if self.patient else None] for _ in range(count)]
        self.whole = expected(value for chunk in self.chunks for value in chunk)
        self.positions: list[Position] = []
        self.checked: set[Reply] = set()
        self.acked = 0  # chunks
        self.replies: dict[int, list[Reply]] = {}
        self.opening: Reply | None = None
        self.request_id = draw.randbytes(16)

    @property
    def done(self) -> bool:
        return self.acked == len(self.chunks)

    def open(self) -> None:
        if self.opening is None or isinstance(self.opening.result, Rejection):
            self.opening = Reply()
            replica = self.draw.choice(self.world.replicas)
            replica.core.submit(Open(key(self.session), FOREVER, self.opening, self.request_id, None, None, None))
        elif isinstance(self.opening.result, OpenReply):
            position = self.opening.result.header.position
            assert position == first_position(position.generation)
            for chunk in self.chunks:
                self.positions.append(position)
                position = advance(position, pack(chunk), 4)
            self.positions.append(position)

    def act(self) -> Step | None:
        """Returns the step that it sends next, if any."""
        if not self.positions:
            self.open()
            return None
        self.check()
        if self.done:
            return None
        last = min(self.acked + self.window, len(self.chunks))
        number = self.draw.randrange(self.acked, last)
        if number > self.acked and number - 1 not in self.replies:
            number = self.acked  # in order, the first time
        if self.patient and number in self.replies and self.replies[number][-1].result is None:
            return None
        reply, chunk, acked = Reply(), self.chunks[number], self.positions[self.acked].step
        position, wanted = self.positions[number], frozenset(["prediction"])
        self.replies.setdefault(number, []).append(reply)
        return Step(key(self.session), FOREVER, reply, pack(chunk), len(chunk), position, acked, False, wanted, False)

    def check(self) -> None:
        """Checks each reply since the last time, and advances `acked` over the answered chunks up to the first gap."""
        for number, replies in self.replies.items():
            start = self.positions[number].step - self.positions[0].step
            for reply in replies:
                if reply.result is None or reply in self.checked:
                    continue
                self.checked.add(reply)
                if isinstance(reply.result, StepReply):
                    assert reply.outputs == self.whole[start : start + len(self.chunks[number])]
                    assert reply.result.position == self.positions[number + 1]
                elif isinstance(reply.result, Rejection):
                    held = number < self.acked
                    allowed = {*RETRIED, Reason.STEP_GAP} | ({Reason.STEP_COMPACTED} if held else set())
                    assert reply.result.reason in allowed, reply.result
        while self.acked in self.replies and any(isinstance(r.result, StepReply) for r in self.replies[self.acked]):
            self.acked += 1


def play(seed: int, replicas: int, window: int, losses: bool, slots: int) -> None:
    draw = random.Random(seed)
    world = World(replicas, slots)
    clients = [Client(world, f"s{i}", window, draw) for i in range(3)]
    late: list[tuple[int, Write]] = []
    for _ in range(20_000):
        if all(client.done for client in clients):
            break
        happen(world, clients, late, losses, draw)
    else:
        raise AssertionError("the clients did not get through")
    for index, write in late:
        if not write.sent:
            world.replicas[index].reach_store(write)
    world.settle()
    for client in clients:
        client.checked.clear()  # what was right has stayed so
        client.check()
        (record,) = world.store.load_many([Load(key(client.session), False)])
        assert record is not None
        assert not isinstance(record, Exception)
        assert record.position == client.positions[-1]
        logged = len(record.log) // 4
        flat = [value for chunk in client.chunks for value in chunk]
        before = expected(flat[: len(flat) - logged])
        assert record.checkpoint == (before[-1] if before else 0).to_bytes(8, "little")
        assert record.log == pack(flat[len(flat) - logged :])


def send(world: World, clients: list[Client], draw: random.Random) -> None:
    """Sends these clients' next steps, together or one by one."""
    core = draw.choice(world.replicas).core
    steps = [step for client in clients if (step := client.act()) is not None]
    if draw.random() < 0.7:
        core.submit_many(steps)
    else:
        for step in steps:
            core.submit(step)


def happen(
    world: World, clients: list[Client], late: list[tuple[int, Write]], losses: bool, draw: random.Random
) -> None:
    """Lets one random event happen, anywhere."""
    if draw.random() < 0.3:
        send(world, draw.sample(clients, draw.choice([1, 1, 1, 2, 3])), draw)
        return
    index = draw.randrange(len(world.replicas))
    replica = world.replicas[index]
    replica.collect()
    what = draw.random()
    if what < 0.25 and replica.loads:
        replica.load(draw.randrange(len(replica.loads)), lose=losses and draw.random() < 0.1)
    elif what < 0.6 and replica.batches:
        replica.compute(0)
    elif what < 0.7 and replica.writes:
        write = draw.choice(replica.writes)
        if not write.sent:
            replica.reach_store(write)
    elif what < 0.9 and replica.writes:
        at = draw.randrange(len(replica.writes))
        drawn = draw.random() if losses else 1.0
        if drawn < 0.1 and not replica.writes[at].sent:
            replica.refuse(at)
        elif drawn < 0.25:
            late.append((index, replica.lose(at)))
        else:
            replica.deliver(at)
    elif late:
        where, write = late[draw.randrange(len(late))]
        if not write.sent:
            world.replicas[where].reach_store(write)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("losses", [False, True])
def test_exactly_once_and_exact(replicas: int, window: int, losses: bool) -> None:
    for seed in SEEDS:
        for slots in (1, 4):
            try:
                play(seed, replicas, window, losses, slots)
            except BaseException:  # noqa: PERF203 - tells which world it was
                print(f"play({seed}, {replicas}, {window}, {losses}, {slots})")
                raise
