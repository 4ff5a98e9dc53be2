"""The members of a group that have left its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..errors import CellkeeperError
from ..late_step import LateStep
from .group_history import GroupHistory
from .history import History
from .late_steps import MOST_UNREAD
from .retry import EndpointStatus
from .session_sender import SessionSender


class SeparateMembers:
    """The members of a group that have left its columns, by row, each with a sender of its own; and their late steps.

    new_sender: makes the sender of a session. adopt: lets a sender continue what went to that endpoint.
    """

    def __init__(
        self,
        history: GroupHistory,
        *,
        new_sender: Callable[[str, History], SessionSender],
        adopt: Callable[[SessionSender, EndpointStatus | None], None],
    ) -> None:
        self._history = history
        self._new_sender = new_sender
        self._adopt = adopt
        self._senders: dict[int, SessionSender] = {}
        self._settled: dict[str, tuple[LateStep, ...]] = {}  # also of members that have rejoined the columns since

    def __bool__(self) -> bool:
        return bool(self._senders)

    def __iter__(self) -> Iterator[tuple[int, SessionSender]]:
        """Yields rows and senders."""
        return iter(list(self._senders.items()))

    def of(self, row: int) -> SessionSender | None:
        """Returns the member's sender; None while it is in the columns."""
        return self._senders.get(row)

    def add(self, row: int, name: str, history: History, endpoint: EndpointStatus | None) -> SessionSender:
        """Returns the sender of a member that has just left the columns. endpoint: where it has steps in flight."""
        sender = self._senders[row] = self._new_sender(name, history)
        self._adopt(sender, endpoint)
        return sender

    def remove(self, row: int, error: CellkeeperError) -> None:
        """Drops a member that restarts or leaves the group. What it has in flight ends with `error`.

        Its late steps are kept until they are taken.
        """
        sender = self._senders.pop(row, None)
        if sender is not None:
            sender.close(error, superseded=True)
            self.note_settled(sender.session, sender.late_steps.take_settled())

    def rejoin(self) -> None:
        """Returns the members with nothing left to do to the columns."""
        for row, sender in self:
            if sender.is_at_rest:
                self.note_settled(sender.session, sender.late_steps.take_settled())
                sender.expire_never()
                self._history.rejoin(row)
                del self._senders[row]

    def close(self, error: CellkeeperError) -> None:
        """Ends every call with `error`."""
        for sender in self._senders.values():
            sender.close(error)

    # ------------------------------------------------------------------------------------------ late steps

    def unsettled(self, row: int) -> tuple[LateStep, ...]:
        """The late steps of the row's member whose outcome is not known yet, oldest first."""
        sender = self._senders.get(row)
        return sender.late_steps.unsettled if sender is not None else ()

    def note_settled(self, name: str, steps: tuple[LateStep, ...]) -> None:
        """Keeps late steps whose outcome is known until they are taken; only the latest MOST_UNREAD."""
        if steps:
            self._settled[name] = (*self._settled.get(name, ()), *steps)[-MOST_UNREAD:]

    def put_back(self, settled: Mapping[str, tuple[LateStep, ...]]) -> None:
        """Takes back what `take_settled` returned and nobody has read."""
        for name, steps in settled.items():
            self._settled[name] = (*steps, *self._settled.get(name, ()))[-MOST_UNREAD:]

    def take_settled(self) -> dict[str, tuple[LateStep, ...]]:
        """Returns, by id, the late steps whose outcome became known since the last call, oldest first."""
        for sender in self._senders.values():
            self.note_settled(sender.session, sender.late_steps.take_settled())
        settled, self._settled = self._settled, {}
        return settled
