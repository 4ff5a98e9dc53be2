"""Faults of a Redis server, and of a pair of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

from .fault_kind import FaultKind, Wait
from .power import SyncedAlways, Unheard
from .power_cuts import PowerCuts
from .proxy import Proxy
from .stores import RedisEverysec, RedisPair, RedisStore


class RedisFaults:
    """Injects faults of Redis. backs: the proxies between servers and store, which a fail-over redirects. replicated:
    the servers wait for the replica, so that a fail-over loses nothing that they have acknowledged."""

    def __init__(
        self,
        store: RedisStore,
        backs: Sequence[Proxy],
        power_cuts: PowerCuts,
        wait: Wait,
        draw: random.Random,
        replicated: bool = False,
    ) -> None:
        self._store = store
        self._backs = backs
        self._power_cuts = power_cuts
        self._wait = wait
        self._draw = draw
        self._replicated = replicated

    def kinds(self) -> Iterator[FaultKind]:
        yield FaultKind("redis_pause", "store", 1.0, self._redis_pause)
        yield FaultKind("redis_full", "store", 1.0, self._redis_full)
        yield FaultKind("power_cuts", "store", 1.5, self._power_cut, loses=self._store.fsync != "always")
        if isinstance(self._store, RedisPair):
            yield FaultKind("failover", "store", 2.0, self._failover, loses=not self._replicated)
            yield FaultKind("failover_split", "store", 1.0, self._failover_split, loses=not self._replicated)
            return
        yield FaultKind("redis_kill", "store", 1.5, self._redis_kill, loses=self._store.fsync != "always")

    async def _redis_kill(self, index: int) -> None:
        server = self._store.primary
        await asyncio.to_thread(server.kill)
        await self._wait(0.0, 0.7)
        await asyncio.to_thread(server.restart)

    async def _power_cut(self, index: int) -> None:
        """Cuts the power of the server; for a pair, of its primary or its replica."""
        store = self._store
        if isinstance(store, RedisEverysec):
            await self._power_cuts.run(store.power, self._restart_primary)
        elif not isinstance(store, RedisPair):
            power = SyncedAlways(store.primary, self._backs, self._wait)
            await self._power_cuts.run(power, self._restart_primary)
        else:
            if self._draw.random() < 0.75:
                ways = [*self._backs, store.link]
                await self._power_cuts.run(SyncedAlways(store.primary, ways, self._wait), self._restart_primary)
            else:
                await self._power_cuts.run(Unheard(store.replica, self._wait), self._restart_replica)
            await asyncio.to_thread(store.wait_until_in_step)

    async def _restart_primary(self) -> None:
        await asyncio.to_thread(self._store.primary.restart)

    async def _restart_replica(self) -> None:
        pair = self._pair()
        await asyncio.to_thread(pair.replica.restart)
        await asyncio.to_thread(pair.follow)

    async def _redis_pause(self, index: int) -> None:
        server = self._store.primary
        server.pause()
        try:
            await self._wait(0.1, 1.2)
        finally:
            server.wake()

    async def _redis_full(self, index: int) -> None:
        store = self._store
        await asyncio.to_thread(store.set_max_memory, 1)
        try:
            await self._wait(0.1, 1.0)
        finally:
            await asyncio.to_thread(store.set_max_memory, 0)

    async def _failover(self, index: int) -> None:
        """Fails over to a lagging replica: the primary dies, the replica is promoted, and a tail of commits is lost."""
        pair = self._pair()
        pair.link.black_hole = True
        await self._wait(0.0, 1.0)
        await asyncio.to_thread(pair.primary.kill)
        for back in self._backs:
            back.cut()
        await self._take_over(pair, restart=True)

    async def _failover_split(self, _: int) -> None:
        """Promotes a lagging replica while the primary is alive: one server keeps writing to the primary."""
        pair = self._pair()
        pair.link.black_hole = True
        await self._wait(0.0, 0.5)
        left_behind = self._draw.randrange(len(self._backs))
        await self._take_over(pair, restart=False, left_behind=left_behind)

    async def _take_over(self, pair: RedisPair, *, restart: bool, left_behind: int | None = None) -> None:
        old = pair.primary
        pair.link.cut()
        await asyncio.to_thread(pair.promote)
        for number, back in enumerate(self._backs):
            back.target = pair.address
            if number != left_behind:
                back.cut()
        if left_behind is not None:
            await self._wait(0.1, 1.0)
            self._backs[left_behind].cut()
        if restart:
            await asyncio.to_thread(old.restart)
        pair.link.black_hole = False
        pair.link.target = pair.address
        await asyncio.to_thread(pair.follow)
        await asyncio.to_thread(pair.wait_until_in_step)

    def _pair(self) -> RedisPair:
        if not isinstance(self._store, RedisPair):
            raise TypeError("this fault needs a pair of Redis servers")
        return self._store
