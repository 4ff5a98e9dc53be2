"""Random interleavings of all requests, from clients that do not try to get through (crowd.py).

No request has to succeed. The invariants:
  - every request is answered once, and nothing is left behind;
  - the record is right at every commit (ledger.py), and no input is applied twice, except for the start of a sequence
    that the store does not remember (LedgerStore._started_again);
  - whatever a reply says is committed by then, and its outputs are those of that history;
  - nothing is sent to the store after its deadline.
"""

from __future__ import annotations

import random

import pytest

from .crowd import Crowd

SEEDS = random.SystemRandom().sample(range(10**9), 80)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_nothing_is_lost_doubled_mixed_or_left_behind(replicas: int, slots: int) -> None:
    for seed in SEEDS:
        crowd = Crowd(seed, replicas, slots)
        try:
            crowd.play()
        except BaseException:
            print(f"Crowd({seed}, {replicas}, {slots}).play()")
            raise
