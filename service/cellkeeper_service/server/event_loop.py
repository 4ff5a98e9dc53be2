"""The server's event loop, and how a worker's loop ends with its parent."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop, or on asyncio's own loop if uvloop is not installed. See docs/adr/014-uvloop.md."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def end_with_parent(end: Callable[[], None]) -> None:
    """Calls `end` in a worker when its parent process ends, for whatever reason.

    The worker's stdin, on which nothing is ever sent, reaches its end then. Further output is discarded.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(stdin)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        end()

    loop.add_reader(stdin, ended)
