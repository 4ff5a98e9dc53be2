"""The columns of a group's history, without a transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from cellkeeper import Position, first_position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.group_history import GroupChunk, GroupHistory, Members
from cellkeeper._session.history import History
from cellkeeper._session.verdict import DELIVER, Action

WIDTH = 4
NAMES = ("a", "b", "c")
STARTS = [first_position(bytes([number]) * 16) for number in range(3)]


def new_history(position: Position, earlier: Callable[[], Iterable[Chunk]]) -> History:
    return History(position, step_bytes=WIDTH, earlier=earlier)


@pytest.fixture
def group() -> GroupHistory:
    history = GroupHistory(new_history, step_bytes=WIDTH, buffer_steps=6, buffer_bytes=1 << 20)
    assert history.add(STARTS) == [0, 1, 2]
    return history


def send(group: GroupHistory, *rows: int, steps: int = 1, value: int = 7) -> GroupChunk:
    members = Members(np.array(rows, np.intp), [NAMES[row] for row in rows])
    return group.append(members, value.to_bytes(WIDTH, "little") * steps * len(rows))


def answer(group: GroupHistory, chunk: GroupChunk) -> None:
    assert len(group.on_reply(chunk, np.arange(len(chunk.members)), chunk.ends.tobytes())) == 0


def kept_steps(group: GroupHistory, row: int) -> int:
    """Returns how many of the member's answered steps are kept, after it left the columns."""
    history = group.take_apart(row)
    position, reaches = history.position, 0
    while history._known(position.step - reaches - 1) is not None:
        reaches += 1
    return reaches


@pytest.mark.parametrize("steps", [1, 3])
def test_positions_are_those_of_sessions(group: GroupHistory, steps: int) -> None:
    first = send(group, 0, 1, 2, steps=steps)
    assert group.busy[:3].tolist() == [True] * 3
    answer(group, first)
    answer(group, send(group, 2, 0, value=9))
    long, short = (7).to_bytes(WIDTH, "little") * steps, (9).to_bytes(WIDTH, "little")
    expected = [start.advance(long, WIDTH) for start in STARTS]
    expected = [expected[0].advance(short, WIDTH), expected[1], expected[2].advance(short, WIDTH)]
    assert [group.position(row) for row in range(3)] == expected
    members = Members(np.array([2, 0], np.intp), ("c", "a"))
    assert group.packed_positions(members) == expected[2].pack() + expected[0].pack()
    assert not group.busy.any()


def test_an_item_that_the_server_puts_elsewhere_is_told(group: GroupHistory) -> None:
    chunk = send(group, 0, 1, 2)
    positions = [Position.unpack(end.tobytes()) for end in chunk.ends]
    positions[1] = positions[1]._replace(head=bytes(8))
    order = np.array([2, 1, 0])
    wrong = group.on_reply(chunk, order, b"".join(positions[item].pack() for item in order))
    assert wrong.tolist() == [1]
    assert [group.position(row) for row in (0, 2)] == [positions[0], positions[2]]
    history, alone = group.leave(chunk, 1)
    verdict = history.on_reply(alone, positions[1])
    assert (verdict.action, verdict.reason) == (Action.FAIL, "HISTORY_CHANGED")


def test_a_member_that_left_has_its_inputs_and_returns_with_new_ones(group: GroupHistory) -> None:
    answer(group, send(group, 0, 1))
    chunk = send(group, 1, 0)
    history, alone = group.leave(chunk, 0)
    assert (alone.start, history.in_flight) == (group.position(1), 1)
    verdict = history.on_error(alone, "STEP_GAP", STARTS[1])
    assert (verdict.action, verdict.replayed_steps) == (Action.REPLAY, 1)
    for _ in range(2):
        again = history.upcoming
        assert again is not None
        history.launch(again)
        last = history.on_reply(again, again.end)
    assert last is DELIVER
    assert history.idle
    group.rejoin(1)
    assert group.apart == {}
    assert group.position(1).step == 2
    assert kept_steps(group, 1) == 2


def test_the_members_share_what_they_keep(group: GroupHistory) -> None:
    """The limit is six steps for each of three members. The oldest are dropped first, whoever sent them."""
    answer(group, send(group, 0, steps=4))
    for _ in range(14):
        answer(group, send(group, 1))
    assert kept_steps(group, 0) == 4
    answer(group, send(group, 1))
    group.restart(0, group.position(0))
    answer(group, send(group, 1, 2))
    assert group.position(1).step == 16
    assert kept_steps(group, 2) == 1
    assert kept_steps(group, 1) == 16


def test_a_row_of_another_member_has_another_history(group: GroupHistory) -> None:
    answer(group, send(group, 0, 1))
    group.remove(0)
    assert group.add([first_position(bytes(16), step=1)]) == [0]  # where the other one was
    assert kept_steps(group, 0) == 0
    assert kept_steps(group, 1) == 1


def test_what_was_not_sent_leaves_no_trace(group: GroupHistory) -> None:
    chunk = send(group, 0, 1)
    assert group.withdraw(chunk).tolist() == [0, 1]
    assert not group.busy.any()
    assert [group.position(row) for row in range(3)] == STARTS
    answer(group, send(group, 0))
    assert kept_steps(group, 0) == 1
