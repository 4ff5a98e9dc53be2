"""One session, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice

from numpy.typing import ArrayLike

from ._session.blocking_answer import BlockingAnswer
from ._session.not_copied import NotCopied
from ._session.step_call import StepCall
from ._transport.loop_thread import LoopThread
from .errors import Closed, ForkedProcess
from .late_step import LateStep
from .position import Position
from .session import AsyncSession
from .types import Array, Model, Sample, SessionInfo, StepReply


class Session(NotCopied):
    """A session, continued after its last step. Made by `Client.session`.

    Safe to use from several threads: their steps are applied in the order in which they arrive. Calls that reset, carry
    over or delete the session, or set its state, run one after another.
    """

    def __init__(self, thread: LoopThread, core: AsyncSession) -> None:
        self._thread = thread
        self._core = core

    def __repr__(self) -> str:
        return repr(self._core).replace("AsyncSession", type(self).__name__, 1)

    @property
    def id(self) -> str:
        """Its name, of 1 to 256 bytes of UTF-8."""
        return self._core.id

    @property
    def model(self) -> Model:
        """The session's model version."""
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
        """The reply to the latest answered step; None before the first."""
        return self._core.last_reply

    @property
    def unsettled(self) -> tuple[LateStep, ...]:
        """The late steps whose outcome is not known yet, oldest first.

        A step is late if its caller stopped waiting after it was sent: its deadline passed, it was cancelled, or Ctrl-C
        interrupted it. The next step settles it first, by sending it again, and so does `settle`.
        """
        # After the core has noted what was interrupted here.
        return self._thread.read("unsettled", lambda: self._core.unsettled)

    def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until the outcome of every step that was sent is known.

        It sends each late step again, which applies it unless the server rejects it for good. timeout: seconds; None:
        the client's. Returns the late steps that were settled since the last reply or the last call of `settle`, oldest
        first. Raises DeadlineExceeded, and whatever keeps a late step from being settled (SessionNotFound, AccessDenied
        ...).
        """
        return self._thread.run(self._core.settle(timeout=timeout), unread=self._core._put_back)

    def step(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
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
        return self.step_reply(x, outputs=outputs, timeout=timeout).output

    def step_reply(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """Like `step`, but returns the whole reply: all outputs by name, the position after x, timings.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. timeout: seconds, including retries;
        None: the client's. The reply's arrays are [...], or [T, ...] if x has a time axis; state tensors are those
        after x. Raises what `step` raises.
        """
        core = self._core
        inputs = core._inputs
        raw, single = inputs.convert(x)
        answer: BlockingAnswer[StepReply, StepCall] = BlockingAnswer(core._note)

        def submit() -> StepCall:
            return core._submit_raw(inputs, raw, single, outputs, timeout, answer)

        return self._thread.wait("step", answer, submit, core._give_up)  # avoids the task that `run` needs

    def stream(
        self,
        samples: Iterable[Sample],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[Array]:
        """Applies samples, each exactly once, and yields the first of `outputs` for each, in order.

        samples: single time steps, each [F] or a token id: a list, an array [T, F], a DataFrame of T rows, or any other
        iterable; it is read in the caller's thread. window: time steps to read and send ahead of the answers. By
        default it is the client's window_steps for a source with a length and an index (a list, an array ...), and 1
        for any other, which may be live: its next sample is read once the previous answer has been yielded. A generator
        over data at hand is faster with a larger window, such as 64. With a window over a live source, answers that
        have arrived are yielded whenever a sample arrives. timeout: seconds for each chunk. chunk_steps: how many
        samples to send as one chunk; more is faster where latency does not matter. The answers of a chunk arrive
        together: from a live source, chunk_steps samples are read before their first answer, and a partial chunk waits
        for more samples or for the end of the source. Raises what a sample raised, after the answers before it; the
        samples after it are not applied. Leaving the loop early ends the stream: what was not sent does not count, and
        what was sent is late (see `unsettled`).
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
        """Like `stream`, but yields whole replies, whose arrays are [...].

        The position and the state tensors in a chunk's replies are those after the whole chunk. samples: each [F], or
        one token id. outputs, window, chunk_steps: as in `stream`. timeout: seconds for each sample, including retries;
        None: the client's. Raises what `stream` raises.
        """
        pipeline = self._core._pipeline(samples, outputs, timeout, window, chunk_steps)
        source = iter(pipeline.rows(samples))
        try:
            while True:
                read = list(islice(source, pipeline.room))
                replies = self._thread.run(pipeline.advance(read), "stream")
                if not replies and not read:
                    return
                for reply in replies:
                    pipeline.hand_over()
                    self._core.last_reply = reply
                    yield reply
        finally:
            with suppress(Closed, ForkedProcess):
                self._thread.soon(pipeline.leave)

    def peek(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Returns what `step` would return for x now, but keeps nothing of it.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `step`. Returns the first of them, [...], or [T,
        ...] if x has a time axis. timeout: seconds, including retries; None: the client's. Waits for earlier steps;
        later ones wait for it. Raises what `step` raises, without late steps: it is safe to repeat the call.
        """
        return self.peek_reply(x, outputs=outputs, timeout=timeout).output

    def peek_reply(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """Like `peek`, but returns the whole reply; its position is the one after x.

        x: [F] or [T, F]; token ids: one integer or [T]. outputs: as in `peek`. timeout: seconds, including retries;
        None: the client's. Raises what `peek` raises.
        """
        return self._thread.run(self._core.peek_reply(x, outputs=outputs, timeout=timeout), "peek")

    def forecast(
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
        """Like `forecast`, but returns the whole reply.

        Its position, and its state tensors if `outputs` names "state", are those after the last of the T + steps time
        steps. inputs: [F] or [T, F]. known: [steps, K]. steps, outputs: as in `forecast`. timeout: seconds, including
        retries; None: the client's. Raises what `forecast` raises.
        """
        call = self._core.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout)
        return self._thread.run(call, "forecast")

    def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new generation at step 0. Returns its position.

        The new generation belongs to the model version that takes new sessions, even if the session's own is no longer
        served. timeout: seconds, including retries; None: the client's. Waits for earlier steps first. Raises
        GenerationChanged if the server already has another generation, and SessionNotFound: open the session again.
        """
        return self._thread.run(self._core.reset(timeout=timeout))

    def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new generation from the given state tensors. Returns its position.

        state: every tensor of `model.states` by name, in its shape ([layers, size] for an LSTM's h), finite numbers.
        step: the number of time steps that the new generation starts at; None: the present one. timeout: seconds,
        including retries; None: the client's. Waits for earlier steps first. Raises InvalidArgument, which names the
        tensor, GenerationChanged and SessionNotFound.
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

        policy: "keep" the state as it is (the session's present version must still be served), "rerun" a `window` of
        inputs ([W, F], or [W] token ids) with the new version, from its initial state, or "reset" to that initial
        state. fingerprint: 32 bytes, of the new version; empty: the one that takes new sessions. A session that already
        belongs to that version stays as it is. With "keep", the client first replays what the server lost of this
        session. timeout: seconds, including retries; None: the client's. Raises GenerationChanged if the server has
        another generation, ModelChanged if the state cannot be kept (rerun or reset), and with "keep" HistoryLost and
        HistoryChanged if the server does not have the steps of this session.
        """
        return self._thread.run(self._core.carry_over(policy, window=window, fingerprint=fingerprint, timeout=timeout))

    def fork(
        self,
        target: str,
        *,
        position: Position | None = None,
        ttl: float | timedelta | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Returns a new session `target` that starts from this one's committed state, or from its state at `position`.

        target: the new id. position: one that this session had, not older than the server's log; None: the present one.
        ttl: seconds (or a timedelta) of idle time after which the copy expires; 0: never; None: as this session.
        timeout: seconds, including retries; None: the client's. The client first replays what the server lost of this
        session. Raises SessionExists, and StepGap, StepCompacted or HistoryChanged if `position` is ahead of this
        session, older than the server's log, or not part of its history.
        """
        forking = self._core.fork(target, position=position, ttl=ttl, timeout=timeout)
        return Session(self._thread, self._thread.run(forking))

    def delete(self, *, timeout: float | None = None) -> bool:
        """Deletes this generation of the session. Returns False if it was already gone, which is not an error.

        timeout: seconds, including retries; None: the client's. Waits for earlier steps first. From then on the object
        raises SessionNotFound.
        """
        return self._thread.run(self._core.delete(timeout=timeout))

    def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """Returns the committed state: tensors by name, in the shapes and dtypes of `model.states`.

        For an LSTM's h that is float32 [layers, size]. timeout: seconds, including retries; None: the client's. Waits
        for earlier steps first. Raises SessionNotFound, and GenerationChanged if the session has another generation:
        open it again.
        """
        return self._thread.run(self._core.state(timeout=timeout))

    def state_reply(self, *, timeout: float | None = None) -> StepReply:
        """Like `state`, but returns a reply whose `state` has the tensors, and whose `position` says when.

        timeout: seconds, including retries; None: the client's. Waits for earlier steps first. Raises SessionNotFound
        and GenerationChanged, as `state` does.
        """
        return self._thread.run(self._core.state_reply(timeout=timeout))

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Reads what the server knows of the session: position, age, idle time and TTL in seconds, whether it is hot.

        timeout: seconds, including retries; None: the client's. Raises SessionNotFound.
        """
        return self._thread.run(self._core.info(timeout=timeout))

    def close(self) -> None:
        """Closes this object; the session stays at the server. Each waiting or later call raises Closed."""
        with suppress(Closed, ForkedProcess):  # of the client, which has closed the session
            self._thread.run(self._core.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
