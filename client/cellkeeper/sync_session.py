"""One session, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from numpy.typing import ArrayLike

from ._session.blocking_answer import BlockingAnswer
from ._session.pipeline import Pipeline
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
        """Applies samples, pipelined, and yields the first output of each, in order; see AsyncSession.stream.

        `samples` is read in the caller's thread, `window` time steps ahead at most. A live source wants window=1,
        so that each answer comes before the next sample is waited for.
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
        pipeline = self._core.pipeline(outputs, timeout, window, chunk_steps)
        source = iter(samples)
        try:
            while True:
                batch = list(islice(source, pipeline.room))
                replies = self._thread.run(_advance(pipeline, batch))
                if not replies:
                    return
                for reply in replies:
                    self._core.last_reply = reply
                    yield reply
        finally:
            with suppress(Closed, ForkedProcess):
                self._thread.soon(pipeline.leave)

    def peek(self, x: ArrayLike, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
        """What x would give at this point; nothing of it is kept."""
        return self._thread.run(self._core.peek(x, outputs=outputs, timeout=timeout))

    def forecast(
        self,
        inputs: ArrayLike,
        *,
        steps: int,
        known: ArrayLike | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StepReply:
        """Goes on from here by `inputs` ([F] or [T, F]) and then by `steps` predictions, each fed back as the next
        input; nothing of it is kept. The outputs are [T + steps, ...]; see AsyncSession.forecast."""
        return self._thread.run(self._core.forecast(inputs, steps=steps, known=known, outputs=outputs, timeout=timeout))

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


async def _advance(pipeline: Pipeline, samples: list[ArrayLike]) -> list[StepReply]:
    pipeline.push(samples)
    return await pipeline.pull()
