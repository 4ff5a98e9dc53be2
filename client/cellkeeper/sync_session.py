"""One session, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from numpy.typing import ArrayLike

from ._session.blocking_answer import BlockingAnswer
from ._session.step_call import StepCall
from ._transport.loop_thread import LoopThread
from .errors import Closed, ForkedProcess
from .late_step import LateStep
from .position import Position
from .session import AsyncSession
from .types import Array, Model, Sample, SessionInfo, StepReply


class Session:
    """A session, continued after its last step. Made by `Client.session`. Safe to use from several threads: their steps
    are applied in the order in which they come."""

    def __init__(self, thread: LoopThread, core: AsyncSession) -> None:
        self._thread = thread
        self._core = core

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of model {self.model.name!r} at step {self.position.step}>"

    @property
    def id(self) -> str:
        """Its name, of 1 to 256 bytes of UTF-8."""
        return self._core.id

    @property
    def model(self) -> Model:
        """The model version it belongs to."""
        return self._core.model

    @property
    def created(self) -> bool:
        """True if opening the session created it."""
        return self._core.created

    @property
    def position(self) -> Position:
        """Position after the last acknowledged step."""
        return self._core.position

    @property
    def generation(self) -> bytes:
        """16 bytes that change when the session starts anew: by reset, set_state, carry_over, delete or expiry."""
        return self._core.generation

    @property
    def last_reply(self) -> StepReply | None:
        """The reply to the latest step that was answered; None before that."""
        return self._core.last_reply

    @property
    def unsettled(self) -> tuple[LateStep, ...]:
        """The late steps of which it is not known whether they count, oldest first.

        A step is late where its caller stopped waiting (its deadline passed, it was cancelled, Ctrl-C) when it had been
        sent. The next step settles it first, by sending it again, and so does `settle`.
        """
        with suppress(Closed, ForkedProcess):
            return self._thread.run(_unsettled(self._core))  # once it is known there what was interrupted here
        return self._core.unsettled

    def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until it is known of every step that was sent whether it counts. A late step is sent again, and counts
        then, unless the server refuses it for good.

        timeout: seconds; None: the client's. Returns the late steps that were settled since the last reply, or the last
        call of this, oldest first. Raises DeadlineExceeded, and what keeps a late step from being settled
        (SessionNotFound, AccessDenied ...).
        """
        return self._thread.run(self._core.settle(timeout=timeout))

    def step(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
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
        return self.step_reply(x, outputs=outputs, timeout=timeout).output

    def step_reply(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """Like `step`, with everything that the reply holds: all outputs by name, the position after x, times.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. timeout: seconds, retries included;
        None: the client's. The reply's arrays are [...], or [T, ...] where x has a time axis; state tensors are those
        after x. Raises what `step` raises.
        """
        core = self._core
        raw, single = core._inputs.convert(x)
        answer: BlockingAnswer[StepReply, StepCall] = BlockingAnswer()

        def submit() -> StepCall:
            return core._submit_raw(raw, single, outputs, timeout, answer)

        try:
            self._thread.soon(answer.start, submit)  # without the task that `run` needs
            reply = answer.wait()
        except BaseException:  # Ctrl-C, or what another signal's handler raises; or the step's own error
            if not answer.told:
                with suppress(Closed, ForkedProcess):
                    self._thread.soon(answer.give_up, core._give_up)
            raise
        core.last_reply = reply
        return reply

    def stream(
        self,
        samples: Iterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[Array]:
        """Applies samples, each exactly once, and yields the first of `outputs` of each, in order.

        samples: single time steps, [F] or a token id each: a list, an array [T, F], a DataFrame of T rows, or any other
        iterable; it is read in the caller's thread. window: time steps that are read and sent ahead of the answers; by
        default the client's window_steps for what has a length and an index (a list, an array ...), and 1 for any other
        source, which may be live: its next sample is read once the answer to the one before has been yielded. A
        generator over data that is at hand is faster with a window of 64, say. Of a live source with a window, answers
        that have arrived are yielded whenever a sample has come. timeout: seconds for each chunk.
        chunk_steps: so many samples travel as one chunk, which is faster where latency does not matter. The answers of
        a chunk come together: of a live source, chunk_steps samples are read before their first answer, and a chunk
        that is not full waits for more samples, or for the source's end.
        Raises what a sample raised, after the answers before it; those after it are not applied.
        """
        replies = self.stream_replies(samples, outputs=outputs, timeout=timeout, window=window, chunk_steps=chunk_steps)
        for reply in replies:
            yield reply.output

    def stream_replies(
        self,
        samples: Iterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[StepReply]:
        """Like `stream`, with whole replies, whose arrays are [...]. The position, and the state tensors, of a chunk's
        replies are those after the whole chunk.

        samples: each [F], or one token id. outputs, window, chunk_steps: as in `stream`. timeout: seconds for each
        sample, retries included; None: the client's. Raises what `stream` raises.
        """
        pipeline = self._core._pipeline(samples, outputs, timeout, window, chunk_steps)
        source = iter(pipeline.rows(samples))
        try:
            while True:
                read = list(islice(source, pipeline.room))
                replies = self._thread.run(pipeline.advance(read))
                if not replies and not read:
                    return
                for reply in replies:
                    self._core.last_reply = reply
                    yield reply
        finally:
            with suppress(Closed, ForkedProcess):
                self._thread.soon(pipeline.leave)

    def peek(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Returns what `step` would return for x at this point; nothing of it is kept.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. Returns the first of them, [...], or
        [T, ...] where x has a time axis. timeout: seconds, retries included; None: the client's. It waits for the steps
        given before it. Raises what `step` raises, without late steps: the same call may be made again.
        """
        return self.peek_reply(x, outputs=outputs, timeout=timeout).output

    def peek_reply(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """Like `peek`, with everything that the reply holds; its position is the one after x.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `peek`. timeout: seconds, retries included;
        None: the client's. Raises what `peek` raises.
        """
        return self._thread.run(self._core.peek_reply(x, outputs=outputs, timeout=timeout))

    def forecast(
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
        return self.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout).output

    def forecast_reply(
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
        return self._thread.run(
            self._core.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout)
        )

    def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new generation at step 0, of the model version that takes new sessions; also where the session's own
        is not served any more. Returns its position.

        timeout: seconds, retries included; None: the client's. It waits for the steps given before it. Raises
        GenerationChanged where the server has another generation already, and SessionNotFound: open the session again.
        """
        return self._thread.run(self._core.reset(timeout=timeout))

    def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new generation from the given state tensors. Returns its position.

        state: every tensor of `model.states` by its name, in its shape ([layers, size] of an LSTM's h), finite numbers.
        step: the number of time steps that the new generation starts at; None: the present one. timeout: seconds,
        retries included; None: the client's. It waits for the steps given before it. Raises InvalidArgument, which
        names the tensor, GenerationChanged and SessionNotFound.
        """
        return self._thread.run(self._core.set_state(state, step=step, timeout=timeout))

    def carry_over(
        self,
        policy: str,
        *,
        window: Sample | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
    ) -> Position:
        """Continues with another version of the model, as a new generation. Returns its position.

        policy: "keep" the state as it is (the version it belongs to has to be served, too), "rerun" a `window` of
        inputs ([W, F], or [W] token ids) with the new version, from its initial state, or "reset" to that. fingerprint:
        32 bytes, of the new version; empty: the one that takes new sessions. Where the session belongs to it already,
        it stays as it is. timeout: seconds, retries included; None: the client's. Raises GenerationChanged where the
        server has another generation, and ModelChanged where the state cannot be kept: rerun or reset.
        """
        return self._thread.run(self._core.carry_over(policy, window=window, fingerprint=fingerprint, timeout=timeout))

    def fork(self, target: str, *, position: Position | None = None, timeout: float | None = None) -> Session:
        """Returns a new session `target` that starts from this one's committed state, or from that at `position`.

        target: its id. position: one that this session had, not older than the server's log; None: the present one.
        timeout: seconds, retries included; None: the client's. What the server lost of this session is sent again
        first. Raises SessionExists; StepGap, StepCompacted and HistoryChanged where `position` is ahead of this
        session, or older than the server's log, or not of its history.
        """
        return Session(self._thread, self._thread.run(self._core.fork(target, position=position, timeout=timeout)))

    def delete(self, *, timeout: float | None = None) -> bool:
        """Deletes this generation of the session. Returns False if it was gone already, which is no error.

        timeout: seconds, retries included; None: the client's. It waits for the steps given before it. The object
        raises SessionNotFound from then on.
        """
        return self._thread.run(self._core.delete(timeout=timeout))

    def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the committed state: tensors by name, in the shapes and dtypes of `model.states`, such as float32
        [layers, size] for an LSTM's h.

        timeout: seconds, retries included; None: the client's. It waits for the steps given before it. Raises
        SessionNotFound.
        """
        return self._thread.run(self._core.state(timeout=timeout))

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Reads what the server has of it: its position, its ages and TTL in seconds, whether it is hot.

        timeout: seconds, retries included; None: the client's. Raises SessionNotFound.
        """
        return self._thread.run(self._core.info(timeout=timeout))

    def close(self) -> None:
        """Forgets the session here; it stays at the server. What still waits raises Closed, and so does every later
        call."""
        self._thread.run(self._core.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _unsettled(core: AsyncSession) -> tuple[LateStep, ...]:
    return core.unsettled
