"""The slot ranges that docs/capacity.md recommends divide the buckets evenly and cover every slot."""

from __future__ import annotations

import pytest
from cellkeeper_service.store.redis.keys import BUCKETS

from bench.buckets import SLOTS, bucket_slots, equal_ranges, even_ranges, shares


def test_every_bucket_has_a_slot_of_its_own() -> None:
    assert len(set(bucket_slots())) == BUCKETS


@pytest.mark.parametrize("primaries", [1, 3, 9, 64, BUCKETS])
def test_ranges(primaries: int) -> None:
    for ranges in (equal_ranges(primaries), even_ranges(primaries)):
        assert [slot for one in ranges for slot in one] == list(range(SLOTS))
        assert sum(shares(ranges)) == BUCKETS
    assert max(shares(even_ranges(primaries))) - min(shares(even_ranges(primaries))) <= 1


def test_more_primaries_than_buckets() -> None:
    with pytest.raises(ValueError, match="got 129, expected 1 to 128"):
        even_ranges(BUCKETS + 1)
