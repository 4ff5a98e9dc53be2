"""Many sessions of one process, stepped as one, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, overload

from numpy.typing import ArrayLike

from ._session.arguments import several_ids
from ._transport.blocking import Blocking, blocking, declared_as
from .errors import Closed, ForkedProcess, GroupError
from .group import AsyncGroup
from .group_stepping import Failed, Rows, check_failed
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model, Sample


class Group(Blocking[AsyncGroup]):
    """Sessions of one model, stepped together, each continued after its last step. Made by `Client.group`.

    Safe to use from several threads. A member that fails does not hold up the others, and its error is its own.
    """

    def __len__(self) -> int:
        return len(self._core)

    def __contains__(self, session: object) -> bool:
        return session in self._core

    @property
    def model(self) -> Model:
        """The first member's model version; the other members' versions take and return the same."""
        return self._core.model

    @property
    def last_reply(self) -> GroupReply | None:
        """The reply to the latest step; None before the first."""
        return self._core.last_reply

    @property
    def ids(self) -> tuple[str, ...]:
        """The members' session ids, in order."""
        return self._core.ids

    @property
    def positions(self) -> dict[str, Position]:
        """By id, the position after the member's last acknowledged step."""
        # In the client's thread, which may just be moving a member between its columns and a history of its own.
        return self._thread.read("positions", lambda: self._core.positions)

    @property
    def unsettled(self) -> dict[str, tuple[LateStep, ...]]:
        """By id, the late steps whose outcome is not known yet, oldest first; members without any are omitted.

        A step is late if its caller stopped waiting after it was sent. Its member's next step settles it first, by
        sending it again, and so does `settle`.
        """
        # After the core has noted what was interrupted here.
        return self._thread.read("unsettled", lambda: self._core.unsettled)

    @overload
    def step(
        self,
        x: Mapping[str, Sample],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> dict[str, Array]: ...

    @overload
    def step(
        self,
        x: ArrayLike | Sequence[Sample],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> Array: ...

    def step(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """Applies one row to each member exactly once and returns the first of `outputs` ("prediction" by default).

        x: [N, F] or [N, T, F], one row per member, in order; token ids: [N] or [N, T]; several inputs: N dicts of
        these by name, or a structured array [N] or [N, T]. Or a dict {id: row} for any of the members. Or a DataFrame
        (for token ids a Series) whose index holds ids, one time step per row, with its columns in any order if the
        model's features have names. All rows have the same number of time steps; they are converted to the model's
        dtype. timeout: seconds, including retries; None: the client's. Returns an array [N, ...], or [N, T, ...] if x
        has a time axis, in the order of x; for a dict, a dict.

        Raises InvalidArgument, which names row and column, if x does not fit; nothing was sent then. Raises GroupError
        if some members failed: `errors` says which and why, `ids` and `outputs` what succeeded. Each error is what
        `Session.step` would have raised, with its `late_step`: step a failed member again only if that is None, or
        `settle` first. failed: "nan" returns rows of NaN for failed members instead, with their errors in `last_reply`;
        if no member succeeded, or the output consists of integers, it still raises.
        """
        check_failed(failed)
        reply, names, _ = self._thread.run(self._core._step(x, outputs, timeout), "step", self._core._note_unread)
        return self._core._rows("step", reply, names, x, failed)

    @declared_as(AsyncGroup.step_reply)
    def step_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        stepped = self._thread.run(self._core._step(x, outputs, timeout), "step_reply", self._core._note_unread)
        return stepped[0]

    @declared_as(AsyncGroup.settle)
    def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        return self._thread.run(self._core.settle(timeout=timeout), unread=self._core._put_back)

    peek = blocking(AsyncGroup.peek)
    peek_reply = blocking(AsyncGroup.peek_reply)
    forecast = blocking(AsyncGroup.forecast)
    forecast_reply = blocking(AsyncGroup.forecast_reply)

    @declared_as(AsyncGroup.add)
    def add(
        self,
        sessions: Iterable[str],
        *,
        expect: Mapping[str, Position] | None = None,
        timeout: float | None = None,
    ) -> dict[str, bool]:
        try:
            return self._thread.run(self._core.add(several_ids(sessions), expect=expect, timeout=timeout))
        except GroupError as error:
            error.group = self
            raise

    @declared_as(AsyncGroup.remove)
    def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        self._thread.run(self._core.remove(several_ids(sessions), timeout=timeout))

    @declared_as(AsyncGroup.reset)
    def reset(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Position]:
        return self._thread.run(self._core.reset(_ids(sessions), timeout=timeout))

    @declared_as(AsyncGroup.delete)
    def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        return self._thread.run(self._core.delete(_ids(sessions), timeout=timeout))

    @declared_as(AsyncGroup.state)
    def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        return self._thread.run(self._core.state(_ids(sessions), timeout=timeout))

    @declared_as(AsyncGroup.close)
    def close(self) -> None:
        with suppress(Closed, ForkedProcess):  # of the client, which has closed the group
            self._thread.run(self._core.close())

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ids(sessions: Iterable[str] | None) -> list[str] | None:
    """Reads the ids in the caller's thread: the iterable may use the client."""
    return None if sessions is None else several_ids(sessions)
