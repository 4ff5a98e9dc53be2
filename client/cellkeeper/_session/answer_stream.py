"""The answers of a stream, as the asynchronous generator that a caller iterates over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from ..types import Sample, StepReply
from .pipeline import Pipeline, answers, live_answers

T = TypeVar("T")


class AnswerStream(AsyncGenerator[T, None]):
    """Yields `result` of each answer of the pipeline.

    A caller that leaves its loop drops the stream, and steps the session next. Python ends a plain asynchronous
    generator only some turns of the event loop later, when the stream's unsent steps would take that step with them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        result: Callable[[StepReply], T],
    ) -> None:
        self._pipeline = pipeline
        replies = live_answers(pipeline, samples) if isinstance(samples, AsyncIterable) else answers(pipeline, samples)
        self._answers = _left_at_the_end(pipeline, replies)
        self._result = result

    async def __anext__(self) -> T:
        return self._result(await self._answers.__anext__())

    async def asend(self, value: None) -> T:
        return self._result(await self._answers.asend(value))

    async def athrow(self, *thrown: Any) -> T:
        return self._result(await self._answers.athrow(*thrown))

    async def aclose(self) -> None:
        """Ends the stream: unsent steps are dropped, and those that were sent become late.

        Raises RuntimeError, like every asynchronous generator, if another task is waiting for an answer.
        """
        if not self._answers.ag_running:  # type: ignore[attr-defined]  # the stubs lack it
            self._pipeline.leave()
        await self._answers.aclose()

    def __del__(self) -> None:
        """Runs in any thread, and maybe after the event loop has closed."""
        loop = self._pipeline.loop_to_leave
        if loop is None:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._pipeline.leave()
        else:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._pipeline.leave)


async def _left_at_the_end(
    pipeline: Pipeline, replies: AsyncGenerator[StepReply, None]
) -> AsyncGenerator[StepReply, None]:
    try:
        async for reply in replies:
            yield reply
    finally:
        pipeline.leave()
        await replies.aclose()
