"""When a record's time to live is written anew: not at every use, for that costs as much as the use."""

from __future__ import annotations

REFRESH_BELOW = 0.9  # of the TTL: an idle record may be forgotten this much early
MAX_TTL_MS = 10**14  # about 3000 years: keeps instants within 64 bits, and exact in a double


def bounded_ttl_ms(ttl_ms: int) -> int:
    """`ttl_ms` as the stores keep it; 0 stays "never"."""
    return min(ttl_ms, MAX_TTL_MS)


def next_expiry_ms(now_ms: int, ttl_ms: int, expires_ms: int) -> int:
    """The instant to keep for a record used at `now_ms`: `expires_ms` itself where that is good enough still.

    All in milliseconds of one clock; 0 is "never", both as a TTL and as an instant.
    """
    if ttl_ms == 0:
        return 0
    ttl_ms = bounded_ttl_ms(ttl_ms)
    left_ms = expires_ms - now_ms
    return expires_ms if REFRESH_BELOW * ttl_ms <= left_ms <= ttl_ms else now_ms + ttl_ms
