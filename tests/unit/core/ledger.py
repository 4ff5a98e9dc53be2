"""A store that keeps a ledger: every input ever committed, by generation.

A record that differs from the ledger, an input applied twice, and a reply that no commit backs fail at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellkeeper_service.core.sequence import ended, has_ended
from cellkeeper_service.domain.origin import origin_of
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import NO_ORIGIN
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Outcome
from cellkeeper_service.store.memory import MemoryStore

from .counting_engine import FACTOR, POISON

_copies: set[bytes] = set()


def copying(request_id: bytes) -> bytes:
    """Registers the request id as a fork's, whose inputs were already applied in another session. Returns the id."""
    _copies.add(origin_of(request_id, b""))
    return request_id


def run(state: int, inputs: Sequence[int]) -> list[int]:
    """Returns the state after each of `inputs`."""
    states = []
    for value in inputs:
        state = (state * FACTOR + value + 1) % 2**62
        states.append(state)
    return states


def unpack(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


@dataclass
class Generation:
    """The step and state of a generation's first checkpoint, and every input since.


    made_by: the commit that made it. made_with: that commit's inputs.
    """

    made_by: Commit
    made_with: list[int]
    start: int
    state: int
    inputs: list[int]
    ended_at: int | None = None  # the step at which its sequence ended

    def state_at(self, step: int) -> int:
        return run(self.state, self.inputs[: step - self.start])[-1] if step > self.start else self.state

    def outputs(self, first: int, last: int) -> list[int]:
        return run(self.state, self.inputs[: last - self.start])[first - self.start :]


class LedgerStore(MemoryStore):
    def __init__(self, clock_ms: Callable[[], float]) -> None:
        super().__init__(clock_ms)
        self.generations: dict[bytes, Generation] = {}
        self.applied: set[int] = set()  # inputs of steps; each is sent in one chunk only
        self.repeated: set[int] = set()  # inputs that clients send twice without positions: once in each generation
        self.unanswered: set[bytes] = set()  # generations whose first commit got no answer

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        assert len({commit.key for commit in commits}) == len(commits), "one session twice in one call"
        results = super().commit_many(commits)
        for commit, result in zip(commits, results, strict=True):
            if result.outcome is Outcome.COMMITTED:
                self._enter(commit)
        return results

    def give_up(self, calls: Sequence[Commit | Delete]) -> None:
        """Nobody will be told what became of these."""
        for call in calls:
            if isinstance(call, Commit) and call.expected is None:
                self.unanswered.add(call.header.position.generation)

    def has(self, position: Position) -> bool:
        generation = self.generations.get(position.generation)
        return generation is not None and generation.start <= position.step <= generation.start + len(generation.inputs)

    def _enter(self, commit: Commit) -> None:
        header, log = commit.header, unpack(commit.log)
        generation = self.generations.get(header.position.generation)
        if generation is None:
            assert commit.checkpoint is not None
            state = int.from_bytes(commit.checkpoint, "little")
            generation = Generation(commit, log, header.checkpoint_step, state, [])
            self.generations[header.position.generation] = generation
            copied = header.origin in _copies
        else:
            copied = False
        end = generation.start + len(generation.inputs)
        if commit.checkpoint is None:
            new = log
        else:
            assert int.from_bytes(commit.checkpoint, "little") == generation.state_at(header.checkpoint_step)
            known = end - header.checkpoint_step
            assert log[:known] == generation.inputs[header.checkpoint_step - generation.start :]
            new = log[known:]
        assert header.position.step == end + len(new)
        assert POISON not in new
        if not copied:
            twice = self.applied.intersection(new) - self.repeated
            assert not twice - self._started_again(generation, new), "applied twice"
            assert not set(generation.inputs).intersection(new), "applied twice in one generation"
            self.applied.update(new)
        generation.inputs += new
        if generation.ended_at is None and has_ended(header.origin):
            generation.ended_at = header.position.step

    def _started_again(self, generation: Generation, new: list[int]) -> set[int]:
        """The inputs among `new` that the start of a sequence takes into a second generation.

        A start ends whatever stands there, and is recognized by the record that it made. Where that record is gone
        (deleted, expired, or replaced by another start and then expired) and no other is there, nothing tells a start
        that was not applied from one whose effects are over. So it may make another generation, with the same inputs
        at the same steps, if the store did not answer one of the two commits that make them:
          - the second: it was given up, and arrives after the record of a later try is gone. No service can prevent it.
          - the first: the start is decided again, as ADR 441 says, with what was sent behind it in that commit; but
            not if that commit ended the sequence, whose record is expected to be gone soon.
        Neither generation has an input twice, and they never stand at the same time: the store accepts the second only
        where there is no record.
        """
        made = generation.made_by
        if made.expected is not None or made.header.origin == NO_ORIGIN:
            return set()
        again: set[int] = set()
        for other in self.generations.values():
            before = other.made_by
            if other is generation or before.key != made.key or not _same_start(before, made):
                continue
            if made.header.position.generation in self.unanswered and not generation.inputs:
                known = other.inputs
            elif before.header.position.generation in self.unanswered and not has_ended(before.header.origin):
                known = other.made_with
            else:
                continue
            first = len(generation.inputs)
            again.update(value for step, value in enumerate(new, first) if known[step : step + 1] == [value])
        return again


def _same_start(one: Commit, other: Commit) -> bool:
    """Whether the same start made both, whose sequence may have ended in the same commit."""
    origin, another = one.header.origin, other.header.origin
    return origin == another or ended(origin) == another or origin == ended(another)
