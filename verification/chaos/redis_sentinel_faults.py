"""Faults of servers that sentinels watch, and of the sentinels.

None of them loses anything by itself. A switch to the replica may, and is detected when it happens
(redis_sentinel.py), even without any of these faults.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator

from .fault_kind import FaultKind, Wait
from .redis_sentinel import SERVERS, RedisSentinelStore

DISTURB_S = 5.0
"""How long the sentinels are disturbed while they put the servers right. They tell an old primary ten seconds after
they started, and look on for 30 in TILT mode, so that faults of sentinels alone could keep them from it forever."""


class RedisSentinelFaults:
    def __init__(self, store: RedisSentinelStore, wait: Wait, draw: random.Random) -> None:
        self._store = store
        self._wait = wait
        self._draw = draw
        self._may_disturb = asyncio.Event()
        self._may_disturb.set()

    def kinds(self) -> Iterator[FaultKind]:
        yield FaultKind("watched_kill", "watched", 5.0, self._kill)
        yield FaultKind("watched_pause", "watched", 5.0, self._pause)
        yield FaultKind("watched_failover", "watched", 3.0, self._failover)
        yield FaultKind("watched_cut", "watched", 1.0, self._cut)
        yield FaultKind("replica_kill", "watched", 0.5, self._replica_kill)
        yield FaultKind("watched_full", "watched", 0.5, self._full)
        yield FaultKind("sentinel_kill", "sentinel {}", 0.3, self._sentinel_kill, self._store.sentinels)
        yield FaultKind("sentinel_pause", "sentinel {}", 0.3, self._sentinel_pause, self._store.sentinels)

    async def _kill(self, index: int) -> None:
        """Kills the primary, which returns before or after the replica takes over.

        It considers itself the primary until a sentinel tells it otherwise.
        """
        server = self._store.world.servers[await self._primary()]
        await asyncio.to_thread(server.kill)
        await self._wait(0.0, 5.0)
        await asyncio.to_thread(server.restart)
        await self._settled()

    async def _pause(self, index: int) -> None:
        """Pauses the primary, for less or more time than the sentinels wait.

        On waking, it executes what it was sent meanwhile, and answers as a primary.
        """
        server = self._store.world.servers[await self._primary()]
        server.pause()
        try:
            await self._wait(0.1, 5.0)
        finally:
            server.wake()
        await self._settled()

    async def _failover(self, index: int) -> None:
        """Asks the sentinels for a failover; the old primary runs on, and accepts commits until it is told."""
        await asyncio.to_thread(self._store.world.fail_over)
        await self._settled()

    async def _cut(self, index: int) -> None:
        """Closes every connection of the services to the primary, with whatever is in flight."""
        server = self._store.world.servers[await self._primary()]
        with server.client() as client:
            await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "normal")

    async def _replica_kill(self, index: int) -> None:
        server = self._store.world.servers[SERVERS - 1 - await self._primary()]
        await asyncio.to_thread(server.kill)
        await self._wait(0.0, 1.0)
        await asyncio.to_thread(server.restart)
        await self._settled()

    async def _full(self, index: int) -> None:
        """Makes the primary refuse every write."""
        server = self._store.world.servers[await self._primary()]
        with server.client() as client:
            await asyncio.to_thread(client.config_set, "maxmemory", 1)
            try:
                await self._wait(0.1, 1.0)
            finally:
                await asyncio.to_thread(client.config_set, "maxmemory", 0)

    async def _sentinel_kill(self, index: int) -> None:
        await self._may_disturb.wait()
        sentinel = self._store.world.sentinels[index]
        await asyncio.to_thread(sentinel.kill)
        await self._wait(0.0, 2.0)
        await asyncio.to_thread(sentinel.restart)

    async def _sentinel_pause(self, index: int) -> None:
        await self._may_disturb.wait()
        sentinel = self._store.world.sentinels[index]
        sentinel.send_signal(signal.SIGSTOP)
        try:
            await self._wait(0.1, 3.0)
        finally:
            sentinel.send_signal(signal.SIGCONT)

    async def _settled(self) -> None:
        """Waits for the sentinels, and soon leaves them alone."""
        leaving_alone = asyncio.get_running_loop().call_later(DISTURB_S, self._may_disturb.clear)
        try:
            await asyncio.to_thread(self._store.wait_until_whole)
        finally:
            leaving_alone.cancel()
            self._may_disturb.set()

    async def _primary(self) -> int:
        """Returns the primary once the store is undisturbed."""
        await self._settled()
        return await asyncio.to_thread(self._store.world.agreed_primary)  # a sentinel may be killed or paused again
