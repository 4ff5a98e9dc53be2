"""Switches that turn off the rules of the layout in Redis that power cuts require (docs/adr/203). See switches.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.damage import read_record
from cellkeeper_service.store.redis import layout as redis_layout
from cellkeeper_service.store.redis.layout import read_elements, standing_header

from . import layout1, layout2
from .layout2 import Answer, Call, Calls, Peer, base_of, run_of
from .redis_lists import Lists, Write
from .store import ExploredStore

_pipeline, _peer, _load, _run = ExploredStore.pipeline, ExploredStore.peer, layout2.load, layout2.run


def lists_only_grow() -> AbstractContextManager[Any]:
    """Uses the previous layout: a commit changes the header in place, and trims."""
    return patch.object(ExploredStore, "layout", layout1)


def superseded_entries_are_skipped() -> AbstractContextManager[Any]:
    def read(key: SessionKey, elements: Sequence[bytes]) -> Record | StoreError:
        at = base_of(tuple(elements))
        record = read_elements(key, elements[: (at or 0) + 1])
        if at is None or isinstance(record, StoreError):
            return record
        chunks = [element[1:] for element in elements[at + 1 :] if element[:1] == b"D"]
        header = standing_header(elements[-1], elements[at]) or b""
        return read_record(key, header, record.checkpoint, b"".join([record.log, *chunks]))

    return patch.object(redis_layout, "read_elements", read)


def trims_are_alone() -> AbstractContextManager[Any]:
    """Puts a trim into the transaction of the push that it follows."""

    def pipeline(self: ExploredStore, calls: Calls, connection: str) -> list[Answer]:
        before, call, after = calls
        together = [*call, *(item for one in after for item in one)]
        return _pipeline(self, (before, together, []), connection)[: len(call)]

    return patch.object(ExploredStore, "pipeline", pipeline)


def deletes_are_alone() -> AbstractContextManager[Any]:
    """Puts a delete into the transaction of the pushes before it."""

    def pipeline(self: ExploredStore, calls: Calls, connection: str) -> list[Answer]:
        before, call, after = calls
        together = [*(item for one in before for item in one), *call]
        return _pipeline(self, ([], together, after), connection)[-len(call) :]

    return patch.object(ExploredStore, "pipeline", pipeline)


def first_write_is_a_transaction() -> AbstractContextManager[Any]:
    return patch.object(
        ExploredStore, "peer", lambda self, connection: _peer(self, connection)._replace(first_write=False)
    )


def what_is_read_is_said_again() -> AbstractContextManager[Any]:
    return patch.object(layout2, "load", lambda lists, names, touched, peer: [])


def trims_keep_what_their_run_pushed() -> AbstractContextManager[Any]:
    def run(lists: Lists, call: Call, peer: Peer) -> tuple[list[Answer], list[Write]]:
        """Makes a trim keep any base that is the last element."""
        if call[0][1][0] == b"trim":
            (name, _), *_ = call
            last = lists[name].elements[-1] if name in lists else b" "
            peer = peer._replace(run=run_of(last)) if last[:1] == b"B" else peer
        return _run(lists, call, peer)

    return patch.object(layout2, "run", run)


def links_name_their_base() -> AbstractContextManager[Any]:
    """Finds the base by distance alone."""

    def distance_alone(elements: Sequence[bytes]) -> int | None:
        last = elements[-1]
        if last[:1] not in (b"S", b"W"):
            return len(elements) - 1 if last[:1] == b"B" else None
        at = len(elements) - 1 - int.from_bytes(last[1:4], "little")
        return at if at >= 0 and elements[at][:1] == b"B" else None

    return patch.object(redis_layout, "_base_of", distance_alone)
