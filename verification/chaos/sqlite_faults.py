"""Faults of SQLite's file and its disk."""

from __future__ import annotations

import asyncio
import random
import resource
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .deployment import Server
from .fault_kind import FaultKind, Wait
from .stores import SqliteStore


class SqliteFaults:
    """Injects faults of SQLite. servers: those to keep from writing, one at a time."""

    def __init__(self, store: SqliteStore, servers: Sequence[Server], wait: Wait, draw: random.Random) -> None:
        self._store = store
        self._servers = servers
        self._wait = wait
        self._draw = draw

    def kinds(self) -> Iterator[FaultKind]:
        yield FaultKind("disk_locked", "disk", 1.5, self._disk_locked)
        yield FaultKind("file_limit", "disk", 1.5, self._file_limit)
        if self._store.disk.limited:
            yield FaultKind("disk_full", "disk", 1.5, self._disk_full)

    async def _disk_locked(self, index: int) -> None:
        """Holds the file's write lock for a while, like another process that writes."""
        await asyncio.to_thread(self._hold_lock, self._draw.uniform(0.1, 1.5))

    def _hold_lock(self, seconds: float) -> None:
        other = sqlite3.connect(self._store.path, timeout=5.0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)  # the fault itself
            other.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return  # the disk is full, or others kept writing: no lock, no fault
        finally:
            other.close()

    async def _file_limit(self, index: int) -> None:
        """Makes the system refuse one process to write beyond the first bytes of any file."""
        pids = self._draw.choice(self._servers).pids_if_running
        if not pids:
            return
        pid = self._draw.choice(pids)
        with _gone_is_fine():
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, hard))
            await self._wait(0.1, 1.0)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    async def _disk_full(self, index: int) -> None:
        disk = self._store.disk
        await asyncio.to_thread(disk.fill)
        await self._wait(0.1, 1.5)
        disk.free()


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """Ignores that a process was killed meanwhile, which needs no healing."""
    try:
        yield
    except ProcessLookupError:
        return
