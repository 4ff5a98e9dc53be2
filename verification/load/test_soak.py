"""The soak test in miniature: nothing is left over after a mixed load, and every answer was right."""

from __future__ import annotations

import secrets

import pytest

from .soak import soak
from .vitals import Vitals, flatness


@pytest.mark.fire
@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_nothing_is_left_over_after_a_mixed_load(store: str) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    figures, violations = await soak(store, 3.0, seed=seed, residents=60, pause_s=0.2, sample_s=1.0)
    assert violations == [], figures
    done = figures["done"]
    kinds = ("steps", "streams", "opens", "resets", "expiring", "dropped streams", "disconnects")
    assert all(done[kind] > 0 for kind in kinds), done


def test_growth_is_seen() -> None:
    def series(values: list[int]) -> list[Vitals]:
        return [Vitals(at, value, 0, 0, 0, 0, 0) for at, value in enumerate(values)]

    def grew(values: list[int]) -> bool:
        return flatness("rss", series(values), lambda sample: sample.rss_bytes, share=0.02, slack=10).grew

    assert not grew([0, 500, 900, 1000, 1001, 5000, 1000, 1030, 9000])  # a peak is not growth
    assert grew(list(range(0, 1000, 10)))
