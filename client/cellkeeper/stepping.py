"""The steps of one session, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from ._session.answer_stream import AnswerStream
from ._session.arguments import output_names, timeout_seconds
from ._session.inputs import Inputs
from ._session.named_inputs import NamedInputs, inputs_of
from ._session.not_copied import NotCopied
from ._session.pipeline import Pipeline
from ._session.restarts import Restarts
from ._session.samples import are_at_hand
from ._session.step_call import Answer, StepCall
from ._session.time_limit import TimeLeft
from ._session.turns import Turns
from ._transport.caller import Caller
from ._transport.replaying_call import call_replaying
from ._transport.requests import check_rollout, peek_request, rollout_request
from ._transport.wire import peek_reply_of, position_message
from .errors import Closed, HistoryError
from .late_step import LateStep
from .position import Position
from .types import Array, Model, Sample, StepReply

ANOTHER_GENERATION = "the session started another generation"


class AsyncStepping(NotCopied):
    """How AsyncSession handles samples: steps, which count once, and peeks and forecasts, which keep nothing."""

    def __init__(
        self,
        client: Caller,
        session: str,
        model: Model,
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
        # Each of these calls names the generation that the one before has left.
        self._changes = Turns("restarts or deletes the session")
        self._restarts = Restarts()
        self._sender = client._connected().session_sender(session, model, position)
        self._outputs = output_names(outputs)

    def __repr__(self) -> str:
        closed = ", closed" if self._sender.closed else ""
        return f"<{type(self).__name__} {self.id!r} of model {self.model.name!r} at step {self.position.step}{closed}>"

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
        """The late steps whose outcome is not known yet, oldest first.

        A step is late if its caller stopped waiting after it was sent: its deadline passed, it was cancelled, or Ctrl-C
        interrupted it. The next step settles it first, by sending it again, and so does `settle`.
        """
        return self._sender.late_steps.unsettled

    async def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until the outcome of every step that was sent is known.

        It sends each late step again, which applies it unless the server rejects it for good. timeout: seconds; None:
        the client's. Returns the late steps that were settled since the last reply or the last call of `settle`, oldest
        first. Raises DeadlineExceeded, and whatever keeps a late step from being settled (SessionNotFound, AccessDenied
        ...).
        """
        await self._drained(timeout)
        return self._sender.late_steps.take_settled()

    async def step(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Applies x exactly once and returns the first of `outputs`.

        x: [F] or [T, F]; token ids: one integer or [T]; anything that numpy converts to the model's dtype, a DataFrame
        or a Series; a dict by name if the model's features have names. For a model with several inputs, a dict of these
        by name, or a structured array with a field for each. Masked values, None and NA are missing values, like NaN,
        which not every model accepts. outputs: any of "prediction", "hidden" (the top layer), "state" (every layer's
        tensors), and whatever else the model declares; None: those the session was opened with. timeout: seconds until
        the answer, including retries; None: the client's. Returns [...], or [T, ...] if x has a time axis, in the
        output's dtype. A call after an error is another step, even with the same values.

        Raises InvalidArgument, which says what is wrong with x and where: nothing was sent. Unavailable and
        DeadlineExceeded: the error's `late_step` says whether x was sent and may count; the next step settles it first.
        GenerationChanged, HistoryChanged, HistoryLost, SessionNotFound: the session is not what it was; open it again,
        and check its position. ModelChanged: its version is no longer served; carry it over. docs/errors.md lists all
        errors.
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
        """Like `step`, but returns the whole reply: all outputs by name, the position after x, timings.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. timeout: seconds, including retries;
        None: the client's. The reply's arrays are [...], or [T, ...] if x has a time axis; state tensors are those
        after x. Raises what `step` raises.
        """
        future, call = self._submit(x, outputs, timeout)
        try:
            self.last_reply = reply = await future
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        return reply

    def stream(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[Array, None]:
        """Applies samples, each exactly once, and yields the first of `outputs` for each, in order.

        samples: single time steps, each [F] or a token id: a list, an array [T, F], a DataFrame of T rows, or any other
        iterable, including an asynchronous one. An iterable that blocks in its own `next` blocks the whole event loop,
        so a live source should be asynchronous here. window: time steps to read and send ahead of the answers. By
        default it is the client's window_steps for a source with a length and an index (a list, an array ...), and 1
        for any other, which may be live: its next sample is read once the previous answer has been yielded. A generator
        over data at hand is faster with a larger window, such as 64. A live asynchronous source may have a window too:
        answers are yielded as they arrive, even while a sample is awaited. timeout: seconds for each chunk.
        chunk_steps: how many samples to send as one chunk; more is faster where latency does not matter. The answers of
        a chunk arrive together: from a live source, chunk_steps samples are read before their first answer, and a
        partial chunk waits for more samples or for the end of the source. Raises what a sample raised, after the
        answers before it; the samples after it are not applied. Leaving the loop early ends the stream: what was not
        sent does not count, and what was sent is late (see `unsettled`).
        """
        pipeline = self._pipeline(samples, outputs, timeout, window, chunk_steps)
        return AnswerStream(pipeline, samples, lambda reply: self._note(reply).output)

    def stream_replies(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> AsyncGenerator[StepReply, None]:
        """Like `stream`, but yields whole replies, whose arrays are [...].

        The position and the state tensors in a chunk's replies are those after the whole chunk. samples: each [F], or
        one token id. outputs, window, chunk_steps: as in `stream`. timeout: seconds for each sample, including retries;
        None: the client's. Raises what `stream` raises.
        """
        pipeline = self._pipeline(samples, outputs, timeout, window, chunk_steps)
        return AnswerStream(pipeline, samples, self._note)

    async def peek(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Returns what `step` would return for x now, but keeps nothing of it.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. Returns the first of them, [...], or [T,
        ...] if x has a time axis. timeout: seconds, including retries; None: the client's. Waits for earlier steps;
        later ones wait for it. Raises what `step` raises, without late steps: it is safe to repeat the call.
        """
        return (await self.peek_reply(x, outputs=outputs, timeout=timeout)).output

    async def peek_reply(
        self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `peek`, but returns the whole reply; its position is the one after x.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `peek`. timeout: seconds, including retries;
        None: the client's. Raises what `peek` raises.
        """
        wanted = self._wanted(outputs)

        def make() -> tuple[Any, bool]:
            raw, single = self._inputs.convert(x)
            return peek_request(self.id, self.model, raw, wanted), single

        return await self._peek(make, timeout)

    async def forecast(
        self,
        inputs: Sample,
        *,
        steps: int,
        known: Sample | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Runs ahead over `inputs` and then over `steps` predictions, and keeps nothing.

        Each prediction is fed back as the next input. Returns the first of `outputs` for all T + steps time steps, [T +
        steps, ...]. inputs: [F] or [T, F], what comes next; token ids: one integer or [T]. steps: at least 1; T + steps
        is at most model.max_chunk_steps. The model says which predicted value becomes which feature (`model.feedback`);
        for token ids it is the most likely one. known: [steps, K], for each further time step the features that the
        model leaves to the caller, in the input's order, or a DataFrame with their names; for a model with several
        inputs, a dict of those that are not in `model.input_feedback`. outputs: as in `step`. timeout: seconds,
        including retries; None: the client's. Waits for earlier steps; later ones wait for it. Raises InvalidArgument
        if the model does not say what to feed back, StepConflict if another client has stepped the session meanwhile,
        and what `peek` raises.
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
        """Like `forecast`, but returns the whole reply.

        Its position, and its state tensors if `outputs` names "state", are those after the last of the T + steps time
        steps. inputs: [F] or [T, F]. known: [steps, K]. steps, outputs: as in `forecast`. timeout: seconds, including
        retries; None: the client's. Raises what `forecast` raises.
        """
        wanted = self._wanted(outputs)

        def make() -> tuple[Any, bool]:
            raw, _ = self._inputs.convert(inputs)
            further = check_rollout(self.model, steps, len(raw) // self.model.input.nbytes)
            features = self._inputs.convert_known(known, further)
            peek = peek_request(self.id, self.model, raw, wanted)
            return rollout_request(peek, self.model, further, features), False

        return await self._peek(make, timeout)

    async def _peek(self, make: Callable[[], tuple[Any, bool]], timeout: float | None) -> StepReply:
        """make: builds the request for the session's present version, without its position, and returns it and whether
        the input has no time axis."""
        model, (request, single) = self.model, make()

        def here() -> Any:
            nonlocal model, request, single
            if model is not self.model:  # a carry-over has overtaken the call
                model, (request, single) = self.model, make()
            request.position.CopyFrom(position_message(self.position))
            return request

        answer = await call_replaying(self._client, lambda: self._sender, self._restarts, "Step", here, timeout)
        return peek_reply_of(answer, model, request.outputs, single)

    # ------------------------------------------------------------------------------------------ inside

    def _pipeline(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        outputs: Sequence[str] | None,
        timeout: float | None,
        window: int | None,
        chunk_steps: int,
    ) -> Pipeline:
        """Serves `stream`, and the blocking client's `stream` from another thread."""
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

    def _note(self, reply: StepReply) -> StepReply:
        self.last_reply = reply
        return reply

    def _submit(
        self, x: Sample, outputs: Sequence[str] | None, timeout: float | None
    ) -> tuple[asyncio.Future[StepReply], StepCall]:
        """Submits a step; the future receives its answer."""
        raw, single = self._inputs.convert(x)
        sender = self._sender
        sender.check()
        future: asyncio.Future[StepReply] = sender.loop.create_future()
        return future, sender.submit(
            raw, single, self._wanted(outputs), timeout_seconds(timeout, self._client.timeout), future
        )

    def _submit_raw(
        self,
        inputs: Inputs | NamedInputs,
        raw: bytes,
        single: bool,
        outputs: Sequence[str] | None,
        timeout: float | None,
        answer: Answer,
    ) -> StepCall:
        """Like `_submit`, for an input that `inputs` has converted, in another thread."""
        if inputs is not self._inputs:  # for a version of the model that the session has left since
            raise Closed(ANOTHER_GENERATION)
        return self._sender.submit(
            raw, single, self._wanted(outputs), timeout_seconds(timeout, self._client.timeout), answer
        )

    def _wanted(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        return self._outputs if outputs is None else output_names(outputs)

    def _give_up(self, call: StepCall, unread_steps: int | None = None) -> None:
        """Ends the step's call: its caller has stopped waiting. unread_steps: as in SessionSender.give_up."""
        self._sender.give_up(call, Closed("the caller stopped waiting"), unread_steps)

    def _put_back(self, settled: tuple[LateStep, ...]) -> None:
        """Takes back what `settle` returned and nobody has read."""
        self._sender.late_steps.put_back(settled)

    async def _drained(self, timeout: float | None) -> None:
        left = TimeLeft(timeout_seconds(timeout, self._client.timeout))
        while True:
            sender = self._sender
            try:
                return await sender.drained(left())
            except HistoryError:  # of an earlier step, whose generation a reset of this client's may have ended
                if self._sender is sender and not await self._restarts.ended(left()):
                    raise
