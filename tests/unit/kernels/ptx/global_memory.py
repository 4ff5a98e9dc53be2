"""The device's memory: memory of this process, by its real addresses, of which a launch may touch what was allowed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


class IllegalAccess(AssertionError):
    """A program touched what it must not, or at an address that its width does not divide."""


class GlobalRace(AssertionError):
    """What a launch did depends on the order of its threads."""


@dataclass(slots=True)
class _Region:
    """start, end: addresses. The arrays have one element for each unit of `unit` bytes: whether this launch read it,
    and 1 + the number of the thread that wrote it. NumPy takes memory for them only where they are touched."""

    name: str
    start: int
    end: int
    unit: int
    was_read: Values
    writer: Values
    written: list[Values] = field(default_factory=list)


class GlobalMemory:
    """races: also look for units that one thread of a launch writes and another one reads, or writes differently."""

    def __init__(self, races: bool = True) -> None:
        self._races = races
        self._regions: list[_Region] = []
        self._starts: Values = np.zeros(0, np.uint64)
        self._low = 0
        self._flat: dict[int, Values] = {}

    def allow(self, name: str, address: int, size_bytes: int, unit_bytes: int = 1) -> None:
        """Lets programs touch these bytes. unit_bytes: the smallest part that a race can be about."""
        end = address + size_bytes
        for region in self._regions:
            if (region.start, region.end) == (address, end):
                return  # one tensor as two arguments
            if address < region.end and region.start < end:
                raise ValueError(f"{name} overlaps {region.name}")
        units = -(-size_bytes // unit_bytes) if self._races else 0
        self._regions.append(
            _Region(name, address, end, unit_bytes, np.zeros(units, np.bool_), np.zeros(units, np.int32))
        )
        self._regions.sort(key=lambda region: region.start)
        self._starts = np.array([region.start for region in self._regions], np.uint64)
        self._low = self._regions[0].start & ~0xFF
        size = self._regions[-1].end - self._low
        whole = memoryview((ctypes.c_uint8 * (size + 16)).from_address(self._low))
        self._flat = {
            width: np.frombuffer(whole, dtype, -(-size // width))
            for width, dtype in ((1, np.uint8), (2, np.uint16), (4, np.uint32), (8, np.uint64))
        }

    def load(self, addresses: Values, width: int, count: int, mask: Values, threads: Values) -> Values:
        """Returns [lanes, count] elements of `width` bytes. Lanes that are not in the mask get 0, and touch nothing."""
        out = np.zeros((len(addresses), count), self._flat[width].dtype if self._flat else f"u{width}")
        for region, lanes in self._lanes(addresses, width * count, mask, "read"):
            places = ((addresses[lanes] - np.uint64(self._low)) // np.uint64(width)).astype(np.int64)
            index = places[:, None] + np.arange(count)
            out[lanes] = self._flat[width][index]
            if self._races:
                units = self._units(region, addresses[lanes], width * count)
                writers = region.writer[units]
                if ((writers != 0) & (writers != 1 + threads[lanes][:, None])).any():
                    raise GlobalRace(f"{region.name}: a thread reads what another one has written in this launch")
                region.was_read[units] = True
        return out

    def store(self, addresses: Values, width: int, values: Values, mask: Values, threads: Values) -> None:
        """values: [lanes, count]."""
        count = values.shape[1]
        for region, lanes in self._lanes(addresses, width * count, mask, "written"):
            places = ((addresses[lanes] - np.uint64(self._low)) // np.uint64(width)).astype(np.int64)
            index = places[:, None] + np.arange(count)
            flat, new = self._flat[width], values[lanes]
            if self._races:
                units = self._units(region, addresses[lanes], width * count)
                writers, own = region.writer[units], 1 + threads[lanes][:, None]
                others = ((writers != 0) & (writers != own)).any(axis=1)
                if (others & (flat[index] != new).any(axis=1)).any():
                    raise GlobalRace(f"{region.name}: two threads write different values to one place")
                region.writer[units] = own
                region.written.append(units.ravel())
            flat[index] = new
            if self._races and (flat[index] != new).any():
                raise GlobalRace(f"{region.name}: threads of one instruction write different values to one place")

    def end_launch(self) -> None:
        """Checks that the launch did not read what it also wrote. The next one sees all that this one has written."""
        for region in self._regions:
            if region.written and region.was_read[np.concatenate(region.written)].any():
                raise GlobalRace(f"{region.name}: a launch reads what it also writes")
            region.was_read = np.zeros(len(region.was_read), np.bool_)
            region.writer = np.zeros(len(region.writer), np.int32)
            region.written = []

    @staticmethod
    def _units(region: _Region, addresses: Values, size: int) -> Values:
        first = ((addresses - np.uint64(region.start)) // np.uint64(region.unit)).astype(np.int64)
        return first[:, None] + np.arange(max(1, size // region.unit))

    def _lanes(self, addresses: Values, size: int, mask: Values, what: str) -> list[tuple[_Region, Values]]:
        """Returns the lanes in the mask by region."""
        lanes = np.flatnonzero(mask)
        if not len(lanes):
            return []
        chosen = addresses[lanes]
        if (chosen % np.uint64(size)).any():
            raise IllegalAccess(f"{size} bytes are {what} at {int(chosen[chosen % np.uint64(size) != 0][0]):#x}")
        numbers = np.searchsorted(self._starts, chosen, side="right") - 1
        found = []
        for number in np.unique(numbers):
            part = lanes if numbers[0] == number and (numbers == number).all() else lanes[numbers == number]
            region = self._regions[number] if number >= 0 else None
            last = int(addresses[part].max()) + size
            if region is None or last > region.end:
                near = "before all tensors" if region is None else f"{last - region.end} bytes beyond {region.name}"
                raise IllegalAccess(f"{size} bytes are {what} {near}")
            found.append((region, part))
        return found
