"""Counting on the hot path: rows of numbers are appended, and sorted into histograms later, many at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLD_ROWS = 4096


class Tally:
    """Histograms and sums of several columns that are observed together.

    Noting a row costs a fraction of a microsecond: it is only appended. Rows are counted FOLD_ROWS at a time, and the
    rest before anything is read. Safe to call from several threads.
    """

    def __init__(self, bounds: Sequence[Sequence[float]]) -> None:
        """bounds: for each column, the ascending upper bounds of its buckets without the last, infinite one; empty if
        only the column's sum is wanted."""
        self._bounds = [np.asarray(column, dtype=np.float64) for column in bounds]
        self._counts = [np.zeros(len(column) + 1, dtype=np.int64) for column in bounds]
        self._sums = np.zeros(len(bounds), dtype=np.float64)
        self._rows = 0
        self._noted = array("d")  # rows, each followed by how often it was observed
        self._full = FOLD_ROWS * (len(bounds) + 1)
        self._lock = Lock()

    def note(self, row: tuple[float, ...], times: int = 1) -> None:
        """Observes one value in each column, `times` times."""
        with self._lock:
            self._noted.extend(row)
            self._noted.append(times)
            if len(self._noted) >= self._full:
                self._fold()

    @property
    def rows(self) -> int:
        """How many rows were observed."""
        with self._lock:
            self._fold()
            return self._rows

    def sum(self, column: int) -> float:
        """Returns the sum of a column."""
        with self._lock:
            self._fold()
            return float(self._sums[column])

    def buckets(self, column: int) -> list[tuple[str, float]]:
        """Returns a column's buckets as Prometheus shows them: upper bound, and how many values were at most that."""
        with self._lock:
            self._fold()
            upto = np.cumsum(self._counts[column]).tolist()
        names = [repr(float(bound)) for bound in self._bounds[column]] + ["+Inf"]
        return list(zip(names, map(float, upto), strict=True))

    def _fold(self) -> None:
        if self._noted:
            noted, self._noted = self._noted, array("d")
            table = np.frombuffer(noted, dtype=np.float64).reshape(-1, len(self._bounds) + 1)
            self._count(table[:, :-1], table[:, -1])

    def _count(self, rows: Floats, times: Floats) -> None:
        count = int(times.sum())
        self._rows += count
        self._sums += times @ rows
        for values, bounds, counts in zip(rows.T, self._bounds, self._counts, strict=True):
            if len(bounds):
                # side="left": a value equal to a bound belongs below it ("le")
                places = np.searchsorted(bounds, values, side="left")
                counts += np.bincount(places, times, len(counts)).astype(np.int64)
            else:
                counts[0] += count
