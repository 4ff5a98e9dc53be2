"""Latencies as counts in buckets, so that those of several rounds can be put together, and few enough for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, log

GROWTH = 1.01
"""The ratio of a bucket's bounds: a percentile read from buckets is at most 1 % too high."""
LEAST_BEYOND = 10
"""A percentile needs so many latencies above it. From fewer, it is the latency of a chance message or two."""

Counts = Mapping[str, int]
"""How many latencies each bucket has. Bucket n holds those above GROWTH**(n - 1) and up to GROWTH**n microseconds."""


def counted(seconds: Sequence[float]) -> dict[str, int]:
    """Returns the counts of these latencies, by bucket."""
    buckets = Counter(ceil(log(max(1e6 * one, 1.0)) / log(GROWTH)) for one in seconds)
    return {str(bucket): buckets[bucket] for bucket in sorted(buckets)}


def percentile_ms(rounds: Iterable[Counts], percent: float) -> float | None:
    """Returns a percentile of the latencies of all rounds together, in milliseconds.

    Returns None if fewer than LEAST_BEYOND of them are above it.
    """
    together: Counter[int] = Counter()
    for counts in rounds:
        together.update({int(bucket): count for bucket, count in counts.items()})
    total = together.total()
    below = ceil(total * percent / 100.0)
    if total - below < LEAST_BEYOND:
        return None
    for bucket in sorted(together):
        below -= together[bucket]
        if below <= 0:
            return float(GROWTH**bucket / 1e3)
    return None
