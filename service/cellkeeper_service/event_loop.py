"""The event loop that the server runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
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
