"""A tally counts what a plain loop over the same rows counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from threading import Thread

import numpy as np
import pytest
from cellkeeper_service.metrics.tally import FOLD_ROWS, Tally

BOUNDS = (0.5, 1.0, 2.0)


def by_hand(values: Sequence[float]) -> list[tuple[str, float]]:
    upto = [(repr(bound), float(sum(value <= bound for value in values))) for bound in BOUNDS]
    return [*upto, ("+Inf", float(len(values)))]


def test_buckets_include_their_bound_and_everything_beyond_the_last() -> None:
    tally = Tally([BOUNDS])
    values = [0.0, 0.5, 0.5 + 2**-20, 1.0, 2.0, 7.0]  # whose sums are exact, in whatever order
    for value in values:
        tally.note((value,))
    assert tally.buckets(0) == by_hand(values)
    assert tally.sum(0) == sum(values)
    assert tally.rows == len(values)


@pytest.mark.parametrize("count", [0, 1, FOLD_ROWS - 1, FOLD_ROWS, FOLD_ROWS + 1, 3 * FOLD_ROWS + 7])
def test_any_number_of_rows(count: int) -> None:
    draw = np.random.default_rng(count)
    rows = draw.uniform(0, 3, (count, 2))
    tally = Tally([BOUNDS, ()])
    for row in rows.tolist():
        tally.note((row[0], row[1]))
    assert tally.buckets(0) == by_hand(rows[:, 0].tolist())
    assert tally.sum(1) == pytest.approx(rows[:, 1].sum())
    assert tally.rows == count


def test_a_row_noted_several_times_counts_as_often() -> None:
    at_once, one_by_one = Tally([BOUNDS, ()]), Tally([BOUNDS, ()])
    for value, times in ((0.25, 3), (1.0, 1), (7.5, 256)):
        at_once.note((value, 2.0), times)
        for _ in range(times):
            one_by_one.note((value, 2.0))
    assert at_once.buckets(0) == one_by_one.buckets(0)
    assert [at_once.sum(0), at_once.sum(1)] == [one_by_one.sum(0), one_by_one.sum(1)]
    assert at_once.rows == one_by_one.rows == 260


def test_reading_between_notes_loses_and_doubles_nothing() -> None:
    tally = Tally([BOUNDS])
    for i in range(1, 100):
        tally.note((1.0,))
        assert tally.rows == i
        assert all(low[1] <= high[1] for low, high in pairwise(tally.buckets(0)))


def test_threads_lose_nothing() -> None:
    tally = Tally([BOUNDS])

    def work() -> None:
        for _ in range(2 * FOLD_ROWS):
            tally.note((1.5,))

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.rows == 8 * FOLD_ROWS
    assert tally.sum(0) == 12.0 * FOLD_ROWS
