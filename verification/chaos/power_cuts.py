"""Power cuts that are often followed by another one soon after.

What the first one leaves in the file comes to light at the next start or the one after it, depending on what was
written in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from testing.wire_client import Replica

from .deployment import Server
from .fault_kind import Wait
from .power import AnyPower
from .proxy import Proxy
from .raw_client import RawClient
from .workload import Workload

MAX_RUNS = 3
MOST_SINGLES = 6
CALL_S = 1.5
MOST_FEW_S = 3.0
Restart = Callable[[], Awaitable[None]]
"""Restarts the server that lost its power, or was killed."""


class PowerCuts:
    """Cuts the power of a store's server, several times in a row.

    fronts: the proxies between all clients and the servers. direct_clients: clients that bypass these proxies and
    step one by one, while nobody else writes.
    """

    def __init__(
        self,
        workload: Workload,
        servers: Sequence[Server],
        fronts: Sequence[Proxy],
        direct_clients: Sequence[RawClient],
        wait: Wait,
        draw: random.Random,
    ) -> None:
        self._workload = workload
        self._servers = servers
        self._fronts = fronts
        self._direct_clients = direct_clients
        self._wait = wait
        self._draw = draw
        self._steps: list[asyncio.Task[None]] = []

    async def run(self, power: AnyPower, restart: Restart) -> None:
        """Cuts the power and restarts the server, up to MAX_RUNS times; the last run of the server continues."""
        runs = self._draw.randint(1, MAX_RUNS)
        replicas = [Replica(server.target, CALL_S) for server in self._servers]
        try:
            await self._cut(power)
            for _ in range(runs - 1):
                await self._live(power, restart, replicas)
            await self._wait(0.0, 0.5)
            await restart()
            await asyncio.gather(*self._steps)
        finally:
            self._steps = []
            for replica in replicas:
                await replica.close()

    async def _live(self, power: AnyPower, restart: Restart, replicas: Sequence[Replica]) -> None:
        """Runs the server for a short time, with traffic of all clients, of a few, or of none, and ends it."""
        traffic = self._draw.choice(("all", "few", "few", "none"))
        with ExitStack() as shutting:
            if traffic != "all":
                shutting.enter_context(self._shut())
            await self._wait(0.0, 0.3)
            await restart()
            if traffic == "few":
                await self._step_few(replicas)
            if traffic == "all":
                await self._wait(0.1, 1.5)
            if self._draw.random() < 0.5:
                await self._cut(power)
            else:
                await asyncio.to_thread(power.server.kill)

    async def _cut(self, power: AnyPower) -> None:
        self._workload.history.power_cuts.append(await power.cut(self._draw))

    async def _step_few(self, replicas: Sequence[Replica]) -> None:
        """Steps one direct client, or all of them. Returns when they have their answers, or before."""
        if all(task.done() for task in self._steps):
            count = self._draw.choice((1, len(self._direct_clients)))
            for client in self._draw.sample(list(self._direct_clients), count):
                steps = client.step_singly(replicas, self._draw.randint(1, MOST_SINGLES))
                self._steps.append(asyncio.create_task(steps))
        if self._draw.random() < 0.7:
            await asyncio.wait(self._steps, timeout=MOST_FEW_S)
        else:
            await self._wait(0.02, 0.3)

    @contextmanager
    def _shut(self) -> Iterator[None]:
        """Shuts out all clients."""
        for front in self._fronts:
            front.refusing = True
            front.cut()
        try:
            yield
        finally:
            for front in self._fronts:
                front.refusing = False
