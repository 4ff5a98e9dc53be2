"""The event loop that the server runs on, and what ends it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end on uvloop, or on asyncio's own loop where there is none for this platform. See
    docs/adr/014-uvloop.md."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def end_with_parent(end: Callable[[], None]) -> None:
    """For a worker: however the process that started it ends, its stdin, on which nothing ever comes, ends then. What
    the worker still has to say goes nowhere."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(stdin)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        end()

    loop.add_reader(stdin, ended)
