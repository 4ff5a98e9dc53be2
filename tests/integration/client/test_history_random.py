"""A session's history against a server that loses replies and tails, and impatient callers, in random order."""

from __future__ import annotations

import random
from collections import deque

import pytest
from cellkeeper import Position, first_position
from cellkeeper._session.chunk import Chunk, ChunkState
from cellkeeper._session.history import History
from cellkeeper._session.verdict import LOST, Action, Verdict

WIDTH = 2
START = first_position(bytes(range(16)))
REFUSED = b"\xff\xff"


class TinyServer:
    """The decision table for one record; compacts up to what was acknowledged."""

    def __init__(self) -> None:
        self.positions = [START]
        self.inputs: list[bytes] = []
        self.ends = [0]  # after each commit
        self.base = 0

    def answer(self, chunk: Chunk, acked: int) -> tuple[str, Position]:
        """Returns ("", position after) or (reason, the record's position)."""
        stands, sent = self.positions[-1], chunk.start
        cut = [chunk.inputs[at : at + WIDTH] for at in range(0, len(chunk.inputs), WIDTH)]
        if sent.step > stands.step:
            return "STEP_GAP", stands
        if sent.step < self.base:
            return "STEP_COMPACTED", stands
        if self.positions[sent.step] != sent:
            return "HISTORY_CHANGED", stands
        if sent.step < stands.step:
            if self.inputs[sent.step : sent.step + len(cut)] != cut:
                return "STEP_CONFLICT", stands
            return "", self.positions[sent.step + len(cut)]
        if REFUSED in cut:
            return "NON_FINITE_RESULT", stands
        for one in cut:
            self.inputs.append(one)
            self.positions.append(self.positions[-1].advance(one, WIDTH))
        self.ends.append(len(self.inputs))
        if random.random() < 0.2:
            self.base = max(self.base, min(acked, sent.step))
        return "", self.positions[-1]

    def lose_tail(self) -> None:
        keep = random.choice(self.ends)  # commits are lost whole
        self.ends = [end for end in self.ends if end <= keep]
        del self.inputs[keep:], self.positions[keep + 1 :]
        self.base = min(self.base, keep)


@pytest.mark.parametrize("block", range(4))
def test_what_was_delivered_is_what_the_server_has(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        print(f"seed {seed}")
        one_run(seed)


def held_up_to(delivered: list[tuple[int, bytes]]) -> int:
    """Returns the step up to which every reply has arrived."""
    step = 0
    for first, inputs in sorted(delivered):
        if first > step:
            return step
        step = first + len(inputs) // WIDTH
    return step


def one_run(seed: int) -> None:
    random.seed(seed)
    history, server = History(START, step_bytes=WIDTH, window_steps=12), TinyServer()
    network: deque[tuple[Chunk, int]] = deque()
    answers: deque[tuple[Chunk, str, Position | None]] = deque()
    first_seen: dict[int, tuple[bytes, Position]] = {}
    delivered: list[tuple[int, bytes]] = []  # a reply that was lost may arrive after the next one's
    told: set[int] = set()
    kept: list[Chunk] = []  # so that no id is reused
    to_give = 25

    def land() -> None:
        chunk, reason, position = answers.popleft()
        if reason or position is None:
            verdict = history.on_error(chunk, reason, position)
        else:
            verdict = history.on_reply(chunk, position)
        if verdict.action is Action.DELIVER:
            assert (id(chunk) in told) == chunk.late
            told.add(id(chunk))
            delivered.append((chunk.start.step, chunk.inputs))
        tell(verdict)
        if verdict.action is Action.FAIL:
            assert verdict.reason in ("NON_FINITE_RESULT", "MODEL_CHANGED")
            assert verdict.reason != "NON_FINITE_RESULT" or REFUSED in verdict.failed[0].inputs
        assert history.position.step == held_up_to(delivered)

    def tell(verdict: Verdict) -> None:
        for failed in verdict.failed:
            assert id(failed) not in told or failed.late
            told.add(id(failed))
            if failed.state is ChunkState.DONE:  # a later answer proves that it was applied
                delivered.append((failed.start.step, failed.inputs))

    def give_up() -> None:
        """A caller stops waiting: what may have been applied stays, and counts."""
        chunk = random.choice([chunk for chunk in history.unanswered if not chunk.held] or [None])
        if chunk is not None and not chunk.late:
            tell(history.abandon(chunk, "DEADLINE_PASSED"))
            assert chunk.late or chunk.state in (ChunkState.DROPPED, ChunkState.DONE)

    while to_give or not history.idle or network or answers:
        event = random.choice(
            ("give", "send", "send", "serve", "serve", "land", "land", "lose", "break", "tail", "leave")
        )
        calm = to_give == 0 and random.random() < 0.8
        if event == "give" and to_give and history.room(3):
            to_give -= 1
            inputs = b"".join(random.randbytes(WIDTH) for _ in range(random.randint(1, 3)))
            if random.random() < 0.1:
                inputs = REFUSED + inputs[WIDTH:]
            kept.append(history.append(inputs))
        elif event == "send":
            chunk = history.upcoming
            if chunk is not None:
                history.launch(chunk)
                kept.append(chunk)
                assert first_seen.setdefault(id(chunk), (chunk.inputs, chunk.start)) == (chunk.inputs, chunk.start)
                assert chunk.acked_sent <= chunk.start.step
                network.append((chunk, chunk.acked_sent))
        elif event == "serve" and network:
            chunk, acked = network.popleft()
            reason, position = server.answer(chunk, acked)
            answers.append((chunk, reason, position))
        elif event == "land" and answers:
            land()
        elif event == "lose" and network and not calm:
            chunk, _ = network.popleft()
            answers.append((chunk, random.choice((LOST, "QUEUE_FULL", "MODEL_CHANGED")), None))
        elif event == "break" and not calm and random.random() < 0.3:
            for index, (chunk, reason, _) in enumerate(answers):
                if not reason:
                    answers[index] = (chunk, LOST, None)
            while network:
                answers.append((network.popleft()[0], LOST, None))
        elif event == "leave" and random.random() < 0.3:
            give_up()
        elif event == "tail" and to_give and random.random() < 0.2:
            server.lose_tail()
    # A tail lost after the last step shows only at the next one, so one more step repairs it.
    kept.append(history.append(b"zz"))
    while not history.idle:
        chunk = history.upcoming
        if chunk is not None:
            history.launch(chunk)
            network.append((chunk, chunk.acked_sent))
            continue
        chunk, acked = network.popleft()
        answers.append((chunk, *server.answer(chunk, acked)))
        land()
    assert b"".join(server.inputs) == b"".join(inputs for _, inputs in sorted(delivered))
    assert server.positions[-1] == history.position == history.tail
    assert history.in_flight == 0
