"""Steps, peeks and forecasts of a group, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from ._session.arguments import invalid, output_names, timeout_seconds
from ._session.group_inputs import named_rows
from ._session.named_inputs import group_inputs_of, known_by_id
from ._session.not_copied import NotCopied
from ._session.restarts import Restarts
from ._session.time_limit import TimeLeft
from ._session.turns import Turns
from ._transport.caller import Caller
from ._transport.group_members import GroupMembers
from ._transport.group_peeks import Peeks
from ._transport.requests import check_rollout
from .errors import Closed, GroupError, InvalidArgument
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model, Sample

Failed = Literal["raise", "nan"]
Rows = ArrayLike | Sequence[Sample] | Mapping[str, Sample]  # or a DataFrame or Series


class AsyncGroupStepping(NotCopied):
    """The part of `AsyncGroup` that steps, peeks and forecasts."""

    model: Model

    def __init__(self, client: Caller, model: Model, ttl: float | timedelta | None, outputs: Sequence[str]) -> None:
        self.last_reply: GroupReply | None = None
        self._client = client
        self._ttl = ttl
        self._outputs = tuple(outputs)
        # Calls that change the members ask the server in between, and rely on which ones there are.
        self._changes = Turns("changes the members")
        self._restarts = Restarts()
        self._use(model)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, session: object) -> bool:
        return session in self._members

    def __repr__(self) -> str:
        closed = ", closed" if self._sender.closed else ""
        return f"<{type(self).__name__} of {len(self)} sessions of {self.model.name!r}{closed}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """The members' session ids, in order."""
        return tuple(self._members.all.names)

    @property
    def positions(self) -> dict[str, Position]:
        """By id, the position after the member's last acknowledged step."""
        return {name: self._sender.history.position(row) for name, row in self._members.pairs()}

    @property
    def unsettled(self) -> dict[str, tuple[LateStep, ...]]:
        """By id, the late steps whose outcome is not known yet, oldest first; members without any are omitted.

        A step is late if its caller stopped waiting after it was sent. Its member's next step settles it first, by
        sending it again, and so does `settle`.
        """
        found = {name: self._sender.separate.unsettled(row) for name, row in self._members.pairs()}
        return {name: steps for name, steps in found.items() if steps}

    # ------------------------------------------------------------------------------------------ steps

    @overload
    async def step(
        self,
        x: Mapping[str, Sample],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> dict[str, Array]: ...

    @overload
    async def step(
        self,
        x: ArrayLike | Sequence[Sample],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> Array: ...

    async def step(
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
        `AsyncSession.step` would have raised, with its `late_step`: step a failed member again only if that is None, or
        `settle` first. failed: "nan" returns rows of NaN for failed members instead, with their errors in `last_reply`;
        if no member succeeded, or the output consists of integers, it still raises.
        """
        check_failed(failed)
        reply, names, _ = await self._step(x, outputs, timeout)
        return self._rows("step", reply, names, x, failed)

    async def step_reply(
        self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> GroupReply:
        """Like `step`, but returns the whole reply, and does not raise if members failed.

        The reply has their errors, and its rows are those of the members that succeeded. x: [n, F] or [n, T, F], or a
        dict of rows by id, as in `step`. timeout: seconds, including retries; None: the client's. outputs: any of
        "prediction", "hidden" (the top layer), "state" (every layer's tensors), and whatever else the model declares;
        None: the group's. Raises InvalidArgument if x does not fit; nothing was sent then.
        """
        return (await self._step(x, outputs, timeout))[0]

    async def peek(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """Returns what `step` would return for x now, but keeps nothing of it.

        Waits for earlier steps of these members; later ones wait for it. Makes one call for as many members as fit into
        a frame. x: [n, F] or [n, T, F], or a dict of rows by id. outputs, failed: as in `step`, but only `peek_reply`
        tells the errors behind rows of NaN. timeout: seconds, including retries; None: the client's. Raises what `step`
        raises.
        """
        check_failed(failed)
        reply, names = await self._peek(x, outputs, timeout)
        return self._rows("peek", reply, names, x, failed)

    async def peek_reply(
        self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> GroupReply:
        """Like `peek`, but returns the whole reply, and does not raise if members failed: the reply has their errors.

        x: [n, F] or [n, T, F], or a dict of rows by id. outputs: as in `step_reply`. timeout: seconds, including
        retries; None: the client's. Raises InvalidArgument if x does not fit.
        """
        return (await self._peek(x, outputs, timeout))[0]

    async def forecast(
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
        check_failed(failed)
        reply, names = await self._forecast(inputs, steps, known, outputs, timeout)
        return self._rows("forecast", reply, names, inputs, failed)

    async def forecast_reply(
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
        return (await self._forecast(inputs, steps, known, outputs, timeout))[0]

    # ------------------------------------------------------------------------------------------ inside

    def _use(self, model: Model) -> None:
        """Adopts this model version; the group must have no members yet."""
        self.model = model
        self._sender = self._client._connected().group_sender(model)
        self._members = GroupMembers(self._client, model, self._sender, self._ttl)
        self._inputs = group_inputs_of(model)

    async def _step(
        self, x: Rows, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[GroupReply, Sequence[str], int]:
        """Returns the reply, the ids of all rows, and how many time steps each row has."""
        names, raw, single = self._convert(x)
        steps = len(raw) // len(names) // self.model.input.nbytes
        self._sender.check()
        answer: asyncio.Future[GroupReply] = self._sender.loop.create_future()
        call = self._sender.submit(
            self._members.of(names), raw, single, self._wanted(outputs), self._seconds(timeout), answer
        )
        try:
            reply = await answer
        except asyncio.CancelledError:
            self._sender.give_up(call, lambda endpoint, sent: Closed("the caller stopped waiting"))
            self._sender.note_unread(call.reply(), steps)
            raise
        settled = self._sender.separate.take_settled()
        for name, late_steps in reply.late_steps.items():
            settled[name] = (*settled.get(name, ()), *late_steps)
        reply.late_steps = settled
        self.last_reply = reply
        return reply, names, steps

    def _put_back(self, settled: Mapping[str, tuple[LateStep, ...]]) -> None:
        """Takes back what `settle` returned and nobody has read."""
        self._sender.separate.put_back(settled)

    def _note_unread(self, stepped: tuple[GroupReply, Sequence[str], int]) -> None:
        """Keeps what `_step` returned for the next reply, as nobody has read it."""
        reply, _, steps = stepped
        self._sender.note_unread(reply, steps)

    def _convert(self, x: Rows) -> tuple[Sequence[str], bytes, bool]:
        named = named_rows(x, self.model.feature_names)
        if named is None:
            names: Sequence[str] = self._members.all.names
            rows: Any = x
        else:
            names, rows = named
            self._members.check(names, "inputs", " as a key of the dict, or in the index of the DataFrame or Series")
        if not names:
            text = "inputs: got no rows" if self._members else "inputs: the group has no members"
            raise InvalidArgument(f"{text}, expected at least one", reason="INVALID_FIELD", field="inputs")
        return names, *self._inputs.convert(names, rows)

    async def _peek(
        self, x: Rows, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[GroupReply, Sequence[str]]:
        names, raw, single = self._convert(x)
        return await self._peeks(outputs).peek(self._members.of(names), raw, single, self._seconds(timeout)), names

    def _peeks(self, outputs: Sequence[str] | None) -> Peeks:
        wanted = self._wanted(outputs)
        return Peeks(self._client, self._sender, self._members, self._restarts, self.model, wanted)

    async def _forecast(
        self,
        inputs: Rows,
        steps: int,
        known: Mapping[str, Sample] | None,
        outputs: Sequence[str] | None,
        timeout: float | None,
    ) -> tuple[GroupReply, Sequence[str]]:
        names, raw, _ = self._convert(inputs)
        steps = check_rollout(self.model, steps, len(raw) // len(names) // self.model.input.nbytes)
        features = known_by_id(self.model, names, known, steps)
        return await self._peeks(outputs).forecast(
            self._members.of(names), raw, steps, features, self._seconds(timeout)
        ), names

    def _rows(self, what: str, reply: GroupReply, names: Sequence[str], x: Rows, failed: Failed) -> Any:
        """Returns what the caller of `what` gets for its x. Raises GroupError."""
        rows = self._filled(what, reply, names, failed) if reply.errors else reply.output
        return dict(zip(names, rows, strict=True)) if isinstance(x, Mapping) else rows

    def _filled(self, what: str, reply: GroupReply, names: Sequence[str], failed: Failed) -> Array:
        """Returns the rows of all `names`, NaN for failed members. Raises GroupError if NaN is not allowed."""
        if failed == "raise" or not reply.ids or reply.output.dtype.kind != "f":
            raise GroupError(what, reply.errors, reply.ids, outputs=reply.outputs, reply=reply)
        rows = np.full((len(names), *reply.output.shape[1:]), np.nan, reply.output.dtype)
        rows[[name not in reply.errors for name in names]] = reply.output
        return rows

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        return self._outputs if outputs is None else output_names(outputs)

    def _seconds(self, timeout: float | None) -> float:
        return timeout_seconds(timeout, self._client.timeout)

    def _time_left(self, timeout: float | None) -> TimeLeft:
        return TimeLeft(self._seconds(timeout))

    def _change(self, timeout: float) -> AbstractAsyncContextManager[None]:
        """Waits until the caller may change the members; see Turns.one. Raises Closed and WrongEventLoop at once."""
        self._sender.check()
        return self._changes.one(timeout)


def check_failed(failed: object) -> None:
    """Raises InvalidArgument. Call it before sending anything."""
    if failed not in ("raise", "nan"):
        raise invalid("failed", repr(failed), "'raise' or 'nan'")
