"""What the rest of the service needs of a store: four calls, each one round trip for a whole tick.

Stores are synchronous and safe to call from several threads. Time is passed in by nobody: a store keeps its own
clock for expiry, and may forget an idle record up to a tenth of its TTL early.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from .record import Header, Record, SessionKey


class StoreError(Exception):
    """The store did not answer, or answered that it cannot. The text says what an operator can do."""


class StoreLost(StoreError):
    """The store's files were taken away from under it: what it would accept now nobody would find again."""


class DamagedRecord(StoreError):
    """What the store holds was read and cannot be a record: reading it again gives the same.

    header: the stored one, where there is one of the right length; its fields may be out of range.
    """

    def __init__(self, message: str, header: Header | None = None) -> None:
        super().__init__(message)
        self.header = header


class Postponed(StoreError):
    """The record was left out of a load of several, so that their bytes stay bounded: it is to be asked for again.

    alone: by itself, for it is large. A load of one record is never postponed.
    """

    def __init__(self, alone: bool) -> None:
        super().__init__("left for another load")
        self.alone = alone


LOAD_BYTES = 4 * 1024 * 1024
"""About what a load of several records reads; a larger record is read by itself."""


class Load(NamedTuple):
    """Asks for one record. `touch` refreshes its TTL if it has one (a peek, say, but not a listing)."""

    key: SessionKey
    touch: bool


class Commit(NamedTuple):
    """Compare-and-set of one record, on its whole header.

    expected: the header that the record must have, every byte of it; None: there must be no record. The position alone
    would not do: after a fail-over lost a tail, another replica may have written the same history again behind another
    checkpoint, and may have changed the TTL without moving the position.
    header: the header after it; its position names the new point.
    log: with a checkpoint the whole log after it, otherwise the bytes to append to the log that is there.
    checkpoint: the state at header.checkpoint_step, replacing state and log; None: append, which needs a
    record (with expected None it is REFUSED).
    """

    key: SessionKey
    expected: Header | None
    header: Header
    log: bytes
    checkpoint: bytes | None


class Delete(NamedTuple):
    """Removes the record if it is of this generation, at whatever step, or if it has no header that could be read.
    generation: empty for a record without one."""

    key: SessionKey
    generation: bytes


class Outcome(Enum):
    COMMITTED = "committed"  # done
    CONFLICT = "conflict"  # not done: the record is another, or there is none
    REFUSED = "refused"  # not done: the store said that it would not (full, read-only)
    UNKNOWN = "unknown"  # no answer: it was done, will be done, or never will


class CommitResult(NamedTuple):
    """What became of one commit or delete."""

    outcome: Outcome
    standing: Header | None = None  # on a conflict: the record's header, if any
    message: str = ""  # on refused and unknown: why


COMMITTED = CommitResult(Outcome.COMMITTED)
"""The usual result; stores give this very object, so that many of them are counted at one look."""


Listed = tuple[SessionKey, Header | DamagedRecord]
"""A session of a page. Only headers are read: one whose checkpoint or log is damaged is listed like others."""


class Page(NamedTuple):
    """Some sessions, and where to go on: an empty cursor says that this was all."""

    sessions: list[Listed]
    cursor: str


class StoreFacts(NamedTuple):
    """What an operator wants to know of a store, as it was when it was checked; for the metrics.

    persistence: what a crash of its machine leaves. eviction: what it does when it is full; "" where it cannot be.
    replicas: connected ones; of a cluster, the fewest that a primary has.
    restarts: how often a server of the store was seen to have started again, since this process opened it.
    """

    persistence: str
    eviction: str = ""
    replicas: int = 0
    restarts: int = 0


class Store(Protocol):
    """Where records live."""

    name: str  # for metrics and the start-up line: "memory", "sqlite", "redis", "redis+cluster", "redis+sentinel"

    def check(self) -> None:
        """Raises StoreError, with what to do, if this store must not be served on (unreachable, may evict)."""

    @property
    def facts(self) -> StoreFacts:
        """As `check` found them; `restarts` as of now."""

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        """One result for each: the record, None where there is none, or why that one could not be read, DamagedRecord
        where that lies in the record itself, Postponed where it was not read for the sake of the others.

        Never raises.
        """

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        """One result for each, in order. Keys are distinct. Never raises; a timeout or a lost connection is
        UNKNOWN for every commit it may have carried."""

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        """COMMITTED where the record had that generation; CONFLICT, with its header, otherwise."""

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """About `limit` sessions whose id starts with `prefix`, in no particular order; start with cursor "".

        A session that is there from the first page to the last is listed, perhaps twice; a page with a cursor may be
        empty. Raises StoreError, and ValueError for a
        cursor that this store did not make.
        """

    def close(self) -> None:
        """Releases connections and files."""
