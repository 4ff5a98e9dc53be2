"""What all clients share: their history, the seeded random generators, the models, and the known positions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from cellkeeper import Position as ClientPosition
from cellkeeper._session.time_limit import within

from testing.wire_client import Position
from tests.integration.acceptance.sequences import Model

from .history import Array, Burst, History, Operation, sender_of

TIMEOUT_S = 15.0  # for one call of the official client, including retries
ATTEMPT_S = 1.0
OFFICIAL = "client"  # prefix of the official clients' names


@dataclass
class TrackedSession:
    """Where a session's own client believes it is. position: None if it is not open, or lost.

    sender: the client's name, a new one each time that it opens the session: requests of an earlier one that are still
    in flight count as another sender's.
    """

    session: str
    model: Model
    position: Position | None = None
    sender: str = ""


@dataclass
class Workload:
    """The clients of a round.

    targets: the addresses that clients use, one for each server. websockets: those that half of the official clients
    use for steps. prefix: of the names of its sessions. races: what clients did to each other, by kind. stopping: no
    more faults start. ending: no fault is left, and every session makes its last step, so that a client that lost
    something in the last fault notices.
    """

    history: History
    models: Sequence[Model]
    targets: Sequence[str]
    websockets: Sequence[str]
    seed: int
    prefix: str = ""
    tracked_sessions: dict[str, TrackedSession] = field(default_factory=dict)
    races: dict[str, int] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    replayed_steps: int = 0  # by the official clients on their own
    _numbers: int = 0
    _openings: int = 0

    def dice(self) -> random.Random:
        """Returns a random generator for one actor."""
        self._numbers += 1
        return random.Random(self.seed * 1_000_003 + self._numbers)

    def addresses(self, draw: random.Random) -> tuple[list[str], list[str] | None]:
        """Returns the parameters `target` and `websocket` of one official client."""
        pairs = list(zip(self.targets, self.websockets, strict=True))
        draw.shuffle(pairs)
        over_websockets = draw.random() < 0.5
        if over_websockets:
            self.did("client_over_websocket")
        return [target for target, _ in pairs], [url for _, url in pairs] if over_websockets else None

    def number(self) -> int:
        """Returns a number that is used only once."""
        self._numbers += 1
        return self._numbers

    def branch_of(self, tracked: TrackedSession) -> TrackedSession:
        """Returns a tracked session for a fork: with a name of its own, and the source's TTL."""
        branch = TrackedSession(f"{tracked.session}~{self.number()}", tracked.model)
        if tracked.session in self.history.ttls:
            self.history.ttls[branch.session] = self.history.ttls[tracked.session]
        return branch

    def opened(self, tracked: TrackedSession, name: str) -> None:
        self._openings += 1
        tracked.sender = sender_of(name, self._openings)

    def did(self, kind: str, count: int = 1) -> None:
        self.races[kind] = self.races.get(kind, 0) + count

    async def pause(self, seconds: float) -> None:
        """Sleeps; less if everything stops."""
        with suppress(asyncio.TimeoutError):
            await within(seconds, self.stopping.wait())

    def begin(
        self,
        tracked: TrackedSession,
        start: Position | ClientPosition,
        inputs: Array,
        acked: int,
        acked_later: int = 0,
        wanted: tuple[str, ...] = ("prediction",),
    ) -> Burst:
        """Adds a burst to the history and returns it."""
        place, now = Position(*start), time.monotonic()
        burst = Burst(tracked.session, tracked.model.name, place, inputs, acked, tracked.sender, now)
        burst.acked_later, burst.wanted = acked_later, wanted
        return self.history.add_burst(burst)

    def operation(self, kind: str, tracked: TrackedSession, sender: str, **more: object) -> Operation:
        operation = Operation(kind, tracked.session, tracked.model.name, sender, time.monotonic())
        for name, value in more.items():
            setattr(operation, name, value)
        return self.history.add_operation(operation)

    def draw_inputs(self, model: Model, draw: random.Random, steps: int) -> Array:
        return model.draw(np.random.default_rng(draw.getrandbits(64)), steps)
