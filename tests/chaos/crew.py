"""What all clients share: the history that they write, the seed's dice, the models, and who stands where."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cellkeeper import Position as ClientPosition

from tests.acceptance.sequences import Model
from tests.wire_client import Position

from .history import Array, Burst, Deed, History

TIMEOUT_S = 15.0  # of one call of the official client, its retries included
ATTEMPT_S = 1.0


@dataclass
class Standing:
    """Where a session's own client believes it stands; None: nowhere (not opened, or lost)."""

    session: str
    model: Model
    position: Position | None = None


@dataclass
class Crew:
    """targets: the addresses that clients use, one for each server. faults: what clients themselves did, by kind."""

    history: History
    models: Sequence[Model]
    targets: Sequence[str]
    seed: int
    standings: dict[str, Standing] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    replayed_steps: int = 0  # by the official clients on their own
    _numbers: int = 0

    def dice(self) -> random.Random:
        """Each actor's own."""
        self._numbers += 1
        return random.Random(self.seed * 1_000_003 + self._numbers)

    def number(self) -> int:
        """One that nobody else has."""
        self._numbers += 1
        return self._numbers

    def branch_of(self, standing: Standing) -> Standing:
        """For a fork: a name of its own, and the source's TTL."""
        branch = Standing(f"{standing.session}~{self.number()}", standing.model)
        if standing.session in self.history.ttls:
            self.history.ttls[branch.session] = self.history.ttls[standing.session]
        return branch

    def did(self, kind: str, count: int = 1) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + count

    async def pause(self, seconds: float) -> None:
        """Less, when all stop."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except asyncio.TimeoutError:
            return

    def begin(
        self, standing: Standing, start: Position | ClientPosition, inputs: Array, acked: int, sender: str
    ) -> Burst:
        """A burst, in the history from now on."""
        burst = Burst(standing.session, standing.model.name, Position(*start), inputs, acked, sender, time.monotonic())
        return self.history.add_burst(burst)

    def deed(self, kind: str, standing: Standing, sender: str, **more: object) -> Deed:
        deed = Deed(kind, standing.session, standing.model.name, sender, time.monotonic())
        for name, value in more.items():
            setattr(deed, name, value)
        return self.history.add_deed(deed)

    def draw_inputs(self, model: Model, draw: random.Random, steps: int) -> Array:
        return model.draw(np.random.default_rng(draw.getrandbits(64)), steps)
