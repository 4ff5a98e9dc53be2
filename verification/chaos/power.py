"""Power cuts: SIGKILL of a Redis server, and its append-only file ends at any byte behind what it had to keep."""

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
from .history import PowerCut
from .proxy import Proxy
from .weather import Wait

UNSYNCED_S = 1.0  # what "everysec" leaves to a power cut
LOOK_S = 0.05
WITHHELD_S = (0.02, 0.35)  # servers wait for 0.5 s


class SyncedEverysec:
    """The power of a server with `appendfsync everysec`: it loses what it wrote within the last UNSYNCED_S. Its file
    is watched, so that its size of then is known. `start` before use, `close` after it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=200)  # of the file, by time
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    async def cut(self, draw: random.Random) -> PowerCut:
        return await asyncio.to_thread(self.cut_now, draw)

    def cut_now(self, draw: random.Random) -> PowerCut:
        seen = self.seen_at(time.monotonic() - UNSYNCED_S)
        self.server.kill()
        done = _cut_behind(self.server.folder, seen, draw)
        self._sizes.clear()  # a power cut loses nothing of what an earlier one left
        self._sizes.append((float("-inf"), newest_file(self.server.folder), done.kept_bytes))
        return done

    def seen_at(self, at: float) -> tuple[Path, int]:
        """Which file it was at that time, by the monotonic clock, and its bytes."""
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
    """The power of a server with `appendfsync always`, which answers once it has synced. So that there is something
    to lose, its answers are withheld for a while: what is written meanwhile was not acknowledged to anybody, and is
    as if the disk had been slower. proxies: all ways on which anybody is told what the server holds."""

    def __init__(self, server: RedisServer, proxies: Sequence[Proxy], wait: Wait) -> None:
        self.server = server
        self._proxies = proxies
        self._wait = wait

    async def cut(self, draw: random.Random) -> PowerCut:
        for proxy in self._proxies:
            proxy.hold_replies = True
        try:
            seen = _look_at(self.server.folder)  # after the last answer went out
            await self._wait(*WITHHELD_S)
            await asyncio.to_thread(self.server.kill)
            return await asyncio.to_thread(_cut_behind, self.server.folder, seen, draw)
        finally:
            for proxy in self._proxies:
                proxy.cut()  # what was withheld is never given
                proxy.hold_replies = False


class Unheard:
    """The power of a replica: nobody is answered by it, and whatever it has written may be missing from what it had
    when one began to look."""

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
    """The file that is appended to, and its bytes."""
    path = newest_file(folder)
    return path, path.stat().st_size


def _cut_behind(folder: Path, seen: tuple[Path, int], draw: random.Random) -> PowerCut:
    """Cuts the file of a server that is not running at any byte behind what it had when it was seen; all of it may go
    if it was another file then, which has been rewritten."""
    path, size = _look_at(folder)
    synced = min(seen[1], size) if seen[0] == path else 0
    at = draw.randint(synced, size)
    return PowerCut(time.monotonic(), synced, size, at, cut(path, at))
