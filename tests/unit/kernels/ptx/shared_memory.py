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

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

BASE = 0x410
"""The address of `global_smem`: a multiple of 16, which its declaration promises, but not of 32."""
_NEVER = -1


class SharedHazard(AssertionError):
    """An access of shared memory that a device need not order as the program needs it, or that is out of bounds."""


class SharedMemory:
    def __init__(self, ctas: int, size_bytes: int) -> None:
        whole = -(-size_bytes // 16) * 16
        self.size_bytes = size_bytes
        self._bytes = np.full((ctas, whole), 0xFF, np.uint8)  # as floats: NaN
        self._writer = np.full(whole, _NEVER, np.int32)  # the thread that wrote a byte last
        self._written_at = np.full(whole, _NEVER, np.int32)  # the epoch in which it did
        self._reader = np.full(whole, _NEVER, np.int32)  # the thread that read it last
        self._read_at = np.full(whole, _NEVER, np.int32)  # the epoch in which it did
        self._several = np.zeros(whole, np.bool_)  # whether others did, too
        self._in_flight = np.zeros(whole, np.int32)
        self._epoch = 0

    def of(self, ctas: Values) -> SharedMemory:
        """Returns a copy with only these CTAs."""
        copy = SharedMemory(0, self.size_bytes)
        for name, value in vars(self).items():
            setattr(copy, name, value.copy() if isinstance(value, np.ndarray) else value)
        copy._bytes = self._bytes[ctas]
        return copy

    @staticmethod
    def together(warps: Values) -> Values:
        """Returns the threads that stand for what these warps do together."""
        return -2 - warps

    def barrier(self) -> None:
        self._epoch += 1

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
        self._note_write(index, threads)

    def _index(self, addresses: Values, size: int) -> Values:
        offsets = addresses.astype(np.int64) - BASE
        if (addresses % np.uint32(size)).any():
            raise SharedHazard(f"{size} bytes of shared memory at an address that is no multiple of it")
        if len(offsets) and (offsets.min() < 0 or offsets.max() + size > self.size_bytes):
            raise SharedHazard(f"an access beyond the {self.size_bytes} bytes of shared memory")
        return np.asarray(offsets[:, None] + np.arange(size))

    def _check_read(self, index: Values, threads: Values) -> None:
        if self._in_flight[index].any():
            raise SharedHazard("a read of what an asynchronous copy may still write")
        writers = self._writer[index]
        if (writers == _NEVER).any():
            raise SharedHazard("a read of shared memory that nothing has written")
        if ((self._written_at[index] == self._epoch) & (writers != threads[:, None])).any():
            raise SharedHazard("a read of what another thread writes, without a barrier between them")
        again = self._read_at[index] == self._epoch
        several = again & (self._several[index] | (self._reader[index] != threads[:, None]))
        self._reader[index], self._read_at[index], self._several[index] = threads[:, None], self._epoch, several
        self._several[index[self._reader[index] != threads[:, None]]] = True  # several threads of this instruction

    def _check_write(self, index: Values, threads: Values, values: Values | None) -> None:
        if self._in_flight[index].any():
            raise SharedHazard("a write to what an asynchronous copy may still write")
        others = self._several[index] | (self._reader[index] != threads[:, None])
        if ((self._read_at[index] == self._epoch) & others).any():
            raise SharedHazard("a write to what another thread reads, without a barrier between them")
        others = (self._written_at[index] == self._epoch) & (self._writer[index] != threads[:, None])
        if others.any() and (values is None or (others & (self._bytes[:, index] != values)).any()):
            raise SharedHazard("a write to what another thread writes, without a barrier between them")
        self._note_write(index, threads)

    def _note_write(self, index: Values, threads: Values) -> None:
        self._writer[index] = threads[:, None]
        self._written_at[index] = self._epoch
