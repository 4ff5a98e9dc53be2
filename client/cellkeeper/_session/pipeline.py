"""Takes samples in and gives answers out in order, with a bounded number in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from numpy.typing import ArrayLike

from ..errors import CellkeeperError, InvalidArgument
from ..types import STATE_PREFIX, Array, Sample, StepReply
from .arguments import whole_number
from .event_loop import check_loop
from .samples import as_rows, of_sample, stacked
from .step_call import StepCall


class Pipeline:
    """One session's stream of single time steps.

    submit: sends one chunk. give_up: called for a chunk whose caller has stopped waiting, with how many of its time
    steps the caller has not got an answer to. window_steps: the most time steps in flight, but at least one chunk.
    chunk_steps: how many time steps go as one chunk; answers still come out one by one. numbers: converts a sample to
    an array; raises InvalidArgument, TypeError and ValueError. at_hand: reading a sample never blocks, so many are read
    at a time; otherwise they are read one by one, and answers that have arrived go out in between. Raises
    InvalidArgument if a number is less than 1.
    """

    def __init__(
        self,
        submit: Callable[[Sample], tuple[asyncio.Future[StepReply], StepCall]],
        give_up: Callable[[StepCall, int], None],
        window_steps: int,
        chunk_steps: int,
        numbers: Callable[[ArrayLike], Array],
        at_hand: bool,
    ) -> None:
        window_steps = whole_number(window_steps, "window", 1)
        chunk_steps = whole_number(chunk_steps, "chunk_steps", 1)
        self._submit = submit
        self._give_up = give_up
        self._window_steps = max(window_steps, chunk_steps)
        self._chunk_steps = chunk_steps
        self._numbers = numbers
        self._at_hand = at_hand
        self._next_chunk: list[Sample] = []
        self._in_flight: deque[tuple[asyncio.Future[StepReply], StepCall, int]] = deque()
        self._in_flight_steps = 0
        self._pulled: deque[tuple[StepCall, int]] = deque()  # with the number of answers that the caller has not got
        self._sent_steps = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # since the first chunk
        self._failed: CellkeeperError | None = None

    @property
    def room(self) -> int:
        """How many samples to read now."""
        if self._failed is not None:
            return 0
        room = max(0, self._window_steps - self._in_flight_steps - len(self._next_chunk))
        return room if self._at_hand else min(room, 1)

    @property
    def oldest(self) -> asyncio.Future[StepReply] | None:
        """The future of the next answer; None if nothing is in flight."""
        return self._in_flight[0][0] if self._in_flight else None

    @property
    def loop_to_leave(self) -> asyncio.AbstractEventLoop | None:
        """The event loop to call `leave` in; None if the caller has the answer to everything that was sent."""
        return self._loop if self._in_flight or self._pulled else None

    def rows(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        """Returns an iterable over the samples. Raises InvalidArgument for no iterable, and for wrong columns."""
        return as_rows(samples, self._numbers)

    def push(self, samples: Sequence[Sample]) -> None:
        """Takes time steps. An invalid one ends the stream: `pull` raises its error after the answers before it."""
        try:
            for sample in samples:
                if self._chunk_steps == 1:
                    self._send(sample, 1)
                else:
                    self._next_chunk.append(sample)
                    if len(self._next_chunk) == self._chunk_steps:
                        self.flush()
        except CellkeeperError as error:
            self._failed = error

    def flush(self) -> None:
        """Sends a partial chunk."""
        if self._next_chunk:
            samples, self._next_chunk = self._next_chunk, []
            self._send(stacked(samples, self._numbers, self._sent_steps), len(samples))

    async def advance(self, samples: Sequence[Sample]) -> list[StepReply]:
        """Takes the samples that were read. Returns answers, one for each time step.

        Waits for the oldest answer if no more samples may be read before it. An empty list means that nothing has
        arrived or, if no samples were passed, that the stream is over. Raises what the oldest step raised.
        """
        self.push(samples)
        if samples and self.room:
            oldest = self.oldest
            return await self.pull() if oldest is not None and oldest.done() else []
        return await self.pull()

    async def pull(self) -> list[StepReply]:
        """Waits for the oldest answer. Returns it and the later ones that have arrived, one for each time step.

        Returns an empty list if nothing is in flight. Raises what its step raised.
        """
        if not self._in_flight and self._failed is None:
            self.flush()
        if not self._in_flight and self._failed is not None:
            raise self._failed
        if (oldest := self.oldest) is not None:
            check_loop(oldest.get_loop())
        replies: list[StepReply] = []
        while self._in_flight:
            answer, call, steps = self._in_flight[0]
            if replies and (not answer.done() or answer.exception() is not None):
                break  # deliver the answers before it first
            reply = await answer
            self._in_flight.popleft()
            self._in_flight_steps -= steps
            self._pulled.append((call, steps))
            replies.extend(_split(reply, steps) if self._chunk_steps > 1 else (reply,))
        return replies

    def _send(self, sample: Sample, steps: int) -> None:
        try:
            future, call = self._submit(sample)
        except InvalidArgument as error:
            raise of_sample(error, self._sent_steps, steps) from error
        self._loop = future.get_loop()
        self._in_flight.append((future, call, steps))
        self._in_flight_steps += steps
        self._sent_steps += steps

    def hand_over(self) -> None:
        """Notes that the caller gets the oldest answer that was pulled."""
        call, steps = self._pulled.popleft()
        if steps > 1:
            self._pulled.appendleft((call, steps - 1))

    def leave(self) -> None:
        """Ends the stream: unsent steps are dropped, the newest first; the others become late, also those whose answers
        have arrived and the caller has not got."""
        while self._in_flight:
            _, call, steps = self._in_flight.pop()
            self._give_up(call, steps)
        while self._pulled:
            self._give_up(*self._pulled.pop())


async def answers(pipeline: Pipeline, samples: Iterable[Sample]) -> AsyncGenerator[StepReply, None]:
    """Puts the samples through the pipeline and yields the answers in order."""
    source = iter(pipeline.rows(samples))
    while True:
        read = list(islice(source, pipeline.room))
        replies = await pipeline.advance(read)
        if not replies and not read:
            return
        for reply in replies:
            pipeline.hand_over()
            yield reply
        if read and not replies:
            await asyncio.sleep(0)  # lets the event loop send what was read, and receive answers, between samples


async def live_answers(pipeline: Pipeline, samples: AsyncIterable[Sample]) -> AsyncGenerator[StepReply, None]:
    """Like `answers`, and yields each as soon as it arrives, even while the next sample is awaited."""
    source = samples.__aiter__()
    reading: asyncio.Task[Sample] | None = None
    ended = False
    try:
        while True:
            if reading is None and not ended and pipeline.room:
                reading = asyncio.ensure_future(_next(source))
            if reading is not None:
                oldest = pipeline.oldest
                waits: list[asyncio.Future[Any]] = [reading] if oldest is None else [reading, oldest]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    try:
                        pipeline.push([reading.result()])
                    except StopAsyncIteration:
                        ended = True
                    reading = None
                if oldest is None or not oldest.done():
                    continue
            replies = await pipeline.pull()
            if not replies and ended:
                return
            for reply in replies:
                pipeline.hand_over()
                yield reply
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _next(source: AsyncIterator[Sample]) -> Sample:
    return await source.__anext__()


def _split(reply: StepReply, steps: int) -> Iterator[StepReply]:
    """Yields one reply for each time step. Position and state tensors are those after the whole chunk."""
    late_steps = reply.late_steps
    for index in range(steps):
        outputs = {
            name: value if name.startswith(STATE_PREFIX) else value[index] for name, value in reply.outputs.items()
        }
        yield replace(reply, outputs=outputs, late_steps=() if index else late_steps)
