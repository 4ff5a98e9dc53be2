"""Many sessions of one process, stepped as one, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, overload

from numpy.typing import ArrayLike

from ._transport.loop_thread import LoopThread
from .errors import Closed, ForkedProcess, GroupError
from .group import AsyncGroup
from .group_stepping import Failed, Rows
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model, Sample


class Group:
    """Sessions of one model, stepped together, each continued after its last step. Made by `Client.group`.

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
        """Applies a row to each member exactly once and returns the first of `outputs` ("prediction" by default).

        x: [N, F] or [N, T, F], one row a member, in their order; token ids: [N] or [N, T]; several inputs: N dicts of
        these by name, or a structured array [N] or [N, T]. Or a dict {id: row} of any members; or a DataFrame whose
        index are ids, one time step a row, with its columns in any order where the model's features have names. All
        rows have the same number of time steps; they are converted to the model's dtype. timeout: seconds, retries
        included; None: the client's. Returns an array [N, ...], or [N, T, ...] where x has a time axis, in the order of
        x; for a dict a dict.

        Raises InvalidArgument, which names row and column, where x does not fit; nothing is sent then. Raises
        GroupError where some members failed: `errors` says which and why, `ids` and `outputs` what succeeded. An error
        there is what `Session.step` would have raised, with its `late_step`: step the failed members again only where
        that is None, or `settle` first. failed: "nan" returns rows of NaN for members that failed instead, and
        `last_reply` has their errors; where no member succeeded, it raises.
        """
        return self._thread.run(self._core.step(x, outputs=outputs, failed=failed, timeout=timeout))

    def step_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """Like `step`, with everything that the replies hold. Does not raise where members failed: their errors are in
        the reply, and its rows are those of the members that answered.

        x: [n, F] or [n, T, F], or a dict of rows by id, as in `step`. timeout: seconds, retries included; None: the
        client's. outputs: names of those wanted: "prediction", "hidden" (the top layer), "state" (every layer's
        tensors), and what further the model declares; None: the group's. Raises InvalidArgument where x does not fit;
        nothing is sent then.
        """
        return self._thread.run(self._core.step_reply(x, outputs=outputs, timeout=timeout))

    def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until of every step that was sent it is known whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        timeout: seconds, retries included; None: the client's. Returns by id the late steps that were settled since the
        last reply, or the last call of this, oldest first. Raises GroupError for members
        whose late steps are not settled, with the reason of each; where that is DeadlineExceeded, call it again.
        """
        return self._thread.run(self._core.settle(timeout=timeout))

    def peek(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """What `step` would return for x at this point; nothing of it is kept. Waits for the steps given before it. It
        is one call for each member, several at a time.

        x: [n, F] or [n, T, F], or a dict of rows by id. outputs, failed: as in `step`. timeout: seconds, retries
        included; None: the client's. Returns what `step` returns, and raises what it raises.
        """
        return self._thread.run(self._core.peek(x, outputs=outputs, failed=failed, timeout=timeout))

    def peek_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """Like `peek`, with everything that the replies hold; does not raise where members failed: their errors are in
        the reply.

        x: [n, F] or [n, T, F], or a dict of rows by id. outputs: as in `step_reply`. timeout: seconds, retries
        included; None: the client's. Raises InvalidArgument where x does not fit.
        """
        return self._thread.run(self._core.peek_reply(x, outputs=outputs, timeout=timeout))

    def forecast(
        self,
        inputs: Rows,
        *,
        steps: int,
        known: Mapping[str, Sample] | None = None,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> Any:
        """Each member goes on from here by its row of `inputs` and then by `steps` predictions, each fed back as the
        next input; nothing of it is kept. It is one call for each member, several at a time.

        inputs: as x in `step`. steps: predictions to feed back, 1 or more. known: by id, [steps, K], for each further
        time step the features that the caller supplies, in the input's order. outputs, failed: as in `step`. timeout:
        seconds, retries included; None: the client's. Returns [n, T + steps, ...] in the order of `inputs`; for a dict
        a dict. Raises what `step` raises, and InvalidArgument where the model does not say what to feed back.
        """
        call = self._core.forecast(inputs, steps=steps, known=known, outputs=outputs, failed=failed, timeout=timeout)
        return self._thread.run(call)

    def forecast_reply(
        self,
        inputs: Rows,
        *,
        steps: int,
        known: Mapping[str, Sample] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> GroupReply:
        """Like `forecast`, with everything that the replies hold; does not raise where members failed: their errors are
        in the reply.

        inputs: [n, F] or [n, T, F], or a dict of rows by id. steps, known, outputs: as in `forecast`. timeout: seconds,
        retries included; None: the client's. The reply's arrays are [n, T + steps, ...]. Raises InvalidArgument as
        `forecast` does.
        """
        call = self._core.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout)
        return self._thread.run(call)

    def add(
        self,
        sessions: Iterable[str],
        *,
        expect: Mapping[str, Position] | None = None,
        timeout: float | None = None,
    ) -> dict[str, bool]:
        """Opens sessions and takes them in, after the others. All are opened by few calls (OpenMany).

        sessions: their ids, none of them a member. expect: by id, the position whose history is insisted on.
        timeout: seconds for each call, retries included; None: the client's. Returns by id whether opening created it.
        Raises InvalidArgument for ids that are no texts of 1..256 bytes, occur twice or are members already, and
        GroupError where some could not be opened, with the reason of each; the others are members then.
        """
        try:
            return self._thread.run(self._core.add(sessions, expect=expect, timeout=timeout))
        except GroupError as error:
            error.group = self
            raise

    def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        """Forgets members here, once their steps are answered; the sessions stay at the server. Late steps that could
        not be settled are forgotten too.

        sessions: ids of members. timeout: seconds to wait; None: the client's. Raises InvalidArgument for an id that is
        no member's, and DeadlineExceeded: nothing was forgotten.
        """
        self._thread.run(self._core.remove(sessions, timeout=timeout))

    def reset(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Position]:
        """Starts a new generation at step 0 of these members.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Returns their positions by id. Raises GroupError where some failed, with the reason of each (GenerationChanged:
        the server has another generation already; remove and add the member); the others were reset.
        """
        return self._thread.run(self._core.reset(sessions, timeout=timeout))

    def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        """Deletes these members at the server; they leave the group.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Returns by id False where the session was gone already. Raises GroupError where some failed, with the reason of
        each; these stay members.
        """
        return self._thread.run(self._core.delete(sessions, timeout=timeout))

    def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed states of these members: named tensors [n, ...], one row a member, in their dtype. It is one
        call for each member, several at a time.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Raises GroupError where some failed, with the reason of each.
        """
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
