"""Real Redis servers watched by real sentinels, for tests: a primary and its replicas, with failover by vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Any

import redis

from testing.redis_server import RedisServer, redis_program, wait_until

SERVICE = "records"
SENTINELS = 3
QUORUM = 2
QUICK_PERIODS_MS = {"info-period": 500, "publish-period": 200, "ask-period": 200}
"""How often a sentinel asks the servers for their state (default: every ten seconds), publishes what it sees (two), and
asks other sentinels whether a server is down (one). A replica whose last answer is older than three of the first
periods is not eligible."""


class SentinelProcess(RedisServer):
    """One sentinel. Its folder keeps its knowledge across `kill` and `restart`."""

    def __init__(self, periods_ms: Mapping[str, int]) -> None:
        super().__init__()
        self._periods_ms = periods_ms
        self._watched: tuple[int, int] = 0, 0

    def watch(self, primary_port: int, down_after_ms: int) -> None:
        """Starts on a free port."""
        self._watched = primary_port, down_after_ms
        self.start()

    def _configure(self) -> None:
        primary_port, down_after_ms = self._watched
        lines = [
            *(f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"),
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [redis_program(), str(self.folder / "sentinel.conf"), "--sentinel"]

    def _set_up(self, client: Any) -> None:
        if self._periods_ms:
            client.execute_command("SENTINEL", "DEBUG", *chain.from_iterable(self._periods_ms.items()))


class RedisSentinels:
    """Redis servers and sentinels; use as a context manager. servers: the first starts as the primary, with replicas.

    down_after_ms: how long a server may be silent before a sentinel considers it down. options: for the servers, one
    each. quick: the sentinels check more often than by default. If servers are slow or silent on purpose, they then
    consider too many of them lost.

        with RedisSentinels() as world:
            store = open_store(world.url)
            world.servers[0].kill()
            world.wait_for_switch(away_from=0)
    """

    def __init__(
        self,
        replicas: int = 1,
        *,
        down_after_ms: int = 1000,
        options: Sequence[Mapping[str, str]] = (),
        quick: bool = False,
    ) -> None:
        # Without the delay, a replica is in sync again at once.
        shared = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
        self.servers = [RedisServer({**shared, **own}) for own in options or [{}] * (1 + replicas)]
        self.sentinels = [SentinelProcess(QUICK_PERIODS_MS if quick else {}) for _ in range(SENTINELS)]
        self.down_after_ms = down_after_ms

    def ports(self) -> list[int]:
        """Returns the servers' ports, by number."""
        return [server.port for server in self.servers]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    def named(self, sentinel: int = 0) -> int:
        """Returns the number of the server that a sentinel names as the primary."""
        with self.sentinels[sentinel].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.ports().index(int(port))

    def primary(self) -> int:
        """Returns the number of the server that all running sentinels name. Raises LookupError while they disagree,
        or none runs."""
        running = [number for number, sentinel in enumerate(self.sentinels) if sentinel.is_running]
        named = {self.named(number) for number in running}
        if len(named) != 1:
            raise LookupError(f"the sentinels name {named}")
        return named.pop()

    def agreed_primary(self) -> int:
        """Waits until a sentinel runs and all that run agree on the primary, and returns its number."""
        found: list[int] = []

        def agree() -> bool:
            found.append(self.primary())
            return True

        wait_until(agree)
        return found[0]

    def fail_over(self) -> None:
        """Makes a replica take over although the primary is alive.

        It asks until that has happened: a sentinel refuses while no replica is eligible, and gives a failover up if the
        replica is slow to take over, or the sentinel is killed.
        """
        before = self.agreed_primary()

        def is_over() -> bool:
            if self.primary() != before:
                return True
            try:
                with self.sentinels[0].client() as client:
                    client.execute_command("SENTINEL", "FAILOVER", SERVICE)
            except redis.ResponseError:  # no replica is eligible yet, or a failover is in progress
                pass
            return False

        wait_until(is_over)

    def wait_for_switch(self, *, away_from: int) -> None:
        """Waits until all running sentinels name another primary."""
        wait_until(lambda: self.primary() != away_from)

    def wait_until_whole(self, *, helping: bool = True) -> None:
        """Waits until all servers run, the replicas have caught up with the one primary, and every sentinel sees that.

        helping: tells an old primary to replicate, which the sentinels would do only after ten seconds. Use it only
        while they elect no other.
        """

        def whole() -> bool:
            if helping:
                self._demote()
            self.check_whole()
            return True

        try:
            wait_until(whole)
        except TimeoutError as error:
            logs = "\n".join(f"sentinel {number}:\n{sentinel.log()}" for number, sentinel in enumerate(self.sentinels))
            raise TimeoutError(f"{error}\n{logs}") from error

    def empty(self) -> None:
        """Deletes every key."""
        with self.servers[self.primary()].client() as client:
            client.flushall()

    def _demote(self) -> None:
        primary = self.primary()
        for number, server in enumerate(self.servers):
            if number != primary:
                with server.client() as client:
                    if client.info("replication")["role"] == "master":
                        client.execute_command("REPLICAOF", "127.0.0.1", self.ports()[primary])

    def check_whole(self) -> None:
        """Raises LookupError or RedisError, which say what is missing, unless everything is well."""
        primary = self.primary()
        with self.servers[primary].client() as client:
            written = client.info("replication")["master_repl_offset"]
        for number, server in enumerate(self.servers):
            with server.client() as client:
                info = client.info()
            expected: tuple[object, ...] = ("slave", "up", self.ports()[primary])
            found: tuple[object, ...] = (info["role"], info.get("master_link_status"), info.get("master_port"))
            if number == primary:
                expected, found = ("master",), found[:1]
            if found != expected:
                raise LookupError(f"server {number} is {found}, expected {expected}")
            if number != primary and info["slave_repl_offset"] < written:
                raise LookupError(f"server {number} lacks {written - info['slave_repl_offset']} bytes of the primary's")
            if info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
                raise LookupError(f"server {number} has not everything in its file yet")
        for number, sentinel in enumerate(self.sentinels):
            with sentinel.client() as client:
                (fields,) = client.sentinel_masters().values()
                replicas = [(replica["flags"], replica["role-reported"]) for replica in client.sentinel_slaves(SERVICE)]
            told = (SENTINELS - 1, "master", [("slave", "slave")] * (len(self.servers) - 1))
            sees = (fields["num-other-sentinels"], fields["flags"], replicas)
            if sees != told:
                raise LookupError(f"sentinel {number} sees {sees}, expected {told}")

    def __enter__(self) -> RedisSentinels:
        try:
            for server in self.servers:
                server.start()
            first = self.ports()[0]
            for replica in self.servers[1:]:
                with replica.client() as client:
                    client.execute_command("REPLICAOF", "127.0.0.1", first)
            for sentinel in self.sentinels:
                sentinel.watch(first, self.down_after_ms)
            self.wait_until_whole()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self.sentinels, *self.servers):
            server.__exit__(kind, error, trace)
