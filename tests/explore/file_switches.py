"""Ways to switch off what keeps records in Redis whole after power cuts (docs/adr/203), one at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.store import redis_layout
from cellkeeper_service.store.damage import read_record

from .redis_file import Calls, Layout, OldLayout, Write

_calls, _base_of = Layout.calls, redis_layout._base_of


def one_write_a_commit() -> AbstractContextManager[Any]:
    """The layout before."""
    return patch.multiple(Layout, calls=OldLayout.calls, erase=OldLayout.erase, read=OldLayout.read)


def later_entries_win() -> AbstractContextManager[Any]:
    def read(self: Layout, key: SessionKey, elements: tuple[bytes, ...]) -> Any:
        at = _base_of(elements)
        if at is None:
            return redis_layout.read_elements(key, elements)
        parts = [elements[at][133:], *(element[26:] for element in elements[at + 1 :] if element[:1] == b"S")]
        header = redis_layout.standing_header(elements[-1], elements[at])
        return read_record(key, header, elements[at - 1][5:], b"".join(parts))

    return patch.object(Layout, "read", read)


def trims_are_apart() -> AbstractContextManager[Any]:
    def calls(self: Layout, commit: Commit, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        """Trimmed at the next commit, in front of its push."""
        made = [write for write in _calls(self, commit, elements, first_write)[0] if write.kind == "rpush"]
        in_front = [Write(commit.key, "trim")] if elements and elements[-1][:1] == b"B" and len(elements) > 2 else []
        return [[*in_front, *made]]

    return patch.object(Layout, "calls", calls)


def deletes_are_apart() -> AbstractContextManager[Any]:
    def erase(self: Layout, key: SessionKey, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        return [[Write(key, "delete")]]

    return patch.object(Layout, "erase", erase)


def a_first_write_is_a_whole_transaction() -> AbstractContextManager[Any]:
    def calls(self: Layout, commit: Commit, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        return _calls(self, commit, elements, False)

    return patch.object(Layout, "calls", calls)
