"""What is done to the system, at random, and counted by kind."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .cluster import Cluster
from .crew import Crew
from .history import Fault
from .pumps import Pumps
from .stores import RedisPair, RedisStore, SqliteStore
from .weather import Kind, weather


class Faults:
    """every_s: seconds between the beginnings of two faults, on average. At most `most` are under way at once."""

    def __init__(self, cluster: Cluster, crew: Crew, pumps: Sequence[Pumps], every_s: float, most: int = 3) -> None:
        self._cluster = cluster
        self._crew = crew
        self._pumps = pumps
        self._every_s = every_s
        self._most = most
        self._draw = crew.dice()
        self._held: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self.kinds = list(self._make_kinds())

    async def run(self) -> None:
        """Until the crew stops; then waits until all is undone."""
        while not self._crew.stopping.is_set():
            await self._crew.pause(self._draw.expovariate(1.0) * self._every_s)
            self._cluster.look_for_crashes()
            if len(self._under_way) < self._most and not self._crew.stopping.is_set():
                self._begin()
            for task in [task for task in self._under_way if task.done()]:
                self._under_way.discard(task)
                task.result()
        await asyncio.gather(*self._under_way)

    def _begin(self) -> None:
        index = self._draw.randrange(len(self._cluster.servers))
        free = [kind for kind in self.kinds if not self._holds(kind, index) & self._held]
        if free:
            (kind,) = self._draw.choices(free, [kind.weight for kind in free])
            self._under_way.add(asyncio.create_task(self._make(kind, index)))

    def _holds(self, kind: Kind, index: int) -> set[str]:
        return {kind.holds.format(index)}

    async def _make(self, kind: Kind, index: int) -> None:
        self._held |= self._holds(kind, index)
        place = len(self._crew.history.faults)
        began = time.monotonic()
        target = kind.holds.format(index)
        self._crew.history.faults.append(Fault(kind.name, target, began, float("inf"), kind.loses))
        try:
            await kind.act(index)
        finally:
            self._crew.history.faults[place] = Fault(kind.name, target, began, time.monotonic(), kind.loses)
            self._held -= self._holds(kind, index)

    def _make_kinds(self) -> Iterator[Kind]:
        store = self._cluster.store
        yield Kind("server_kill", "server {}", 1.5, self._server_kill)
        yield Kind("server_stop", "server {}", 0.5, self._server_stop)
        yield Kind("server_pause", "server {}", 1.5, self._server_pause)
        yield Kind("client_kill", "clients", 1.0, self._client_kill)
        yield from weather("client", "front {}", self._cluster.fronts.__getitem__, self._while, self._draw)
        if isinstance(store, SqliteStore):
            yield Kind("disk_locked", "disk", 1.0, self._disk_locked)
            yield Kind("file_limit", "disk", 1.0, self._file_limit)
            if store.disk.limited:
                yield Kind("disk_full", "disk", 1.5, self._disk_full)
            return
        yield from weather("store", "back {}", self._cluster.backs.__getitem__, self._while, self._draw)
        yield Kind("redis_pause", "store", 1.0, self._redis_pause)
        yield Kind("redis_full", "store", 1.0, self._redis_full)
        if isinstance(store, RedisPair):
            yield Kind("failover", "store", 3.0, self._failover, loses=True)
            yield Kind("failover_split", "store", 1.0, self._failover_split, loses=True)
        else:
            yield Kind("redis_kill", "store", 1.5, self._redis_kill, loses=store.fsync != "always")

    async def _while(self, least_s: float, most_s: float) -> None:
        await self._crew.pause(self._draw.uniform(least_s, most_s))

    # ------------------------------------------------------------------------------------------ processes

    async def _server_kill(self, index: int) -> None:
        server = self._cluster.servers[index]
        if server.is_running:
            server.ending = True
            await asyncio.to_thread(server.kill)
            server.ending = False
        await self._while(0.0, 0.5)
        await self._cluster.restart(server)

    async def _server_stop(self, index: int) -> None:
        server = self._cluster.servers[index]
        if server.is_running:
            server.ending = True
            status = await asyncio.to_thread(server.stop)
            server.ending = False
            if status != 0:
                self._cluster.crashes.append(
                    f"server {index} ended with {status} after SIGTERM:\n{server.output()[-4000:]}"
                )
        await self._cluster.restart(server)

    async def _server_pause(self, index: int) -> None:
        """A zombie: it wakes after others went on."""
        server = self._cluster.servers[index]
        if not server.is_running:
            return
        server.send_signal(signal.SIGSTOP)
        try:
            await self._while(0.1, 3.0)
        finally:
            server.send_signal(signal.SIGCONT)

    async def _client_kill(self, index: int) -> None:
        await self._draw.choice(self._pumps).kill()

    # ------------------------------------------------------------------------------------------ SQLite

    async def _disk_locked(self, index: int) -> None:
        """Another process writes to the file and takes its time."""
        await asyncio.to_thread(self._hold_lock, self._draw.uniform(0.1, 1.5))

    def _hold_lock(self, seconds: float) -> None:
        other = sqlite3.connect(self._sqlite().path, timeout=5.0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)  # the fault itself
            other.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return  # the disk is full, or others kept on writing: no lock, no fault
        finally:
            other.close()

    async def _file_limit(self, index: int) -> None:
        """The system refuses one server to write beyond the first bytes of any file."""
        server = self._cluster.servers[index]
        if not server.is_running:
            return
        pid = server.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, hard))
        await self._while(0.1, 1.0)
        with _gone_is_fine():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    async def _disk_full(self, index: int) -> None:
        disk = self._sqlite().disk
        await asyncio.to_thread(disk.fill)
        await self._while(0.1, 1.5)
        disk.free()

    def _sqlite(self) -> SqliteStore:
        if not isinstance(self._cluster.store, SqliteStore):
            raise TypeError("this fault is SQLite's")
        return self._cluster.store

    # ------------------------------------------------------------------------------------------ Redis

    async def _redis_kill(self, index: int) -> None:
        server = self._redis().primary
        await asyncio.to_thread(server.kill)
        await self._while(0.0, 0.7)
        await asyncio.to_thread(server.restart)

    async def _redis_pause(self, index: int) -> None:
        server = self._redis().primary
        server.pause()
        try:
            await self._while(0.1, 2.0)
        finally:
            server.wake()

    async def _redis_full(self, index: int) -> None:
        store = self._redis()
        await asyncio.to_thread(store.set_max_memory, 1)
        try:
            await self._while(0.1, 1.0)
        finally:
            await asyncio.to_thread(store.set_max_memory, 0)

    async def _failover(self, index: int) -> None:
        """The replica lags, the primary dies, the replica is promoted: a tail of commits is gone."""
        pair = self._pair()
        pair.link.black_hole = True
        await self._while(0.0, 1.0)
        await asyncio.to_thread(pair.primary.kill)
        for back in self._cluster.backs:
            back.cut()
        await self._take_over(pair, restart=True)

    async def _failover_split(self, index: int) -> None:
        """The replica lags and is promoted while the primary lives: one server goes on writing to it for a while."""
        pair = self._pair()
        pair.link.black_hole = True
        await self._while(0.0, 0.5)
        await self._take_over(pair, restart=False, left_behind=index)

    async def _take_over(self, pair: RedisPair, *, restart: bool, left_behind: int | None = None) -> None:
        old = pair.primary
        pair.link.cut()
        await asyncio.to_thread(pair.promote)
        for number, back in enumerate(self._cluster.backs):
            back.target = pair.address
            if number != left_behind:
                back.cut()
        if left_behind is not None:
            await self._while(0.1, 1.0)
            self._cluster.backs[left_behind].cut()
        if restart:
            await asyncio.to_thread(old.restart)
        pair.link.black_hole = False
        pair.link.target = pair.address
        await asyncio.to_thread(pair.follow)
        await asyncio.to_thread(pair.wait_until_in_step)

    def _redis(self) -> RedisStore:
        if isinstance(self._cluster.store, SqliteStore):
            raise TypeError("this fault is Redis's")
        return self._cluster.store

    def _pair(self) -> RedisPair:
        if not isinstance(self._cluster.store, RedisPair):
            raise TypeError("this fault is a pair's")
        return self._cluster.store


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """A process that was killed meanwhile needs no healing."""
    try:
        yield
    except ProcessLookupError:
        return
