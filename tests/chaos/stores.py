"""The stores that the servers run on, each with what can be done to it."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from tests.redis_server import RedisServer

from .disk import SmallDisk
from .nodes import RedisNodes
from .proxy import Proxy
from .watched import RedisWatched

SYNC_S = 40.0
UNSYNCED_S = 1.0  # what "everysec" leaves to a power cut
STORES = ("sqlite", "redis", "redis-everysec", "redis-failover", "redis-cluster", "redis-sentinel")


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

    fsync: "always", or "everysec": then a SIGKILL may take what had not been written to the file yet, and a power cut
    what had not been synced.
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


class RedisEverysec(RedisStore):
    """A Redis server whose file is watched, so that it can be put back to how it was when it was synced last."""

    def __init__(self) -> None:
        super().__init__("everysec")
        self.options["auto-aof-rewrite-percentage"] = "0"  # one file for the whole run
        self.primary = RedisServer(self.options)
        self._sizes: deque[tuple[float, int]] = deque(maxlen=200)  # of the file, by time
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def cut_power(self) -> None:
        """SIGKILL, and what was written within the last UNSYNCED_S never reached the disk."""
        until = time.monotonic() - UNSYNCED_S
        self.primary.kill()
        size, path = self.size_at(until), self._file()
        if size is not None and path is not None and size < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(size)

    def size_at(self, at: float) -> int | None:
        """Bytes of the file at that time, by the monotonic clock; None: it was not looked at yet."""
        return next((size for seen, size in reversed(self._sizes.copy()) if seen <= at), None)

    def restart(self) -> None:
        self._sizes.clear()
        self.primary.restart()

    def _file(self) -> Path | None:
        return next(iter(sorted(self.primary.folder.glob("appendonlydir/*.incr.aof"), reverse=True)), None)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            path = self._file()
            if path is not None:
                self._sizes.append((time.monotonic(), path.stat().st_size))

    def __enter__(self) -> RedisEverysec:
        super().__enter__()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watch.join()
        super().__exit__(kind, error, trace)


AnyStore = SqliteStore | RedisStore | RedisNodes | RedisWatched


def make_store(kind: str) -> AnyStore:
    """One of STORES."""
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
            return RedisNodes()
        case "redis-sentinel":
            return RedisWatched()
    raise ValueError(f"store: got {kind!r}, expected one of {STORES}")
