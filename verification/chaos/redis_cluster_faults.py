"""Faults of the nodes of a Redis Cluster, one node after another, so that they can always agree again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from testing.redis_cluster import PRIMARIES

from .fault_kind import FaultKind, Wait
from .power import AnyPower, SyncedAlways, Unheard
from .power_cuts import PowerCuts
from .redis_cluster import RedisClusterStore


class RedisClusterFaults:
    def __init__(self, store: RedisClusterStore, power_cuts: PowerCuts, wait: Wait, draw: random.Random) -> None:
        self._store = store
        self._power_cuts = power_cuts
        self._wait = wait
        self._draw = draw

    def kinds(self) -> Iterator[FaultKind]:
        yield FaultKind("node_kill", "nodes", 1.5, self._node_kill)
        yield FaultKind("power_cuts", "nodes", 1.5, self._power_cut)
        yield FaultKind("node_pause", "nodes", 1.0, self._node_pause)
        yield FaultKind("slot_move", "nodes", 2.0, self._slot_move)
        yield FaultKind("node_handover", "nodes", 1.0, self._node_handover)
        yield FaultKind("node_takeover", "nodes", 0.5, self._node_takeover, loses=True)

    async def _node_kill(self, index: int) -> None:
        """Kills a node that has slots."""
        nodes = self._store
        number = nodes.primary_of(self._pair_number())
        await asyncio.to_thread(nodes.kill, number)
        await self._wait(0.0, 0.7)
        await asyncio.to_thread(nodes.restart, number)

    async def _power_cut(self, index: int) -> None:
        """Cuts the power of a node that has slots, or of its replica."""
        nodes, pair = self._store, self._pair_number()
        unheard = self._draw.random() < 0.25
        number = nodes.replica_of(pair) if unheard else nodes.primary_of(pair)
        server, way = nodes.cluster.nodes[number], nodes.proxies[number]
        power: AnyPower = Unheard(server, self._wait) if unheard else SyncedAlways(server, [way], self._wait)

        async def restart() -> None:
            await asyncio.to_thread(server.restart)

        await self._power_cuts.run(power, restart)
        await asyncio.to_thread(nodes.wait_until_whole)

    async def _node_pause(self, index: int) -> None:
        node = self._store.cluster.nodes[self._store.primary_of(self._pair_number())]
        node.pause()
        try:
            await self._wait(0.1, 1.5)
        finally:
            node.wake()

    async def _slot_move(self, index: int) -> None:
        await asyncio.to_thread(self._store.move_slot, self._draw, self._draw.uniform(0.0, 0.5))

    async def _node_handover(self, index: int) -> None:
        await asyncio.to_thread(self._store.hand_over, self._pair_number())

    async def _node_takeover(self, index: int) -> None:
        await asyncio.to_thread(self._store.take_over, self._pair_number())

    def _pair_number(self) -> int:
        return self._draw.randrange(PRIMARIES)
