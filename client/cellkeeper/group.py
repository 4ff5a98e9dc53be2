"""Many sessions of one process, stepped as one, for asyncio."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from ._session.event_loop import check_loop
from ._transport.item_calls import each
from ._transport.requests import REQUEST_ID_BYTES
from ._transport.wire import array_of, position_of
from .errors import CellkeeperError, Closed, GroupError
from .group_stepping import AsyncGroupStepping
from .late_step import LateStep
from .position import Position
from .types import Array


class AsyncGroup(AsyncGroupStepping):
    """Sessions of one model, stepped together, each continued after its last step. Made by `AsyncClient.group`.

    model: the model version that the first member belongs to; the others take and give the same. last_reply: of the
    latest step. The members keep the order in which they were given. What a member does is what a session of its own
    does, exactly once and retried alike; a member that fails does not hold up the others, and its error is its own.
    Steps of the same member that are given at the same time from several tasks are applied in the order of the calls.
    """

    async def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until of every step that was sent it is known whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        timeout: seconds, retries included; None: the client's. Returns by id the late steps that were settled since the
        last reply, or the last call of this, oldest first. Raises GroupError for members
        whose late steps are not settled, with the reason of each; where that is DeadlineExceeded, call it again.
        """
        errors = await self._members.drained(self._members.all, timeout)
        _raise_failed("settle", errors, self.ids)  # before anything is taken: the next call has what was settled
        return self._sender.take_settled()

    # ------------------------------------------------------------------------------------------ members

    async def add(
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
        not be settled are forgotten too.

        sessions: ids of members. timeout: seconds to wait; None: the client's. Raises InvalidArgument for an id that is
        no member's, and DeadlineExceeded: nothing was forgotten.
        """
        members = self._members.named(sessions)
        await self._members.drained(members, timeout)
        self._members.remove(members)

    async def reset(
        self, sessions: Iterable[str] | None = None, *, timeout: float | None = None
    ) -> dict[str, Position]:
        """Starts a new generation at step 0 of these members.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Returns their positions by id. Raises GroupError where some failed, with the reason of each (GenerationChanged:
        the server has another generation already; remove and add the member); the others were reset.
        """
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
        """Deletes these members at the server; they leave the group.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Returns by id False where the session was gone already. Raises GroupError where some failed, with the reason of
        each; these stay members.
        """
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
        """The committed states of these members: named tensors [n, ...], one row a member, in their dtype. It is one
        call for each member, several at a time.

        sessions: ids of members; None: all. timeout: seconds for each call, retries included; None: the client's.
        Raises GroupError where some failed, with the reason of each.
        """
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
        """Forgets the members here; the sessions stay at the server. What still waits raises Closed."""
        if not self._sender.loop.is_closed():
            check_loop(self._sender.loop)
            self._sender.close(Closed("the group was closed"))

    async def __aenter__(self) -> AsyncGroup:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _raise_failed(
    what: str, errors: Mapping[str, CellkeeperError], names: Sequence[str], group: AsyncGroup | None = None
) -> None:
    if errors:
        raise GroupError(what, errors, [name for name in names if name not in errors], group=group)
