"""The store protocol: four calls, each of them one round trip for a whole tick.

Stores are synchronous and safe to call from several threads. A store uses its own clock for expiry, and may expire an
idle record up to a tenth of its TTL early.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from .record import Header, Record, SessionKey


class StoreError(Exception):
    """The store did not answer, or could not do what was asked. The message says what an operator can do."""


class StoreLost(StoreError):
    """The store's files were removed or replaced while open: whatever it accepted now could never be found again."""


class DamagedRecord(StoreError):
    """The store read something that cannot be a record; reading it again gives the same.

    header: the stored one, if it has the right length; its fields may be out of range.
    """

    def __init__(self, message: str, header: Header | None = None) -> None:
        super().__init__(message)
        self.header = header


class Postponed(StoreError):
    """The record was left out of a load of several, to bound the bytes that it reads; load it again.

    alone: load it on its own, because it is large. A load of one record is never postponed.
    """

    def __init__(self, alone: bool) -> None:
        super().__init__("left for another load")
        self.alone = alone


LOAD_BYTES = 4 * 1024 * 1024
"""Roughly the most that a load of several records reads; a larger record is read on its own."""


class Load(NamedTuple):
    """A request for one record. touch: refresh its TTL if it has one (for a peek, say, but not for a listing)."""

    key: SessionKey
    touch: bool


class Commit(NamedTuple):
    """Compare-and-set of one record, on its whole header.

    expected: the header that the record must have, byte for byte; None: there must be no record. Comparing the position
    is not enough: after a fail-over that lost a tail, another replica may have written the same history again on
    another checkpoint, and may have changed the TTL without moving the position.
    header: the new header; its position names the new point.
    log: with a checkpoint, the whole log after it; otherwise the bytes to append to the existing log.
    checkpoint: the state at header.checkpoint_step, which replaces state and log; None: append, which needs a
    record (with expected None it is REFUSED).
    """

    key: SessionKey
    expected: Header | None
    header: Header
    log: bytes
    checkpoint: bytes | None


class Delete(NamedTuple):
    """Removal of a record of this generation, at any step, or of one whose header cannot be read.

    generation: empty for a record without a readable header.
    """

    key: SessionKey
    generation: bytes


class Outcome(Enum):
    COMMITTED = "committed"  # done
    CONFLICT = "conflict"  # not done: the record is not as expected, or there is none
    REFUSED = "refused"  # not done: the store refused (full, read-only)
    UNREACHED = "unreached"  # not done: the store could not be reached, or served nothing at the time
    UNKNOWN = "unknown"  # no answer: it was done, will be done, or never will be


class CommitResult(NamedTuple):
    """The result of one commit or delete."""

    outcome: Outcome
    standing: Header | None = None  # on CONFLICT: the record's current header, if any
    message: str = ""  # on REFUSED, UNREACHED and UNKNOWN: why


COMMITTED = CommitResult(Outcome.COMMITTED)
"""The usual result. Stores return this very object, so that many of them can be counted by identity."""


Listed = tuple[SessionKey, Header | DamagedRecord]
"""A session of a page. Only its header was read: damage to its checkpoint or log does not show here."""


class Page(NamedTuple):
    """Some sessions, and the cursor of the next page; empty after the last one."""

    sessions: list[Listed]
    cursor: str


class StoreFacts(NamedTuple):
    """What operators need to know about a store, as found when it was checked; for the metrics.

    persistence: what survives a crash of its machine. eviction: its policy when it is full; "" if it has none.
    replicas: how many are connected; in a cluster, the fewest of any primary.
    restarts: how many restarts of the store's servers were noticed since this process opened it.
    """

    persistence: str
    eviction: str = ""
    replicas: int = 0
    restarts: int = 0


class Store(Protocol):
    """Where records live."""

    name: str  # for metrics and the start-up line: "memory", "sqlite", "redis", "redis+cluster", "redis+sentinel"

    def check(self) -> None:
        """Raises StoreError, with what to do, if the service must not use this store (unreachable, may evict)."""

    @property
    def facts(self) -> StoreFacts:
        """The facts that `check` found; `restarts` is current."""

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        """Returns one result for each, in order: the record, None if there is none, or why it could not be read.

        DamagedRecord means that the record itself is at fault, Postponed that it was left out to bound the load.
        Never raises.
        """

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        """Returns one result for each, in order. Keys are distinct.

        Never raises: after a timeout or a lost connection, every commit that it may have carried is UNKNOWN.
        """

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        """Returns one result for each, in order: COMMITTED if the record was removed; CONFLICT, with the record's
        header if there is one, if it has another generation or is not there; REFUSED, UNREACHED or UNKNOWN as for
        commits."""

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """Returns about `limit` sessions whose id starts with `prefix`, in no particular order; start with cursor "".

        A session that exists from the first page to the last is listed, perhaps twice. A page with a cursor may be
        empty. Raises StoreError, and ValueError for a cursor that this store did not return.
        """

    def close(self) -> None:
        """Closes connections and files."""
