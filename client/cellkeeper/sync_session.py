"""One session, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from ._session.blocking_answer import BlockingAnswer
from ._session.step_call import StepCall
from ._transport.blocking import Blocking, blocking, declared_as
from .errors import Closed, ForkedProcess
from .late_step import LateStep
from .position import Position
from .session import AsyncSession
from .types import Array, Model, Sample, StepReply


class Session(Blocking[AsyncSession]):
    """A session, continued after its last step. Made by `Client.session`.

    Safe to use from several threads: their steps are applied in the order in which they arrive.
    """

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

    @declared_as(AsyncSession.settle)
    def settle(self, *, timeout: float | None = None) -> tuple[LateStep, ...]:
        return self._thread.run(self._core.settle(timeout=timeout), unread=self._core._put_back)

    @declared_as(AsyncSession.step)
    def step(self, x: Sample, **options: Any) -> Array:
        return self.step_reply(x, **options).output

    @declared_as(AsyncSession.step_reply)
    def step_reply(self, x: Sample, *, outputs: Sequence[str] | None = None, timeout: float | None = None) -> StepReply:
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

    peek = blocking(AsyncSession.peek)
    peek_reply = blocking(AsyncSession.peek_reply)
    forecast = blocking(AsyncSession.forecast)
    forecast_reply = blocking(AsyncSession.forecast_reply)
    reset = blocking(AsyncSession.reset)
    set_state = blocking(AsyncSession.set_state)
    carry_over = blocking(AsyncSession.carry_over)

    @declared_as(AsyncSession.fork)
    def fork(self, target: str, **options: Any) -> Session:
        return Session(self._thread, self._thread.run(self._core.fork(target, **options)))

    delete = blocking(AsyncSession.delete)
    state = blocking(AsyncSession.state)
    info = blocking(AsyncSession.info)

    @declared_as(AsyncSession.close)
    def close(self) -> None:
        with suppress(Closed, ForkedProcess):  # of the client, which has closed the session
            self._thread.run(self._core.close())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
