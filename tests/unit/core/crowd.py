"""Clients that do not try to get through, and the checks of what they are told.

Their requests are steps with and without positions, peeks, reads, poisoned inputs, resets, set-states, forks and
deletes, on sessions that share too few slots, with deadlines that pass and callers that leave. Steps come one by one
or, for several sessions, together as in a frame.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count

from cellkeeper_service.core.generation_requests import Delete, Deleted, Fork, Moved, Open, OpenReply, Reset, SetState
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import GetState, Request, StateReply, Step, StepReply
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.domain.store import Load
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import POISON
from .ledger import Generation, LedgerStore, copying, run, unpack
from .world import FOREVER, Reply, World, Write, key, pack

NAMES = ["a", "b", "c"]
NOT_APPLIED = {Reason.COMMIT_CONFLICT, Reason.STEP_GAP, Reason.STEP_CONFLICT}
NEVER = {Reason.INTERNAL_ERROR, Reason.MODEL_CHANGED, Reason.NUMERICS_CHANGED}


class Checked(Reply):
    """A reply that is checked against the ledger on arrival."""

    def __init__(self, store: LedgerStore) -> None:
        super().__init__()
        self.store = store

    def __call__(self, requests: Sequence[Request]) -> None:
        super().__call__(requests)
        request, result, store = self.request, self.result, self.store
        if isinstance(result, Rejection):
            assert result.reason not in NEVER, result
            poisoned = isinstance(request, Step) and POISON in unpack(request.data)
            assert result.reason is not Reason.NON_FINITE_RESULT or poisoned
        elif isinstance(result, StepReply):
            assert isinstance(request, Step)
            end, inputs = result.position.step, unpack(request.data)
            start = end - len(inputs)
            generation = store.generations[result.position.generation]
            outputs = result.outputs["prediction"].tolist()
            assert outputs == run(generation.state_at(start), inputs)
            if not request.peek:
                assert store.has(result.position)
                assert generation.inputs[start - generation.start : end - generation.start] == inputs
            if request.position is not None:
                assert result.position == advance(request.position, request.data, 4)
            if request.sequence is not None:
                check_place(request.sequence, start, end, generation)
            assert not result.created or start == generation.start
            if request.wants_state:
                assert result.state == outputs[-1].to_bytes(8, "little")
        elif isinstance(result, StateReply):
            state = store.generations[result.position.generation].state_at(result.position.step)
            assert result.state == state.to_bytes(8, "little")
        elif isinstance(result, (Moved, OpenReply)):
            assert store.has(result.position if isinstance(result, Moved) else result.header.position)
        else:
            assert isinstance(result, Deleted)


def check_place(sequence: Sequenced, start: int, end: int, generation: Generation) -> None:
    """Checks the place of a sequence's chunk that was applied or replayed."""
    if sequence.origin:
        assert (start, generation.start) == (0, 0)
    if sequence.at is not None:
        assert start == sequence.at
    elif generation.ended_at is not None:
        assert end <= generation.ended_at


class Crowd:
    def __init__(self, seed: int, replicas: int, slots: int) -> None:
        """Only some histories contain sequences, because a start ends whatever others do with the session."""
        self.draw = random.Random(seed)
        limits = Limits(max_log_steps=30, max_session_requests=8, max_slice_steps=4, max_long_steps=8)
        self.world = World(replicas, slots, limits)
        self.store = self.world.store = LedgerStore(lambda: self.world.now * 1000)
        self.values = count(1000)
        self.sent: list[Checked] = []
        self.seen: dict[str, list[Position]] = {name: [] for name in NAMES}
        self.frames: list[list[Step]] = []
        self.steps: dict[str, list[int]] = {name: [0] for name in NAMES}  # where a sequence may be
        self.sequences = self.draw.choice([0.0, 0.3, 0.9])
        self.rush = self.draw.choice([0.1, 0.3])  # the fewer requests at a time, the more find their sessions cached

    def act(self) -> None:
        draw = self.draw
        if draw.random() < 0.6:
            self.send_frame()
            return
        if draw.random() < self.sequences:
            self.send_sequenced()
            return
        name = draw.choice(NAMES)
        self.look(name)
        position = self.position(name)
        deadline = FOREVER if draw.random() < 0.7 else self.world.now + draw.choice([0.5, 2.0, 10.0])
        reply = Checked(self.store)
        what = draw.random()
        request: Request
        if what < 0.65 or (position is None and what < 0.9):
            request = self.step(name, position, deadline, reply)
        elif position is None or what > 0.95:
            request = Open(key(name), deadline, reply, draw.randbytes(16), None, None, None)
        elif what < 0.72:
            request = GetState(key(name), deadline, reply)
        elif what < 0.78:
            request = Reset(key(name), deadline, reply, position.generation, draw.randbytes(16))
        elif what < 0.83:
            state = draw.randrange(2**62).to_bytes(8, "little")
            request = SetState(key(name), deadline, reply, position.generation, draw.randbytes(16), 7, state)
        elif what < 0.89:
            at = position if draw.random() < 0.5 else None
            target = draw.choice([other for other in NAMES if other != name])
            request = Fork(key(name), deadline, reply, key(target), at, copying(b"f" + draw.randbytes(15)))
        else:
            request = Delete(key(name), deadline, reply, position.generation)
        reply.request = request
        self.sent.append(reply)
        draw.choice(self.world.replicas).core.submit(request)

    def step(self, name: str, position: Position | None, deadline: float, reply: Checked) -> Step:
        draw = self.draw
        again = [one.request for one in self.sent[-20:] if isinstance(one.request, Step) and one.request.position]
        if again and draw.random() < 0.2:
            old = draw.choice(again)
            assert isinstance(old, Step)
            return Step(
                old.key, deadline, reply, old.data, old.steps, old.position, old.acked, old.peek, old.wanted, True
            )
        inputs = [next(self.values) for _ in range(draw.choice([1, 1, 1, 2, 5, 9]))]
        if draw.random() < 0.1:
            inputs[draw.randrange(len(inputs))] = POISON
        if draw.random() < 0.3:
            position = None
        acked = None if position is None else 0  # never compacted, because any step may be sent again
        peek, wants_state = draw.random() < 0.15, draw.random() < 0.2
        data, wanted = pack(inputs), frozenset(["prediction"])
        if position is not None and not peek:
            self.seen[name].append(advance(position, data, 4))
        return Step(key(name), deadline, reply, data, len(inputs), position, acked, peek, wanted, wants_state)

    def send_sequenced(self) -> None:
        """Sends steps of a sequence without waiting for replies: a start, a number or neither. Some end it."""
        draw, name, wanted = self.draw, self.draw.choice(NAMES), frozenset(["prediction"])
        core = draw.choice(self.world.replicas).core
        at = None if draw.random() < 0.2 else draw.choice(self.steps[name][-3:])
        origin = draw.randbytes(16) if draw.random() < 0.25 else b""
        for _ in range(draw.choice([1, 1, 2, 4])):
            deadline = FOREVER if draw.random() < 0.7 else self.world.now + draw.choice([0.5, 2.0, 10.0])
            reply = Checked(self.store)
            sent = [one.request for one in self.sent[-20:]]
            again = [one for one in sent if isinstance(one, Step) and one.sequence and one.sequence.at is not None]
            if again and draw.random() < 0.15:
                old = draw.choice(again)
                self.store.repeated.update(unpack(old.data))
                step = Step(old.key, deadline, reply, old.data, old.steps, None, old.acked, False, wanted, False)
                step.sequence = old.sequence
            else:
                inputs = [next(self.values) for _ in range(draw.choice([1, 1, 1, 2, 5, 9]))]
                if draw.random() < 0.05:
                    inputs[draw.randrange(len(inputs))] = POISON
                number = 0 if origin and at is not None else at
                ttl_ms = draw.choice([1, 500, 5000]) if draw.random() < 0.1 else None
                acked = None if number is None or draw.random() < 0.5 else 0
                step = Step(key(name), deadline, reply, pack(inputs), len(inputs), None, acked, False, wanted, False)
                step.sequence = Sequenced(origin, number, ttl_ms)
                if number is not None:
                    at = number + len(inputs)
                    self.steps[name].append(at)
                origin = b""
            reply.request = step
            self.sent.append(reply)
            core.submit(step)

    def send_frame(self) -> None:
        """Sends one step for each of some sessions, together or singly. Some are repeated, poisoned or misplaced."""
        draw = self.draw
        deadline = FOREVER if draw.random() < 0.7 else self.world.now + draw.choice([0.5, 2.0, 10.0])
        steps = []
        for name in draw.sample(NAMES, draw.randint(1, len(NAMES))):
            self.look(name, 0.7)
            position = self.position(name, 0.9)
            if position is None:
                continue
            reply = Checked(self.store)
            reply.request = step = self.item(name, position, deadline, reply)
            self.sent.append(reply)
            steps.append(step)
        core = draw.choice(self.world.replicas).core
        if draw.random() < 0.4:
            for step in steps:
                if draw.random() < 0.2:
                    step.deadline = self.world.now + draw.choice([0.5, 2.0])
                core.submit(step)
        elif steps:
            self.frames.append(steps)
            core.submit_many(steps)

    def item(self, name: str, position: Position, deadline: float, reply: Checked) -> Step:
        draw, wanted = self.draw, frozenset(["prediction"])
        sent = [one.request for one in self.sent[-20:]]
        again = [one for one in sent if isinstance(one, Step) and one.key == key(name) and is_single(one)]
        if again and draw.random() < 0.2:
            old = draw.choice(again)
            return Step(key(name), deadline, reply, old.data, 1, old.position, old.acked, False, wanted, False)
        data = pack([POISON if draw.random() < 0.1 else next(self.values)])
        self.seen[name].append(advance(position, data, 4))
        acked = None if draw.random() < 0.8 else 0
        return Step(key(name), deadline, reply, data, 1, position, acked, False, wanted, False)

    def look(self, name: str, often: float = 0.3) -> None:
        """Learns the session's position, as another client would."""
        if self.draw.random() < often:
            (record,) = self.store.load_many([Load(key(name), False)])
            if record is not None and not isinstance(record, Exception):
                self.seen[name].append(record.position)
                self.steps[name].append(record.position.step)

    def position(self, name: str, last: float = 0.8) -> Position | None:
        """Returns a position of this session, mostly the last one: seen, or only expected."""
        seen = self.seen[name]
        if not seen:
            return None
        return seen[-1] if self.draw.random() < last else self.draw.choice(seen)

    def happen(self, late: list[Write]) -> None:
        draw, world = self.draw, self.world
        if draw.random() < 0.1:
            world.now += draw.random()
        if self.sent and draw.random() < 0.05:
            draw.choice(self.sent).request.gone = True  # type: ignore[union-attr]
        if self.frames and draw.random() < 0.02:
            for step in draw.choice(self.frames[-5:]):
                step.gone = True
        replica = draw.choice(world.replicas)
        waiting = set(map(id, replica.writes))
        replica.collect()
        for write in replica.writes:
            for commit in write.commits if id(write) not in waiting else []:
                assert all(world.now < request.deadline for request in commit.requests)
        what = draw.random()
        if what < 0.05:
            replica.core.expire()
        elif what < 0.3 and replica.loads:
            replica.load(draw.randrange(len(replica.loads)), lose=draw.random() < 0.05)
        elif what < 0.6 and replica.batches:
            batch = replica.batches[0]
            replica.compute(0)
            assert not any(state.in_batch for state in batch.states)
        elif what < 0.7 and replica.writes:
            write = draw.choice(replica.writes)
            if not write.sent:
                replica.reach_store(write)
        elif what < 0.9 and replica.writes:
            at, drawn = draw.randrange(len(replica.writes)), draw.random()
            if drawn < 0.07 and not replica.writes[at].sent:
                replica.refuse(at)
            elif drawn < 0.2:
                self.store.give_up(replica.writes[at].calls)
                late.append(replica.lose(at))
            else:
                replica.deliver(at)
        elif late and not late[-1].sent:
            replica.reach_store(late[-1])

    def check_not_applied(self, request: Request | None) -> None:
        """Checks that a sequence's step that was refused and not sent again was not applied."""
        if isinstance(request, Step) and request.sequence is not None:
            inputs = set(unpack(request.data))
            assert inputs & self.store.repeated or not inputs & self.store.applied

    def play(self) -> None:
        late: list[Write] = []
        for _ in range(150 if self.rush > 0.2 else 250):
            if self.draw.random() < self.rush or not self.sent:
                self.act()
            self.happen(late)
        for write in late:
            if not write.sent:
                self.world.replicas[0].reach_store(write)
        self.world.settle()
        for reply in self.sent:
            assert reply.result is not None, reply.request
            if isinstance(reply.result, Rejection) and reply.result.reason in NOT_APPLIED:
                self.check_not_applied(reply.request)
        for replica in self.world.replicas:
            replica.check_rest()


def is_single(step: Step) -> bool:
    """Returns True for a step such as most items of a frame are."""
    return step.steps == 1 and step.position is not None and not step.peek and not step.wants_state
