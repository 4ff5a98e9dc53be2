"""Converts records of the previous layout to the current one, each before its session's next write. docs/adr/203.

The new record is created with the old one's header, then the old record is dropped. A crash in between does no harm,
because a record in the current layout takes precedence over an old one of the same session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, DamagedRecord, StoreError
from cellkeeper_service.store.redis import layout1
from cellkeeper_service.store.redis.commits import LEAVE_WHOLE, Item, commit_item, words
from cellkeeper_service.store.redis.failures import Refused, not_read
from cellkeeper_service.store.redis.keys import old_key, session_key

MAX_SEEN = 1 << 16  # an entry beyond that is forgotten, and found again when its record is next loaded

DROP = words(b"drop")


class Upgrade:
    """The sessions for which loads have found an old record, by their key in the current layout.

    Safe to use from several threads. Only `saw` and `_drop` change `_seen`, which `concerns` reads without waiting.
    """

    def __init__(self, run: Callable[..., list[Any]]) -> None:
        """run: RedisStore's."""
        self._run = run
        self._lock = Lock()
        self._seen: dict[bytes, None] = {}

    def saw(self, name: bytes) -> None:
        with self._lock:
            if len(self._seen) >= MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[name] = None

    def concerns(self, names: Callable[[], Iterable[bytes]]) -> bool:
        """Returns True if one of them has to be converted first. names: called only if there are old records at all."""
        return bool(self._seen) and not self._seen.keys().isdisjoint(names())

    def before_write(self, names: Iterable[bytes]) -> tuple[dict[bytes, StoreError], set[bytes]]:
        """Converts the old records of these keys.

        Returns the keys that must not be written now, with why their conversion failed, and the keys whose old record
        was damaged and has been dropped.
        """
        old = [name for name in names if name in self._seen]
        failed: dict[bytes, StoreError] = {}
        carried: list[bytes] = []
        broken: set[bytes] = set()
        creates: dict[bytes, Item] = {}
        elements = self._run("load", [Item(old_key(name), LEAVE_WHOLE) for name in old])
        for name, found in zip(old, elements, strict=True):
            record = read_old(name, found)
            if record is None:
                self._drop(name)
            elif isinstance(record, Record):
                commit = Commit(session_key(name), None, record.header, record.log, record.checkpoint)
                creates[name] = commit_item(commit)
            elif not isinstance(record, DamagedRecord):
                failed[name] = record
            else:
                carried.append(name)  # damaged: there is nothing to convert, so it is only dropped
                broken.add(name)
        answers = self._run("write", list(creates.values()))
        for name, answer in zip(creates, answers, strict=True):
            if answer == 1 or isinstance(answer, bytes):  # bytes: another server has already converted it
                carried.append(name)
            else:
                failed[name] = answer if isinstance(answer, StoreError) else Refused(f"Redis: {answer[1]!r}")
        dropped = self._run("write", [Item(old_key(name), DROP) for name in carried], apart=True)
        for name, answer in zip(carried, dropped, strict=True):
            if answer in (0, 1):
                self._drop(name)
            if answer != 1:
                broken.discard(name)
        return failed, broken

    def _drop(self, name: bytes) -> None:
        with self._lock:
            self._seen.pop(name, None)


def read_old(name: bytes, found: Any) -> Record | StoreError | None:
    """Returns the old record in load.lua's answer. name: its key in the current layout."""
    if isinstance(found, StoreError):
        return found
    if isinstance(found, bytes):
        return not_read(session_key(name), found)
    return layout1.read_elements(session_key(name), found) if found else None
