"""The shared memory of CTAs that execute together, and what in it depends on the order of threads.

All CTAs use the same addresses at the same time; only what they store differs. Between two barriers, a byte that one
thread writes must not be read by another one, nor overwritten with something else. That holds within a warp, too: PTX
orders its threads by barriers only, not by shfl.sync and the like. What a warp reads or writes together, by ldmatrix or
stmatrix, counts as done by one more thread of its own.

An asynchronous copy writes at any moment from its issue to the wait of its thread, so nobody may have read its target
since the last barrier when it is issued, nobody may read it before that wait, and no other thread before the barrier
after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

BASE = 0x410
"""The address of `global_smem`: a multiple of 16, which its declaration promises, but not of 32."""
WARP = 32
_NEVER = -1


class SharedHazard(AssertionError):
    """An access of shared memory that a device need not order as the program needs it, or that is out of bounds."""


@dataclass(slots=True)
class _Accesses:
    """Who accessed each byte last, when, and whether others did so in the same period."""

    who: Values
    at: Values
    several: Values

    @staticmethod
    def none(size_bytes: int) -> _Accesses:
        never = np.full(size_bytes, _NEVER, np.int32)
        return _Accesses(never, never.copy(), np.zeros(size_bytes, np.bool_))

    def copied(self) -> _Accesses:
        return _Accesses(self.who.copy(), self.at.copy(), self.several.copy())

    def by_others(self, index: Values, who: Values, since: int) -> Values:
        return np.asarray((self.at[index] >= since) & (self.several[index] | (self.who[index] != who)))

    def note(self, index: Values, who: Values, since: int, now: int) -> None:
        several = self.by_others(index, who, since)
        self.who[index], self.at[index], self.several[index] = who, now, several
        self.several[index[self.who[index] != who]] = True  # several at once


class SharedMemory:
    def __init__(self, ctas: int, size_bytes: int) -> None:
        whole = -(-size_bytes // 16) * 16
        self.size_bytes = size_bytes
        self._bytes = np.full((ctas, whole), 0xFF, np.uint8)  # as floats: NaN
        # of threads since the last barrier of their warp; of warps since the last barrier of the CTA
        self._reads = _Accesses.none(whole), _Accesses.none(whole)
        self._writes = _Accesses.none(whole), _Accesses.none(whole)
        self._in_flight = np.zeros(whole, np.int32)
        self._now = 0  # counts barriers
        self._since = [0, 0]

    def of(self, ctas: Values) -> SharedMemory:
        """Returns a copy with only these CTAs."""
        copy = SharedMemory(0, self.size_bytes)
        copy._bytes, copy._in_flight = self._bytes[ctas], self._in_flight.copy()
        copy._reads = self._reads[0].copied(), self._reads[1].copied()
        copy._writes = self._writes[0].copied(), self._writes[1].copied()
        copy._now, copy._since = self._now, list(self._since)
        return copy

    @staticmethod
    def together(warps: Values) -> Values:
        """Returns the threads that stand for what these warps do together."""
        return -2 - warps

    def barrier(self, of_warps: bool = False) -> None:
        """of_warps: of the threads of each warp, not of the CTA."""
        self._now += 1
        self._since = [self._now, self._since[1] if of_warps else self._now]

    def load(self, addresses: Values, size: int, threads: Values, used_bytes: int = 0) -> Values:
        """Returns [ctas, lanes, size] bytes. used_bytes: a bit for each of the bytes that must have been written."""
        index = self._index(addresses, size)
        used = np.array([not used_bytes or used_bytes >> byte & 1 for byte in range(size)], np.bool_)
        self._check_read(index[:, used], threads)
        return np.take(self._bytes, index, axis=1)

    def store(self, addresses: Values, values: Values, threads: Values) -> None:
        """values: [ctas, lanes, size] bytes."""
        index = self._index(addresses, values.shape[2])
        self._check_write(index, threads, values)
        self._bytes[:, index] = values
        if (self._bytes[:, index] != values).any():
            raise SharedHazard("threads of one instruction write different values to one place")

    def begin_copy(self, addresses: Values, size: int, threads: Values) -> None:
        index = self._index(addresses, size)
        self._check_write(index, threads, None)
        np.add.at(self._in_flight, index, 1)

    def write_early(self, addresses: Values, values: Values) -> None:
        """Stores what a copy in flight brings."""
        self._bytes[:, self._index(addresses, values.shape[2])] = values

    def end_copy(self, addresses: Values, size: int, threads: Values) -> None:
        index = self._index(addresses, size)
        np.subtract.at(self._in_flight, index, 1)
        self._note(self._writes, index, threads)

    def _index(self, addresses: Values, size: int) -> Values:
        offsets = addresses.astype(np.int64) - BASE
        if (addresses % np.uint32(size)).any():
            raise SharedHazard(f"{size} bytes of shared memory at an address that is no multiple of it")
        if len(offsets) and (offsets.min() < 0 or offsets.max() + size > self.size_bytes):
            raise SharedHazard(f"an access beyond the {self.size_bytes} bytes of shared memory")
        return np.asarray(offsets[:, None] + np.arange(size))

    def _by_others(self, accesses: tuple[_Accesses, _Accesses], index: Values, threads: Values) -> Values:
        of_threads, of_warps = (
            part.by_others(index, who, since)
            for part, who, since in zip(accesses, _and_warps(threads), self._since, strict=True)
        )
        return np.asarray(of_threads | of_warps)

    def _note(self, accesses: tuple[_Accesses, _Accesses], index: Values, threads: Values) -> None:
        for part, who, since in zip(accesses, _and_warps(threads), self._since, strict=True):
            part.note(index, who, since, self._now)

    def _check_read(self, index: Values, threads: Values) -> None:
        if self._in_flight[index].any():
            raise SharedHazard("a read of what an asynchronous copy may still write")
        if (self._writes[0].at[index] == _NEVER).any():
            raise SharedHazard("a read of shared memory that nothing has written")
        if self._by_others(self._writes, index, threads).any():
            raise SharedHazard("a read of what another thread writes, without a barrier between them")
        self._note(self._reads, index, threads)

    def _check_write(self, index: Values, threads: Values, values: Values | None) -> None:
        if self._in_flight[index].any():
            raise SharedHazard("a write to what an asynchronous copy may still write")
        if self._by_others(self._reads, index, threads).any():
            raise SharedHazard("a write to what another thread reads, without a barrier between them")
        others = self._by_others(self._writes, index, threads)
        if others.any() and (values is None or (others & (self._bytes[:, index] != values)).any()):
            raise SharedHazard("a write to what another thread writes, without a barrier between them")
        self._note(self._writes, index, threads)


def _and_warps(threads: Values) -> tuple[Values, Values]:
    warps = np.where(threads < 0, -2 - threads, threads // WARP)
    return threads[:, None], warps[:, None]
