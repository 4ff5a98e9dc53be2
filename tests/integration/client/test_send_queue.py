"""Which of the waiting chunks the next frame takes, when not all of them fit."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper import first_position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.frame_format import FrameFormat, Layout
from cellkeeper._transport.frame_codec import Frame, item_bytes
from cellkeeper._transport.send_queue import SendQueue
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

FORMAT = FrameFormat(Layout("m", pb.FLOAT32, (1,), 4), ())


class One:
    """A history with one chunk of `count` time steps."""

    queued = 0  # besides that one

    def __init__(self, count: int) -> None:
        start, inputs = first_position(bytes(16)), bytes(4 * count)
        self.upcoming = Chunk(inputs, start, start.advance(inputs, 4), None)


class Waiting:
    """A sender with one chunk, whose caller waits until `deadline`."""

    def __init__(self, session: str, deadline: float, key: int = 0, count: int = 1) -> None:
        self.session, self.deadline, self.key = session, deadline, key
        self.queued = False
        self.history = One(count)

    def frame_key(self, now: float, default_seconds: float) -> Any:
        return FORMAT, self.key

    def seconds_left(self, now: float) -> float:
        return self.deadline - now

    def take(self, frame_format: FrameFormat) -> Chunk:
        return self.history.upcoming

    def go_on(self) -> None: ...


@pytest.fixture
def queue() -> SendQueue:
    """Chunks of the sessions 1 to 9 wait, which have 1 to 9 seconds left at the time 0. The last ones came first."""
    queue = SendQueue(default_timeout=30.0, max_items=256)
    for number in range(9, 0, -1):
        waiting: Any = Waiting(str(number), float(number), key=number // 5)
        queue.add(waiting)
    return queue


def sessions(frame: Any) -> list[str]:
    assert isinstance(frame, Frame)
    return [sender.session for sender in frame.senders]


def drained(queue: SendQueue) -> set[str]:
    waiting: list[Any] = queue.drain()
    return {sender.session for sender in waiting}


def test_kinds_take_turns_and_the_oldest_of_each_go_first(queue: SendQueue) -> None:
    assert sessions(queue.next_frame(0.0, 3)) == ["9", "8", "7"]
    assert sessions(queue.next_frame(0.0, 3)) == ["4", "3", "2"]
    assert sessions(queue.next_frame(0.0, 3)) == ["6", "5"]
    assert drained(queue) == {"1"}


def test_those_that_would_be_late_let_the_others_go_first(queue: SendQueue) -> None:
    assert sessions(queue.next_frame(4.0, 9, least_seconds=3.0)) == ["9", "8", "7"]
    assert drained(queue) == {"1", "2", "3", "4", "5", "6"}


def test_other_kinds_are_looked_through_too(queue: SendQueue) -> None:
    queue.next_frame(0.0, 5)
    queue.add(Waiting("10", 10.0, key=7))  # type: ignore[arg-type]
    assert sessions(queue.next_frame(0.0, 9, least_seconds=8.0)) == ["10"]
    assert drained(queue) == {"1", "2", "3", "4"}


def test_where_all_would_be_late_the_newest_goes_first(queue: SendQueue) -> None:
    assert sessions(queue.next_frame(0.0, 2, least_seconds=100.0)) == ["1", "2"]
    assert drained(queue) == {"3", "4", "5", "6", "7", "8", "9"}


def test_a_frame_has_no_more_bytes_than_it_should_unless_one_chunk_has(queue: SendQueue) -> None:
    queue.drain()
    for session, count in (("a", 1), ("b", 1), ("c", 100), ("d", 1), ("e", 1)):
        queue.add(Waiting(session, 9.0, count=count))  # type: ignore[arg-type]
    queue.max_bytes = 3 * item_bytes(4, "a") - 1
    assert [sessions(queue.next_frame(0.0, 9)) for _ in range(3)] == [["a", "b"], ["c"], ["d", "e"]]


def test_an_empty_queue_has_no_frame() -> None:
    assert SendQueue(30.0, 256).next_frame(0.0, 9, least_seconds=1.0) is None
