"""One session, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import ArrayLike

from ._session.arguments import session_id, timeout_seconds
from ._session.inputs import Inputs
from ._session.pipeline import Pipeline, answers
from ._session.session_sender import SessionSender
from ._session.step_call import Answer, StepCall
from ._transport.caller import Caller
from ._transport.calls import only_result
from ._transport.carry_over import carry_over_item
from ._transport.replaying_call import call_replaying
from ._transport.requests import forecast_request, fork_item, peek_request, set_state_request
from ._transport.wire import array_of, peek_reply_of, position_message, position_of
from .errors import Closed, HistoryError, ModelError
from .late_step import LateStep
from .position import Position
from .types import Array, Model, SessionInfo, StepReply


class AsyncSession:
    """A session, continued where it stands. Made by `AsyncClient.session`.

    id: its name. model: the model version it belongs to. created: opening it created it. last_reply: of the latest
    step that was answered. Steps given at the same time from several tasks are applied in the order of the calls.
    """

    def __init__(
        self,
        client: Caller,
        session: str,
        model: Model,
        make_sender: Callable[[str, Model, Position], SessionSender],
        position: Position,
        created: bool,
        outputs: Sequence[str],
    ) -> None:
        self.id = session
        self.model = model
        self.created = created
        self.last_reply: StepReply | None = None
        self._client = client
        self._inputs = Inputs(model)
        self._make_sender = make_sender
        self._sender = make_sender(session, model, position)
        self._outputs = tuple(outputs)

    @property
    def position(self) -> Position:
        """Position after the last acknowledged step."""
        return self._sender.history.position

    @property
    def generation(self) -> bytes:
        """16 bytes that change when the session starts anew: by reset, set_state, carry_over, delete or expiry."""
        return self.position.generation

    @property
    def unsettled(self) -> tuple[LateStep, ...]:
        """The late steps of which it is not known whether they count, oldest first.

        A step is late where its caller stopped waiting (its deadline passed, its task was cancelled) when it had been
        sent. The next step settles it first, by sending it again, and so does `settle`.
        """
        return self._sender.late_steps.unsettled

    # ------------------------------------------------------------------------------------------ steps

    async def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until of every step that was sent it is known whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        Returns the late steps that were settled since the last reply, or the last call of this, oldest first. Raises
        DeadlineExceeded, and what keeps a late step from being settled (SessionNotFound, AccessDenied ...).
        """
        await self._drained(timeout)
        return self._sender.late_steps.take_settled()

    async def step(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Applies x exactly once and returns the first of `outputs` ("prediction" by default).

        x: [F] or [T, F]; token ids: one integer or [T]; converted to the model's dtype. Returns [...], or [T, ...]
        where x has a time axis. Raises CellkeeperError; its `late_step` says whether x may count nevertheless. What is
        given after that is another step, also where it has the same values.
        """
        future, call = self._submit(x, outputs, timeout)
        try:
            self.last_reply = reply = await future
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        return reply.output

    async def step_reply(
        self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `step`, with everything that the reply holds.

        outputs: of "prediction", "hidden" (the top layer), "state" (every layer's tensors), and what further the
        model declares.
        """
        future, call = self._submit(x, outputs, timeout)
        try:
            self.last_reply = reply = await future
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        return reply

    async def stream(
        self,
        samples: Iterable[ArrayLike] | AsyncIterable[ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[Array, None]:
        """Applies samples, pipelined, and yields the first output of each, in order.

        samples: single time steps, from any iterable; it is read ahead by `window` time steps at most (the
        client's window_steps by default; 1 waits for each answer before the next sample is read). chunk_steps: so
        many samples travel as one chunk, which is faster where latency does not matter. timeout: seconds for each
        chunk. Raises what a sample raised, after the answers before it; those after it are not applied.
        """
        pipeline = self.pipeline(outputs, timeout, window, chunk_steps)
        replies = answers(pipeline, samples)
        try:
            async for reply in replies:
                self.last_reply = reply
                yield reply.output
        finally:
            pipeline.leave()
            await replies.aclose()

    async def stream_replies(
        self,
        samples: Iterable[ArrayLike] | AsyncIterable[ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[StepReply, None]:
        """Like `stream`, with whole replies."""
        pipeline = self.pipeline(outputs, timeout, window, chunk_steps)
        replies = answers(pipeline, samples)
        try:
            async for reply in replies:
                self.last_reply = reply
                yield reply
        finally:
            pipeline.leave()
            await replies.aclose()

    async def peek(
        self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """What x would give at this point; nothing of it is kept. Waits for the steps given before it."""
        raw, single = self._inputs.convert(x)
        return await self._peek(peek_request(self.id, self.model, raw, outputs or self._outputs), single, timeout)

    async def forecast(
        self,
        inputs: ArrayLike,
        *,
        steps: int,
        known: ArrayLike | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StepReply:
        """Goes on from here by `inputs` and then by `steps` predictions, each fed back as the next input; nothing of it
        is kept. Waits for the steps given before it.

        inputs: [F] or [T, F], what comes next; token ids: one integer or [T]. The model says which predicted value
        becomes which feature (`model.feedback`); token ids: the most likely one. known: [steps, K], for each further
        time step the features that it says the caller supplies, in the input's order.
        Returns outputs of all T + steps time steps, [T + steps, ...]; state tensors, where asked for, and the position
        are those after the last. T + steps is at most model.max_chunk_steps. Raises InvalidArgument where the model
        does not say what to feed back, and StepConflict where others have stepped the session on meanwhile.
        """
        request = forecast_request(self.id, self.model, self._inputs, inputs, steps, known, outputs or self._outputs)
        return await self._peek(request, False, timeout)

    async def _peek(self, request: Any, single: bool, timeout: float | None) -> StepReply:
        def here() -> Any:
            request.position.CopyFrom(position_message(self.position))
            return request

        return peek_reply_of(await call_replaying(self._client, lambda: self._sender, "Step", here, timeout), single)

    # ------------------------------------------------------------------------------------------ generations

    async def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new generation at step 0, of the model version that takes new sessions; also where the session's own
        is not served any more. Raises GenerationChanged where another generation stands there already."""
        await self._drained_unless_lost(timeout)
        position = await self._client.reset(self.id, self.generation, model=self.model.name, timeout=timeout)
        return await self._restarted(position, timeout)

    async def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new generation from the given state tensors, counting from `step` (where it stands by default)."""
        await self._drained(timeout)
        request = set_state_request(self.id, self.model, self.position, step, state)
        result = await self._client._call("SetState", request, self.id, timeout, only_result)
        return await self._restarted(position_of(result.position), timeout)

    async def carry_over(
        self,
        policy: str,
        *,
        window: ArrayLike | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
    ) -> Position:
        """Continues with another version of the model, as a new generation. Returns its position.

        policy: "keep" the state as it is (the version it belongs to has to be served, too), "rerun" a `window` of
        inputs ([W, F], or [W] token ids) with the new version, from its initial state, or "reset" to that.
        fingerprint: of the new version; empty: the one that takes new sessions. Where the session belongs to it
        already, it stays as it is. Raises GenerationChanged where the server has another generation, and ModelChanged
        where the state cannot be kept.
        """
        await self._drained_unless_lost(timeout)
        target = await self._client.model(self.model.name, fingerprint, timeout=timeout)
        item = carry_over_item(target, self.id, self.generation, policy, window)
        request = pb.CarryOverRequest(model=target.name, items=[item], fingerprint=target.fingerprint)
        result = await self._client._call("CarryOver", request, self.id, timeout, only_result)
        if result.position.generation == self.generation:
            return self.position
        self.model, self._inputs = target, Inputs(target)
        return self._new_generation(position_of(result.position))

    async def fork(
        self, target: str, *, position: Position | None = None, timeout: float | None = None
    ) -> AsyncSession:
        """A new session `target` that starts from this one's committed state, or from that at `position`.

        What the server lost of this session is sent again first. Raises SessionExists; StepGap, StepCompacted and
        HistoryChanged where `position` is ahead of this session, or older than the server's log, or not of its history.
        """
        target = session_id(target, "target")
        item = fork_item(self.id, target)

        def here() -> Any:
            item.position.CopyFrom(position_message(position or self.position))
            return pb.ForkRequest(model=self.model.name, items=[item])

        result = await call_replaying(self._client, lambda: self._sender, "Fork", here, timeout, only_result)
        return AsyncSession(
            self._client, target, self.model, self._make_sender, position_of(result.position), True, self._outputs
        )

    async def delete(self, *, timeout: float | None = None) -> bool:
        """Deletes this generation of the session. Returns False if it was gone already, which is no error."""
        await self._drained_unless_lost(timeout)
        return await self._client.delete(self.id, self.generation, model=self.model.name, timeout=timeout)

    # ------------------------------------------------------------------------------------------ reading

    async def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed state, as named tensors."""
        await self._drained(timeout)
        request = pb.GetStateRequest(model=self.model.name, session=self.id)
        answer = await self._client._call("GetState", request, self.id, timeout)
        return {tensor.name.removeprefix("state."): array_of(tensor) for tensor in answer.state}

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Where it stands at the server, its ages and TTL."""
        return await self._client.session_info(self.id, model=self.model.name, timeout=timeout)

    async def close(self) -> None:
        """Forgets the session here; it stays at the server. What still waits ends with Closed."""
        if not self._sender.loop.is_closed():
            self._sender.check_loop()
            self._sender.close(Closed(f"session {self.id!r} was closed"))

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ inside

    def pipeline(
        self, outputs: Sequence[str] | None, timeout: float | None, window: int | None, chunk_steps: int
    ) -> Pipeline:
        """For `stream`, and for the blocking one in another thread."""
        steps = self._sender.history.window_steps if window is None else window
        return Pipeline(lambda x: self._submit(x, outputs, timeout), self._give_up, steps, chunk_steps)

    def _submit(
        self, x: ArrayLike, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[asyncio.Future[StepReply], StepCall]:
        """Takes a step; its answer comes to the future."""
        raw, single = self._inputs.convert(x)
        sender = self._sender
        sender.check_loop()
        future: asyncio.Future[StepReply] = sender.loop.create_future()
        wanted = self._outputs if outputs is None else tuple(outputs)
        return future, sender.submit(raw, single, wanted, timeout_seconds(timeout, self._client.timeout), future)

    def _submit_raw(
        self, raw: bytes, single: bool, outputs: Sequence[str] | None, timeout: float | None, answer: Answer
    ) -> StepCall:
        """Like `_submit`, of an input that was converted before."""
        wanted = self._outputs if outputs is None else tuple(outputs)
        return self._sender.submit(raw, single, wanted, timeout_seconds(timeout, self._client.timeout), answer)

    def _give_up(self, call: StepCall) -> None:
        """Ends the step's call: its caller has stopped waiting."""
        self._sender.give_up(call, Closed("its caller waits no longer"))

    async def _drained(self, timeout: float | None) -> None:
        await self._sender.drained(timeout_seconds(timeout, self._client.timeout))

    async def _drained_unless_lost(self, timeout: float | None) -> None:
        """Waits for the steps given before. Where a late one cannot be settled, as its model or its history is gone,
        the call that ends the generation is made without it."""
        try:
            await self._drained(timeout)
        except (ModelError, HistoryError):
            return

    async def _restarted(self, position: Position, timeout: float | None) -> Position:
        """Another generation stands at `position`: it may belong to another version of the model."""
        self._new_generation(position)
        fingerprint = (await self.info(timeout=timeout)).fingerprint
        if fingerprint != self.model.fingerprint:
            self.model = await self._client._served(self.id, self.model.name, fingerprint, timeout)
            self._inputs = Inputs(self.model)
            self._new_generation(position)
        return position

    def _new_generation(self, position: Position) -> Position:
        """Starts a new history, with nothing of the old one in it."""
        self._sender.close(Closed("the session started another generation"))
        self._sender = self._make_sender(self.id, self.model, position)
        return self.position
