"""When to refresh a record's TTL: not at every use, because the write costs as much as the use."""

from __future__ import annotations

REFRESH_BELOW = 0.9  # of the TTL: so an idle record may expire up to a tenth early
MAX_TTL_MS = 10**14  # about 3000 years: keeps instants within 64 bits, and exact in a double


def next_expiry_ms(now_ms: int, ttl_ms: int, expires_ms: int) -> int:
    """Returns when a record used at `now_ms` expires: still at `expires_ms`, if that leaves 90 to 100 % of the TTL.

    All times are milliseconds of one clock; 0 means "never", both as a TTL and as an instant.
    """
    if ttl_ms == 0:
        return 0
    ttl_ms = min(ttl_ms, MAX_TTL_MS)
    left_ms = expires_ms - now_ms
    return expires_ms if REFRESH_BELOW * ttl_ms <= left_ms <= ttl_ms else now_ms + ttl_ms
