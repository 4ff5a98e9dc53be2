"""The wall clock, as records keep it."""

from __future__ import annotations

import time

MAX_UNIX_MS = 2**49 - 1  # in the year 19809
LONGEST_TTL_MS = 10 * 366 * 24 * 3600 * 1000  # that a client or a setting may ask for: ten years


def unix_ms() -> int:
    """Milliseconds since 1970, from 0 to MAX_UNIX_MS: a record holds no time outside of that, however wrong the
    machine's clock is."""
    return min(max(time.time_ns() // 1_000_000, 0), MAX_UNIX_MS)
