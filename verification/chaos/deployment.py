"""The servers, the store, and the proxies between them and in front of them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from testing.server_process import ServerProcess

from .history import History, RefusedStart
from .proxy import Proxy
from .redis_cluster import RedisClusterStore
from .redis_sentinel import RedisSentinelStore
from .stores import AnyStore, RedisPair, SqliteStore

OPTIONS = (
    *("--device", "cpu", "--max-batch", "64", "--arena-mib", "24", "--max-replay-steps", "32"),
    *("--store-timeout-ms", "500", "--drain-timeout-ms", "3000", "--default-timeout-ms", "15000"),
)
RESTART_TRIES = 60  # on a loaded machine even the first start may take several


class Server(ServerProcess):
    """A server process. ending: another task is ending or starting it right now."""

    ending = False

    def ended(self) -> int | None:
        """Returns the exit status if it has ended on its own; None otherwise."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pids_if_running(self) -> list[int]:
        """The ids of the processes that serve; none if it is not running, or is ending right now."""
        try:
            return self.serving_pids if self.is_running else []
        except (RuntimeError, OSError):  # another thread has just ended it
            return []

    def comes_back(self) -> str:
        """Starts it again. Returns its output if it cannot start now; empty if it serves."""
        self.ending = True  # whether it starts is determined here, and nowhere else
        try:
            self.restart()
        except RuntimeError as error:
            self.forget()
            return str(error)
        finally:
            self.ending = False
        return ""

    def forget(self) -> None:
        self._end()


class Deployment:
    """The servers under test, with their store and proxies. Use as an asynchronous context manager.

    fronts, http_fronts: what clients connect to, one for each server: for gRPC and for WebSockets. backs: proxies
    between each server and the store, or before each node of a Redis Cluster; none for SQLite or with sentinels.
    """

    def __init__(
        self, bundles: Sequence[Path], store: AnyStore, replicas: int, workers: int = 1, wait_replicas: int = 0
    ) -> None:
        """workers: processes of each server, on one port. wait_replicas: the servers' --wait-replicas."""
        self.store = store
        self.servers: list[Server] = []
        self.fronts: list[Proxy] = []
        self.http_fronts: list[Proxy] = []
        self.backs: list[Proxy] = []
        self.crashes: list[str] = []
        self.refused_starts: list[RefusedStart] = []
        self._bundles = bundles
        self._replicas = replicas
        self.workers = workers
        self.wait_replicas = wait_replicas
        self._options = [*OPTIONS, *(["--wait-replicas", str(wait_replicas)] if wait_replicas else [])]

    @property
    def targets(self) -> list[str]:
        return [f"127.0.0.1:{front.port}" for front in self.fronts]

    @property
    def websockets(self) -> list[str]:
        return [f"ws://127.0.0.1:{front.port}" for front in self.http_fronts]

    async def start(self) -> None:
        store = self.store
        if isinstance(store, RedisPair):
            await store.start()
            await asyncio.to_thread(store.follow)
            await asyncio.to_thread(store.wait_until_in_step)
        if isinstance(store, RedisClusterStore):
            self.backs = store.proxies
            await store.start_proxies()
            await asyncio.to_thread(store.start)
        for _ in range(self._replicas):
            url = await self._way_to(store)
            server = Server(self._bundles, url, self._options, workers=self.workers, http=True)
            self.servers.append(server)
            await self.restart(server)
            self.fronts.append(await self._front(server.port))
            self.http_fronts.append(await self._front(int(server.http_url.rpartition(":")[2])))

    async def _front(self, port: int) -> Proxy:
        front = Proxy(("127.0.0.1", port))
        await front.start()
        return front

    async def _way_to(self, store: AnyStore) -> str:
        """Returns the URL of the store for one more server."""
        if isinstance(store, SqliteStore):
            return f"sqlite:{store.path}"
        if isinstance(store, RedisClusterStore | RedisSentinelStore):
            return store.url
        back = Proxy(store.address)
        await back.start()
        self.backs.append(back)
        return f"redis://127.0.0.1:{back.port}/0"

    async def restart(self, server: Server) -> None:
        """Starts the server, and retries while its store is not available, as a supervisor would."""
        for _ in range(RESTART_TRIES):
            began = time.monotonic()
            why = await asyncio.to_thread(server.comes_back)
            if not why:
                return
            self.refused_starts.append(RefusedStart(self.servers.index(server), began, time.monotonic(), why[-4000:]))
            await asyncio.sleep(0.2)
        raise RuntimeError(f"the server did not restart:\n{server.output()[-4000:]}")

    def look_for_crashes(self) -> None:
        """Records servers that ended although nobody ended them."""
        for index, server in enumerate(self.servers):
            status = server.ended()
            if status is not None and not server.ending:
                self.crashes.append(
                    f"server {index} ended unexpectedly with status {status}:\n{server.output()[-4000:]}"
                )
                server.forget()

    async def heal(self) -> None:
        """Ends every disturbance of the network, and starts every server that is down."""
        for proxy in self._proxies:
            proxy.clear()
        for server in self.servers:
            if not server.is_running:
                await self.restart(server)
        if isinstance(self.store, RedisSentinelStore):
            await asyncio.to_thread(self.store.wait_until_whole)

    @property
    def _proxies(self) -> list[Proxy]:
        return [*self.fronts, *self.http_fronts, *self.backs]

    def tell(self, history: History) -> None:
        """Adds to the history what happened to the servers and their store since the last call."""
        self.look_for_crashes()
        history.crashes += [*self.crashes, *self._complaints()]
        history.refused_starts += self.refused_starts
        self.crashes.clear()
        self.refused_starts.clear()
        if isinstance(self.store, RedisSentinelStore):
            history.faults += self.store.unrest()
            self.store.watch()

    def _complaints(self) -> list[str]:
        """Returns what servers logged that no fault explains: errors with a traceback."""
        found = []
        for index, server in enumerate(self.servers):
            text = server.output()
            server.lines.clear()
            for match in re.finditer(
                r"^.*(Traceback \(most recent call last\)|CRITICAL|internal error).*$", text, re.M
            ):
                lines = text[match.start() :].splitlines()
                found.append(f"server {index}:\n" + "\n".join(lines[:40]))
        return found

    async def close(self) -> None:
        for server in self.servers:
            server.forget()
        for proxy in self._proxies:
            await proxy.close()
        if isinstance(self.store, RedisPair):
            await self.store.link.close()

    async def __aenter__(self) -> Deployment:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
