"""Many sessions of one process, stepped as one, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, overload

from numpy.typing import ArrayLike

from ._session.arguments import several_ids
from ._session.not_copied import NotCopied
from ._transport.loop_thread import LoopThread
from .errors import Closed, ForkedProcess, GroupError
from .group import AsyncGroup
from .group_stepping import Failed, Rows, check_failed
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model, Sample


class Group(NotCopied):
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
        return repr(self._core).replace("AsyncGroup", type(self).__name__, 1)

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

    def step_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """Like `step`, but returns the whole reply, and does not raise if members failed.

        The reply has their errors, and its rows are those of the members that succeeded. x: [n, F] or [n, T, F], or a
        dict of rows by id, as in `step`. timeout: seconds, including retries; None: the client's. outputs: any of
        "prediction", "hidden" (the top layer), "state" (every layer's tensors), and whatever else the model declares;
        None: the group's. Raises InvalidArgument if x does not fit; nothing was sent then.
        """
        stepped = self._thread.run(self._core._step(x, outputs, timeout), "step_reply", self._core._note_unread)
        return stepped[0]

    def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until the outcome of every step that was sent is known.

        It sends each late step again, which applies it unless the server rejects it for good. timeout: seconds,
        including retries; None: the client's. Returns, by id, the late steps that were settled since the last reply or
        the last call of `settle`, oldest first. Raises GroupError for members whose late steps are not settled, with
        the reason for each; if that is DeadlineExceeded, call it again.
        """
        return self._thread.run(self._core.settle(timeout=timeout), unread=self._core._put_back)

    def peek(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """Returns what `step` would return for x now, but keeps nothing of it.

        Waits for earlier steps of these members; later ones wait for it. Makes one call for as many members as fit into
        a frame. x: [n, F] or [n, T, F], or a dict of rows by id. outputs, failed: as in `step`, but only `peek_reply`
        tells the errors behind rows of NaN. timeout: seconds, including retries; None: the client's. Raises what `step`
        raises.
        """
        return self._thread.run(self._core.peek(x, outputs=outputs, failed=failed, timeout=timeout))

    def peek_reply(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """Like `peek`, but returns the whole reply, and does not raise if members failed: the reply has their errors.

        x: [n, F] or [n, T, F], or a dict of rows by id. outputs: as in `step_reply`. timeout: seconds, including
        retries; None: the client's. Raises InvalidArgument if x does not fit.
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
        """Runs each member ahead over its row of `inputs` and then over `steps` predictions, and keeps nothing.

        Each prediction is fed back as the next input. Waits for earlier steps of these members; later ones wait for it.
        Makes one call for each member, several at a time. inputs: as x in `step`. steps: predictions to feed back, 1 or
        more. known: by id, [steps, K], for each further time step the features that the caller supplies, in the input's
        order. outputs, failed: as in `step`, but only `forecast_reply` tells the errors behind rows of NaN. timeout:
        seconds, including retries; None: the client's. Returns [n, T + steps, ...] in the order of `inputs`; for a
        dict, a dict. Raises what `step` raises, and InvalidArgument if the model does not say what to feed back.
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
        """Like `forecast`, but returns the whole reply, and does not raise if members failed: it has their errors.

        inputs: [n, F] or [n, T, F], or a dict of rows by id. steps, known, outputs: as in `forecast`. timeout: seconds,
        including retries; None: the client's. The reply's arrays are [n, T + steps, ...]. Raises InvalidArgument as
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
        """Opens sessions with a few OpenMany calls and appends them to the members.

        sessions: their ids, none of them a member. expect: by id, a position whose history the session must have.
        timeout: seconds, including retries; None: the client's. Returns, by id, whether opening created the session.
        Raises InvalidArgument for ids that are not strings of 1 to 256 bytes, occur twice or are already members, and
        GroupError if some could not be opened, with the reason for each; the others are members then.
        """
        try:
            return self._thread.run(self._core.add(several_ids(sessions), expect=expect, timeout=timeout))
        except GroupError as error:
            error.group = self
            raise

    def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        """Removes members from the group once their steps are answered; the sessions stay at the server.

        The outcome of late steps that cannot be settled will never be known. sessions: ids of members. timeout: seconds
        to wait; None: the client's. Raises InvalidArgument for an id that is not a member's, and DeadlineExceeded,
        after which all are still members.
        """
        self._thread.run(self._core.remove(several_ids(sessions), timeout=timeout))

    def reset(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Position]:
        """Starts a new generation at step 0 for these members.

        sessions: ids of members; None: all. timeout: seconds, including retries; None: the client's. Returns their
        positions by id. Raises GroupError if some failed, with the reason for each (GenerationChanged: the server
        already has another generation; remove and add the member); the others were reset.
        """
        return self._thread.run(self._core.reset(_ids(sessions), timeout=timeout))

    def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        """Deletes these members at the server and removes them from the group.

        sessions: ids of members; None: all. timeout: seconds, including retries; None: the client's. Returns, by id,
        False if the session was already gone. Raises GroupError if some failed, with the reason for each; these remain
        members.
        """
        return self._thread.run(self._core.delete(_ids(sessions), timeout=timeout))

    def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the committed states of these members: named tensors [n, ...], one row per member, in their dtype.

        It makes one call for each member, several at a time. sessions: ids of members; None: all. timeout: seconds,
        including retries; None: the client's. Raises GroupError if some failed, with the reason for each
        (GenerationChanged: the session has another generation; remove and add the member).
        """
        return self._thread.run(self._core.state(_ids(sessions), timeout=timeout))

    def close(self) -> None:
        """Closes this object; the sessions stay at the server. Each later call raises Closed.

        A waiting call raises GroupError, with a Closed for each member and its late step.
        """
        with suppress(Closed, ForkedProcess):  # of the client, which has closed the group
            self._thread.run(self._core.close())

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ids(sessions: Iterable[str] | None) -> list[str] | None:
    """Reads the ids in the caller's thread: the iterable may use the client."""
    return None if sessions is None else several_ids(sessions)
