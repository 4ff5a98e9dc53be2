"""A group's peeks and forecasts, which keep nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from .._session.group_call import GroupCall
from .._session.group_history import Members
from .._session.group_sender import GroupSender
from .._session.restarts import Restarts
from .._session.session_sender import SessionSender
from ..errors import CellkeeperError
from ..types import GroupReply, Model, StepReply
from .caller import Caller
from .frame_codec import frame_bytes, most_items
from .group_frame import frame_message, reply_columns
from .group_members import GroupMembers
from .item_calls import by_endpoint, each
from .replaying_call import call_replaying
from .requests import peek_request, rollout_request
from .wire import peek_reply_of, position_message


class Peeks:
    """Makes peeks and forecasts. group: all members. restarts: theirs. outputs: those to request."""

    def __init__(
        self,
        client: Caller,
        sender: GroupSender,
        group: GroupMembers,
        restarts: Restarts,
        model: Model,
        outputs: tuple[str, ...],
    ) -> None:
        self._client = client
        self._sender = sender
        self._group = group
        self._restarts = restarts
        self._model = model
        self._outputs = outputs

    async def peek(self, members: Members, inputs: bytes, single: bool, timeout: float) -> GroupReply:
        """Peeks in frames. A member that fails there gets its own call, after a replay of what the server lost."""
        call = self._call(members, inputs, single, timeout)
        async with self._held(call, timeout):
            await self._peek(call, inputs, single)
        return call.reply()

    async def _peek(self, call: GroupCall, inputs: bytes, single: bool) -> None:
        members = call.members
        input_bytes = len(inputs) // len(members)
        steps = input_bytes // self._model.input.nbytes
        limit = self._model.max_frame_items or len(members)
        most = most_items(limit, frame_bytes(self._model), input_bytes, members.names)
        asked = {name: item for item, name in enumerate(members.names) if item not in call.errors}
        refused: list[int] = []

        async def frame(names: list[str]) -> None:
            items = np.array([asked[name] for name in names if self._stays(call, asked[name])], np.intp)
            if not len(items):
                return
            some = members.take(items)
            positions = self._sender.history.packed_positions(some)
            message = frame_message(call.frame_format, some.names, positions, call.inputs_of(items), steps)
            message.peek = True
            try:
                reply = await self._client._call("StepBatch", message, some.names[0], self._left(call))
                replies = reply_columns(reply, call.frame_format.expected, len(items), steps, single)
            except CellkeeperError as error:
                for item in items.tolist():
                    call.fail(item, error)
                return
            if len(replies.items):
                call.take(items[replies.items], replies)
            refused.extend(items[error.item].item() for error in reply.errors)

        await asyncio.gather(*map(frame, by_endpoint(self._client, asked, most)))
        requests = {
            item: peek_request(members.names[item], self._model, call.inputs_of(np.array([item])), self._outputs)
            for item in refused
        }
        await self._alone(call, requests, single)

    async def forecast(
        self, members: Members, inputs: bytes, steps: int, known: Mapping[str, bytes], timeout: float
    ) -> GroupReply:
        """Forecasts each member by itself. known: by id, the raw features that the caller supplies."""
        call = self._call(members, inputs, False, timeout)
        requests = {}
        for item, name in enumerate(members.names):
            peek = peek_request(name, self._model, call.inputs_of(np.array([item])), self._outputs)
            requests[item] = rollout_request(peek, self._model, steps, known[name])
        async with self._held(call, timeout):
            await self._alone(call, {item: each for item, each in requests.items() if item not in call.errors}, False)
        return call.reply()

    # ------------------------------------------------------------------------------------------ inside

    def _call(self, members: Members, inputs: bytes, single: bool, timeout: float) -> GroupCall:
        """Returns a call that collects the replies, as for a step."""
        self._sender.check()
        loop = self._sender.loop
        frame_format = self._sender.frame_format(self._outputs)
        return GroupCall(members, inputs, single, frame_format, timeout, loop.time() + timeout, loop.create_future())

    @asynccontextmanager
    async def _held(self, call: GroupCall, timeout: float) -> AsyncIterator[None]:
        """Waits for earlier steps of the call's members, and holds later ones back while the caller is inside."""
        async with self._sender.held(call.members, timeout) as errors:
            for item, name in enumerate(call.members.names):
                if name in errors:
                    call.fail(item, errors[name])
            yield

    def _stays(self, call: GroupCall, item: int) -> bool:
        """Returns True if the item's member is still one; otherwise the item fails."""
        gone = self._group.gone(int(call.members.rows[item]), call.members.names[item])
        if gone is not None:
            call.fail(item, gone)
        return gone is None

    async def _alone(self, call: GroupCall, requests: Mapping[int, Any], single: bool) -> None:
        members, history = call.members, self._sender.history

        async def one(item: int) -> StepReply:
            row, name = int(members.rows[item]), members.names[item]

            def check() -> None:
                if (gone := self._group.gone(row, name)) is not None:
                    raise gone

            def current() -> SessionSender:
                check()
                return self._sender.alone(row, name)

            def here() -> Any:
                check()
                requests[item].position.CopyFrom(position_message(history.position(row)))
                return requests[item]

            answer = await call_replaying(self._client, current, self._restarts, "Step", here, self._left(call))
            return peek_reply_of(answer, self._model, self._outputs, single)

        replies, errors = await each(requests, one)
        for item, reply in replies.items():
            call.take_one(item, reply)
        for item, error in errors.items():
            call.fail(item, error)

    def _left(self, call: GroupCall) -> float:
        return max(0.001, call.deadline - self._sender.loop.time())
