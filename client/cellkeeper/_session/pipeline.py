"""Samples go in, answers come out in order, a bounded number is in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from numpy.typing import ArrayLike

from ..errors import CellkeeperError, InvalidArgument
from ..types import Array, Sample, StepReply
from .arguments import whole_number
from .event_loop import check_loop
from .samples import as_rows, of_sample, stacked
from .step_call import StepCall


class Pipeline:
    """One session's stream of single time steps.

    submit: sends one chunk. give_up: called for a step whose answer is not wanted any more. window_steps: time steps in
    flight at most, but at least one chunk. chunk_steps: so many time steps go as one chunk; answers still come out one
    by one. numbers: makes an array of a sample; raises InvalidArgument, TypeError and ValueError. at_hand: reading a
    sample waits for nothing, so that many are read at a time; otherwise they are read one by one, and answers that have
    arrived go out in between. Raises InvalidArgument where a number is less than 1.
    """

    def __init__(
        self,
        submit: Callable[[Sample], tuple[asyncio.Future[StepReply], StepCall]],
        give_up: Callable[[StepCall], None],
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
        self._gathered: list[Sample] = []
        self._in_flight: deque[tuple[asyncio.Future[StepReply], StepCall, int]] = deque()
        self._in_flight_steps = 0
        self._sent_steps = 0
        self._failed: CellkeeperError | None = None

    @property
    def room(self) -> int:
        """How many samples to read now."""
        if self._failed is not None:
            return 0
        room = max(0, self._window_steps - self._in_flight_steps - len(self._gathered))
        return room if self._at_hand else min(room, 1)

    @property
    def oldest(self) -> asyncio.Future[StepReply] | None:
        """Its answer is the next one."""
        return self._in_flight[0][0] if self._in_flight else None

    def rows(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        """The samples one by one. Raises InvalidArgument for what gives none, and for a DataFrame of other columns."""
        return as_rows(samples, self._numbers)

    def push(self, samples: Sequence[Sample]) -> None:
        """Takes time steps. One that cannot be taken ends the stream: `pull` raises that after the answers before."""
        try:
            for sample in samples:
                if self._chunk_steps == 1:
                    self._send(sample, 1)
                else:
                    self._gathered.append(sample)
                    if len(self._gathered) == self._chunk_steps:
                        self.flush()
        except CellkeeperError as error:
            self._failed = error

    def flush(self) -> None:
        """Sends an unfinished chunk."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._send(stacked(gathered, self._numbers, self._sent_steps), len(gathered))

    async def advance(self, samples: Sequence[Sample]) -> list[StepReply]:
        """Takes the samples that were read, and returns answers, one for each time step. It waits for the oldest where
        no further sample may be read before that; an empty list says that nothing has arrived, or, where no sample was
        given, that the stream is over. Raises what the oldest step raised."""
        self.push(samples)
        if samples and self.room:
            return await self.pull() if self._has_arrived else []
        return await self.pull()

    async def pull(self) -> list[StepReply]:
        """Waits for the oldest answer. Returns it and those after it that have arrived, one for each time step.

        Returns an empty list if nothing is in flight. Raises what its step raised.
        """
        if not self._in_flight and self._failed is None:
            self.flush()
        if not self._in_flight and self._failed is not None:
            raise self._failed
        if self._in_flight:
            check_loop(self._in_flight[0][0].get_loop())
        replies: list[StepReply] = []
        while self._in_flight:
            answer, _, steps = self._in_flight[0]
            if replies and (not answer.done() or answer.exception() is not None):
                break  # the answers before it go out first
            reply = await answer
            self._in_flight.popleft()
            self._in_flight_steps -= steps
            replies.extend(_split(reply, steps) if self._chunk_steps > 1 else (reply,))
        return replies

    @property
    def _has_arrived(self) -> bool:
        return bool(self._in_flight) and self._in_flight[0][0].done()

    def _send(self, sample: Sample, steps: int) -> None:
        try:
            future, call = self._submit(sample)
        except InvalidArgument as error:
            raise of_sample(error, self._sent_steps, steps) from error
        self._in_flight.append((future, call, steps))
        self._in_flight_steps += steps
        self._sent_steps += steps

    def leave(self) -> None:
        """Ends the stream: steps that were not sent are dropped, the newest first; those that were sent are late."""
        while self._in_flight:
            self._give_up(self._in_flight.pop()[1])


async def answers(
    pipeline: Pipeline, samples: Iterable[Sample] | AsyncIterable[Sample]
) -> AsyncGenerator[StepReply, None]:
    """Puts the samples through the pipeline; the answers, in order."""
    if isinstance(samples, AsyncIterable):
        live = _live(pipeline, samples)
        try:
            async for reply in live:
                yield reply
        finally:
            await live.aclose()
        return
    source = iter(pipeline.rows(samples))
    while True:
        read = list(islice(source, pipeline.room))
        replies = await pipeline.advance(read)
        if not replies and not read:
            return
        for reply in replies:
            yield reply
        if read and not replies:
            await asyncio.sleep(0)  # what was read is sent, and its answer received, between one sample and the next


async def _live(pipeline: Pipeline, samples: AsyncIterable[Sample]) -> AsyncGenerator[StepReply, None]:
    """Yields an answer as soon as it arrives, also while the next sample is awaited."""
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
                yield reply
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _next(source: AsyncIterator[Sample]) -> Sample:
    return await source.__anext__()


def _split(reply: StepReply, steps: int) -> Iterator[StepReply]:
    """One reply a time step. Its position, and the state tensors, are those after the whole chunk."""
    late_steps = reply.late_steps
    for index in range(steps):
        outputs = {name: value if name.startswith("state.") else value[index] for name, value in reply.outputs.items()}
        yield replace(reply, outputs=outputs, late_steps=() if index else late_steps)
