"""Redis servers that sentinels watch, as the servers' store.

The sentinels decide when which server takes over. What they do is observed all the time, as it may cost commits. There
are no proxies: these run in the harness's own event loop, which is too busy for the sentinels' patience.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType

import redis

from testing.redis_sentinel import SENTINELS, RedisSentinels

from .history import Fault

SERVERS = 2
DOWN_AFTER_MS = 1000
LOOK_S = 0.1


class RedisSentinelStore:
    """A primary, a replica, three sentinels."""

    fsync = "always"
    sentinels = SENTINELS

    def __init__(self) -> None:
        self.world = RedisSentinels(down_after_ms=DOWN_AFTER_MS, options=[{"appendfsync": self.fsync}] * SERVERS)
        self._running = ExitStack()
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None
        self._named = 0  # the primary when the watch ended
        self._unrest: list[Fault] = []

    @property
    def url(self) -> str:
        return self.world.url

    def wait_until_whole(self) -> None:
        self.world.wait_until_whole(helping=False)

    def watch(self) -> None:
        """Starts to watch for unrest."""
        self._unrest = []
        self._ended.clear()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def unrest(self) -> list[Fault]:
        """Stops the watch and returns the periods in which something was wrong, whatever the cause.

        They are "switch" if another server became the primary, even temporarily, which may have lost the last commits,
        and "unrest" if not.
        """
        self._ended.set()
        if self._watch is not None:
            self._watch.join()
        return self._unrest

    def _look(self) -> None:
        primary, seen = self._named, time.monotonic()  # when all was well for the last time
        well, switched = True, False
        while not self._ended.wait(LOOK_S):
            now, before = time.monotonic(), well
            switched = switched or self._is_another_named(primary)
            well = self._is_well()
            if well:
                after = self._primary(primary)
                switched = switched or after != primary
                if not before or switched:
                    kind = "switch" if switched else "unrest"
                    self._unrest.append(Fault(kind, "store", seen, time.monotonic(), switched, True))
                primary, seen, switched = after, now, False
        if not well:
            self._unrest.append(Fault("switch", "store", seen, float("inf"), True, True))
        self._named = primary

    def _is_well(self) -> bool:
        try:
            self.world.check_whole()
        except (redis.RedisError, LookupError):
            return False
        return True

    def _is_another_named(self, primary: int) -> bool:
        """Returns True if any sentinel names another primary: a second switch may lead back to the first server."""

        def names_another(number: int) -> bool:
            try:
                return self.world.named(number) != primary
            except (redis.RedisError, OSError):  # it does not answer
                return False

        running = [number for number, sentinel in enumerate(self.world.sentinels) if sentinel.is_running]
        return any(map(names_another, running))

    def _primary(self, known: int) -> int:
        try:
            return self.world.primary()
        except (redis.RedisError, LookupError):  # it has just changed; the next look will see it
            return known

    def __enter__(self) -> RedisSentinelStore:
        self._running.enter_context(self.world)
        self.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unrest()
        self._running.__exit__(kind, error, trace)
