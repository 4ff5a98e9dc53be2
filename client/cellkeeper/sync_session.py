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
from .types import Array, Model, SessionInfo, StepReply


class Session:
    """A session, continued where it stands. Made by `Client.session`. Its methods are those of AsyncSession."""

    def __init__(self, thread: LoopThread, core: AsyncSession) -> None:
        self._thread = thread
        self._core = core

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of model {self.model.name!r} at step {self.position.step}>"

    @property
    def id(self) -> str:
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
        """The late steps of which it is not known whether they count, oldest first; see AsyncSession.unsettled."""
        with suppress(Closed, ForkedProcess):
            return self._thread.run(_unsettled(self._core))  # once it is known there what was interrupted here
        return self._core.unsettled

    def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        """Waits until of every step that was sent it is known whether it counts; see AsyncSession.settle."""
        return self._thread.run(self._core.settle(timeout=timeout))

    def step(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Applies x ([F] or [T, F]; token ids: one integer or [T]) exactly once; see AsyncSession.step."""
        return self.step_reply(x, outputs=outputs, timeout=timeout).output

    def step_reply(
        self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `step`, with everything that the reply holds."""
        core = self._core
        raw, single = core._inputs.convert(x)
        answer = BlockingAnswer()

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
        samples: Iterable[ArrayLike],
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
        samples: Iterable[ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        window: int | None = None,
        chunk_steps: int = 1,
    ) -> Iterator[StepReply]:
        """Like `stream`, with whole replies."""
        pipeline = self._core.pipeline(samples, outputs, timeout, window, chunk_steps)
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

    def peek(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> Array:
        """Returns what `step` would return for x at this point; nothing of it is kept.

        x, outputs, and what is returned: as in `step`. timeout: seconds. It waits for the steps given before it.
        Raises what `step` raises, but for late steps, as none is made. What failed may be called again.
        """
        return self.peek_reply(x, outputs=outputs, timeout=timeout).output

    def peek_reply(
        self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None
    ) -> StepReply:
        """Like `peek`, with everything that the reply holds; its position is the one after x.

        x: [F] or [T, F]. outputs: as in `step_reply`. timeout: seconds.
        """
        return self._thread.run(self._core.peek_reply(x, outputs=outputs, timeout=timeout))

    def forecast(
        self,
        inputs: ArrayLike,
        *,
        steps: int,
        known: ArrayLike | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Goes on from here by `inputs` and then by `steps` predictions, each fed back as the next input; nothing of it
        is kept. Returns the first of `outputs` of all T + steps time steps, [T + steps, ...].

        inputs: [F] or [T, F], what comes next; token ids: one integer or [T]. steps: at least 1; T + steps is at most
        model.max_chunk_steps. The model says which predicted value becomes which feature (`model.feedback`); token ids:
        the most likely one. known: [steps, K], for each further time step the features that it says the caller
        supplies, in the input's order, or a DataFrame with their names. timeout: seconds. It waits for the steps given
        before it. Raises InvalidArgument where the model does not say what to feed back, StepConflict where others have
        stepped the session on meanwhile, and what `peek` raises.
        """
        return self.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout).output

    def forecast_reply(
        self,
        inputs: ArrayLike,
        *,
        steps: int,
        known: ArrayLike | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StepReply:
        """Like `forecast`, with everything that the reply holds: the state tensors, where `outputs` names "state", and
        the position are those after the last of the T + steps time steps."""
        return self._thread.run(
            self._core.forecast_reply(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout)
        )

    def reset(self, *, timeout: float | None = None) -> Position:
        """Starts a new generation at step 0."""
        return self._thread.run(self._core.reset(timeout=timeout))

    def set_state(
        self, state: Mapping[str, ArrayLike], *, step: int | None = None, timeout: float | None = None
    ) -> Position:
        """Starts a new generation from the given state tensors, counting from `step` (where it stands by default)."""
        return self._thread.run(self._core.set_state(state, step=step, timeout=timeout))

    def carry_over(
        self,
        policy: str,
        *,
        window: ArrayLike | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
    ) -> Position:
        """Continues with another version of the model, as a new generation: "keep" the state, "rerun" a window, or
        "reset"; see AsyncSession.carry_over."""
        return self._thread.run(self._core.carry_over(policy, window=window, fingerprint=fingerprint, timeout=timeout))

    def fork(self, target: str, *, position: Position | None = None, timeout: float | None = None) -> Session:
        """A new session `target` that starts from this one's committed state, or from that at `position`."""
        return Session(self._thread, self._thread.run(self._core.fork(target, position=position, timeout=timeout)))

    def delete(self, *, timeout: float | None = None) -> bool:
        """Deletes this generation of the session. Returns False if it was gone already, which is no error."""
        return self._thread.run(self._core.delete(timeout=timeout))

    def state(self, *, timeout: float | None = None) -> dict[str, Array]:
        """The committed state, as named tensors."""
        return self._thread.run(self._core.state(timeout=timeout))

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Where it stands at the server, its ages and TTL."""
        return self._thread.run(self._core.info(timeout=timeout))

    def close(self) -> None:
        """Forgets the session here; it stays at the server."""
        self._thread.run(self._core.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _unsettled(core: AsyncSession) -> tuple[LateStep, ...]:
    return core.unsettled
