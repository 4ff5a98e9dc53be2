"""The stores that the servers run on, each with what can be done to it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from tests.redis_server import RedisServer

from .disk import SmallDisk
from .proxy import Proxy

SYNC_S = 20.0


class SqliteStore:
    """One file for all servers."""

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

    fsync: "always", or "everysec": then a SIGKILL may take what had not been written to the file yet.
    """

    def __init__(self, fsync: str) -> None:
        self.fsync = fsync
        # Without the delay a replica is in step again at once, and the next fail-over need not wait.
        self.options = {"appendfsync": fsync, "repl-diskless-sync-delay": "0"}
        self.primary = RedisServer(self.options)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.primary.port

    def set_max_memory(self, value: int) -> None:
        """Bytes; 0: no limit. With 1 every write is refused."""
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
    """A primary and a replica, which replicates through a proxy, so that it can be made to lag."""

    def __init__(self, fsync: str) -> None:
        super().__init__(fsync)
        self.replica = RedisServer(self.options)
        self.link = Proxy(("127.0.0.1", 0))
        self._running = ExitStack()

    async def start(self) -> None:
        await self.link.start()
        self.link.target = self.address

    def follow(self) -> None:
        """The replica replicates from the primary, through the link."""
        with self.replica.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.link.port)

    def is_in_step(self) -> bool:
        """Whether the replica has all that the primary had a moment ago."""
        try:
            with self.replica.client() as client:
                return str(client.info("replication").get("master_link_status")) == "up"
        except redis.RedisError:
            return False

    def wait_until_in_step(self) -> None:
        until = time.monotonic() + SYNC_S
        while not self.is_in_step():
            if time.monotonic() > until:
                raise RuntimeError(f"the replica did not catch up within {SYNC_S} s")
            time.sleep(0.02)  # between two looks at the condition

    def promote(self) -> None:
        """The replica becomes the primary; what was the primary is to be killed before, or to be left alone."""
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


AnyStore = SqliteStore | RedisStore


def make_store(kind: str, fsync: str) -> AnyStore:
    if kind == "sqlite":
        return SqliteStore()
    return RedisPair(fsync) if kind == "redis-failover" else RedisStore(fsync)
