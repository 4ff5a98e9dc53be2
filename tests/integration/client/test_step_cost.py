"""What a step costs an event loop: no task, and for a blocking step one wake-up of the client's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from cellkeeper import AsyncClient, Client

ONE = [1.0, 1.0]
COUNT = 20


class Watch:
    """Counts the tasks that a loop creates, and wake-ups by other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tasks = self.wakes = 0
        watched: Any = loop
        self._threadsafe: Callable[..., Any] = loop.call_soon_threadsafe
        watched.call_soon_threadsafe = self._wake
        watched.set_task_factory(self._task)

    def _wake(self, *arguments: Any, **context: Any) -> Any:
        self.wakes += 1
        return self._threadsafe(*arguments, **context)

    def _task(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        self.tasks += 1
        return asyncio.Task(work, loop=loop, **options)

    def take(self) -> tuple[int, int]:
        """Returns (tasks, wake-ups) since its last call."""
        seen, self.tasks, self.wakes = (self.tasks, self.wakes), 0, 0
        return seen


async def test_an_asyncio_step_needs_no_task(real_target: str) -> None:
    async with AsyncClient(real_target) as client:
        session = await client.session("step cost, asyncio")
        await session.step(ONE)
        watch = Watch(asyncio.get_running_loop())
        for _ in range(COUNT):
            await session.step(ONE)
        assert watch.take() == (0, 0)
        async for _ in session.stream(iter([ONE] * COUNT)):
            pass
        assert watch.take() == (0, 0)
        await session.delete()


def test_a_blocking_step_needs_no_task_and_one_wake(real_target: str) -> None:
    made: list[Watch] = []
    ready = threading.Event()

    def watched() -> None:
        made.append(Watch(asyncio.get_running_loop()))
        ready.set()

    with Client(real_target) as client:
        session = client.session("step cost, blocking")
        session.step(ONE)
        client._thread.soon(watched)
        assert ready.wait(10)
        (watch,) = made
        for _ in range(COUNT):
            session.step(ONE)
        assert watch.take() == (0, COUNT)
        assert len(list(session.stream(iter([ONE] * COUNT)))) == COUNT
        assert watch.take() == (COUNT + 1, COUNT + 2)  # the last task finds the end; one wake-up leaves the stream
        for _ in range(COUNT):
            session.settle()
        assert watch.take() == (COUNT, COUNT)
        session.delete()
