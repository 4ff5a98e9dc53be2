"""The servers that hold a store's records: which one has a key, and where to go if a server redirects a call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cellkeeper_service.domain.store import Listed, StoreFacts
from cellkeeper_service.store.cursor import bad_cursor
from cellkeeper_service.store.redis.check import check_server
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.runs import Runs
from cellkeeper_service.store.redis.scan import is_scan_cursor, page_at


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
    """The servers of a store; safe to use from several threads."""

    name: str
    timeout_ms: int  # to connect, and for each wait for a reply
    asks_role: bool
    """Whether to ask a server after every call if it is still a primary, because another may have taken over."""
    runs: Runs

    def group(self, key: bytes) -> int:
        """Returns the group of a key. Keys of the same group can share a script call."""

    def refresh(self) -> None:
        """Looks up again which server has which keys, if that is known to be out of date. Never raises."""

    def link(self, group: int) -> Link:
        """Returns the server that has the keys of a group. Raises Unreached if there is none."""

    def at_hand(self) -> Link | None:
        """Returns the one server that has every key, or None if that is not known without asking a server."""

    def detour(self, link: Link, error: Exception) -> Detour | None:
        """Returns where to send a call that `link` did not run for this reason; None: nowhere."""

    def lost(self, link: Link) -> None:
        """Notes that `link` did not answer, so that another server may soon have its keys."""

    def check(self, wait_replicas: int) -> StoreFacts:
        """Raises StoreError, with what to do, if records could be lost or could not be written."""

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        """Returns about `limit` sessions whose keys match, and the next cursor. Raises StoreError, and ValueError for
        an invalid cursor."""

    def close(self) -> None: ...


class OneServer:
    """A single server, which has every key and never redirects."""

    name = "redis"
    asks_role = False

    def __init__(self, url: str, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self.runs = Runs()
        self._link = Link(url, timeout_ms, self.runs)

    def group(self, key: bytes) -> int:
        return 0

    def refresh(self) -> None:
        pass

    def link(self, group: int) -> Link:
        return self._link

    def at_hand(self) -> Link | None:
        return self._link

    def detour(self, link: Link, error: Exception) -> Detour | None:
        return None

    def lost(self, link: Link) -> None:
        pass

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
