"""Starts a real Redis Cluster for tests: three primaries, optionally with one replica each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from redis.crc import key_slot

from testing.redis_server import RedisServer, wait_until

PRIMARIES = 3
SLOTS = 16384


class RedisCluster:
    """A Redis Cluster; use as a context manager. Node n is `nodes[n]`; its replica is node n + 3.

    Nodes fail over only when told to, and slots of a lost node do not stop the others. options: additional
    configuration for each node.

        with RedisCluster(replicas=True) as cluster:
            store = open_store(cluster.url)
            cluster.nodes[0].kill()
            cluster.take_over(3)
    """

    def __init__(self, *, replicas: bool = False, options: Sequence[Mapping[str, str]] = ()) -> None:
        count = PRIMARIES * (2 if replicas else 1)
        own = options or [{}] * count
        self.nodes = [RedisServer({**_options(), **own[number]}) for number in range(count)]
        self.ids: list[str] = []

    @property
    def url(self) -> str:
        """The URL with all primaries."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:PRIMARIES])

    def command(self, node: int, *words: str | int | bytes) -> Any:
        """Returns the answer of node number `node` to a command."""
        with self.nodes[node].client() as client:
            return client.execute_command(*words)

    def owner(self, slot: int) -> int:
        """Returns the number of the primary that owns a slot, by its own account."""
        for number in self._running():
            if _owns(self._own_line(number), slot):
                return number
        raise LookupError(f"slot {slot} has no node")

    def take_over(self, replica: int) -> None:
        """Makes a replica the primary without anyone's agreement, and waits until all running nodes know it."""
        self.command(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: all(self._is_primary(replica, seen_by) for seen_by in self._running()))

    def hand_over(self, replica: int) -> None:
        """Makes a replica the primary in agreement with its primary, which waits until the replica has caught up."""
        self.command(replica, "CLUSTER", "FAILOVER")
        wait_until(lambda: all(self._is_primary(replica, seen_by) for seen_by in self._running()))

    def is_replica(self, number: int) -> bool:
        """Returns True if the node considers itself a replica."""
        return "slave" in self._own_line(number)[2]

    def wait_until_whole(self) -> None:
        """Waits until every node runs, takes part and has its data on disk, and every replica has caught up."""
        wait_until(lambda: all(self._takes_part(number) for number in range(len(self.nodes))))

    def begin_move(self, slot: int, source: int, target: int) -> None:
        """Starts to move a slot: it is on both nodes from now on."""
        self.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])

    def move_keys(self, slot: int, source: int, target: int, limit: int = SLOTS) -> int:
        """Moves up to `limit` of the slot's keys with MIGRATE. Returns how many."""
        keys = self.command(source, "CLUSTER", "GETKEYSINSLOT", slot, limit)
        if keys:
            port = self.nodes[target].port
            self.command(source, "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, source: int, target: int) -> None:
        """Moves the remaining keys and makes the target the slot's owner."""
        while self.move_keys(slot, source, target):
            pass
        others = [n for n in self._running() if n not in (target, source) and not self.is_replica(n)]
        for number in (target, source, *others):
            self.command(number, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])
        # Gossip of an older epoch that is still in flight would undo the next move.
        wait_until(lambda: len({self._epoch(target, seen_by) for seen_by in self._running()}) == 1)

    def move(self, slot: int, source: int, target: int) -> None:
        """Moves a slot with its keys, while everything runs."""
        self.begin_move(slot, source, target)
        self.end_move(slot, source, target)

    def empty(self) -> None:
        """Deletes every key."""
        for number in range(PRIMARIES):
            self.command(number, "FLUSHALL")

    def on_started(self) -> None:
        """Called when the nodes have their ports, before they know each other."""

    def __enter__(self) -> RedisCluster:
        try:
            with ThreadPoolExecutor(len(self.nodes)) as threads:
                list(threads.map(RedisServer.start, self.nodes))
            self.on_started()
            self._join()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.__exit__(kind, error, trace)

    def _join(self) -> None:
        self.ids = [self.command(number, "CLUSTER", "MYID").decode() for number in range(len(self.nodes))]
        for number in range(PRIMARIES):
            first, after = SLOTS * number // PRIMARIES, SLOTS * (number + 1) // PRIMARIES
            self.command(number, "CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for number, node in enumerate(self.nodes):
            self.command(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in range(number):  # gossip alone takes seconds
                self.command(other, "CLUSTER", "MEET", "127.0.0.1", node.port, node.options["cluster-port"])
        wait_until(lambda: all(len(self._lines(number)) == len(self.nodes) for number in self._running()))
        for number in range(PRIMARIES, len(self.nodes)):
            wait_until(lambda number=number: self._replicate(number))  # type: ignore[misc]
        wait_until(lambda: all(self._ready(number) for number in self._running()))

    def _replicate(self, number: int) -> bool:
        """Raises ResponseError if the node does not know its primary yet."""
        self.command(number, "CLUSTER", "REPLICATE", self.ids[number - PRIMARIES])
        return True

    def _ready(self, number: int) -> bool:
        """Returns True if the node works and names a node for every slot, and every replica.

        Without full coverage, a node that has not yet heard of the others' slots is "ok" too.
        """
        info = self.command(number, "CLUSTER", "INFO")
        if b"cluster_state:ok" not in info or b"cluster_slots_assigned:%d\r" % SLOTS not in info:
            return False
        if number >= PRIMARIES:
            with self.nodes[number].client() as client:
                if client.info("replication").get("master_link_status") != "up":
                    return False
        ranges = self.command(number, "CLUSTER", "SLOTS")
        return all(len(nodes) == len(self.nodes) // PRIMARIES for _, _, *nodes in ranges)

    def _takes_part(self, number: int) -> bool:
        """Raises RedisError if the node is loading its data."""
        if b"cluster_state:ok" not in self.command(number, "CLUSTER", "INFO"):
            return False
        with self.nodes[number].client() as client:
            info = client.info()
        # After a full copy from its primary, a node has nothing on disk until it has rewritten its file.
        if info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled"):
            return False
        return bool(info.get("role") == "master" or info.get("master_link_status") == "up")

    def _running(self) -> list[int]:
        return [number for number, node in enumerate(self.nodes) if node.is_running]

    def _lines(self, number: int) -> list[list[str]]:
        """Returns CLUSTER NODES without the nodes that are still in the handshake."""
        lines = [line.split() for line in self.command(number, "CLUSTER", "NODES").decode().splitlines()]
        return [line for line in lines if "handshake" not in line[2]]

    def _own_line(self, number: int) -> list[str]:
        return next(line for line in self._lines(number) if "myself" in line[2])

    def _epoch(self, number: int, seen_by: int) -> str:
        return next(line[6] for line in self._lines(seen_by) if line[0] == self.ids[number])

    def _is_primary(self, number: int, seen_by: int) -> bool:
        """Returns True if `seen_by` considers node `number` the primary of some slots."""
        return any(line[0] == self.ids[number] and "master" in line[2] and line[8:] for line in self._lines(seen_by))


def slot_of(name: bytes) -> int:
    """Returns the slot of a key."""
    return int(key_slot(name))


def _owns(line: list[str], slot: int) -> bool:
    for word in line[8:]:
        first, _, last = word.partition("-")
        if not word.startswith("[") and int(first) <= slot <= int(last or first):
            return True
    return False


def _options() -> dict[str, str]:
    return {
        "cluster-enabled": "yes",
        "cluster-node-timeout": "3000",  # gossip spreads within half of it
        "cluster-replica-no-failover": "yes",
        "cluster-allow-replica-migration": "no",
        "cluster-require-full-coverage": "no",
        "repl-diskless-sync-delay": "0",
        "repl-ping-replica-period": "1",  # CLUSTER SLOTS omits a replica without an offset
        "appendfsync": "everysec",
    }
