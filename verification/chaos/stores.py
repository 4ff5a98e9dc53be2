"""The stores that the servers run on, with the operations that faults need."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from testing.redis_server import RedisServer

from .disk import SmallDisk
from .power import SyncedEverysec
from .proxy import Proxy
from .redis_cluster import RedisClusterStore
from .redis_sentinel import RedisSentinelStore

SYNC_S = 40.0
STORES = ("sqlite", "redis", "redis-everysec", "redis-failover", "redis-cluster", "redis-sentinel")


class SqliteStore:
    """One SQLite file for all servers."""

    def __init__(self) -> None:
        self.disk = SmallDisk()

    @property
    def path(self) -> Path:
        return self.disk.folder / "sessions.db"

    def __enter__(self) -> SqliteStore:
        self.disk.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disk.__exit__(kind, error, trace)


class RedisStore:
    """One Redis server.

    fsync: "always", or "everysec": then a SIGKILL may lose what had not been written to the file, and a power cut what
    had not been synced.
    """

    def __init__(self, fsync: str) -> None:
        self.fsync = fsync
        self.options = {
            "appendfsync": fsync,
            "auto-aof-rewrite-percentage": "0",  # what a power cut leaves in the file stays there
            "repl-diskless-sync-delay": "0",  # a replica is in sync again at once, so the next fail-over need not wait
        }
        self.primary = RedisServer(self.options)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.primary.port

    def set_max_memory(self, value: int) -> None:
        """Sets the limit in bytes; 0: none. With 1 every write is refused."""
        with self.primary.client() as client:
            client.config_set("maxmemory", value)

    def __enter__(self) -> RedisStore:
        self.primary.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.primary.__exit__(kind, error, trace)


class RedisPair(RedisStore):
    """A primary and a replica. The replication goes through a proxy, so that it can be made to lag."""

    def __init__(self, fsync: str) -> None:
        super().__init__(fsync)
        self.replica = RedisServer(self.options)
        self.link = Proxy(("127.0.0.1", 0))
        self._running = ExitStack()

    async def start(self) -> None:
        await self.link.start()
        self.link.target = self.address

    def follow(self) -> None:
        """Makes the replica replicate from the primary, through the link."""
        with self.replica.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.link.port)

    def is_in_step(self) -> bool:
        """Returns True if the replica has caught up with the primary, also on disk."""
        try:
            with self.replica.client() as client:
                info = client.info()
        except redis.RedisError:
            return False
        # After a full copy from its primary, it has nothing on disk until it has rewritten its file.
        writes = info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled")
        return info.get("master_link_status") == "up" and not writes

    def wait_until_in_step(self) -> None:
        until = time.monotonic() + SYNC_S
        while not self.is_in_step():
            if time.monotonic() > until:
                raise RuntimeError(f"the replica did not catch up within {SYNC_S} s")
            time.sleep(0.02)  # between two checks of the condition

    def promote(self) -> None:
        """Makes the replica the primary. The old primary must be killed before, or be left alone."""
        with self.replica.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary

    def __enter__(self) -> RedisPair:
        with ExitStack() as running:
            running.enter_context(self.primary)
            running.enter_context(self.replica)
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)


class RedisEverysec(RedisStore):
    """A Redis server whose file is watched, so that it is known what had been synced."""

    def __init__(self) -> None:
        super().__init__("everysec")
        self.power = SyncedEverysec(self.primary)

    def __enter__(self) -> RedisEverysec:
        super().__enter__()
        self.power.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power.close()
        super().__exit__(kind, error, trace)


AnyStore = SqliteStore | RedisStore | RedisClusterStore | RedisSentinelStore


def make_store(kind: str) -> AnyStore:
    """Returns one of STORES."""
    match kind:
        case "sqlite":
            return SqliteStore()
        case "redis":
            return RedisStore("always")
        case "redis-everysec":
            return RedisEverysec()
        case "redis-failover":
            return RedisPair("always")
        case "redis-cluster":
            return RedisClusterStore()
        case "redis-sentinel":
            return RedisSentinelStore()
    raise ValueError(f"store: got {kind!r}, expected one of {STORES}")
