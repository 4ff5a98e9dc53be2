"""Power cuts: SIGKILL of a Redis server whose append-only file is then cut at any byte after what it had to keep."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from testing.redis_server import RedisServer

from .aof import cut, newest_file
from .fault_kind import Wait
from .history import PowerCut
from .proxy import Proxy

UNSYNCED_S = 1.0  # what a power cut may take with "everysec"
LOOK_S = 0.05
WITHHELD_S = (0.02, 0.35)  # servers wait for 0.5 s


class SyncedEverysec:
    """Power of a server with `appendfsync everysec`, which loses what it wrote within the last UNSYNCED_S.

    Its file is watched, so that its size at that time is known. Call `start` before use and `close` after it.
    """

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=200)  # the file's sizes, by time
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    async def cut(self, draw: random.Random) -> PowerCut:
        return await asyncio.to_thread(self.cut_now, draw)

    def cut_now(self, draw: random.Random) -> PowerCut:
        seen = self.seen_at(time.monotonic() - UNSYNCED_S)
        self.server.kill()
        done = _cut_behind(self.server.folder, seen, draw)
        self._sizes.clear()  # a power cut loses nothing that an earlier one left
        self._sizes.append((float("-inf"), newest_file(self.server.folder), done.kept_bytes))
        return done

    def seen_at(self, at: float) -> tuple[Path, int]:
        """Returns the file at that time (of the monotonic clock), and its size in bytes."""
        return next((path, size) for seen, path, size in reversed(self._sizes.copy()) if seen <= at)

    def start(self) -> None:
        self._sizes.append((float("-inf"), *_look_at(self.server.folder)))
        self._watch.start()

    def close(self) -> None:
        self._ended.set()
        if self._watch.is_alive():
            self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            if self.server.is_running:
                self._sizes.append((time.monotonic(), *_look_at(self.server.folder)))


class SyncedAlways:
    """Power of a server with `appendfsync always`, which answers once it has synced.

    So that there is something to lose, its answers are held back for a while: what it writes meanwhile was not
    acknowledged to anybody, as if the disk had been slower. proxies: all connections through which the server's data
    can be observed.
    """

    def __init__(self, server: RedisServer, proxies: Sequence[Proxy], wait: Wait) -> None:
        self.server = server
        self._proxies = proxies
        self._wait = wait

    async def cut(self, draw: random.Random) -> PowerCut:
        for proxy in self._proxies:
            proxy.hold_replies = True
        try:
            seen = _look_at(self.server.folder)  # after the last answer was sent
            await self._wait(*WITHHELD_S)
            await asyncio.to_thread(self.server.kill)
            return await asyncio.to_thread(_cut_behind, self.server.folder, seen, draw)
        finally:
            for proxy in self._proxies:
                proxy.cut()  # held replies are never delivered
                proxy.hold_replies = False


class Unheard:
    """Power of a replica, which answers nobody.

    Anything that it has written since the cut began may be lost.
    """

    def __init__(self, server: RedisServer, wait: Wait) -> None:
        self.server = server
        self._wait = wait

    async def cut(self, draw: random.Random) -> PowerCut:
        seen = _look_at(self.server.folder)
        await self._wait(*WITHHELD_S)
        await asyncio.to_thread(self.server.kill)
        return await asyncio.to_thread(_cut_behind, self.server.folder, seen, draw)


AnyPower = SyncedEverysec | SyncedAlways | Unheard


def _look_at(folder: Path) -> tuple[Path, int]:
    """Returns the file that is appended to, and its size in bytes."""
    path = newest_file(folder)
    return path, path.stat().st_size


def _cut_behind(folder: Path, seen: tuple[Path, int], draw: random.Random) -> PowerCut:
    """Cuts the file of a stopped server at any byte after its size when it was seen.

    All of it may be lost if the file has been rewritten since, and was another file then.
    """
    path, size = _look_at(folder)
    synced = min(seen[1], size) if seen[0] == path else 0
    at = draw.randint(synced, size)
    return PowerCut(time.monotonic(), synced, size, at, cut(path, at))
