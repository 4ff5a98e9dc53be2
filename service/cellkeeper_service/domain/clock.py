"""The wall clock, in the form that records keep."""

from __future__ import annotations

import time

MAX_UNIX_MS = 2**49 - 1  # in the year 19809
LONGEST_TTL_MS = 10 * 366 * 24 * 3600 * 1000  # the longest that a client or a setting may ask for: ten years


def unix_ms() -> int:
    """Returns milliseconds since 1970, clamped to 0..MAX_UNIX_MS: however wrong the machine's clock is, records hold
    no other times."""
    return min(max(time.time_ns() // 1_000_000, 0), MAX_UNIX_MS)
