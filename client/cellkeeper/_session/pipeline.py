"""Samples go in, answers come out in order, a bounded number is in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import CellkeeperError, InvalidArgument
from ..types import StepReply
from .event_loop import check_loop
from .missing_values import as_numbers
from .step_call import StepCall


class Pipeline:
    """One session's stream of single time steps.

    submit: sends one chunk. give_up: called for a step whose answer is not wanted any more. window_steps: time steps in
    flight at most, but at least one chunk. chunk_steps: so many time steps go as one chunk; answers still come out one
    by one. Raises InvalidArgument where one of these is less than 1.
    """

    def __init__(
        self,
        submit: Callable[[ArrayLike], tuple[asyncio.Future[StepReply], StepCall]],
        give_up: Callable[[StepCall], None],
        window_steps: int,
        chunk_steps: int,
    ) -> None:
        for name, value in (("window", window_steps), ("chunk_steps", chunk_steps)):
            if value < 1:
                raise InvalidArgument(f"{name}: got {value}, expected at least 1", field=name)
        self._submit = submit
        self._give_up = give_up
        self._window_steps = max(window_steps, chunk_steps)
        self._chunk_steps = chunk_steps
        self._gathered: list[ArrayLike] = []
        self._in_flight: deque[tuple[asyncio.Future[StepReply], StepCall, int]] = deque()
        self._in_flight_steps = 0
        self._failed: CellkeeperError | None = None

    @property
    def room(self) -> int:
        """How many more samples may be pushed."""
        if self._failed is not None:
            return 0
        return max(0, self._window_steps - self._in_flight_steps - len(self._gathered))

    @property
    def oldest(self) -> asyncio.Future[StepReply] | None:
        """Its answer is the next one."""
        return self._in_flight[0][0] if self._in_flight else None

    def push(self, samples: Sequence[ArrayLike]) -> None:
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
            try:
                chunk = np.stack([as_numbers(sample) for sample in gathered])
            except (TypeError, ValueError) as error:
                raise InvalidArgument(f"inputs: samples of one stream differ: {error}", field="inputs") from error
            self._send(chunk, len(gathered))

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

    def _send(self, sample: ArrayLike, steps: int) -> None:
        self._in_flight.append((*self._submit(sample), steps))
        self._in_flight_steps += steps

    def leave(self) -> None:
        """Ends the stream: steps that were not sent are dropped, the newest first; those that were sent are late."""
        while self._in_flight:
            self._give_up(self._in_flight.pop()[1])


async def answers(
    pipeline: Pipeline, samples: Iterable[ArrayLike] | AsyncIterable[ArrayLike]
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
    source = iter(samples)
    while True:
        pipeline.push(list(islice(source, pipeline.room)))
        replies = await pipeline.pull()
        if not replies:
            return
        for reply in replies:
            yield reply


async def _live(pipeline: Pipeline, samples: AsyncIterable[ArrayLike]) -> AsyncGenerator[StepReply, None]:
    """Yields an answer as soon as it arrives, also while the next sample is awaited."""
    source = samples.__aiter__()
    reading: asyncio.Task[ArrayLike] | None = None
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


async def _next(source: AsyncIterator[ArrayLike]) -> ArrayLike:
    return await source.__anext__()


def _split(reply: StepReply, steps: int) -> Iterator[StepReply]:
    """One reply a time step. Its position, and the state tensors, are those after the whole chunk."""
    late_steps = reply.late_steps
    for index in range(steps):
        outputs = {name: value if name.startswith("state.") else value[index] for name, value in reply.outputs.items()}
        yield replace(reply, outputs=outputs, late_steps=() if index else late_steps)
