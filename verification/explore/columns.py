"""A group of one client's sessions: the real GroupHistory, and around it what a GroupSender does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from cellkeeper import Position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.group_history import GroupChunk, GroupHistory, Members
from cellkeeper._session.history import History

from .sequential_model import WIDTH, Inputs, pack, unpack


@dataclass
class ColumnState:
    """A member in the columns, with what readers of a History look at."""

    position: Position
    idle: bool
    _settling: bool = False
    _open: tuple[Chunk, ...] = ()
    _replay_buffer: tuple[Chunk, ...] = ()


@dataclass(eq=False)
class Member:
    """A session that belongs to a group; like Known."""

    columns: Columns
    row: int
    consumed: Inputs

    @property
    def history(self) -> Any:
        """Its History if it left the columns, otherwise a ColumnState."""
        return self.columns.history_of(self.row)


class Columns:
    """The columns of a group.

    chunk: the frame in flight. unsent: its items that are still to be sent. alone: by item, the chunks of members that
    left while it was in flight.
    """

    def __init__(self, names: Sequence[str], positions: Sequence[Position], buffer_steps: int) -> None:
        self.history = GroupHistory(
            partial(new_history, buffer_steps), step_bytes=WIDTH, buffer_steps=buffer_steps, buffer_bytes=1 << 20
        )
        self.rows = dict(zip(names, self.history.add(positions), strict=True))
        self.chunk: GroupChunk | None = None
        self.unsent: list[int] = []
        self.alone: dict[int, Chunk] = {}

    @property
    def idle(self) -> bool:
        """True if every member has an answer."""
        return not self.has_open and all(history.idle for history in self.history.apart.values())

    def history_of(self, row: int) -> History | ColumnState:
        alone = self.history.apart.get(row)
        return alone or ColumnState(self.history.position(row), not self.history.busy[row])

    def begin(self, values: Mapping[str, int]) -> None:
        """Starts the next step of these members; everything before must be answered."""
        for row in list(self.history.apart):
            self.history.rejoin(row)
        rows = np.array([self.rows[name] for name in values], np.intp)
        self.chunk = self.history.append(Members(rows, list(values)), pack(tuple(values.values())))
        self.unsent = list(range(len(values)))
        self.alone = {}

    def sends(self) -> list[tuple[str, str]]:
        """Returns what could be sent now, with the sessions."""
        found = []
        for session, row in self.rows.items():
            item, history = self.item_to_send(session), self.history.apart.get(row)
            if item is not None:
                found.append((named(session, self.start_of(item), self.current.inputs_of(item)), session))
            elif history is not None and history.upcoming is not None:
                found.append((named(session, history.upcoming.start, history.upcoming.inputs), session))
        return found

    def item_to_send(self, session: str) -> int | None:
        """Returns the item of the frame that is still to be sent for the session; None if there is none."""
        return next((item for item in self.unsent if self.current.members.names[item] == session), None)

    def take(self, item: int) -> tuple[Position, bytes]:
        """Sends the item. Returns its position and inputs."""
        self.unsent.remove(item)
        return self.start_of(item), self.current.inputs_of(item)

    def start_of(self, item: int) -> Position:
        return Position.unpack(self.current.starts[item].tobytes())

    def tail(self, session: str) -> Position:
        """Returns the position after everything that may count."""
        history = self.history.apart.get(self.rows[session])
        return self.history.position(self.rows[session]) if history is None else history.tail

    @property
    def has_open(self) -> bool:
        """True if an item is in the columns and has no outcome."""
        return self.chunk is not None and bool(self.chunk.open.any())

    @property
    def current(self) -> GroupChunk:
        if self.chunk is None:
            raise RuntimeError("no step was started")
        return self.chunk

    def answered(self, item: int, position: Position) -> bool:
        """Records that the server applied the item. Returns False if a history must judge it."""
        if not self.current.open[item]:
            return False
        return not len(self.history.on_reply(self.current, np.array([item]), position.pack()))

    def leave(self, item: int) -> Chunk:
        """Returns the item's chunk in its member's own history."""
        if self.current.open[item]:
            self.alone[item] = self.history.leave(self.current, item)[1]
        return self.alone[item]

    def give_up(self) -> None:
        """Gives up the step, because the caller stops waiting."""
        for item in self.unsent:
            self.history.busy[self.current.members.rows[item]] = False
            self.current.open[item] = False
        self.unsent = []
        for item in np.flatnonzero(self.current.open).tolist():
            self.leave(item)
        for history in self.history.apart.values():
            for chunk in history.unanswered:
                history.abandon(chunk, "DEADLINE_PASSED")

    def dissolve(self, name: str) -> History:
        """Returns the idle member's history, to be continued alone."""
        row = self.rows[name]
        return self.history.apart.get(row) or self.history.take_apart(row)


def new_history(buffer_steps: int, position: Position, earlier: Callable[[], Iterable[Chunk]]) -> History:
    return History(position, step_bytes=WIDTH, buffer_steps=buffer_steps, earlier=earlier)


def named(session: str, start: Position, inputs: bytes) -> str:
    """Returns the name of a chunk in a story."""
    return f"{session}[{start.step}]={','.join(str(value) for value in unpack(inputs))}"
