"""Ends a run that takes far too much memory, before it takes down the machine, and shows what filled the memory."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import resource
import threading
from _thread import interrupt_main
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

MOST_BYTES = 3 << 30
BLOCKED_BYTES = 4 << 30  # with an event loop that is too busy to notice MOST_BYTES
DENIED_BYTES = 5 << 30  # enforced by the system, when a thread holds the interpreter's lock so that no other can notice
LOOK_S = 0.5
STDERR = 2

Result = TypeVar("Result")


async def bounded(work: Coroutine[Any, Any, Result]) -> Result:
    """Returns or raises what `work` does. Raises RuntimeError once more than MOST_BYTES are resident."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_S)
            if resident_bytes() > MOST_BYTES:
                raise RuntimeError(f"more than {MOST_BYTES >> 20} MiB of memory:\n{what_is_there()}")
    finally:
        task.cancel()
        await asyncio.wait([task])
    return task.result()


@contextmanager
def watched() -> Iterator[None]:
    """Watches the memory from another thread, in case the event loop is stuck.

    Past BLOCKED_BYTES of resident memory, shows where every thread is, interrupts the main thread and raises
    RuntimeError. Past DENIED_BYTES raises MemoryError, or aborts if it is not Python that wants more.
    """
    over, passed = threading.Event(), threading.Event()
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)

    def look() -> None:
        while not over.wait(LOOK_S):
            if resident_bytes() > BLOCKED_BYTES:
                if not passed.is_set():
                    faulthandler.dump_traceback(file=STDERR, all_threads=True)
                passed.set()
                interrupt_main()  # asyncio treats the first interrupt as a request, and raises at the second

    thread = threading.Thread(target=look, daemon=True)
    thread.start()  # before the limit: a thread that is denied memory as it starts is waited for without end
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (DENIED_BYTES, hard))
        yield
    except KeyboardInterrupt:
        if not passed.is_set():
            raise
        raise RuntimeError(f"more than {BLOCKED_BYTES >> 20} MiB of memory; see where the threads were") from None
    finally:
        over.set()
        thread.join()
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def unfinished() -> str:
    """Returns the clients whose last step is awaited, and the places where tasks wait."""
    names = sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("last step"))
    return f"{', '.join(names)}\n{what_is_there()}"


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def what_is_there() -> str:
    """Returns the most frequent types of objects, and where tasks wait."""
    types = Counter(type(each).__qualname__ for each in gc.get_objects())
    places = Counter(
        f"{frame.f_code.co_filename}:{frame.f_lineno}" for task in asyncio.all_tasks() for frame in task.get_stack()
    )
    lines = [f"{count:>10} {name}" for name, count in types.most_common(15)]
    return "\n".join([*lines, *(f"{count:>10} tasks at {place}" for place, count in places.most_common(100))])
