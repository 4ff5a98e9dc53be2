"""What a step costs: an event loop no task, and for a blocking step one wake-up of the client's thread; a group one
hash for each member and time step."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import cellkeeper
import numpy as np
import pytest
from cellkeeper import AsyncClient, Client, Closed
from cellkeeper._session.step_call import StepCall

from .conftest import until
from .counting_server import CountingServer

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


async def test_giving_up_a_step_looks_once_at_each_that_waits(
    server: CountingServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind it end with it. Each was searched for from the beginning of the queue: with 20,000 waiting, that
    kept the event loop for seconds."""
    session, compared = await client.session("s"), 0
    server.gate.clear()
    steps = [asyncio.ensure_future(session.step(ONE)) for _ in range(600)]
    await until(lambda: server.frames > 0)

    def equal(one: object, other: object) -> bool:
        nonlocal compared
        compared += 1
        return one is other

    monkeypatch.setattr(StepCall, "__eq__", equal)
    steps[300].cancel()
    for ended in await asyncio.gather(*steps[300:], return_exceptions=True):
        assert isinstance(ended, Closed | asyncio.CancelledError)
    assert compared < 2000
    server.gate.set()
    assert (await asyncio.gather(*steps[:300]))[-1].tolist() == [300, 300]


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


class Calls:
    """Counts the calls that the client's code makes while it is entered: of its own functions, and of functions in C.

    By file and function, and those in C also by what they call.
    """

    def __init__(self) -> None:
        self.python: Counter[tuple[str, str]] = Counter()
        self.native: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, called: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(PACKAGE):
            return
        if event == "call":
            self.python[path.name, frame.f_code.co_name] += 1
        elif event == "c_call":
            self.native[path.name, called.__name__] += 1


PACKAGE = Path(cellkeeper.__file__).parent
FEW, MANY = 8, 200


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("by_id", [False, True], ids=["array", "dict"])
async def test_a_group_calls_nothing_for_a_member_but_the_hash(real_target: str, steps: int, by_id: bool) -> None:
    seen: dict[int, Calls] = {}
    async with AsyncClient(real_target) as client:
        for size in (FEW, MANY):
            group = await client.group(f"step cost, {number}" for number in range(size))
            table = np.ones((size, steps, 2) if steps > 1 else (size, 2), np.float32)
            rows: Any = dict(zip(group.ids, table, strict=True)) if by_id else table
            await group.step(rows)
            with Calls() as seen[size]:
                await group.step(rows)
        await group.delete()
    # What the event loop does varies a little from step to step.
    more = {kind: getattr(seen[MANY], kind) - getattr(seen[FEW], kind) for kind in ("python", "native")}
    assert [where for where, count in more["python"].items() if count > MANY // 2] == []
    for_each = {where: count for where, count in more["native"].items() if count > MANY // 2}
    hashes = for_each.pop(("group_history.py", "digest"))
    assert hashes == (MANY - FEW) * steps
    for_each.pop(("group_history.py", "blake2b"), None)  # since Python 3.12
    assert for_each == ({("group_members.py", "isinstance"): MANY - FEW} if by_id else {})
