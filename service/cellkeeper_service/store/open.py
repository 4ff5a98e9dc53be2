"""Opens the store that a URL names."""

from __future__ import annotations

from cellkeeper_service.domain.store import Store, StoreError
from cellkeeper_service.store.memory import MemoryStore
from cellkeeper_service.store.sqlite import SqliteStore

FORMS = (
    "memory:, sqlite:PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix://PATH?db=DB, "
    "redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE[/DB] (rediss+... with TLS)"
)


def open_store(url: str, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> Store:
    """The store of `url`.

    url: "memory:"; "sqlite:PATH", "sqlite:///PATH" (absolute) or a plain path; "redis://...", "rediss://..."
        or "unix://..." for a socket file; "redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT" or
        "rediss+cluster://..." for a Redis Cluster, of which any nodes are named, and the others found.
        "redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DB" or "rediss+sentinel://..." names the sentinels
        of a primary and its replicas: redis_sentinel_url.py.
    timeout_ms: Redis: to connect, and for each wait for an answer; SQLite: to wait for other writers.
    wait_replicas: Redis only: how many replicas must have a commit.

    SQLite opens its file here; Redis is first asked by check(). Raises StoreError with what to do.
    """
    if timeout_ms < 1:
        raise StoreError(f"timeout_ms: got {timeout_ms}, expected at least 1")
    if wait_replicas < 0:
        raise StoreError(f"wait_replicas: got {wait_replicas}, expected at least 0")
    scheme, colon, rest = url.partition(":")
    if scheme in ("redis", "rediss", "unix") and rest.startswith("//"):
        # Only a service that keeps its records in Redis needs redis-py.
        from cellkeeper_service.store.redis import RedisStore
        from cellkeeper_service.store.redis_servers import OneServer

        return RedisStore(OneServer(url, timeout_ms), timeout_ms=timeout_ms, wait_replicas=wait_replicas)
    if scheme in ("redis+cluster", "rediss+cluster") and rest.startswith("//"):
        from cellkeeper_service.store.redis import RedisStore
        from cellkeeper_service.store.redis_cluster import Cluster

        return RedisStore(Cluster(url, timeout_ms), timeout_ms=timeout_ms, wait_replicas=wait_replicas)
    if scheme in ("redis+sentinel", "rediss+sentinel") and rest.startswith("//"):
        from cellkeeper_service.store.redis import RedisStore
        from cellkeeper_service.store.redis_sentinel import Sentinel

        return RedisStore(Sentinel(url, timeout_ms), timeout_ms=timeout_ms, wait_replicas=wait_replicas)
    if wait_replicas:
        raise StoreError(f"wait_replicas: got {wait_replicas} with a store that has no replicas, expected 0")
    if url == "memory:":
        return MemoryStore()
    if scheme == "sqlite" and colon:
        path = "/" + rest[3:].lstrip("/") if rest.startswith("///") else rest
        if path and not path.startswith("//"):
            return SqliteStore(path, timeout_ms=timeout_ms)
    elif url and ":" not in url:
        return SqliteStore(url, timeout_ms=timeout_ms)
    raise StoreError(f"store: got {url!r}, expected {FORMS}")
