"""Sends the steps of a group: its calls, its columns, and the members that left the columns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Protocol

import numpy as np

from ..errors import CellkeeperError, Unavailable
from ..late_step import LateStep
from ..types import GroupReply, StepReply
from .chunk import Chunk
from .frame_format import FrameFormat
from .group_call import GroupCall, GroupPart, MemberAnswer, ReplyColumns
from .group_history import GroupHistory, Members, Rows
from .group_waiting import WaitingGroupCalls
from .history import History
from .hold import GroupHold
from .retry import EndpointStatus, no_answer_from
from .sender import NEVER, Sender
from .separate_members import SeparateMembers
from .session_sender import SessionSender
from .step_call import StepCall

_logger = logging.getLogger("cellkeeper")
Tell = Callable[[SessionSender, Chunk, CellkeeperError], None]  # a method of the sender
_BUSY = "it was not sent: earlier steps of its members are still unanswered"


class Routes(Protocol):
    """Chooses where a group's items go."""

    def split(self, members: Members, input_bytes: int) -> Sequence[tuple[EndpointStatus, Rows | None, Members]]:
        """Splits the members into parts that fit into one frame each: endpoint, items (None: all of them), members."""

    def send(self, part: GroupPart, sender: GroupSender) -> None:
        """Puts the part into the queue of its endpoint."""

    def adopt(self, sender: SessionSender, endpoint: EndpointStatus | None) -> None:
        """Lets the sender continue what went to that endpoint."""

    def forget(self, name: str) -> None:
        """Drops what it knows of a session, which may come back."""


class GroupSender(Sender):
    """Sends a group's steps. Use it from one event loop only.

    frame_format: returns the format of frames with these outputs. separate: the members that have left the columns.
    new_sender: makes the sender of such a member.
    """

    def __init__(
        self,
        history: GroupHistory,
        *,
        frame_format: Callable[[tuple[str, ...]], FrameFormat],
        new_sender: Callable[[str, History], SessionSender],
        routes: Routes,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop)
        self.history = history
        self.frame_format = frame_format
        self.separate = SeparateMembers(history, new_sender=new_sender, adopt=routes.adopt)
        self._routes = routes
        self._waiting = WaitingGroupCalls()
        self._active: list[GroupCall] = []

    # ------------------------------------------------------------------------------------------ callers

    def submit(
        self,
        members: Members,
        inputs: bytes,
        single: bool,
        outputs: tuple[str, ...],
        timeout: float,
        answer: asyncio.Future[GroupReply],
    ) -> GroupCall:
        """Sends one item for each member, once none of them has another in flight.

        inputs: raw, item by item. single: given without a time axis. timeout: seconds.
        """
        self.check()
        deadline = self.loop.time() + timeout
        call = GroupCall(members, inputs, single, self.frame_format(outputs), timeout, deadline, answer)
        if deadline < self.next_deadline:
            self.expire_at(deadline)
        self._waiting.append(call)
        self._start_waiting()
        return call

    def expire(self, now: float) -> float:
        self._forget_done()
        for call in self._calls():
            if call.deadline <= now:
                for sender, alone in list(call.alone.values()):  # whichever timer fires first, theirs or the group's
                    if not alone.answer.done():
                        sender.give_up(alone, sender.out_of_time(alone, now))
                self.give_up(call, self._out_of_time(call, now))
        return min((call.deadline for call in self._calls()), default=NEVER)

    def give_up(self, call: GroupCall, error_at: Callable[[EndpointStatus | None, bool], CellkeeperError]) -> None:
        """Ends the unanswered items of the call.

        error_at: returns the error for the endpoint that did not answer, and whether the items were sent.
        """
        if call in self._waiting:
            self._waiting.remove(call)
            call.fail_all(error_at(None, False))
        for part in call.parts:
            if not part.sent and not part.withdrawn:
                error = error_at(part.endpoint, False)
                for item in self._withdraw(part):
                    call.fail(int(part.items[item]), error)
            for item in np.flatnonzero(part.chunk.open).tolist():
                self._leave(part, item)
        for sender, alone in list(call.alone.values()):
            if not alone.answer.done():
                sender.give_up(alone, error_at(sender.endpoint, True))
        self._go_on(call)

    def note_unread(self, reply: GroupReply, steps: int) -> None:
        """Records late steps for a reply that arrived after the caller had gone. steps: time steps of each row."""
        self.separate.put_back(reply.late_steps)
        for row, (name, position) in enumerate(zip(reply.ids, reply.positions, strict=True)):
            outputs = {key: values[row] for key, values in reply.outputs.items()}
            self.separate.note_settled(name, (LateStep(position, steps, True, outputs),))

    @asynccontextmanager
    async def held(self, members: Members, timeout: float) -> AsyncIterator[dict[str, CellkeeperError]]:
        """Waits until every earlier step of these members is answered, and holds later ones back while inside.

        Yields, by id, why late steps cannot be settled. Raises DeadlineExceeded if others stay unanswered.
        """
        self.check()
        deadline = self.loop.time() + timeout
        hold = GroupHold(self.loop, members)
        self._waiting.append(hold)
        self._start_waiting()
        try:
            await hold.wait(timeout, lambda: None)
            yield await self._drained_alone(members, max(0.0, deadline - self.loop.time()))
        finally:
            if hold in self._waiting:
                self._waiting.remove(hold)
            self._start_waiting()

    def alone(self, row: int, name: str) -> SessionSender:
        """Returns the member's own sender. Moves the member out of the columns, with what it has in flight."""
        for part in (part for call in self._active for part in call.parts):
            item = part.chunk.members.item_of(row) if self.history.busy[row] else None
            if item is not None and part.chunk.open[item]:
                self._leave(part, item)
        return self.separate.of(row) or self.separate.add(row, name, self.history.take_apart(row), None)

    def forget(self, row: int, name: str, error: CellkeeperError) -> None:
        """Drops the history of a member that restarts or leaves. Its steps in flight end with `error`."""
        if self.history.busy[row]:
            self.alone(row, name)
        self.separate.remove(row, error)
        self._routes.forget(name)

    def remove(self, row: int, name: str, error: CellkeeperError) -> None:
        """Frees the row of a member that leaves the group. Its steps, and those that wait, end with `error`."""
        self.forget(row, name, error)
        for call in self._waiting.steps:
            if (item := call.members.item_of(row)) is not None:
                call.fail(item, error)
        self.history.remove(row)

    def close(self, error: CellkeeperError) -> None:
        """Ends every call with `error`; every later use raises it."""
        self._closed = error
        self.expire_never()
        for call in self._calls():
            self.give_up(call, lambda endpoint, sent: error)
        self._waiting.grant_holds()  # their callers find the group closed
        self._waiting.clear()
        self.separate.close(error)

    # ------------------------------------------------------------------------------------------ frames

    def reroute(self, part: GroupPart) -> None:
        """Sends the part again if it was not sent, since its endpoint may no longer be the best one."""
        if not part.withdrawn:
            items = self._withdraw(part)
            if len(items):
                self._send(part.call, part.items[items])

    def replied(self, part: GroupPart, replies: ReplyColumns) -> None:
        """Records the replies to items that the server applied."""
        is_open = part.chunk.open[replies.items]
        if not is_open.all():
            for at in np.flatnonzero(~is_open).tolist():
                self._replied_alone(part, int(replies.items[at]), replies.one(at))
            replies = replies.take(np.flatnonzero(is_open))
        wrong = self.history.on_reply(part.chunk, replies.items, replies.positions)
        if len(wrong):
            is_wrong = np.isin(replies.items, wrong)
            for at in np.flatnonzero(is_wrong).tolist():
                item = int(replies.items[at])
                self._leave(part, item)
                self._replied_alone(part, item, replies.one(at))
            replies = replies.take(np.flatnonzero(~is_wrong))
        if len(replies.items):
            part.call.take(part.items[replies.items], replies)
        self._go_on(part.call)

    def refused(self, part: GroupPart, item: int, error: CellkeeperError) -> None:
        """Records that the server refused the item."""
        self._ended(part, item, SessionSender.refused, error)

    def refused_rest(self, part: GroupPart, error: CellkeeperError) -> None:
        """Records that the server refused the part's frame: every item without an answer."""
        self._end_rest(part, SessionSender.refused, error)

    def lost(self, part: GroupPart, error: CellkeeperError, was_read: bool) -> None:
        """Records that the part's stream is lost: what is unanswered will get no answer. was_read: it may have been."""
        self._end_rest(part, SessionSender.lost if was_read else SessionSender.not_read, error)

    # ------------------------------------------------------------------------------------------ inside

    def _calls(self) -> list[GroupCall]:
        """Returns the calls that were started, and those that wait."""
        return [*self._active, *self._waiting.steps]

    async def _drained_alone(self, members: Members, timeout: float) -> dict[str, CellkeeperError]:
        """Waits for the steps of those that have left the columns. Returns, by id, why it need not wait longer."""
        if self._closed is not None:  # while the caller waited
            return {name: copy(self._closed) for name in members.names}
        rows = zip(members.names, members.rows.tolist(), strict=True)
        alone = [(name, row, sender) for name, row in rows if (sender := self.separate.of(row)) is not None]
        results = await asyncio.gather(*(sender.drained(timeout) for *_, sender in alone), return_exceptions=True)
        errors: dict[str, CellkeeperError] = {}
        for (name, row, sender), result in zip(alone, results, strict=True):
            if isinstance(result, CellkeeperError):
                if self.separate.of(row) is sender:  # otherwise a reset has ended it meanwhile, and what it had to do
                    errors[name] = result
            elif isinstance(result, BaseException):
                raise result
        return errors

    def _withdraw(self, part: GroupPart) -> Rows:
        """Marks the part as not to be sent. Returns its items that are in the columns; senders send the others."""
        part.withdrawn = True
        items = self.history.withdraw(part.chunk)
        for item in list(part.alone):
            self._ended(part, item, SessionSender.lost, Unavailable("its frame was not sent", reason="LOST"))
        return items

    def _start_waiting(self) -> None:
        if self._waiting:
            self._waiting.start(self.history.busy, self._start)

    def _start(self, call: GroupCall) -> None:
        self._forget_done()  # drops calls that ended through senders alone
        self._active.append(call)
        items: Rows = np.arange(len(call.members))
        if call.errors:  # of members that have left the group
            items = np.delete(items, list(call.errors))
        if self.separate:
            self.separate.rejoin()
            found = [(call.members.item_of(row), sender) for row, sender in self.separate]
            apart = [(item, sender) for item, sender in found if item is not None and item not in call.errors]
            items = items[~np.isin(items, [item for item, _ in apart])]
            for item, sender in apart:
                self._submit_alone(call, item, sender)
        if len(items):
            self._send(call, items)

    def _submit_alone(self, call: GroupCall, item: int, sender: SessionSender) -> None:
        inputs = call.inputs_of(np.array([item]))
        left = max(0.0, call.deadline - self.loop.time())
        answer = MemberAnswer(call, item)
        alone = sender.submit(inputs, call.single, call.frame_format.outputs, left, answer)
        alone.timeout, alone.deadline = call.timeout, call.deadline  # not those of what was left
        call.alone[item] = (sender, alone)

    def _send(self, call: GroupCall, items: Rows) -> None:
        members = call.members if len(items) == len(call.members) else call.members.take(items)
        for endpoint, chosen, some in self._routes.split(members, len(call.inputs) // len(call.members)):
            its = items if chosen is None else items[chosen]
            part = GroupPart(call, self.history.append(some, call.inputs_of(its)), its, endpoint)
            call.parts.append(part)
            self._routes.send(part, self)

    def _leave(self, part: GroupPart, item: int) -> tuple[SessionSender, Chunk]:
        history, chunk = self.history.leave(part.chunk, item)
        call, members, at = part.call, part.chunk.members, int(part.items[item])
        sender = self.separate.add(int(members.rows[item]), members.names[item], history, part.endpoint)
        alone = StepCall(
            chunk.inputs, call.single, call.frame_format, call.timeout, call.deadline, MemberAnswer(call, at)
        )
        alone.chunk, chunk.call = chunk, alone
        sender.expire_at(call.deadline)
        call.alone[at] = (sender, alone)
        part.alone[item] = (sender, chunk)
        return sender, chunk

    def _ended(self, part: GroupPart, item: int, tell: Tell, error: CellkeeperError) -> None:
        """Moves the item's member out of the columns, unless it is, and tells its sender how the chunk ended."""
        alone = part.alone.pop(item, None)
        if alone is None and part.chunk.open[item]:
            alone = self._leave(part, item)
            del part.alone[item]
        if alone is not None:
            sender, chunk = alone
            tell(sender, chunk, error)
            self._go_on(part.call)

    def _end_rest(self, part: GroupPart, tell: Tell, error: CellkeeperError) -> None:
        for item in (*part.alone, *np.flatnonzero(part.chunk.open).tolist()):
            try:
                self._ended(part, item, tell, error)
            except Exception:  # noqa: PERF203 - one member's failure must not keep the others from being told
                _logger.exception("a lost step of session %r could not be handled", part.chunk.members.names[item])

    def _replied_alone(self, part: GroupPart, item: int, reply: StepReply) -> None:
        alone = part.alone.pop(item, None)
        if alone is not None:
            sender, chunk = alone
            sender.replied(chunk, reply)

    def _out_of_time(self, call: GroupCall, now: float) -> Callable[[EndpointStatus | None, bool], CellkeeperError]:
        spent, why = now - (call.deadline - call.timeout), _BUSY if call in self._waiting else ""

        def error_at(endpoint: EndpointStatus | None, sent: bool) -> CellkeeperError:
            return no_answer_from(endpoint, call.timeout, spent, None, why, sent)

        return error_at

    def _forget_done(self) -> None:
        self._active = [call for call in self._active if not call.done]

    def _go_on(self, call: GroupCall) -> None:
        if call.done:
            self._forget_done()
        self._start_waiting()
