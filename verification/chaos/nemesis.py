"""The nemesis: injects faults at random into the servers, their connections and their store, counted by kind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from testing.server_process import WORKER_KILLED

from .deployment import Deployment
from .fault_kind import FaultKind
from .history import Fault
from .network_faults import network_faults
from .official_client import OfficialClient
from .power_cuts import PowerCuts
from .raw_client import RawClient
from .redis_cluster import RedisClusterStore
from .redis_cluster_faults import RedisClusterFaults
from .redis_faults import RedisFaults
from .redis_sentinel import RedisSentinelStore
from .redis_sentinel_faults import RedisSentinelFaults
from .sqlite_faults import SqliteFaults
from .stores import SqliteStore
from .workload import Workload

ENDING = ("server_kill", "server_stop", "worker_kill")
NOT_OF_STORE = ("server", "front", "clients")  # prefixes of targets


class Nemesis:
    """Injects faults.

    every_s: mean seconds between the starts of two faults. only: their kinds; empty: all that the store has. most: the
    most that are in progress at once. direct_clients: clients that step where a fault keeps all others out. Raises
    ValueError if `only` names an unknown kind.
    """

    def __init__(
        self,
        deployment: Deployment,
        workload: Workload,
        official_clients: Sequence[OfficialClient],
        every_s: float,
        only: frozenset[str] = frozenset(),
        most: int = 8,
        direct_clients: Sequence[RawClient] = (),
    ) -> None:
        self._deployment = deployment
        self._workload = workload
        self._official_clients = official_clients
        self._every_s = every_s
        self._most = most
        self._direct_clients = direct_clients
        self._draw = workload.dice()
        self._held: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self.kinds = [kind for kind in self._make_kinds() if not only or kind.name in only]
        if only - {kind.name for kind in self.kinds}:
            raise ValueError(f"kinds of faults: got {sorted(only)}, expected some of {sorted(self._names())}")

    def _names(self) -> set[str]:
        return {kind.name for kind in self._make_kinds()}

    async def run(self) -> None:
        """Injects faults until the workload stops; then waits until all are undone."""
        while not self._workload.stopping.is_set():
            await self._workload.pause(self._draw.expovariate(1.0) * self._every_s)
            self._deployment.look_for_crashes()
            if len(self._under_way) < self._most and not self._workload.stopping.is_set():
                self._begin()
            for task in [task for task in self._under_way if task.done()]:
                self._under_way.discard(task)
                task.result()
        await asyncio.gather(*self._under_way)

    def _begin(self) -> None:
        """Starts a fault whose target is not affected by another one right now."""
        free = [
            (kind, kind.holds.format(index))
            for kind in self.kinds
            for index in [self._draw.randrange(kind.targets)]
            if kind.holds.format(index) not in self._held and not (kind.name in ENDING and self._spared())
        ]
        if free:
            ((kind, target),) = self._draw.choices(free, [kind.weight for kind, _ in free])
            self._under_way.add(asyncio.create_task(self._make(kind, target)))

    def _spared(self) -> bool:
        """Returns True in most cases while a server is down, to spare the last one.

        Without any running server nothing happens, which lasts long on a loaded machine.
        """
        return not all(server.is_running for server in self._deployment.servers) and self._draw.random() < 0.8

    async def _make(self, kind: FaultKind, target: str) -> None:
        self._held.add(target)
        place = len(self._workload.history.faults)
        fault = Fault(kind.name, target, time.monotonic(), float("inf"), kind.loses, self._is_of_store(kind))
        self._workload.history.faults.append(fault)
        try:
            await kind.act(int(target.rpartition(" ")[2]) if " " in target else 0)
        finally:
            self._workload.history.faults[place] = fault._replace(ended=time.monotonic())
            self._held.discard(target)

    def _is_of_store(self, kind: FaultKind) -> bool:
        """Returns True if the fault disturbs the store. A paused server may hold SQLite's lock."""
        on_sqlite = isinstance(self._deployment.store, SqliteStore)
        paused_writer = on_sqlite and kind.name in ("server_pause", "worker_pause")
        return paused_writer or not kind.holds.startswith(NOT_OF_STORE)

    def _make_kinds(self) -> Iterator[FaultKind]:
        store, servers = self._deployment.store, len(self._deployment.servers)
        fronts, backs = [*self._deployment.fronts, *self._deployment.http_fronts], self._deployment.backs
        yield FaultKind("server_kill", "server {}", 1.2, self._server_kill, servers)
        yield FaultKind("server_stop", "server {}", 0.4, self._server_stop, servers)
        yield FaultKind("server_pause", "server {}", 1.2, self._server_pause, servers)
        if self._deployment.workers > 1:
            yield FaultKind("worker_kill", "server {}", 1.2, self._worker_kill, servers)
            yield FaultKind("worker_pause", "server {}", 1.2, self._worker_pause, servers)
        yield FaultKind("client_kill", "clients", 1.0, self._client_kill)
        yield from network_faults("client", "front {}", fronts, self._while, self._draw)
        if isinstance(store, SqliteStore):
            yield from SqliteFaults(store, self._deployment.servers, self._while, self._draw).kinds()
            return
        if isinstance(store, RedisSentinelStore):
            yield from RedisSentinelFaults(store, self._while, self._draw).kinds()
            return
        yield from network_faults("store", "back {}", backs, self._while, self._draw)
        power_cuts = PowerCuts(
            self._workload, self._deployment.servers, fronts, self._direct_clients, self._while, self._draw
        )
        if isinstance(store, RedisClusterStore):
            yield from RedisClusterFaults(store, power_cuts, self._while, self._draw).kinds()
        else:
            replicated = self._deployment.wait_replicas > 0
            yield from RedisFaults(store, backs, power_cuts, self._while, self._draw, replicated).kinds()

    async def _while(self, least_s: float, most_s: float) -> None:
        await self._workload.pause(self._draw.uniform(least_s, most_s))

    # ------------------------------------------------------------------------------------------ processes

    async def _server_kill(self, index: int) -> None:
        server = self._deployment.servers[index]
        if server.is_running:
            server.ending = True
            await asyncio.to_thread(server.kill)
            server.ending = False
        await self._while(0.0, 0.5)
        await self._deployment.restart(server)

    async def _server_stop(self, index: int) -> None:
        server = self._deployment.servers[index]
        if server.is_running:
            server.ending = True
            status = await asyncio.to_thread(server.stop)
            server.ending = False
            if status != 0:
                self._deployment.crashes.append(
                    f"server {index} ended with status {status} after SIGTERM:\n{server.output()[-4000:]}"
                )
        await self._deployment.restart(server)

    async def _server_pause(self, index: int) -> None:
        """Pauses a server, which wakes as a zombie after the others went on."""
        await self._pause(self._deployment.servers[index].pids_if_running)

    async def _worker_pause(self, index: int) -> None:
        """Pauses one of several processes on the same port, to which the kernel still gives connections."""
        if pids := self._deployment.servers[index].pids_if_running:
            await self._pause([self._draw.choice(pids)])

    async def _pause(self, pids: Sequence[int]) -> None:
        _send(signal.SIGSTOP, pids)
        try:
            await self._while(0.1, 2.0)
        finally:
            _send(signal.SIGCONT, pids)

    async def _worker_kill(self, index: int) -> None:
        """Kills a worker. Its parent ends the other workers, which answer what they have, and ends with an error."""
        server = self._deployment.servers[index]
        if server.is_running:
            server.ending = True
            status = await asyncio.to_thread(server.kill_worker, self._draw.randrange(self._deployment.workers))
            server.ending = False
            if status != WORKER_KILLED:
                words = (
                    f"server {index} ended with status {status} after a SIGKILL of a worker:\n{server.output()[-4000:]}"
                )
                self._deployment.crashes.append(words)
        await self._while(0.0, 0.5)
        await self._deployment.restart(server)

    async def _client_kill(self, index: int) -> None:
        await self._draw.choice(self._official_clients).kill()


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended on its own, which is found elsewhere
            os.kill(pid, number)
