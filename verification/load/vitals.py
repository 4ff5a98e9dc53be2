"""The resources of a process and its store at one moment, read from outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

LAZY_THREADS = 8  # the store's seven and the engine's one start on first use
LAZY_FDS = 24  # each of the store's threads then opens a connection; SQLite's is database, log and shared memory
MIB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """The resources at one moment.

    at: seconds since the load started. rss_bytes, fds, threads: of the server. store_bytes: the store's size.
    queue_depth, hot: unanswered requests, and sessions in a slot, from the server's metrics.
    """

    at: float
    rss_bytes: int
    fds: int
    threads: int
    store_bytes: int
    queue_depth: int
    hot: int


@dataclass(frozen=True)
class Flatness:
    """A series' median over the last third of a run, compared with that over the second third."""

    name: str
    middle: float
    last: float
    allowed: float

    @property
    def grew(self) -> bool:
        return self.last - self.middle > self.allowed


def rss_bytes(pid: int) -> int:
    return 1024 * _status(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    return 1024 * _status(pid, "VmHWM")


def forget_peak_rss(pid: int) -> None:
    """Restarts the measurement of `peak_rss_bytes`: loading a model may take more memory than serving it."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def thread_count(pid: int) -> int:
    return _status(pid, "Threads")


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Returns the processor time used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def folder_bytes(folder: Path) -> int:
    """Returns the size of the files in a folder, including a write-ahead log; a file that disappears counts as 0."""
    return sum(_size(path) for path in folder.iterdir())


def flatness(
    name: str, samples: Sequence[Vitals], value: Callable[[Vitals], float], share: float, slack: float
) -> Flatness:
    """Compares the thirds of a run.

    The allowed growth is `share` of the second third's median, plus `slack` (the noise of small processes).
    """
    values = [value(sample) for sample in samples]
    third = max(len(values) // 3, 1)
    middle, last = median(values[third : 2 * third] or values), median(values[-third:])
    return Flatness(name, middle, last, share * middle + slack)


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(f"/proc/{pid}/status has no {name}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
