"""`python -m bench.buckets PRIMARIES`: how evenly sessions are spread over the primaries of a Redis Cluster.

All keys of a bucket are in one slot, so the primaries share buckets, not 16,384 slots. Prints how many buckets each
primary has if slots are cut into equal ranges, as redis-cli does, and ranges that distribute the buckets evenly.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.store.redis.keys import BUCKETS, bucket_of, redis_key
from redis.crc import key_slot

SLOTS = 16384


def bucket_slots() -> list[int]:
    """Returns the slot of each bucket, ascending."""
    slots: dict[int, int] = {}
    number = 0
    while len(slots) < BUCKETS:
        name = redis_key(SessionKey("", "any", str(number)))
        slots[bucket_of(name)] = key_slot(name)
        number += 1
    return sorted(slots.values())


def equal_ranges(primaries: int) -> list[range]:
    """Returns ranges as `redis-cli --cluster create` cuts them."""
    cuts = [round(number * SLOTS / primaries) for number in range(primaries + 1)]
    return [range(first, end) for first, end in pairwise(cuts)]


def even_ranges(primaries: int) -> list[range]:
    """Returns ranges whose numbers of buckets differ by at most one. ValueError: more primaries than buckets."""
    if not 1 <= primaries <= BUCKETS:
        raise ValueError(f"primaries: got {primaries}, expected 1 to {BUCKETS}: one without a bucket has no sessions")
    slots = bucket_slots()
    firsts = [slots[number * BUCKETS // primaries] for number in range(1, primaries)]
    cuts = [0, *firsts, SLOTS]
    return [range(first, end) for first, end in pairwise(cuts)]


def shares(ranges: list[range]) -> list[int]:
    """Returns how many buckets each range holds."""
    slots = bucket_slots()
    return [sum(slot in one for slot in slots) for one in ranges]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.buckets", description=__doc__)
    parser.add_argument("primaries", type=int)
    primaries = parser.parse_args().primaries
    for name, ranges in (("equal ranges", equal_ranges(primaries)), ("even buckets", even_ranges(primaries))):
        found = shares(ranges)
        fullest = max(found) * primaries / BUCKETS
        print(f"{name}: {min(found)} to {max(found)} buckets each; the fullest has {fullest:.2f} of its share")
    for number, one in enumerate(even_ranges(primaries), 1):
        print(f"primary {number}: slots {one.start}-{one.stop - 1}")


if __name__ == "__main__":
    main()
