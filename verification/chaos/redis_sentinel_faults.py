"""Faults of servers that sentinels watch, and of the sentinels.

None of them loses anything by itself. A switch to the replica may, and is detected when it happens
(redis_sentinel.py), even without any of these faults.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator

from .fault_kind import FaultKind, Wait
from .redis_sentinel import SERVERS, RedisSentinelStore

# https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#tilt-mode
TILT_S = 30.0
TILTING_PAUSE_S = 3.0
UNNOTICED_PAUSE_S = 1.5  # it takes two seconds


class RedisSentinelFaults:
    def __init__(self, store: RedisSentinelStore, wait: Wait, draw: random.Random) -> None:
        self._store = store
        self._wait = wait
        self._draw = draw
        self._tilt_ends = 0.0  # of the last pause that was long enough for it

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
        sentinel = self._store.world.sentinels[index]
        await asyncio.to_thread(sentinel.kill)
        await self._wait(0.0, 2.0)
        await asyncio.to_thread(sentinel.restart)

    async def _sentinel_pause(self, index: int) -> None:
        """Pauses a sentinel, long enough for it to enter TILT mode if no other is in it.

        In TILT mode a sentinel looks on for half a minute. If all are, over and over, nobody tells an old primary.
        """
        sentinel = self._store.world.sentinels[index]
        longest_s = UNNOTICED_PAUSE_S
        if time.monotonic() > self._tilt_ends:
            longest_s, self._tilt_ends = TILTING_PAUSE_S, time.monotonic() + TILTING_PAUSE_S + TILT_S
        sentinel.send_signal(signal.SIGSTOP)
        try:
            await self._wait(0.1, longest_s)
        finally:
            sentinel.send_signal(signal.SIGCONT)

    async def _settled(self) -> None:
        """Waits for the sentinels, which take ten seconds to tell the old primary."""
        await asyncio.to_thread(self._store.wait_until_whole)

    async def _primary(self) -> int:
        """Returns the primary once the store is undisturbed."""
        await asyncio.to_thread(self._store.wait_until_whole)
        return self._store.world.primary()
