"""Whether a Redis server is fit to keep records: asked once, when the service starts."""

from __future__ import annotations

import logging

from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.redis_link import Link

OLDEST_VERSION = (6, 2)

_logger = logging.getLogger(__name__)


def check_server(link: Link, wait_replicas: int) -> None:
    """Raises StoreError, with what to do, where records could be lost or could not be written at all.

    Logs a warning where the server keeps less than may be expected (no append-only file, too few replicas).
    """
    info = server_info(link)
    version = info.get("redis_version", "")
    if _version(version) < OLDEST_VERSION:
        raise StoreError(f"Redis is version {version or 'unknown'}, expected 6.2 or newer; upgrade it")
    if info.get("role") != "master":
        raise StoreError(f"Redis has the role {info.get('role')!r}, expected 'master'; name the primary in the URL")
    if info.get("cluster_enabled") == "1":
        raise StoreError("Redis runs in cluster mode, expected a single server; name one that is not in a cluster")
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        raise StoreError(
            f"Redis has maxmemory-policy {policy!r}, which may drop sessions, expected 'noeviction'; run "
            "CONFIG SET maxmemory-policy noeviction, and put it into redis.conf"
        )
    if info.get("aof_enabled") != "1":
        _logger.warning(
            "Redis has no append-only file: a crash loses what came after its last snapshot; set appendonly "
            "yes, and appendfsync always where not even the last second may be lost"
        )
    if int(info.get("connected_slaves", "0")) < wait_replicas:
        _logger.warning(
            "Redis has %s replicas connected, wait_replicas is %d: every commit is unknown without them",
            info.get("connected_slaves", "0"),
            wait_replicas,
        )


def server_info(link: Link) -> dict[str, str]:
    """INFO, field by field. It has what CONFIG GET would tell, and is allowed where CONFIG is not."""
    text: bytes = link.one("INFO")
    fields = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in fields if colon}


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
