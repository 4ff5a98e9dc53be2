"""The append-only file of the explored Redis since its last restart."""

from __future__ import annotations

from dataclasses import dataclass

from .redis_lists import Change, Lists, Units, applied, open_from


@dataclass
class File:
    """The append-only file since the last restart of Redis, as far as a power cut can still change its meaning.

    base: what Redis has after loading everything before `units`. live: what Redis had at that point, without an open
    MULTI from before the restart. old: units that were there at the restart. told: up to which unit somebody knows what
    happened. written: keys that were written or read since the restart, before `units`. reads: other keys that were
    read, and at which point. comebacks: what the next restart may do to a key that was neither written nor read since
    this one.
    """

    base: Lists
    live: Lists
    units: Units = ()
    old: int = 0
    folded: int = 0
    told: int = 0
    written: frozenset[bytes] = frozenset()
    reads: frozenset[tuple[bytes, int]] = frozenset()
    comebacks: tuple[Change, ...] = ()

    @property
    def end(self) -> int:
        """The name of this point in the file, for `tell`."""
        return self.folded + len(self.units)

    def fold(self, first: int) -> None:
        """Drops the units before `first`, whose outcome is final."""
        first = max(self.old, first)
        if not first or open_from(self.units[:first]) is not None:
            return
        mine = self.units[self.old : first]
        self.base, self.live = applied(self.base, self.units[:first]), applied(self.live, mine)
        self.written |= {write.name for unit in mine for write in unit.writes}
        self.units, self.old = self.units[first:], 0
        self.folded, self.told = self.folded + first, max(0, self.told - first)
        sealed = {(name, at) for name, at in self.reads if at <= self.folded}
        self.written |= {name for name, _ in sealed}
        self.reads -= sealed
