"""A Redis Cluster as the servers' store: every node is behind a proxy, whose address the nodes announce to clients."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType

import redis
from cellkeeper_service.store.redis.slots import SLOT_OF_BUCKET

from testing.redis_cluster import PRIMARIES, RedisCluster

from .proxy import Proxy

AGREE_S = 40.0  # for the nodes to do as they are told, on a loaded machine


class _Behind(RedisCluster):
    """A cluster whose nodes also replicate through the proxies."""

    def __init__(self, proxies: Sequence[Proxy], options: Sequence[Mapping[str, str]]) -> None:
        super().__init__(replicas=True, options=options)
        self._proxies = proxies

    def on_started(self) -> None:
        for proxy, node in zip(self._proxies, self.nodes, strict=True):
            proxy.target = ("127.0.0.1", node.port)


class RedisClusterStore:
    """Three primaries with a replica each; nodes n and n + 3 are a pair. Call `start` before use."""

    fsync = "always"

    def __init__(self) -> None:
        self.proxies = [Proxy(("127.0.0.1", 0)) for _ in range(2 * PRIMARIES)]
        self.cluster = RedisCluster()
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)

    async def start_proxies(self) -> None:
        for proxy in self.proxies:
            await proxy.start()

    def start(self) -> None:
        # Without rewrites a node keeps in its file what a power cut leaves there.
        shared = {"appendfsync": self.fsync, "auto-aof-rewrite-percentage": "0"}
        options = [{**shared, "cluster-announce-port": str(at.port)} for at in self.proxies]
        self.cluster = _Behind(self.proxies, options)
        self._running.enter_context(self.cluster)
        self.wait_until_whole()

    def primary_of(self, pair: int) -> int:
        """Returns the primary of the nodes `pair` and `pair` + 3."""
        return pair + PRIMARIES if self.cluster.is_replica(pair) else pair

    def replica_of(self, pair: int) -> int:
        return 2 * pair + PRIMARIES - self.primary_of(pair)

    def kill(self, number: int) -> None:
        self.cluster.nodes[number].kill()

    def restart(self, number: int) -> None:
        self.cluster.nodes[number].restart()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        persist(self.cluster.wait_until_whole)

    def move_slot(self, draw: random.Random, pause_s: float) -> None:
        """Moves a slot that holds sessions to another primary, with a pause halfway."""
        slot = draw.choice(SLOT_OF_BUCKET)
        source = self.cluster.owner(slot)
        target = draw.choice([at for pair in range(PRIMARIES) if (at := self.primary_of(pair)) != source])
        self.cluster.begin_move(slot, source, target)
        self.cluster.move_keys(slot, source, target, 1)
        time.sleep(pause_s)  # the fault itself
        persist(lambda: self.cluster.end_move(slot, source, target))

    def hand_over(self, pair: int) -> None:
        """The replica takes over once it has caught up."""
        replica = self.replica_of(pair)
        persist(lambda: self._promote(replica, self.cluster.hand_over))
        self.wait_until_whole()

    def take_over(self, pair: int) -> None:
        """Kills the primary; the replica takes over with what it has."""
        primary, replica = self.primary_of(pair), self.replica_of(pair)
        self.kill(primary)
        persist(lambda: self._promote(replica, self.cluster.take_over))
        self.cluster.nodes[primary].restart()
        self.wait_until_whole()

    def _promote(self, replica: int, way: Callable[[int], None]) -> None:
        if self.cluster.is_replica(replica):
            way(replica)

    def __enter__(self) -> RedisClusterStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)


def persist(operation: Callable[[], None]) -> None:
    """Retries while the nodes do not agree yet."""
    until = time.monotonic() + AGREE_S
    while time.monotonic() < until:
        with suppress(redis.RedisError, TimeoutError):
            operation()
            return
        time.sleep(0.1)  # between two tries
    operation()
