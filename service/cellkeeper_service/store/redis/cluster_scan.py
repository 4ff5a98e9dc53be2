"""Lists the sessions of a Redis Cluster while its slots may move.

SCAN covers what one server process holds at the moment, and its cursor is valid in that process only. So the
listing keeps a set of buckets still to do. It picks a node that has some of them and scans that node's keys. At the end
of the scan, a bucket is done if, at the start and after every page, the node said that it owned the bucket's slot and
was not migrating it away. After a restart, a fail-over or a move, the buckets concerned are scanned again, wherever
they are by then.

So a session that exists from the first page to the last is listed, perhaps several times, unless its slot moved away
and back between two pages, or a fail-over lost it. The bucket of a migrating slot cannot be finished: after more than
TRIES scans in a row that finish no bucket, the listing fails. It can continue from the same cursor after the migration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cellkeeper_service.domain.store import Listed, StoreError

from ..cursor import bad_cursor
from .keys import BUCKETS
from .link import Link, info_fields
from .scan import headers_at, headers_of, is_scan_cursor, scan_names
from .slots import SLOT_OF_BUCKET, STANDING_COMMANDS, Standing, read_standing

TRIES = 20

_ALL = (1 << BUCKETS) - 1
_CURSOR = re.compile(r"([0-9a-f]{1,32})\.([0-9a-f]{1,32})\.([0-9]{1,3})\.([0-9]+)\.([0-9a-f]{40})?\.([0-9a-f]{40})?")


class ClusterScan:
    """One listing, at the place that a cursor names. Raises ValueError for an invalid cursor."""

    def __init__(self, cursor: str) -> None:
        self.node = ""  # the id of the node that is being scanned
        self.disturbed = False  # a bucket moved, or the node changed
        self._todo = _ALL  # a bit for each bucket still to do
        self._doing = 0  # those of them that the scan of this node will finish
        self._tries = 0  # scans in a row that finished no bucket
        self._at = 0
        self._process = ""
        if cursor:
            match = _CURSOR.fullmatch(cursor)
            if match is None or not is_scan_cursor(match[4]):
                raise bad_cursor(cursor)
            self._todo, self._doing = int(match[1], 16), int(match[2], 16)
            self._tries, self._at = int(match[3]), int(match[4])
            self.node, self._process = match[5] or "", match[6] or ""
            named = self.node and self._process
            if (self._doing and not named) or self._doing & ~self._todo or not self._todo:
                raise bad_cursor(cursor)

    @property
    def between_nodes(self) -> bool:
        """Whether the caller must set `node` to the id of one that has one of `wanted_slots`, preferably the first."""
        return not self._doing

    def wanted_slots(self) -> Iterator[int]:
        return (SLOT_OF_BUCKET[bucket] for bucket in range(BUCKETS) if self._todo >> bucket & 1)

    def cursor(self) -> str:
        """Returns the cursor that continues the listing; empty at the end."""
        if not self._todo:
            return ""
        return f"{self._todo:x}.{self._doing:x}.{self._tries}.{self._at}.{self.node}.{self._process}"

    def skip(self) -> list[Listed]:
        """Gives up on a node that is no longer part of the cluster."""
        self._next(done=0)
        return []

    def page(self, link: Link, pattern: bytes, limit: int) -> list[Listed]:
        """Returns some sessions of the node at `link`. Raises StoreError."""
        if not self._doing:
            standing = _standing(link.call(*STANDING_COMMANDS))
            self._at, self._process, self._doing = 0, standing.process, self._settled(standing) & self._todo
            if not self._doing:
                return self.skip()
        names, self._at = scan_names(link, pattern, self._at, limit)
        replies = link.call(*headers_at(names), *STANDING_COMMANDS)  # in this order: checks the node after the reads
        standing = _standing(replies[-2:])
        before, self._doing = self._doing, self._doing & self._settled(standing)
        self.disturbed = before != self._doing or standing.process != self._process
        if standing.process != self._process or not self._doing:
            self._next(done=0)
        elif not self._at:
            self._next(done=self._doing)
        return headers_of(names, replies[:-2])

    def _next(self, done: int) -> None:
        """Ends the scan of a node. done: the buckets that it finished."""
        self._todo &= ~done
        self._tries = 0 if done else self._tries + 1
        self._doing, self._at, self.node, self._process = 0, 0, "", ""
        self.disturbed |= not done
        if self._tries > TRIES:
            slot = next(self.wanted_slots())
            raise StoreError(
                f"slot {slot} of the Redis Cluster is being moved; continue with the same cursor afterwards"
            )

    @staticmethod
    def _settled(standing: Standing) -> int:
        return sum(1 << bucket for bucket, slot in enumerate(SLOT_OF_BUCKET) if slot in standing.settled)


def _standing(replies: list[object]) -> Standing:
    info, nodes = replies
    if not (isinstance(info, bytes) and isinstance(nodes, bytes)):
        raise StoreError(f"Redis refused INFO or CLUSTER NODES: {info if isinstance(info, Exception) else nodes}")
    return read_standing(info_fields(info), nodes)
