"""Slots: the places of hot sessions in an engine's arena, and which of them to give up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class Slots:
    """A fixed number of slots. A slot is two rows of the arena, 2 * slot and 2 * slot + 1: one holds the state, the
    other takes the next, so that the state before a chunk outlives it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._owners: OrderedDict[Hashable, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """How many are taken."""
        return self.count - len(self._free)

    @property
    def owners(self) -> list[Hashable]:
        """Who has one, least recently used first."""
        return list(self._owners)

    def take(self, owner: Hashable) -> int | None:
        """A free slot, or None."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._owners[owner] = slot
        return slot

    def used(self, owner: Hashable) -> None:
        """The owner's slot was used just now."""
        if owner in self._owners:
            self._owners.move_to_end(owner)

    def disown(self, owner: Hashable) -> None:
        """The owner gives its slot up, which is not free before `free`: the engine may be writing to it."""
        self._owners.pop(owner, None)

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def oldest(self, spare: Callable[[Hashable], bool], look_at: int = 256) -> Hashable | None:
        """The least recently used owner that may be evicted, among the first `look_at`."""
        for owner, _ in zip(self._owners, range(look_at), strict=False):
            if spare(owner):
                return owner
        return None
