"""Continuous load from the official asyncio client, with every output compared to an offline run of its version.

Some sessions wait for each reply, some pipeline, and new ones begin all the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

import numpy as np
from cellkeeper.aio import AsyncClient, AsyncSession
from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import offline
from numpy.typing import NDArray

Array = NDArray[Any]
STEP_PAUSE_SECONDS = 0.02  # between two steps of a session: the load should be steady, not saturate the machine
PATIENCE_SECONDS = 60.0
MOST_STEPS = 3


class Story:
    """One session: its inputs and outputs. gap_seconds: the longest wait for a reply."""

    def __init__(self, name: str, seed: int, features: int) -> None:
        self.name = name
        self.session: AsyncSession | None = None
        self.inputs: list[Array] = []
        self.outputs: list[Array] = []
        self.gap_seconds = 0.0
        self._numbers = np.random.default_rng(seed)
        self._features = features

    def draw(self, steps: int) -> Array:
        """Returns the next inputs."""
        chunk = self._numbers.standard_normal((steps, self._features)).astype(np.float32)
        self.inputs.append(chunk)
        return chunk

    def steps(self) -> int:
        """Returns the number of steps for a chunk."""
        return int(self._numbers.integers(1, MOST_STEPS + 1))

    @property
    def opened(self) -> AsyncSession:
        if self.session is None:
            raise AssertionError(f"{self.name} was never opened")
        return self.session

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of the version under which the session began."""
        return self.opened.model.fingerprint

    def check(self, engines: Mapping[bytes, Engine], state: Mapping[str, Array]) -> None:
        """Compares every bit of every output, and of the state at rest. Raises AssertionError."""
        inputs = np.concatenate(self.inputs)
        wanted = offline(engines[self.fingerprint], inputs)
        got = np.concatenate(self.outputs)
        if self.opened.position.step != len(inputs) or len(got) != len(inputs):
            raise AssertionError(
                f"{self.name}: {len(inputs)} steps were sent, {len(got)} answered; it is at {self.opened.position.step}"
            )
        if got.tobytes() != wanted["prediction"].tobytes():
            wrong = int(np.flatnonzero((got != wanted["prediction"]).any(axis=1))[0])
            raise AssertionError(f"{self.name}: differs from the offline run from step {wrong} of {len(inputs)} on")
        for name, array in state.items():
            if array.tobytes() != wanted[f"state.{name}"].tobytes():
                raise AssertionError(f"{self.name}: its state {name} differs from the offline run's")


class Load:
    """client: for all servers. waiting, pipelining: the number of sessions of each kind.

    Additional waiting sessions begin and end all the time. `errors` holds every exception that a caller saw.
    """

    def __init__(self, client: AsyncClient, *, waiting: int, pipelining: int, features: int) -> None:
        self.client = client
        self.features = features
        self.stories: list[Story] = []
        self.errors: Counter[str] = Counter()
        self.latencies: list[tuple[float, float]] = []  # when a waiting session sent, seconds until the reply
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._counts = waiting, pipelining

    async def __aenter__(self) -> Load:
        waiting, pipelining = self._counts
        kinds = [*[self._wait] * waiting, *[self._pipeline] * pipelining]
        for kind in kinds:
            self._tasks.append(asyncio.create_task(self._guarded(kind(self._begin()))))
        self._tasks.append(asyncio.create_task(self._guarded(self._come_and_go())))
        await self.until_all_moved()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Sends nothing more, and waits for the replies."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until_all_moved(self) -> None:
        """Waits until every session under load has had another reply."""
        before = {story: len(story.outputs) for story in self._lasting}
        await until(lambda: bool(self.errors) or all(len(story.outputs) > count for story, count in before.items()))

    async def check(self, engines: Mapping[bytes, Engine]) -> int:
        """Compares everything with offline runs. Returns the number of time steps. Raises AssertionError."""
        if self.errors:
            raise AssertionError(f"callers saw errors: {dict(self.errors)}")
        for story in self.stories:
            story.check(engines, await story.opened.state())
        return sum(len(chunk) for story in self.stories for chunk in story.inputs)

    @property
    def _lasting(self) -> Sequence[Story]:
        return self.stories[: sum(self._counts)]

    def _begin(self) -> Story:
        story = Story(f"story-{len(self.stories)}", len(self.stories), self.features)
        self.stories.append(story)
        return story

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # whatever a caller may see
            self.errors[f"{type(error).__name__}: {error}"] += 1

    async def _step(self, story: Story) -> None:
        started = monotonic()
        story.outputs.append(await story.opened.step(story.draw(story.steps())))
        took = monotonic() - started
        self.latencies.append((started, took))
        story.gap_seconds = max(story.gap_seconds, took)
        await asyncio.sleep(STEP_PAUSE_SECONDS)

    async def _wait(self, story: Story) -> None:
        story.session = await self.client.open(story.name)
        while not self._stopping:
            await self._step(story)

    async def _come_and_go(self) -> None:
        """Runs sessions one after another, which begin while servers come and go."""
        while not self._stopping:
            story = self._begin()
            story.session = await self.client.open(story.name)
            for _ in range(5):
                await self._step(story)

    async def _pipeline(self, story: Story) -> None:
        story.session = await self.client.open(story.name)
        heard = monotonic()
        async with aclosing(story.session.stream(self._samples(story), window=8)) as outputs:
            async for output in outputs:
                story.gap_seconds, heard = max(story.gap_seconds, monotonic() - heard), monotonic()
                story.outputs.append(output[None])

    async def _samples(self, story: Story) -> AsyncIterator[Array]:
        while not self._stopping:
            yield story.draw(1)[0]
            await asyncio.sleep(STEP_PAUSE_SECONDS / 4)


async def until(holds: Any, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Waits for a condition. Raises AssertionError if it does not become true in time."""
    end = monotonic() + patience_seconds
    while not holds():
        if monotonic() > end:
            raise AssertionError(f"it did not come about within {patience_seconds:g} s")
        await asyncio.sleep(0.01)  # between two checks of the condition
