"""One session, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import fingerprint_bytes, session_id, step_number, timeout_seconds, ttl_milliseconds
from ._session.arguments import position as checked_position
from ._session.named_inputs import inputs_of
from ._session.time_limit import TimeLeft
from ._transport.calls import only_result
from ._transport.carry_over import carry_over_item
from ._transport.replaying_call import call_replaying
from ._transport.requests import request_id
from ._transport.state_read import read_state
from ._transport.wire import position_message, position_of, state_messages
from .errors import Closed, HistoryError, InvalidArgument, ModelError, ResourceExhausted, StepGap, error_of_reason
from .position import Position
from .stepping import ANOTHER_GENERATION, AsyncStepping
from .types import Array, Model, Sample, SessionInfo, StepReply


class AsyncSession(AsyncStepping):
    """A session, continued after its last step. Made by `AsyncClient.session`.

    id: its name. model: its model version. created: opening it created it. last_reply: the reply to the latest answered
    step. Steps made concurrently from several tasks are applied in the order of the calls. Calls that reset, carry over
    or delete the session, or set its state, run one after another.
    """

    async def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new generation at step 0. Returns its position.

        The new generation belongs to the model version that takes new sessions, even if the session's own is no longer
        served. timeout: seconds, including retries; None: the client's. Waits for earlier steps first. Raises
        GenerationChanged if the server already has another generation, and SessionNotFound: open the session again.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            await self._drained_unless_lost(left)
            with self._restarts.one():
                position = await self._client.reset(self.id, self.generation, model=self.model.name, timeout=left())
                return await self._restarted(position, left)

    async def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new generation from the given state tensors. Returns its position.

        state: every tensor of `model.states` by name, in its shape ([layers, size] for an LSTM's h), finite numbers.
        step: the number of time steps that the new generation starts at; None: the present one. timeout: seconds,
        including retries; None: the client's. Waits for earlier steps first. Raises InvalidArgument, which names the
        tensor, GenerationChanged and SessionNotFound.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            await self._drained_unless_stuck(left)
            item = pb.SetStateRequest.Item(
                session=self.id,
                generation=self.generation,
                request_id=request_id(),
                step=self.position.step if step is None else step_number(step, "step"),
                state=state_messages(self.model, state, "state"),
            )
            request = pb.SetStateRequest(model=self.model.name, items=[item])
            with self._restarts.one():
                result = await self._client._call("SetState", request, self.id, left(), only_result)
                return await self._restarted(position_of(result.position), left)

    async def carry_over(
        self,
        policy: str,
        *,
        window: Sample | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
    ) -> Position:
        """Continues with another version of the model, as a new generation. Returns its position.

        policy: "keep" the state as it is (the session's present version must still be served), "rerun" a `window` of
        inputs ([W, F], or [W] token ids) with the new version, from its initial state, or "reset" to that initial
        state. fingerprint: 32 bytes, of the new version; empty: the one that takes new sessions. A session that already
        belongs to that version stays as it is. With "keep", the client first replays what the server lost of this
        session. timeout: seconds, including retries; None: the client's. Raises GenerationChanged if the server has
        another generation, ModelChanged if the state cannot be kept (rerun or reset), and with "keep" HistoryLost and
        HistoryChanged if the server does not have the steps of this session.
        """
        chosen, left = fingerprint_bytes(fingerprint), self._time_left(timeout)
        async with self._change(left()):
            await self._drained_unless_lost(left)
            return await self._carry_over(policy, window, chosen, left)

    async def fork(
        self,
        target: str,
        *,
        position: Position | None = None,
        ttl: float | timedelta | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Returns a new session `target` that starts from this one's committed state, or from its state at `position`.

        target: the new id. position: one that this session had, not older than the server's log; None: the present one.
        ttl: seconds (or a timedelta) of idle time after which the copy expires; 0: never; None: as this session.
        timeout: seconds, including retries; None: the client's. The client first replays what the server lost of this
        session. Raises SessionExists, and StepGap, StepCompacted or HistoryChanged if `position` is ahead of this
        session, older than the server's log, or not part of its history.
        """
        target, position = session_id(target, "target"), checked_position(position, "position")
        ttl_ms = ttl_milliseconds(ttl)
        item = pb.ForkRequest.Item(source=self.id, target=target, request_id=request_id(), ttl_ms=ttl_ms)
        model = self.model

        def here() -> Any:
            nonlocal model
            model = self.model  # of the position, which a carry-over may end before the answer arrives
            item.position.CopyFrom(position_message(position or self.position))
            return pb.ForkRequest(model=model.name, items=[item])

        result = await call_replaying(
            self._client, lambda: self._sender, self._restarts, "Fork", here, timeout, only_result
        )
        return AsyncSession(self._client, target, model, position_of(result.position), True, self._outputs)

    async def delete(self, *, timeout: float | None = None) -> bool:
        """Deletes this generation of the session. Returns False if it was already gone, which is not an error.

        timeout: seconds, including retries; None: the client's. Waits for earlier steps first. From then on the object
        raises SessionNotFound.
        """
        left = self._time_left(timeout)
        async with self._change(left()):
            await self._drained_unless_lost(left)
            return await self._client.delete(self.id, self.generation, model=self.model.name, timeout=left())

    # ------------------------------------------------------------------------------------------ reading

    async def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the committed state: tensors by name, in the shapes and dtypes of `model.states`.

        For an LSTM's h that is float32 [layers, size]. timeout: seconds, including retries; None: the client's. Waits
        for earlier steps first. Raises SessionNotFound, and GenerationChanged if the session has another generation:
        open it again.
        """
        return (await self.state_reply(timeout=timeout)).state

    async def state_reply(self, *, timeout: float | None = None) -> StepReply:
        """Like `state`, but returns a reply whose `state` has the tensors, and whose `position` says when.

        timeout: seconds, including retries; None: the client's. Waits for earlier steps first. Raises SessionNotFound
        and GenerationChanged, as `state` does.
        """
        left = self._time_left(timeout)
        await self._drained(left())
        return await read_state(self._client, self.id, self._restarts, lambda: (self.model, self.generation), left)

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Reads what the server knows of the session: position, age, idle time and TTL in seconds, whether it is hot.

        timeout: seconds, including retries; None: the client's. Raises SessionNotFound.
        """
        self._sender.check()
        return await self._client.session_info(self.id, model=self.model.name, timeout=timeout)

    async def close(self) -> None:
        """Closes this object; the session stays at the server. Each waiting or later call raises Closed."""
        if not self._sender.closed and not self._sender.loop.is_closed():
            self._sender.check()
            self._sender.close(Closed(f"session {self.id!r} was closed"))

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ inside

    def _time_left(self, timeout: float | None) -> TimeLeft:
        return TimeLeft(timeout_seconds(timeout, self._client.timeout))

    def _change(self, timeout: float) -> AbstractAsyncContextManager[None]:
        """Waits until the caller may end the generation; see Turns.one. Raises Closed and WrongEventLoop at once."""
        self._sender.check()
        return self._changes.one(timeout)

    async def _drained_unless_stuck(self, left: TimeLeft) -> None:
        """Waits for earlier steps.

        If a late step does not get through, the call that ends the generation goes ahead without it.
        """
        try:
            await self._drained(left())
        except ResourceExhausted as error:
            if error.reason:
                raise

    async def _drained_unless_lost(self, left: TimeLeft) -> None:
        """The same for calls that also go ahead if the session's model or history is gone."""
        try:
            await self._drained_unless_stuck(left)
        except (ModelError, HistoryError):
            return

    async def _carry_over(self, policy: str, window: Sample | None, chosen: bytes, left: TimeLeft) -> Position:
        """chosen: the fingerprint; empty: the caller has chosen none."""
        last = b""
        while True:
            target = await self._client.model(self.model.name, chosen, timeout=left())
            item = carry_over_item(target, self.id, self.generation, policy, window)
            if policy == "keep":
                item.position.CopyFrom(position_message(self.position))
            request = pb.CarryOverRequest(model=target.name, items=[item], fingerprint=target.fingerprint)
            try:
                with self._restarts.one():
                    result = await self._client._call("CarryOver", request, self.id, left(), only_result)
                break
            except StepGap as error:
                if error.position is None or error.position.step >= self.position.step:
                    raise
                self._sender.rewind(error, error.position)
                await self._drained(left())
            except InvalidArgument as error:
                # If the caller has chosen none, the version was replaced after it was read, and is no longer served.
                if chosen or error.field != "fingerprint" or target.fingerprint == last:
                    raise
                last = target.fingerprint
        if result.position.generation == self.generation:
            return self.position
        moved = self._new_generation(target, position_of(result.position))
        if moved.step < item.position.step:  # set with "keep" only, and ignored by servers of 0.1.0
            text = (
                f"the server lost steps {moved.step} to {item.position.step - 1} of this session before it carried it "
                "over; it goes on without them: send them again"
            )
            raise error_of_reason("HISTORY_LOST", text, moved)
        return moved

    async def _restarted(self, position: Position, left: TimeLeft) -> Position:
        """Continues with the new generation at `position`, which may belong to another version of the model.

        Nothing is sent to it before its version is known; if that cannot be read, it counts as the present one.
        """
        model = self.model
        try:
            fingerprint = (await self.info(timeout=left())).fingerprint
            if fingerprint != model.fingerprint:
                model = await self._client._served(self.id, model.name, fingerprint, left())
        finally:
            self._new_generation(model, position)
        return position

    def _new_generation(self, model: Model, position: Position) -> Position:
        """Starts an empty history for the new generation. Raises Closed if this object was closed meanwhile."""
        self._sender.check()
        if model is not self.model:
            self.model, self._inputs = model, inputs_of(model)
        ended = self._sender
        ended.close(Closed(ANOTHER_GENERATION), superseded=True)
        self._sender = self._client._connected().session_sender(self.id, model, position)
        self._sender.late_steps.put_back(ended.late_steps.take_settled())
        return self.position
