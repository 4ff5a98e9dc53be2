"""The steps of one session, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from ._session.arguments import output_names, timeout_seconds
from ._session.named_inputs import inputs_of
from ._session.pipeline import Pipeline, answers
from ._session.samples import are_at_hand
from ._session.session_sender import SessionSender
from ._session.step_call import Answer, StepCall
from ._transport.caller import Caller
from ._transport.replaying_call import call_replaying
from ._transport.requests import forecast_request, peek_request
from ._transport.wire import peek_reply_of, position_message
from .errors import Closed
from .late_step import LateStep
from .position import Position
from .types import Array, Model, Sample, StepReply


class AsyncStepping:
    """What AsyncSession does with samples: each counts once; a look ahead is kept nowhere."""

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
        self._inputs = inputs_of(model)
        self._make_sender = make_sender
        self._sender = make_sender(session, model, position)
        self._outputs = output_names(outputs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} of model {self.model.name!r} at step {self.position.step}>"

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

        A step is late where its caller stopped waiting (its deadline passed, it was cancelled, Ctrl-C) when it had been
        sent. The next step settles it first, by sending it again, and so does `settle`.
        """
        return self._sender.late_steps.unsettled

    async def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until it is known of every step that was sent whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        timeout: seconds; None: the client's. Returns the late steps that were settled since the last reply, or the last
        call of this, oldest first. Raises DeadlineExceeded, and what keeps a late step from being settled
        (SessionNotFound, AccessDenied ...).
        """
        await self._drained(timeout)
        return self._sender.late_steps.take_settled()

    async def step(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Applies x exactly once and returns the first of `outputs`.

        x: [F] or [T, F]; token ids: one integer or [T]; anything that numpy converts to the model's dtype, a DataFrame
        or a Series. For a model with several inputs a dict of these by name, or a structured array with a field for
        each. What is masked, None or NA is missing, as NaN is, which not every model takes. outputs: of
        "prediction", "hidden" (the top layer), "state" (every layer's tensors), and what further the model declares;
        None: what the session was opened with. timeout: seconds until the answer, retries included; None: the client's.
        Returns [...], or [T, ...] where x has a time axis, in the output's dtype. What is given after an error is
        another step, also where it has the same values.

        Raises InvalidArgument, which names what is wrong with x, and where: nothing was sent. Unavailable and
        DeadlineExceeded: the error's `late_step` says whether x was sent, and may count; the next step settles it
        first. GenerationChanged, HistoryChanged, HistoryLost, SessionNotFound: the session is not what it was; open it
        again, and look at its position. ModelChanged: its version is not served any more; carry it over. docs/errors.md
        lists them all.
        """
        future, call = self._submit(x, outputs, timeout)
        try:
            self.last_reply = reply = await future
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        return reply.output

    async def step_reply(
        self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `step`, with everything that the reply holds: all outputs by name, the position after x, times.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. timeout: seconds, retries included;
        None: the client's. The reply's arrays are [...], or [T, ...] where x has a time axis; state tensors are those
        after x. Raises what `step` raises.
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
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[Array, None]:
        """Applies samples, each exactly once, and yields the first of `outputs` of each, in order.

        samples: single time steps, [F] or a token id each: a list, an array [T, F], a DataFrame of T rows, or any other
        iterable, also an asynchronous one. window: time steps that are read and sent ahead of the answers; by default
        the client's window_steps for what has a length and an index (a list, an array ...), and 1 for any other source,
        which may be live: its next sample is read once the answer to the one before has been yielded. A generator over
        data that is at hand is faster with a window of 64, say. A live asynchronous source may have a window too:
        answers are yielded as they arrive, also while a sample is awaited. An iterable that waits in its own `next`
        holds up the whole event loop: a live source is asynchronous here. timeout: seconds for each chunk.
        chunk_steps: so many samples travel as one chunk, which is faster where latency does not matter. The answers of
        a chunk come together: of a live source, chunk_steps samples are read before their first answer, and a chunk
        that is not full waits for more samples, or for the source's end.
        Raises what a sample raised, after the answers before it; those after it are not applied.
        """
        replies = self.stream_replies(samples, outputs=outputs, timeout=timeout, window=window, chunk_steps=chunk_steps)
        try:
            async for reply in replies:
                yield reply.output
        finally:
            await replies.aclose()

    async def stream_replies(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[StepReply, None]:
        """Like `stream`, with whole replies, whose arrays are [...]. The position, and the state tensors, of a chunk's
        replies are those after the whole chunk.

        samples: each [F], or one token id. outputs, window, chunk_steps: as in `stream`. timeout: seconds for each
        sample, retries included; None: the client's. Raises what `stream` raises.
        """
        pipeline = self._pipeline(samples, outputs, timeout, window, chunk_steps)
        replies = answers(pipeline, samples)
        try:
            async for reply in replies:
                self.last_reply = reply
                yield reply
        finally:
            pipeline.leave()
            await replies.aclose()

    async def peek(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Returns what `step` would return for x at this point; nothing of it is kept.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. Returns the first of them, [...], or
        [T, ...] where x has a time axis. timeout: seconds, retries included; None: the client's. It waits for the steps
        given before it. Raises what `step` raises, without late steps: the same call may be made again.
        """
        return (await self.peek_reply(x, outputs=outputs, timeout=timeout)).output

    async def peek_reply(
        self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `peek`, with everything that the reply holds; its position is the one after x.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `peek`. timeout: seconds, retries included;
        None: the client's. Raises what `peek` raises.
        """
        raw, single = self._inputs.convert(x)
        return await self._peek(peek_request(self.id, self.model, raw, self._wanted(outputs)), single, timeout)

    async def forecast(
        self,
        inputs: Sample,
        *,
        steps: int,
        known: Sample | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Goes on from here by `inputs` and then by `steps` predictions, each fed back as the next input; nothing of it
        is kept. Returns the first of `outputs` of all T + steps time steps, [T + steps, ...].

        inputs: [F] or [T, F], what comes next; token ids: one integer or [T]. steps: at least 1; T + steps is at most
        model.max_chunk_steps. The model says which predicted value becomes which feature (`model.feedback`); token ids:
        the most likely one. known: [steps, K], for each further time step the features that it says the caller
        supplies, in the input's order, or a DataFrame with their names; for a model with several inputs a dict of those
        that are not in `model.input_feedback`. outputs: as in `step`. timeout: seconds, retries included; None: the
        client's. It waits for the steps given before it. Raises InvalidArgument where the model does not say what to
        feed back, StepConflict where others have stepped the session on meanwhile, and what `peek` raises.
        """
        reply = await self.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout)
        return reply.output

    async def forecast_reply(
        self,
        inputs: Sample,
        *,
        steps: int,
        known: Sample | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StepReply:
        """Like `forecast`, with everything that the reply holds: the state tensors, where `outputs` names "state", and
        the position are those after the last of the T + steps time steps.

        inputs: [F] or [T, F]. known: [steps, K]. steps, outputs: as in `forecast`. timeout: seconds, retries included;
        None: the client's. Raises what `forecast` raises.
        """
        wanted = self._wanted(outputs)
        request = forecast_request(self.id, self.model, self._inputs, inputs, steps, known, wanted)
        return await self._peek(request, False, timeout)

    async def _peek(self, request: Any, single: bool, timeout: float | None) -> StepReply:
        def here() -> Any:
            request.position.CopyFrom(position_message(self.position))
            return request

        return peek_reply_of(await call_replaying(self._client, lambda: self._sender, "Step", here, timeout), single)

    # ------------------------------------------------------------------------------------------ inside

    def _pipeline(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        outputs: Sequence[str] | None,
        timeout: float | None,
        window: int | None,
        chunk_steps: int,
    ) -> Pipeline:
        """For `stream`, and for the blocking one in another thread."""
        at_hand = are_at_hand(samples)
        if window is None:
            window = self._sender.history.window_steps if at_hand else 1
        return Pipeline(
            lambda x: self._submit(x, outputs, timeout),
            self._give_up,
            window,
            chunk_steps,
            self._inputs.numbers,
            at_hand,
        )

    def _submit(
        self, x: Sample, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[asyncio.Future[StepReply], StepCall]:
        """Takes a step; its answer comes to the future."""
        raw, single = self._inputs.convert(x)
        sender = self._sender
        sender.check_loop()
        future: asyncio.Future[StepReply] = sender.loop.create_future()
        return future, sender.submit(
            raw, single, self._wanted(outputs), timeout_seconds(timeout, self._client.timeout), future
        )

    def _submit_raw(
        self, raw: bytes, single: bool, outputs: Sequence[str] | None, timeout: float | None, answer: Answer
    ) -> StepCall:
        """Like `_submit`, of an input that was converted before."""
        return self._sender.submit(
            raw, single, self._wanted(outputs), timeout_seconds(timeout, self._client.timeout), answer
        )

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        return self._outputs if outputs is None else output_names(outputs)

    def _give_up(self, call: StepCall) -> None:
        """Ends the step's call: its caller has stopped waiting."""
        self._sender.give_up(call, Closed("its caller waits no longer"))

    async def _drained(self, timeout: float | None) -> None:
        await self._sender.drained(timeout_seconds(timeout, self._client.timeout))
