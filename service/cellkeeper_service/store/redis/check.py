"""Checks, once at start-up, that Redis servers are fit to keep records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from cellkeeper_service.domain.store import StoreError, StoreFacts

from .failures import MayEvict, check_eviction
from .link import Link, info_fields
from .rights import BEHIND_SENTINELS, OF_CLUSTERS, OF_WAITING, Denied, check_rights

OLDEST_VERSION = (7, 0)  # older ones wrap every script in a transaction, even one with a single write: docs/adr/203

_logger = logging.getLogger(__name__)


def check_server(
    link: Link, wait_replicas: int, *, in_cluster: bool = False, behind_sentinels: bool = False
) -> StoreFacts:
    """Raises StoreError, with what to do, if records could be lost or could not be written at all.

    Logs a warning if the server is less durable than may be expected (no append-only file, too few replicas).
    """
    info = server_info(link)
    version = info.get("redis_version", "")
    if _version(version) < OLDEST_VERSION:
        raise StoreError(f"Redis is version {version or 'unknown'}, expected 7.0 or newer; upgrade it")
    if info.get("role") != "master":
        raise StoreError(f"Redis has the role {info.get('role')!r}, expected 'master'; name the primary in the URL")
    if info.get("cluster_enabled") == "1" and not in_cluster:
        raise StoreError("Redis runs in cluster mode, expected a single server; use redis+cluster://HOST:PORT")
    check_eviction(info)
    check_rights(link, _rights(wait_replicas, in_cluster=in_cluster, behind_sentinels=behind_sentinels))
    if info.get("aof_enabled") != "1":
        _logger.warning(
            "Redis has no append-only file: a crash loses everything since its last snapshot; set appendonly yes, and "
            "appendfsync always if not even the last second may be lost"
        )
    replicas = int(info.get("connected_slaves", "0"))
    if replicas < wait_replicas:
        _logger.warning(
            "Redis has %s connected replicas, expected wait_replicas (%d): nothing is acknowledged until they connect",
            replicas,
            wait_replicas,
        )
    return StoreFacts(_persistence(link, info), info.get("maxmemory_policy", ""), replicas)


def check_cluster(primaries: Mapping[str, Link], replicas: Mapping[str, Link], wait_replicas: int) -> StoreFacts:
    """Checks every primary of a cluster as `check_server` does, and its replicas' eviction policy; both by address."""
    found = []
    for address, link in primaries.items():
        try:
            facts = check_server(link, wait_replicas, in_cluster=True)
            state = info_fields(link.one("CLUSTER", "INFO")).get("cluster_state")
        except StoreError as error:
            raise StoreError(f"node {address}: {error}") from error
        if state != "ok":
            raise StoreError(
                f"node {address}: cluster_state is {state!r}, expected 'ok'; see redis-cli --cluster check {address}"
            )
        found.append(facts)
    check_replicas(replicas, wait_replicas, in_cluster=True)
    persistence = sorted({facts.persistence for facts in found})
    return StoreFacts(" and ".join(persistence), found[0].eviction, min(facts.replicas for facts in found))


def check_split(link: Link, wait_replicas: int) -> None:
    """Logs a warning if a primary that is cut off would keep accepting writes, which the fail-over then discards."""
    if wait_replicas == 0 and "min_slaves_good_slaves" not in server_info(link):
        _logger.warning(
            "Redis has no min-replicas-to-write: a primary that is cut off from its replicas keeps accepting writes, "
            "which are lost when one of them takes over; set min-replicas-to-write 1 and min-replicas-max-lag, or "
            "--wait-replicas"
        )


def check_replicas(
    replicas: Mapping[str, Link], wait_replicas: int, *, in_cluster: bool = False, behind_sentinels: bool = False
) -> None:
    """Raises StoreError if a replica may evict; logs a warning for one that does not answer, or that would refuse what
    the store needs once it has taken over. replicas: by address."""
    rights = _rights(wait_replicas, in_cluster=in_cluster, behind_sentinels=behind_sentinels)
    for address, link in replicas.items():
        _check_replica(address, link, rights)


def _check_replica(address: str, link: Link, rights: Sequence[str]) -> None:
    try:
        check_eviction(server_info(link))
        check_rights(link, rights)
    except MayEvict as error:
        raise StoreError(f"replica {address}: {error}") from error
    except Denied as error:
        _logger.warning("Redis: the replica %s could not take over: %s", address, error)
    except StoreError as error:
        _logger.warning("Redis: the replica %s does not answer: %s", address, error)


def _rights(wait_replicas: int, *, in_cluster: bool, behind_sentinels: bool) -> Sequence[str]:
    """Returns what the store runs on such a server besides the COMMANDS."""
    return (
        *(OF_CLUSTERS if in_cluster else ()),
        *(BEHIND_SENTINELS if behind_sentinels else ()),
        *(OF_WAITING if wait_replicas else ()),
    )


def server_info(link: Link) -> dict[str, str]:
    """Returns the fields of INFO, which has what CONFIG GET would say, and is allowed where CONFIG is not."""
    return info_fields(link.one("INFO"))


def _persistence(link: Link, info: Mapping[str, str]) -> str:
    """Returns the appendfsync policy if the user may read it, otherwise what INFO says."""
    if info.get("aof_enabled") != "1":
        return "no append-only file"
    try:
        _, policy = link.one("CONFIG", "GET", "appendfsync")
    except (StoreError, ValueError):
        return "append-only file"
    return f"appendfsync {policy.decode(errors='replace')}"


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
