"""Many sessions of one process, stepped as one, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from ._session.arguments import positions
from ._session.time_limit import TimeLeft
from ._transport.item_calls import each
from ._transport.requests import request_id
from ._transport.state_read import read_state
from ._transport.wire import position_of
from .errors import CellkeeperError, Closed, GroupError, ModelChanged
from .group_stepping import AsyncGroupStepping
from .late_step import LateStep
from .position import Position
from .types import Array, Model


class AsyncGroup(AsyncGroupStepping):
    """Sessions of one model, stepped together, each continued after its last step. Made by `AsyncClient.group`.

    model: the first member's model version; the other members' versions take and return the same. last_reply: of the
    latest step. The members keep the order in which they were given. Each member behaves like a session of its own,
    exactly once and with the same retries; one that fails does not hold up the others, and its error is its own.
    Concurrent steps of the same member from several tasks are applied in the order of the calls. Calls that add,
    remove, reset or delete members run one after another.
    """

    async def settle(self, *, timeout: float | None = None) -> dict[str, tuple[LateStep, ...]]:
        """Waits until the outcome of every step that was sent is known.

        It sends each late step again, which applies it unless the server rejects it for good. timeout: seconds,
        including retries; None: the client's. Returns, by id, the late steps that were settled since the last reply or
        the last call of `settle`, oldest first. Raises GroupError for members whose late steps are not settled, with
        the reason for each; if that is DeadlineExceeded, call it again.
        """
        async with self._sender.held(self._members.all, self._time_left(timeout)()) as errors:
            pass
        _raise_failed("settle", errors, self.ids)  # before taking what was settled, so that the next call returns it
        return self._sender.separate.take_settled()

    # ------------------------------------------------------------------------------------------ members

    async def add(
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
        left = self._time_left(timeout)
        async with self._change(left()):
            self._sender.check()
            opened, errors = await self._members.open(sessions, positions(expect, "expect"), left)
            if not len(self):
                await self._use_first_version(opened, left)
            created = await self._members.take_in(opened, errors, left)
            _raise_failed("open", errors, list(created), group=self)
            return created

    async def remove(self, sessions: Iterable[str], *, timeout: float | None = None) -> None:
        """Removes members from the group once their steps are answered; the sessions stay at the server.

        The outcome of late steps that cannot be settled will never be known. sessions: ids of members. timeout: seconds
        to wait; None: the client's. Raises InvalidArgument for an id that is not a member's, and DeadlineExceeded,
        after which all are still members.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            members = self._members.named(sessions)
            async with self._sender.held(members, left()):
                self._members.remove(members)

    async def reset(
        self, sessions: Iterable[str] | None = None, *, timeout: float | None = None
    ) -> dict[str, Position]:
        """Starts a new generation at step 0 for these members.

        sessions: ids of members; None: all. timeout: seconds, including retries; None: the client's. Returns their
        positions by id. Raises GroupError if some failed, with the reason for each (GenerationChanged: the server
        already has another generation; remove and add the member); the others were reset.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            members = self._members.named(sessions)
            async with self._sender.held(members, left()):
                items = {
                    name: pb.ResetRequest.Item(session=name, generation=position.generation, request_id=request_id())
                    for name, position in self._members.positions(members)
                }
                with self._restarts.one():
                    results, errors = await self._members.call("Reset", pb.ResetRequest, items, left)
                    restarted = {name: position_of(result.position) for name, result in results.items()}
                    errors.update(await self._members.restart(restarted, left))
            _raise_failed("reset", errors, members.names)
            return {name: restarted[name] for name in members.names}

    async def delete(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, bool]:
        """Deletes these members at the server and removes them from the group.

        sessions: ids of members; None: all. timeout: seconds, including retries; None: the client's. Returns, by id,
        False if the session was already gone. Raises GroupError if some failed, with the reason for each; these remain
        members.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            members = self._members.named(sessions)
            async with self._sender.held(members, left()):
                items = {
                    name: pb.DeleteRequest.Item(session=name, generation=position.generation)
                    for name, position in self._members.positions(members)
                }
                results, errors = await self._members.call("Delete", pb.DeleteRequest, items, left)
                deleted = {name: bool(results[name].deleted) for name in members.names if name in results}
                self._members.remove(self._members.of(list(deleted)))
            _raise_failed("delete", errors, members.names)
            return deleted

    async def state(self, sessions: Iterable[str] | None = None, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the committed states of these members: named tensors [n, ...], one row per member, in their dtype.

        It makes one call for each member, several at a time. sessions: ids of members; None: all. timeout: seconds,
        including retries; None: the client's. Raises GroupError if some failed, with the reason for each
        (GenerationChanged: the session has another generation; remove and add the member).
        """
        members, left = self._members.named(sessions), self._time_left(timeout)
        async with self._sender.held(members, left()) as errors:
            pass  # a later step may come before the state is read, which is then that after the step

        rows_of = dict(zip(members.names, members.rows.tolist(), strict=True))
        before = dict(self._members.positions(members))

        async def read(name: str) -> dict[str, Array]:
            def here() -> tuple[Model, bytes]:
                left_group = self._members.gone(rows_of[name], name) is not None
                position = before[name] if left_group else self._sender.history.position(rows_of[name])
                return self.model, position.generation

            return (await read_state(self._client, name, self._restarts, here, left)).state

        states, failed = await each([name for name in members.names if name not in errors], read)
        _raise_failed("state", {**errors, **failed}, members.names)
        rows = {spec.name: np.zeros((len(members), *spec.shape), spec.dtype) for spec in self.model.states}
        for tensor, values in rows.items():
            for row, name in enumerate(members.names):
                values[row] = states[name][tensor]
        return rows

    async def close(self) -> None:
        """Closes this object; the sessions stay at the server. Each later call raises Closed.

        A waiting call raises GroupError, with a Closed for each member and its late step.
        """
        if not self._sender.closed and not self._sender.loop.is_closed():
            self._sender.check()
            self._sender.close(Closed("the group was closed"))

    async def __aenter__(self) -> AsyncGroup:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ inside

    async def _use_first_version(self, opened: Mapping[str, Any], left: TimeLeft) -> None:
        """Lets the group have the version of the first of these sessions whose version is still served."""
        names: dict[bytes, str] = {}
        for name, answer in opened.items():
            names.setdefault(answer.fingerprint, name)
        for fingerprint, name in names.items():
            if fingerprint == self.model.fingerprint:
                return
            try:
                model = await self._client._served(name, self.model.name, fingerprint, left())
            except ModelChanged:  # an error of those members alone
                continue
            self._sender.check()  # the group may have been closed meanwhile
            settled = self._sender.separate.take_settled()  # of members that have left
            self._use(model)
            self._sender.separate.put_back(settled)
            return


def _raise_failed(
    what: str, errors: Mapping[str, CellkeeperError], names: Sequence[str], group: AsyncGroup | None = None
) -> None:
    if errors:
        raise GroupError(what, errors, [name for name in names if name not in errors], group=group)
