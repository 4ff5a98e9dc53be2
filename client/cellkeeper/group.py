"""Many sessions of one process, stepped as one, for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, overload

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import timeout_seconds
from ._session.event_loop import check_loop
from ._session.group_call import GroupCall
from ._session.group_inputs import GroupInputs, named_rows
from ._session.inputs import Inputs
from ._transport.caller import GroupCaller
from ._transport.group_members import GroupMembers
from ._transport.group_peeks import Peeks
from ._transport.item_calls import each
from ._transport.requests import REQUEST_ID_BYTES, check_rollout
from ._transport.wire import array_of, position_of
from .errors import CellkeeperError, Closed, GroupError, InvalidArgument
from .late_step import LateStep
from .position import Position
from .types import Array, GroupReply, Model

Failed = Literal["raise", "nan"]
Rows = ArrayLike | Mapping[str, ArrayLike]  # or a DataFrame


class AsyncGroup:
    """Sessions of one model, stepped together, each continued where it stands. Made by `AsyncClient.group`.

    model: the model version that the first member belongs to; the others take and give the same. last_reply: of the
    latest step. The members keep the order in which they were given. What a member does is what a session of its own
    does, exactly once and retried alike; a member that fails does not hold up the others, and its error is its own.
    Steps of the same member that are given at the same time from several tasks are applied in the order of the calls.
    """

    def __init__(
        self, client: GroupCaller, model: Model, ttl: float | timedelta | None, outputs: Sequence[str]
    ) -> None:
        self.last_reply: GroupReply | None = None
        self._client = client
        self._ttl = ttl
        self._outputs = tuple(outputs)
        self._use(model)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, session: object) -> bool:
        return session in self._members

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sessions of {self.model.name!r}>"

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
        """By id, the late steps of which it is not known whether they count, oldest first; members without any are left
        out. See AsyncSession.unsettled."""
        found = {name: self._sender.unsettled(row) for name, row in self._members.pairs()}
        return {name: steps for name, steps in found.items() if steps}

    # ------------------------------------------------------------------------------------------ steps

    @overload
    async def step(
        self,
        x: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> dict[str, Array]: ...

    @overload
    async def step(
        self,
        x: ArrayLike,
        *,
        outputs: Sequence[str] | None = None,
        failed: Failed = "raise",
        timeout: float | None = None,
    ) -> Array: ...

    async def step(
        self, x: Rows, *, outputs: Sequence[str] | None = None, failed: Failed = "raise", timeout: float | None = None
    ) -> Any:
        """Applies a row to each member exactly once and returns the first of `outputs` ("prediction" by default).

        x: [N, F] or [N, T, F], one row a member, in their order; token ids: [N] or [N, T]. Or a dict {id: row} of any
        members; or a DataFrame whose index are ids, one time step a row. All rows have the same number of time steps;
        they are converted to the model's dtype. Returns an array [N, ...], or [N, T, ...] where x has a time axis, in
        the order of x; for a dict a dict. timeout: seconds.

        Raises InvalidArgument, which names row and column, where x does not fit; nothing is sent then. Raises
        GroupError where some members failed: `errors` says which and why, `ids` and `outputs` what succeeded. An error
        there is what `AsyncSession.step` would have raised, with its `late_step`: step the failed members again only
        where that is None, or `settle` first. failed: "nan" returns rows of NaN for members that failed instead, and
        `last_reply` has their errors; where no member succeeded, it raises.
        """
        if failed not in ("raise", "nan"):
            raise InvalidArgument(f"failed: got {failed!r}, expected 'raise' or 'nan'", field="failed")
        reply, names = await self._step(x, outputs, timeout)
        rows = reply.output if not reply.errors else self._filled(reply, names, failed)
        return dict(zip(names, rows, strict=True)) if isinstance(x, Mapping) else rows

    async def step_reply(
        self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> GroupReply:
        """Like `step`, with everything that the replies hold. Does not raise where members failed: their errors are in
        the reply, and its rows are those of the members that answered.

        outputs: of "prediction", "hidden" (the top layer), "state" (every layer's tensors), and what further the model
        declares.
        """
        reply, _ = await self._step(x, outputs, timeout)
        return reply

    async def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until of every step that was sent it is known whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        Returns by id the late steps that were settled since the last reply, or the last call of this, oldest first.
        Raises DeadlineExceeded, and GroupError for members whose late steps cannot be settled.
        """
        errors = await self._members.drained(self._members.all, timeout)
        settled = self._sender.take_settled()
        _raise_failed("settle", errors, self.ids)
        return settled

    async def peek(self, x: Rows, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> GroupReply:
        """What x would give at this point; nothing of it is kept. x: as in `step`. Waits for the steps given before it.
        The errors of members that failed are in the reply."""
        names, raw, single = self._convert(x)
        peeks = Peeks(self._client, self._sender, self.model, self._wanted(outputs))
        return await peeks.peek(self._members.of(names), raw, single, self._seconds(timeout))

    async def forecast(
        self,
        inputs: Rows,
        *,
        steps: int,
        known: Mapping[str, ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> GroupReply:
        """Each member goes on from here by its row of `inputs` and then by `steps` predictions, each fed back as the
        next input; nothing of it is kept. inputs: as `x` in `step`. known: by id, [steps, K] as in
        AsyncSession.forecast.

        Returns outputs [n, T + steps, ...]. The errors of members that failed are in the reply. It is one call for each
        member, several at the same time. Raises InvalidArgument where the model does not say what to feed back.
        """
        names, raw, _ = self._convert(inputs)
        peeks = Peeks(self._client, self._sender, self.model, self._wanted(outputs))
        check_rollout(self.model, steps)
        features = {name: Inputs(self.model).convert_known((known or {}).get(name), steps) for name in names}
        return await peeks.forecast(self._members.of(names), raw, steps, features, self._seconds(timeout))

    # ------------------------------------------------------------------------------------------ members

    async def add(
        self,
        sessions: Iterable[str],
        *,
        expect: Mapping[str, Position] | None = None,
        timeout: float | None = None,
    ) -> dict[str, bool]:
        """Opens sessions and takes them in, after the others. Returns by id whether opening created it.

        All are opened by few calls (OpenMany). expect: by id, the position whose history is insisted on, as in
        AsyncClient.session. Raises InvalidArgument for ids that are no texts of 1..256 bytes, occur twice or are
        members already, and GroupError where some could not be opened; the others are members then.
        """
        opened, errors = await self._members.open(sessions, expect or {}, timeout)
        if opened and not len(self):
            name, first = next(iter(opened.items()))
            if first.fingerprint != self.model.fingerprint:
                self._use(await self._client._served(name, self.model.name, first.fingerprint, timeout))
        created = await self._members.take_in(opened, errors, timeout)
        _raise_failed("open", errors, list(created), group=self)
        return created

    async def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        """Forgets members here, once their steps are answered; the sessions stay at the server. Late steps that could
        not be settled are forgotten too. Raises DeadlineExceeded."""
        members = self._members.named(sessions)
        await self._members.drained(members, timeout)
        self._members.remove(members)

    async def reset(
        self, sessions: Iterable[str] | None = None, *, timeout: float | None = None
    ) -> dict[str, Position]:
        """Starts a new generation at step 0 of these members, or of all. Returns their positions by id. Raises
        GroupError where some failed (GenerationChanged: another generation stands there already); the others were
        reset."""
        members = self._members.named(sessions)
        await self._members.drained(members, timeout)
        items = {
            name: pb.ResetRequest.Item(
                session=name, generation=position.generation, request_id=os.urandom(REQUEST_ID_BYTES)
            )
            for name, position in self._members.positions(members)
        }
        results, errors = await self._members.call(
            "Reset", lambda some: pb.ResetRequest(model=self.model.name, items=some), items, timeout
        )
        positions = {name: position_of(result.position) for name, result in results.items()}
        errors.update(await self._members.restart(positions, timeout))
        _raise_failed("reset", errors, members.names)
        return {name: positions[name] for name in members.names}

    async def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        """Deletes these members, or all, at the server; they leave the group. Returns by id False where the session was
        gone already. Raises GroupError where some failed; these stay members."""
        members = self._members.named(sessions)
        await self._members.drained(members, timeout)
        items = {
            name: pb.DeleteRequest.Item(session=name, generation=position.generation)
            for name, position in self._members.positions(members)
        }
        results, errors = await self._members.call(
            "Delete", lambda some: pb.DeleteRequest(model=self.model.name, items=some), items, timeout
        )
        deleted = {name: bool(results[name].deleted) for name in members.names if name in results}
        gone = self._members.of(list(deleted))
        await self._members.drained(gone, timeout)  # of steps that were given meanwhile
        self._members.remove(gone)
        _raise_failed("delete", errors, members.names)
        return deleted

    async def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed states of these members, or of all: named tensors [n, ...], one row a member. Raises GroupError
        where some failed. It is one call for each member, several at the same time."""
        members = self._members.named(sessions)
        errors = await self._members.drained(members, timeout)

        async def read(name: str) -> dict[str, Array]:
            request = pb.GetStateRequest(model=self.model.name, session=name)
            answer = await self._client._call("GetState", request, name, timeout)
            return {tensor.name.removeprefix("state."): array_of(tensor) for tensor in answer.state}

        states, failed = await each([name for name in members.names if name not in errors], read)
        _raise_failed("state", {**errors, **failed}, members.names)
        return {spec.name: np.stack([states[name][spec.name] for name in members.names]) for spec in self.model.states}

    async def close(self) -> None:
        """Forgets the members here; the sessions stay at the server. What still waits ends with Closed."""
        if not self._sender.loop.is_closed():
            check_loop(self._sender.loop)
            self._sender.close(Closed("the group was closed"))

    async def __aenter__(self) -> AsyncGroup:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ inside

    def _use(self, model: Model) -> None:
        """The members are to belong to that version; there are none yet."""
        self.model = model
        self._sender = self._client._new_group_sender(model)
        self._members = GroupMembers(self._client, model, self._sender, self._ttl)
        self._inputs = GroupInputs(model)

    async def _step(
        self, x: Rows, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[GroupReply, Sequence[str]]:
        names, raw, single = self._convert(x)
        frame_format = self._client._frame_format(self.model, self._wanted(outputs))
        self._sender.check()
        answer: asyncio.Future[GroupReply] = self._sender.loop.create_future()
        call = self._sender.submit(self._members.of(names), raw, single, frame_format, self._seconds(timeout), answer)
        try:
            reply = await answer
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        settled = self._sender.take_settled()
        for name, steps in reply.late_steps.items():
            settled[name] = (*settled.get(name, ()), *steps)
        reply.late_steps = settled
        self.last_reply = reply
        return reply, names

    def _give_up(self, call: GroupCall) -> None:
        """Ends the call: its caller has stopped waiting."""
        self._sender.give_up(call, lambda _: Closed("its caller waits no longer"))
        self._sender.note_unheard(call, len(call.inputs) // len(call.members) // self.model.input.nbytes)

    def _convert(self, x: Rows) -> tuple[Sequence[str], bytes, bool]:
        named = named_rows(x)
        if named is None:
            names: Sequence[str] = self._members.all.names
            rows: Any = x
        else:
            names, rows = named
            self._members.check(names)
        if not names:
            text = "inputs: got no rows" if self._members else "inputs: the group has no members"
            raise InvalidArgument(f"{text}, expected at least one", reason="INVALID_FIELD", field="inputs")
        return names, *self._inputs.convert(names, rows)

    def _filled(self, reply: GroupReply, names: Sequence[str], failed: Failed) -> Array:
        """The rows of all `names`, NaN where a member failed. Raises GroupError where that is not wanted, or cannot
        be."""
        if failed == "raise" or not reply.ids or reply.output.dtype.kind != "f":
            raise GroupError("step", reply.errors, reply.ids, outputs=reply.outputs, reply=reply)
        rows = np.full((len(names), *reply.output.shape[1:]), np.nan, reply.output.dtype)
        rows[[name not in reply.errors for name in names]] = reply.output
        return rows

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        return self._outputs if outputs is None else tuple(outputs)

    def _seconds(self, timeout: float | None) -> float:
        return timeout_seconds(timeout, self._client.timeout)


def _raise_failed(
    what: str, errors: Mapping[str, CellkeeperError], names: Sequence[str], group: AsyncGroup | None = None
) -> None:
    if errors:
        raise GroupError(what, errors, [name for name in names if name not in errors], group=group)
