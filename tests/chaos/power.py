"""Power cuts: SIGKILL of a Redis server, and its append-only file ends at any byte behind what it had to keep."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tests.redis_server import RedisServer

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
        self._sizes: deque[tuple[float, int]] = deque(maxlen=200)  # of the file, by time
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    async def cut(self, draw: random.Random) -> PowerCut:
        return await asyncio.to_thread(self.cut_now, draw)

    def cut_now(self, draw: random.Random) -> PowerCut:
        """Raises RuntimeError where nobody looked at the file before what it may lose was written."""
        kept = self.size_at(time.monotonic() - UNSYNCED_S)
        self.server.kill()
        if kept is None:
            raise RuntimeError(f"the file was not looked at {UNSYNCED_S} s ago")
        done = _cut_behind(self.server.folder, kept, draw)
        self._sizes.clear()  # a power cut loses nothing of what an earlier one left
        self._sizes.append((float("-inf"), done.kept_bytes))
        return done

    def size_at(self, at: float) -> int | None:
        """Bytes of the file at that time, by the monotonic clock; None: it was not looked at yet."""
        return next((size for seen, size in reversed(self._sizes.copy()) if seen <= at), None)

    def start(self) -> None:
        self._sizes.append((float("-inf"), newest_file(self.server.folder).stat().st_size))
        self._watch.start()

    def close(self) -> None:
        self._ended.set()
        if self._watch.is_alive():
            self._watch.join()

    def _look(self) -> None:
        path = newest_file(self.server.folder)
        while not self._ended.wait(LOOK_S):
            if self.server.is_running:
                self._sizes.append((time.monotonic(), path.stat().st_size))


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
            kept = newest_file(self.server.folder).stat().st_size  # looked at after the last answer went out
            await self._wait(*WITHHELD_S)
            await asyncio.to_thread(self.server.kill)
            return await asyncio.to_thread(_cut_behind, self.server.folder, kept, draw)
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
        kept = newest_file(self.server.folder).stat().st_size
        await self._wait(*WITHHELD_S)
        await asyncio.to_thread(self.server.kill)
        return await asyncio.to_thread(_cut_behind, self.server.folder, kept, draw)


AnyPower = SyncedEverysec | SyncedAlways | Unheard


def _cut_behind(folder: Path, kept_bytes: int, draw: random.Random) -> PowerCut:
    """Cuts the file of a server that is not running at any byte from kept_bytes on."""
    path = newest_file(folder)
    size = path.stat().st_size
    at = draw.randint(min(kept_bytes, size), size)
    return PowerCut(time.monotonic(), min(kept_bytes, size), size, at, cut(path, at))
