"""Many sessions of one process, stepped as one, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, overload

from numpy.typing import ArrayLike

from ._transport.loop_thread import LoopThread
from .errors import Closed, ForkedProcess, GroupError
from .group import AsyncGroup, Failed, Rows
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model


class Group:
    """Sessions of one model, stepped together, each continued where it stands. Made by `Client.group`.

    Safe to use from several threads. A member that fails does not hold up the others, and its error is its own.
    """

    def __init__(self, thread: LoopThread, core: AsyncGroup) -> None:
        self._thread = thread
        self._core = core

    def __len__(self) -> int:
        return len(self._core)

    def __contains__(self, session: object) -> bool:
        return session in self._core

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sessions of {self.model.name!r}>"

    @property
    def model(self) -> Model:
        """The model version that the first member belongs to; the others take and give the same."""
        return self._core.model

    @property
    def last_reply(self) -> GroupReply | None:
        """The reply to the latest step; None before that."""
        return self._core.last_reply

    @property
    def ids(self) -> tuple[str, ...]:
        """The members' session ids, in order."""
        return self._core.ids

    @property
    def positions(self) -> dict[str, Position]:
        """By id, the position after the member's last acknowledged step."""
        return self._core.positions

    @property
    def unsettled(self) -> dict[str, tuple[LateStep, ...]]:
        """By id, the late steps of which it is not known whether they count, oldest first."""
        with suppress(Closed, ForkedProcess):
            return self._thread.run(_unsettled(self._core))  # once it is known there what was interrupted here
        return self._core.unsettled

    @overload
    def step(
        self,
        x: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> dict[str, Array]: ...

    @overload
    def step(
        self,
        x: ArrayLike,
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> Array: ...

    def step(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """Applies a row to each member exactly once and returns the first of `outputs` ("prediction" by default).

        x: [N, F] or [N, T, F], one row a member, in their order; token ids: [N] or [N, T]. Or a dict {id: row} of any
        members; or a DataFrame whose index are ids. Returns [N, ...], or [N, T, ...] where x has a time axis, in the
        order of x; for a dict a dict. timeout: seconds. Raises InvalidArgument where x does not fit, and GroupError
        where some members failed, which says which, why, and what succeeded. failed: "nan" returns rows of NaN for
        these instead. See AsyncGroup.step.
        """
        return self._thread.run(self._core.step(x, outputs=outputs, failed=failed, timeout=timeout))

    def step_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """Like `step`, with everything that the replies hold: outputs by name, positions, and the errors of members
        that failed, for which it does not raise."""
        return self._thread.run(self._core.step_reply(x, outputs=outputs, timeout=timeout))

    def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until of every step that was sent it is known whether it counts. Returns, by id, the late steps that
        were settled since the last reply. Raises DeadlineExceeded and GroupError; see AsyncGroup.settle."""
        return self._thread.run(self._core.settle(timeout=timeout))

    def peek(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """What x ([N, F], [N, T, F], a dict or a DataFrame) would give at this point; nothing of it is kept. The errors
        of members that failed are in the reply."""
        return self._thread.run(self._core.peek(x, outputs=outputs, timeout=timeout))

    def forecast(
        self,
        inputs: Rows,
        *,
        steps: int,
        known: Mapping[str, ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> GroupReply:
        """Each member goes on from here by its row of `inputs` and then by `steps` predictions, each fed back as the
        next input; nothing of it is kept. known: by id, [steps, K]. The outputs are [n, T + steps, ...]; see
        AsyncGroup.forecast."""
        return self._thread.run(self._core.forecast(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout))

    def add(
        self,
        sessions: Iterable[str],
        *,
        expect: Mapping[str, Position] | None = None,
        timeout: float | None = None,
    ) -> dict[str, bool]:
        """Opens sessions and takes them in, after the others. Returns by id whether opening created it. Raises
        InvalidArgument, and GroupError where some could not be opened; the others are members then."""
        try:
            return self._thread.run(self._core.add(sessions, expect=expect, timeout=timeout))
        except GroupError as error:
            error.group = self
            raise

    def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        """Forgets members here, once their steps are answered; the sessions stay at the server."""
        self._thread.run(self._core.remove(sessions, timeout=timeout))

    def reset(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Position]:
        """Starts a new generation at step 0 of these members, or of all. Returns their positions by id. Raises
        GroupError where some failed; the others were reset."""
        return self._thread.run(self._core.reset(sessions, timeout=timeout))

    def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        """Deletes these members, or all, at the server; they leave the group. Returns by id False where the session was
        gone already. Raises GroupError where some failed; these stay members."""
        return self._thread.run(self._core.delete(sessions, timeout=timeout))

    def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed states of these members, or of all: named tensors [n, ...], one row a member. Raises GroupError
        where some failed."""
        return self._thread.run(self._core.state(sessions, timeout=timeout))

    def close(self) -> None:
        """Forgets the members here; the sessions stay at the server."""
        self._thread.run(self._core.close())

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _unsettled(core: AsyncGroup) -> dict[str, tuple[LateStep, ...]]:
    return core.unsettled
