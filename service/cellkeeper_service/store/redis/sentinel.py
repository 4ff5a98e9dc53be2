"""A primary and replicas that Redis Sentinel monitors: which server is the primary, and when to ask. docs/adr/431."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple

from cellkeeper_service.domain.store import Listed, StoreError, StoreFacts

from ..cursor import bad_cursor
from .check import check_replicas, check_server, check_split
from .failures import CANNOT_NOW, Refused, Unreached, text_of
from .link import Link, info_fields
from .runs import Runs
from .scan import is_scan_cursor, page_at
from .servers import Detour, Freshness, Servers
from .url import Address, SentinelUrl
from .wire import RUN_ID_DIGITS

WATCH_S = 0.5
"""Seconds between two polls of the sentinels. A primary that is cut off from them, but not from us, answers as before:
only the sentinels can tell that a replica has taken over."""

_NO_REPLICAS = "NOREPLICAS "  # min-replicas-to-write: the server may be cut off, and no longer the primary

_logger = logging.getLogger(__name__)


class View(NamedTuple):
    """One sentinel's view of the primary.

    epoch: that of the configuration that names the address. down: the sentinels agree that it is down.
    """

    address: Address
    epoch: int
    down: bool


class _Primary(NamedTuple):
    """The known primary. epoch: that of the configuration that names it; every fail-over raises it. down: the sentinels
    agree that it is down."""

    address: Address
    epoch: int
    link: Link
    down: bool


class Sentinel(Servers):
    """A primary found through Redis Sentinel.

    url: redis+sentinel:// or rediss+sentinel://, see url.py. Only the sentinels that it names are asked.
    """

    name = "redis+sentinel"
    asks_role = True

    def __init__(self, url: str, timeout_ms: int) -> None:
        self.runs = Runs()
        self._url = SentinelUrl.read(url)
        self.timeout_ms = timeout_ms
        self._lock = Lock()
        self._freshness = Freshness()
        self._why = "no sentinel has been asked yet"
        self._primary: _Primary | None = None
        # In the order to ask; a sentinel that did not answer moves to the end.
        self._sentinels = [(at, Link(self._url.of_sentinel(at), timeout_ms)) for at in self._url.sentinels]
        self._closed = Event()
        self._watch = Thread(target=self._look, name="sentinels", daemon=True)

    def refresh(self) -> None:
        """Asks the sentinels the first time, and again after a call has failed."""
        if not self._freshness.is_stale:
            return
        with self._lock:
            if self._freshness.is_stale:
                asking = self._freshness.asking()
                self._take(self._views()[0], asking)
            self._start_watch()

    def link(self, group: int) -> Link:
        primary = self._primary
        if primary is None:
            raise Unreached(self._why)
        if primary.down:
            raise Unreached(
                f"the sentinels of {self._url.service!r} agree that its primary {primary.address} is down; a replica "
                "takes over, if one is in sync"
            )
        return primary.link

    def at_hand(self) -> Link | None:
        primary = self._primary
        return None if primary is None or self._freshness.is_stale or primary.down else primary.link

    def detour(self, link: Link, error: Exception) -> Detour | None:
        if isinstance(error, Refused):
            self.lost(link)
            return Detour()
        if isinstance(error, CANNOT_NOW) or str(error).startswith(_NO_REPLICAS):
            self.lost(link)
            return Detour(pause=True)
        return None

    def lost(self, link: Link) -> None:
        self._freshness.doubt()

    def check(self, wait_replicas: int) -> StoreFacts:
        silent = self._ask_everybody()
        with self._lock:
            self._start_watch()
        for address, why in silent.items():
            _logger.warning("Redis Sentinel: %s did not answer: %s", address, why)
        link = self.link(0)
        try:
            facts = check_server(link, wait_replicas, behind_sentinels=True)
            check_split(link, wait_replicas)
            link.one("ROLE")
        except StoreError as error:
            raise StoreError(f"primary of {self._url.service!r}: {error}") from error
        addresses = replica_addresses(self._sentinels[0][1], self._url.service)
        replicas = {str(at): Link(self._url.of_server(at), self.timeout_ms) for at in addresses}
        try:
            check_replicas(replicas, wait_replicas, behind_sentinels=True)
        finally:
            for replica in replicas.values():
                replica.close()
        return facts

    def page(self, pattern: bytes, cursor: str, limit: int) -> tuple[list[Listed], str]:
        """Uses SCAN's cursor, which is valid in one run of one server only; in another, the listing starts again."""
        process, _, at = cursor.partition(".")
        if cursor and not (len(process) == RUN_ID_DIGITS and is_scan_cursor(at)):
            raise bad_cursor(cursor)
        self.refresh()
        link = self.link(0)
        try:
            here = info_fields(link.one("INFO", "server")).get("run_id", "")
            sessions, after = page_at(link, pattern, int(at) if cursor and process == here else 0, limit)
            role = link.one("ROLE")[0]
        except StoreError:
            self.lost(link)
            raise
        if role != b"master":
            self.lost(link)
            raise Refused(f"the server is a {role.decode(errors='replace')} now, expected a master")
        return sessions, f"{here}.{after}" if after else ""

    def close(self) -> None:
        self._closed.set()
        with self._lock:  # from here on, `refresh` does not start the thread
            watching = self._watch.is_alive()
        if watching:
            self._watch.join()
        for _, link in self._sentinels:
            link.close()
        if self._primary is not None:
            self._primary.link.close()

    def _look(self) -> None:
        """Polls all sentinels: the one that led a fail-over knows first, and the others learn within seconds."""
        while not self._closed.wait(WATCH_S):
            try:
                self._ask_everybody()
            except Exception:  # noqa: PERF203 - if the thread ended, nobody would see a fail-over
                _logger.exception("internal error: the sentinels could not be asked")

    def _start_watch(self) -> None:
        """Starts the thread, unless it runs. The caller holds the lock."""
        if not self._watch.is_alive() and not self._closed.is_set():
            self._watch.start()

    def _ask_everybody(self) -> dict[Address, str]:
        """Asks all sentinels, without the lock, so that one that hangs delays nobody. Returns why some are silent."""
        known, asking = self._primary, self._freshness.asking()
        views, silent = self._views(everybody=True)
        with self._lock:
            now = self._primary
            if now is not None and now is not known:  # adopted meanwhile, perhaps from later views
                views = [view for view in views if view.epoch > now.epoch]
            self._take(views, asking)
        return silent

    def _views(self, *, everybody: bool = False) -> tuple[list[View], dict[Address, str]]:
        """Returns the sentinels' views, and why others did not answer. everybody: ask them all.

        Otherwise it stops after more than half have answered, because a caller is waiting, and because it takes a
        majority to elect the sentinel that promotes a replica.
        """
        views: list[View] = []
        silent: dict[Address, str] = {}
        deadline = monotonic() + self.timeout_ms / 1000.0
        for address, link in tuple(self._sentinels):
            try:
                views.append(ask_view(link, self._url.service))
            except StoreError as error:
                silent[address] = str(error)
            enough = 2 * len(views) > len(self._sentinels) or monotonic() > deadline
            if enough and not everybody:
                break
        self._sentinels = sorted(self._sentinels, key=lambda sentinel: sentinel[0] in silent)
        if not views:
            told = "; ".join(f"{address}: {why}" for address, why in silent.items())
            self._why = f"no sentinel reported the primary of {self._url.service!r}: {told}"
        return views, silent

    def _take(self, views: Sequence[View], asking: object) -> None:
        """Adopts the newest view. The caller holds the lock. asking: see `Freshness.asking`.

        Without any view, the known primary stays: it can work while the sentinels are gone.
        """
        if not views:
            return
        newest = max(views, key=lambda view: view.epoch)
        known = self._primary
        if known is None or newest.epoch >= known.epoch:  # otherwise they have not heard of the latest fail-over
            if known is None or newest.address != known.address:
                _logger.info("Redis Sentinel: the primary of %s is %s", self._url.service, newest.address)
                # The old link is dropped, not closed: another thread may be waiting for a reply.
                link = Link(self._url.of_server(newest.address), self.timeout_ms, self.runs)
            else:
                link = known.link
            self._primary = _Primary(newest.address, newest.epoch, link, newest.down)
        self._freshness.answered(asking)


def ask_view(link: Link, service: str) -> View:
    """Asks a sentinel for its view. Raises StoreError if it does not answer, or does not monitor this service."""
    master, where = link.call(("SENTINEL", "MASTER", service), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
    for reply in (master, where):
        if isinstance(reply, Exception):
            unknown = "No such master" in str(reply)
            why = f"it does not know {service!r} (sentinel monitor)" if unknown else "it refused"
            raise Refused(f"{why}: {text_of(reply)}")
    if not where:
        raise Refused(f"it does not know {service!r} (sentinel monitor)")
    fields = _fields(master)
    address = Address(where[0].decode(), int(where[1]))
    # During a fail-over, the two replies may differ: MASTER still describes the old primary, flags included, while
    # GET-MASTER-ADDR-BY-NAME already names the new one.
    flagged = Address(fields.get("ip", ""), int(fields.get("port", "0")))
    down = flagged == address and "o_down" in fields.get("flags", "").split(",")
    return View(address, int(fields.get("config-epoch", "0")), down)


def replica_addresses(link: Link, service: str) -> list[Address]:
    """Returns the replicas that the sentinel believes to be running. Raises StoreError."""
    found = [_fields(replica) for replica in link.one("SENTINEL", "REPLICAS", service)]
    running = [fields for fields in found if "s_down" not in fields.get("flags", "").split(",")]
    return [Address(fields["ip"], int(fields["port"])) for fields in running]


def _fields(reply: Sequence[Any]) -> dict[str, str]:
    """Parses a reply of alternating names and values."""
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))
