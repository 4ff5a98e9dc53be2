"""The answered inputs of a session, kept for a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..position import Position
from .chunk import Chunk, ChunkState


class ReplayBuffer:
    """Answered chunks that adjoin, oldest first; the oldest are let go beyond the limits.

    step_bytes: bytes of one time step's input. max_steps, max_bytes: time steps, and bytes of input, kept at most.
    earlier: returns the chunks before the first that is added, oldest first; called when they are needed, which is
    hardly ever the case.

    A busy client holds thousands of chunks for each of its sessions. What is stored of them are two rows of bytes
    objects, which the garbage collector does not look into.
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
        self._heads: deque[bytes] = deque()  # before each
        self._end: Position | None = None  # after the last
        self._steps = 0
        self._earlier = earlier

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk at the end."""
        self._inputs.append(chunk.inputs)
        self._heads.append(chunk.start.head)
        self._end = chunk.end
        self._steps = steps = self._steps + chunk.steps
        while steps > self._max_steps or steps * self._step_bytes > self._max_bytes:
            self._heads.popleft()
            self._steps = steps = steps - len(self._inputs.popleft()) // self._step_bytes

    def pop(self) -> Chunk | None:
        """Takes the last chunk out; None where none is left."""
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
        """The chunks, oldest first; without those of `earlier` that were not needed yet."""
        if self._end is None:
            return
        step = self._end.step - self._steps
        for index, (inputs, head) in enumerate(zip(self._inputs, self._heads, strict=True)):
            start = Position(self._end.generation, step, head)
            step += len(inputs) // self._step_bytes
            after = self._end.head if index + 1 == len(self._heads) else self._heads[index + 1]
            yield answered_chunk(inputs, start, Position(self._end.generation, step, after))

    def position_at(self, step: int) -> Position | None:
        """Returns the position at `step`; None if the inputs kept do not reach that far."""
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
