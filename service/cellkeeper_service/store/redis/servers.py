"""The servers that a store's records are on: which of them has a key, and what to do where one sends a caller away."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cellkeeper_service.domain.store import Listed, StoreFacts
from cellkeeper_service.store.redis.check import check_server
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.runs import Runs
from cellkeeper_service.store.redis.scan import page_at

_CURSOR_MAX = 2**64 - 1


class Detour(NamedTuple):
    """Where a call that was not run goes next.

    link: the server, or None for the one that now has its keys.
    asking: after the command ASKING, as that server is still taking the slot over.
    singly: one key at a time, as the keys of one slot are on two servers for now.
    pause: after a moment, as the server cannot take it just now.
    """

    link: Link | None = None
    asking: bool = False
    singly: bool = False
    pause: bool = False


class Servers(Protocol):
    """What the store needs of its servers; safe to use from several threads."""

    name: str
    asks_role: bool
    """Whether a server is asked behind every call if it still is a primary: another may be one meanwhile."""
    runs: Runs

    def group(self, key: bytes) -> int:
        """Keys of one group can be in one script call."""

    def refresh(self) -> None:
        """Finds out again who has what, where that is known to be out of date. Never raises."""

    def link(self, group: int) -> Link:
        """The server that has the keys of a group. Raises Refused where there is none."""

    def at_hand(self) -> Link | None:
        """The one server that has every key, where that is known without asking anybody; None: not so."""

    def detour(self, link: Link, error: Exception) -> Detour | None:
        """`link` did not run a call, for this reason: where to go instead; None: nowhere."""

    def lost(self, link: Link) -> None:
        """`link` gave no answer: another may have its keys soon."""

    def check(self, wait_replicas: int) -> StoreFacts:
        """Raises StoreError, with what to do, where records could be lost or could not be written."""

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        """About `limit` sessions whose keys match, and the next cursor. Raises StoreError, and ValueError for a
        cursor that is not one."""

    def close(self) -> None: ...


class OneServer:
    """A single server: a cluster of one group, which never sends anybody elsewhere."""

    name = "redis"
    asks_role = False

    def __init__(self, url: str, timeout_ms: int) -> None:
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
        """The cursor is SCAN's; a session may be on two pages when Redis rehashes in between."""
        if cursor and not (cursor.isascii() and cursor.isdigit() and 0 < int(cursor) <= _CURSOR_MAX):
            raise ValueError(f"cursor: got {cursor!r}, expected one from an earlier page, or an empty one")
        sessions, at = page_at(self._link, pattern, int(cursor or "0"), limit)
        return sessions, str(at or "")

    def close(self) -> None:
        self._link.close()
