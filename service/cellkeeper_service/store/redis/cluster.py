"""The nodes of a Redis Cluster: which node has which bucket, and where to go when that changes."""

from __future__ import annotations

from threading import Lock
from time import monotonic
from urllib.parse import SplitResult, parse_qs

import redis

from cellkeeper_service.domain.store import Listed, StoreError, StoreFacts

from .check import check_cluster
from .cluster_scan import ClusterScan
from .failures import CANNOT_NOW, Refused, Unreached
from .keys import bucket_of
from .link import Link
from .runs import Runs
from .servers import Detour, Freshness, Servers
from .slots import OUR_SLOTS, SLOT_OF_BUCKET, Slots, read_slots
from .url import Address, check_options, read_address, split_url

FORM = "redis+cluster://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]"
DEFAULT_PORT = 6379


class Cluster(Servers):
    """A Redis Cluster. url: redis+cluster:// or rediss+cluster:// with any of its nodes; the others are discovered."""

    name = "redis+cluster"  # `asks_role` is False: a replica redirects callers by itself

    def __init__(self, url: str, timeout_ms: int) -> None:
        self.runs = Runs()
        self._url, seeds = _read_url(url)
        self.timeout_ms = timeout_ms
        self._lock = Lock()  # held while nodes are asked
        self._freshness = Freshness()
        self._why = "it has not been asked yet"
        self._slots = Slots({}, {}, {})
        self._seeds = seeds
        self._known = list(seeds)  # in the order to ask; a node that was asked, or failed, moves to the end
        self._links_lock = Lock()  # never held while anything is waited for
        self._links = {address: self._new_link(address) for address in seeds}

    def group(self, key: bytes) -> int:
        return SLOT_OF_BUCKET[bucket_of(key)]

    def refresh(self) -> None:
        """Asks one node after another until one knows an owner for each of our slots, or the timeout has passed.

        If none does, the answer with the most slots is used: a node that has just joined, or has forgotten the others,
        knows fewer.
        """
        if not self._freshness.is_stale:
            return
        with self._lock:
            if self._freshness.is_stale:
                self._ask()

    def link(self, group: int) -> Link:
        address = self._slots.owners.get(group)
        if address is None:
            self._freshness.doubt()
            raise Unreached(self._nowhere(group))
        return self._link_at(address)

    def detour(self, link: Link, error: Exception) -> Detour | None:
        if isinstance(error, redis.exceptions.AskError):  # (MovedError is a subclass)
            moved = isinstance(error, redis.exceptions.MovedError)
            if moved:
                self._freshness.doubt()
            target = self._link_at(Address(error.host or self._address_of(link).host, error.port))
            return Detour(target, asking=not moved, singly=not moved)
        if isinstance(error, redis.exceptions.TryAgainError):
            return Detour(singly=True, pause=True)
        if isinstance(error, Refused):
            self.lost(link)
            return Detour()
        if isinstance(error, CANNOT_NOW):
            self._freshness.doubt()
            return Detour(pause=True)
        return None

    def lost(self, link: Link) -> None:
        with self._lock:
            self._to_the_end(self._address_of(link))
        self._freshness.doubt()

    def check(self, wait_replicas: int) -> StoreFacts:
        with self._lock:
            answered = self._ask()
        if not answered:
            raise StoreError(self._silent())
        slots = self._slots
        if not slots.primaries:
            raise StoreError(
                "no node of the Redis Cluster has slots, as far as the nodes in the URL know; see redis-cli --cluster "
                "create, or --cluster add-node"
            )
        nodes = {str(address): self._link_at(address) for address in slots.primaries.values()}
        replicas = {str(address): self._link_at(address) for address in slots.replicas.values()}
        facts = check_cluster(nodes, replicas, wait_replicas)
        uncovered = sorted(OUR_SLOTS - set(slots.owners))
        if uncovered:
            raise StoreError(
                f"slot {uncovered[0]}, and {len(uncovered) - 1} more that are needed, have no node in the Redis "
                "Cluster; see redis-cli --cluster check, and --cluster fix"
            )
        return facts

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        scan = ClusterScan(cursor)
        sessions: list[Listed] = []
        self.refresh()
        for _ in range(len(self._slots.primaries) or 1):
            sessions += self._part(scan, pattern, limit)
            if scan.disturbed or len(sessions) >= limit or not scan.cursor():
                break
        return sessions, scan.cursor()

    def close(self) -> None:
        with self._links_lock:
            links = list(self._links.values())
        for link in links:
            link.close()

    def _ask(self) -> bool:
        """Asks as `refresh` says. Returns False if no node answered. The caller holds the lock."""
        asking, deadline = self._freshness.asking(), monotonic() + self.timeout_ms / 1000.0
        best: Slots | None = None
        for address in tuple(self._known):
            self._to_the_end(address)
            try:
                slots = read_slots(self._link_at(address).one("CLUSTER", "SLOTS"), address)
            except StoreError as error:
                self._why = f"{address}: {error}"
            else:
                if best is None or len(slots.owners) > len(best.owners):
                    best = slots
            if monotonic() > deadline or (best is not None and len(best.owners) == len(OUR_SLOTS)):
                break
        if best is None:
            return False
        self._take(best)
        self._freshness.answered(asking)
        return True

    def _part(self, scan: ClusterScan, pattern: bytes, limit: int) -> list[Listed]:
        """Continues a listing on one node."""
        if scan.between_nodes:
            self._freshness.doubt()
        self.refresh()
        slots = self._slots
        if scan.between_nodes:
            wanted = tuple(scan.wanted_slots())
            owner = next((slots.owners[group] for group in wanted if group in slots.owners), None)
            if owner is None:
                self._freshness.doubt()
                raise Refused(self._nowhere(wanted[0]))
            scan.node = next(name for name, at in slots.primaries.items() if at == owner)
        address = slots.primaries.get(scan.node)
        sessions = scan.skip() if address is None else scan.page(self._link_at(address), pattern, limit)
        if scan.disturbed:
            self._freshness.doubt()
        return sessions

    def _nowhere(self, group: int) -> str:
        if not self._slots.owners:
            return self._silent()
        return f"slot {group} has no node in the Redis Cluster; see redis-cli --cluster check, and --cluster fix"

    def _silent(self) -> str:
        return f"no node of the Redis Cluster reported its slots; the last one tried: {self._why}"

    def _take(self, slots: Slots) -> None:
        named = {*slots.primaries.values(), *slots.replicas.values()}
        keep = named | set(self._seeds)
        self._known = [at for at in self._known if at in keep]
        self._known[:0] = [at for at in named if at not in self._known]
        # Links are dropped, not closed: another thread may be waiting for a reply.
        with self._links_lock:
            self._links = {at: link for at, link in self._links.items() if at in keep}
        self._slots = slots

    def _to_the_end(self, address: Address) -> None:
        if address in self._known:
            self._known.remove(address)
            self._known.append(address)

    def _link_at(self, address: Address) -> Link:
        with self._links_lock:
            link = self._links.get(address)
            if link is None:
                link = self._links[address] = self._new_link(address)
            return link

    def _address_of(self, link: Link) -> Address:
        with self._links_lock:
            return next((at for at, other in self._links.items() if other is link), self._seeds[0])

    def _new_link(self, address: Address) -> Link:
        user, at, _ = self._url.netloc.rpartition("@")
        return Link(self._url._replace(netloc=f"{user}{at}{address}").geturl(), self.timeout_ms, self.runs)


def _read_url(url: str) -> tuple[SplitResult, list[Address]]:
    """Returns a node's URL, whose host is still to be filled in, and the nodes that `url` names."""
    parts = split_url(url, FORM)
    check_options(parts, FORM)
    for database in (parts.path.removeprefix("/"), *parse_qs(parts.query).get("db", ())):
        if database not in ("", "0"):
            raise StoreError(f"store: got database {database!r}, expected none: a Redis Cluster has only 0")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    seeds = [read_address("node", host, DEFAULT_PORT, FORM) for host in hosts]
    return parts._replace(scheme=parts.scheme.partition("+")[0], path=""), seeds
