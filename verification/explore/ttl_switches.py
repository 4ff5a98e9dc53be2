"""Switches that turn off the rules of TTLs in Redis (docs/adr/203). See switches.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from . import layout2
from .layout2 import Answer, Call, Calls
from .redis_lists import Command, Write
from .store import ExploredStore

_pipeline, _item = ExploredStore.pipeline, layout2._Run.item


def _sends(change: Callable[[Calls], Calls]) -> AbstractContextManager[Any]:
    def pipeline(self: ExploredStore, calls: Calls, connection: str) -> list[Answer]:
        return _pipeline(self, change(calls), connection)[: len(calls[1])]

    return patch.object(ExploredStore, "pipeline", pipeline)


def _without(calls: list[Call], kind: bytes) -> list[Call]:
    return [call for call in calls if call[0][1][0] != kind]


def ttls_are_removed_first() -> AbstractContextManager[Any]:
    """Removes a TTL only after the commit that takes it away."""
    return _sends(lambda calls: (_without(calls[0], b"persist"), calls[1], calls[2]))


def ttls_are_removed_by_two_writes() -> AbstractContextManager[Any]:
    """Removes only a TTL that the key has."""
    write = layout2._Run.write

    def one(self: layout2._Run, what: Write) -> None:
        needless = what.command is Command.PERSIST and self._lists[what.name].deadline is None
        if not needless:
            write(self, what)

    def item(self: layout2._Run, name: bytes, kind: bytes, *words: bytes) -> Answer:
        if kind != b"persist":
            return _item(self, name, kind, *words)
        with patch.object(self, "_expire", lambda name, ttl: None):
            return _item(self, name, kind, *words)

    return patch.multiple(layout2._Run, write=one, item=item)


def ttls_are_set_alone() -> AbstractContextManager[Any]:
    """Sets a TTL in the transaction of the commit."""
    return _sends(
        lambda calls: (
            calls[0],
            [*calls[1], *(item for call in calls[2] for item in call if item[1][0] == b"expire")],
            _without(calls[2], b"expire"),
        )
    )
