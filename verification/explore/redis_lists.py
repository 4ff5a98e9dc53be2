"""Redis as far as records need it: lists by key with their deadlines, the writes of a script to them, and the
append-only file.

Two or more writes of a script are in the file as MULTI ... EXEC. Redis 7 loads a file that ends between the commands of
a transaction without the transaction. If the file ends inside a command of the transaction, the commands before that
one stay in the file, after an open MULTI: the next EXEC that is appended executes them, at the restart after that,
before what was appended. If none follows, everything from the open MULTI on is dropped then.

A key whose deadline has passed is gone for everybody. Redis writes DEL to the file when it notices: by itself, or in
the transaction of the script that came to the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

Elements = tuple[bytes, ...]


class List(NamedTuple):
    """A key's list, and its deadline, in ms of the key's clock (see store.py); None: it does not expire."""

    elements: Elements = ()
    deadline: int | None = None


NOTHING = List()
Lists = dict[bytes, List]  # by key, without empty lists


class Command(Enum):
    PUSH = "RPUSH"
    SET_FIRST = "LSET 0"
    KEEP_FIRST = "LTRIM 0 0"
    KEEP_LAST_THREE = "LTRIM -3 -1"
    KEEP_LAST_FOUR = "LTRIM -4 -1"
    UNLINK = "UNLINK"
    DEL = "DEL"
    EXPIRE_AT = "PEXPIREAT"
    PERSIST = "PERSIST"


class Write(NamedTuple):
    """One write command. values: the elements of PUSH and SET_FIRST. deadline: that of EXPIRE_AT."""

    name: bytes
    command: Command
    values: Elements = ()
    deadline: int | None = None

    def apply(self, lists: Lists) -> None:
        """Applies the write to `lists`."""
        before, deadline = lists.get(self.name, NOTHING)
        match self.command:
            case Command.PUSH:
                after = before + self.values
            case Command.SET_FIRST:
                after = self.values + before[1:] if before else ()
            case Command.KEEP_FIRST:
                after = before[:1]
            case Command.KEEP_LAST_THREE:
                after = before[-3:]
            case Command.KEEP_LAST_FOUR:
                after = before[-4:]
            case Command.UNLINK | Command.DEL:
                after = ()
            case Command.EXPIRE_AT | Command.PERSIST:
                after, deadline = before, self.deadline
        if after:
            lists[self.name] = List(after, deadline)
        else:
            lists.pop(self.name, None)


class Change(NamedTuple):
    """A script's change of one record: its packed headers before and after; None: no record."""

    name: bytes
    before: bytes | None
    after: bytes | None


class Unit(NamedTuple):
    """The writes of one script run, as in the file. whole: False for what is left after an open MULTI."""

    writes: tuple[Write, ...]
    changes: tuple[Change, ...]
    whole: bool = True

    @property
    def ends_transaction(self) -> bool:
        return self.whole and len(self.writes) > 1


Units = tuple[Unit, ...]


def open_from(units: Sequence[Unit]) -> int | None:
    """Returns where the transaction starts that is open after `units`; None: none is."""
    begin = None
    for number, unit in enumerate(units):
        if not unit.whole and begin is None:
            begin = number
        elif unit.ends_transaction:
            begin = None
    return begin


def replayed(base: Lists, units: Sequence[Unit]) -> Lists:
    """Returns what Redis has after loading a file that consists of `base` and these units."""
    return applied(base, units[: open_from(units)])


def applied(base: Lists, units: Sequence[Unit]) -> Lists:
    """Returns `base` after all writes of `units`."""
    lists = dict(base)
    for unit in units:
        for write in unit.writes:
            write.apply(lists)
    return lists


def cuts(units: Units, first: int) -> Iterator[tuple[int, int, Units]]:
    """Yields what a power cut that leaves the first `first` units intact can make of a file.

    Each item is the number of whole units that stay; how many writes of the next one stay after an open MULTI (-1:
    none); and the units in the file once Redis has loaded it. Each resulting file occurs once, with the cut that loses
    least.
    """
    seen: set[Units] = set()
    for kept in range(len(units), first - 1, -1):
        for writes in range(-1, len(units[kept].writes) + 1 if kept < len(units) else 0):
            left = cut(units, kept, writes)
            if left is not None and left not in seen:
                seen.add(left)
                yield kept, writes, left


def cut(units: Units, kept: int, writes: int) -> Units | None:
    """Returns one of `cuts`; None if there is no such cut."""
    whole = units[:kept]
    begin = open_from(whole)
    if writes < 0:  # the file ends between two commands
        return whole[:begin]
    torn = units[kept]
    if not torn.ends_transaction:  # the file ends inside the only command of the script
        return whole if begin is not None and writes == 0 else None
    prefix = torn.writes[:writes]
    if begin is not None and not prefix:
        return whole
    names = {write.name for write in prefix}
    return *whole, Unit(prefix, tuple(one for one in torn.changes if one.name in names), whole=False)
