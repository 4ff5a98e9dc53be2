"""The servers that hold a store's records: which one has a key, and where to go if a server redirects a call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cellkeeper_service.domain.store import Listed, StoreFacts

from ..cursor import bad_cursor
from .check import check_server
from .link import Link
from .runs import Runs
from .scan import is_scan_cursor, page_at


class Detour(NamedTuple):
    """Where to send a call that did not run.

    link: the server, or None for the one that now has its keys.
    asking: send ASKING first, because that server is still importing the slot.
    singly: send one key at a time, because the slot's keys are currently split between two servers.
    pause: wait a moment first, because the server cannot serve the call at present.
    """

    link: Link | None = None
    asking: bool = False
    singly: bool = False
    pause: bool = False


class Servers(Protocol):
    """The servers of a store; safe to use from several threads. By default they are a single server, which has every
    key and never redirects."""

    name: str
    timeout_ms: int  # to connect, and for each wait for a reply
    asks_role: bool = False
    """Whether to ask a server after every call if it is still a primary, because another may have taken over."""
    runs: Runs

    def group(self, key: bytes) -> int:
        """Returns the group of a key. Keys of the same group can share a script call."""
        return 0

    def refresh(self) -> None:
        """Looks up again which server has which keys, if that is known to be out of date. Never raises."""

    def link(self, group: int) -> Link:
        """Returns the server that has the keys of a group. Raises Unreached if there is none."""

    def at_hand(self) -> Link | None:
        """Returns the one server that has every key, or None if that is not known without asking a server."""
        return None

    def detour(self, link: Link, error: Exception) -> Detour | None:
        """Returns where to send a call that `link` did not run for this reason; None: nowhere."""
        return None

    def lost(self, link: Link) -> None:
        """Notes that `link` did not answer, so that another server may soon have its keys."""

    def check(self, wait_replicas: int) -> StoreFacts:
        """Raises StoreError, with what to do, if records could be lost or could not be written."""

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        """Returns about `limit` sessions whose keys match, and the next cursor. Raises StoreError, and ValueError for
        an invalid cursor."""

    def close(self) -> None: ...


class OneServer(Servers):
    name = "redis"

    def __init__(self, url: str, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self.runs = Runs()
        self._link = Link(url, timeout_ms, self.runs)

    def link(self, group: int) -> Link:
        return self._link

    def at_hand(self) -> Link | None:
        return self._link

    def check(self, wait_replicas: int) -> StoreFacts:
        return check_server(self._link, wait_replicas)

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        """Uses SCAN's cursor; a session may appear on two pages if Redis rehashes in between."""
        if cursor and not (is_scan_cursor(cursor) and int(cursor)):
            raise bad_cursor(cursor)
        sessions, at = page_at(self._link, pattern, int(cursor or "0"), limit)
        return sessions, str(at or "")

    def close(self) -> None:
        self._link.close()


class Freshness:
    """Whether the servers must be asked again: at first, and after each doubt. Safe to use from several threads, and
    never waits.

    Every doubt is an object of its own, which an answer refers to. With a flag, an answer would also clear the doubts
    that came while it was on its way.
    """

    def __init__(self) -> None:
        self._doubt = object()
        self._answered: object = None

    @property
    def is_stale(self) -> bool:
        return self._answered is not self._doubt

    def doubt(self) -> None:
        """Notes that what is known may no longer be true."""
        self._doubt = object()

    def asking(self) -> object:
        """Returns what to pass to `answered`. Call it before the servers are asked."""
        return self._doubt

    def answered(self, asking: object) -> None:
        """Notes that an answer was adopted: call it last, once other threads can see what the answer says."""
        self._answered = asking
