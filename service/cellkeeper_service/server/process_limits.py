"""Whether the limits on the process leave the address space and the threads that a server needs.

gRPC aborts, or waits for ever, where it cannot start a thread, and a library that cannot be mapped ends in a traceback.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from cellkeeper_service.errors import StartError

OWN_MIB = 320
"""Of address space: libraries and threads, without the model. Most of it is never touched."""
OWN_THREADS = 8
MOST_CORE_THREADS = 16
"""gRPC starts a thread for each core, up to this many."""
NO_THREAD = "can't start new thread"
"""The text of Python's RuntimeError, which has no class of its own."""
ADVICE = (
    "raise the limits on address space (ulimit -v) and on processes (ulimit -u, TasksMax= of systemd, --pids-limit of "
    "docker)"
)
M_ARENA_MAX = -8
"""A parameter of mallopt, from glibc's malloc.h."""


def save_address_space() -> None:
    """Lets all threads allocate from one heap if address space is limited. Call it before there are threads.

    Otherwise malloc reserves 64 MiB for each thread that still finds them, and what is left for the stacks of the
    others depends on chance.
    """
    with suppress(ImportError, AttributeError):  # Windows; no libffi; not glibc, whose malloc alone reserves so much
        import ctypes
        import resource

        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def check_address_space() -> None:
    """Raises StartError if libraries would find too little. Call it before they are imported."""
    try:  # read-only and private: it takes no memory, even where the system does not overcommit
        mmap.mmap(-1, OWN_MIB << 20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ).close()
    except (OSError, MemoryError) as error:
        raise StartError(
            f"memory: cannot reserve {OWN_MIB} MiB of address space, which the server needs besides its model "
            f"({error}); raise or remove the limit (ulimit -v), and bound the memory itself: MemoryMax= of systemd, "
            "--memory of docker"
        ) from error


def server_threads(store_threads: int) -> int:
    """Returns how many threads a server may start once its models are loaded."""
    return OWN_THREADS + min(os.cpu_count() or 1, MOST_CORE_THREADS) + store_threads


def check_threads(count: int) -> None:
    """Raises StartError if the process cannot start so many threads, all at once."""
    over = Event()
    started: list[Thread] = []
    try:
        for _ in range(count):
            thread = Thread(target=over.wait, name="probe", daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise StartError(f"threads: cannot start {count} ({error} after {len(started)}); {ADVICE}") from error
    finally:
        over.set()
        for thread in started:
            thread.join()


@contextmanager
def naming_limits() -> Iterator[None]:
    """Raises StartError for a single thread that the limits do not allow."""
    try:
        yield
    except RuntimeError as error:
        if NO_THREAD not in str(error):
            raise
        raise StartError(f"threads: cannot start another ({error}); {ADVICE}") from error
