"""The answered inputs of a session, kept for a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..position import Position
from .chunk import Chunk, ChunkState


class ReplayBuffer:
    """Adjoining answered chunks, oldest first. Past its limits it drops the oldest.

    step_bytes: bytes of one time step's input. max_steps, max_bytes: the most time steps, and bytes of input, to keep.
    earlier: returns the chunks before the first one added, oldest first; called only when they are needed, which is
    rare.

    A busy client holds thousands of chunks for each session. They are stored as two deques of bytes objects, which the
    garbage collector does not traverse.
    """

    def __init__(
        self,
        step_bytes: int,
        max_steps: int,
        max_bytes: int,
        earlier: Callable[[], Iterable[Chunk]] | None = None,
    ) -> None:
        self._step_bytes = step_bytes
        self._max_steps = max_steps
        self._max_bytes = max_bytes
        self._inputs: deque[bytes] = deque()
        self._heads: deque[bytes] = deque()  # before each chunk
        self._end: Position | None = None  # after the last chunk
        self._steps = 0
        self._earlier = earlier

    def add(self, chunk: Chunk) -> None:
        """Appends a chunk."""
        self._inputs.append(chunk.inputs)
        self._heads.append(chunk.start.head)
        self._end = chunk.end
        self._steps = steps = self._steps + chunk.steps
        while steps > self._max_steps or steps * self._step_bytes > self._max_bytes:
            self._heads.popleft()
            self._steps = steps = steps - len(self._inputs.popleft()) // self._step_bytes

    def pop(self) -> Chunk | None:
        """Removes and returns the last chunk; None if there is none."""
        self._add_earlier()
        end = self._end
        if end is None or not self._inputs:
            return None
        inputs = self._inputs.pop()
        steps = len(inputs) // self._step_bytes
        self._steps -= steps
        self._end = start = Position(end.generation, end.step - steps, self._heads.pop())
        return answered_chunk(inputs, start, end)

    def __iter__(self) -> Iterator[Chunk]:
        """Yields the chunks, oldest first, without those of `earlier` if they have not been needed yet."""
        if self._end is None:
            return
        step = self._end.step - self._steps
        for index, (inputs, head) in enumerate(zip(self._inputs, self._heads, strict=True)):
            start = Position(self._end.generation, step, head)
            step += len(inputs) // self._step_bytes
            after = self._end.head if index + 1 == len(self._heads) else self._heads[index + 1]
            yield answered_chunk(inputs, start, Position(self._end.generation, step, after))

    def position_at(self, step: int) -> Position | None:
        """Returns the position at `step`; None if the kept inputs do not reach that far."""
        self._add_earlier()
        end = self._end
        if end is None or not end.step - self._steps <= step <= end.step:
            return None
        if step == end.step:
            return end
        start = end.step
        for inputs, head in zip(reversed(self._inputs), reversed(self._heads), strict=True):
            start -= len(inputs) // self._step_bytes
            if start <= step:
                covered = (step - start) * self._step_bytes
                return Position(end.generation, start, head).advance(inputs[:covered], self._step_bytes)
        return None

    def _add_earlier(self) -> None:
        earlier, self._earlier = self._earlier, None
        if earlier is None:
            return
        added = list(self)
        self._inputs.clear()
        self._heads.clear()
        self._end, self._steps = None, 0
        for chunk in (*earlier(), *added):
            self.add(chunk)


def answered_chunk(inputs: bytes, start: Position, end: Position) -> Chunk:
    """Returns a chunk whose reply is held."""
    chunk = Chunk(inputs, start, end)
    chunk.state, chunk.held = ChunkState.DONE, True
    return chunk
