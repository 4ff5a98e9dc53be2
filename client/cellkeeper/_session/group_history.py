"""The client's knowledge of many sessions, in columns: the position of each, and what was sent and answered.

Pure logic, like History, but only for the common case, in which an item is sent once and the server applies it. If
anything else happens to an item (an error, a lost stream, a caller that stops waiting), its member leaves the columns:
`leave` returns a History made from its row, with the item in flight, which handles the rest. Once that is idle, the
member rejoins the columns.

- A member has at most one item in flight, so acknowledgements equal the items' own positions.
- A row belongs to one member, and is reused after that member is removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..position import HEAD_BYTES, Position
from .chunk import Chunk
from .history import History
from .replay_buffer import answered_chunk

WORDS = 4  # of 8 bytes, in a packed position: generation (2), step, head
_STEP, _HEAD = 2, 3
_WORD = np.dtype("<u8")

Rows = NDArray[np.intp]
Positions = NDArray[np.uint64]  # [n, WORDS], little-endian as on the wire


class Members:
    """Some members of a group, in an order of their own. rows: [n]. names: their session ids."""

    __slots__ = ("_items", "names", "rows")

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        self.rows = rows
        self.names = names
        self._items: dict[int, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def item_of(self, row: int) -> int | None:
        """Returns the index of that row; None if it is not among these."""
        if self._items is None:
            self._items = {row: item for item, row in enumerate(self.rows.tolist())}
        return self._items.get(row)

    def take(self, items: Rows) -> Members:
        names = self.names
        return Members(self.rows[items], [names[item] for item in items.tolist()])


@dataclass(eq=False, repr=False)
class GroupChunk:
    """`steps` consecutive time steps for each of some members, sent as one frame.

    starts, ends: [n, WORDS], the items' positions before and after. inputs: raw, item by item. serial: increases from
    chunk to chunk of the group. open: [n], items in flight in the columns. answered: [n], items that were applied in
    the columns.
    """

    members: Members
    starts: Positions
    ends: Positions
    inputs: bytes
    steps: int
    serial: int

    def __post_init__(self) -> None:
        self.open = np.ones(len(self.members), bool)
        self.answered = np.zeros(len(self.members), bool)

    def inputs_of(self, item: int) -> bytes:
        size = len(self.inputs) // len(self.members)
        return self.inputs[item * size : (item + 1) * size]


NewHistory = Callable[[Position, Callable[[], Iterable[Chunk]]], History]
"""Makes a member's own history, starting at a position, from what returns the answered chunks before it."""


class GroupHistory:
    """The columns of a group; see the module.

    step_bytes: bytes of one time step's input. buffer_steps, buffer_bytes: answered inputs kept for a replay, per
    member. The members share one buffer, which drops the oldest chunks first.
    """

    def __init__(self, new_history: NewHistory, *, step_bytes: int, buffer_steps: int, buffer_bytes: int) -> None:
        self.busy = np.zeros(0, bool)  # [rows]: has an item in flight
        self.apart: dict[int, History] = {}  # by row: histories of members that left the columns
        self._positions: Positions = np.zeros((0, WORDS), _WORD)
        self._since = np.zeros(0, np.int64)  # [rows]: serial of the first chunk of the row's history
        self._free: list[int] = []
        self._new_history = new_history
        self._step_bytes = step_bytes
        self._buffer_steps = buffer_steps
        self._buffer_bytes = buffer_bytes
        self._kept: deque[GroupChunk] = deque()
        self._kept_steps = 0  # of all members together
        self._serial = 0

    # ------------------------------------------------------------------------------------------ members

    def add(self, positions: Sequence[Position]) -> list[int]:
        """Adds members at these positions. Returns their rows."""
        missing = len(positions) - len(self._free)
        if missing > 0:
            first, more = len(self.busy), max(missing, len(self.busy))
            self.busy = np.concatenate([self.busy, np.zeros(more, bool)])
            self._since = np.concatenate([self._since, np.zeros(more, np.int64)])
            self._positions = np.concatenate([self._positions, np.zeros((more, WORDS), _WORD)])
            self._free += range(first + more - 1, first - 1, -1)
        rows = [self._free.pop() for _ in positions]
        for row, position in zip(rows, positions, strict=True):
            self.restart(row, position)
        return rows

    def remove(self, row: int) -> None:
        """Frees the row of an idle member."""
        self.apart.pop(row, None)
        self._free.append(row)

    def restart(self, row: int, position: Position) -> None:
        """Gives the idle member a new history at `position`."""
        self.apart.pop(row, None)
        self._since[row] = self._serial
        self._positions[row] = np.frombuffer(position.pack(), _WORD)

    def position(self, row: int) -> Position:
        """Position after the last acknowledged step of the row's member."""
        history = self.apart.get(row)
        return history.position if history is not None else Position.unpack(self._positions[row].tobytes())

    def packed_positions(self, members: Members) -> bytes:
        """Returns the positions of these members, 32 bytes each."""
        positions = self._positions[members.rows]
        for row, history in self.apart.items():
            item = members.item_of(row)
            if item is not None:
                positions[item] = np.frombuffer(history.position.pack(), _WORD)
        return positions.tobytes()

    # ------------------------------------------------------------------------------------------ steps

    def append(self, members: Members, inputs: bytes) -> GroupChunk:
        """Appends one item for each member; they must be in the columns and not busy. inputs: raw, item by item."""
        starts = self._positions[members.rows]
        steps = len(inputs) // (len(members) * self._step_bytes)
        ends = starts.copy()
        ends[:, _STEP] += steps
        heads = advanced_heads(starts[:, _HEAD].tobytes(), inputs, steps, self._step_bytes)
        ends[:, _HEAD] = np.frombuffer(heads, _WORD)
        self.busy[members.rows] = True
        chunk = GroupChunk(members, starts, ends, inputs, steps, self._serial)
        self._serial += 1
        self._keep(chunk)
        return chunk

    def withdraw(self, chunk: GroupChunk) -> Rows:
        """Withdraws a chunk that was not sent. Returns the items that were still to be sent."""
        items = np.flatnonzero(chunk.open)
        self.busy[chunk.members.rows[items]] = False
        chunk.open[:] = False
        return items

    def on_reply(self, chunk: GroupChunk, items: Rows, positions: bytes) -> Rows:
        """Records that the server applied the open `items`, each once, at these positions.

        Returns the items whose positions differ from this history's; their members must leave.
        """
        ends = chunk.ends[items]
        wrong = items[:0]
        if ends.tobytes() != positions:
            good = (ends == np.frombuffer(positions, _WORD).reshape(-1, WORDS)).all(axis=1)
            wrong, items, ends = items[~good], items[good], ends[good]
        rows = chunk.members.rows[items]
        self._positions[rows] = ends
        self.busy[rows] = False
        chunk.open[items] = False
        chunk.answered[items] = True
        return wrong

    def leave(self, chunk: GroupChunk, item: int) -> tuple[History, Chunk]:
        """Moves the open item's member out of the columns. Returns its history, with the item in flight."""
        row = int(chunk.members.rows[item])
        chunk.open[item] = False
        self.busy[row] = False
        history = self.take_apart(row)
        alone = history.append(chunk.inputs_of(item))
        history.launch(alone)
        return history, alone

    def take_apart(self, row: int) -> History:
        """Moves a member that has nothing in flight out of the columns. Returns its history."""
        position = self.position(row)
        history = self._new_history(position, partial(self._answered, row, position))
        self.apart[row] = history
        return history

    def rejoin(self, row: int) -> None:
        """Moves a member whose history is idle back to the columns."""
        history = self.apart.pop(row)
        before = Position.unpack(self._positions[row].tobytes())
        alone = Members(np.array([row], np.intp), ("",))
        for chunk in history.answered_since(before.step):
            starts, ends = (
                np.frombuffer(position.pack(), _WORD).reshape(1, WORDS) for position in (chunk.start, chunk.end)
            )
            kept = GroupChunk(alone, starts, ends, chunk.inputs, chunk.steps, self._serial)
            kept.answered[0], kept.open[0] = True, False
            self._serial += 1
            self._keep(kept)
        self._positions[row] = np.frombuffer(history.position.pack(), _WORD)

    # ------------------------------------------------------------------------------------------ inside

    def _keep(self, chunk: GroupChunk) -> None:
        self._kept.append(chunk)
        self._kept_steps += chunk.steps * len(chunk.members)
        members = len(self.busy) - len(self._free)
        most = members * min(self._buffer_steps, self._buffer_bytes // max(1, self._step_bytes))
        while self._kept_steps > most and self._kept:
            oldest = self._kept.popleft()
            self._kept_steps -= oldest.steps * len(oldest.members)

    def _answered(self, row: int, position: Position) -> list[Chunk]:
        """Returns the row's kept answered chunks that lead to `position`, oldest first."""
        found: list[Chunk] = []
        since, end = int(self._since[row]), position
        for kept in reversed(self._kept):
            if kept.serial < since:
                break
            item = kept.members.item_of(row)
            if item is None or not kept.answered[item]:
                continue
            start = Position.unpack(kept.starts[item].tobytes())
            if start.step + kept.steps != end.step:
                break
            found.append(answered_chunk(kept.inputs_of(item), start, end))
            end = start
        return found[::-1]


def advanced_heads(heads: bytes, inputs: bytes, steps: int, step_bytes: int) -> bytes:
    """Returns the items' heads after their inputs, 8 bytes each.

    heads: before. inputs: raw, `steps` time steps per item.
    """
    count = len(heads) // HEAD_BYTES
    table = np.frombuffer(inputs, np.uint8).reshape(count, steps, step_bytes)
    width = HEAD_BYTES + step_bytes
    hashed = np.empty((count, width), np.uint8)
    for step in range(steps):
        hashed[:, :HEAD_BYTES] = np.frombuffer(heads, np.uint8).reshape(count, HEAD_BYTES)
        hashed[:, HEAD_BYTES:] = table[:, step]
        packed = hashed.tobytes()
        # Hashing a slice takes 0.7 us; copying a prepared hash object and updating it, 0.9 us.
        items = [packed[at : at + width] for at in range(0, len(packed), width)]
        heads = b"".join([blake2b(item, digest_size=HEAD_BYTES).digest() for item in items])
    return heads
